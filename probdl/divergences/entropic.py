"""Entropic optimal transport between draws: dual potentials by Sinkhorn's iteration in the log domain.

No n × m matrix is kept: each half-iteration is a streamed log-sum-exp over tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probdl.divergences.kernels import distances, tile_of
from probdl.errors import ConvergenceError

TOLERANCE = 1e-5  # of the marginals of the plan; the error of the value is quadratic in it
STEPS = 1000
COARSE = 1500  # draws of each side on which potentials are found first; all draws then start near the solution
MEMORY = 10  # residuals that Anderson's acceleration combines
EASE = 0.25  # epsilon falls by this factor from the largest cost to the one that is asked


class Cloud(NamedTuple):
    """Points (n, d) and the logarithms of their weights (n,)."""

    x: Tensor
    log_w: Tensor


class Problem(NamedTuple):
    """Two clouds, the order of the cost |x − y|^order, and epsilon in units of the cost."""

    p: Cloud
    q: Cloud
    order: float
    epsilon: float


def costs(x: Tensor, y: Tensor, order: float) -> Tensor:
    """Return |xᵢ − yⱼ|^order; squares by a matrix product, which is fast, for points about a common centre."""
    if order == 2:
        squares = x.square().sum(-1)[:, None] + y.square().sum(-1)
        return torch.addmm(squares, x, y.T, alpha=-2.0)
    return distances(x, y) ** order


def soft_minimum(at: Tensor, q: Cloud, g: Tensor, order: float, epsilon: float) -> Tensor:
    """Return −ε log Σⱼ wⱼ exp((gⱼ − |xᵢ − yⱼ|^order)/ε) for each point xᵢ, tile by tile."""
    h, size = q.log_w + g / epsilon, tile_of(at)
    if order == 2:  # |x|² and |y|² leave the tile: what is left is one matrix product
        h = h - q.x.square().sum(1) / epsilon
    rows = [_row(a, q.x, h, order, epsilon, size) for a in at.split(size)]
    total = -epsilon * torch.cat(rows)
    return total + at.square().sum(1) if order == 2 else total


def _row(a: Tensor, y: Tensor, h: Tensor, order: float, epsilon: float, size: int) -> Tensor:
    parts = []
    for b, k in zip(y.split(size), h.split(size)):
        tile = torch.addmm(k[None], a, b.T, alpha=2 / epsilon) if order == 2 else k - distances(a, b) ** order / epsilon
        parts.append(tile.logsumexp(1))
    return parts[0] if len(parts) == 1 else torch.stack(parts).logsumexp(0)


def mean_cost(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float) -> float:
    """Return Σ vᵢ wⱼ |xᵢ − yⱼ|^order, tile by tile."""
    size = tile_of(x)
    tiles = (
        a @ (costs(s, t, order) @ b)
        for s, a in zip(x.split(size), v.split(size))
        for t, b in zip(y.split(size), w.split(size))
    )
    return sum(tile.item() for tile in tiles)


def potentials(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the dual potentials f (n,) and g (m,) of two clouds; ⟨v, f⟩ + ⟨w, g⟩ is the entropic cost."""
    p, q, order, epsilon = problem

    def other(f: Tensor) -> Tensor:
        return soft_minimum(q.x, p, f, order, epsilon)

    f = _solve(lambda f: soft_minimum(p.x, q, other(f), order, epsilon), _start(problem, potentials), problem)
    return f, other(f)


def self_potential(problem: Problem) -> Tensor:
    """Return the potential of a cloud against itself, by averaged updates, which converge fast."""
    p, _, order, epsilon = problem
    start = _start(problem, lambda coarse: 2 * [self_potential(coarse)])
    return _solve(lambda f: (f + soft_minimum(p.x, p, f, order, epsilon)) / 2, start, problem)


def _start(problem: Problem, solve: Callable[[Problem], list[Tensor] | tuple[Tensor, Tensor]]) -> Tensor:
    """Return a first potential: of many draws from some of them, of few from larger epsilons."""
    p, q, order, epsilon = problem
    if max(len(p.x), len(q.x)) > COARSE:
        some = Problem(_thinned(p), _thinned(q), order, epsilon)
        return soft_minimum(p.x, some.q, solve(some)[1], order, epsilon)
    f, g = torch.zeros_like(p.log_w), torch.zeros_like(q.log_w)
    largest = costs(p.x, q.x, order).max().item()
    while largest > epsilon:
        f = (f + soft_minimum(p.x, q, g, order, largest)) / 2
        g = (g + soft_minimum(q.x, p, f, order, largest)) / 2
        largest *= EASE
    return f


def _thinned(cloud: Cloud) -> Cloud:
    """Return at most COARSE points, evenly spread over the rows, with their weights made to sum to 1."""
    rows = torch.linspace(0, len(cloud.x) - 1, min(COARSE, len(cloud.x)), device=cloud.x.device).round().long()
    return Cloud(cloud.x[rows], cloud.log_w[rows].log_softmax(0))


def _solve(update: Callable[[Tensor], Tensor], f: Tensor, problem: Problem) -> Tensor:
    """Return the fixed point of the update by Anderson's acceleration, which restarts where it would do harm.

    Source: Walker and Ni (2011), Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 49(4).
    """
    half, best = problem.p.log_w.exp().sqrt(), math.inf
    points: list[Tensor] = []
    residuals: list[Tensor] = []
    for _ in range(STEPS):
        new = update(f)
        residual = new - f
        residual = residual - (half.square() @ residual)  # potentials are known up to a constant
        left = (half.square() @ residual.abs()).item() / problem.epsilon
        if left <= TOLERANCE:
            return new
        if not left <= 2 * best:
            points, residuals = [], []
        best = min(best, left)
        points, residuals = [*points, new][-MEMORY:], [*residuals, residual][-MEMORY:]
        f = _combined(points, residuals, half)
    raise ConvergenceError(
        f"Sinkhorn's iteration misses the marginals by {left:.2g} after {STEPS} steps (allowed: {TOLERANCE:g}); "
        f"pass an epsilon larger than {problem.epsilon:.3g}, the cost's own unit."
    )


def _combined(points: list[Tensor], residuals: list[Tensor], half: Tensor) -> Tensor:
    """Return the combination of the updated points whose residual is least."""
    if len(points) == 1:
        return points[0]
    steps = torch.stack([(residuals[-1] - r) * half for r in residuals[:-1]], 1)
    norms = steps.norm(dim=0).clamp_min(1e-300)
    last = (residuals[-1] * half)[:, None]
    gamma = torch.linalg.lstsq((steps / norms).cpu(), last.cpu(), driver="gelsd").solution
    moves = torch.stack([points[-1] - x for x in points[:-1]], 1)
    return points[-1] - moves @ (gamma[:, 0].to(moves) / norms)
