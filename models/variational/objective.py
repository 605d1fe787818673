"""What is minimised: the negative bound, with the options that bend it in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from probdl.families import standard_normal_kls
from probdl.models.elbo import prior_log_ratio

Terms = dict[str, Tensor]


class Objective(nn.Module):
    r"""The loss of a batch, from its reconstruction term and its divergence,

    .. math:: -\frac1n \sum_i \log p(x_i | z_i) + β\,w_t \sum_j \max\Big(λ, \frac1n \sum_i \mathrm{KL}_{ij}\Big),

    in training mode; in eval mode always the negative bound itself, with β = w = 1 and λ = 0. Or the bound of
    importance weighting, :math:`\frac1n \sum_i \log \frac1M \sum_m w_{im}`, in both.

    Args:
        beta: β.
        warm_up: steps over which w rises from 0 to 1.
        free_bits: λ, nats for each latent dimension that cost nothing.
        weighted: whether to use the bound of importance weighting.
    """

    taken: Tensor

    def __init__(self, beta: float, warm_up: int, free_bits: float, weighted: bool) -> None:
        super().__init__()
        self.beta, self.warm_up, self.free_bits, self.weighted = beta, warm_up, free_bits, weighted
        # A buffer, so that a checkpoint holds how far the warm-up has come.
        self.register_buffer("taken", torch.zeros((), dtype=torch.float64))

    def forward(self, q: Independent, z: Tensor, log_p: Tensor) -> tuple[Tensor, Terms]:
        """Return the loss, and the two terms of the negative evidence lower bound.

        Args:
            q: the approximate posteriors.
            z: draws from them, (M, n, d).
            log_p: log p(x | z), (M, n), in the data's units.
        """
        kls = standard_normal_kls(q)
        reconstruction, kl = -log_p.mean(), kls.sum(1).mean()
        terms = {"reconstruction": reconstruction, "kl": kl}
        if self.weighted:
            log_w = log_p + prior_log_ratio(q, z)
            return math.log(len(z)) - log_w.logsumexp(0).mean(), terms
        if not self.training:
            return reconstruction + kl, terms
        return reconstruction + self._weight(kl) * self._cost(kls, kl), terms

    def _weight(self, kl: Tensor) -> Tensor | float:
        if not self.warm_up:
            return self.beta
        self.taken += 1
        return self.beta * (self.taken / self.warm_up).clamp(max=1).to(kl)

    def _cost(self, kls: Tensor, kl: Tensor) -> Tensor:
        return kls.mean(0).clamp(min=self.free_bits).sum() if self.free_bits else kl
