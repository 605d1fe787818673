"""Occlusion: how far a score falls when a window of the image is covered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.classes import as_classes, as_scores, of_classes
from probdl.viz.seeing.layers import held
from probdl.viz.seeing.unchanged import as_input, unchanged

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Occlusion:
    """What covering a window took from a score.

    Attributes:
        grid: (n, rows, columns), the drop of the score with the window at each of its places.
        map: (n, h, w), for each pixel the mean drop over the windows that cover it.
    """

    grid: Tensor
    map: Tensor


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Any = None,
    layer: str | None = None,
    channel: int | None = None,
    window: int | tuple[int, int] = 4,
    stride: int | tuple[int, int] = 1,
    baseline: float | Tensor = 0.0,
    batch_size: int = 64,
) -> Occlusion:
    r"""Cover each window of an image in turn, and return how far a score falls: :math:`S(x) - S(x_{-w})`.

    The first window stands in the upper left corner; those at the right and lower border are clipped where the stride
    does not fit. All channels of the image are covered. The score is a logit; for a layer it is the sum of the feature
    map over its places. A positive drop says that what was covered spoke for the class.

    Args:
        model: any torch module; it runs in eval mode and is left as it was.
        x: images of shape (n, c, h, w).
        target: the class, an integer or one for each image; None: the highest score of each image as it came. A model
            with one output has one score, and no target.
        layer: name of a module, as in ``model.named_modules()``; "name#1" for the second call of a reused module.
        channel: of the layer's output; None: the sum over all channels.
        window: height and width of the window in pixels.
        stride: step of the window down and to the right; at most the window, so that each pixel is covered.
        baseline: what covers, a number or a tensor that expands to ``x``, such as its mean.
        batch_size: the number of covered images in a forward pass.

    Returns:
        Occlusion with ``grid`` (n, rows, columns) and ``map`` (n, h, w), in the dtype of the model, for one
        in half precision in float32.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if ``x`` are no images, a window does not fit, or the class, layer or channel does not exist.

    Reference:
        M. Zeiler and R. Fergus (2014). Visualizing and understanding convolutional networks. ECCV.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
        >>> result = occlusion(model, torch.rand(1, 1, 3, 3), target=1, window=2)
        >>> result.grid.shape, result.map.shape
        (torch.Size([1, 2, 2]), torch.Size([1, 3, 3]))
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer; got {batch_size!r}.")
    with unchanged(model) as seen, torch.no_grad():
        images = as_input(seen, x)
        windows = _windows(images, window, stride)
        score, whole = _scores(seen, images, target, layer, channel, batch_size)
        covered = _covered(score, images, _expanded(baseline, images), windows, batch_size)
    grid = (whole[:, None] - covered).reshape(len(images), *(len(side) for side in windows))
    return Occlusion(grid, _mean_over_windows(grid, windows))


def _scores(
    model: nn.Module, images: Tensor, target: Any, layer: str | None, channel: int | None, batch_size: int
) -> tuple[Score, Tensor]:
    """Return what is measured, as a function of covered images and of which image each is, and its values as they came.

    Raises:
        ValueError: if there is no such class, layer or channel, or both a class and a layer are named.
    """
    if layer is not None:
        if target is not None:
            raise ValueError("target and layer exclude each other: occlude the score of a class or a feature map.")
        measure = partial(_sum_of_map, model, layer, channel)
        return (lambda x, image: measure(x)), torch.cat([measure(batch) for batch in images.split(batch_size)])
    if channel is not None:
        raise ValueError("channel needs the name of its layer; pass layer=.")
    n = len(images)
    whole = torch.cat([as_scores(model(batch.clone()), len(batch)) for batch in images.split(batch_size)])
    classes = whole.argmax(1) if target is None else as_classes(target, n, whole.shape[1]).to(whole.device)
    return (lambda x, image: of_classes(as_scores(model(x), len(x)), classes[image])), of_classes(whole, classes)


def _sum_of_map(model: nn.Module, layer: str, channel: int | None, x: Tensor) -> Tensor:
    maps = held(model, x.clone(), [layer])[layer]
    maps = maps if maps.ndim > 1 else maps[:, None]  # one number for each row is one channel
    if channel is None:
        return maps.flatten(1).sum(1)
    if isinstance(channel, bool) or not isinstance(channel, Integral) or not 0 <= channel < maps.shape[1]:
        raise ValueError(f"channel must be in 0, ..., {maps.shape[1] - 1}, one of layer {layer!r}; got {channel!r}.")
    return maps[:, channel].reshape(len(maps), -1).sum(1)


def _covered(score: Score, images: Tensor, baseline: Tensor, windows: tuple[Tensor, Tensor], batch_size: int) -> Tensor:
    """Return the score of each image with each window covered, (n, rows · columns), in batches of both together."""
    down, across = windows
    scores = []
    for which in torch.arange(len(images) * len(down) * len(across), device=images.device).split(batch_size):
        image, row, column = which // (len(down) * len(across)), which // len(across) % len(down), which % len(across)
        inside = (down[row, :, None] & across[column, None, :]).unsqueeze(1)
        scores.append(score(torch.where(inside, baseline[image], images[image]), image))
    return torch.cat(scores).reshape(len(images), -1)


def _mean_over_windows(grid: Tensor, windows: tuple[Tensor, Tensor]) -> Tensor:
    down, across = (side.to(grid.dtype) for side in windows)
    return down.T @ grid @ across / (down.sum(0)[:, None] * across.sum(0))


def _windows(images: Tensor, window: int | tuple[int, int], stride: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return which rows and which columns of the image each window covers: (rows, h) and (columns, w)."""
    if images.ndim != 4:
        raise ValueError(f"x must be images of shape (n, c, h, w); got {tuple(images.shape)}. Use x.reshape.")
    sides = images.shape[2:]
    sizes, steps = _pair(window, "window"), _pair(stride, "stride")
    for side, size, step in zip(sides, sizes, steps, strict=True):
        if size > side:
            raise ValueError(f"window must fit into images of {tuple(sides)} pixels; got {sizes}.")
        if step > size:
            raise ValueError(f"stride must be at most the window {sizes}, or pixels are never covered; got {steps}.")
    down, across = (_places(*each, images.device) for each in zip(sides, sizes, steps, strict=True))
    return down, across


def _places(side: int, size: int, step: int, device: torch.device) -> Tensor:
    """Return (places, side) booleans; the last place reaches the end, clipped if the step does not fit."""
    start = step * torch.arange(-(-(side - size) // step) + 1, device=device)[:, None]
    pixel = torch.arange(side, device=device)
    return (pixel >= start) & (pixel < start + size)


def _pair(value: Any, name: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ValueError(f"{name} must be a positive integer or two of them, for height and width; got {value!r}.")
    return pair


def _expanded(baseline: float | Tensor, images: Tensor) -> Tensor:
    try:
        value = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"baseline must be a number, or a tensor that expands to x; got {baseline!r}.") from error
    if not torch.isfinite(value).all():
        raise ValueError("baseline must be finite; got NaN or infinities.")
    try:
        return value.expand(images.shape)
    except RuntimeError as error:
        raise ValueError(
            f"baseline must be a number, or expand to the images {tuple(images.shape)}; got {tuple(value.shape)}."
        ) from error
