"""Bounds of the data: points reflected at them, draws folded back, and the moments of what comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

IMAGES = 243  # copies of the data at most: five columns with one or two bounds


def checked(bounds: Any) -> list[list[float | None]] | list[float | None] | None:
    """Return what a user passes as bounds in a form that JSON holds: a pair, or a list of pairs with None for none.

    Raises:
        ValueError, TypeError: for anything else, or a pair that is not increasing.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or not len(bounds):
        raise TypeError(f"bounds must be None, a pair (low, high), or a list of pairs, one a column; got {bounds!r}.")
    if any(isinstance(b, Sequence) for b in bounds):
        none: list[float | None] = [None, None]
        return [none if b is None else _pair(b) for b in bounds]
    return _pair(bounds)


def _pair(pair: Any) -> list[float | None]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"bounds must hold pairs (low, high), with None where there is no bound; got {pair!r}.")
    low, high = (None if b is None or math.isinf(b) else float(b) for b in pair)
    if low is not None and high is not None and not low < high or any(b is not None and b != b for b in (low, high)):
        raise ValueError(f"bounds must have low < high in each pair; got {tuple(pair)}.")
    return [low, high]


def ends(bounds: Any, d: int) -> Tensor:
    """Return the bounds of each of d columns, (2, d), infinite where there is none."""
    if bounds is None or not any(isinstance(b, list) for b in bounds):
        bounds = [bounds or [None, None]] * d
    if len(bounds) != d:
        raise ValueError(f"bounds must be one pair, or one for each of the {d} columns; got {len(bounds)} pairs.")
    low = [-math.inf if a is None else a for a, _ in bounds]
    high = [math.inf if b is None else b for _, b in bounds]
    return torch.tensor([low, high], dtype=torch.float64)


def reflected(x: Tensor, weights: Tensor, low: Tensor, high: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (n, d) and all their mirror images that reach inside the bounds, with their weights.

    Args:
        x, weights: (n, d) and (n,), inside the bounds.
        low, high: (d,), infinite where there is no bound.
        reach: how far the kernel of a point reaches in each column, (d,).
    """
    columns = [_maps(*(float(e[k]) for e in (low, high, reach))) for k in range(len(low))]
    count = math.prod(map(len, columns))
    if count > IMAGES:
        raise ValueError(
            f"bounds must not make more than {IMAGES} mirror images of the data; these make {count}. "
            "Bound fewer columns, or pass a smaller bandwidth."
        )
    if count == 1:
        return x, weights
    signs, shifts = (x.new_tensor([[m[i] for m in maps] for maps in product(*columns)]) for i in (0, 1))
    images = x * signs[:, None] + shifts[:, None]
    return images.flatten(0, 1), weights.repeat(count)


def _maps(low: float, high: float, reach: float) -> list[tuple[float, float]]:
    """Return the maps s·x + t under which the images of x in one column arise."""
    if math.isinf(low) and math.isinf(high):
        return [(1.0, 0.0)]
    if math.isinf(low) or math.isinf(high):
        return [(1.0, 0.0), (-1.0, 2 * (high if math.isinf(low) else low))]
    width = high - low
    steps = range(-(turns := math.ceil(reach / (2 * width))), turns + 1)
    return [m for k in steps for m in ((1.0, 2 * k * width), (-1.0, 2 * low + 2 * k * width))]


def folded(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return points folded back into the bounds, as often as they need it."""
    width = high - low
    both, left, right = width.isfinite(), low.isfinite(), high.isfinite()
    turned = torch.where(both, torch.remainder(x - low, 2 * width), 0.0)
    within = low + torch.where(turned > width, 2 * width - turned, turned)
    below = torch.where(left & (x < low), 2 * low - x, x)
    above = torch.where(right & (x > high), 2 * high - x, x)
    return torch.where(both, within, torch.where(left, below, above))
