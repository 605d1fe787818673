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
        limits: for each plan the threshold and the number of calibration rows.
    """

    scores: Tensor
    p: Tensor
    limits: tuple[tuple[float, int], ...]

    @property
    def strangeness(self) -> Tensor:
        """The place of each row in the order of p-values, and of scores among equal ones; larger is stranger."""
        return torch.stack([-self.p, self.scores], 1).unique(dim=0, return_inverse=True)[1].double()

    @property
    def rank(self) -> Tensor:
        """1 for the strangest row; rows that tie have one rank."""
        place = -self.strangeness
        return torch.searchsorted(place.sort().values, place) + 1


@dataclass(frozen=True, repr=False, eq=False)
class Anomalies:
    """How strange rows are by several methods, on one scale.

    Attributes:
        judged: what each method says, by its name.
        index: the rows' labels.
        rate: the false-alarm rate that was asked for.
        fdr: the false discovery rate that was asked for, or None.
        labels: (n,), True for anomalies, or None.
        guarantee: what holds of the flags, and under which assumption.
        notes: what a careful reader should know.
    """

    judged: dict[str, Judged]
    index: Any
    rate: float
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
        """A row for each method (and fold): a score above ``threshold`` is flagged.

        Columns: threshold; calibration_rows; asked, the rate; guaranteed, the mean of the realised false-alarm rate for
        continuous scores, which it does not exceed for others; lower and upper, between which the realised rate lies
        with probability .95 given these calibration rows (a Beta law).
        """
        import pandas as pd

        records, keys = [], []
        for name, found in self.judged.items():
            for fold, (limit, n) in enumerate(found.limits):
                low, high = realised(n, self.rate)
                records.append((limit, n, self.rate, allowed(n, self.rate) / (n + 1), low, high))
                keys.append((name, fold) if len(found.limits) > 1 else name)
        several = isinstance(keys[0], tuple)
        index = pd.MultiIndex.from_tuples(keys, names=["method", "fold"]) if several else pd.Index(keys, name="method")
        columns = ["threshold", "calibration_rows", "asked", "guaranteed", "lower", "upper"]
        return pd.DataFrame(records, index=index, columns=columns)

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
            rho = spearmanr(a.strangeness.numpy(), b.strangeness.numpy()).statistic
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
        return {name: roc_of(found.strangeness, self.labels) for name, found in self.judged.items()}

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
