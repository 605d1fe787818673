"""A panel for each pair of names: the lower triangle of a square, and its diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probdl.viz.style import MUTED, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def triangle_for(names: list[str], ax: Any) -> dict[tuple[str, str], Axes]:
    """Return the lower triangle of panels, or the one panel of two entries."""
    keys = [(row, column) for i, row in enumerate(names) for column in names[: i + 1]]
    if ax is None:
        return _new_panels(names, keys)
    if hasattr(ax, "plot"):
        if len(names) != 2:
            raise ValueError(f"ax must be None or a panel for each pair: one Axes takes 2 entries, not {len(names)}.")
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
        return {(names[1], names[0]): tidy(ax)}
    if not isinstance(ax, Mapping):
        raise TypeError(f"ax must be None, Axes, or a mapping from (row, column) to Axes; got {type(ax).__name__}.")
    alone = [key for key in keys if key[0] != key[1]] if len(ax) == 1 else keys
    missing = [key for key in alone if key not in ax]
    if missing:
        raise ValueError(f"ax must have a panel for each (row, column); it has none for {missing}.")
    return {key: ax[key] for key in alone}


def _new_panels(names: list[str], keys: list[tuple[str, str]]) -> dict[tuple[str, str], Axes]:
    import matplotlib.pyplot as plt

    side = len(names)
    _, grid = plt.subplots(side, side, figsize=2 * [min(12.0, 1.4 + 1.7 * side)], layout="constrained")
    panels = {key: tidy(grid[names.index(key[0]), names.index(key[1])]) for key in keys}
    for panel in grid.flat:
        panel.set_visible(panel in panels.values())
    for (row, column), panel in panels.items():
        panel.tick_params(labelsize="small", color=MUTED, labelbottom=row == names[-1], labelleft=column == names[0])
        panel.set_xlabel(column if row == names[-1] else "")
        panel.set_ylabel(row if column == names[0] and row != column else "")
        panel.locator_params(nbins=4)
    return panels
