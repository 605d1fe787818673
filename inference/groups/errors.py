"""Monte Carlo errors of weighted means of draws."""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = 8  # of a sampler's draws: pieces of chains, longer than their memory


def standard_errors(weights: Tensor, x: Tensor, exact: bool) -> Tensor:
    r"""Return the standard errors of the weighted means of the columns of x, whose weighted means are zero.

    Independent draws whose first two moments are exact have no error in what is quadratic in them, so that the
    influence of a draw on such a mean is :math:`(n w_i - 1) x_i`. Draws of a sampler depend on each other: there the
    means of long parts are compared.

    Args:
        weights: sum to 1, (n,).
        x: (n, c).
        exact: whether the first two moments of the draws are exact, and x is quadratic in them.
    """
    n = len(x)
    if exact:
        return (((weights - 1 / n)[:, None] * x) ** 2).sum(0).sqrt()
    parts = torch.stack([part.mean(0) for part in (n * weights[:, None] * x).tensor_split(PARTS)])
    return parts.std(0) / PARTS**0.5
