"""Initial weights from a seed, without touching the global one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw what is drawn inside (such as initial weights) from ``seed``, and put torch's global generators back.

    Torch's layers initialise themselves, and drop out, by the global generators and accept no others.

    Args:
        seed: any integer that ``torch.Generator.manual_seed`` takes.
        device: a GPU whose global generator is seeded and put back too, as dropout there needs.

    Example:
        >>> import torch
        >>> with seeded(1):
        ...     a = torch.nn.Linear(2, 2).weight
        >>> with seeded(1):
        ...     b = torch.nn.Linear(2, 2).weight
        >>> torch.equal(a, b)
        True
    """
    gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if gpu else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed all GPUs
        if gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
