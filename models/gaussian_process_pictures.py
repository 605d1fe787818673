"""Pictures of a fitted Gaussian process in one and two columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.viz.style import LINES, MUTED, axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probdl.models.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor


def plot_classifier(gp: GaussianProcessClassifier, level: float, ax: Axes | None) -> Axes:
    """Draw the probability of the second class over one column with its band, or over two as filled contours."""
    x, y, names = gp._x, gp._labels, gp._columns
    if x.shape[1] == 1:
        grid = _line(x)
        low, middle, high = gp._probability_band(grid, level)
        ax = _band(ax, grid, middle, low, high, f"{level:.0%} band of the probability")
        ax.plot(x[:, 0], (y + 1) / 2, "|", ms=12, color=MUTED, alpha=0.6, label="data")
        ax.set(ylim=(-0.06, 1.06), ylabel=f"probability of {gp.classes[1]}", xlabel=_name(names, 0))
        _legend(ax)
        return ax
    a, b, grid = _plane(x)
    return _contours(ax, a, b, gp.predict_proba(grid)[:, 1], x, (y + 1) / 2, names, f"probability of {gp.classes[1]}")


def plot_regressor(gp: GaussianProcessRegressor, level: float, ax: Axes | None) -> Axes:
    """Draw mean and intervals over one column, or the mean over two as filled contours."""
    x, y, names = gp._x, gp._y, gp._columns
    if x.shape[1] == 1:
        grid = _line(x)
        f, new = gp.predict(grid, level, of="f"), gp.predict(grid, level)
        ax = _band(ax, grid, f["mean"], f["lower"], f["upper"], f"{level:.0%} of f")
        ax.fill_between(grid[:, 0], new["lower"], new["upper"], color=LINES[0], alpha=0.12, lw=0, label="and of y")
        ax.plot(x[:, 0], y, "o", ms=3.5, color=MUTED, alpha=0.8, label="data")
        ax.set(xlabel=_name(names, 0), ylabel="y")
        _legend(ax)
        return ax
    a, b, grid = _plane(x)
    mean = torch.as_tensor(gp.predict(grid, level, of="f")["mean"].to_numpy(copy=True))
    return _contours(ax, a, b, mean, x, y, names, "posterior mean of f")


def _line(x: Tensor, points: int = 300) -> Tensor:
    low, high = x.min(), x.max()
    margin = 0.08 * (high - low) if high > low else 1.0
    return torch.linspace(float(low - margin), float(high + margin), points, dtype=x.dtype)[:, None]


def _plane(x: Tensor, points: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    if x.shape[1] != 2:
        raise ValueError(f"plot draws functions of one or two columns; this model has {x.shape[1]}.")
    a, b = _line(x[:, :1], points)[:, 0], _line(x[:, 1:], points)[:, 0]
    return a, b, torch.cartesian_prod(a, b)


def _band(ax: Axes | None, grid: Tensor, middle: Any, low: Any, high: Any, label: str) -> Axes:
    ax = tidy(axes(ax))
    ax.fill_between(grid[:, 0], low, high, color=LINES[0], alpha=0.25, lw=0, label=label)
    ax.plot(grid[:, 0], middle, color=LINES[0], lw=1.8)
    return ax


def _contours(
    ax: Axes | None, a: Tensor, b: Tensor, value: Tensor, x: Tensor, y: Tensor, names: Any, what: str
) -> Axes:
    """Fill contours of ``value``, with the observations on them in the same colours."""
    ax = axes(ax, 6.0, 4.6)
    binary = bool(((y == 0) | (y == 1)).all())
    low, high = (0.0, 1.0) if binary else (float(min(value.min(), y.min())), float(max(value.max(), y.max())))
    levels = [low + (high - low) * k / 20 for k in range(21)] if high > low else 3
    drawn = ax.contourf(a, b, value.reshape(len(a), len(b)).T, levels=levels, cmap="RdBu_r" if binary else "viridis")
    ax.scatter(x[:, 0], x[:, 1], c=y, s=22, cmap=drawn.cmap, vmin=low, vmax=high, edgecolors="black", linewidths=0.6)
    if binary:
        ax.contour(a, b, value.reshape(len(a), len(b)).T, levels=[0.5], colors="black", linewidths=1.2)
    ax.figure.colorbar(drawn, ax=ax, label=what)
    ax.set(xlabel=_name(names, 0), ylabel=_name(names, 1))
    return ax


def _name(names: Any, column: int) -> str:
    return names[column] if names else f"X[{column}]"


def _legend(ax: Axes) -> None:
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
