"""Missing entries given those that are there, by importance resampling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probdl.families import Conditional
from probdl.models.elbo import drawn_terms, given, prior_log_ratio
from probdl.models.variational.encoders import RowEncoder


class Imputed(NamedTuple):
    """Rows in standardised units, all entries of them the model's, and the effective number of draws of each."""

    rows: Tensor
    ess: Tensor


def imputed(
    encoder: RowEncoder,
    decoder: Conditional,
    u: Tensor,
    c: Tensor | None,
    draws: int,
    mean: bool,
    noise: torch.Generator,
) -> Imputed:
    r"""Rows given their entries that are there, by self-normalised importance sampling,

    .. math:: z_k \sim q(z | x_o), \quad w_k ∝ \frac{p(x_o | z_k)\,p(z_k)}{q(z_k | x_o)}, \quad
              E(x_m | x_o) ≈ \sum_k \tilde w_k E(x_m | z_k).

    As the number of draws grows, this is p(x_m | x_o) itself, whatever q is. A chain that alternates between z and x_m
    (pseudo-Gibbs) would keep the error of q.

    Args:
        encoder, decoder: of the model.
        u: rows (n, ...), NaN where missing.
        c: their condition, or None.
        draws: of z for each row.
        mean: whether to return the mean, or one draw.
        noise: the generator of all randomness.

    Reference:
        Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of incomplete data sets, ICML.
    """
    q, z, log_p = drawn_terms(encoder, decoder, u, draws, noise, c)
    weights = (log_p + prior_log_ratio(q, z)).softmax(0)
    ess = 1 / weights.square().sum(0)
    if mean:
        means = decoder(given(z, c)).mean.view(draws, len(u), -1)
        return Imputed((weights[:, :, None] * means).sum(0).view(u.shape), ess)
    chosen = torch.multinomial(weights.T, 1, generator=noise)[:, 0]
    z = z[chosen, torch.arange(len(u), device=u.device)]
    return Imputed(decoder.draw(given(z[None], c), noise), ess)
