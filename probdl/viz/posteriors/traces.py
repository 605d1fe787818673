"""The course of an inference: a bound or a gap against its steps, and the chains of a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.access import tensor
from probdl.viz.posteriors.intervals import panels_for
from probdl.viz.style import MUTED, axes, colour, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# What a method climbs or drives to zero, the first that a history has; then what its steps may be called.
HEIGHTS = ("elbo", "bound", "objective", "loss", "log_joint", "gap")
CLOCKS = ("sweep", "iteration", "step")


def convergence(
    frame: pd.DataFrame, ax: Axes | None = None, *, column: str | None = None, label: str | None = None
) -> Axes:
    """Draw the bound of an inference, or the gap that it closes, against its steps.

    Args:
        frame: such as ``posterior.history``, a row a step. A gap is drawn on a logarithmic scale.
        ax: where to draw; None makes a figure.
        column: what to draw; None: the first of elbo, bound, objective, loss, log_joint and gap.
        label: of the curve in the legend.

    Raises:
        ValueError: if the frame has no such column.

    Example:
        >>> import pandas as pd
        >>> ax = convergence(pd.DataFrame({"elbo": [-9.0, -3.0, -2.5]}), label="cavi")
        >>> ax.get_ylabel()
        'elbo'
    """
    name = column or next((c for c in HEIGHTS if c in frame), None)
    if name is None or name not in frame or not len(frame):
        wanted = repr(column) if column else f"one of {', '.join(HEIGHTS)}"
        raise ValueError(
            f"There is no trace to draw: it needs rows with the column {wanted}, and this history has {len(frame)} "
            f"rows of {', '.join(map(str, frame)) or 'nothing'}."
        )
    ax = tidy(axes(ax, 6.0, 3.2))
    clock, steps = _steps(frame)
    curve = frame[name].to_numpy(dtype=float)
    one = len(curve) == 1
    ax.plot(steps, curve, color=colour(len(ax.lines)), lw=1.6, marker="o" if one else None, label=label)
    if name == "gap" and (curve > 0).any():
        ax.set_yscale("log")
    ax.set_xlabel(clock)
    ax.set_ylabel(name)
    if label is not None:
        ax.legend(frameon=False)
    return ax


def _steps(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """The clock of a history: a column of rising counts, or else the rows."""
    for name in CLOCKS:
        if name in frame and (np.diff(frame[name]) > 0).all() and frame[name].iloc[0] >= 0:
            return name, frame[name].to_numpy()
    return "step", np.arange(1, len(frame) + 1)


def chains(draws: Mapping[str, Any], ax: Axes | Mapping[str, Axes] | None = None) -> dict[str, Axes]:
    """Draw the chains of a sampler over each other, each entry in a panel of its own.

    Args:
        draws: by name, the chains of one entry, (chains, n).
        ax: None makes a figure with a panel a name; a mapping gives each name its panel.

    Returns:
        The axes by name.

    Raises:
        ValueError: if there is nothing to draw, or draws have another shape.

    Example:
        >>> import torch
        >>> panels = chains({"mu": torch.randn(4, 100)})
        >>> len(panels["mu"].lines)
        4
    """
    if not draws:
        raise ValueError("draws must hold at least one name; got none.")
    panels = panels_for(list(draws), ax)
    for name, x in draws.items():
        x = tensor(x, f"draws of {name}").cpu().numpy()
        if x.ndim != 2:
            raise ValueError(f"draws of {name} must have shape (chains, n); got {x.shape}.")
        for i, chain in enumerate(x):
            panels[name].plot(chain, color=colour(i), lw=0.5, alpha=0.8)
        tidy(panels[name]).set_title(name, fontsize="small")
        panels[name].set_xlabel("draw", fontsize="small")
        panels[name].tick_params(labelsize="small", color=MUTED)
    return panels
