"""Where the units of a self-organising map stand on their sheet, and who is whose neighbour."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRIDS = ("hexagonal", "square")
TOUCH = {"hexagonal": 1.01, "square": 1.42}  # distance up to which units touch: 6 neighbours, or 8 with the diagonals


def positions(shape: tuple[int, int], grid: str) -> Tensor:
    """Return the places (x, y) of the units, row by row, (rows · columns, 2), with nearest neighbours at distance 1.

    Args:
        shape: rows and columns.
        grid: "square"; or "hexagonal", where every second row is half a step to the right and rows are √3/2 apart.

    Example:
        >>> positions((2, 2), "square").tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    rows, columns = shape
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    x, y = j.double(), i.double()
    if grid == "hexagonal":
        x, y = x + (i % 2) / 2, y * math.sqrt(3) / 2
    return torch.stack([x, y], -1).reshape(-1, 2)


def neighbours(places: Tensor, grid: str) -> Tensor:
    """Return which pairs of distinct units touch, booleans (units, units)."""
    apart = (places[:, None] - places).norm(dim=2)
    return (apart > 0) & (apart < TOUCH[grid])
