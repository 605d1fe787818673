"""Indexing by a discrete latent that is a single number, without turning it into a Python number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class IndexByTensors(TorchFunctionMode):
    """Inside, ``x[z]`` with an integer tensor z of no dimensions stays a tensor operation, which can be recorded.

    Example:
        >>> with IndexByTensors():
        ...     torch.arange(6).reshape(2, 3)[torch.tensor(1), :]
        tensor([3, 4, 5])
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(map(_is_number, index)) and all(isinstance(i, (Tensor, slice)) for i in index):
                return _index(args[0], index)
        return func(*args, **(kwargs or {}))


def _is_number(i: Any) -> bool:
    return isinstance(i, Tensor) and i.ndim == 0 and not i.is_floating_point() and i.dtype is not torch.bool


def _index(x: Tensor, index: tuple) -> Any:
    """Give the numbers a dimension, and take it away again where no other tensor in the index has one."""
    widened = tuple(i.reshape(1) if _is_number(i) else i for i in index)
    out = x[widened]
    if any(isinstance(i, Tensor) and not _is_number(i) for i in index):
        return out  # the number is spread over the other tensors
    at = [n for n, i in enumerate(index) if isinstance(i, Tensor)]
    adjacent = at == list(range(at[0], at[0] + len(at)))
    return out.squeeze(at[0] if adjacent else 0)
