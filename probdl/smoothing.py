"""The density of numbers that were drawn, as a curve to be drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_density(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Gaussian kernel estimate with Scott's bandwidth, between the draws' extremes and a little beyond.

    Args:
        x: draws (n,) that are not all equal.

    Returns:
        Where, and the density there, both (200,) in float64.

    Example:
        >>> at, density = kernel_density(torch.linspace(0, 1, 200))
        >>> abs(float(torch.trapezoid(density, at)) - 1) < 0.05  # the tails beyond are left out
        True
    """
    from scipy.stats import gaussian_kde

    draws = x.cpu().double()
    grid = torch.linspace(-0.1, 1.1, 200, dtype=torch.float64) * (draws.max() - draws.min()) + draws.min()
    return grid, torch.as_tensor(gaussian_kde(draws.numpy())(grid.numpy()))
