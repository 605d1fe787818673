"""Keeps the state of a module that a loop should end with, and the one it can fall back to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Keeper:
    """The best state of a module by validation loss; without validation, the state of the last good epoch.

    Args:
        module: whose parameters and buffers are kept; its state at this moment is the first one.
        patience: offers without a better validation loss until ``spent``; None waits for ever.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> keeper = Keeper(layer, patience=2)
        >>> for epoch, validation in enumerate([3.0, 1.0, 2.0, 2.0], start=1):
        ...     keeper.offer(epoch, validation)
        >>> keeper.epoch, keeper.best, keeper.spent
        (2, 1.0, True)
    """

    def __init__(self, module: nn.Module, patience: int | None = None) -> None:
        self.module, self.patience = module, patience
        self.epoch, self.best, self._without = 0, math.inf, 0
        self._state = self._copy()

    def offer(self, epoch: int, validation: float | None) -> None:
        """Keep the module's present state if it is the best so far, or if nothing is known about that."""
        self._without += 1
        if validation is None or validation < self.best:
            self.epoch, self.best = epoch, math.inf if validation is None else validation
            self._without = 0
            self._state = self._copy()

    @property
    def spent(self) -> bool:
        """Whether the patience is at its end."""
        return self.patience is not None and self._without >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what is kept, as tensors and numbers."""
        return {"state": self._state, "epoch": self.epoch, "best": self.best, "without": self._without}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` returned."""
        self._state = {name: state["state"][name].to(kept) for name, kept in self._state.items()}
        self.epoch, self.best, self._without = state["epoch"], state["best"], state["without"]

    def restore(self) -> None:
        """Put the kept state back into the module."""
        self.module.load_state_dict(self._state)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}


def not_finite(module: nn.Module) -> list[str]:
    """Return the names of the parameters that hold a NaN or an infinity."""
    return [name for name, p in module.named_parameters() if not bool(torch.isfinite(p).all())]
