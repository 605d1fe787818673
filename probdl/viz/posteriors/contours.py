"""Densities in the plane, by the regions that hold a stated mass: one filled, others as lines over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.viz.posteriors.regions import Surface, surface
from probdl.viz.style import STYLES, axes, colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MASSES = (0.5, 0.9)
MARGIN = 0.08  # of the width, around the regions


def density_contours(
    p: Any, q: Any = None, ax: Axes | None = None, *, masses: Sequence[float] = MASSES, label: str = "p"
) -> Axes:
    r"""Draw the smallest regions of the plane that hold stated masses: of p filled, and of others as lines over it.

    .. math:: R_m = \{x : p(x) > c_m\}, \quad P(R_m) = m

    Args:
        p: a Distribution of two coordinates; a ``probdl.LogDensity`` with dim=2, perhaps up to a constant; or draws of
            shape (n, 2), which ``probdl.Draws`` may weight.
        q: another such thing over p, or several by their names in the legend; None draws p alone.
        ax: where to draw; None makes a figure.
        masses: of the regions, each between 0 and 1.
        label: of p in the legend.

    Returns:
        The axes. A density is summed over a grid that is found automatically; that of draws is estimated by kernels,
        with the heights at which new draws fall into the regions as often as stated.

    Raises:
        TypeError: for a discrete distribution, or a bare function.
        ValueError: for another number of coordinates, masses outside (0, 1), fewer than 10 draws, or a density whose
            mass cannot be found.

    Reference: R. Hyndman (1996), Computing and graphing highest density regions, The American Statistician 50(2);
    C. Bishop (2006), Pattern recognition and machine learning, figure 10.3.

    Example:
        >>> import torch
        >>> from torch.distributions import MultivariateNormal
        >>> p = MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> ax = density_contours(p, {"wider": MultivariateNormal(torch.zeros(2), 2 * torch.eye(2))})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['p', 'wider']
    """
    others = q if isinstance(q, Mapping) else {} if q is None else {"q": q}
    surfaces = {name: surface(other, masses, name) for name, other in [(label, p), *others.items()]}
    ax = tidy(axes(ax, 5.0, 4.5))
    before = shown(ax)
    for index, (name, found) in enumerate(surfaces.items()):
        draw_regions(ax, found, colour(index), name, fill=index == 0, style=colour(max(index - 1, 0), STYLES))
    frame(ax, list(surfaces.values()), before)
    ax.set_xlabel("x[0]")
    ax.set_ylabel("x[1]")
    where = _emptiest_corner(ax, list(surfaces.values()))
    words = f"regions of {in_words(masses)}"
    ax.legend(loc=where, title=words, fontsize="small", title_fontsize="small", edgecolor="none", framealpha=0.7)
    return ax


def in_words(masses: Sequence[float]) -> str:
    """Return "50 % and 90 %"."""
    *first, last = [f"{100 * m:.4g} %" for m in sorted(masses)]
    return " and ".join(filter(None, [", ".join(first), last]))


def draw_regions(ax: Axes, found: Surface, tint: Any, label: str | None, *, fill: bool, style: str = "-") -> None:
    """Draw the edges of the regions, and if ``fill`` their insides, darker where the density is higher."""
    x, y, density = (t.numpy() for t in (found.x, found.y, found.density))
    # Just below the heights: else a flat density, such as a uniform one, would have no edge.
    heights = np.unique(found.levels.numpy() * (1 - 1e-9))
    if fill:
        for height in heights:
            ax.contourf(x, y, density, levels=[height, 2 * density.max()], colors=[tint], alpha=0.25)
    ax.contour(x, y, density, levels=heights, colors=[tint], linewidths=1.4, linestyles=style)
    if label:
        ax.plot([], [], color=tint, lw=6 if fill else 1.4, alpha=0.5 if fill else 1, ls=style, label=label)


def shown(ax: Axes) -> np.ndarray | None:
    """Return the limits (2, 2) of axes that show something already, else None."""
    return np.array([ax.get_xlim(), ax.get_ylim()]) if ax.has_data() else None


def frame(ax: Axes, surfaces: Sequence[Surface], before: np.ndarray | None) -> None:
    """Set the limits around all regions, and around what was shown before; densities are drawn far beyond."""
    low, high = (np.array([found.box()[end].numpy() for found in surfaces]) for end in (0, 1))
    margin = MARGIN * (high.max(0) - low.min(0))
    x, y = np.stack([low.min(0) - margin, high.max(0) + margin], 1).tolist()
    show_also(ax, x, y, before)


def show_also(ax: Axes, x: Sequence[float], y: Sequence[float] | None, before: np.ndarray | None) -> None:
    """Set the limits to hold x, and y unless None, and what was shown before."""
    for axis, limits in enumerate((x, y)):
        if limits is not None:
            low, high = limits if before is None else (min(limits[0], before[axis, 0]), max(limits[1], before[axis, 1]))
            ax.set(**{"xy"[axis] + "lim": (low, high)})


def _emptiest_corner(ax: Axes, surfaces: Sequence[Surface]) -> Any:
    """Return the corner in which least of the regions lies, for the legend; matplotlib sees lines only."""
    taken = dict.fromkeys(["upper right", "upper left", "lower right", "lower left"], 0.0)
    for found in surfaces:
        inside = found.density >= found.levels.min()
        x, y = ((t[inside] - low) / (high - low) for t, (low, high) in zip(found[:2], (ax.get_xlim(), ax.get_ylim())))
        for corner in taken:
            across = x > 0.55 if "right" in corner else x < 0.45
            along = y > 0.7 if "upper" in corner else y < 0.3
            taken[corner] += float((across & along).double().mean())
    return min(taken, key=lambda corner: taken[corner])
