"""Bandwidths by cross-validation: what each point says of the density that the others make."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.models.density.smoothing import Kernel
from probdl.models.density.tiles import Tiles

LEAVE_ONE_OUT = ("lscv", "likelihood")
SMALLEST, LARGEST, STEPS = 0.02, 5.0, 24  # the grid of bandwidths, as factors of Scott's


def best_factor(rule: str, z: Tensor, weights: Tensor, scott: float) -> float:
    """Return the factor s that minimises a criterion for the Gaussian kernel with bandwidth matrix s²I.

    The least value on a grid from 1/50 to 5 times Scott's factor is refined by Brent's method.

    Args:
        rule: "lscv" or "likelihood".
        z: rows (n, d) of unit covariance.
        weights: (n,), that sum to 1.
        scott: the factor of Scott's rule.

    Raises:
        ConvergenceError: if there is no minimum inside the grid.
    """
    from scipy.optimize import minimize_scalar

    of = {"lscv": least_squares, "likelihood": minus_log_likelihood}[rule]
    criterion = _of_logarithm(of, Tiles.of(z, weights))
    grid = torch.linspace(math.log(SMALLEST * scott), math.log(LARGEST * scott), STEPS).tolist()
    values = [criterion(t) for t in grid]
    best = min(range(STEPS), key=values.__getitem__)
    if best in (0, STEPS - 1):
        raise ConvergenceError(_why_not(rule, z, best == 0))
    found = minimize_scalar(
        criterion, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-7}
    )
    return math.exp(found.x)


def least_squares(x: Tiles, s: float) -> float:
    r"""Return the estimate :math:`\int \hat p^2 - 2 \sum_i w_i \hat p_{-i}(x_i)` of the squared error less a constant.

    Args:
        x: rows and their weights, that sum to 1.
        s: the bandwidth.

    Reference:
        Rudemo (1982); Bowman (1984), An alternative method of cross-validation, Biometrika 71.
    """
    kernel, d = Kernel("gaussian", False, x.points.shape[2]), x.points.shape[2]
    apart = replace(x, points=x.points / (s * math.sqrt(2)))
    own = kernel.log_sums(apart, apart).exp() / (s * math.sqrt(2)) ** d
    left_out = _left_out(x, s, kernel).exp()
    w = x.as_before(x.weights.flatten())
    return float(w @ (own - 2 * left_out))


def minus_log_likelihood(x: Tiles, s: float) -> float:
    r"""Return :math:`-\sum_i w_i \log \hat p_{-i}(x_i)`, the cross-validated likelihood. Arguments as above.

    Reference:
        Duin (1976), On the choice of smoothing parameters for Parzen estimators, IEEE Transactions on Computers 25.
    """
    w = x.as_before(x.weights.flatten())
    log = _left_out(x, s, Kernel("gaussian", False, x.points.shape[2]))
    return -float(w[w > 0] @ log[w > 0])


def _left_out(x: Tiles, s: float, kernel: Kernel) -> Tensor:
    """Return log p̂₋ᵢ(x_i) of each point under the estimate from all others."""
    w = x.as_before(x.weights.flatten())
    return kernel.log_sums(replace(x, points=x.points / s)) - kernel.dim * math.log(s) - torch.log1p(-w)


def _of_logarithm(criterion: Callable[[Tiles, float], float], x: Tiles) -> Callable[[float], float]:
    return lambda t: criterion(x, math.exp(t))


def _why_not(rule: str, z: Tensor, small: bool) -> str:
    twice = len(z) - len(z.unique(dim=0))
    if small:
        return (
            f"bandwidth={rule!r}: the criterion falls as the bandwidth goes to 0, and has no minimum; x has {twice} "
            f"duplicates among {len(z)} rows. Pass 'silverman', or a bandwidth of at least the width of the rounding."
        )
    return (
        f"bandwidth={rule!r}: the criterion still falls at {LARGEST:g} times Scott's bandwidth, as far outliers make "
        "it. Pass 'silverman', or look at the outliers."
    )
