"""Transport plans in the plane: which point sends how much to which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.access import Draws, tensor
from probdl.viz.style import LINES, MUTED, axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 30  # of a point of mean weight


def transport_plan(x: Any, y: Any, plan: Any, ax: Axes | None = None, *, share: float = 0.01) -> Axes:
    """Draw two clouds of points and a line for each mass that goes from one to the other.

    Lines are the wider and darker, the more of the largest point's mass they carry; the words below say how much of
    all mass is shown.

    Args:
        x: where mass comes from, (n, 2).
        y: where it goes, (m, 2).
        plan: (n, m) the mass from each x to each y, such as ``divergences.transport_plan`` returns. Points are as
            large as their sums of it.
        ax: where to draw; None makes a figure.
        share: of the largest entry, which an entry must exceed to be drawn.

    Raises:
        TypeError: if something does not hold numbers.
        ValueError: if points are not in the plane, the plan has another shape, a negative entry or no mass, or
            ``share`` is not in [0, 1).

    Example:
        >>> ax = transport_plan([[0, 0], [0, 1]], [[1, 0], [1, 1]], [[0.5, 0], [0, 0.5]])
        >>> len(ax.collections[0].get_segments())
        2
    """
    a, b, mass = _checked(x, y, plan, share)
    ax = tidy(axes(ax, 5.0, 4.5))
    found = _draw_lines(ax, a, b, mass, share)
    for points, sums, tint, name in ((a, mass.sum(1), LINES[0], "from"), (b, mass.sum(0), LINES[1], "to")):
        size = SIZE * sums / sums.mean()
        ax.scatter(
            points[:, 0], points[:, 1], s=size, color=tint, edgecolors="white", linewidths=0.5, label=name, zorder=3
        )
    ax.set_xlabel(f"lines above {share:.3g} of the largest: {100 * found:.4g} % of the mass", fontsize="small")
    ax.legend(frameon=False, fontsize="small")
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def _checked(x: Any, y: Any, plan: Any, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b = ((h if isinstance(h, Draws) else Draws(h, name=name)).x.cpu().numpy() for name, h in (("x", x), ("y", y)))
    mass = tensor(plan, "plan").cpu().numpy()
    for name, points in (("x", a), ("y", b)):
        if points.shape[1] != 2:
            raise ValueError(f"{name} must have two columns to be drawn in the plane; got {points.shape}.")
    if mass.shape != (len(a), len(b)):
        raise ValueError(f"plan must have shape {(len(a), len(b))}, the numbers of points; got {mass.shape}.")
    if mass.min() < 0 or not mass.sum() > 0:
        raise ValueError(
            f"plan must hold mass and nothing negative; got {mass.min():g} to {mass.max():g}, in all {mass.sum():g}."
        )
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1); got {share!r}.")
    return a, b, mass


def _draw_lines(ax: Axes, a: np.ndarray, b: np.ndarray, mass: np.ndarray, share: float) -> float:
    """Draw the lines of large entries, the largest on top, and return their part of the mass."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    i, j = np.nonzero(mass > share * mass.max())
    order = mass[i, j].argsort()
    i, j = i[order], j[order]
    strength = mass[i, j] / max(mass.sum(0).max(), mass.sum(1).max())  # 1: all that the largest point has
    colours = np.tile(to_rgba(MUTED), (len(i), 1))
    colours[:, 3] = 0.04 + 0.76 * strength
    lines = LineCollection(list(np.stack([a[i], b[j]], 1)), linewidths=0.2 + 1.6 * strength, colors=colours, zorder=1)
    ax.add_collection(lines)
    return float(mass[i, j].sum() / mass.sum())
