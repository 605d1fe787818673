"""What users pass to ``fit`` becomes tensors on one device, and the program runs under a local dtype and device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl import access


@contextmanager
def local_defaults(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run under a default dtype and device, both restored afterwards.

    A ``torch.zeros(3)`` in the user's model then has the dtype and the device of the data.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if device.type == "cpu":
            yield
        else:
            with device:
                yield
    finally:
        torch.set_default_dtype(before)


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device to run on; "auto" is the CPU, where small models are fastest.

    Raises:
        ValueError: for a name that torch does not know, or a CUDA device where there is none.
    """
    try:
        picked = torch.device("cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:0'; got {device!r}.") from error
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r} was asked for, but torch sees no CUDA device here.")
    return picked


def as_tensors(
    model: Callable, args: tuple, kwargs: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> tuple[tuple, dict[str, Any]]:
    """Turn the array-like arguments of a model into tensors: floating ones of ``dtype``, integers as they are.

    Args:
        model: the Pyro program, whose signature names the arguments in errors.
        args: positional arguments.
        kwargs: keyword arguments.
        dtype: floating type of the tensors.
        device: where they are put.

    Raises:
        TypeError: for object or string arrays, or arguments that do not fit the model's signature.
        ValueError: for empty arrays, NaN or infinities.
    """
    names = _argument_names(model, args, kwargs)
    return (
        tuple(_as_tensor(x, name, dtype, device) for x, name in zip(args, names)),
        {name: _as_tensor(x, name, dtype, device) for name, x in kwargs.items()},
    )


def _argument_names(model: Callable, args: tuple, kwargs: dict[str, Any]) -> list[str]:
    if not callable(model):
        raise TypeError(f"model must be a Pyro program, a function that calls pyro.sample; got {type(model).__name__}.")
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):  # built-in callables have no signature
        return [f"argument {i}" for i in range(len(args))]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(model, "__name__", type(model).__name__)
        raise TypeError(f"The arguments do not fit {name}{signature}: {error}.") from error
    names: list[str] = []
    for name, value in bound.arguments.items():
        many = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{name}[{i}]" for i in range(len(value))] if many else [name]
    return names[: len(args)]


def _as_tensor(x: Any, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(x, (Tensor, np.ndarray, np.generic)) and not hasattr(x, "to_numpy"):
        return x
    if isinstance(x, (Tensor, np.ndarray, np.generic)) and x.ndim == 0:
        scalar = torch.as_tensor(x, device=device)
        return scalar.to(dtype) if scalar.is_floating_point() else scalar
    checked = access.tensor(x, name, dtype=dtype)
    return checked.to(device, _own_type(x) or dtype)


def _own_type(x: Any) -> torch.dtype | None:
    """Integers may be indices and booleans may be masks: both keep their type."""
    if isinstance(x, Tensor):
        kind = "f" if x.is_floating_point() else "b" if x.dtype is torch.bool else "i"
    else:
        kind = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x).dtype.kind
    return {"i": torch.int64, "u": torch.int64, "b": torch.bool}.get(kind)


def with_floating_matrices(args: tuple, kwargs: dict[str, Any], dtype: torch.dtype) -> tuple[tuple, dict[str, Any]]:
    """Make the integer tensors of two or more dimensions floating: a design matrix of counts, not indices."""

    def convert(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and not x.is_floating_point() and x.ndim > 1 else x

    return tuple(map(convert, args)), {name: convert(x) for name, x in kwargs.items()}


def described(model: Callable, args: tuple, kwargs: dict[str, Any]) -> str:
    """Return the tensors among the arguments by name and shape, for errors: ``X (569, 30), y (569,)``."""
    named = [*zip(_argument_names(model, args, kwargs), args), *kwargs.items()]
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in named if isinstance(x, Tensor)) or "no tensors"
