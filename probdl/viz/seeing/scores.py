"""What is asked about: the score of a class, a unit of a layer, or the mean over a channel; one number for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.classes import as_classes, as_scores, of_classes
from probdl.viz.seeing.layers import held

Score = Callable[[nn.Module, Tensor], Tensor]


def of_class(target: Any) -> Score:
    """Return the score of a class: a number for all rows, one for each row, or None for the class that scores most."""

    def score(model: nn.Module, x: Tensor) -> Tensor:
        scores = as_scores(model(x), len(x))
        best = scores.argmax(1)
        return of_classes(scores, best if target is None else as_classes(target, *scores.shape).to(best.device))

    return score


def of_unit(layer: str, unit: Any) -> Score:
    """Return a unit of a layer: its index in (channel, ...) for all rows, or a tensor with one for each row."""

    def score(model: nn.Module, x: Tensor) -> Tensor:
        values = _values(model, x, layer)
        index = _indices(unit, values, values.ndim - 1, "unit")
        return values[(torch.arange(len(x), device=x.device), *index.unbind(1))]

    return score


def of_channel(layer: str, channel: Any) -> Score:
    """Return the mean over the nodes of a channel of a layer."""

    def score(model: nn.Module, x: Tensor) -> Tensor:
        values = _values(model, x, layer)
        index = _indices(channel, values, 1, "channel")[:, 0]
        return values[torch.arange(len(x), device=x.device), index].reshape(len(x), -1).mean(1)

    return score


def _values(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    """Return what a layer holds, (n, channels, ...), with its graph."""
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a name, as layers(model, x) gives them; got {layer!r}.")
    values = held(model, x, [layer])[layer]
    return values if values.ndim > 1 else values[:, None]


def _indices(index: Any, values: Tensor, dims: int, name: str) -> Tensor:
    """Return an index into the first ``dims`` dimensions after the batch for each row, shape (n, dims).

    Raises:
        TypeError: if it does not hold integers.
        ValueError: for a wrong number of them, or one that is out of range.
    """
    n, shape = len(values), values.shape[1 : dims + 1]
    if hasattr(index, "__array__"):  # a tensor, or an array of NumPy's
        rows = torch.as_tensor(index, device=values.device)
    else:
        rows = _integers(index, name).to(values.device)
    if rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers; got {rows.dtype}.")
    if rows.ndim < 2:  # one for each row, or one for all
        rows = rows.reshape(-1, 1) if dims == 1 else rows.reshape(1, -1)
    if rows.ndim != 2 or rows.shape[1] != dims or len(rows) not in (1, n):
        wanted = "an integer" if dims == 1 else f"{dims} integers"
        raise ValueError(
            f"{name} must be {wanted} within {tuple(shape)}, or a tensor with that for each of the {n} rows; "
            f"got {index!r}."
        )
    if bool(((rows < 0) | (rows >= torch.tensor(shape, device=rows.device))).any()):
        raise ValueError(f"{name} must be from 0 to below {tuple(shape)}; got {index!r}.")
    return rows.long().expand(n, -1)


def _integers(index: Any, name: str) -> Tensor:
    items = index if isinstance(index, (tuple, list)) else [index]
    if not items or any(isinstance(item, bool) or not hasattr(item, "__index__") for item in items):
        raise TypeError(f"{name} must be an integer, several of them, or a tensor of integers; got {index!r}.")
    return torch.tensor([int(item) for item in items])
