"""Weighted sums of absolute differences on the line, by sorting: n log n steps in place of n²."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.divergences.sorting import ascending


def absolute_sums(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""Return :math:`\sum_j w_j |x_i - y_j|` for each i.

    With y sorted, the sum is that over the smaller y plus that over the larger, and both are cumulative sums.

    Args:
        x: points, shape (n,).
        y: points, shape (m,).
        w: weights of y, shape (m,).

    Example:
        >>> absolute_sums(torch.tensor([0.0, 3.0]), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([3., 3.])
    """
    order = ascending(y)
    y, w = y[order], w[order]
    mass, moment = (torch.cat([v.new_zeros(1), v.cumsum(0)]) for v in (w, w * y))
    below = torch.searchsorted(y, x)
    return x * (2 * mass[below] - mass[-1]) - 2 * moment[below] + moment[-1]
