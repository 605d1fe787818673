"""Ranks of simulation-based calibration, which are uniform where a posterior is exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.access import tensor
from probdl.viz.posteriors.intervals import panels_for
from probdl.viz.style import FAINT, MUTED, colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rank_histograms(
    ranks: Mapping[str, Any], draws: int, ax: Axes | Mapping[str, Axes] | None = None, *, bins: int | None = None
) -> dict[str, Axes]:
    """Draw a histogram of ranks for each entry, over the band that holds 99 % of the bars of uniform ranks.

    A hollow in the middle says that the posterior is too narrow, a hill that it is too wide, a slope that it is
    shifted.

    Args:
        ranks: by entry, ranks from 0 to ``draws``, (n,).
        draws: the largest possible rank.
        ax: None makes a figure with a panel an entry; a mapping gives each entry its panel.
        bins: None takes one for each ten ranks that there are, at most 20.

    Returns:
        The axes by name.

    Raises:
        ValueError: if there is nothing to draw, or a rank lies outside 0 to ``draws``.

    Example:
        >>> panels = rank_histograms({"mu": [0, 3, 5, 9, 2, 7]}, draws=9)
        >>> panels["mu"].get_xlabel()
        'mu'
    """
    if not ranks:
        raise ValueError("ranks must hold at least one entry; got none.")
    panels = panels_for(list(ranks), ax)
    for name, values in ranks.items():
        x = tensor(values, f"ranks of {name}").cpu().numpy()
        if x.ndim != 1 or x.min() < 0 or x.max() > draws:
            raise ValueError(f"ranks of {name} must be numbers from 0 to {draws}, of shape (n,); got shape {x.shape}.")
        _draw(panels[name], x, draws, bins or int(np.clip(len(x) // 10, 2, min(20, draws + 1))))
        panels[name].set_xlabel(name)
    next(iter(panels.values())).set_ylabel("simulations\n(band: 99 % if uniform)", fontsize="small", color=MUTED)
    return panels


def _draw(ax: Axes, x: np.ndarray, draws: int, bins: int) -> None:
    from scipy.stats import binom

    edges = np.floor(np.linspace(0, draws + 1, bins + 1)) - 0.5
    share = np.diff(edges) / (draws + 1)
    low, high = binom.ppf([[0.005], [0.995]], len(x), share)
    centre = (edges[1:] + edges[:-1]) / 2
    ax.bar(centre, high - low, np.diff(edges), bottom=low, color=FAINT, zorder=0, label="99 % of uniform ranks")
    counts = np.histogram(x, edges)[0]
    ax.bar(centre, counts, 0.9 * np.diff(edges), color=colour(0), alpha=0.6)
    ax.plot(edges[[0, -1]], [len(x) / bins] * 2, color=MUTED, lw=0.8)
    ax.set_ylim(0, 1.1 * max(counts.max(), high.max()))
    ax.set_yticks([])
    tidy(ax).spines["left"].set_visible(False)
    ax.tick_params(labelsize="small", color=MUTED)
