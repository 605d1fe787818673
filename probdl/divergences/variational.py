r"""Divergences as suprema over functions, :math:`D(p, q) = \sup_v E_p\,a(v(X)) + E_q\,b(v(Y))`.

Any v gives a lower bound; what is learnt from one part of the draws is valued on another. Source: Nguyen, Wainwright
and Jordan (2010), IEEE Transactions on Information Theory 56(11); Nowozin, Cseke and Tomioka (2016), f-GAN, NeurIPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from probdl.divergences.kernels import spread
from probdl.divergences.pareto import pareto_k

LOG2 = math.log(2)
LARGEST = 80.0  # e^80 is still a float32


class Bound(NamedTuple):
    """The terms of a lower bound as functions of v, how v is cut, and whether the terms can have a heavy tail.

    n draws cannot show a ratio p/q above n or below 1/n, so v is cut where it stands for such a ratio: any function
    gives a bound, and this one does not hang on a single draw.
    """

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    cut: Callable[[Tensor, float], Tensor]
    heavy: bool


def _exp(v: Tensor) -> Tensor:
    return v.clamp_max(LARGEST).exp()


def _log_ratio(v: Tensor, n: float) -> Tensor:
    return v.clamp(-math.log(n), math.log(n))


def _twice_excess(v: Tensor, n: float) -> Tensor:
    return v.clamp(2 / n - 2, 2 * n - 2)


BOUNDS: dict[str, Bound] = {
    "js": Bound(lambda v: (LOG2 + logsigmoid(v)) / 2, lambda v: (LOG2 + logsigmoid(-v)) / 2, _log_ratio, False),
    "kl_nwj": Bound(lambda v: v, lambda v: 1 - _exp(v), _log_ratio, True),
    "reverse_kl": Bound(lambda v: 1 - _exp(-v), lambda v: -v, _log_ratio, True),
    "hellinger2": Bound(lambda v: (1 - _exp(-v / 2)) / 2, lambda v: (1 - _exp(v / 2)) / 2, _log_ratio, True),
    "tv": Bound(lambda v: torch.tanh(v) / 2, lambda v: -torch.tanh(v) / 2, lambda v, _: v, False),
    "pearson": Bound(lambda v: v, lambda v: -v - v.square() / 4, _twice_excess, True),
}


def weighted_mean(terms: Tensor, weights: Tensor) -> float:
    """Return the mean under weights that sum to 1."""
    return (weights @ terms).item()


def two_means(a: Tensor, b: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    """Return the sum of the weighted means of two independent samples of terms, and its standard error."""
    return weighted_mean(a, v) + weighted_mean(b, w), math.sqrt(spread(a, v) + spread(b, w))


def bounded_below(kind: str, fx: Tensor, fy: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    """Return the value and the standard error of a bound at held-out values of its function."""
    bound, n = BOUNDS[kind], 1 / max(v @ v, w @ w).item()
    return two_means(bound.first(bound.cut(fx, n)), bound.second(bound.cut(fy, n)), v, w)


def tail(kind: str, fx: Tensor, fy: Tensor) -> float:
    """Return the larger Pareto k-hat of the terms of the two sides towards minus infinity, where it can be heavy."""
    if kind == "kl":
        return pareto_k(fy)
    bound = BOUNDS[kind]
    terms = bound.first(fx), bound.second(fy)
    return max(pareto_k((-t).clamp_min(0).log()) for t in terms) if bound.heavy else -math.inf


def advantage(fx: Tensor, fy: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    """Return P(f > 0) − Q(f > 0), that is 2·accuracy − 1, with a binomial standard error that is never 0.

    The error is that of one more draw on either side of 0 (Agresti and Coull 1998), so it stays honest at 0 and 1.
    """
    shares = [weighted_mean((f > 0).to(u), u) for f, u in ((fx, v), (fy, w))]
    variance = 0.0
    for share, u in zip(shares, (v, w)):
        size = 1 / (u @ u).item()
        share = (size * share + 1) / (size + 2)
        variance += share * (1 - share) / (size + 2)
    return shares[0] - shares[1], math.sqrt(variance)


def donsker_varadhan(fx: Tensor, fy: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    r"""Return :math:`E_p f - \log E_q e^f` with its standard error by the delta method; f is cut as above."""
    n = 1 / max(v @ v, w @ w).item()
    fx, fy = (_log_ratio(f - fx.median(), n) for f in (fx, fy))  # a constant in f changes nothing
    mean = weighted_mean(fy.exp(), w)
    return weighted_mean(fx, v) - math.log(mean), math.sqrt(spread(fx, v) + spread(fy.exp() / mean, w))


def renyi_bound(fx: Tensor, fy: Tensor, v: Tensor, w: Tensor, alpha: float) -> tuple[float, float, float]:
    r"""Return :math:`\frac{α}{α-1} \log E_p e^{(α-1)f} - \log E_q e^{αf}`, its standard error, and a Pareto k-hat.

    At α → 1 it is the bound of Donsker and Varadhan. Source: Birrell, Dupuis, Katsoulakis, Rey-Bellet and Wang (2021),
    SIAM Journal on Mathematics of Data Science 3(4).
    """
    n = 1 / max(v @ v, w @ w).item()
    fx, fy = (_log_ratio(f - fx.median(), n) for f in (fx, fy))  # a constant in f changes nothing
    a, b = ((alpha - 1) * fx).exp(), (alpha * fy).exp()
    mean_a, mean_b, factor = weighted_mean(a, v), weighted_mean(b, w), alpha / (alpha - 1)
    stderr = math.sqrt(factor**2 * spread(a / mean_a, v) + spread(b / mean_b, w))
    k = max(pareto_k((alpha - 1) * fx + v.log()), pareto_k(alpha * fy + w.log()))
    return factor * math.log(mean_a) - math.log(mean_b), stderr, k
