"""A model is looked at and left as it was: what every function of this room does before and after."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from probdl.access import tensor
from probdl.viz.seeing.refusal import raise_if_refused

HALF = (torch.float16, torch.bfloat16)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into eval mode for a while; training flags and buffers are as before also after an exception.

    A model in half precision is looked at in a float32 copy of its weights: derivatives below 6e-8 would be lost.

    Raises:
        TypeError: if ``model`` is not a torch module.
        ValueError: where one of its modules refuses the shape of its input; other exceptions of the model pass.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    seen = copy.deepcopy(model).float() if dtype_of(model) in HALF else model
    flags = {module: module.training for module in seen.modules()}
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in seen.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        seen.eval()
        with torch.inference_mode(False), _without_cudnn_for_recurrence(seen):
            yield seen
    except Exception as error:
        raise_if_refused(error)
        raise
    finally:
        for module, flag in flags.items():
            module.training = flag
        for module, name, buffer, value in buffers:
            _put_back(module, name, buffer, value)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Return the dtype of the first floating parameter or buffer, None where there is none."""
    floating = (t.dtype for t in [*model.parameters(), *model.buffers()] if t.is_floating_point())
    return next(floating, None)


def as_input(model: nn.Module, x: Any, name: str = "x") -> Tensor:
    """Return a copy of ``x`` in the dtype and on the device of the model; ``name`` is what errors call it.

    Raises:
        TypeError: if ``x`` does not hold numbers.
        ValueError: if ``x`` is not of shape (n, ...), is empty, or holds NaN or infinities.
    """
    value = tensor(x, name, dtype=None)
    if value.ndim < 2:
        shape = tuple(value.shape)
        raise ValueError(f"{name} must have shape (n, ...), a row for each input; got {shape}. Use {name}[None].")
    first = next(iter([*model.parameters(), *model.buffers()]), value)
    dtype = dtype_of(model) or (torch.float32 if value.dtype in HALF else value.dtype)
    return value.to(first.device, dtype, copy=True)


def check_open(model: nn.Module) -> None:
    """Raise where hooks on modules and nodes do not see the inside: compiled and scripted modules."""
    for name, module in model.named_modules():
        what = None
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            what = "compiled: pass the model as it was before torch.compile (model._orig_mod) or .compile()"
        elif isinstance(module, torch.jit.ScriptModule):
            what = "scripted: pass the model as it was before torch.jit"
        if what is not None:
            raise ValueError(f"model must be open to hooks, but {name or type(module).__name__} is {what}.")


def _put_back(module: nn.Module, name: str, buffer: Tensor | None, value: Tensor | None) -> None:
    """Give a buffer its tensor, and the tensor its value; nothing is written where nothing changed."""
    module._buffers[name] = buffer
    if buffer is not None and value is not None and not _same(buffer, value):
        with torch.no_grad():
            buffer.copy_(value)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _without_cudnn_for_recurrence(model: nn.Module) -> Any:
    """Switch cuDNN off where it would refuse the derivative of a recurrent layer in eval mode."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
