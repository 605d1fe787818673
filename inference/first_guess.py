"""Where to start when the prior means will not do: the best of some draws from the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from probdl.inference.program import Program

STARTS = 50


def best_start(program: Program, seed: int = 0) -> Tensor:
    """Return where the log-density is largest among the present start and draws from the prior, (dim,).

    Args:
        program: the model with its data.
        seed: of the draws; no global seed is changed.
    """
    best, start = -torch.inf, program.start
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i in range(STARTS + 1):
            z = program.start if i == 0 else program.draw_prior()
            value = float(program.log_joint(z))
            if value > best and bool(torch.isfinite(z).all()):
                best, start = value, z
    return start
