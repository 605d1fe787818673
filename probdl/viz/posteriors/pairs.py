"""All pairs of entries: their joint densities in a triangle of panels, and each alone on the diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.smoothing import kernel_density
from probdl.viz.posteriors.contours import MARGIN, MASSES, draw_regions, in_words, show_also, shown
from probdl.viz.posteriors.intervals import checked_curve, draw_density
from probdl.viz.posteriors.regions import Surface, check_masses, surface
from probdl.viz.posteriors.triangle import triangle_for
from probdl.viz.style import MUTED, STYLES, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8  # entries, of which a panel can still be read
DOTS = 400  # draws of which more would hide the contours
Panels = Mapping[tuple[str, str], "Axes"]


def pairs(
    draws: Mapping[str, Any],
    ax: Axes | Panels | None = None,
    *,
    names: Sequence[str] | None = None,
    label: str | None = None,
    masses: Sequence[float] = MASSES,
    points: bool = True,
    truth: Mapping[str, float] | None = None,
    curves: Mapping[str, tuple[Any, Any]] | None = None,
    joints: Mapping[tuple[str, str], Any] | None = None,
) -> dict[tuple[str, str], Axes]:
    r"""Draw each pair of entries by its regions of highest density, and each entry alone on the diagonal.

    Call it again with what it returned to overlay another posterior, in a colour of its own.

    Args:
        draws: by entry, n joint draws of it, (n,).
        ax: None makes a figure; one Axes takes the joint density of exactly two entries; a mapping from (row, column)
            gives each pair its panel.
        names: entries to draw, at most 8; None draws all.
        label: of this posterior in the legend.
        masses: of the regions, each between 0 and 1: new draws fall into them as often as stated.
        points: whether to draw some of the draws too, at most 400.
        truth: by entry, a value that is marked by lines, such as a known parameter.
        curves: by entry, points and marginal density there, each (m,), where these are known better than from draws.
        joints: by (row, column), a distribution of (column, row), where that is known better than from draws; anything
            that ``density_contours`` takes.

    Returns:
        The axes by the names of row and column; those on the diagonal have the same name twice.

    Raises:
        TypeError: if draws are not numbers.
        ValueError: for fewer than two entries or more than 8, names that are not there, fewer than 10 draws, draws that
            do not vary or differ in number, masses outside (0, 1), or ``ax`` without a panel for a pair.

    Reference: R. Hyndman (1996), Computing and graphing highest density regions, The American Statistician 50(2).

    Example:
        >>> import torch
        >>> z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> panels = pairs({"a": z[:, 0], "b": z[:, 0] + z[:, 1]}, label="nuts")
        >>> list(panels)
        [('a', 'a'), ('b', 'a'), ('b', 'b')]
    """
    x = _checked(draws, names, masses)
    panels = triangle_for(list(x), ax)
    joint = {key: _surface(x, key, masses, joints or {}) for key in panels if key[0] != key[1]}
    limits = _limits(x, joint)
    index = sum(_is_outline(artist) for artist in panels[next(iter(joint))].collections)
    for (row, column), panel in panels.items():
        before = shown(panel)
        if row == column:
            at, density = checked_curve(row, *((curves or {}).get(row) or kernel_density(x[row])))
            draw_density(panel, at, density, index=index)
        else:
            _draw_joint(panel, x[column], x[row], joint[row, column], index, points)
        _mark(panel, column, row, truth or {})
        show_also(panel, limits[column], None if row == column else limits[row], before)
    _explain(panels, label, index, masses)
    return panels


def _checked(draws: Mapping[str, Any], names: Sequence[str] | None, masses: Sequence[float]) -> dict[str, Tensor]:
    if not hasattr(draws, "keys"):
        raise TypeError(f"draws must be a mapping from names to draws (n,); got {type(draws).__name__}.")
    check_masses(masses)
    chosen = list(draws.keys()) if names is None else list(names)
    missing = [name for name in chosen if name not in draws]
    if missing:
        raise ValueError(f"names must be among those of draws, {', '.join(draws)}; not there: {', '.join(missing)}.")
    if not 2 <= len(set(chosen)) <= MOST:
        what = f"Choose at most {MOST} by names=, such as names={chosen[:3]}." if len(chosen) > 2 else "Add another."
        raise ValueError(f"pairs needs 2 to {MOST} different entries; got {len(set(chosen))}. {what}")
    x = {name: tensor(draws[name], f"draws of {name}").cpu() for name in dict.fromkeys(chosen)}
    shapes = {name: tuple(value.shape) for name, value in x.items()}
    if len(set(shapes.values())) > 1 or next(iter(x.values())).ndim != 1:
        raise ValueError(f"Each entry must have the same number of joint draws, (n,); got {shapes}.")
    return x


def _surface(
    x: dict[str, Tensor], key: tuple[str, str], masses: Sequence[float], joints: Mapping[tuple[str, str], Any]
) -> Surface:
    row, column = key
    known = joints.get(key, torch.stack([x[column], x[row]], 1))
    return surface(known, masses, f"draws of ({column}, {row})")


def _limits(x: dict[str, Tensor], joint: Mapping[tuple[str, str], Surface]) -> dict[str, tuple[float, float]]:
    """Return the range of each entry that holds its regions and nearly all of its draws."""
    found = {name: torch.quantile(value, value.new_tensor([0.005, 0.995])).tolist() for name, value in x.items()}
    for (row, column), here in joint.items():
        low, high = here.box()
        for name, a, b in ((column, low[0], high[0]), (row, low[1], high[1])):
            found[name] = [min(found[name][0], float(a)), max(found[name][1], float(b))]
    return {name: (a - MARGIN * (b - a), b + MARGIN * (b - a)) for name, (a, b) in found.items()}


def _draw_joint(panel: Axes, x: Tensor, y: Tensor, found: Surface, index: int, points: bool) -> None:
    if points:
        some = torch.linspace(0, len(x) - 1, min(DOTS, len(x))).long()
        panel.scatter(x[some], y[some], s=4, alpha=0.3, color=colour(index), linewidths=0)
    draw_regions(panel, found, colour(index), None, fill=False, style=colour(index, STYLES))


def _is_outline(artist: Any) -> bool:
    """Whether something drawn is the outline of one posterior's regions: each call leaves one on each pair."""
    return hasattr(artist, "levels") and not artist.filled


def _mark(panel: Axes, column: str, row: str, truth: Mapping[str, float]) -> None:
    if column in truth:
        panel.axvline(float(truth[column]), color=MUTED, lw=0.8, zorder=0)
    if row != column and row in truth:
        panel.axhline(float(truth[row]), color=MUTED, lw=0.8, zorder=0)


def _explain(panels: dict[tuple[str, str], Axes], label: str | None, index: int, masses: Sequence[float]) -> None:
    """Put one legend of all posteriors into the empty triangle, or on the only panel."""
    first = next(iter(panels.values()))
    if label is not None:
        first.plot([], [], color=colour(index), ls=colour(index, STYLES), label=label)
    handles, labels = first.get_legend_handles_labels()
    triangle = len(panels) > 1
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.04, 1.0)} if triangle else {"loc": "best"}
    words = f"regions of {in_words(masses)}"
    legend = first.legend(
        handles, labels, title=words, fontsize="small", title_fontsize="small", frameon=False, **where
    )
    legend.set_in_layout(not triangle)  # else the empty triangle would grow
