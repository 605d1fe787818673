"""The course of a training: loss and validation against steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probdl.viz.style import MUTED, STYLES, axes, colour, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CLOCKS = ("step", "epoch", "seconds")


def history(
    frame: pd.DataFrame | Mapping[str, pd.DataFrame], ax: Axes | None = None, *, columns: Sequence[str] | None = None
) -> Axes:
    """Draw the curves of a training against its steps, and mark the best validation.

    Args:
        frame: such as ``model.history``: a row a record, with the columns step, epoch, seconds, loss, validation and
            the model's own terms; what was not recorded in a row is NaN and is left out. Or several by their names:
            each gets a colour, each column a style.
        ax: where to draw; None makes a figure.
        columns: what to draw, such as a duel's terms; None: loss and validation, or every term where there is neither.

    Raises:
        TypeError: if a frame is not a DataFrame.
        ValueError: if it is empty or lacks a column, or there is none.

    Example:
        >>> import pandas as pd
        >>> ax = history(pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "validation": [3.0, 2.5, 2.6]}))
        >>> [line.get_label() for line in ax.lines]
        ['loss', 'validation', 'best validation 2.5 at step 2']
    """
    if isinstance(frame, Mapping):
        return _histories(frame, ax, columns)
    chosen = _columns(frame, columns)
    clock = _clock(frame)
    ax = tidy(axes(ax, 6.0, 3.5))
    for index, name in enumerate(chosen):
        _draw_curve(ax, frame, name, name, colour(index), "-" if name != "validation" else "--")
    if "validation" in chosen and frame["validation"].notna().any():
        time, best = _mark_best(ax, frame, MUTED)
        ax.lines[-1].set_label(f"best validation {best:.4g} at {clock or 'record'} {time:g}")
    ax.set_xlabel(clock or "record")
    ax.set_ylabel(chosen[0] if len(chosen) == 1 else "loss" if "loss" in chosen else "")
    ax.legend(frameon=False)
    return ax


def _histories(frames: Mapping[str, pd.DataFrame], ax: Axes | None, columns: Sequence[str] | None) -> Axes:
    """Draw several trainings in one picture: a colour each, a style for each column."""
    chosen = {label: _columns(frame, columns, f"frame[{label!r}]") for label, frame in frames.items()}
    if not chosen:
        raise ValueError("frame must hold at least one history; got none.")
    styles = {name: colour(i, STYLES) for i, name in enumerate(dict.fromkeys(sum(chosen.values(), [])))}
    ax = tidy(axes(ax, 6.0, 3.5))
    for index, (label, frame) in enumerate(frames.items()):
        for name in chosen[label]:
            _draw_curve(ax, frame, name, f"{label}: {name}", colour(index), styles[name])
        if "validation" in chosen[label] and frame["validation"].notna().any():
            _mark_best(ax, frame, colour(index))
    clocks = {_clock(frame) or "record" for frame in frames.values()}
    ax.set_xlabel(" or ".join(sorted(clocks)))
    ax.set_ylabel(next(iter(styles)) if len(styles) == 1 else "loss" if "loss" in styles else "")
    ax.legend(frameon=False)
    return ax


def _draw_curve(ax: Axes, frame: pd.DataFrame, name: str, label: str, tint: Any, style: str) -> None:
    curve, clock = frame[name].dropna(), _clock(frame)
    ax.plot(frame.loc[curve.index, clock] if clock else curve.index, curve, color=tint, lw=1.6, ls=style, label=label)


def _clock(frame: pd.DataFrame) -> str | None:
    return next((name for name in CLOCKS if name in frame), None)


def _columns(frame: pd.DataFrame, columns: Sequence[str] | None, what: str = "frame") -> list[str]:
    if not hasattr(frame, "columns"):
        raise TypeError(f"{what} must be a DataFrame, such as model.history; got {type(frame).__name__}.")
    terms = [name for name in frame if name not in CLOCKS]
    chosen = list(columns) if columns else [n for n in ("loss", "validation") if n in terms] or terms
    missing = [name for name in chosen if name not in frame]
    if missing or not chosen or not len(frame):
        raise ValueError(f"{what} must hold rows and the columns {chosen}; got {len(frame)} rows of {list(frame)}.")
    return chosen


def _mark_best(ax: Axes, frame: pd.DataFrame, tint: Any) -> tuple[float, float]:
    """Mark the least validation; return when it was and how much."""
    row, clock = frame["validation"].idxmin(), _clock(frame)
    time, best = (frame.loc[row, clock] if clock else row), frame.loc[row, "validation"]
    ax.plot([time], [best], "o", ms=6, mfc="white", color=tint)
    return time, best
