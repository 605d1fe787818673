"""Where the encoder starts: at codes with the first two moments of the prior."""

from __future__ import annotations

import torch
from torch import Tensor


def moment_gap(z: Tensor) -> Tensor:
    r"""Return how far the first two moments of codes are from those of a standard normal, a scalar with gradients,

    .. math:: \frac1d |\bar z|^2 + \frac1d ‖\mathrm{Cov}(z) - I‖_F^2.

    Args:
        z: codes (n, d).

    Reference:
        Tolstikhin et al. (2018), Wasserstein auto-encoders, ICLR, whose code begins so.

    Example:
        >>> moment_gap(torch.tensor([[1.0], [-1.0]]))
        tensor(0.)
    """
    centred = z - z.mean(0)
    covariance = centred.T @ centred / len(z)
    gap = covariance - torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return (z.mean(0).square().sum() + gap.square().sum()) / z.shape[1]
