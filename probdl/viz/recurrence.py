"""How far back a recurrent network remembers: the norms of its Jacobians against the lag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probdl.viz.style import axes, colour, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("quantity", "lag", "lower", "median", "upper")
DASHES = {"cell, direct path": "--", "cell": "-."}


def gradient_norms(table: pd.DataFrame, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    r"""Draw the norms :math:`\|∂h_t/∂h_k\|_2` against the lag t - k: the median, and a band from lower to upper.

    The scale is logarithmic, so that a power of the lag is a straight line. Call it again with the axes that it
    returned to draw another network in another colour; the dashes tell the quantities of one network apart.

    Args:
        table: such as ``probdl.nn.gradient_norms`` returns.
        ax: where to draw; None makes a figure.
        label: of the network in the legend.

    Raises:
        ValueError: if the table lacks columns or rows.

    Example:
        >>> import torch
        >>> from probdl.nn import GRU, gradient_norms as norms
        >>> ax = gradient_norms(norms(GRU(1, 4), torch.randn(8, 5, 1)), label="GRU")
        >>> ax.get_xlabel()
        'lag t − k'
    """
    missing = [name for name in COLUMNS if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        raise ValueError(f"table must be a DataFrame from gradient_norms, with rows; missing: {missing or 'rows'}.")
    ax = tidy(axes(ax, 6.0, 4.0))
    tint = colour(len({line.get_color() for line in ax.lines}))
    alone = table["quantity"].nunique() == 1
    for name, rows in table.groupby("quantity", sort=False):
        what = name if label is None else label if alone else f"{label}, {name}"
        ax.plot(rows["lag"], rows["median"], DASHES.get(str(name), "-"), color=tint, lw=1.6, label=what)
        ax.fill_between(rows["lag"], rows["lower"], rows["upper"], color=tint, alpha=0.15, lw=0)
    ax.set_yscale("log")
    ax.set(xlabel="lag t − k", ylabel="spectral norm of the Jacobian")
    ax.legend(frameon=False, fontsize="small")
    return ax
