"""Where a decoder looked in the source while it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probdl.access import tensor
from probdl.viz.style import MUTED, SEQUENTIAL, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def alignment(weights: Any, source: Sequence[str], target: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw attention weights, a row for each token that was written and a column for each token that was read.

    Args:
        weights: (T, S), each row sums to one; or (T + 1, S), the last row for the end of the target.
        source: S tokens, such as the characters of a string.
        target: T tokens.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: if the weights have another shape, or are not between 0 and 1.

    Example:
        >>> ax = alignment([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], "ab", "AB")
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['A', 'B', 'end']
    """
    value, rows = tensor(weights, "weights").cpu(), list(target)
    if value.shape == (len(rows) + 1, len(source)):
        rows.append("end")
    if value.shape != (len(rows), len(source)):
        raise ValueError(
            f"weights must have a row for each of {len(rows)} target tokens, and perhaps one for the end, and "
            f"{len(source)} columns; got {tuple(value.shape)}."
        )
    if float(value.min()) < 0 or float(value.max()) > 1 + 1e-6:
        raise ValueError(f"weights must be between 0 and 1; got {float(value.min()):g} to {float(value.max()):g}.")
    ax = axes(ax, 1.6 + 0.26 * len(source), 0.9 + 0.26 * len(rows))
    picture = ax.imshow(value.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(source)), list(source))
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize="small")
    ax.set_xlabel("read", color=MUTED)
    ax.set_ylabel("written", color=MUTED)
    ax.figure.colorbar(picture, ax=ax, fraction=0.046, pad=0.02, label="attention")
    return ax
