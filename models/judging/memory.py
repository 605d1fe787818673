"""Whether a model repeats its training rows: distances of samples to them beside those of held-out rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import distances
from probdl.models.judging.evaluation import Measure
from probdl.models.judging.halves import half_sample_variance, share_variance

NAMES = ("memorisation", "near_copies")
NEAR = 0.05  # part of the held-out rows that lie nearer to a training row than the threshold of near copies
TILE = 1024
SAME = 1e-7  # of the mean norm: distances below are rounding


def nearest(points: Tensor, train: Tensor) -> Tensor:
    """Return the distance of each point to the nearest training row; 0 where they are equal but for rounding."""
    found = torch.cat([distances(rows, train).amin(1) for rows in points.split(TILE)])
    return torch.where(found <= SAME * train.norm(dim=1).mean(), 0.0, found)


def measures(x: Tensor, y: Tensor, train: Tensor, seed: int) -> dict[str, Measure]:
    """Return both measures of memory for samples y beside held-out rows x, given the training rows."""
    a, b = nearest(x, train), nearest(y, train)
    return {"memorisation": memorisation(a, b), "near_copies": near_copies(a, b, seed)}


def memorisation(a: Tensor, b: Tensor) -> Measure:
    r"""Return how often a sample lies nearer to the training rows than a held-out row does,

    .. math:: P(A > B) + \tfrac12 P(A = B),

    A and B the distances of a held-out row and of a sample to their nearest training rows. It is 1/2 for new draws of
    the law of the held-out rows, and rises to 1 for a model that returns its training rows; below 1/2 samples lie
    farther out than real rows do.

    Args:
        a: distances of held-out rows, (n,).
        b: distances of samples, (m,).

    Reference:
        DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44(3), for the standard error; Meehan, Chaudhuri and
        Dasgupta (2020), A non-parametric test to detect data-copying in generative models, AISTATS, for the test.
    """
    from scipy.stats import mannwhitneyu

    n, m = len(a), len(b)
    nearer, farther = _shares_above(a, b), 1 - _shares_above(b, a)
    value = nearer.mean()
    variance = nearer.var() / m + farther.var() / n
    if not variance > 0:  # all samples are nearer than all held-out rows, or none is
        variance = share_variance(value, min(n, m))
    p_value = float(mannwhitneyu(a.cpu().numpy(), b.cpu().numpy(), alternative="greater").pvalue)
    copies = int((b == 0).sum())
    notes = (
        f"{copies} of {m} samples equal a training row, and {int((a == 0).sum())} of {n} held-out rows do",
        "given these training rows; the p-value is that of the one-sided rank test, that samples lie nearer to them",
    )
    estimate = Estimate(value.item(), math.sqrt(variance), "nearest training rows", "population", n + m, notes)
    return Measure(estimate, 0.5, math.sqrt((n + m + 1) / (12 * n * m)), "reference", p_value, (0.0, 1.0))


def near_copies(a: Tensor, b: Tensor, seed: int) -> Measure:
    """Return the share of samples that lie nearer to a training row than all but 5 % of the held-out rows do.

    The threshold is the k-th smallest of the n held-out distances, k = ⌊(n + 1)/20⌋; new draws of the same law lie
    below it with probability k/(n + 1). It sees a few copies among many new rows better than the rank test.

    Args:
        a: distances of held-out rows to their nearest training rows, (n,).
        b: distances of samples, (m,).
        seed: draws the halves behind the standard error.
    """
    n, m, k = len(a), len(b), _rank(len(a))
    share = _below(a, b)
    variance = torch.maximum(
        half_sample_variance(lambda u, v: _below(u, v)[None], a, b, seed)[0], share_variance(share, m)
    )
    notes: tuple[str, ...] = ()
    if bool(a.kthvalue(k).values == 0):
        notes = (
            "more than 5 % of the held-out rows equal a training row, so no sample can be nearer: it tells nothing",
        )
    estimate = Estimate(share.item(), math.sqrt(variance), "nearest training rows", "expected estimate", n + m, notes)
    spread = k * (n + 1 - k) * (n + 1 + m) / (m * (n + 1) ** 2 * (n + 2))  # of a beta-binomial share
    return Measure(estimate, k / (n + 1), math.sqrt(spread), "reference", limits=(0.0, 1.0))


def _shares_above(a: Tensor, b: Tensor) -> Tensor:
    """Return for each entry of b the share of a above it, ties by half."""
    ordered = a.sort().values
    low, high = (torch.searchsorted(ordered, b.contiguous(), right=right) for right in (False, True))
    return 1 - (low + high).to(a) / (2 * len(a))


def _rank(n: int) -> int:
    return max(1, math.floor(NEAR * (n + 1)))


def _below(a: Tensor, b: Tensor) -> Tensor:
    return (b < a.kthvalue(_rank(len(a))).values).to(a).mean()
