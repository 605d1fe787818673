"""Monte Carlo errors of weighted means of draws."""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = 8  # of a sampler's draws: pieces of chains, longer than their memory


def standard_errors(weights: Tensor, x: Tensor, independent: bool, exact: bool = False) -> Tensor:
    r"""Return the standard errors of the weighted means of the columns of x, whose weighted means are zero.

    The influence of an independent draw on such a mean is :math:`n w_i x_i`; of draws whose first two moments are
    exact, :math:`(n w_i - 1) x_i`, as they have no error in what is quadratic in them. Draws of a sampler depend on
    each other: there the means of long parts are compared.

    Args:
        weights: sum to 1, (n,).
        x: (n, c).
        independent: whether the draws are; else the order is that of chains.
        exact: whether the first two moments of the draws are exact, and x is quadratic in them.
    """
    n = len(x)
    if independent:
        return (((weights - (1 / n if exact else 0.0))[:, None] * x) ** 2).sum(0).sqrt()
    parts = torch.stack([part.mean(0) for part in (n * weights[:, None] * x).tensor_split(PARTS)])
    return parts.std(0) / PARTS**0.5
