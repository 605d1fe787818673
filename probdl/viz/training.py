"""The course of a training: loss and validation against steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probdl.viz.style import MUTED, axes, colour, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CLOCKS = ("step", "epoch", "seconds")


def history(frame: pd.DataFrame, ax: Axes | None = None, *, columns: Sequence[str] | None = None) -> Axes:
    """Draw the curves of a training against its steps, and mark the best validation.

    Args:
        frame: such as ``model.history``: a row a record, with the columns step, epoch, seconds, loss, validation and
            the model's own terms; what was not recorded in a row is NaN and is left out.
        ax: where to draw; None makes a figure.
        columns: what to draw; None: loss and validation, or every term where there is neither.

    Raises:
        TypeError: if ``frame`` is not a DataFrame.
        ValueError: if it is empty or lacks a column.

    Example:
        >>> import pandas as pd
        >>> ax = history(pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "validation": [3.0, 2.5, 2.6]}))
        >>> [line.get_label() for line in ax.lines]
        ['loss', 'validation', 'best validation 2.5 at step 2']
    """
    chosen = _columns(frame, columns)
    clock = next((name for name in CLOCKS if name in frame), None)
    ax = tidy(axes(ax, 6.0, 3.5))
    for index, name in enumerate(chosen):
        curve = frame[name].dropna()
        time = frame.loc[curve.index, clock] if clock else curve.index
        ax.plot(time, curve, color=colour(index), lw=1.6, ls="-" if name != "validation" else "--", label=name)
    if "validation" in chosen and frame["validation"].notna().any():
        _mark_best(ax, frame, clock)
    ax.set_xlabel(clock or "record")
    ax.set_ylabel(chosen[0] if len(chosen) == 1 else "loss" if "loss" in chosen else "")
    ax.legend(frameon=False)
    return ax


def _columns(frame: pd.DataFrame, columns: Sequence[str] | None) -> list[str]:
    if not hasattr(frame, "columns"):
        raise TypeError(f"frame must be a DataFrame, such as model.history; got {type(frame).__name__}.")
    terms = [name for name in frame if name not in CLOCKS]
    chosen = list(columns) if columns else [n for n in ("loss", "validation") if n in terms] or terms
    missing = [name for name in chosen if name not in frame]
    if missing or not chosen or not len(frame):
        raise ValueError(f"frame must hold rows and the columns {chosen}; got {len(frame)} rows of {list(frame)}.")
    return chosen


def _mark_best(ax: Axes, frame: pd.DataFrame, clock: str | None) -> None:
    row = frame["validation"].idxmin()
    time, best = (frame.loc[row, clock] if clock else row), frame.loc[row, "validation"]
    text = f"best validation {best:.4g} at {clock or 'record'} {time:g}"
    ax.plot([time], [best], "o", ms=6, mfc="white", color=MUTED, label=text)
