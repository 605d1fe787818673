"""What an evaluation holds, and how it reads: a table, a picture, text and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probdl.divergences.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = (
    "value",
    "stderr",
    "lower",
    "upper",
    "reference",
    "reference_sd",
    "better",
    "p_value",
    "method",
    "target",
    "n",
)


@dataclass(frozen=True)
class Measure:
    """One measure of one model.

    Attributes:
        estimate: its value, or None where it cannot be had.
        reference, reference_sd: what it would be for new draws of the held-out law, and how that scatters.
        better: "lower", "higher", or "reference" where either side of the reference is worse.
        p_value: of the hypothesis that samples and held-out rows have one law, where there is a test.
        limits: between which the measure lies, where intervals end.
        why: there is no estimate.
    """

    estimate: Estimate | None
    reference: float = math.nan
    reference_sd: float = math.nan
    better: str = "lower"
    p_value: float = math.nan
    limits: tuple[float, float] = (-math.inf, math.inf)
    why: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, cut at the limits; NaN where there is none."""
        if self.estimate is None or self.estimate.stderr is None:
            return math.nan, math.nan
        lower, upper = self.estimate.interval()
        return max(float(lower), self.limits[0]), min(float(upper), self.limits[1])

    @property
    def record(self) -> dict[str, Any]:
        """A row of the table."""
        found: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
        found |= {"method": "none", "target": "none", "better": self.better, "p_value": self.p_value, "n": 0}
        found |= {"reference": self.reference, "reference_sd": self.reference_sd}
        if (e := self.estimate) is not None:
            stderr = math.nan if e.stderr is None else float(e.stderr)
            found |= {"value": float(e), "stderr": stderr, "method": e.method, "target": e.target, "n": e.n or 0}
            found["lower"], found["upper"] = self.interval
        return found


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How far samples are from held-out rows, measure by measure, of one model or of several.

    Attributes:
        measures: each ``Measure`` by its name, or by its name and that of the model where several were passed.
        notes: what holds for all of them.

    Example:
        >>> import torch
        >>> from probdl.models import evaluate
        >>> x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> evaluation = evaluate(x[:100] + 9, x[100:], measures=["precision", "coverage"])
        >>> evaluation.estimates["precision"].value
        0.0
        >>> evaluation.table[["value", "reference", "better"]].round(3)  # doctest: +NORMALIZE_WHITESPACE
                   value  reference  better
        measure
        precision    0.0      0.983  higher
        coverage     0.0      0.971  higher
    """

    measures: dict[Any, Measure]
    notes: tuple[str, ...] = ()

    @property
    def estimates(self) -> dict[Any, Estimate]:
        """The estimates by the same names, without those that cannot be had."""
        return {name: m.estimate for name, m in self.measures.items() if m.estimate is not None}

    @property
    def table(self) -> pd.DataFrame:
        """A row for each measure, or for each measure and model.

        Columns: value, stderr, lower and upper (95 %), the same-distribution reference with its standard deviation,
        better ("lower", "higher", or "reference" where either side of it is worse), p_value, method, target and n;
        NaN where a number cannot be had.
        """
        import pandas as pd

        records, names = [m.record for m in self.measures.values()], list(self.measures)
        several = bool(names) and isinstance(names[0], tuple)
        index = (
            pd.MultiIndex.from_tuples(names, names=["measure", "model"]) if several else pd.Index(names, name="measure")
        )
        return pd.DataFrame(records, index=index, columns=list(COLUMNS))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each measure with its 95 % interval, one line a model, over the same-distribution reference ± 2 sd.

        Args:
            ax: where to draw all lines on one scale; None gives each measure its own, since their units differ.

        Returns:
            The axes; of a new figure the first.
        """
        from probdl.models.judging.pictures import draw, plot_panels

        return plot_panels(self.table) if ax is None else draw(self.table, ax)

    def __repr__(self) -> str:
        table = self.table.to_string(float_format=_short, na_rep="—")
        return "\n".join([table, *self._remarks()])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table.to_html(float_format=_short, na_rep="—", border=0)
        return table + "".join(f"<p><small>{escape(remark)}</small></p>" for remark in self._remarks())

    def _remarks(self) -> list[str]:
        remarks: dict[str, list[str]] = {}
        for name, m in self.measures.items():
            label = " of ".join(name) if isinstance(name, tuple) else name
            for text in [m.why] if m.why else m.estimate.notes if m.estimate else ():
                remarks.setdefault(text, []).append(label)
        return [f"{', '.join(labels)}: {text}" for text, labels in remarks.items()] + list(self.notes)


def _short(value: float) -> str:
    return f"{value:.4g}"
