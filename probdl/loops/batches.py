"""Rows in batches, by index, on the device where the data are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]


def batches(data: Sequence[Tensor], size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
    """Yield all rows once, ``size`` at a time, in the order of the data or in a random one.

    Args:
        data: tensors with the same number of rows on the same device.
        size: rows in a batch; the last batch may have fewer.
        generator: on the data's device; draws the order. None keeps the order.

    Example:
        >>> import torch
        >>> [rows.tolist() for rows, in batches([torch.arange(5)], 2)]
        [[0, 1], [2, 3], [4]]
    """
    if generator is None:
        yield from zip(*(t.split(size) for t in data))
        return
    order = torch.randperm(len(data[0]), generator=generator, device=data[0].device)
    for rows in order.split(size):
        yield tuple(t.index_select(0, rows) for t in data)


def check_rows(data: Sequence[Tensor], name: str) -> None:
    """Raise unless ``data`` is a sequence of tensors with the same, positive number of rows."""
    if isinstance(data, Tensor) or not all(isinstance(t, Tensor) for t in data) or len(data) == 0:
        raise TypeError(f"{name} must be a tuple of tensors, such as (x,) or (x, y).")
    rows = [len(t) for t in data]
    if min(rows) < 1 or len(set(rows)) > 1:
        raise ValueError(f"the tensors of {name} must have the same, positive number of rows; got {rows}.")
