"""What an anomaly table holds: scores on one scale, thresholds, agreement, and ROC where labels exist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.models.anomalies.conformal import allowed, discoveries, realised
from probdl.models.anomalies.roc import Roc, roc_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Judged:
    """What one method says of n rows.

    Attributes:
        scores: (n,), in the unit of the method; larger is stranger.
        p: their conformal p-values, (n,).
        threshold: larger scores are flagged.
        calibrating: how many rows calibrated each.
    """

    scores: Tensor
    p: Tensor
    threshold: float
    calibrating: int

    @property
    def rank(self) -> Tensor:
        """1 for the strangest row; rows that tie have one rank."""
        return torch.searchsorted((-self.scores).sort().values, -self.scores) + 1


@dataclass(frozen=True, repr=False, eq=False)
class Anomalies:
    """How strange rows are by several methods, on one scale.

    Attributes:
        judged: what each method says, by its name.
        index: the rows' labels.
        rate: the false-alarm rate that was asked for.
        alone: whether there was no ``train``.
        fdr: the false discovery rate that was asked for, or None.
        labels: (n,), True for anomalies, or None.
        guarantee: what holds of the flags, and under which assumption.
        notes: what a careful reader should know.
    """

    judged: dict[str, Judged]
    index: Any
    rate: float
    alone: bool
    fdr: float | None
    labels: Tensor | None
    guarantee: str
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """A row for each observation; columns (method, what): score, rank, p_value, flagged, and discovery with fdr.

        ``flagged`` is p ≤ rate; ``discovery`` what Benjamini and Hochberg reject at ``fdr``.
        """
        import pandas as pd

        parts = {name: pd.DataFrame(self._columns(found), index=self.index) for name, found in self.judged.items()}
        return pd.concat(parts, axis=1, names=["method", None])

    def _columns(self, found: Judged) -> dict[str, Any]:
        columns = {"score": found.scores, "rank": found.rank, "p_value": found.p, "flagged": found.p <= self.rate}
        if self.fdr is not None:
            columns["discovery"] = discoveries(found.p, self.fdr)
        return {name: value.numpy() for name, value in columns.items()}

    @property
    def thresholds(self) -> pd.DataFrame:
        """A row for each method: a score above ``threshold`` is flagged.

        Columns: threshold; calibration_rows, n; asked, the rate; guaranteed, the probability l / (n + 1) of a flag for
        continuous scores, smaller where scores tie; lower and upper, between which the realised false-alarm rate lies
        with probability .95 over the draw of the calibration rows (a Beta law). Without ``train`` these are NaN: of the
        rows that were judged l are flagged, and nothing is said of others.
        """
        import pandas as pd

        records = []
        for found in self.judged.values():
            n = found.calibrating
            low, high = (math.nan, math.nan) if self.alone else realised(n, self.rate)
            records.append((found.threshold, n, self.rate, allowed(n, self.rate) / (n + 1), low, high))
        columns = ["threshold", "calibration_rows", "asked", "guaranteed", "lower", "upper"]
        return pd.DataFrame(records, index=pd.Index(list(self.judged), name="method"), columns=columns)

    @property
    def agreement(self) -> pd.DataFrame:
        """A row for each pair of methods: the rank correlation (Spearman), and how many rows both or one of them flag.

        Columns: spearman, both, first_only, second_only.
        """
        import pandas as pd
        from scipy.stats import spearmanr

        records, keys = [], list(combinations(self.judged, 2))
        for a, b in ((self.judged[first], self.judged[second]) for first, second in keys):
            x, y = a.p <= self.rate, b.p <= self.rate
            rho = spearmanr(a.scores.numpy(), b.scores.numpy()).statistic
            records.append((float(rho), int((x & y).sum()), int((x & ~y).sum()), int((~x & y).sum())))
        index = pd.MultiIndex.from_tuples(keys, names=["first", "second"])
        return pd.DataFrame(records, index=index, columns=["spearman", "both", "first_only", "second_only"])

    @property
    def roc(self) -> dict[str, Roc]:
        """The ROC of each method.

        Raises:
            ValueError: without labels.
        """
        if self.labels is None:
            raise ValueError("There is no ROC without labels: pass labels= to anomaly_table, True for anomalies.")
        return {name: roc_of(found.scores, self.labels) for name, found in self.judged.items()}

    @property
    def auc(self) -> pd.DataFrame:
        """A row for each method, against the labels; each number with its standard error (NaN where there is none).

        Columns: auc, the area below the ROC curve (DeLong), with lower and upper, 95 %; average_precision (bootstrap);
        detected, the share of anomalies that are flagged; false_alarms, that of normal rows.

        Raises:
            ValueError: without labels.
        """
        import pandas as pd

        return pd.DataFrame({name: self._judgement(name, roc) for name, roc in self.roc.items()}).T

    def _judgement(self, name: str, roc: Roc) -> dict[str, float]:
        area, precision, flagged = roc.auc, roc.average_precision, self.judged[name].p <= self.rate
        low, high = (math.nan, math.nan) if area.stderr is None else area.interval()
        found = {"auc": area.value, "auc_stderr": area.stderr, "lower": max(low, 0.0), "upper": min(high, 1.0)}
        found |= {"average_precision": precision.value, "average_precision_stderr": precision.stderr}
        assert self.labels is not None
        for what, kind in (("detected", self.labels), ("false_alarms", ~self.labels)):
            share, n = float(flagged[kind].double().mean()), int(kind.sum())
            found |= {what: share, f"{what}_stderr": math.sqrt(share * (1 - share) / n)}
        return {key: math.nan if value is None else float(value) for key, value in found.items()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the ROC curves, with a mark where the threshold is; without labels the p-values' distribution.

        Without anomalies a share u of the p-values is at most u, the dashed diagonal; anomalies lift the curves on the
        left.

        Args:
            ax: where to draw; None: a new figure.
        """
        from probdl.models.anomalies.pictures import draw_p_values, draw_roc

        return draw_p_values(self, ax) if self.labels is None else draw_roc(self, ax)

    def __repr__(self) -> str:
        flags = {name: int((found.p <= self.rate).sum()) for name, found in self.judged.items()}
        lines = [f"{name}: {count} of {len(self.index)} rows flagged" for name, count in flags.items()]
        return "\n".join([*lines, self.guarantee, *(f"note: {note}" for note in self.notes)])
