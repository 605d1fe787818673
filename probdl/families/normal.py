"""Rows of numbers around a network's output: normal decoders, which differ in where their scale comes from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from probdl.families.conditional import Conditional, observed, summed

VARIANCE_FLOOR = 1e-5
GAIN = 5.0  # Adam's steps are of one size; a scale has further to go than weights, over orders of magnitude


class AnyNormalHead(Conditional):
    """Rows with independent normal entries; a subclass says what their mean and variance are."""

    @abstractmethod
    def moments(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, of x's shape (n, ...), and a variance that broadcasts to it."""

    def forward(self, given: Tensor) -> Independent:
        """Return p(· | given)."""
        mean, variance = self.moments(given)
        return Independent(Normal(mean, variance.sqrt(), validate_args=False), mean.ndim - 1, validate_args=False)

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, of its entries that are not NaN, (n,), in nats."""
        x, there = observed(x)
        mean, variance = self.moments(given)
        return summed(_terms((x - mean).square(), variance), there)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``."""
        mean, variance = self.moments(given)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + variance.sqrt() * noise


class NormalHead(AnyNormalHead):
    r"""Rows around a network's output, :math:`N(μ(z), \mathrm{diag}\,σ^2)`, with scales σ that all rows share.

    In training mode each batch is scored at its own best variance, the mean squared residual (plus a soft floor of
    1e-5, so that a perfect fit stays finite); ``variance`` follows it as a running mean. In eval mode every row is
    scored at ``variance``, which ``settle`` sets from the training rows: a true likelihood, the same for all rows.

    Args:
        network: (n, d) → x's shape (n, ...), the mean.
        entries: () for one σ; the shape of one row for a σ of each entry.
        momentum: of the running mean.

    Reference:
        Rybkin, Daniilidis and Levine (2021), Simple and effective VAE training with calibrated decoders, ICML.

    Example:
        >>> import torch
        >>> head = NormalHead(torch.nn.Linear(2, 3).double(), (3,)).double().eval()
        >>> head(torch.zeros(5, 2, dtype=torch.float64)).event_shape, head.variance.tolist()
        (torch.Size([3]), [1.0, 1.0, 1.0])
    """

    variance: Tensor

    def __init__(self, network: nn.Module, entries: Sequence[int] = (), momentum: float = 0.1) -> None:
        super().__init__(network)
        self.momentum = momentum
        self.register_buffer("variance", torch.ones(tuple(entries)))

    def moments(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's output, and ``variance``."""
        return self.network(given), self.variance

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given), (n,): at the batch's best variance in training mode, else at ``variance``."""
        squares, there = self._squares(x, given)
        variance = self._followed(squares.detach(), there) if self.training else self.variance
        if self.variance.ndim or there is not None:
            return summed(_terms(squares, variance), there)
        size = x[0].numel()  # one scale of rows that are complete: their sums of squares are enough
        return -0.5 * (summed(squares) / variance + size * (2 * math.pi * variance).log())

    @torch.no_grad()
    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set ``variance`` to the mean squared residual of all pairs, its maximum-likelihood value."""
        total, count = (torch.zeros_like(self.variance, dtype=torch.float64) for _ in range(2))
        for x, given in pairs:
            found = self._sums(*self._squares(x, given))
            total, count = total + found[0], count + found[1]
        self.variance.copy_(self._mean(total, count))

    def _squares(self, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the squared residuals, zero where an entry is missing, and whether it is there."""
        x, there = observed(x)
        squares = (x - self.network(given)).square()
        return (squares, None) if there is None else (squares * there, there)

    def _followed(self, squares: Tensor, there: Tensor | None) -> Tensor:
        """Return the batch's best variance; no gradient passes through it, for at its optimum that is zero."""
        if there is None:
            best = (squares.mean(0) if self.variance.ndim else squares.mean()) + VARIANCE_FLOOR
        else:
            best = self._mean(*self._sums(squares, there)).to(squares)
        self.variance.lerp_(best, self.momentum)
        return best

    def _sums(self, squares: Tensor, there: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sum of the squares, and how many they are: of each entry, or of all."""
        count = torch.ones_like(squares, dtype=torch.float64) if there is None else there.double()
        each = self.variance.ndim > 0
        return (squares.double().sum(0), count.sum(0)) if each else (squares.double().sum(), count.sum())

    def _mean(self, total: Tensor, count: Tensor) -> Tensor:
        """Return the mean of squares; an entry that no row has keeps its variance."""
        return torch.where(count > 0, total / count.clamp(min=1) + VARIANCE_FLOOR, self.variance.double())


class FreeScaleNormalHead(AnyNormalHead):
    r"""Rows around a network's output, with scales σ that are parameters and follow the gradient of any loss.

    Args:
        network: (n, d) → x's shape (n, ...), the mean.
        entries: () for one σ; the shape of one row for a σ of each entry.

    Example:
        >>> import torch
        >>> FreeScaleNormalHead(torch.nn.Linear(2, 3)).variance.item()
        1.0
    """

    def __init__(self, network: nn.Module, entries: Sequence[int] = ()) -> None:
        super().__init__(network)
        self.raw = nn.Parameter(torch.full(tuple(entries), math.log(1 - VARIANCE_FLOOR) / GAIN))

    @property
    def variance(self) -> Tensor:
        """The variance of each entry, or of all."""
        return (GAIN * self.raw).exp() + VARIANCE_FLOOR

    def moments(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's output, and the variance."""
        return self.network(given), self.variance


class NetworkScaleNormalHead(AnyNormalHead):
    r"""Rows whose mean and scale are both a network's, :math:`N(μ(z), \mathrm{diag}\,s(z)^2)`.

    .. math:: μ = a_K(h(z)), \qquad s^2 = b(h(z))^2 + 10^{-5}, \qquad b = \mathrm{softplus},

    where all layers but the last are shared. Without the floor the likelihood would be unbounded.

    Args:
        network: (n, d) → twice as many as a row along its first axis, (n, 2k, ...): means, then raw scales.
        shape: of one row, (k, ...).

    Example:
        >>> import torch
        >>> head = NetworkScaleNormalHead(torch.nn.Linear(2, 6), (3,))
        >>> head(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        super().__init__(network)
        self.shape = tuple(shape)

    def moments(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and the second half of the network's output."""
        mean, raw = self.network(given).chunk(2, 1)
        shape = (len(mean), *self.shape)
        return mean.reshape(shape), softplus(raw).square().reshape(shape) + VARIANCE_FLOOR


def _terms(squares: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * (squares / variance + (2 * math.pi * variance).log())
