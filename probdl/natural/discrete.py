"""Families of counts and of classes."""

from __future__ import annotations

import torch
import torch.distributions as td
from torch import Tensor

from probdl.natural.exponential import ExponentialFamily, Parameters


def _one_hot(z: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(z.long(), k)[:, :-1].double()


def _categorical_closed(mean: Tensor) -> Parameters:
    return {"probs": torch.cat([mean, 1 - mean.sum()[None]])}


def _categorical_parameters(eta: Tensor) -> Parameters:
    return {"probs": torch.softmax(torch.cat([eta, eta.new_zeros(1)]), 0)}


DISCRETE = (
    ExponentialFamily(
        td.Bernoulli, lambda z: z[:, None], lambda q: q.logits[None], lambda e: torch.nn.functional.softplus(e[0]),
        lambda e: {"probs": torch.sigmoid(e[0])}, closed=lambda m: {"probs": m[0]},
        spread=lambda m: m[0] * (1 - m[0]),
    ),
    ExponentialFamily(
        td.Categorical, lambda z: _one_hot(z, int(z.max()) + 1), lambda q: q.logits[:-1] - q.logits[-1],
        lambda e: torch.logsumexp(torch.cat([e, e.new_zeros(1)]), 0), _categorical_parameters,
        closed=_categorical_closed, spread=lambda m: _categorical_closed(m)["probs"].min(),
    ),
    ExponentialFamily(
        td.Poisson, lambda z: z[:, None], lambda q: q.rate.log()[None], lambda e: e[0].exp(),
        lambda e: {"rate": e[0].exp()}, closed=lambda m: {"rate": m[0]}, spread=lambda m: m[0],
        log_base=lambda z: -torch.lgamma(z + 1),
    ),
    ExponentialFamily(
        td.Geometric, lambda z: z[:, None], lambda q: torch.log1p(-q.probs)[None],
        lambda e: -torch.log(-torch.expm1(e[0])), lambda e: {"probs": -torch.expm1(e[0])},
        closed=lambda m: {"probs": 1 / (1 + m[0])}, spread=lambda m: m[0],
    ),
)  # fmt: skip
