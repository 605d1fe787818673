"""The generative adversarial network, and its relatives by other f-divergences."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probdl.divergences import Estimate, f_divergence
from probdl.errors import ConvergenceWarning
from probdl.models.adversarial.duelling import DuellingModel
from probdl.models.adversarial.f_losses import KINDS, critic_loss, generator_loss, probability, weight
from probdl.models.arguments import not_negative, one_of
from probdl.models.cards import GENERATOR, NONE, Card
from probdl.models.network_model import Training
from probdl.models.row_model import home
from probdl.models.unsupervised import Batch

GAMMA = 0.05  # of R1, for each entry of a row
SURE = 0.01  # a discriminator that errs less on average, on both sides, leaves the generator no gradient


class GAN(DuellingModel):
    r"""A generator that learns from a discriminator, which learns to tell its samples from the data.

    .. math:: \min_G \max_D\; E_x \log D(x) + E_z \log(1 - D(G(z))), \qquad z \sim N(0, I)

    At the best discriminator, :math:`D^*(x) = p(x)/(p(x) + q(x))`, the maximum is 2 JS(p, q) − 2 log 2: the generator
    then descends the Jensen–Shannon divergence. In between it descends what the discriminator has found of it, so
    neither loss says how good the samples are; ``history`` has the energy distance of held-out rows as ``validation``
    (standardised units), ``divergence`` and ``probdl.models.evaluate`` say it with an interval. The fit ends with the
    latest state whose ``validation`` is, within its noise, the smallest.

    The default is the recipe that works best here: a non-saturating loss, the R1 penalty, a discriminator that learns
    twice as fast, rates that fall to zero, and an average of the generator's weights. The algorithm of the paper is
    ``GAN.algorithm_1``. Columns of categories come out as categories, drawn from their probabilities. Rare rows that
    are far from all others in several columns at once can be missed: look at recall and coverage in ``evaluate``.

    Args:
        latent_dim: the dimension of z. With fewer than the data's the samples lie on a surface; more do no harm.
        loss: the f-divergence that the discriminator bounds: "js"; "kl", KL(p‖q); "reverse_kl", KL(q‖p); "pearson",
            χ²(p‖q); p is the law of the data.
        saturating: whether the generator descends the bound itself, as in the formula, and not −E log D(G(z)) (for
            other divergences: the term of the data, at samples), whose gradient does not die where D is sure.
        penalty: γ of R1, :math:`\tfrac{γ}{2} E_x |∇V(x)|^2` at data, V the logit; 0 for none. A larger one steadies
            the game and blurs the samples. None: 0.05 for each entry of a row, as the squared slope is a sum over them.
        critic_steps: k, steps of the discriminator before each of the generator.
        optimiser: "adam" (β = 0, 0.999), "rmsprop", "momentum" (0.9) or "sgd", of both.
        learning_rates: of the discriminator and the generator.
        decay: whether both fall to zero along half a cosine.
        ema: the decay of the average of the generator's weights that makes the samples; None: its last weights.
        generator: a network (n, latent_dim [+ size of the condition]) → (n, ...), rows in standardised units. None:
            chosen by the shape of a row, a transposed CNN for images (c, h, w), an MLP for anything else.
        critic: a network (n, ...) → (n,) or (n, 1), the logit V of D.
        hidden: the widths of the chosen MLPs (None: 128, 128, 128) or the channels of the chosen CNNs (None: 32, 64).
        standardise: "shared", one shift and scale for all entries of a row, as images need; "column", one for each
            entry; "none"; "auto", "column" for tables and "shared" for the rest.
        dtype: of the networks.

    ``fit`` takes 20,000 steps of the generator, 5,000 for images, in batches of 128, unless told otherwise; it may be
    given a condition.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Goodfellow et al. (2014), Generative adversarial nets, NeurIPS; Nowozin, Cseke and Tomioka (2016), f-GAN,
        NeurIPS; Mescheder, Geiger and Nowozin (2018), Which training methods for GANs do actually converge?, ICML;
        Heusel et al. (2017), GANs trained by a two time-scale update rule, NeurIPS.

    Example:
        >>> import torch
        >>> x = 5 + torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1], [0, 1]])
        >>> gan = GAN(2, hidden=(16,)).fit(x, steps=200, progress=False)
        >>> gan.sample(3).shape, gan.discriminator(x).shape
        (torch.Size([3, 2]), torch.Size([400]))
    """

    CARD = Card(
        "GAN", "distribution through transformation", decoder=GENERATOR, prior="normal", encoder=NONE,
        objective="Jensen–Shannon divergence", discriminator="P(y = 1 | x)",
    )  # fmt: skip
    SETTINGS = (
        "latent_dim", "loss", "saturating", "penalty", "critic_steps", "optimiser", "learning_rates", "decay", "ema",
        "hidden", "standardise",
    )  # fmt: skip
    INSTEAD = "divergence(x), the Jensen–Shannon divergence by a fresh critic, and probdl.models.evaluate(model, x)"

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        loss: str = "js",
        saturating: bool = False,
        penalty: float | None = None,
        critic_steps: int = 1,
        optimiser: str = "adam",
        learning_rates: Sequence[float] = (1e-3, 5e-4),
        decay: bool = True,
        ema: float | None = 0.999,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, {"generator": generator, "critic": critic}, dtype, hidden=hidden, standardise=standardise,
            critic_steps=critic_steps, optimiser=optimiser, learning_rates=learning_rates, decay=decay, ema=ema,
        )  # fmt: skip
        self.loss, self.saturating = one_of(loss, [*KINDS], "loss"), bool(saturating)
        self.penalty = None if penalty is None else not_negative(penalty, "penalty")

    @classmethod
    def algorithm_1(cls, latent_dim: int = 8, **changes: Any) -> GAN:
        """Return the GAN of Goodfellow et al.: k = 1, saturating, momentum, and none of the later remedies.

        Args:
            latent_dim: the dimension of z.
            changes: what shall differ, such as ``critic_steps=5``, ``saturating=False`` or ``optimiser="adam"``.

        Example:
            >>> GAN.algorithm_1(2, critic_steps=3).penalty
            0.0
        """
        plain = {"saturating": True, "penalty": 0.0, "optimiser": "momentum", "learning_rates": (0.01, 0.01)}
        return cls(latent_dim, **{**plain, "decay": False, "ema": None, **changes})

    def discriminator(self, x: Any, *, condition: Any = None) -> Tensor:
        """Return D(x) as the fitted discriminator has it: the probability that a row is of the data and no sample.

        It has learnt beside the generator and may be far from the best one; ``divergence`` trains a fresh one.

        Args:
            x: rows like those of ``fit``.
            condition: of these rows, for a model fitted with a condition.

        Returns:
            Shape (n,), between 0 and 1.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return probability(self._values(x, condition), self.loss).to(home(x))

    def divergence(self, x: Any, draws: int = 1000, *, condition: Any = None, seed: int = 0) -> Estimate:
        r"""Estimate the Jensen–Shannon divergence between held-out rows and samples by a fresh discriminator.

        .. math:: \mathrm{JS}(p, q) \ge \log 2 + \tfrac12 E_p \log D + \tfrac12 E_q \log(1 - D)

        Args:
            x: at least 40 rows that ``fit`` did not see.
            draws: fresh samples, at least 40; for each row's condition, in turn, if there is one.
            condition: of these rows, for a model fitted with a condition; the pairs of row and condition are compared.
            seed: of the samples and of the discriminator.

        Returns:
            An ``Estimate`` in nats, of target "lower bound", valued on rows that did not train the discriminator; at
            most log 2, and near 0 for good samples, where it may be negative.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``, or fewer than 40.
        """
        return self._between(partial(f_divergence, kind="js", seed=seed), x, draws, condition, seed)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        super()._learn(train, held, how)
        self._warn_if_sure()

    def _critic_loss(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        critic, fakes = self._players[0], self._fakes(batch, noise)
        fake, terms = critic(fakes.detach(), *batch[1:]), {}
        if weight_of_slopes := self._gamma / 2:
            real, slopes = critic.with_slopes(*batch)
            terms["slope2"] = slopes.mean()
        else:
            real = critic(*batch)
        bound = critic_loss(real, fake, self.loss)
        with torch.no_grad():
            terms |= {self.loss: -bound / weight(self.loss)}
            terms |= {name: probability(v, self.loss).mean() for name, v in (("real", real), ("fake", fake))}
        return bound + weight_of_slopes * terms.get("slope2", 0.0), terms

    def _generator_loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        values = self._players[0](self._fakes(batch, noise), *batch[1:])
        return generator_loss(values, self.loss, self.saturating)

    @property
    def _gamma(self) -> float:
        """γ of R1."""
        return GAMMA * math.prod(self._form.shape) if self.penalty is None else self.penalty

    def _warn_if_sure(self) -> None:
        """Say so if the discriminator ended without error, so that the generator learns nothing more."""
        assert self.history is not None
        real, fake = (float(self.history[f"critic_{name}"].iloc[-1]) for name in ("real", "fake"))
        if real > 1 - SURE and fake < SURE:
            advice = "saturating=False, " if self.saturating else ""
            text = (
                f"the discriminator is sure of every row (mean D {real:.3f} of data, {fake:.3f} of samples at the "
                f"end), so the generator's gradient tells it little: try {advice}a larger penalty=, fewer "
                "critic_steps=, or a smaller rate of the discriminator"
            )
            self.message += f"; {text}"
            warnings.warn(f"GAN: {text}.", ConvergenceWarning, 4)
