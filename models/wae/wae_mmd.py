"""The Wasserstein autoencoder with an MMD penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl.divergences import Estimate, mmd2, mmd2_loss
from probdl.models.cards import GENERATOR, Card
from probdl.models.network_model import Training
from probdl.models.unsupervised import Batch
from probdl.models.wae.base import WassersteinAutoencoder
from probdl.models.wae.kernel import PriorKernel


class WAEMMD(WassersteinAutoencoder):
    r"""A generator fitted by the primal of the Wasserstein distance, whose codes an MMD holds to the prior.

    .. math:: \min_{G, q} E\,c(x, G(z)) + λ\,\mathrm{MMD}_k^2(q(z), p(z)), \qquad z \sim q(z | x), \quad p(z) = N(0, I).

    If the codes of all rows together had the law p(z), the first term would bound the optimal transport cost between
    the data and samples G(z); λ presses for it. ``penalty`` says on held-out rows how far it is reached. The MMD² of
    each step is the unbiased statistic of the batch, under ``PriorKernel``; a batch of one row has none.

    Without epochs and steps, 1500 steps are taken, or 20 epochs if these are more.

    Args:
        latent_dim: the dimension of z.
        encoder: a network (n, ...) → (n, latent_dim), or if ``stochastic`` (n, 2·latent_dim), read as mean and raw
            scale (softplus). None: chosen by the shape of a row, a CNN for images (c, h, w), an MLP for anything else.
        decoder: a network (n, latent_dim) → (n, ...), the generator G, in standardised units.
        cost: c, in standardised units, summed over a row: "squared", |x − y|², for W2²; "euclidean", |x − y|, for W1;
            "absolute", Σ|xⱼ − yⱼ|; or an ``nn.Module`` of two batches → (n,), whose parameters are not learnt.
        weight: λ; None: three times the mean cost c(x, x̄) of reconstructing training rows by their mean, so that the
            penalty counts alike whatever the units and the dimension. ``penalty_weight`` has the number.
        stochastic: whether q(z | x) is a normal with a scale of its own; else each row has one code.
        start: steps that bring the first two moments of the codes to those of the prior, before the others.
        hidden: the widths of the chosen MLPs (None: 128, 128) or the channels of the chosen CNNs (None: 32, 64).
        standardise: "shared", one shift and scale for all entries of a row, as images need; "column", one for each
            entry; "none"; "auto", "column" for tables and "shared" for the rest.
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine over the steps or epochs.
        patience: epochs without a better validation loss until the fit stops; None: as many as make 1000 steps, at
            least 5.
        dtype: of the networks.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Tolstikhin, Bousquet, Gelly and Schölkopf (2018), Wasserstein auto-encoders, ICLR, algorithm 2. Their λ of 10
        for cross-entropies divided by 20 and a sum of kernels is 27 times the mean cost c(x, x̄) here.

    Example:
        >>> import torch
        >>> z = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat([z, 2 * z, -z], 1) + 0.1 * z.roll(1)
        >>> wae = WAEMMD(1).fit(x, epochs=30, progress=False)
        >>> wae.sample(5).shape, wae.encode(x).shape, abs(wae.penalty(x).value) < 0.05
        (torch.Size([5, 3]), torch.Size([400, 1]), True)
    """

    CARD = Card(
        "WAE-MMD", "distribution through transformation", decoder=GENERATOR, prior="normal", encoder="q(z | x)",
        objective="transport cost + λ MMD²", side="primal", constraint="‖∫k(z, ·)dP(z) − ∫k(z, ·)dQ(z)‖_H",
    )  # fmt: skip

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        cost: str | nn.Module = "squared",
        weight: float | None = None,
        stochastic: bool = False,
        start: int = 100,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 4e-3,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, {"encoder": encoder, "decoder": decoder}, cost=cost, weight=weight, stochastic=stochastic,
            start=start, hidden=hidden, standardise=standardise, learning_rate=learning_rate, decay=decay,
            patience=patience, dtype=dtype,
        )  # fmt: skip

    def penalty(self, x: Any, *, draws: int = 2000, seed: int = 0) -> Estimate:
        """Estimate the squared MMD between the codes of rows and the prior, under ``PriorKernel``.

        Args:
            x: rows like those of ``fit``; held-out ones say whether q(z) = p(z), training rows flatter.
            draws: from the prior.
            seed: of the draws, and of the codes where the encoder is stochastic.

        Returns:
            Value between 0 and 2, but for noise around 0; unbiased. Near 0 it has no interval, and a note says so;
            ``divergences.two_sample_test(model.encode(x), …)`` tests for a difference.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        self._rows("penalty")
        return mmd2(*self._codes_and_prior(x, draws, seed), kernel=PriorKernel(self.latent_dim))

    def _optimise(self, train: Batch, held: Batch | None, how: Training, one: bool) -> None:
        self._train_in_batches(self._loss, train, held, how, one=one, most=self._most(train, how))

    def _loss(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        cost, z, prior = self._terms(batch[0], noise)
        penalty = mmd2_loss(z, prior, PriorKernel(self.latent_dim)) if len(z) > 1 else torch.zeros_like(cost)
        return cost + self._weight * penalty, {"cost": cost, "mmd2": penalty}
