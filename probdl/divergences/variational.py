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

LOG2 = math.log(2)
LARGEST = 600.0  # e^600 is still a double


class Bound(NamedTuple):
    """The terms of a lower bound as functions of v, and the log-ratio log p/q that v stands for at the optimum."""

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]


def _exp(v: Tensor) -> Tensor:
    return v.clamp_max(LARGEST).exp()


def _same(v: Tensor) -> Tensor:
    return v


BOUNDS: dict[str, Bound] = {
    "js": Bound(lambda v: (LOG2 + logsigmoid(v)) / 2, lambda v: (LOG2 + logsigmoid(-v)) / 2, _same),
    "kl_nwj": Bound(_same, lambda v: 1 - _exp(v), _same),
    "reverse_kl": Bound(lambda v: 1 - _exp(-v), lambda v: -v, _same),
    "hellinger2": Bound(lambda v: (1 - _exp(-v / 2)) / 2, lambda v: (1 - _exp(v / 2)) / 2, _same),
    "tv": Bound(lambda v: torch.tanh(v) / 2, lambda v: -torch.tanh(v) / 2, lambda v: torch.where(v > 0, 1.0, -1.0)),
    "pearson": Bound(_same, lambda v: -v - v.square() / 4, lambda v: (1 + v / 2).clamp_min(0).log()),
}


def weighted_mean(terms: Tensor, weights: Tensor) -> float:
    """Return the mean under weights that sum to 1."""
    return (weights @ terms).item()


def two_means(a: Tensor, b: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    """Return the sum of the weighted means of two independent samples of terms, and its standard error."""
    return weighted_mean(a, v) + weighted_mean(b, w), math.sqrt(spread(a, v) + spread(b, w))


def bounded_below(kind: str, fx: Tensor, fy: Tensor, v: Tensor, w: Tensor) -> tuple[float, float]:
    """Return the value and the standard error of a bound at held-out values of its function."""
    bound = BOUNDS[kind]
    return two_means(bound.first(fx), bound.second(fy), v, w)


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
    r"""Return :math:`E_p f - \log E_q e^f` with its standard error by the delta method."""
    top = fy.max()
    scaled = (fy - top).exp()
    mean = weighted_mean(scaled, w)
    value = weighted_mean(fx, v) - math.log(mean) - top.item()
    return value, math.sqrt(spread(fx, v) + spread(scaled / mean, w))
