"""The divergences between held-out rows and samples, and a classifier that is to tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from probdl.access import Draws
from probdl.divergences import RBF, compare, energy, mmd2, sliced_wasserstein, tv
from probdl.divergences.compare import Divergence
from probdl.divergences.dispatch import at_most
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import median_bandwidth
from probdl.models.judging.evaluation import Measure

NAMES = ("energy", "mmd2", "sliced_wasserstein")
C2ST = "c2st"
MOST = 2000  # rows of each side for the classifier, which then takes seconds


def kernel_of(x: Tensor, seed: int) -> RBF:
    """Return one kernel for all models, which the held-out rows choose: an RBF of their median distance."""
    return RBF(median_bandwidth(x[::2], x[1::2], seed))


def measures(x: Tensor, y: Tensor, kernel: RBF, wanted: Sequence[str], seed: int) -> dict[str, Measure]:
    """Return the divergences that are wanted."""
    every: dict[str, Divergence] = dict(zip(NAMES, (energy, partial(mmd2, kernel=kernel), sliced_wasserstein)))
    names = [name for name in NAMES if name in wanted]
    found = compare(x, y, divergences=[every[name] for name in names], seed=seed)
    rows = zip(names, found.rows.values(), found.table.itertuples())
    return {name: Measure(row.estimate, t.reference, t.reference_sd, "lower", t.p_value) for name, row, t in rows}


def accuracy(x: Tensor, y: Tensor, seed: int) -> Measure:
    """Return the held-out share of rows that a classifier puts on the right side, (1 + P(f > 0) − Q(f > 0)) / 2."""
    (a, some), (b, more) = (at_most(Draws(z), MOST, name, seed) for z, name in ((x, "x_heldout"), (y, "samples")))
    row = compare(a, b, divergences=[tv], seed=seed).rows["tv"]
    advantage = row.estimate
    assert advantage is not None  # there are rows enough
    assert advantage.stderr is not None
    notes = (*some, *more, *advantage.notes, "balanced accuracy: .5 where the two cannot be told apart")
    value, stderr = (1 + float(advantage)) / 2, float(advantage.stderr) / 2
    estimate = Estimate(value, stderr, "classifier", "lower bound", advantage.n, notes)
    chance = math.sqrt(1 / a.n + 1 / b.n) / 4
    return Measure(estimate, 0.5, chance, "lower", row.p_value, (0.0, 1.0))
