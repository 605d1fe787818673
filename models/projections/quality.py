"""How much of the neighbourhoods and the distances of rows a picture of them keeps, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.projections.distances import between

TILE = 512  # rows whose distances to all are held at once
OVER = "the standard error is over the rows of this one embedding: not over other samples, seeds or settings"


def trustworthiness(x: Tensor, y: Tensor, neighbours: int = 12) -> Estimate:
    r"""Return how far the neighbours in the picture are neighbours in truth, from 0 to 1.

    .. math:: 1 - \frac{2}{n k (2n - 3k - 1)} \sum_i \sum_{j \in U_k(i)} \max(0, r(i, j) - k)

    with :math:`U_k(i)` the k neighbours of i in y, and r(i, j) the rank of j among the distances from i in x.

    Args:
        x: rows, (n, d).
        y: their points, (n, q).
        neighbours: k, below n/2.

    Returns:
        The mean over rows with its standard error. Ties are broken by the order of the rows.

    Raises:
        ValueError: for too many neighbours.

    Reference:
        Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods.

    Example:
        >>> x = torch.arange(20.0)[:, None]
        >>> trustworthiness(x, x, 3).value
        1.0
    """
    n, k = len(x), neighbours
    if not 1 <= k < n / 2:
        raise ValueError(f"neighbours must be at least 1 and below half the rows, {n / 2:g}; got {k}.")
    lost = [_beyond(a, b, k) for a, b in zip(_sorted(x), _sorted(y))]
    return mean_of(1 - torch.cat(lost).double() * 2 / (k * (2 * n - 3 * k - 1)), "mean over rows", (OVER,))


def continuity(x: Tensor, y: Tensor, neighbours: int = 12) -> Estimate:
    """Return how far neighbours in truth are neighbours in the picture: ``trustworthiness`` with the spaces exchanged.

    Args:
        x, y, neighbours: as of ``trustworthiness``.
    """
    return trustworthiness(y, x, neighbours)


def stress(x: Tensor, y: Tensor) -> Estimate:
    r"""Return Kruskal's stress-1 of the best scaling of the picture, from 0 to 1.

    .. math:: \min_b \sqrt{\sum_{i<j} (δ_{ij} - b\,d_{ij})^2 \Big/ \sum_{i<j} δ_{ij}^2}

    with the distances δ of the rows and d of the points. Its standard error is that of a ratio of means over pairs,
    linearised in the rows.

    Args:
        x: rows, (n, d).
        y: their points, (n, q).

    Reference:
        Kruskal (1964), Multidimensional scaling by optimizing goodness of fit to a nonmetric hypothesis.
    """
    parts = [(between(a, x), between(b, y)) for a, b in zip(x.split(TILE), y.split(TILE))]
    return stress_of(parts)


def stress_of(parts: list[tuple[Tensor, Tensor]]) -> Estimate:
    """Return the stress of pairs of tables, distances δ and d of some rows to all rows."""
    cross, square = (sum(float((p * q).sum()) for p, q in pairs) for pairs in (parts, [(d, d) for _, d in parts]))
    if square == 0:
        return Estimate(1.0, None, "best scaling", notes=("all points coincide",))
    b = cross / square
    lost = torch.cat([(p - b * q).square().sum(1) for p, q in parts]).double()
    total = torch.cat([p.square().sum(1) for p, _ in parts]).double()
    ratio = float(lost.sum() / total.sum())
    spread = 2 * float((lost - ratio * total).std() / total.mean()) / math.sqrt(len(lost))
    value = math.sqrt(ratio)
    return Estimate(value, spread / (2 * value) if value else 0.0, "best scaling", n=len(lost), notes=(OVER,))


def agreement(y: Tensor, labels: Tensor, neighbours: int = 12) -> Estimate:
    """Return the share of a point's nearest neighbours that have its label, as a mean over rows.

    Args:
        y: points, (n, q).
        labels: whole numbers, (n,).
        neighbours: how many.
    """
    near = torch.cat([order[:, :neighbours] for order in _sorted(y)])
    same = (labels[near] == labels[:, None]).double().mean(1)
    return mean_of(same, f"mean over rows of {neighbours} neighbours", (OVER,))


def mean_of(values: Tensor, method: str, notes: tuple[str, ...] = ()) -> Estimate:
    """Return the mean of values (n,), one for each row, and its standard error."""
    n = len(values)
    error = float(values.std()) / math.sqrt(n) if n > 1 else None
    return Estimate(float(values.mean()), error, method, n=n, notes=notes)


def _sorted(x: Tensor) -> Iterator[Tensor]:
    """Yield of some rows at a time who is nearest, second nearest and so on, (tile, n − 1), themselves left out.

    Of rows at the same distance those come first that follow the row in the table, so that ties differ between rows.
    """
    for start in range(0, len(x), TILE):
        apart = between(x[start : start + TILE], x)
        steps = torch.arange(1, len(x), device=x.device)
        others = (torch.arange(start, start + len(apart), device=x.device)[:, None] + steps) % len(x)
        yield others.gather(1, apart.gather(1, others).argsort(dim=1, stable=True))


def _beyond(order: Tensor, near: Tensor, k: int) -> Tensor:
    """Return by how many ranks each row's k neighbours in ``near`` lie beyond the k-th in ``order``, in total."""
    rank = torch.empty(len(order), order.shape[1] + 1, dtype=torch.long, device=order.device)
    rank.scatter_(1, order, torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order))
    return (rank.gather(1, near[:, :k]) - k).clamp(min=0).sum(1)
