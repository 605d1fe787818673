"""The evidence lower bound and the importance-weighted likelihood, for any encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Independent

from probdl.divergences.estimate import Estimate
from probdl.families import reparameterised, standard_normal_kl
from probdl.models.networks import joined


class Decoding(Protocol):
    """What gives rows a log-probability, such as a ``Conditional``."""

    def log_prob(self, x: Tensor, given: Tensor, /) -> Tensor:
        """Return log p(x | given), (n,)."""


def elbo_terms(
    encoder: Callable[..., Independent],
    decoder: Decoding,
    u: Tensor,
    draws: int,
    generator: torch.Generator,
    c: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The two terms of the evidence lower bound of each row,

    .. math:: \frac1M \sum_{m=1}^M \log p(u | z_m), \quad \mathrm{KL}(q(z | u) ‖ N(0, I)), \quad
              z_m = μ(u) + s(u) ⊙ ε_m.

    Args:
        encoder: q(z | u), or with a condition q(z | u, c).
        decoder: p(u | z), or p(u | z, c), given z and c side by side.
        u: rows (n, ...).
        draws: M.
        generator: draws ε.
        c: the condition (n, k), or None.

    Returns:
        The terms, of shape (draws, n), before their mean over draws, and (n,), in nats.
    """
    q, z, log_p = drawn_terms(encoder, decoder, u, draws, generator, c)
    return log_p, standard_normal_kl(q)


def log_weights(
    encoder: Callable[..., Independent],
    decoder: Decoding,
    u: Tensor,
    draws: int,
    generator: torch.Generator,
    c: Tensor | None = None,
) -> Tensor:
    r"""Importance weights :math:`\log p(u | z_k) + \log p(z_k) - \log q(z_k | u)`, z from q, shape (draws, n)."""
    q, z, log_p = drawn_terms(encoder, decoder, u, draws, generator, c)
    return log_p + prior_log_ratio(q, z)


def drawn_terms(
    encoder: Callable[..., Independent],
    decoder: Decoding,
    u: Tensor,
    draws: int,
    generator: torch.Generator,
    c: Tensor | None = None,
) -> tuple[Independent, Tensor, Tensor]:
    """Return q(z | u), draws z from it, (draws, n, d), and log p(u | z), (draws, n); arguments as of ``elbo_terms``."""
    q = encoder(u) if c is None else encoder(u, c)
    z = reparameterised(q, generator, draws)
    repeated = u if draws == 1 else u.expand(draws, *u.shape).flatten(0, 1)
    return q, z, decoder.log_prob(repeated, given(z, c)).view(draws, len(u))


def given(z: Tensor, c: Tensor | None) -> Tensor:
    """Return what a decoder gets for draws z (draws, n, d) and the condition of the n rows, (draws · n, d + k)."""
    return joined(z.flatten(0, 1), None if c is None else c.expand(len(z), *c.shape).flatten(0, 1))


def prior_log_ratio(q: Independent, z: Tensor) -> Tensor:
    """Return log p(z) − log q(z), p standard normal, of draws (draws, n, d): (draws, n)."""
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    return log_prior - q.log_prob(z)


@dataclass(frozen=True, repr=False)
class ImportanceEstimate(Estimate):
    """An estimate by importance weighting, of each row.

    Attributes:
        ess: the effective number of draws of each row, :math:`1 / \\sum_k \\tilde w_k^2`, (n,).
    """

    ess: Tensor = field(default_factory=lambda: torch.empty(0))


def importance_estimate(log_w: Tensor, shift: float | Tensor) -> ImportanceEstimate:
    r"""The log-likelihood of each row from its importance weights,

    .. math:: \log \hat p = \log \frac1K \sum_k w_k, \qquad
              \mathrm{se} = \sqrt{\frac{K \sum_k \tilde w_k^2 - 1}{K - 1}}, \quad \tilde w_k = w_k / \sum_l w_l,

    the standard error by the delta method, :math:`\mathrm{sd}(w) / (\bar w \sqrt K)`.

    Args:
        log_w: (draws, n).
        shift: added to each value; one number, or one for each row.

    Returns:
        Value, stderr and ess of shape (n,). The mean of the estimator is below log p, by about half the squared
        standard error.

    Reference:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
    """
    draws, n = log_w.shape
    value = log_w.logsumexp(0) - math.log(draws) + shift
    share = log_w.softmax(0).square().sum(0)
    stderr = ((draws * share - 1).clamp(min=0) / (draws - 1)).sqrt()
    effective = 1 / share
    notes = [
        f"{draws} importance draws from the encoder for each row; effective number of draws: median "
        f"{float(effective.median()):.1f}, smallest {float(effective.min()):.1f}",
        _mean_note(value, stderr),
    ]
    if poor := int((effective < min(10, draws / 2)).sum()):
        notes.append(f"{poor} of {n} rows have few effective draws: their values are low, their stderr too small")
    return ImportanceEstimate(value, stderr, "importance weighting", "lower bound", draws, tuple(notes), effective)


def elbo_estimate(log_p: Tensor, kl: Tensor, shift: float | Tensor) -> Estimate:
    """The evidence lower bound of each row, from its terms as ``elbo_terms`` returns them."""
    draws = len(log_p)
    value, stderr = log_p.mean(0) - kl + shift, log_p.std(0) / math.sqrt(draws)
    notes = (f"{draws} draws for each row; closed-form KL", _mean_note(value, stderr))
    return Estimate(value, stderr, "monte carlo", "lower bound", draws, notes)


def _mean_note(value: Tensor, stderr: Tensor) -> str:
    n = len(value)
    mean, monte_carlo = float(value.mean()), float(stderr.square().sum().sqrt()) / n
    if n == 1:
        return f"one row: {mean:.4f}, Monte Carlo error {monte_carlo:.4f}"
    rows = float(value.std()) / math.sqrt(n)
    return f"mean over {n} rows {mean:.4f}, standard error over rows {rows:.4f}, Monte Carlo error {monte_carlo:.4f}"
