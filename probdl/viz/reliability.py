"""Reliability diagrams: what happened against the probability that was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.viz.style import FAINT, MUTED, axes, colour, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("n", "confidence", "accuracy", "lower", "upper")


def reliability(
    table: pd.DataFrame, ax: Axes | None = None, *, event: str = "predicted class", label: str | None = None
) -> Axes:
    """Draw the share of rows where the event happened against its mean probability, a dot with an interval a bin.

    Dots on the diagonal are calibrated, below it overconfident. The pale bars below say how the rows are spread over
    the bins; call it again with the axes it returned and another ``label`` to compare a second classifier.

    Args:
        table: with the columns n, confidence, accuracy, lower and upper, such as ``calibration(x, y).table``.
        ax: where to draw; None makes a figure.
        event: whose probability it is, for the axes' names.
        label: of these dots in the legend.

    Raises:
        ValueError: if columns are missing, there is no row, or a share is not between 0 and 1.

    Example:
        >>> import pandas as pd
        >>> bins = {"n": [20, 80], "confidence": [0.6, 0.9], "accuracy": [0.5, 0.95], "lower": [0.3, 0.88]}
        >>> ax = reliability(pd.DataFrame({**bins, "upper": [0.7, 0.98]}))
        >>> ax.get_xlabel()
        'mean probability of the predicted class'
    """
    n, confidence, accuracy, lower, upper = _checked(table)
    first = ax is None or not ax.containers
    ax = tidy(axes(ax, 4.4, 4.8))
    if first:
        ax.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":", label="calibrated")
        _draw_rows(ax, confidence, n)
    tint = colour(sum(hasattr(c, "has_yerr") for c in ax.containers))
    reach = [np.maximum(accuracy - lower, 0), np.maximum(upper - accuracy, 0)]
    ax.errorbar(confidence, accuracy, yerr=reach, fmt="o", ms=4.5, lw=1.4, color=tint, label=label or "bins, 95 %")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set(xlabel=f"mean probability of the {event}", ylabel="share where it happened")
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3, "columnspacing": 1.0}
    ax.legend(frameon=False, fontsize="small", handlelength=1.2, **below)
    return ax


def _draw_rows(ax: Axes, confidence: np.ndarray, n: np.ndarray) -> None:
    """Draw the counts as bars from the bottom, the tallest a fifth of the axes high."""
    ax.bar(confidence, 0.2 * n / n.max(), 0.03, color=FAINT, zorder=0, label=f"rows, at most {n.max():,.0f}")


def _checked(table: pd.DataFrame) -> list[np.ndarray]:
    missing = [name for name in COLUMNS if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        raise ValueError(f"table must be a DataFrame of bins with the columns {COLUMNS}; missing: {missing or 'rows'}.")
    n, *shares = (table[name].to_numpy(dtype=float) for name in COLUMNS)
    if not all(((s >= 0) & (s <= 1)).all() for s in shares):
        raise ValueError("table must hold shares between 0 and 1 in confidence, accuracy, lower and upper.")
    return [n, *shares]
