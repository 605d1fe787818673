"""Quantiles of a Normal variable plus noise: of a new measurement of a function that is known up to a Normal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from probdl.models.gaussian_process_likelihoods import Noise

_CELLS = 401  # of the narrower distribution, over which the other is averaged


def predictive_quantiles(mean: Tensor, sd: Tensor, noise: Noise | None, levels: Sequence[float]) -> list[np.ndarray]:
    """Return the quantiles of f + noise at each level, for f ~ N(mean, sd²); without noise, those of f.

    Args:
        mean, sd: of f, (n,).
        noise: symmetric around 0; None for f itself.
        levels: each in (0, 1).

    Example:
        >>> import torch
        >>> from probdl.models.gaussian_process_likelihoods import NormalNoise
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> predictive_quantiles(0 * one, 3 * one, NormalNoise(one, 4.0), [0.975])[0].round(3)  # 1.96 × 5
        array([9.8])
    """
    from scipy.special import ndtri

    if noise is None or noise.kind == "normal":
        total = sd.numpy() if noise is None else np.sqrt(sd.numpy() ** 2 + noise.variance())
        return [mean.numpy() + total * ndtri(level) for level in levels]
    scale = noise.scale.item()
    return [mean.numpy() + _by_bisection(sd.numpy(), scale, noise, level) for level in levels]


def _by_bisection(sd: np.ndarray, scale: float, noise: Noise, level: float) -> np.ndarray:
    """Solve P(f + noise ≤ y) = level by 40 halvings of an interval that holds both this level and its mirror image."""
    high, reach = np.ones_like(sd), sd + scale
    while (short := (_cdf(high * reach, sd, scale, noise) < max(level, 1 - level))).any():
        high = np.where(short, 2 * high, high)
    low = -high
    for _ in range(40):
        middle = (low + high) / 2
        below = _cdf(middle * reach, sd, scale, noise) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2 * reach


def _cdf(y: np.ndarray, sd: np.ndarray, scale: float, noise: Noise) -> np.ndarray:
    """P(f + noise ≤ y), summed over the narrower of the two, as the distribution function of the wider is smooth."""
    from scipy.special import ndtr

    result, wide = np.empty_like(y), sd > scale
    nodes, weights = _cells(np.sinh(np.linspace(-9.9, 9.9, _CELLS + 1)), noise.cdf)
    result[wide] = ndtr((y[wide, None] - scale * nodes) / sd[wide, None]) @ weights
    nodes, weights = _cells(np.linspace(-8, 8, _CELLS + 1), ndtr)
    result[~wide] = noise.cdf((y[~wide, None] - sd[~wide, None] * nodes) / scale) @ weights
    return result


def _cells(edges: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return middles and probabilities of cells, the outermost with all that lies beyond."""
    below = cdf(edges)
    below[0], below[-1] = 0.0, 1.0
    return (edges[1:] + edges[:-1]) / 2, np.diff(below)
