"""Independent normals with mean and scale from one network: what encoders are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from probdl.families.conditional import Conditional

SCALE_FLOOR = 1e-6


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

    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log q(x | given), (n,)."""
        return self(given).log_prob(x)


def reparameterised(q: Independent, generator: torch.Generator, draws: int) -> Tensor:
    r"""Draws :math:`z = μ + s ⊙ ε`, ε standard normal, through which gradients flow; shape (draws, n, d).

    Example:
        >>> import torch
        >>> mean = torch.zeros(3, 2, requires_grad=True)
        >>> z = reparameterised(Independent(Normal(mean, 1.0), 1), torch.Generator().manual_seed(0), draws=5)
        >>> z.sum().backward()
        >>> z.shape, mean.grad[0]  # each of 5 draws moves with its mean
        (torch.Size([5, 3, 2]), tensor([5., 5.]))
    """
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
    return standard_normal_kls(q).sum(-1)


def standard_normal_kls(q: Independent) -> Tensor:
    """Return the terms of ``standard_normal_kl``, one for each row and dimension, (n, d).

    Example:
        >>> import torch
        >>> mean = torch.tensor([[1.0, 0.0]])
        >>> standard_normal_kls(Independent(Normal(mean, 1.0), 1))
        tensor([[0.5000, 0.0000]])
    """
    mean, scale = q.base_dist.loc, q.base_dist.scale
    return 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log())
