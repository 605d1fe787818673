"""How near the rows of a table are to each other, as probabilities: what t-SNE asks a picture to keep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError

ROWS = 256  # rows at a time: what is held beside P stays small
TOLERANCE = 1e-10  # nats of entropy
STEPS = 200  # bisection gains a bit a step, after some doublings
TIED = 1e-10  # squared distances that differ by less than this part of themselves count as equal


def affinities(X: Tensor, perplexity: float) -> tuple[Tensor, Tensor]:
    r"""Return the joint probabilities of t-SNE and the scale of every row's neighbourhood.

    .. math:: p_{j|i} \propto \exp\{-\|x_i - x_j\|^2 / (2\sigma_i^2)\}, \quad p_{ii} = 0, \quad
              p_{ij} = (p_{j|i} + p_{i|j}) / (2n),

    with σ_i such that the entropy of p_{·|i} is the logarithm of the perplexity. Distances are summed coordinate by
    coordinate: the matrix product would be faster, and lose the small ones.

    Args:
        X: distinct rows (n, d), float64.
        perplexity: the effective number of neighbours, more than 1 and less than n − 1.

    Returns:
        P of shape (n, n), symmetric with sum 1, and σ of shape (n,) in the units of X.

    Raises:
        ValueError: if as many rows as the perplexity are equally near to one row.
        ConvergenceError: if the bisection does not reach the entropy.
    """
    near, P = Neighbourhoods.empty(X), X.new_empty(len(X), len(X))
    for rows, weight, total in near.fill(perplexity):
        P[rows] = weight / total[:, None]
    return (P + P.T).div_(2 * len(X)), near.sigma


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """P in three numbers a row: what there is to hold where n² numbers are too many.

    Attributes:
        X: the rows (n, d), in units of the largest entry.
        unit: the largest entry.
        nearest: the squared distance of the nearest row, (n,).
        beta: 1/(2σ²), (n,).
        total: the sum over j of exp(−β(d² − nearest)), (n,).
    """

    X: Tensor
    unit: float
    nearest: Tensor
    beta: Tensor
    total: Tensor

    @classmethod
    def of(cls, X: Tensor, perplexity: float) -> Neighbourhoods:
        """Return those of rows; arguments and errors are those of ``affinities``."""
        near = cls.empty(X)
        for _ in near.fill(perplexity):
            pass
        return near

    @classmethod
    def empty(cls, X: Tensor) -> Neighbourhoods:
        """Return room for those of rows."""
        unit = float(X.abs().max())  # squares of very small or very large numbers would leave the range of a float
        return cls(X / unit, unit, *X.new_empty(3, len(X)))

    def fill(self, perplexity: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Find the scales of some rows at a time, and yield which, and p_{j|i} of them up to their sums, and these."""
        for rows in torch.arange(len(self), device=self.device).split(ROWS):
            own = (torch.arange(len(rows), device=self.device), rows)
            gap, self.nearest[rows] = _gaps(self.X, own, perplexity)
            self.beta[rows] = _precisions(gap, own, perplexity)
            weight = _weights(gap, own, self.beta[rows])
            self.total[rows] = weight.sum(1)
            yield rows, weight, self.total[rows]

    @property
    def sigma(self) -> Tensor:
        """σ of each row, in the units of the rows that came."""
        return self.unit * (2 * self.beta).rsqrt()

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.X.device

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, tile: tuple[slice, slice]) -> Tensor:
        """Return the entries of P for some rows and columns, the same or disjoint ones, computed anew."""
        rows, columns = tile
        square = _squares(self.X[rows], self.X[columns])
        p = self._conditional(square, rows) + self._conditional(square.T, columns).T
        return (p.fill_diagonal_(0) if rows == columns else p).div_(2 * len(self))

    def _conditional(self, square: Tensor, rows: slice) -> Tensor:
        gap = square - self.nearest[rows, None]
        return gap.mul_(-self.beta[rows, None]).exp_().div_(self.total[rows, None])


def _squares(X: Tensor, Y: Tensor) -> Tensor:
    return torch.cdist(X, Y, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _gaps(X: Tensor, own: tuple[Tensor, Tensor], perplexity: float) -> tuple[Tensor, Tensor]:
    """Return by how much each squared distance exceeds the row's smallest, of which p_{j|i} is a function, and that."""
    square = _squares(X[own[1]], X)
    square[own] = math.inf
    nearest = square.amin(1, keepdim=True)
    gap = square.sub_(nearest)
    tied = (gap <= TIED * nearest).sum(1)
    if bool((tied >= perplexity).any()):
        worst = int(tied.argmax())
        raise ValueError(
            f"perplexity must exceed the number of rows of X that are equally near to one row; got {perplexity:g}, and "
            f"{int(tied[worst])} rows are equally near to row {int(own[1][worst])}. Take a larger perplexity."
        )
    gap[own] = 0
    return gap, nearest[:, 0]


def _precisions(gap: Tensor, own: tuple[Tensor, Tensor], perplexity: float) -> Tensor:
    """Return β = 1/(2σ²) of each row by bisection of log β, to the entropy log(perplexity).

    As log(n−1) − H(β) ≤ β · (mean gap), by Jensen's inequality, the first β is too small in every row.
    """
    wanted, others = math.log(perplexity), gap.shape[1] - 1
    beta = (math.log(others) - wanted) * others / gap.sum(1)
    low, high = beta, torch.full_like(beta, math.inf)
    for _ in range(STEPS):
        excess = _entropy(gap, own, beta) - wanted
        if float(excess.abs().max()) < TOLERANCE:
            return beta
        low, high = torch.where(excess > 0, beta, low), torch.where(excess > 0, high, beta)
        beta = torch.where(high.isinf(), 2 * low, (low * high).sqrt())
    raise ConvergenceError(
        f"The scale of a row's neighbourhood was not found: its entropy is {float(excess.abs().max()):.2g} nats from "
        f"the logarithm of the perplexity {perplexity:g}. Distances in X may span too many magnitudes; rescale X."
    )


def _entropy(gap: Tensor, own: tuple[Tensor, Tensor], beta: Tensor) -> Tensor:
    weight = _weights(gap, own, beta)
    total = weight.sum(1)
    return total.log() + beta * weight.mul_(gap).sum(1) / total


def _weights(gap: Tensor, own: tuple[Tensor, Tensor], beta: Tensor) -> Tensor:
    weight = (gap * -beta[:, None]).exp_()
    weight[own] = 0  # a row is not its own neighbour
    return weight
