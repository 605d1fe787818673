"""The moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    r"""The exponential moving average of parameters, :math:`\bar θ ← d\,\bar θ + (1 - d)\,θ` after each step.

    The decay d grows to its value as (1 + t)/(10 + t), so that the first steps are soon forgotten.

    Args:
        parameters: those that are averaged.
        decay: d, between 0 and 1.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = Average([weight], 0.5)
        >>> with torch.no_grad():
        ...     _ = weight.fill_(1.0)
        >>> average.update()
        >>> with average.in_place():
        ...     print(weight.item())
        0.8999999761581421
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema must be a decay between 0 and 1, such as 0.999; got {decay!r}.")
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present parameters in."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.values, [p.detach() for p in self.parameters], self.steps)
        self.steps += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in the place of the parameters, inside the block."""
        present = [p.detach().clone() for p in self.parameters]
        self._set(self.values)
        try:
            yield
        finally:
            self._set(present)

    def settle(self) -> None:
        """Put the averages in the place of the parameters for good."""
        self._set(self.values)

    def state(self) -> dict[str, object]:
        """Return the averages and their number."""
        return {"values": self.values, "steps": self.steps}

    def load(self, state: dict) -> None:
        """Take up what ``state`` returned."""
        self.steps = state["steps"]
        for value, saved in zip(self.values, state["values"]):
            value.copy_(saved)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.parameters, values):
            p.copy_(value)
