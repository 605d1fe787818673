"""The density of draws in the plane, by kernels on a grid whose bandwidth is chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probdl.access import Draws

SIDE = 200  # points along each axis of the grid
LEAST = 10  # draws of which a density can be estimated
FACTORS = (1.0, 0.7, 0.5, 0.35, 0.25)  # of Scott's bandwidth, among which cross-validation chooses


def of_draws(draws: Draws, masses: Sequence[float], name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Estimate the density of draws by kernels; return x, y, density and for each mass its height.

    A height leaves the stated share of the draws above it. The kernels have the covariance of the draws, and a
    bandwidth by least-squares cross-validation. A draw's own kernel does not count for its height: else the regions
    would be too small for new draws.

    Source: R. Hyndman (1996), Computing and graphing highest density regions, The American Statistician 50(2).
    """
    if draws.n < LEAST:
        raise ValueError(f"{name} must hold at least {LEAST} draws to estimate a density; got {draws.n}.")
    x = draws.x.cpu()
    w = torch.full((draws.n,), 1 / draws.n, dtype=x.dtype) if draws.weights is None else draws.weights.cpu()
    centre = w @ x
    covariance = ((x - centre) * w[:, None]).T @ (x - centre)
    spread = covariance.diagonal()
    if not bool((x.amax(0) > x.amin(0)).all()):
        raise ValueError(f"{name} must vary in both coordinates; got the same number {draws.n} times.")
    root = torch.linalg.cholesky(covariance + 1e-6 * spread.diag())
    z = torch.linalg.solve_triangular(root, (x - centre).T, upper=False).T
    grid, density, own = _smoothed(z, w)
    order = own.argsort(descending=True)
    share = w[order].cumsum(0)
    at = torch.searchsorted(share, torch.tensor(list(masses), dtype=x.dtype)).clamp_max(draws.n - 1)
    points = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1) @ root.T + centre
    return points[..., 0], points[..., 1], density, own[order][at]


def _smoothed(z: Tensor, w: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return a grid, the density there, and at each draw the density of the others, with the best bandwidth."""
    scott = float(w.square().sum()) ** (1 / 6)
    ends = torch.quantile(z, torch.tensor([0.003, 0.997], dtype=z.dtype), dim=0)
    low, high = (ends[0] - 4 * scott).tolist(), (ends[1] + 4 * scott).tolist()
    grid = [torch.linspace(low[i], high[i], SIDE, dtype=z.dtype) for i in (0, 1)]
    at = [(z[:, i] - low[i]) / (grid[i][1] - grid[i][0]) for i in (0, 1)]
    counts = _binned(at, w)
    best, risk = None, math.inf
    for factor in FACTORS:
        kernels = [_kernel(g, factor * scott) for g in grid]
        density = kernels[0] @ counts @ kernels[1].T
        top = w / (2 * math.pi * (factor * scott) ** 2)
        others = (_at(density, at) - top).clamp_min(0) / (1 - w)
        cell = (grid[0][1] - grid[0][0]) * (grid[1][1] - grid[1][0])
        now = float(density.square().sum() * cell - 2 * (w @ others))
        if now < risk:
            best, risk = (density, others), now
    assert best is not None
    return grid, *best


def _kernel(grid: Tensor, h: float) -> Tensor:
    return (-((grid[:, None] - grid) / h).square() / 2).exp() / (h * math.sqrt(2 * math.pi))


def _corners(at: list[Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return which draws lie on the grid, and for these the four nodes around each with their shares."""
    on = torch.stack([(a >= 0) & (a < SIDE - 1) for a in at]).all(0)
    (i, j), (s, t) = ([a[on].long() for a in at], [a[on] - a[on].floor() for a in at])
    corners = [(0, 0, (1 - s) * (1 - t)), (1, 0, s * (1 - t)), (0, 1, (1 - s) * t), (1, 1, s * t)]
    return on, [((i + a) * SIDE + j + b, share) for a, b, share in corners]


def _binned(at: list[Tensor], w: Tensor) -> Tensor:
    """Return the weights on the nodes of the grid, each shared among the four around its draw."""
    on, corners = _corners(at)
    total = torch.zeros(SIDE * SIDE, dtype=w.dtype)
    for node, share in corners:
        total.index_add_(0, node, w[on] * share)
    return total.reshape(SIDE, SIDE)


def _at(density: Tensor, at: list[Tensor]) -> Tensor:
    """Return the density at the draws by bilinear interpolation; 0 off the grid."""
    on, corners = _corners(at)
    value = torch.zeros(len(on), dtype=density.dtype)
    value[on] = sum(density.flatten()[node] * share for node, share in corners)
    return value
