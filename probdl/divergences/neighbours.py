r"""KL from draws by nearest neighbours: a density is about (k draws) / (volume of the ball that holds them).

.. math:: \log \hat q(x) = \psi(k) - \log m - \log c_d - d \log \nu_k(x)

with :math:`\nu_k(x)` the distance from x to its k-th neighbour among m draws of q and :math:`c_d` the volume of the
unit ball. Source: Wang, Kulkarni and Verdú (2009), IEEE Transactions on Information Theory 55(5); Kozachenko and
Leonenko (1987) for the entropy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import Draws, LogDensity
from probdl.divergences.classifiers import beyond
from probdl.divergences.dispatch import NotApplicable, at_most, draws_of
from probdl.divergences.distributions import is_discrete, log_density, seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_k
from probdl.divergences.unnormalised import UP_TO_Z, known
from probdl.divergences.whitening import frame

NEIGHBOURS = 5
FEW = 3  # columns up to which the bias is small at usual sizes
MOST = 100_000  # draws of each side that are used
METHOD, NAMES = "nearest neighbours", ("p", "q")


class Neighbours(NamedTuple):
    """log q̂ at n points, the neighbours it rests on, what it loses when one of them goes, and where points coincide."""

    log_density: Tensor  # (n,)
    indices: Tensor  # (n, k), rows of the sample
    loss: Tensor  # (n,)
    ties: Tensor  # (n,)


def neighbours(points: np.ndarray, sample: np.ndarray, log_volume: float, same: bool) -> Neighbours:
    """Estimate the log-density of a sample at points; ``same`` where the points are the sample itself."""
    from scipy.spatial import cKDTree

    dim, k = sample.shape[1], NEIGHBOURS
    distances, indices = cKDTree(sample).query(points, k=list(range(1 + same, k + 2 + same)))
    distance = torch.from_numpy(distances)
    ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    share = torch.digamma(torch.tensor(float(k), dtype=torch.float64)).item() - math.log(len(sample) - same)
    log_q = share - ball - dim * distance[:, k - 1].log() - log_volume
    loss = dim * (distance[:, k] / distance[:, k - 1]).log()
    return Neighbours(log_q, torch.from_numpy(indices[:, :k]), loss, distance[:, 0] == 0)


def kl(p: Draws | Distribution, q: Draws | Distribution | LogDensity, seed: int) -> Estimate:
    """Estimate KL(p‖q) where draws are held of at least one side; a density that is known is used as it is."""
    _check_kinds(p, q)
    y: Draws | None = None
    if isinstance(q, Draws):
        x, y, notes = draws_of(p, q, NAMES, seed)
        y, more = at_most(y, MOST, "q", 2 * seed + 1)
        notes += more
    else:
        assert isinstance(p, Draws)  # two densities are compared elsewhere
        x, notes = p, p.notes
    x, more = at_most(x, MOST, "p", 2 * seed)
    notes += more
    log_p = log_density(p, x.x).cpu() if isinstance(p, Distribution) else None
    log_q = None if isinstance(q, Draws) else known(q, x.x).cpu()
    if log_q is not None and bool((log_q == -torch.inf).any()):
        return Estimate(torch.inf, 0.0, METHOD, n=x.n, notes=(*notes, "q has no density at a draw of p"))
    result = _mean_log_ratio(x.x, None if y is None else y.x, log_p, log_q)
    notes += result.notes
    if y is not None:
        notes += beyond(result.value, y.n)
    if x.n >= 100:
        notes += (_bias(x, y, log_p, log_q, seed),)
    target = "approximation" if isinstance(q, LogDensity) and not q.normalised else "expected estimate"
    if target == "approximation":
        notes += (UP_TO_Z,)
    n = x.n + (0 if y is None else y.n)
    return Estimate(result.value, result.stderr, METHOD, target, n, notes)


def _check_kinds(*held: Draws | Distribution | LogDensity) -> None:
    for name, h in zip(NAMES, held):
        if isinstance(h, Distribution) and is_discrete(h):
            raise NotApplicable(f"nearest neighbours need densities; {name} is discrete. Use method='classifier'.")
        if isinstance(h, Draws) and h.weights is not None:
            raise NotApplicable(f"nearest neighbours take no weights; {name} has them. Use method='classifier'.")
        if isinstance(h, Draws) and h.n < NEIGHBOURS + 2:
            raise NotApplicable(f"nearest neighbours need at least {NEIGHBOURS + 2} draws of {name}; got {h.n}.")


class _Result(NamedTuple):
    value: float
    stderr: float | None
    notes: tuple[str, ...]


def _mean_log_ratio(x: Tensor, y: Tensor | None, log_p: Tensor | None, log_q: Tensor | None) -> _Result:
    """Return the mean of log p̂ − log q̂ over x with its jackknife error, on average too large (Efron and Stein 1981)."""
    axes = frame(x) if y is None else frame(x, y.to(x.device))
    _check_rank(axes.rank, x.shape[1], log_p is not None or log_q is not None)
    points, n, ties = axes(x), len(x), []
    gain, variance = torch.zeros(n, dtype=torch.float64), 0.0
    if log_p is None:
        own = neighbours(points, points, axes.log_volume, True)
        log_p, gain = own.log_density, _given(own, n)
        ties.append(own.ties)
    if y is not None:
        m, other = len(y), neighbours(points, axes(y), axes.log_volume, False)
        log_q, variance = other.log_density, (_given(other, m) * ((m - 1) / n)).var().item() / m
        ties.append(other.ties)
    _check_ties(ties)
    assert log_q is not None  # it is known, or there are draws y
    terms = log_p - log_q
    value, variance = terms.mean().item(), variance + (terms + gain).var().item() / n
    notes: tuple[str, ...] = ()
    if axes.rank < x.shape[1]:
        notes += (f"all draws lie in {axes.rank} of {x.shape[1]} dimensions, in which they were compared",)
    if x.shape[1] > min(n, n if y is None else len(y)):
        notes += (f"there are more columns ({x.shape[1]}) than draws: neighbours say little about densities here",)
    k = pareto_k(terms.clamp_min(0).log())
    if k < 0.5:
        return _Result(value, math.sqrt(variance), notes)
    return _Result(value, None, (*notes, f"log p/q has a heavy tail under p (Pareto k-hat {k:.2f}): no error is given"))


def _given(found: Neighbours, size: int) -> Tensor:
    """Return for each draw of a sample what the sum of log q̂ over all points loses without it."""
    return torch.zeros(size, dtype=torch.float64).index_add_(
        0, found.indices.flatten(), found.loss.repeat_interleave(NEIGHBOURS)
    )


def _check_rank(rank: int, dim: int, known: bool) -> None:
    if rank == 0:
        raise NotApplicable("all draws are equal: a share of 1 of them is tied, and nearest neighbours need densities.")
    if rank < dim and known:
        raise NotApplicable(
            f"the draws lie in {rank} of {dim} dimensions, where a density against all {dim} says nothing: KL has no "
            "meaning. Drop the columns that depend on others."
        )


def _check_ties(ties: list[Tensor]) -> None:
    share = torch.stack(ties).any(0).double().mean().item()
    if share > 0:
        raise NotApplicable(
            f"{share:.2%} of the draws of p are tied with another draw; nearest neighbours need continuous laws, which "
            "have no ties. Use method='classifier', js, tv, mmd2 or wasserstein; or undo rounding by noise of its size."
        )


def _bias(x: Draws, y: Draws | None, log_p: Tensor | None, log_q: Tensor | None, seed: int) -> str:
    """Say what half of the draws give: the bias shrinks with n, so the difference shows its size and its sign."""
    with seeded(seed):
        rows = torch.randperm(x.n)[: x.n // 2]
        others = None if y is None else y.x[torch.randperm(y.n)[: max(y.n // 2, NEIGHBOURS + 2)].to(y.x.device)]
    half = _mean_log_ratio(
        x.x[rows.to(x.x.device)],
        others,
        None if log_p is None else log_p[rows],
        None if log_q is None else log_q[rows],
    )
    return f"the interval covers the estimator's mean and leaves out its bias; half of the draws give {half.value:.4g}"
