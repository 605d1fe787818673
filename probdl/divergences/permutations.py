"""Two-sample tests by permutation: how often would a random relabelling of the draws look as different?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences import classifiers
from probdl.divergences.dispatch import NotApplicable, at_most, draws_of, hold_pair, positive_integer
from probdl.divergences.distributions import seeded
from probdl.divergences.kernels import RBF, TILE, Kernel, centred, median_bandwidth, negative_distance

NAMES = ("x", "y")
MOST = 5000  # draws of each side that a test uses: 10⁴ × 10⁴ kernel values, times the permutations, in seconds


@dataclass(frozen=True)
class TwoSampleTest:
    """The result of a two-sample test.

    Attributes:
        statistic: the observed value.
        p_value: the probability of a value at least as large under equality, (1 + k)/(1 + B); never 0.
        name: of the statistic.
        permutations: B, the number of random relabellings; k of them were at least as large.
        n: the number of draws whose labels were permuted.
        notes: what a careful reader should know.

    Example:
        >>> TwoSampleTest(0.012, 0.004, "energy", 999, 100)
        energy 0.012, p = 0.004 ± 0.002 (999 permutations, n=100)
    """

    statistic: float
    p_value: float
    name: str
    permutations: int
    n: int
    notes: tuple[str, ...] = field(default=())

    @property
    def stderr(self) -> float:
        """The standard error of ``p_value`` that comes of taking some of all relabellings at random."""
        return math.sqrt(self.p_value * (1 - self.p_value) / (1 + self.permutations))

    def __repr__(self) -> str:
        how = f"{self.permutations} permutations, n={self.n}"
        return f"{self.name} {self.statistic:.4g}, p = {self.p_value:.3g} ± {self.stderr:.1g} ({how})"


def two_sample_test(
    x: Any, y: Any, statistic: str | Kernel = "mmd2", permutations: int = 999, seed: int = 0
) -> TwoSampleTest:
    r"""Test whether x and y are draws of one distribution, by random relabellings of the pooled draws.

    .. math:: p = \frac{1 + \#\{b : T_b \ge T\}}{1 + B}

    The level is exact for every n: under equality :math:`P(p \le \alpha) \le \alpha`. All relabellings are computed
    from one Gram matrix, or from one fit of the classifier.

    Args:
        x: draws of shape (n, d) or (n,), or a distribution, which is sampled.
        y: as x.
        statistic: "mmd2" (an RBF whose bandwidth is the median distance of the pooled draws), "energy", or a kernel, a
            function of points (n, d) and (m, d) that gives the Gram matrix (n, m); or "classifier", the difference of
            mean logits of a classifier that half of the draws train and the others, which are relabelled, value.
        permutations: B, at least 19, with which p can reach .05.
        seed: of the relabellings.

    Returns:
        A ``TwoSampleTest`` with ``statistic`` (for kernels the unbiased estimate, as of :func:`mmd2`) and ``p_value``.
        Of more than 5000 draws of one side so many are used, at random, with a note.

    Raises:
        ValueError: for weighted or fewer than 2 draws, an unknown statistic, fewer than 19 permutations.

    Source:
        Gretton et al. (2012), A kernel two-sample test, JMLR 13; Phipson and Smyth (2010), Permutation P-values should
        never be zero, SAGMB 9(1); Cheng and Cloninger (2022), Classification logit two-sample testing, IEEE
        Transactions on Information Theory 68(10).

    Example:
        >>> x = torch.linspace(0, 1, 40, dtype=torch.float64)
        >>> two_sample_test(x, x + 0.5, statistic="energy")
        energy 0.3911, p = 0.001 ± 0.001 (999 permutations, n=80)
    """
    positive_integer(permutations, "permutations", least=19)
    p, q = hold_pair(x, y, NAMES)
    first, second, notes = draws_of(p, q, NAMES, seed)
    sides = [_usable(d, name, 2 * seed + i) for i, (d, name) in enumerate(zip((first, second), NAMES))]
    (a, more), (b, further) = sides
    name, run = _statistic(statistic, a, b.to(a.device), seed)
    values, n, extra = run(permutations)
    observed, permuted = values[0].item(), values[1:]
    # Relabellings that differ from the observed one only in rounding count as equal to it.
    slack = 1e-10 * max(abs(observed), permuted.abs().max().item())
    p_value = (1 + int((permuted >= observed - slack).sum())) / (1 + permutations)
    return TwoSampleTest(observed, p_value, name, permutations, n, (*notes, *more, *further, *extra))


def _usable(draws: Draws, name: str, seed: int) -> tuple[Tensor, tuple[str, ...]]:
    """Return the points of a side, at most MOST of them."""
    if draws.weights is not None:
        raise NotApplicable(
            f"{name} has weights, and weighted draws cannot be relabelled. Pass equally weighted draws; "
            "mmd2 and energy take weights and give an interval."
        )
    if draws.n < 2:
        raise NotApplicable(f"{name} must hold at least 2 draws; got {draws.n}.")
    part, notes = at_most(draws, MOST, name, seed)
    return part.x, notes


class Relabelled(NamedTuple):
    """The observed value and those of random relabellings, of how many draws, and notes."""

    values: Tensor
    n: int
    notes: tuple[str, ...]


Run = Callable[[int], Relabelled]  # of the number of relabellings


def _statistic(statistic: str | Kernel, x: Tensor, y: Tensor, seed: int) -> tuple[str, Run]:
    if callable(statistic):
        return "mmd2", lambda b: _by_kernel(statistic, x, y, b, seed)
    if statistic == "energy":
        return "energy", lambda b: _by_kernel(negative_distance, x, y, b, seed)
    if statistic == "mmd2":
        bandwidth = median_bandwidth(x, y, seed)
        note = f"RBF kernel of bandwidth {bandwidth:.6g}, the median distance of pooled draws"
        return "mmd2", lambda b: _by_kernel(RBF(bandwidth), x, y, b, seed, note)
    if statistic == "classifier":
        return "classifier", lambda b: _by_classifier(x, y, b, seed)
    raise ValueError(
        f'statistic must be "mmd2", "energy", "classifier" or a kernel, such as RBF(1.0); got {statistic!r}.'
    )


def _by_kernel(kernel: Kernel, x: Tensor, y: Tensor, permutations: int, seed: int, *notes: str) -> Relabelled:
    pooled = torch.cat(centred(x, y))
    values = u_statistics(kernel, pooled, labels(len(x), len(pooled), permutations, seed, pooled))
    return Relabelled(values, len(pooled), notes)


def _by_classifier(x: Tensor, y: Tensor, permutations: int, seed: int) -> Relabelled:
    if min(len(x), len(y)) < 2 * classifiers.LEAST:
        least = 2 * classifiers.LEAST
        raise NotApplicable(f"a classifier test needs at least {least} draws of each side; got {len(x)} and {len(y)}.")
    fx, fy, name = classifiers.held_out_logits(x, y, seed)
    logits = torch.cat([fx, fy])
    columns = labels(len(fx), len(logits), permutations, seed, logits)
    means = logits @ columns / len(fx) - logits @ (1 - columns) / len(fy)
    return Relabelled(means, len(logits), (f"{name}, valued and relabelled on draws that did not train it",))


def labels(n: int, total: int, permutations: int, seed: int, like: Tensor) -> Tensor:
    """Return columns (total, 1 + B) of zeros and n ones: the observed labels, then random relabellings."""
    with seeded(seed):
        keys = torch.rand(permutations, total, dtype=torch.float64)
    chosen = keys.argsort(1)[:, :n].T.to(like.device)
    columns = torch.zeros(total, 1 + permutations, dtype=like.dtype, device=like.device)
    columns[:n, 0] = 1
    columns[:, 1:].scatter_(0, chosen, 1.0)
    return columns


def u_statistics(kernel: Kernel, pooled: Tensor, columns: Tensor) -> Tensor:
    """Return the unbiased squared MMD of every labelling; each tile of the Gram matrix is computed once."""
    inside, reach, total = torch.zeros_like(columns[0]), torch.zeros_like(columns[0]), 0.0
    for i in range(0, len(pooled), TILE):
        rows = slice(i, i + TILE)
        gram = kernel(pooled[rows], pooled)
        gram.diagonal(i).zero_()
        sums = gram.sum(1)
        inside += (columns[rows] * (gram @ columns)).sum(0)  # over pairs with both ends labelled 1
        reach += sums @ columns[rows]  # over pairs whose first end is labelled 1
        total += sums.sum().item()
    n = columns[:, 0].sum().item()
    m = len(pooled) - n
    across, outside = reach - inside, total - 2 * reach + inside
    return inside / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * across / (n * m)
