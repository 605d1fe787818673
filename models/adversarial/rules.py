"""The rules by which a critic and a generator step, and their rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

Rate = float | Callable[[float], float]
Rule = Callable[..., torch.optim.Optimizer]
RULES: dict[str, Rule] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "sgd": torch.optim.SGD,
}


def pair(values: Sequence[float]) -> tuple[float, float]:
    """Return two learning rates, or raise a ValueError."""
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise ValueError(f"learning_rates must be two numbers, the critic's and the generator's; got {values!r}.")
    return values[0], values[1]


def not_negative(value: float, name: str) -> float:
    """Return a number of at least 0, or raise a ValueError that names the argument."""
    return 0.0 if value == 0 else positive(value, name)


def positive(value: float, name: str) -> float:
    """Return a positive number, or raise a ValueError that names the argument."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive; got {value!r}.")
    return float(value)
