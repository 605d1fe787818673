"""MMD and energy of so many draws that not all pairs can be visited: averages over independent blocks.

Unlike the U-statistic over all pairs, such an average is normal also where the two laws are equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences import kernels
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import Kernel

TOGETHER = 2**18  # entries of the Gram matrices that are computed at once: they stay in the processor's cache
PAIRS = 5e10  # pairs of draws that the U-statistic visits, a few minutes on one core
PAIRS_GPU = 5e12
LARGEST = 500  # draws of each in a block by default: Gram matrices of 2 MB
FEWEST = 8  # blocks, below which their spread tells little


def check_pairs(x: Draws, y: Draws) -> None:
    """Raise unless all pairs of draws can be visited in some minutes."""
    pairs = (x.n + y.n) ** 2 / 2
    if pairs > (PAIRS if x.x.device.type == "cpu" else PAIRS_GPU):
        raise NotApplicable(
            f"{x.n} and {y.n} draws have {pairs:.1e} pairs, which would take hours; pass method='block' or "
            "'linear time', or fewer draws."
        )


def estimate(kernel: Kernel, x: Draws, y: Draws, size: int | None, method: str, seed: int, *notes: str) -> Estimate:
    """Average the unbiased statistic over random blocks of ``size`` draws of each; None takes √n, at most 500.

    Source: Zaremba, Gretton and Blaschko (2013), B-tests, NeurIPS; blocks of 2 are the linear-time estimator of
    Gretton et al. (2012), JMLR 13.
    """
    if x.weights is not None or y.weights is not None:
        raise NotApplicable(f"{method!r} takes draws of equal weights; pass method='u-statistic', or resample them.")
    n = min(x.n, y.n)
    size = size or min(max(2, math.isqrt(n)), LARGEST)
    count = n // size
    if count < FEWEST:
        raise ValueError(
            f"{method!r} needs at least {FEWEST} blocks of {size} draws of p and of q; got {x.n} and {y.n}."
        )
    with seeded(seed):
        orders = [torch.randperm(z.n)[: count * size].to(z.x.device) for z in (x, y)]
    values = _values(kernel, x.x, y.x.to(x.x.device), orders[0], orders[1].to(x.x.device), size)
    if x.n != y.n:
        notes += (f"{count * size} draws of each were used",)
    notes += (f"{count} blocks of {size} draws of each",)
    return Estimate(
        values.mean().item(), values.std().item() / math.sqrt(count), method, n=2 * count * size, notes=notes
    )


def _values(kernel: Kernel, x: Tensor, y: Tensor, i: Tensor, j: Tensor, size: int) -> Tensor:
    """Return the statistic of each block, some blocks at a time."""
    centre, together = x.mean(0), max(1, TOGETHER // size**2)
    values = x.new_empty(len(i) // size)  # one piece of memory: many small ones would keep the freed tiles apart
    for k in range(0, len(values), together):
        rows = slice(k * size, (k + together) * size)
        a, b = ((z[at[rows]] - centre).reshape(-1, size, z.shape[1]) for z, at in ((x, i), (y, j)))
        values[k : k + together] = statistics(kernel, a, b)
    return values


def statistics(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased squared MMD between the draws of each block (blocks, size, d)."""
    within = _off_diagonal(_grams(kernel, x, x)) + _off_diagonal(_grams(kernel, y, y))
    return within - 2 * _grams(kernel, x, y).mean((1, 2))


def _grams(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    ours = (kernels.RBF, kernels.InverseMultiquadratic)
    if kernel is kernels.negative_distance or isinstance(kernel, ours):
        return kernel(x, y)  # ours take blocks
    return torch.stack([kernel(a, b) for a, b in zip(x, y)])


def _off_diagonal(grams: Tensor) -> Tensor:
    n = grams.shape[1]
    return (grams.sum((1, 2)) - grams.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))
