"""Colours that colour-blind readers can tell apart, and the axes that a picture is drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# M. Okabe and K. Ito (2008), Color universal design: for a few lines or sets of points.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# P. Tol (2021), Colour schemes, "muted" and black: for up to ten classes.
CLASSES = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#000000",
)
IMAGE, SEQUENTIAL, DIVERGING = "gray", "viridis", "RdBu_r"
STYLES = ("-", "--", ":", "-.")
MUTED, FAINT = "#666666", "#DDDDDD"


def axes(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """Return ``ax``, or the axes of a new figure of that size in inches.

    Raises:
        TypeError: if ``ax`` is something else.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not hasattr(ax, "imshow"):
        raise TypeError(f"ax must be a matplotlib Axes or None; got {type(ax).__name__}.")
    return ax


def rows(n: int, width: float = 6.0, height: float = 0.9) -> list[Axes]:
    """Return n axes one above another, each with its own scale, in a new figure; ``height`` inches each."""
    import matplotlib.pyplot as plt

    return list(plt.subplots(n, 1, figsize=(width, 0.4 + height * n), squeeze=False, layout="constrained")[1][:, 0])


def tidy(ax: Axes) -> Axes:
    """Take away the two spines that carry no scale."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def colour(index: int, palette: tuple[str, ...] = LINES) -> Any:
    """Return the colour of the ``index``-th thing drawn, beginning anew where the palette ends."""
    return palette[index % len(palette)]
