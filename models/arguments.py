"""Checks of the hyperparameters that models share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count(value: int, name: str, least: int = 1) -> int:
    """Return a whole number of at least ``least``, or raise a ValueError that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return value


def not_negative(value: float, name: str) -> float:
    """Return a number of at least 0, or raise a ValueError that names the argument."""
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0; got {value!r}.")
    return float(value)


def positive(value: float, name: str) -> float:
    """Return a positive number, or raise a ValueError that names the argument."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number; got {value!r}.")
    return float(value)


def _is_number(value: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def one_of(value: str, choices: Sequence[str], name: str) -> str:
    """Return one of the choices, or raise a ValueError that names the argument."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")
    return value
