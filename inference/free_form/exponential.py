r"""Site distributions in exponential-family form.

.. math:: \log p(x \mid \theta) = h(x) + \sum_i \langle T_i(x), \varphi_i(\theta) \rangle

``natural_form`` returns the :math:`\varphi_i` of a distribution with its parameters, and ``statistics`` the
:math:`T_i` and h of a value. Normal and multivariate Normal sites stand apart: theirs are location, precision and log
determinant of the precision, since what is needed of the location is its first two moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """An exponential family: names of its kind, natural parameters of a distribution, statistics of a value.

    Attributes:
        kind: the family's name.
        natural: distribution → the φ's; the first belongs to T = 1.
        statistics: value → the T's after the first.
        base: value → h(x).
        event: how many trailing dimensions of each T belong to one event, after the first.
    """

    kind: str
    natural: Callable[[Any], list[Tensor]]
    statistics: Callable[[Tensor], list[Tensor]]
    base: Callable[[Tensor], Tensor] | None = None
    event: int = 0


def _gamma(fn: Any) -> list[Tensor]:
    a, b = fn.concentration, fn.rate
    return [a * b.log() - torch.lgamma(a), a - 1, -b]


def _inverse_gamma(fn: Any) -> list[Tensor]:
    a, b = (fn.base_dist.concentration, fn.base_dist.rate) if hasattr(fn, "base_dist") else (fn.concentration, fn.rate)
    return [a * b.log() - torch.lgamma(a), -a - 1, -b]


def _dirichlet(fn: Any) -> list[Tensor]:
    a = fn.concentration
    return [torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1), a - 1]


def _beta(fn: Any) -> list[Tensor]:
    a, b = fn.concentration1, fn.concentration0
    return [torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b), a - 1, b - 1]


def _uniform_on_unit_interval(fn: Any) -> list[Tensor]:
    return [torch.zeros_like(fn.low), torch.zeros_like(fn.low), torch.zeros_like(fn.low)]


def _log_probabilities(fn: Any) -> Tensor:
    """Normalised log-probabilities, also where a probability is zero."""
    if "probs" in fn.__dict__:
        return fn.probs.log()
    return fn.logits


def _categorical(fn: Any) -> list[Tensor]:
    logits = _log_probabilities(fn)
    return [torch.zeros_like(logits[..., 0]), logits]


def _bernoulli(fn: Any) -> list[Tensor]:
    if "probs" in fn.__dict__:
        q = torch.log1p(-fn.probs)
        return [q, fn.probs.log() - q]
    return [-torch.nn.functional.softplus(fn.logits), fn.logits]


def _binomial(fn: Any) -> list[Tensor]:
    zero, logit = _bernoulli(fn)
    return [fn.total_count * zero, logit]


def _binomial_base(fn: Any) -> Callable[[Tensor], Tensor]:
    n = fn.total_count
    return lambda x: torch.lgamma(n + 1.0) - torch.lgamma(x + 1.0) - torch.lgamma(n - x + 1.0)


def _negative_binomial(fn: Any) -> list[Tensor]:
    zero, logit = _bernoulli(fn)  # p^x (1 − p)^r
    return [fn.total_count * zero, zero + logit]


def _wishart(fn: Any) -> list[Tensor]:
    """Of a Wishart with scale V: T = (log|Λ|, Λ)."""
    df, d = fn.df, fn.event_shape[-1]
    if "precision_matrix" in fn.__dict__:
        inverse = fn.precision_matrix
    else:
        inverse = torch.cholesky_inverse(fn._unbroadcasted_scale_tril).expand(*fn.batch_shape, d, d)
    log_det = -torch.linalg.slogdet(inverse)[1]
    constant = -0.5 * df * d * math.log(2) - 0.5 * df * log_det - torch.mvlgamma(df / 2, d)
    return [constant, (df - d - 1) / 2, -0.5 * inverse]


def _log_factorial(x: Tensor) -> Tensor:
    return -torch.lgamma(x + 1)


FORMS: dict[type, Form] = {
    td.Gamma: Form("gamma", _gamma, lambda x: [x.log(), x]),
    td.Exponential: Form(
        "gamma", lambda fn: [fn.rate.log(), torch.zeros_like(fn.rate), -fn.rate], lambda x: [x.log(), x]
    ),
    td.Beta: Form("beta", _beta, lambda x: [x.log(), torch.log1p(-x)]),
    td.Dirichlet: Form("dirichlet", _dirichlet, lambda x: [x.log()], event=1),
    td.Poisson: Form("poisson", lambda fn: [-fn.rate, fn.rate.log()], lambda x: [x], _log_factorial),
    td.Bernoulli: Form("bernoulli", _bernoulli, lambda x: [x]),
    td.Geometric: Form("geometric", lambda fn: [fn.probs.log(), torch.log1p(-fn.probs)], lambda x: [x]),
    td.Wishart: Form("wishart", _wishart, lambda x: [torch.linalg.slogdet(x)[1], x], event=2),
}


def form_of(fn: Any) -> Form | None:
    """Return the exponential family of an elementary distribution, or None where it is none of those known here."""
    if type(fn).__name__ == "InverseGamma":
        return Form("inverse_gamma", _inverse_gamma, lambda x: [x.log(), 1 / x])
    if isinstance(fn, td.Binomial):
        return Form("binomial", _binomial, lambda x: [x], _binomial_base(fn))
    if isinstance(fn, td.NegativeBinomial):
        r = fn.total_count
        return Form(
            "negative_binomial",
            _negative_binomial,
            lambda x: [x],
            lambda x: torch.lgamma(r + x) - torch.lgamma(x + 1.0) - torch.lgamma(r + 0 * x),
        )
    if isinstance(fn, td.Multinomial):
        return Form(
            "multinomial",
            lambda fn: [torch.zeros_like(fn.logits[..., 0]), _log_probabilities(fn._categorical)],
            lambda x: [x],
            lambda x: torch.lgamma(x.sum(-1) + 1.0) - torch.lgamma(x + 1.0).sum(-1),
            event=1,
        )
    if isinstance(fn, td.Categorical):
        return Form("categorical", _categorical, lambda x: [_one_hot(x, fn)], event=1)
    if isinstance(fn, td.Uniform) and bool((fn.low == 0).all()) and bool((fn.high == 1).all()):
        return Form("beta", _uniform_on_unit_interval, lambda x: [x.log(), torch.log1p(-x)])
    return next((form for kind, form in FORMS.items() if isinstance(fn, kind)), None)


def _one_hot(x: Tensor, fn: Any) -> Tensor:
    return torch.nn.functional.one_hot(x.long(), fn._num_events).to(torch.get_default_dtype())


def gaussian_parts(fn: Any) -> list[Tensor] | None:
    """Return location (…, d), precision (…, d, d) and its log determinant (…) of a Gaussian; d = 1 for a Normal."""
    if isinstance(fn, td.Normal):
        precision = fn.scale**-2
        return [fn.loc[..., None], precision[..., None, None], -2 * fn.scale.log()]
    if not isinstance(fn, td.MultivariateNormal):
        return None
    if "precision_matrix" in fn.__dict__:
        root = torch.linalg.cholesky(fn.precision_matrix)
        return [fn.loc, fn.precision_matrix, 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)]
    root = fn._unbroadcasted_scale_tril
    precision = torch.cholesky_inverse(root).expand(*fn.batch_shape, *fn.event_shape, fn.event_shape[0])
    log_det = -2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return [fn.loc, precision, log_det.expand(fn.batch_shape)]
