"""Estimates with their intervals, and marginal densities; several of either on the same axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.access import tensor
from probdl.viz.style import FAINT, MUTED, STYLES, axes, colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def intervals(
    names: Sequence[str],
    values: Any,
    lower: Any,
    upper: Any,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    offset: float = 0.0,
) -> Axes:
    """Draw estimates as dots with horizontal intervals, the first on top.

    Call it again with the same ``names``, the axes it returned, another ``label`` and an ``offset`` to put a second
    method beside the first.

    Args:
        names: of the n quantities.
        values: n numbers. What is not finite cannot be placed and is written at the right edge.
        lower: n lower ends; None or NaN where there is none: such a dot is hollow.
        upper: n upper ends, likewise.
        ax: where to draw; None makes a figure.
        label: of these estimates in the legend.
        offset: how far below the line of its name each dot is drawn; the lines are 1 apart.

    Raises:
        ValueError: if the lengths differ, there is nothing to draw, or an interval does not hold its value.

    Example:
        >>> ax = intervals(["kl", "js"], [0.5, 0.1], [0.4, None], [0.6, None], label="first")
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['kl', 'js']
    """
    centre, low, high = _checked(names, values, lower, upper)
    ax = tidy(axes(ax, 6.0, 0.8 + 0.32 * len(names)))
    y = np.arange(len(names)) + offset
    tint = colour(len(ax.containers))
    known, placed = np.isfinite(low) & np.isfinite(high) & np.isfinite(centre), np.isfinite(centre)
    reach = [centre[known] - low[known], high[known] - centre[known]]
    ax.errorbar(centre[known], y[known], xerr=reach, fmt="o", ms=5, lw=1.8, color=tint, label=label)
    _draw_hollow(ax, centre[placed & ~known], y[placed & ~known], tint)
    for value, height in zip(centre[~placed], y[~placed]):
        _write_at_edge(ax, value, height, tint)
    _name_lines(ax, names)
    legend_above(ax)
    return ax


def forest(names: Sequence[str], quantiles: Sequence[Any], *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw medians with an inner and an outer interval each, the first on top.

    Call it again with the same ``names`` and the axes it returned, to put another posterior below the first.

    Args:
        names: of the n entries.
        quantiles: five times n numbers, from the lower end of the outer intervals to the upper.
        ax: where to draw; None makes a figure.
        label: of this posterior in the legend.

    Raises:
        ValueError: if there are not five rows of quantiles, their lengths differ, or they do not rise.

    Example:
        >>> ax = forest(["w[0]", "w[1]"], [[-2, 0], [-1, 1], [0, 2], [1, 3], [2, 4]], label="ep")
        >>> len(ax.containers)
        1
    """
    if len(quantiles) != 5:
        raise ValueError(
            f"quantiles must be five rows, such as those at .05, .25, .5, .75 and .95; got {len(quantiles)}."
        )
    lowest, low, middle, high, highest = quantiles
    _checked(names, middle, low, high)
    earlier = len(ax.containers) if ax is not None else 0
    height, tint = np.arange(len(names)) + 0.2 * earlier, colour(earlier)
    ax = intervals(
        names, middle, lowest, highest, ax=axes(ax, 6.0, 1.0 + 0.45 * len(names)), label=label, offset=0.2 * earlier
    )
    ax.hlines(height, _numbers(low, "quantiles"), _numbers(high, "quantiles"), lw=4.0, color=tint)
    ax.plot(_numbers(middle, "quantiles"), height, "o", ms=4.5, mfc="white", color=tint, zorder=3)
    ax.set_ylim(len(names) - 0.5 + 0.2 * earlier, -0.5)
    return ax


def _checked(names: Sequence[str], values: Any, lower: Any, upper: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centre, low, high = (_numbers(v, name) for v, name in ((values, "values"), (lower, "lower"), (upper, "upper")))
    lengths = {"names": len(names), "values": len(centre), "lower": len(low), "upper": len(high)}
    if len(set(lengths.values())) > 1 or not len(names):
        raise ValueError(f"names, values, lower and upper must have the same length, at least 1; got {lengths}.")
    wrong = (low > centre) | (high < centre)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"The interval of {names[i]!r} must hold its value {centre[i]:g}; got {low[i]:g} to {high[i]:g}."
        )
    return centre, low, high


def _numbers(x: Any, name: str) -> np.ndarray:
    """Return a float array, with NaN where ``x`` holds None."""
    x = x.detach().cpu().numpy() if hasattr(x, "detach") else x
    array = np.array([math.nan if v is None else float(v) for v in x])
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension; got {array.ndim}.")
    return array


def _draw_hollow(ax: Axes, x: np.ndarray, y: np.ndarray, tint: Any) -> None:
    """Draw dots without an interval, and explain them once in the legend."""
    ax.plot(x, y, "o", ms=5, mfc="white", color=tint)
    if len(x) and "no interval" not in ax.get_legend_handles_labels()[1]:
        ax.plot([], [], "o", ms=5, mfc="white", color=MUTED, label="no interval")


def _write_at_edge(ax: Axes, value: float, height: float, tint: Any) -> None:
    text = "not available" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
    ax.annotate(text, (1.0, height), xycoords=ax.get_yaxis_transform(), ha="right", va="center", color=tint)


def _name_lines(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)


def legend_above(ax: Axes, columns: int = 3) -> None:
    """Put the legend, if there is anything to explain, above the axes."""
    handles, _ = ax.get_legend_handles_labels()
    if handles:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(columns, len(handles)), frameon=False)


def marginals(
    curves: Mapping[str, tuple[Any, Any]],
    ax: Axes | Mapping[str, Axes] | None = None,
    *,
    label: str | None = None,
) -> dict[str, Axes]:
    """Draw marginal densities, each in a panel of its own; call again with what it returned to overlay a posterior.

    Args:
        curves: by name, the points and the density there, each of shape (n,).
        ax: None makes a figure with a panel a name; one Axes takes all curves; a mapping gives each name its panel.
        label: of this posterior in the legend.

    Returns:
        The axes by name.

    Raises:
        TypeError: if a curve does not hold numbers.
        ValueError: if there is no curve, a curve's points and density differ in length, a density is negative, or
            ``ax`` has no panel for a name.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 50)
        >>> panels = marginals({"b": (x, torch.exp(-(x**2) / 2))}, label="ep")
        >>> panels = marginals({"b": (x, torch.exp(-abs(x)))}, panels, label="nuts")
        >>> len(panels["b"].lines)
        2
    """
    if not curves:
        raise ValueError("curves must hold at least one name; got none.")
    checked = {name: checked_curve(name, *curve) for name, curve in curves.items()}
    alone = hasattr(ax, "plot")
    panels = panels_for(list(curves), ax)
    for name, (x, density) in checked.items():
        draw_density(panels[name], x, density, " ".join(filter(None, [name if alone else None, label])))
        panels[name].set_xlabel("" if alone else name)
    if label is not None or alone:
        legend_above(next(iter(panels.values())), columns=1)
    return panels


def checked_curve(name: str, x: Any, density: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and the density of a curve as arrays, or raise for what is no density."""
    x, density = tensor(x, f"points of {name}").cpu().numpy(), tensor(density, f"density of {name}").cpu().numpy()
    if x.ndim != 1 or x.shape != density.shape:
        raise ValueError(f"The curve of {name} must be two arrays of shape (n,); got {x.shape} and {density.shape}.")
    if (density < 0).any():
        raise ValueError(f"The density of {name} must not be negative; the smallest value is {density.min():g}.")
    return x, density


def panels_for(names: list[str], ax: Any) -> dict[str, Axes]:
    """Return a panel for each name: new ones where ``ax`` is None, all the same one where it is axes."""
    if hasattr(ax, "plot"):
        return dict.fromkeys(names, ax)
    panels = _new_panels(names) if ax is None else dict(ax)
    missing = [name for name in names if name not in panels]
    if missing:
        raise ValueError(f"ax must have a panel for each name; it has none for {', '.join(missing)}.")
    return panels


def _new_panels(names: list[str]) -> dict[str, Axes]:
    import matplotlib.pyplot as plt

    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    size = (max(4.0, 2.4 * columns), max(2.2, 1.7 * rows))
    _, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for spare in grid.flat[len(names) :]:
        spare.set_visible(False)
    return dict(zip(names, grid.flat))


def draw_density(ax: Axes, x: np.ndarray, density: np.ndarray, label: str = "", index: int | None = None) -> None:
    """Draw a density over its filled area, in the colour of the ``index``-th; None counts the lines that are there."""
    index = len(ax.lines) if index is None else index
    tint, top = colour(index), ax.get_ylim()[1] if ax.has_data() else 0.0
    ax.plot(x, density, color=tint, lw=1.6, ls=colour(index, STYLES), label=label or None)
    ax.fill_between(x, density, color=tint, alpha=0.12, linewidth=0)
    ax.set_ylim(0, max(top, 1.05 * float(density.max())) or 1.0)
    ax.set_yticks([])
    tidy(ax).spines["left"].set_visible(False)
    ax.tick_params(axis="x", labelsize="small", color=MUTED)
