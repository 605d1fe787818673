"""One way to judge all generative models: samples against held-out rows, measure by measure, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probdl.divergences import RBF
from probdl.models.arguments import count, one_of
from probdl.models.judging import balls, distances, likelihood, memory
from probdl.models.judging.evaluation import Evaluation, Measure
from probdl.models.judging.sources import SINGLE, TRAIN, enough, given_to, named, samples_of
from probdl.models.judging.space import HELD, Space
from probdl.models.units import WAYS

LEAST = 20  # rows of each side, as the classifier needs
MEASURES = (*distances.NAMES, distances.C2ST, *balls.NAMES, *memory.NAMES, likelihood.NAME)
REFERENCE = (
    "reference: what the measure would be for new draws of the held-out law; for the distances mean and sd over 5 "
    "random splits of the pooled rows into the same sizes, for the measures of balls over 10, else exact"
)


def evaluate(
    model_or_samples: Any,
    x_heldout: Any,
    *,
    train: Any = None,
    draws: int | None = None,
    condition: Any = None,
    measures: Sequence[str] | None = None,
    neighbours: int = 5,
    standardise: str = "auto",
    seed: int = 0,
) -> Evaluation:
    r"""Judge a generative model, or several, by samples against held-out rows.

    ====================  ============================================================================================
    energy, mmd2,         distances between the two laws, as of ``probdl.divergences``; the kernel of mmd2 is an RBF
    sliced_wasserstein    whose bandwidth, the median distance of the held-out rows, is the same for all models
    c2st                  the share of rows that a classifier, in cross-fitting, puts on the right side; .5 at best
    precision, recall     the share of samples among the held-out rows (fidelity), of held-out rows among samples
    density, coverage     how many held-out balls a sample lies in, and the share of balls with a sample
    memorisation,         whether samples lie nearer to training rows than held-out rows do; with ``train``
    near_copies
    log_likelihood        the mean over held-out rows, of models that have one
    ====================  ============================================================================================

    Beside each stands what it would be for new draws of the held-out law at these numbers of rows: for distances,
    precision and recall from random splits of the pooled rows, else exactly. 5000 rows of 64 columns take 15 seconds on
    one core; the classifier and the balls use at most 2000 and 3000 rows of either side.

    Args:
        model_or_samples: a fitted model; samples of shape (n, ...), tensor, array or DataFrame; a
            ``torch.distributions.Distribution``; or a dict of several of these by name.
        x_heldout: rows that trained no model, at least 20. Of a DataFrame, columns of text or categories count as
            numeric columns of variance 1, and samples have the same columns.
        train: the rows that trained the models, for the check of memory.
        draws: how many samples are drawn from a model; None: as many as held-out rows. Measures of neighbours depend
            on it.
        condition: one entry for each held-out row, for models that were fitted with a condition; a sample is then
            drawn for each.
        measures: the names of those that are wanted; None: all that apply.
        neighbours: k, whose distance is the radius of the balls.
        standardise: how distances are scaled, by the held-out rows: "column", each to variance 1; "shared", one scale
            for all entries; "none"; "auto", "column" for tables and "shared" for rows of more dimensions, as images.
        seed: of the samples, of the splits and of all that is drawn.

    Returns:
        An ``Evaluation`` with ``.table``, ``.plot()`` and ``.estimates``; of several models, each row is a measure
        and a model.

    Raises:
        ValueError, TypeError: for rows that cannot be used, a model that is not fitted, an empty dict.

    Reference:
        Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests, ICLR; Kynkäänniemi et al. (2019) and Naeem
        et al. (2020) for the balls; Meehan, Chaudhuri and Dasgupta (2020) for the check of memory.

    Example:
        >>> import torch
        >>> noise = torch.Generator().manual_seed(0)
        >>> train, held, new = torch.randn(3, 100, 2, dtype=torch.float64, generator=noise)
        >>> models, wanted = {"new rows": new, "a copier": train}, ["precision", "memorisation"]
        >>> table = evaluate(models, held, train=train, measures=wanted).table
        >>> table["value"].unstack().round(2)  # doctest: +NORMALIZE_WHITESPACE
        model         a copier  new rows
        measure
        memorisation       1.0      0.55
        precision          1.0      0.99
    """
    least = max(LEAST, 2 * count(neighbours, "neighbours") + 4)  # halves hold a neighbour more than the ball
    one_of(standardise, WAYS, "standardise")
    wanted = _wanted(measures, train)
    models, n = named(model_or_samples), enough(x_heldout, HELD, least)
    given = {name: given_to(model, name, condition, n, draws) for name, model in models.items()}
    size = n if draws is None else count(draws, "draws", least)
    rows = {name: samples_of(model, size, given[name], seed) for name, model in models.items()}
    for name, samples in rows.items():
        enough(samples, name, least)
    if train is not None:
        enough(train, TRAIN, 1)
        rows = {**rows, TRAIN: train}
    space = Space.of(x_heldout, rows, standardise)
    judge = Judge.of({name: space(x, name) for name, x in {HELD: x_heldout, **rows}.items()}, wanted, neighbours, seed)
    found = {
        name: judge.of_samples(name) | judge.of_model(model, x_heldout, given[name]) for name, model in models.items()
    }
    several = isinstance(model_or_samples, Mapping)
    return Evaluation(_arranged(found) if several else found[SINGLE], (space.note, REFERENCE))


@dataclass(frozen=True)
class Judge:
    """What measures a model by its samples.

    Attributes:
        points: held-out rows, samples and training rows by name, (n, d) each, scaled.
        kernel: of mmd2.
        wanted: names of measures.
        neighbours, seed: as of ``evaluate``.
    """

    points: dict[str, Tensor]
    kernel: RBF
    wanted: Sequence[str]
    neighbours: int
    seed: int

    @classmethod
    def of(cls, points: dict[str, Tensor], wanted: Sequence[str], neighbours: int, seed: int) -> Judge:
        """Return the judge of some points."""
        return cls(points, distances.kernel_of(points[HELD], seed), wanted, neighbours, seed)

    def of_samples(self, name: str) -> dict[str, Measure]:
        """Return what is wanted of the measures of samples."""
        x, y, seed = self.points[HELD], self.points[name], self.seed
        found: dict[str, Measure] = {}
        if self._wants(distances.NAMES):
            found |= distances.measures(x, y, self.kernel, self.wanted, seed)
        if self._wants((distances.C2ST,)):
            found[distances.C2ST] = distances.accuracy(x, y, seed)
        if self._wants(balls.NAMES):
            found |= balls.measures(x, y, self.neighbours, seed)
        if TRAIN in self.points and self._wants(memory.NAMES):
            found |= memory.measures(x, y, self.points[TRAIN], seed)
        return {measure: m for measure, m in found.items() if measure in self.wanted}

    def of_model(self, model: Any, held: Any, given: dict[str, Any]) -> dict[str, Measure]:
        """Return the log-likelihood of held-out rows, as they were passed, if it is wanted."""
        return likelihood.measures(model, held, given) if self._wants((likelihood.NAME,)) else {}

    def _wants(self, names: Sequence[str]) -> bool:
        return any(name in self.wanted for name in names)


def _wanted(measures: Sequence[str] | None, train: Any) -> Sequence[str]:
    if measures is None:
        return MEASURES
    if isinstance(measures, str) or not measures:
        raise ValueError(f"measures must be a list of names; got {measures!r}.")
    for name in measures:
        one_of(name, MEASURES, "each of measures")
    if train is None and (blind := [name for name in measures if name in memory.NAMES]):
        raise ValueError(f"train must be given for {', '.join(blind)}: the rows that trained the models.")
    return measures


def _arranged(found: dict[str, dict[str, Measure]]) -> dict[tuple[str, str], Measure]:
    """Return the measures of all models, those of one name together."""
    names = dict.fromkeys(name for measures in found.values() for name in measures)
    return {(name, model): found[model][name] for name in names for model in found if name in found[model]}
