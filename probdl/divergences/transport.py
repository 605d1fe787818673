"""Optimal transport between draws: sorting on the line, POT's exact solver in more dimensions."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import centred, distances, equal_weights, spread
from probdl.divergences.sorting import Plan, sorted_plan
from probdl.errors import ConvergenceError

MOST = 5000  # draws of each side for which "auto" takes the exact solver
LARGEST = 20_000  # a cost matrix of 3.2 GB
PIVOTS = 2**31 - 1  # so many that the cap is not met; POT's default is, silently
HALF = 500  # draws in each half of the same-distribution baseline


def exact_plan(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float) -> Plan:
    """Solve transport by POT's network simplex: the cost and the potentials."""
    _, log = simplex(x, y, v, w, order)
    return Plan(float(log["cost"]), torch.as_tensor(log["u"]).to(x), torch.as_tensor(log["v"]).to(x))


def simplex(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the plan (n, m) and the log of POT's network simplex, run to its optimum."""
    import ot

    if max(len(x), len(y)) > LARGEST:
        raise NotApplicable(
            f"exact transport of {len(x)} and {len(y)} draws needs a cost matrix of {8e-9 * len(x) * len(y):.0f} GB; "
            f"pass at most {LARGEST} draws of each, or method='sinkhorn'."
        )
    cost = distances(x, y) ** order
    weights = [np.ascontiguousarray(a.cpu().numpy()) for a in (v, w)]
    weights[1] = weights[1] * (weights[0].sum() / weights[1].sum())  # POT wants equal totals to the last digit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what POT would warn of is raised below
        matrix, log = ot.emd(*weights, np.ascontiguousarray(cost.cpu().numpy()), numItermax=PIVOTS, log=True)
    if log["warning"] is not None:
        raise ConvergenceError(f"POT did not reach the optimal transport: {log['warning']}")
    return matrix, log


def plan(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float) -> Plan:
    """Solve transport by the method for the dimension; rows without weight are left out."""
    x, y = centred(x, y)
    if x.shape[1] == 1:
        return sorted_plan(x[:, 0], y[:, 0], v, w, order)
    return exact_plan(x, y, v, w, order)


def check_order(order: Any) -> None:
    """Raise a ValueError unless the order is a number of at least 1."""
    if isinstance(order, bool) or not isinstance(order, (int, float)) or not 1 <= order < math.inf:
        raise ValueError(f"order must be a number of at least 1; got {order!r}.")


def root(cost: float, order: float) -> float:
    """Return the p-th root of a transport cost."""
    return max(cost, 0.0) ** (1 / order)


def wasserstein(x: Draws, y: Draws, order: float, method: str, seed: int, *notes: str) -> Estimate:
    """Estimate W_p between draws, with the standard error of its own mean from the dual potentials."""
    (a, v), (b, w) = charged(x), charged(y)
    solved = plan(a, b.to(a.device), v, w.to(a.device), order)
    value = root(solved.cost, order)
    own = _self_distances(a, b, v, w, order, seed) if x.dim > 2 or (x.dim == 2 and order == 1) else None
    stderr, why = _stderr(solved, v, w, order, value, own)
    if x.dim > 2:
        why += _bracket(own, order, solved.cost)
    return Estimate(value, stderr, method, "expected estimate", n=x.n + y.n, notes=(*notes, *why))


def charged(draws: Draws) -> tuple[Tensor, Tensor]:
    """Return the rows of positive weight and their weights: POT's potentials mean nothing at the others."""
    w = equal_weights(draws.x, draws.weights)
    return (draws.x, w) if draws.weights is None else (draws.x[w > 0], w[w > 0])


class Halves(NamedTuple):
    """Mean costs between random halves, each of ``size`` draws: within each sample, and the excess across them."""

    size: int
    own: float
    apart: float


def _stderr(
    solved: Plan, v: Tensor, w: Tensor, order: float, value: float, halves: Halves | None
) -> tuple[float | None, tuple[str, ...]]:
    """Return SE(W_p) = SE(W_p^p)/(p·W_p^(p−1)), or None and the reason."""
    if min(len(v), len(w)) < 2:
        return None, ("a standard error needs at least 2 draws of each",)
    stderr = math.sqrt(spread(solved.u, v) + spread(solved.v, w))
    if solved.cost <= 3 * stderr:
        return None, (f"W_p^p is within 3 standard errors ({stderr:.2g}) of 0, where the normal interval fails",)
    if order == 1 and halves is not None and halves.apart <= 3 * stderr:
        return None, (f"W_1 is near its same-distribution value (SE {stderr:.2g}), where the normal interval fails",)
    return stderr / (order * value ** (order - 1)), ()


def _self_distances(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float, seed: int) -> Halves | None:
    """Solve transport between random halves of x, of y, and across, at most 500 draws each."""
    size = min(HALF, len(x) // 2, len(y) // 2)
    if size < 10:
        return None
    with seeded(seed):
        i, j = torch.randperm(len(x))[: 2 * size].to(x.device), torch.randperm(len(y))[: 2 * size].to(x.device)
    (x1, x2), (y1, y2) = ([(z[k], u[k] / u[k].sum()) for k in at.split(size)] for z, u, at in ((x, v, i), (y, w, j)))

    def between(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
        return plan(first[0], second[0], first[1], second[1], order).cost

    own = (between(x1, x2) + between(y1, y2)) / 2
    return Halves(size, own, (between(x1, y1) + between(x2, y2)) / 2 - own)


def _bracket(halves: Halves | None, order: float, cost: float) -> tuple[str, ...]:
    """Say what the estimator gives for equal distributions, and the plug-in less half of the self-distances."""
    if halves is None:
        return ("the plug-in overstates the population value; with so few draws no baseline can be had",)
    return (
        f"the plug-in overstates the population value: draws of one distribution, {halves.size} against "
        f"{halves.size}, are {root(halves.own, order):.4g} apart",
        f"bracket for W_p^p: {halves.apart:.4g} (halves of {halves.size}, half of the self-distances subtracted) "
        f"to {cost:.4g}",
    )


def subsample(x: Draws, most: int, seed: int, name: str, method: str) -> tuple[Draws, tuple[str, ...]]:
    """Return at most ``most`` random rows."""
    if x.n <= most:
        return x, ()
    with seeded(seed):
        rows = torch.randperm(x.n)[:most].to(x.x.device)
    part = Draws(x.x[rows], None if x.weights is None else x.weights[rows], name=name)
    return part, (f"{most} of the {x.n} draws of {name} were used, at random; method={method!r} uses all",)
