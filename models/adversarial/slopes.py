"""What a critic with bounded slopes says of W1 on rows that it did not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from probdl.divergences.lipschitz import between, gradient_norms, lipschitz_bound
from probdl.models.adversarial.critic import Critic


def held_out_w1(
    critic: Critic, u: Tensor, fake: Tensor, c: Tensor | None, noise: torch.Generator, clipped: bool
) -> tuple[float, float]:
    """Return the critic's gap between held-out rows and samples over a bound on its slope, and that bound.

    Args:
        critic: f.
        u, fake: rows and samples of one shape; in the units in which W1 is wanted.
        c: their condition, or None.
        noise: of the points between them.
        clipped: whether to bound the slope by the product of the layers' spectral norms, where the network is a chain
            of dense layers; else it is the largest at the rows, the samples and points between.
    """
    gap = (critic(u, c).mean() - critic(fake, c).mean()).item()
    slope = _bound(critic) if clipped else None
    slope = _steepest(partial(critic, c=c), u, fake, noise) if slope is None else slope
    return (gap / slope if slope > 0 else math.nan), slope


def _steepest(critic: Callable[[Tensor], Tensor], u: Tensor, fake: Tensor, noise: torch.Generator) -> float:
    return max(gradient_norms(critic, points).max().item() for points in (u, fake, between(u, fake, noise)))


def _bound(critic: Critic) -> float | None:
    """Return a bound on the Lipschitz constant, or None where none is known."""
    try:
        return lipschitz_bound(critic.network)
    except ValueError:
        return None
