r"""Inverse links as log-odds, which keep their digits in both tails.

With :math:`h = e^η` the complementary log-log link has :math:`P(y = 1) = 1 - e^{-h}` and log-odds
:math:`h + \log(1 - e^{-h})`; the probit link has :math:`\log Φ(η) - \log Φ(-η)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LINKS = ("logit", "probit", "cloglog")
_FARTHEST = 30.0  # e^30 events: beyond it no event has probability zero to any digits
_ROOT = math.sqrt(2.0)


def log_ndtr(x: Tensor) -> Tensor:
    """Return log Φ(x), by the scaled complementary error function in the lower tail.

    ``torch.special.log_ndtr`` has no rule for ``torch.vmap``, without which expectation propagation is slow.
    """
    low, high = x.clamp(max=-1.0), x.clamp(min=-1.0)  # each branch stays finite where the other is taken
    tail = torch.log(torch.special.erfcx(-low / _ROOT) / 2) - low**2 / 2
    return torch.where(x < -1.0, tail, torch.log1p(-torch.special.erfc(high / _ROOT) / 2))


def log_odds(eta: Tensor, link: str) -> Tensor:
    """Return log P(y = 1)/P(y = 0) at linear predictors, in their shape."""
    if link == "probit":
        return log_ndtr(eta) - log_ndtr(-eta)
    if link == "cloglog":
        h = eta.clamp(-700.0, _FARTHEST).exp()
        return h + torch.log(-torch.expm1(-h))
    return eta


def log_category_probabilities(eta: Tensor, cutpoints: Tensor, link: str) -> Tensor:
    r"""Return :math:`\log\{F(c_k - η) - F(c_{k-1} - η)\}` for ordered categories k = 1…K, (..., K).

    Args:
        eta: linear predictors, (...).
        cutpoints: c, rising, (..., K − 1), which broadcasts against ``eta[..., None]``.
        link: "logit" or "probit", whose inverse F is.
    """
    upper = cutpoints - eta[..., None]
    log_cdf = log_ndtr if link == "probit" else torch.nn.functional.logsigmoid
    if upper.shape[-1] == 1:
        return torch.cat([log_cdf(upper), log_cdf(-upper)], -1)
    low, high = upper[..., :-1], upper[..., 1:]
    inner = _log_between(low, high) if link == "probit" else log_cdf(high) + log_cdf(-low) + _log_gap(low, high)
    return torch.cat([log_cdf(upper[..., :1]), inner, log_cdf(-upper[..., -1:])], -1)


def _log_gap(low: Tensor, high: Tensor) -> Tensor:
    """log(1 − e^(low − high)): σ(high) − σ(low) = σ(high) σ(−low) (1 − e^(low − high))."""
    return torch.log(-torch.expm1(low - high))


def _log_between(low: Tensor, high: Tensor) -> Tensor:
    """Log of Φ(high) − Φ(low), in the lower tail of whichever side is nearer."""
    flip = low + high > 0
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    below, above = log_ndtr(a), log_ndtr(b)
    return above + torch.log(-torch.expm1(below - above))
