"""The rules by which a critic and a generator step, and their rates."""

from __future__ import annotations

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
