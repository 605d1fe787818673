"""Maps and images. What is drawn is what came in: no hidden normalisation and no hidden clipping.

One channel is drawn through a colour map whose scale stands beside it; three channels are drawn as red, green and
blue, and where their values are not already in [0, 1] the line below the picture says which range was drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.viz.mosaic import as_tiles, ends_of_scale, mosaic, sides_outside
from probdl.viz.style import DIVERGING, IMAGE, SEQUENTIAL, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def show(
    maps: Any,
    image: Any = None,
    ax: Axes | None = None,
    signed: bool | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Draw maps of what a network sees: sequential colours from 0 up, or diverging and symmetric about 0 if signed.

    Several maps are drawn side by side on one scale.

    Args:
        maps: array-like of shape (h, w), (c, h, w) or (n, c, h, w) with c of 1 or 3.
        image: drawn in grey or colour under translucent one-channel maps; of the maps' height and width, one for all
            maps or one for each, with values in [0, 1].
        ax: where to draw; None makes a figure.
        signed: whether zero is the middle of the scale; None asks whether any value is negative.
        vmin: the value at the lower end of the scale; None: 0, or the smallest value if that is negative.
        vmax: the value at the upper end; None: the largest value, or the largest absolute value if signed, or 1 for
            three channels within [0, 1].

    Returns:
        The axes. Pixels are at integer coordinates, the first row on top.

    Raises:
        TypeError: if ``maps`` or ``image`` does not hold numbers.
        ValueError: for other shapes, NaN or infinities, or a signed scale that is not symmetric about 0.

    Example:
        >>> import torch
        >>> ax = show(torch.tensor([[0.0, 2.0], [-1.0, 0.5]]))
        >>> ax.images[0].get_clim()
        (-2.0, 2.0)
    """
    tiles = as_tiles(maps, "maps")
    low, high, diverging = ends_of_scale(tiles, signed, vmin, vmax)
    columns = len(tiles) if len(tiles) <= 5 else math.ceil(math.sqrt(len(tiles)))
    ax = _axes_of_pictures(ax, len(tiles), columns, tiles)
    if image is not None:
        _draw_under(ax, image, tiles, columns)
    if tiles.shape[1] == 3:
        return _draw_colour(ax, tiles, columns, low, high)
    picture = ax.imshow(
        mosaic(tiles, columns)[..., 0],
        cmap=DIVERGING if diverging else SEQUENTIAL,
        vmin=low,
        vmax=high,
        alpha=None if image is None else 0.6,
        interpolation="nearest",
    )
    ax.figure.colorbar(picture, ax=ax, fraction=0.046, pad=0.03, extend=sides_outside(tiles, low, high))
    return ax


def sample_grid(images: Any, columns: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw images on a grid, row by row, in grey or in colour, all on the same scale.

    Args:
        images: array-like of shape (n, h, w) or (n, c, h, w) with c of 1 or 3. Values in [0, 1] are drawn from black
            to white; for others the range that was drawn from black to white stands below the picture.
        columns: the number of images in a row; None makes the grid about square.
        ax: where to draw; None makes a figure.

    Raises:
        TypeError: if ``images`` does not hold numbers.
        ValueError: for other shapes, NaN or infinities, or if ``columns`` is not a positive integer.

    Example:
        >>> from probdl import data
        >>> ax = sample_grid(data.digits().images[:20], columns=10)
        >>> ax.images[0].get_array().shape
        (17, 89)
    """
    tiles = as_tiles(images, "images", stack=True)
    columns = math.ceil(math.sqrt(len(tiles))) if columns is None else columns
    if not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns must be a positive integer; got {columns!r}.")
    ax = _axes_of_pictures(ax, len(tiles), columns, tiles)
    return _draw_images(ax, tiles, columns)


def reconstructions(x: Any, y: Any, ax: Axes | None = None) -> Axes:
    """Draw images above their reconstructions, on the same scale.

    Args:
        x: the data, array-like of shape (n, h, w) or (n, c, h, w) with c of 1 or 3.
        y: the reconstructions, of the shape of ``x``.
        ax: where to draw; None makes a figure.

    Raises:
        TypeError: if ``x`` or ``y`` does not hold numbers.
        ValueError: if the shapes differ, or for other shapes, NaN or infinities.

    Example:
        >>> from probdl import data
        >>> images = data.digits().images[:8]
        >>> ax = reconstructions(images, images.round())
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['data', 'reconstruction']
    """
    above, below = as_tiles(x, "x", stack=True), as_tiles(y, "y", stack=True)
    if above.shape != below.shape:
        raise ValueError(f"y must have the shape of x, {tuple(above.shape)}; got {tuple(below.shape)}.")
    ax = _axes_of_pictures(ax, 2 * len(above), len(above), above)
    _draw_images(ax, torch.cat([above, below]), columns=len(above))
    height = above.shape[2]
    ax.set_yticks([(height - 1) / 2, height + 1 + (height - 1) / 2], ["data", "reconstruction"])
    ax.tick_params(axis="y", length=0)
    return ax


def _axes_of_pictures(ax: Axes | None, n: int, columns: int, tiles: Tensor) -> Axes:
    """Return axes without ticks; a new figure has the shape of the mosaic."""
    rows, columns = math.ceil(n / columns), min(n, columns)
    ratio = rows * tiles.shape[2] / (columns * tiles.shape[3])
    width = min(10.0, 2.0 + 1.2 * columns, 10.0 / ratio)
    ax = axes(ax, width, max(1.2, min(10.0, width * ratio)))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def _draw_images(ax: Axes, tiles: Tensor, columns: int) -> Axes:
    """Draw grey or coloured images from black to white; name the range where it is not [0, 1]."""
    low, high = float(tiles.min()), float(tiles.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low == high:
        high = low + 1.0
    if tiles.shape[1] == 3:
        return _draw_colour(ax, tiles, columns, low, high)
    ax.imshow(mosaic(tiles, columns)[..., 0], cmap=IMAGE, vmin=low, vmax=high, interpolation="nearest")
    return _name_range(ax, tiles, low, high, "black to white")


def _draw_colour(ax: Axes, tiles: Tensor, columns: int, low: float, high: float) -> Axes:
    """Draw red, green and blue; a range other than [0, 1] is mapped onto it and named below."""
    unit = mosaic(((tiles - low) / (high - low)).clamp(0, 1), columns)
    ax.imshow(np.nan_to_num(unit, nan=1.0), interpolation="nearest")
    return _name_range(ax, tiles, low, high, "dark to bright")


def _name_range(ax: Axes, tiles: Tensor, low: float, high: float, how: str) -> Axes:
    outside = int(((tiles < low) | (tiles > high)).sum())
    if (low, high) != (0.0, 1.0) or outside:
        clipped = f"; {outside} of {tiles.numel()} values outside are clipped" if outside else ""
        ax.set_xlabel(f"{how}: {low:.3g} to {high:.3g}{clipped}", fontsize="small")
    return ax


def _draw_under(ax: Axes, image: Any, tiles: Tensor, columns: int) -> None:
    """Draw the image that translucent maps will cover."""
    under = as_tiles(image, "image")
    if tiles.shape[1] != 1:
        raise ValueError("maps over an image must have one channel; reduce them first, as by maps.abs().amax(-3).")
    if under.shape[2:] != tiles.shape[2:] or len(under) not in (1, len(tiles)):
        raise ValueError(
            f"image must have the height and width of the maps {tuple(tiles.shape)}, "
            f"one for all or one for each; got {tuple(under.shape)}."
        )
    _draw_images(ax, under.expand(len(tiles), -1, -1, -1), columns)
