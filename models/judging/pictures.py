"""The picture of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ACROSS = 3  # panels beside one another


def plot_panels(table: pd.DataFrame) -> Axes:
    """Draw a panel for each measure in a new figure; return the first."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(table.index.get_level_values("measure")))
    rows, models = math.ceil(len(names) / ACROSS), max(1, len(table) // len(names))
    height = 0.3 + rows * (0.75 + 0.25 * models)
    figure, axes = plt.subplots(rows, ACROSS, figsize=(10, height), squeeze=False, layout="constrained")
    for ax, name in zip(axes.flat, names):
        draw(table.loc[table.index.get_level_values("measure") == name], ax, name)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    _one_legend(axes.flat[: len(names)])
    return axes[0, 0]


def draw(table: pd.DataFrame, ax: Axes, title: str = "") -> Axes:
    """Draw rows of the table on one scale, each over its same-distribution reference ± 2 sd.

    Args:
        table: rows of ``Evaluation.table``.
        ax: where to draw.
        title: the measure of all rows, whose lines are then named by their models.
    """
    from probdl import viz

    table = table[table["value"].notna()]
    if title:
        ax.set_title(title, fontsize="medium")
    if table.empty:
        return _say_none(ax)
    names = [_label(key, bool(title)) for key in table.index]
    centre, reach = table["reference"], 2 * table["reference_sd"]
    viz.intervals(names, table["value"], table["lower"], table["upper"], ax=ax, label="estimate", offset=-0.12)
    if bool(centre.notna().any()):
        viz.intervals(names, centre, centre - reach, centre + reach, ax=ax, label="one distribution", offset=0.12)
    ax.locator_params(axis="x", nbins=5)
    if title and table.index.nlevels == 1:
        ax.set_yticks([])
    return ax


def _label(key: str | tuple[str, str], titled: bool) -> str:
    if isinstance(key, str):
        return key
    return key[1] if titled else " of ".join(key)


def _say_none(ax: Axes) -> Axes:
    ax.set_axis_off()
    ax.text(0.5, 0.5, "none", ha="center", va="center", transform=ax.transAxes)
    return ax


def _one_legend(panels: Iterable[Axes]) -> None:
    """Leave one legend, above the figure."""
    entries: dict[str, Any] = {}
    for panel in panels:
        entries |= {name: handle for handle, name in zip(*panel.get_legend_handles_labels())}
        if legend := panel.get_legend():
            legend.remove()
        figure = panel.figure
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=3, frameon=False)
