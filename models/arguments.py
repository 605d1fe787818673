"""Checks of the hyperparameters that models share."""

from __future__ import annotations

from collections.abc import Sequence


def count(value: int, name: str, least: int = 1) -> int:
    """Return a whole number of at least ``least``, or raise a ValueError that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return value


def one_of(value: str, choices: Sequence[str], name: str) -> str:
    """Return one of the choices, or raise a ValueError that names the argument."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")
    return value
