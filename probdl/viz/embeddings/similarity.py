"""The similarity of points in a picture, and its divergence from the one that the picture should keep.

The one divergence that is not computed in ``probdl.divergences``: there two categorical laws are tables with their
logarithms, seven arrays of n² numbers at a time and fifteen times the seconds; here P and Q meet tile by tile, as in
the gradient beside it, and Q is never held. A test says that the value is that of ``probdl.divergences.kl``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from probdl.viz.embeddings.affinities import Neighbourhoods

TILE, TILE_GPU = 256, 4096  # a tile of 0.5 MB stays in the processor's cache; on a GPU launches cost more


class Divergence:
    """KL(P ‖ Q) and its gradient, tile by tile over the pairs i ≤ j.

    Args:
        P: the table (n, n), which is then held in tiles; or neighbourhoods, whose P is computed anew whenever it is
            needed and never held.
    """

    def __init__(self, P: Tensor | Neighbourhoods) -> None:
        self.n, self.P, self.tile = len(P), P, TILE if P.device.type == "cpu" else TILE_GPU
        self.held = list(self._tiles()) if isinstance(P, Tensor) else None
        entropies = [(1 + (i != j)) * torch.xlogy(p, p).sum() for i, j, p in self.held or self._tiles()]
        self.negentropy = torch.stack(entropies).sum()

    def _tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        edges = range(0, self.n, self.tile)
        for i in edges:
            for j in range(i, self.n, self.tile):
                rows, columns = slice(i, i + self.tile), slice(j, j + self.tile)
                yield rows, columns, self.P[rows, columns].contiguous()

    def __call__(self, Y: Tensor) -> Tensor:
        """Return Σ p log(p/q), in nats."""
        crossed, total = Y.new_zeros(()), Y.new_zeros(())
        for rows, columns, P, w in self._weighted(Y):
            times = 1 if rows == columns else 2
            total += times * w.sum()
            crossed += times * torch.xlogy(P, w).sum()
        return self.negentropy - crossed + total.log()

    def gradient(self, Y: Tensor, exaggeration: float = 1.0) -> Tensor:
        """Return 4 Σ_j (exaggeration · p_ij − q_ij) w_ij (y_i − y_j), with w = 1/(1 + d²) and q = w/Σw."""
        points = torch.cat([Y, Y.new_ones(self.n, 1)], 1)
        pull, push, total = torch.zeros_like(points), torch.zeros_like(points), Y.new_zeros(())
        for rows, columns, P, w in self._weighted(Y):
            total += w.sum() * (1 if rows == columns else 2)
            for force, weight in ((pull, P * w), (push, w.square_())):
                force[rows] += weight @ points[columns]
                if rows != columns:
                    force[columns] += weight.T @ points[rows]
        force = exaggeration * pull - push / total
        return 4 * (force[:, -1:] * Y - force[:, :-1])

    def _weighted(self, Y: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Yield rows, columns, p and w of every tile, with zeros in the place of a point and itself."""
        left, right = _factors(Y)
        for rows, columns, P in self.held or self._tiles():
            w = (left[rows] @ right[:, columns]).reciprocal_()
            yield rows, columns, P, w.fill_diagonal_(0) if rows == columns else w


def _factors(Y: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, dim + 2) and (dim + 2, n) whose product is 1 + ‖y_i − y_j‖²."""
    square, one = Y.square().sum(1, keepdim=True), Y.new_ones(len(Y), 1)
    return torch.cat([-2 * Y, square + 1, one], 1), torch.cat([Y, one, square], 1).T.contiguous()
