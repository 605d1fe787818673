"""Points sorted into tiles of near neighbours, and bounds on what one tile adds to the sums at another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 128  # points of a tile at most


@dataclass(frozen=True, eq=False)
class Tiles:
    """Points (n, d) in tiles of equal size, by halving at the median of the widest coordinate, as a k-d tree does.

    Attributes:
        points: (tiles, size, d); some stand twice, so that all tiles have the same size.
        weights: (tiles, size); 0 of what stands twice.
        order: (tiles · size), where each point stood; n or more of what stands twice.
        n: the number of points.

    Reference:
        Gray and Moore (2003), Nonparametric density estimation: toward computational tractability, SIAM SDM.
    """

    points: Tensor
    weights: Tensor
    order: Tensor
    n: int

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None = None) -> Tiles:
        """Return the tiles of points (n, d) with weights (n,); None: each has weight 1."""
        n = len(x)
        halvings = max(0, math.ceil(math.log2(n / SIZE)))
        size = math.ceil(n / 2**halvings)
        order = torch.arange(size * 2**halvings, device=x.device)
        twice = torch.cat([x, x[-1:].expand(len(order) - n, -1)])
        w = torch.zeros(len(order), dtype=x.dtype, device=x.device)
        w[:n] = 1 if weights is None else weights
        order = order[None]
        for _ in range(halvings):
            order = _halved(twice, order)
        return cls(twice[order], w[order], order.flatten(), n)

    @property
    def low(self) -> Tensor:
        """The lower corner of each tile's bounding box, (tiles, d)."""
        return self.points.amin(1)

    @property
    def high(self) -> Tensor:
        """The upper corner, likewise."""
        return self.points.amax(1)

    def as_before(self, values: Tensor) -> Tensor:
        """Return one value for each point, (tiles · size), in the order of the points, (n,)."""
        return torch.empty_like(values).index_copy_(0, self.order, values)[: self.n]


def _halved(x: Tensor, order: Tensor) -> Tensor:
    """Return the halves (2b, m/2) of blocks (b, m) of indices."""
    block = x[order]
    widest = (block.amax(1) - block.amin(1)).argmax(1)
    along = block.gather(2, widest[:, None, None].expand(-1, order.shape[1], 1))[..., 0]
    sorted_ = order.gather(1, along.argsort(dim=1, stable=True))
    return sorted_.reshape(2 * len(order), -1)


def closest(low: Tensor, high: Tensor, x: Tiles) -> Tensor:
    """Return the squared distances (boxes, tiles) of boxes (boxes, d) from the tiles' boxes; 0 where they overlap."""
    gap = torch.maximum(x.low - high[:, None], low[:, None] - x.high)
    return gap.clamp_min_(0).square_().sum(2)


def least(low: Tensor, high: Tensor, x: Tiles) -> Tensor:
    r"""Return a lower bound (boxes, tiles) of the log-sum :math:`\log \sum_i w_i \exp(-|x_i - y|^2 / 2)` of each tile.

    By Jensen's inequality, from the mean of the tile and its scatter, at the point of the box that is farthest from it.
    """
    total = x.weights.sum(1)
    share = (x.weights / total.clamp_min(torch.finfo(total.dtype).tiny)[:, None])[..., None]
    mean = (share * x.points).sum(1)
    scatter = (share * (x.points - mean[:, None]).square()).sum((1, 2))
    farthest = torch.maximum(mean - low[:, None], high[:, None] - mean).square_().sum(2)
    return total.log() - (farthest + scatter) / 2
