"""Several processes of one script, as ``torchrun`` starts them, and the device of each."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


def world() -> int:
    """Return the number of processes that ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else 0


def chosen_device(device: str | torch.device, x: Any) -> torch.device:
    """Return where to compute; "auto": where ``x`` is if that is a GPU, else this process's GPU if there is one."""
    if device != "auto":
        return torch.device(device)
    if isinstance(x, Tensor) and x.device.type != "cpu":
        return x.device
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
