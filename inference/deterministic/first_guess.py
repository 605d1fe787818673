"""Where to start when the prior means will not do: the best of some draws from the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probdl.errors import ConvergenceError

if TYPE_CHECKING:
    from probdl.inference.programs.program import Program

STARTS = 50


def best_start(program: Program, seed: int = 0) -> Tensor:
    """Return where the log-density is largest among the present start and draws from the prior, (dim,).

    Args:
        program: the model with its data.
        seed: of the draws; no global seed is changed.
    """
    best, start = -torch.inf, program.start
    with torch.random.fork_rng(devices=[program.device] if program.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for i in range(STARTS + 1):
            z = program.start if i == 0 else program.draw_prior()
            value = float(program.log_joint(z))
            if value > best and bool(torch.isfinite(z).all()):
                best, start = value, z
    return start


def ensure_start(program: Program) -> None:
    """Move a program's start to the best of some prior draws where the density at the prior means is zero.

    Raises:
        ConvergenceError: if it is zero or NaN at all of them; it names the sites.
    """
    if not bool(torch.isfinite(program.log_joint(program.start))):
        program.start = best_start(program)
    z = program.start
    if bool(torch.isfinite(program.log_joint(z))):
        return
    bad = [k for k in program.observed if not bool(torch.isfinite(program.log_factor(k, z)).all())]
    bad = bad or [k for k in program.latents if not bool(torch.isfinite(program.log_latent(k, z)))]
    raise ConvergenceError(
        f"The log-density is not finite at the prior means, nor at {STARTS} draws from the prior: the factor of "
        f"site {', '.join(bad) or 'a prior'} is zero or NaN there. Use proper, less extreme priors, and logits= in "
        "place of probs=."
    )
