"""Which module refused the shape of x: torch's complaint is told apart from an exception of the user's own code."""

from __future__ import annotations

import opcode
import os
import re
import traceback
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

# The types that torch raises for shapes, and words of which each such message has one.
TYPES = (RuntimeError, ValueError, IndexError, AssertionError)
WORDS = re.compile(r"sizes?\b|shape|dimension|\b\dD\b|subscript|\belements not\b", re.IGNORECASE)
TORCH = os.path.dirname(torch.__file__) + os.sep
RAISE = opcode.opmap["RAISE_VARARGS"]


def raise_if_refused(error: BaseException) -> None:
    """Raise a ValueError from a complaint of torch's about shapes within a module; return for any other exception.

    Torch's are those that its operators raise, or its Python code does, as ``nn.LSTM``. What the user's modules raise
    by a statement of their own is the user's, whatever it says.

    Raises:
        ValueError: that names the shape of x, the module that refused its input, and that input's shape.
    """
    if type(error) not in TYPES or not WORDS.search(str(error)) or not _is_torchs(error):
        return
    calls = [call for frame, _ in traceback.walk_tb(error.__traceback__) if (call := _call(frame)) is not None]
    if not calls:
        return
    (model, x), (refuser, given) = calls[0], calls[-1]
    name = next((name for name, module in model.named_modules() if module is refuser), "")
    where = f"its module {name!r}, {type(refuser).__name__}," if name else type(refuser).__name__
    seen = f" was given {given} and" if name else ""
    raise ValueError(
        f"x must have a shape that the model takes; got {x}: {where}{seen} could not run. Torch says: {error}"
    ) from error


def _is_torchs(error: BaseException) -> bool:
    """Say whether the innermost frame is torch's, or is in an operator rather than at a ``raise``."""
    end = error.__traceback__
    while end is not None and end.tb_next is not None:
        end = end.tb_next
    if end is None:
        return False
    code = end.tb_frame.f_code
    return code.co_filename.startswith(TORCH) or code.co_code[end.tb_lasti] != RAISE


def _call(frame: FrameType) -> tuple[nn.Module, Any] | None:
    """Return the module that a frame calls and the shape of what it is given, None for other frames."""
    if frame.f_code.co_name != "_call_impl":  # nn.Module's, the same for all modules
        return None
    module, inputs = frame.f_locals.get("self"), frame.f_locals.get("args")
    if not isinstance(module, nn.Module) or not inputs or not isinstance(inputs[0], Tensor):
        return None
    return module, tuple(inputs[0].shape)
