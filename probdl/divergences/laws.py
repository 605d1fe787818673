"""Wasserstein, MMD and energy of two distributions: sums over atoms, quadrature, and draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import Draws
from probdl.divergences import blocks, gaussian, kernels, line, quadrature, transport
from probdl.divergences.density import atoms
from probdl.divergences.distributions import dimension, double, draw, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import Kernel

BLOCK = 100  # draws in each block of a block-wise U-statistic
EXACT = 2000  # draws of each law that are passed to the exact solver


def _masses(p: Distribution, q: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Return the common atoms (k, d) and the probabilities of both laws, made to sum to 1."""
    p, q = double(p, "cpu"), double(q, "cpu")
    x = atoms(p, q)
    v, w = log_density(p, x).exp(), log_density(q, x).exp()
    return x, v / v.sum(), w / w.sum()


def wasserstein_of_atoms(p: Distribution, q: Distribution, order: float) -> Estimate:
    """Solve transport between the atoms of two discrete laws."""
    x, v, w = _masses(p, q)
    plan = transport.plan(x[v > 0], x[w > 0], v[v > 0], w[w > 0], order)
    return Estimate(transport.root(plan.cost, order), 0.0, "exact sum")


def mmd2_of_atoms(p: Distribution, q: Distribution, kernel: Kernel) -> Estimate:
    """Sum the kernel over the atoms of two discrete laws."""
    x, v, w = _masses(p, q)
    difference = v - w
    rows, _ = kernels.across(kernel, x, x, difference, difference)
    return Estimate((rows @ difference).item(), 0.0, "exact sum")


def energy_by_quadrature(p: Distribution, q: Distribution) -> Estimate:
    """Integrate the energy distance on the line, or of Gaussians in any dimension."""
    first, second = gaussian.gaussian(double(p, "cpu")), gaussian.gaussian(double(q, "cpu"))
    if first is None or second is None or dimension(p) == 1:
        return line.energy(p, q)
    scale = 1 / math.sqrt(first.covariance.trace() + second.covariance.trace())
    steps = 4.0 ** torch.arange(-60, 100, dtype=torch.float64)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), scale * steps])
    result = quadrature.integrate(lambda s: gaussian.energy_integrand(first, second, s)[:, None], edges)
    return quadrature.finish(result, edges, missing=0.0)


def wasserstein_by_draws(p: Distribution, q: Distribution, order: float, draws: int, seed: int) -> Estimate:
    """Draw from both laws and solve transport between the draws."""
    n = draws if dimension(p) == 1 else min(draws, EXACT)
    x, y = drawn(p, q, n, seed)
    how = "sorting" if dimension(p) == 1 else "exact transport"
    return transport.wasserstein(x, y, order, "monte carlo", seed, f"{how} of {n} draws of each")


def drawn(p: Distribution, q: Distribution, n: int, seed: int) -> tuple[Draws, Draws]:
    """Return n draws of each law."""
    return Draws(draw(p, n, 2 * seed)), Draws(draw(q, n, 2 * seed + 1))


def mmd2_by_draws(p: Distribution, q: Distribution, kernel: Kernel, draws: int, seed: int) -> Estimate:
    """Average unbiased U-statistics over independent blocks of draws: normal even where the laws are equal."""
    size = max(2, min(BLOCK, draws // 20))
    return blocks.estimate(kernel, *drawn(p, q, draws // size * size, seed), size, "monte carlo", seed)
