"""What a comparison holds, and how it reads: a table, a picture, text and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probdl.divergences.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SPLITS = 5  # random splits of the pooled draws behind the same-distribution reference
PERMUTATIONS = 199  # behind each p-value


@dataclass(frozen=True)
class Row:
    """One divergence: its estimate, or why there is none, the references, the estimate's seconds, and a p-value."""

    estimate: Estimate | None
    why: str
    references: tuple[float, ...]
    seconds: float
    p_value: float = math.nan


@dataclass(frozen=True, repr=False)
class Comparison:
    """Divergences between two distributions, as a table, a picture and text.

    Attributes:
        rows: for each divergence by name, the ``Row`` with its ``Estimate``.

    Example:
        >>> from torch.distributions import Normal
        >>> from probdl.divergences import compare
        >>> comparison = compare(Normal(0.0, 1.0), Normal(1.0, 1.0))
        >>> comparison.estimates["kl"]
        0.5 ± 0 (closed form)
        >>> round(float(comparison.table.loc["tv", "value"]), 4)
        0.3829
    """

    rows: dict[str, Row]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by name, without the divergences that cannot be had."""
        return {name: row.estimate for name, row in self.rows.items() if row.estimate is not None}

    @property
    def table(self) -> pd.DataFrame:
        """One row for each divergence.

        Columns: value, stderr, lower and upper (95 %), p_value, method, target, seconds, and the same-distribution
        reference with its standard deviation; NaN where a number cannot be had.
        """
        import pandas as pd

        records = {name: _record(row) for name, row in self.rows.items()}
        return pd.DataFrame.from_dict(records, orient="index").rename_axis("divergence")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each divergence with its 95 % interval, and below it the same-distribution reference ± 2 sd.

        Each scale shows 0, the value between equal distributions; p-values stand at the right.

        Args:
            ax: where to draw them all on one scale; None gives each its own, since their units differ.

        Returns:
            The axes; of a new figure the first.
        """
        from probdl.viz.style import rows

        table = self.table
        if ax is not None:
            return _draw(table, ax)
        panels = rows(len(table))
        for panel, name in zip(panels, table.index):
            _draw(table.loc[[name]], panel)
        _one_legend(panels)
        return panels[0]

    def __repr__(self) -> str:
        table = self.table.to_string(float_format=lambda v: f"{v:.4g}", na_rep="—")
        return "\n".join([table, *self._remarks()])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table.to_html(float_format=lambda v: f"{v:.4g}", na_rep="—", border=0)
        return table + "".join(f"<p><small>{escape(remark)}</small></p>" for remark in self._remarks())

    def _remarks(self) -> list[str]:
        remarks = [f"{name}: {row.why}" for name, row in self.rows.items() if row.why]
        remarks += [f"{name}: {note}" for name, estimate in self.estimates.items() for note in estimate.notes]
        if any(len(row.references) > 1 for row in self.rows.values()):
            remarks.append(
                f"reference: mean and sd over {SPLITS} random splits of the pooled draws into the same sizes"
            )
        if any(row.estimate and row.estimate.target == "lower bound" for row in self.rows.values()):
            remarks.append(
                "the reference of a held-out lower bound is 0: between draws of one law it averages at most 0"
            )
        if any(not math.isnan(row.p_value) for row in self.rows.values()):
            how = "those of tv, js and hellinger2 by a classifier on half of the draws"
            remarks.append(f"p_value: permutation tests with {PERMUTATIONS} relabellings; {how}")
        return remarks


def _draw(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the rows of the table on one scale that shows 0, where two distributions are one; p-values at the right."""
    from probdl import viz
    from probdl.viz.style import MUTED

    names = list(table.index)
    viz.intervals(names, table["value"], table["lower"], table["upper"], ax=ax, label="estimate", offset=-0.12)
    _draw_references(table, ax)
    if ax.has_data() and any(map(math.isfinite, [*table["value"], *table["reference"]])):
        ax.axvline(0.0, color=MUTED, lw=0.8, zorder=0)
    else:
        ax.set_xticks([])
    ax.locator_params(axis="x", nbins=7)
    for height, p_value in enumerate(table["p_value"]):
        if not math.isnan(p_value):
            text = ax.text(1.02, height, f"p = {p_value:.3g}", transform=ax.get_yaxis_transform())
            text.set(va="center", fontsize="small", color=MUTED)
    return ax


def _draw_references(table: pd.DataFrame, ax: Axes) -> None:
    """Draw below each estimate its same-distribution reference ± 2 sd, where there is one."""
    from probdl.viz.posteriors.intervals import legend_above
    from probdl.viz.style import colour

    there = table["reference"].notna().to_numpy()
    height = 0.12 + torch.arange(len(table)).numpy()
    if there.any():
        centre, reach = table["reference"][there], 2 * table["reference_sd"][there]
        ax.errorbar(centre, height[there], xerr=reach, fmt="o", ms=5, lw=1.8, color=colour(1), label="one distribution")
        legend_above(ax)


def _record(row: Row) -> dict[str, Any]:
    nan = math.nan
    references = torch.tensor(row.references or (nan,), dtype=torch.float64)
    record: dict[str, Any] = dict.fromkeys(["value", "stderr", "lower", "upper"], nan)
    record |= {"p_value": row.p_value, "method": "none", "target": "none"}
    if row.estimate is not None:
        estimate = row.estimate
        record |= {"value": float(estimate), "method": estimate.method, "target": estimate.target}
        if estimate.stderr is not None:
            lower, upper = estimate.interval()
            record |= {"stderr": float(estimate.stderr), "lower": float(lower), "upper": float(upper)}
    record["seconds"] = row.seconds
    record["reference"] = references.mean().item()
    record["reference_sd"] = references.std().item() if len(references) > 1 else 0.0
    return record


def _one_legend(panels: list[Axes]) -> None:
    """Leave one legend above the first panel, of all that is shown in any: some rows have no reference or interval."""
    entries: dict[str, Any] = {}
    for panel in panels:
        entries |= {name: handle for handle, name in zip(*panel.get_legend_handles_labels())}
        if legend := panel.get_legend():
            legend.remove()
    handles, names = list(entries.values()), list(entries)
    panels[0].legend(handles, names, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False)
