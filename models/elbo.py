"""The evidence lower bound and the importance-weighted likelihood, for any encoder and decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.families import Conditional, MeanFieldNormal, reparameterised, standard_normal_kl


def elbo_terms(
    encoder: MeanFieldNormal, decoder: Conditional, u: Tensor, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    r"""The two terms of the evidence lower bound of each row,

    .. math:: \frac1M \sum_{m=1}^M \log p(u | z_m), \quad \mathrm{KL}(q(z | u) ‖ N(0, I)), \quad
              z_m = μ(u) + s(u) ⊙ ε_m.

    Args:
        encoder: q(z | u).
        decoder: p(u | z).
        u: rows (n, ...).
        draws: M.
        generator: draws ε.

    Returns:
        The terms, of shape (draws, n), before their mean over draws, and (n,), in nats.
    """
    q = encoder(u)
    z = reparameterised(q, generator, draws)
    return _log_p(decoder, u, z), standard_normal_kl(q)


def log_weights(
    encoder: MeanFieldNormal, decoder: Conditional, u: Tensor, draws: int, generator: torch.Generator
) -> Tensor:
    r"""Importance weights :math:`\log p(u | z_k) + \log p(z_k) - \log q(z_k | u)`, z from q, shape (draws, n)."""
    q = encoder(u)
    z = reparameterised(q, generator, draws)
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    return _log_p(decoder, u, z) + log_prior - q.log_prob(z)


def _log_p(decoder: Conditional, u: Tensor, z: Tensor) -> Tensor:
    """Return log p(u | z) for draws z (draws, n, d), as (draws, n)."""
    draws, n = z.shape[:2]
    repeated = u if draws == 1 else u.expand(draws, *u.shape).flatten(0, 1)
    return decoder.log_prob(repeated, z.flatten(0, 1)).view(draws, n)


def importance_estimate(log_w: Tensor, shift: float) -> Estimate:
    r"""The log-likelihood of each row from its importance weights,

    .. math:: \log \hat p = \log \frac1K \sum_k w_k, \qquad
              \mathrm{se} = \sqrt{\frac{K \sum_k \tilde w_k^2 - 1}{K - 1}}, \quad \tilde w_k = w_k / \sum_l w_l,

    the standard error by the delta method, :math:`\mathrm{sd}(w) / (\bar w \sqrt K)`.

    Args:
        log_w: (draws, n).
        shift: added to each value.

    Returns:
        Value and stderr of shape (n,). The mean of the estimator is below log p, by about half the squared standard
        error.

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
    return Estimate(value, stderr, "importance weighting", "lower bound", draws, tuple(notes))


def elbo_estimate(log_p: Tensor, kl: Tensor, shift: float) -> Estimate:
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
