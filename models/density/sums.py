"""Sums of kernels over many points: tile by tile, and only where tiles are near each other, in O(n + m) memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from probdl.models.density.tiles import Tiles, closest, least

SKIPPED = 1e-15  # what all skipped pairs of tiles may add to a sum, as a share of it
TOGETHER = 2**16  # kernel values that are computed at once: they stay in the processor's cache
TOGETHER_GPU = 2**24
BOXES = 64  # tiles whose distances from all others are held at once
SPREAD = 1e3  # squared distance from a tile's centre above which |x|² − 2x·y + |y|² loses digits that are wanted
SMALLEST = 1e-280  # below, terms of a sum may have been lost to underflow
BINARY = math.sqrt(1 / math.log(2))  # 2^(−|cu|²/2) = exp(−|u|²/2); torch's exp2 takes a third of the time of its exp


@dataclass(frozen=True, eq=False)
class Near:
    """The points that count at one tile of queries: points (k, d), weights (k,), and where the queries' own stand."""

    points: Tensor
    weights: Tensor
    own: int | None

    def step(self, rows: int) -> int:
        """How many points are taken at once for so many queries: whole tiles."""
        together = TOGETHER_GPU if self.points.device.type == "cuda" else TOGETHER
        return min(max(1, together // rows**2) * rows, max(1, len(self.points)))

    def pieces(self, rows: int) -> Iterator[tuple[slice, int | None]]:
        """Give slices of the points, each with its place of own points, for some kernel values at once."""
        step = self.step(rows)
        for start in range(0, len(self.points), step):
            inside = self.own is not None and start <= self.own < start + step
            yield slice(start, start + step), self.own - start if inside and self.own is not None else None


def gaussian(x: Tiles, y: Tiles | None = None) -> Tensor:
    r"""Return :math:`\log \sum_i w_i \exp(-|x_i - y_j|^2 / 2)` for each j, to 13 digits of the sum, also far out.

    A pair of tiles is skipped where it provably adds less than 10⁻¹⁵ of the sum; memory is O(n + m).

    Args:
        x: the points and their weights.
        y: where to evaluate, m points; None: at each point of x, which is left out of its own sum.

    Returns:
        (m,).

    Example:
        >>> import torch
        >>> origin, far = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 60.0, dtype=torch.float64)
        >>> gaussian(Tiles.of(origin), Tiles.of(far))
        tensor([-1800.], dtype=torch.float64)
    """
    return _by_tiles(x, y, _relevant, _gaussian_tile)


def epanechnikov(x: Tiles, y: Tiles | None = None) -> Tensor:
    r"""Return :math:`\log \sum_i w_i (1 - |x_i - y_j|^2)_+` for each j; −∞ where no point is near. As ``gaussian``."""
    return _by_tiles(x, y, _touching, lambda y, near: _summed(y, near, _ball))


def epanechnikov_product(x: Tiles, y: Tiles | None = None) -> Tensor:
    r"""Return :math:`\log \sum_i w_i \prod_k (1 - (x_{ik} - y_{jk})^2)_+` for each j. As ``gaussian``."""
    return _by_tiles(x, y, _around, lambda y, near: _summed(y, near, _block))


def _by_tiles(
    x: Tiles,
    y: Tiles | None,
    kept: Callable[[Tiles, Tensor, Tensor, int | None], Tensor],
    tile: Callable[[Tensor, Near], Tensor],
) -> Tensor:
    """Return the log-sums at each point of ``y``; ``kept`` says which tiles count, and ``tile`` sums over them."""
    at, found = x if y is None else y, []
    for start in range(0, len(at.points), BOXES):
        boxes = at.points[start : start + BOXES]
        keep = kept(x, boxes.amin(1), boxes.amax(1), start if y is None else None)
        for k, queries in enumerate(boxes):
            found.append(tile(queries, _near(x, keep[k].nonzero().flatten(), start + k if y is None else None)))
    return at.as_before(torch.cat(found))


def _near(x: Tiles, tiles: Tensor, own: int | None) -> Near:
    at = [] if own is None else (tiles == own).nonzero().flatten().tolist()
    first = at[0] * x.points.shape[1] if at else None
    return Near(x.points[tiles].flatten(0, 1), x.weights[tiles].flatten(), first)


def _relevant(x: Tiles, low: Tensor, high: Tensor, start: int | None) -> Tensor:
    """Which tiles add more than a share SKIPPED to the sum at some point of each box, or may do so."""
    most, sure = x.weights.sum(1).log() - closest(low, high, x) / 2, least(low, high, x)
    if start is not None:  # a point is left out of its own tile, which is therefore not sure to add anything
        sure.diagonal(start).fill_(-math.inf)
    bound = sure.logsumexp(1, keepdim=True) + math.log(SKIPPED / len(x.points))
    return (most > bound) & most.isfinite()


def _touching(x: Tiles, low: Tensor, high: Tensor, start: int | None) -> Tensor:
    """Which tiles come nearer than 1."""
    return closest(low, high, x) < 1


def _around(x: Tiles, low: Tensor, high: Tensor, start: int | None) -> Tensor:
    """Which tiles come nearer than 1 in each coordinate."""
    return ((x.low < high[:, None] + 1) & (x.high > low[:, None] - 1)).all(2)


def _gaussian_tile(queries: Tensor, near: Near) -> Tensor:
    """Return the log-sums at queries (m, d)."""
    total = queries.new_zeros(len(queries))
    exponents = _exponents(queries, near) if len(near.points) else None
    for piece, own in near.pieces(len(queries)):
        assert exponents is not None
        total += _without(exponents(piece), own, -math.inf).exp2_() @ near.weights[piece]
    return _again_where_tiny(total, queries, near)


def _exponents(queries: Tensor, near: Near) -> Callable[[slice], Tensor]:
    """Return what gives the binary exponents at some of the points: one matrix product where its digits suffice."""
    centre = (queries.amin(0) + queries.amax(0)) / 2
    y, x = (queries - centre) * BINARY, (near.points - centre) * BINARY
    left, right = (z.square().sum(1) / -2 for z in (y, x))
    if -2 * min(float(left.min()), float(right.min())) > SPREAD:
        return lambda piece: _squared(queries, near.points[piece]).mul_(-(BINARY**2) / 2)
    rows = torch.cat([y, torch.ones_like(left)[:, None], left[:, None]], 1)
    columns = torch.cat([x.T, right[None], torch.ones_like(right)[None]])
    return partial(_product, rows, columns, rows.new_empty(len(y) * near.step(len(y))))


def _product(rows: Tensor, columns: Tensor, space: Tensor, piece: slice) -> Tensor:
    """Multiply into memory that is used again and again, which takes a third of the time of fresh memory."""
    part = columns[:, piece]
    return torch.mm(rows, part, out=space[: len(rows) * part.shape[1]].view(len(rows), -1))


def _again_where_tiny(total: Tensor, queries: Tensor, near: Near) -> Tensor:
    """Return the logarithm of sums; those that underflow are summed again around their largest terms."""
    log, tiny = total.log(), total < SMALLEST
    if not tiny.any():
        return log
    again = torch.full_like(log, -math.inf)
    for piece, own in near.pieces(len(queries)):
        exponents = _without(_squared(queries, near.points[piece]) / -2, own, -math.inf)
        again = torch.logaddexp(again, (exponents + near.weights[piece].log()).logsumexp(1))
    return torch.where(tiny, again, log)


def _summed(queries: Tensor, near: Near, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    total = queries.new_zeros(len(queries))
    for piece, own in near.pieces(len(queries)):
        total += _without(kernel(queries, near.points[piece]), own, 0.0) @ near.weights[piece]
    return total.log()


def _ball(y: Tensor, x: Tensor) -> Tensor:
    return (1 - _squared(y, x)).clamp_min_(0)


def _block(y: Tensor, x: Tensor) -> Tensor:
    value = y.new_ones(())
    for a, b in zip(y.T, x.T):
        value = value * (1 - (a[:, None] - b).square_()).clamp_min_(0)
    return value


def _squared(y: Tensor, x: Tensor) -> Tensor:
    """Return |x − y|² by differences, (m, k), which keeps all digits of near points far from the origin."""
    total = (y[:, :1] - x[:, 0]).square_()
    for a, b in zip(y.T[1:], x.T[1:]):
        total.addcmul_(d := a[:, None] - b, d)
    return total


def _without(value: Tensor, own: int | None, nothing: float) -> Tensor:
    """Put ``nothing`` where each row meets its own point."""
    if own is not None:
        value[:, own : own + len(value)].fill_diagonal_(nothing)
    return value
