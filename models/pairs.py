"""Which pairs (x, y) train and which validate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form
from probdl.models.held_out import split


def is_pair(validation: Any) -> bool:
    """Whether it holds validation rows of the user's own, (x, y)."""
    return isinstance(validation, (tuple, list)) and len(validation) == 2


def parts(n: int, validation: Any, seed: int) -> list[Tensor]:
    """Return the indices of the training pairs, and of those that are kept back from them, if any are.

    Args:
        n: the number of pairs.
        validation: "auto", a fraction, or None, as in ``held_out.split``; a pair (x, y) keeps none back.
        seed: draws which are kept back.

    Raises:
        ValueError: for another ``validation``.
    """
    if is_pair(validation):
        return [torch.arange(n)]
    if not (validation is None or isinstance(validation, (bool, str, int, float))):
        what = type(validation).__name__
        raise ValueError(f"validation must be 'auto', a fraction, a pair (x, y) of your own, or None; got {what}.")
    return [part for part in split(torch.arange(n), validation, Form(()), seed) if part is not None]
