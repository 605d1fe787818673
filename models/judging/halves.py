"""Standard errors of statistics that are no means of independent terms, from random halves of the rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVES = 40  # a standard deviation of so many is known to 11 %


def half_sample_variance(statistic: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, seed: int) -> Tensor:
    r"""Return the variance of statistics of two samples by the delete-half jackknife,

    .. math:: \frac1{B-1} \sum_b (T_b - \bar T)^2,

    T_b the statistic of random halves of either sample, taken without replacement. A half leaves half of the rows out,
    and the factor :math:`(n - n/2) / (n/2)` of the jackknife is 1. A bootstrap repeats rows, whose nearest neighbours
    are then themselves; deleting single rows errs for statistics of nearest neighbours by up to a factor of two, where
    the halves err by up to a third, upwards.

    Args:
        statistic: of rows (n, ...) and (m, ...), to a vector.
        x, y: the samples, of at least 2 rows.
        seed: draws the halves.

    Returns:
        A variance for each entry of the vector.

    Reference:
        Shao and Wu (1989), A general theory for jackknife variance estimation, Annals of Statistics 17(3).
    """
    noise = torch.Generator().manual_seed(seed)

    def half(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=noise)[: len(rows) // 2].to(rows.device)]

    return torch.stack([statistic(half(x), half(y)) for _ in range(HALVES)]).var(0)


def share_variance(share: Tensor, n: int) -> Tensor:
    """Return the variance of a share of n rows, never 0: that of Agresti and Coull (1998), with a row more of each."""
    p = (n * share + 1) / (n + 2)
    return p * (1 - p) / (n + 2)
