"""Sheets of small pictures: patches above their projections, and filters with a tile for each input channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from probdl.access import tensor
from probdl.viz.images import show
from probdl.viz.mosaic import as_tiles, ends_of_scale, mosaic
from probdl.viz.style import DIVERGING, IMAGE, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP, LABEL = 0.06, 0.24  # between tiles, and for a line of text, in units of the width of a tile


def filter_grid(filters: Any, ax: Axes | None = None) -> Axes:
    """Draw filters, all on one scale that is symmetric about 0.

    With one or three input channels each filter is a picture, and :func:`show` draws them. With more, each filter is a
    row of tiles, one for each input channel, as deep as the layer below is wide.

    Args:
        filters: array-like of shape (out, in, height, width), as :func:`filters` returns them; of a convolution over
            sequences (out, in, width), where each filter is one tile.
        ax: where to draw; None makes a figure.

    Returns:
        The axes.

    Raises:
        TypeError: if ``filters`` does not hold numbers.
        ValueError: for other shapes, NaN or infinities.

    Example:
        >>> import torch
        >>> ax = filter_grid(torch.randn(4, 6, 3, 3))
        >>> ax.images[0].get_array().shape, ax.get_ylabel()
        ((15, 23), 'filter')
    """
    value = tensor(filters, "filters").cpu()
    if value.ndim == 3:
        value = value[:, None]
    if value.ndim != 4:
        raise ValueError(
            f"filters must have shape (out, in, height, width) or (out, in, width); got {tuple(value.shape)}."
        )
    n, channels, height, width = value.shape
    if channels in (1, 3):
        return show(value, ax=ax, signed=True)
    scale = min(0.15, 8 / (n * (height + 1)), 9 / (channels * (width + 1)))
    ax = axes(ax, 2.2 + scale * channels * (width + 1), 0.8 + scale * n * (height + 1))
    tiles = value.reshape(n * channels, 1, height, width)
    low, high, _ = ends_of_scale(tiles, True, None, None)
    picture = ax.imshow(mosaic(tiles, channels)[..., 0], cmap=DIVERGING, vmin=low, vmax=high, interpolation="nearest")
    ax.figure.colorbar(picture, ax=ax, fraction=0.046, pad=0.03)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("input channel")
    ax.set_ylabel("filter")
    ax.set_xticks(*_marks(channels, width))
    ax.set_yticks(*_marks(n, height))
    ax.tick_params(length=0)
    return ax


def sheet(images: Any, projections: Any, labels: Sequence[str], columns: int = 9, ax: Axes | None = None) -> Axes:
    """Draw images, each above its projection and a label.

    Images are drawn from black to white or in colour, all on one scale; the line below says on which, where it is not
    from 0 to 1. All projections are on one scale, symmetric about 0.

    Args:
        images: array-like of shape (k, c, h, w) with c of 1 or 3.
        projections: of the same shape; None: there are none.
        labels: a word for each image.
        columns: the number of images in a row.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: for other shapes, or ``columns`` that is no positive integer.
    """
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns must be a positive integer; got {columns!r}.")
    rows = [_drawable(as_tiles(images, "images", stack=True), signed=False)]
    if projections is not None:
        rows.append(_drawable(as_tiles(projections, "projections", stack=True), signed=True))
    k, columns = len(labels), min(columns, len(labels))
    tall = rows[0][0].shape[1] / rows[0][0].shape[2]  # tiles are 1 wide
    line = len(rows) * (tall + GAP) + LABEL
    lines = math.ceil(k / columns)
    inches = min(1.2, 11 / columns, 9 / (lines * line))
    ax = axes(ax, 1.0 + inches * columns * (1 + GAP), 0.4 + inches * lines * line)
    for i, label in enumerate(labels):
        left, top = i % columns * (1 + GAP), i // columns * line
        for tiles, how in rows:
            ax.imshow(tiles[i], extent=(left, left + 1, top + tall, top), interpolation="nearest", **how)
            top += tall + GAP
        ax.text(left + 0.5, top, label, ha="center", va="top", fontsize="small")
    ax.set_xlim(-GAP, columns * (1 + GAP))
    ax.set_ylim(lines * line, -GAP)
    return _finished(ax, rows)


def _drawable(tiles: Tensor, signed: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Return (k, h, w) or (k, h, w, 3), as imshow takes them, and their scale; colours are brought to [0, 1]."""
    low, high = float(tiles.min()), float(tiles.max())
    if signed:
        low, high, _ = ends_of_scale(tiles, True, None, None)
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low == high:
        high = low + 1.0
    how = {"vmin": low, "vmax": high, "cmap": DIVERGING if signed else IMAGE}
    if tiles.shape[1] == 1:
        return tiles[:, 0].numpy(), how
    return ((tiles - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1).numpy(), how


def _finished(ax: Axes, rows: list[tuple[np.ndarray, dict[str, Any]]]) -> Axes:
    """Name the scales, a signed one of one channel by a bar, and take the frame away."""
    said = []
    for (tiles, how), name in zip(rows, ("patches", "projections"), strict=False):
        if tiles.ndim == 4 or name == "patches":
            if (how["vmin"], how["vmax"]) != (0.0, 1.0):
                said.append(f"{name} dark to bright: {how['vmin']:.3g} to {how['vmax']:.3g}")
        else:
            ax.figure.colorbar(ax.images[1], ax=ax, fraction=0.046, pad=0.02, label="projection")
    ax.set_xlabel("; ".join(said), fontsize="small")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def _marks(n: int, size: int) -> tuple[list[float], list[str]]:
    """Return the middles of n tiles and their numbers; every so many where they would not fit."""
    shown = range(0, n, math.ceil(n / 16))
    return [i * (size + 1) + (size - 1) / 2 for i in shown], [str(i) for i in shown]
