"""Initial weights from a seed, without touching the global one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw what is drawn inside (such as initial weights) from ``seed``, and put torch's global generator back.

    Torch's layers initialise themselves from the global CPU generator and accept no other.

    Args:
        seed: any integer that ``torch.Generator.manual_seed`` takes.

    Example:
        >>> import torch
        >>> with seeded(1):
        ...     a = torch.nn.Linear(2, 2).weight
        >>> with seeded(1):
        ...     b = torch.nn.Linear(2, 2).weight
        >>> torch.equal(a, b)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        yield
