"""Pictures of a regression: its coefficients, and the response along one covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from probdl.models.regression.results import RegressionPosterior
from probdl.models.regression.units import COEFFICIENTS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_coefficients(
    posterior: RegressionPosterior, scales: torch.Tensor | None, level: float, ax: Axes | None, label: str | None
) -> Axes:
    """Draw median, 50 % and outer interval of each coefficient, multiplied by ``scales`` where they are given."""
    from probdl.viz import forest

    ends = ((1 - level) / 2, 0.25, 0.5, 0.75, (1 + level) / 2)
    by = 1.0 if scales is None else scales
    quantiles = [posterior.quantile(COEFFICIENTS, q) * by for q in ends]
    ax = forest(posterior.entries(COEFFICIENTS), quantiles, ax=ax, label=label or posterior.method)
    ax.axvline(0.0, color="0.6", lw=1, zorder=0)
    ax.set_xlabel("coefficient" + ("" if scales is None else " per standard deviation of its column"))
    return ax


def plot_effect(x: np.ndarray, table: pd.DataFrame, name: str, what: str, level: float, ax: Axes | None) -> Axes:
    """Draw the mean of the response along a covariate, with its interval: a band, or bars where x holds levels."""
    from probdl.viz.style import axes, colour, tidy

    ax = tidy(axes(ax, 6.0, 4.0))
    tint, label = colour(len(ax.lines)), f"{level:.0%} interval of the mean"
    if x.dtype.kind in "if":
        ax.plot(x, table["mean"], color=tint)
        ax.fill_between(x, table["lower"], table["upper"], color=tint, alpha=0.2, lw=0, label=label)
    else:
        reach = [table["mean"] - table["lower"], table["upper"] - table["mean"]]
        ax.errorbar(range(len(x)), table["mean"], reach, fmt="o", color=tint, label=label)
        ax.set_xticks(range(len(x)), [str(v) for v in x])
        ax.margins(x=0.2)
    ax.set(xlabel=name, ylabel=what)
    ax.legend(frameon=False)
    return ax


def along(data: pd.DataFrame, name: str, categorical: set[str], points: int = 101) -> pd.DataFrame:
    """Return rows along one column: its range or its levels, the others at their median or most frequent value.

    Args:
        data: of the fit, the columns that it used.
        name: of the column.
        categorical: columns that the formula codes as categories, whatever they hold.
        points: on the range of a numeric column.
    """
    import pandas as pd

    def is_number(c: str) -> bool:
        return data[c].dtype.kind in "iuf" and c not in categorical

    column = data[name]
    x = np.linspace(column.min(), column.max(), points) if is_number(name) else sorted(column.unique())
    typical = {c: data[c].median() if is_number(c) else data[c].mode().iloc[0] for c in data.columns}
    rows = data.iloc[[0] * len(x)].assign(**{c: [typical[c]] * len(x) for c in data.columns if c != name})
    held = pd.Categorical(x, categories=column.dtype.categories) if hasattr(column.dtype, "categories") else x
    return rows.assign(**{name: held}).reset_index(drop=True)
