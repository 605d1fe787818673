"""The kernel by which codes and draws from the prior are compared."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from probdl.divergences.kernels import squares

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class PriorKernel:
    r"""The mean of inverse multiquadratics around the size of the prior, a standard normal of d dimensions,

    .. math:: k(z, z') = \frac17 \sum_{s} \frac{2 d s}{2 d s + |z - z'|^2}, \qquad s ∈ \{.1, .2, .5, 1, 2, 5, 10\},

    in which 2d is the mean squared distance of two draws. Its values are at most 1, so an MMD² is at most 2; its tails
    are heavy, so codes that are far out feel it too.

    Args:
        latent_dim: d.

    Reference:
        Tolstikhin et al. (2018), Wasserstein auto-encoders, ICLR; their code sums the seven.

    Example:
        >>> import torch
        >>> PriorKernel(1)(torch.zeros(1, 1), torch.tensor([[0.0], [2.0]]))
        tensor([[1.0000, 0.3885]])
    """

    latent_dim: int

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Gram matrix (n, m)."""
        squared = squares(x, y)
        first, *others = ((squared / (2 * self.latent_dim * s) + 1).reciprocal() for s in SCALES)
        return sum(others, first) / len(SCALES)
