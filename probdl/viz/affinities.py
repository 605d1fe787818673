"""How near the rows of a table are to each other, as probabilities: what t-SNE asks a picture to keep."""

from __future__ import annotations

import math

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
    unit = float(X.abs().max())  # squares of very small or very large numbers would leave the range of a float
    X, P, sigma = X / unit, X.new_empty(len(X), len(X)), X.new_empty(len(X))
    for rows in torch.arange(len(X), device=X.device).split(ROWS):
        own = (torch.arange(len(rows), device=X.device), rows)
        gap = _gaps(X, own, perplexity)
        beta = _precisions(gap, own, perplexity)
        weight = _weights(gap, own, beta)
        P[rows] = weight / weight.sum(1, keepdim=True)
        sigma[rows] = unit * (2 * beta).rsqrt()
    return (P + P.T).div_(2 * len(X)), sigma


def _gaps(X: Tensor, own: tuple[Tensor, Tensor], perplexity: float) -> Tensor:
    """Return by how much each squared distance exceeds the row's smallest; p_{j|i} is a function of these."""
    square = torch.cdist(X[own[1]], X, compute_mode="donot_use_mm_for_euclid_dist").square_()
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
    return gap


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
