"""From arrays of images to one array that can be drawn, and the scale to draw it on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import tensor


def as_tiles(x: Any, name: str, stack: bool = False) -> Tensor:
    """Return (n, c, h, w) on the CPU; three dimensions are (n, h, w) if ``stack``, else (c, h, w)."""
    value = tensor(x, name).cpu()
    if value.ndim == 2 and not stack:
        value = value[None, None]
    elif value.ndim == 3:
        value = value.unsqueeze(1 if stack else 0)
    if value.ndim != 4 or value.shape[1] not in (1, 3):
        expected = "(n, h, w) or (n, c, h, w)" if stack else "(h, w), (c, h, w) or (n, c, h, w)"
        hint = f" Pass {np.shape(x)[0]} maps as {name}[:, None]." if np.ndim(x) == 3 else ""
        raise ValueError(f"{name} must have shape {expected} with 1 or 3 channels; got {tuple(np.shape(x))}.{hint}")
    return value


def ends_of_scale(
    tiles: Tensor, signed: bool | None, vmin: float | None, vmax: float | None
) -> tuple[float, float, bool]:
    """Return the ends of the scale and whether it is diverging; an all-zero map gets a scale of unit length."""
    smallest, largest = float(tiles.min()), float(tiles.max())
    signed = smallest < 0 if signed is None else signed
    if signed:
        given = [abs(v) for v in (vmin, vmax) if v is not None]
        high = given[0] if given else max(abs(smallest), abs(largest)) or 1.0
        if (vmin is not None and vmin != -high) or (vmax is not None and vmax != high):
            raise ValueError(f"A signed scale must be symmetric about 0; got {vmin} to {vmax}. Or pass signed=False.")
        return -high, high, True
    if tiles.shape[1] == 3 and smallest >= 0 and largest <= 1:
        largest = 1.0
    low = min(0.0, smallest) if vmin is None else vmin
    high = max(largest, low) if vmax is None else vmax
    if high < low:
        raise ValueError(f"vmin must not be above vmax; got {low:g} and {high:g}.")
    return low, high if high > low else low + 1.0, False


def sides_outside(tiles: Tensor, low: float, high: float) -> str:
    """Say to a colour bar on which sides values lie outside the scale."""
    below, above = bool((tiles < low).any()), bool((tiles > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def mosaic(tiles: Tensor, columns: int) -> np.ndarray:
    """Return (height, width, c) with the tiles row by row, one pixel of NaN between them."""
    n, channels, height, width = tiles.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    padded = torch.full((rows * columns, channels, height + 1, width + 1), math.nan, dtype=torch.float64)
    padded[:n, :, :height, :width] = tiles
    padded = padded.reshape(rows, columns, channels, height + 1, width + 1).permute(0, 3, 1, 4, 2)
    return padded.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1].numpy()
