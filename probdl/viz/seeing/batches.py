"""Many inputs, a few at a time: memory grows with the batch and not with the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from probdl.access import tensor
from probdl.viz.seeing.layers import as_tokens
from probdl.viz.seeing.unchanged import as_input


def rows_of(data: Any, name: str) -> Any:
    """Return what can be cut into rows: tensors and arrays as they are, anything else as a tensor.

    Raises:
        TypeError: if it does not hold numbers.
        ValueError: if it has no rows.
    """
    rows = data if hasattr(data, "shape") and hasattr(data, "__getitem__") else tensor(data, name)
    if hasattr(rows, "to_numpy"):
        rows = rows.to_numpy()
    if len(rows.shape) < 2 or len(rows) == 0:
        raise ValueError(f"{name} must have shape (n, ...) with n of 1 or more; got {tuple(rows.shape)}.")
    return rows


def batches(model: nn.Module, rows: Any, name: str, size: int) -> Iterator[Tensor]:
    """Give rows in batches, each as the model takes it.

    Raises:
        ValueError: if ``size`` is no positive integer.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size must be a positive integer; got {size!r}.")
    return (any_input(model, rows[start : start + size], name) for start in range(0, len(rows), size))


def any_input(model: nn.Module, rows: Any, name: str) -> Tensor:
    """Return rows as the model takes them; the integers that an embedding takes stay integers."""
    tokens = as_tokens(model, rows)
    return as_input(model, rows, name) if tokens is None else tokens.to(next(model.parameters()).device, copy=True)
