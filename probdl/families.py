"""Conditional families: a module whose forward returns a distribution.

A network in ``probdl.nn`` maps numbers to numbers; a family here reads its output as the parameters of a
distribution, knows how to draw from it with a generator of one's own, and how to score rows by it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

SCALE_FLOOR = 1e-6
VARIANCE_FLOOR = 1e-5


class Conditional(nn.Module, ABC):
    """A family of distributions indexed by an input, p(· | given): forward returns a ``Distribution``.

    Args:
        network: maps what is given, (n, ...), to what the family reads as parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, given: Tensor) -> Distribution:
        """Return the distribution of one row for each row of ``given``; its batch shape is (n,)."""

    @abstractmethod
    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``; all randomness comes from the generator."""

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, summed over its dimensions, shape (n,), in nats."""
        return self(given).log_prob(x)

    @torch.no_grad()
    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fix, from pairs (x, given) of training rows, what training left open; most families leave nothing."""


class MeanFieldNormal(Conditional):
    r"""Independent normals, :math:`N(μ(x), \mathrm{diag}\,s(x)^2)`, with both from one network.

    Args:
        network: (n, ...) → (n, 2d), read as the mean and the raw scale; :math:`s = \mathrm{softplus}(\text{raw})`
            (plus 1e-6).

    Example:
        >>> import torch
        >>> q = MeanFieldNormal(torch.nn.Linear(3, 4).double())(torch.zeros(5, 3, dtype=torch.float64))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def forward(self, given: Tensor) -> Independent:
        """Return q(· | given), batch shape (n,), event shape (d,)."""
        mean, raw = self.network(given).chunk(2, -1)
        # Unchecked: a NaN here is for the loop to diagnose, and the check would cost a synchronisation each step.
        return Independent(Normal(mean, softplus(raw) + SCALE_FLOOR, validate_args=False), 1, validate_args=False)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row, (n, d)."""
        return reparameterised(self(given), generator, 1)[0]


def reparameterised(q: Independent, generator: torch.Generator, draws: int) -> Tensor:
    r"""Draws :math:`z = μ + s ⊙ ε`, ε standard normal, through which gradients flow; shape (draws, n, d)."""
    mean, scale = q.base_dist.loc, q.base_dist.scale
    noise = torch.randn((draws, *mean.shape), generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + scale * noise


def standard_normal_kl(q: Independent) -> Tensor:
    r"""KL from independent normals to the standard normal, one value for each row, in nats.

    .. math:: \mathrm{KL}(q ‖ N(0, I)) = \tfrac12 \sum_j (μ_j^2 + s_j^2 - 1 - \log s_j^2)

    Args:
        q: ``Independent(Normal(mean, scale), 1)`` with mean and scale of shape (n, d).

    Returns:
        Shape (n,).

    Example:
        >>> import torch
        >>> one = torch.ones(1, 2, dtype=torch.float64)
        >>> standard_normal_kl(Independent(Normal(one, one), 1))
        tensor([1.], dtype=torch.float64)
    """
    mean, scale = q.base_dist.loc, q.base_dist.scale
    return 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(-1)


class NormalHead(Conditional):
    r"""Rows around a network's output, :math:`N(μ(z), σ^2 I)`, with one scale σ that is learnt.

    In training mode each batch is scored at its own best variance, the mean squared residual (plus a soft floor of
    1e-5, so that a perfect fit stays finite); ``variance`` follows it as a running mean. In eval mode every row is
    scored at ``variance``, which ``settle`` sets from the training rows: a true likelihood, the same for all rows.

    Args:
        network: (n, d) → x's shape (n, ...), the mean.

    Reference:
        Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with calibrated decoders, ICML.

    Example:
        >>> import torch
        >>> head = NormalHead(torch.nn.Linear(2, 3).double()).double().eval()
        >>> head(torch.zeros(5, 2, dtype=torch.float64)).event_shape
        torch.Size([3])
    """

    variance: Tensor

    def __init__(self, network: nn.Module, momentum: float = 0.1) -> None:
        super().__init__(network)
        self.momentum = momentum
        self.register_buffer("variance", torch.ones(()))

    def forward(self, given: Tensor) -> Independent:
        """Return p(· | given) at the present ``variance``."""
        mean = self.network(given)
        normal = Normal(mean, self.variance.sqrt(), validate_args=False)
        return Independent(normal, mean.ndim - 1, validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given), (n,): at the batch's best variance in training mode, else at ``variance``."""
        squares, variance = self._squares(x, given), self.variance
        size = x[0].numel()
        if self.training:
            # Detached: at its optimum the variance passes no gradient on.
            variance = squares.detach().mean() / size + VARIANCE_FLOOR
            self.variance.lerp_(variance, self.momentum)
        return -0.5 * (squares / variance + size * (2 * math.pi * variance).log())

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``."""
        mean = self.network(given)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.variance.sqrt() * noise

    @torch.no_grad()
    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set ``variance`` to the mean squared residual of all pairs, its maximum-likelihood value."""
        total, count = torch.zeros((), dtype=torch.float64, device=self.variance.device), 0
        for x, given in pairs:
            total += self._squares(x, given).double().sum()
            count += x.numel()
        self.variance.copy_(total / count + VARIANCE_FLOOR)

    def _squares(self, x: Tensor, given: Tensor) -> Tensor:
        return (x - self.network(given)).square().reshape(len(x), -1).sum(1)


class BernoulliHead(Conditional):
    """Rows of zeros and ones with independent entries, given a network's logits.

    Args:
        network: (n, d) → x's shape (n, ...), the logits.

    Example:
        >>> import torch
        >>> head = BernoulliHead(torch.nn.Linear(2, 3).double())
        >>> head.log_prob(torch.ones(5, 3, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5])
    """

    def forward(self, given: Tensor) -> Independent:
        """Return p(· | given)."""
        logits = self.network(given)
        return Independent(Bernoulli(logits=logits, validate_args=False), logits.ndim - 1, validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given), (n,)."""
        return -binary_cross_entropy_with_logits(self.network(given), x, reduction="none").reshape(len(x), -1).sum(1)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw of zeros and ones for each row of ``given``."""
        p = self.network(given).sigmoid()
        return (torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device) < p).to(p.dtype)
