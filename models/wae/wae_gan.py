"""The Wasserstein autoencoder with an adversarial penalty."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from probdl.divergences import Estimate, f_divergence, f_divergence_loss, mmd2_loss
from probdl.divergences.held_out import scores
from probdl.errors import ConvergenceWarning
from probdl.loops import cosine
from probdl.models.arguments import count, positive
from probdl.models.cards import GENERATOR, Card
from probdl.models.network_model import Training
from probdl.models.networks import check_network
from probdl.models.unsupervised import Batch
from probdl.models.wae.base import WassersteinAutoencoder
from probdl.models.wae.kernel import PriorKernel
from probdl.nn import MLP, seeded

SURE = 0.8  # of the largest value of the bound, from which the fit warns
ADAM = partial(torch.optim.Adam, betas=(0.5, 0.999), fused=True)


class CodeCritic(nn.Module):
    r"""The logit that a code is a draw from the prior, :math:`h(z) + \log p(z)`.

    At its best it is log p(z) − log q(z), whose first term is known; h learns the second.

    Args:
        network: h, (n, d) → (n,) or (n, 1).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        """Return the logit of each code, (n,)."""
        return scores(self.network, z) - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


class WAEGAN(WassersteinAutoencoder):
    r"""A generator fitted by the primal of the Wasserstein distance, whose codes a critic holds to the prior.

    .. math:: \min_{G, q} E\,c(x, G(z)) + λ\,\mathrm{JS}(q(z), p(z)), \qquad z \sim q(z | x), \quad p(z) = N(0, I),

    where JS stands for what a critic of codes makes of it: it tells codes from draws of the prior, and encoder and
    critic duel, the encoder by the non-saturating loss −log D(z). ``penalty`` says on held-out rows how far codes are
    from the prior, by a fresh critic. With validation rows, the fit ends with the state whose held-out cost + λ MMD²
    (that of ``WAEMMD``) was smallest, since no value of the duel's critic says how good the encoder is.

    Without epochs and steps, 3000 steps are taken, or as many as there are batches in 20 epochs if these are more; each
    takes two batches, one for each player.

    Args:
        latent_dim: the dimension of z.
        encoder, decoder, cost, stochastic, start, hidden, standardise, dtype: as of ``WAEMMD``.
        critic: a network (n, latent_dim) → (n,) or (n, 1), to which log p(z) is added. None: an MLP of 128, 128, 128.
        weight: λ; None: half of the mean cost c(x, x̄) of reconstructing training rows by their mean, so that the
            penalty counts alike whatever the units and the dimension. ``penalty_weight`` has the number.
        critic_steps: of the critic, for each step of encoder and decoder.
        learning_rate: of Adam (β₁ = .5), for encoder and decoder; the critic's is ``critic_rate`` times it.
        critic_rate: see ``learning_rate``.
        decay: whether both fall to zero along half a cosine over the steps or epochs.
        patience: epochs without a better validation score until the fit stops; None: never.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Tolstikhin, Bousquet, Gelly and Schölkopf (2018), Wasserstein auto-encoders, ICLR, algorithm 1 and appendix.

    Example:
        >>> import torch
        >>> z = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat([z, 2 * z, -z], 1) + 0.1 * z.roll(1)
        >>> wae = WAEGAN(1).fit(x, epochs=30, progress=False)
        >>> wae.sample(5).shape, wae.encode(x).shape
        (torch.Size([5, 3]), torch.Size([400, 1]))
    """

    CARD = Card(
        "WAE-GAN", "distribution through transformation", decoder=GENERATOR, prior="normal", encoder="q(z | x)",
        objective="transport cost + λ Jensen–Shannon divergence", discriminator="P(y = 1 | z)", side="primal",
        constraint="JS(p(z)‖q(z))",
    )  # fmt: skip
    SETTINGS = (*WassersteinAutoencoder.SETTINGS, "critic_steps", "critic_rate")
    SHARE = 0.5
    STEPS = 3000

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        critic: nn.Module | None = None,
        cost: str | nn.Module = "squared",
        weight: float | None = None,
        stochastic: bool = False,
        start: int = 100,
        critic_steps: int = 1,
        critic_rate: float = 1.0,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 1e-3,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        networks = {"encoder": encoder, "decoder": decoder, "critic": critic}
        super().__init__(
            latent_dim, networks, cost=cost, weight=weight, stochastic=stochastic, start=start, hidden=hidden,
            standardise=standardise, learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        self.critic_steps = count(critic_steps, "critic_steps")
        self.critic_rate = positive(critic_rate, "critic_rate")
        self.critic: CodeCritic | None = None

    def penalty(self, x: Any, *, draws: int = 2000, seed: int = 0) -> Estimate:
        """Estimate the Jensen–Shannon divergence between the codes of rows and the prior, by a fresh critic.

        Args:
            x: rows like those of ``fit``, at least 40; held-out ones say whether q(z) = p(z), training rows flatter.
            draws: from the prior.
            seed: of the draws, of the critic, and of the codes where the encoder is stochastic.

        Returns:
            Nats, at most log 2; a "lower bound", which may be negative near 0.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        self._rows("penalty")
        return f_divergence(*self._codes_and_prior(x, draws, seed), "js", seed=seed)

    def _build(self, seed: int) -> None:
        super()._build(seed)
        network = self._restarted("critic")
        if network is not None:
            check_network(CodeCritic(network), "critic", (self.latent_dim,), (), "a logit for each code")
        with seeded(seed + 1):
            network = network if network is not None else MLP(self.latent_dim, 1, hidden=(128, 128, 128))
        self.critic = CodeCritic(network).to(self.dtype)

    def _optimise(self, train: Batch, held: Batch | None, how: Training, one: bool) -> None:
        assert self.critic is not None
        assert self.encoder is not None
        assert self.decoder is not None
        rates = [self.critic_rate * self.learning_rate, self.learning_rate]
        schedules = [cosine(rate) if self.decay else rate for rate in rates]
        self._duel_in_batches(
            self.critic, nn.ModuleList([self.encoder, self.decoder]), self._critic_loss, self._loss, train, how,
            one=one, most=self._most(train, how), critic_steps=self.critic_steps,
            learning_rates=(schedules[0], schedules[1]),
            optimisers=(partial(ADAM, lr=rates[0]), partial(ADAM, lr=rates[1])), patience=self.patience,
            every=max(1, len(train[0]) // (how.size * (1 + self.critic_steps))),
            score=None if held is None else lambda noise: self._score(held[0], noise),
        )  # fmt: skip
        self._diagnose()

    def _diagnose(self) -> None:
        """Warn where the critic told nearly all codes from draws of the prior at the end."""
        assert self.history is not None
        bound = -float(self.history["critic"].iloc[-1])
        if bound > SURE * math.log(2):
            self.message += "; the critic still tells codes from the prior"
            warnings.warn(
                f"The critic tells codes from draws of the prior almost always: the Jensen–Shannon divergence between "
                f"them is at least {bound:.2f} of at most {math.log(2):.2f} nats, and samples will be unlike the data. "
                "Take more steps, a smaller learning_rate or weight, or WAEMMD, which needs no critic.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _critic_loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        assert self.critic is not None
        with torch.no_grad():
            z = self._code_drawn(batch[0], noise)
        return f_divergence_loss(self.critic(self._prior(len(z), noise, self.latent_dim)), self.critic(z), "js")

    def _loss(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.critic is not None
        cost, z, _ = self._terms(batch[0], noise)
        suspicion = softplus(-self.critic(z)).mean()
        return cost + self._weight * suspicion, {"cost": cost, "suspicion": suspicion}

    def _score(self, u: Tensor, noise: torch.Generator) -> Tensor:
        cost, z, prior = self._terms(u, noise)
        return cost + 3 * self.unit * mmd2_loss(z, prior, PriorKernel(self.latent_dim))
