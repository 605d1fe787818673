"""The sheet of a self-organising map: where near units are far apart, and which rows sit where."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.viz.style import CLASSES, FAINT, IMAGE, LINES, axes, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CORNERS = {"hexagonal": (6, 1 / math.sqrt(3), math.pi / 2), "square": (4, 1 / math.sqrt(2), math.pi / 4)}
WIDEST = 0.42  # radius of the largest dot; a unit has an inner radius of one half


def u_matrix(
    values: Any, grid: str = "hexagonal", units: Any = None, labels: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw a number of each unit of a map, such as its U-matrix: light where neighbours are near, dark where far.

    Args:
        values: of the map's shape, (rows, columns), at least 0.
        grid: "hexagonal" draws hexagons, every second row half a step to the right; or "square".
        units: of each row of data the unit that it sits on, (n,), numbered row by row: each unit gets a dot, whose area
            is the number of its rows.
        labels: of each row of data, at most 10 different: a dot has the colour of the commonest, the first of equals.
        ax: where to draw; None makes a figure.

    Returns:
        The axes; the first row of units is at the bottom.

    Raises:
        ValueError, TypeError: for values, units or labels that cannot be used.

    Reference:
        Ultsch and Siemon (1990), Kohonen's self organizing feature maps for exploratory data analysis.

    Example:
        >>> ax = u_matrix([[0.1, 0.9], [0.2, 0.8]], units=[0, 0, 3], labels=["a", "a", "b"])
        >>> len(ax.collections[0].get_paths())
        4
    """
    values = tensor(values, "values").detach().cpu()
    if values.ndim != 2 or bool((values < 0).any()):
        raise ValueError(f"values must have shape (rows, columns), none below 0; got {tuple(values.shape)}.")
    if grid not in CORNERS:
        raise ValueError(f"grid must be one of {', '.join(map(repr, CORNERS))}; got {grid!r}.")
    if labels is not None and units is None:
        raise ValueError("labels need units, the unit of each row of data.")
    ax = axes(ax, 6.0, 5.0)
    places = _places(values, grid)
    _cells(ax, values, places, grid)
    if units is not None:
        where = _units(units, values.numel())
        _dots(ax, places, where, None if labels is None else _labels(labels, len(where)))
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.set_axis_off()
    return ax


def _places(values: Tensor, grid: str) -> Tensor:
    """Return the centres of the cells, row by row, (rows · columns, 2)."""
    i, j = torch.meshgrid(*(torch.arange(side).double() for side in values.shape), indexing="ij")
    if grid == "hexagonal":
        i, j = i * math.sqrt(3) / 2, j + (i % 2) / 2
    return torch.stack([j, i], -1).reshape(-1, 2)


def _cells(ax: Axes, values: Tensor, places: Tensor, grid: str) -> None:
    from matplotlib.collections import PolyCollection

    number, radius, first = CORNERS[grid]
    angle = first + 2 * math.pi * torch.arange(number, dtype=torch.float64) / number
    corners = places[:, None] + radius * torch.stack([angle.cos(), angle.sin()], 1)
    cells = PolyCollection(list(corners.numpy()), cmap=IMAGE + "_r", edgecolors=FAINT, linewidths=0.5)
    cells.set_array(values.flatten().numpy())
    if float(values.max()) == float(values.min()):
        cells.set_clim(0, float(values.max()) or 1.0)
    ax.add_collection(cells)
    ax.figure.colorbar(cells, ax=ax, shrink=0.7, label="mean distance to neighbours")


def _dots(ax: Axes, places: Tensor, where: Tensor, labels: tuple[list[str], Tensor] | None) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    names, which = labels or ([""], torch.zeros_like(where))
    counts = torch.zeros(len(places), len(names)).index_put_((where, which), torch.ones(len(where)), accumulate=True)
    size = (counts.sum(1) / counts.sum(1).max()).sqrt() * WIDEST
    palette = LINES if len(names) <= len(LINES) else CLASSES
    for k, name in enumerate(names):
        mine = ((counts.argmax(1) == k) & (size > 0)).nonzero().flatten().tolist()
        circles = [Circle((float(places[u, 0]), float(places[u, 1])), float(size[u])) for u in mine]
        dots = PatchCollection(circles, facecolor=colour(k, palette), edgecolor="white", linewidths=0.8, zorder=2)
        ax.add_collection(dots)
        if name:
            ax.plot([], [], "o", color=colour(k, palette), label=name)
    if names != [""]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=min(len(names), 5), frameon=False)


def _units(units: Any, number: int) -> Tensor:
    where = tensor(units, "units").cpu()
    if where.ndim != 1 or bool((where != where.long()).any() | (where < 0).any() | (where >= number).any()):
        raise ValueError(f"units must be whole numbers from 0 to {number - 1}, one for each row of data.")
    return where.long()


def _labels(labels: Any, n: int) -> tuple[list[str], Tensor]:
    """Return the distinct labels as text, in their order, and the index of each row's."""
    import numpy as np

    names, which = np.unique(np.asarray(labels), return_inverse=True)
    if np.shape(labels) != (n,):
        raise ValueError(f"labels must have shape ({n},), as units; got {np.shape(labels)}.")
    if len(names) > len(CLASSES):
        raise ValueError(f"labels must take at most {len(CLASSES)} values, which colours can tell; got {len(names)}.")
    return [str(name) for name in names], torch.as_tensor(which)
