"""What Wasserstein autoencoders share: the objective, the encoder's start, samples, and no likelihood."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from probdl.divergences import Estimate
from probdl.families import MeanFieldNormal
from probdl.loops import Descent, descend
from probdl.models.arguments import count, not_negative
from probdl.models.autoencoders.base import EncoderDecoder
from probdl.models.generative import CHUNK, GenerativeModel
from probdl.models.network_model import Training
from probdl.models.networks import is_small
from probdl.models.unsupervised import Batch
from probdl.models.wae.costs import COSTS, check_cost, check_values
from probdl.models.wae.moments import moment_gap

START_ROWS = 1000  # in a batch of the encoder's start: a covariance needs many


class WassersteinAutoencoder(EncoderDecoder, GenerativeModel):
    """A generator of rows x = G(z), z standard normal, learnt as the decoder of an autoencoder whose codes are like z.

    Args:
        latent_dim: the dimension of z.
        networks: as they were passed, without the cost.
        cost, weight, stochastic, start, hidden, standardise, learning_rate, decay, patience, dtype: as of ``WAEMMD``.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = (*EncoderDecoder.SETTINGS, "cost", "weight", "stochastic", "start")
    STEPS = 1500
    INSTEAD = "Real data have fewer dimensions than they have entries."
    SHARE = 3.0
    unit: Tensor

    def __init__(
        self,
        latent_dim: int,
        networks: dict[str, nn.Module | None],
        *,
        cost: str | nn.Module,
        weight: float | None,
        stochastic: bool,
        start: int,
        hidden: Sequence[int] | None,
        standardise: str,
        learning_rate: float,
        decay: bool,
        patience: int | None,
        dtype: torch.dtype,
    ) -> None:
        name, own = check_cost(cost)
        super().__init__(
            latent_dim, {**networks, "cost": own}, hidden=hidden, standardise=standardise,
            learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        self.cost, self.stochastic = name, bool(stochastic)
        self.weight = None if weight is None else not_negative(weight, "weight")
        self.start = count(start, "start", least=0)
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    def log_likelihood(self, x: Any, draws: int = 100) -> NoReturn:
        """Raise a NotImplementedError: the model has no density."""
        raise NotImplementedError(
            f"This {type(self).__name__} has no log_likelihood: its samples x = G(z) lie on a surface of "
            f"{self.latent_dim} dimensions, and have no density. How far they are from held-out rows says "
            "probdl.models.evaluate(model, x), and how far codes are from the prior penalty(x); a VAE has a likelihood."
        )

    @abstractmethod
    def penalty(self, x: Any, *, draws: int = 2000, seed: int = 0) -> Estimate:
        """Return how far the codes of rows are from the prior."""

    @property
    def penalty_weight(self) -> float:
        """The weight λ in use, in standardised units."""
        self._rows("penalty_weight")
        return self._weight

    @property
    def _weight(self) -> float:
        return self.SHARE * float(self.unit) if self.weight is None else float(self.weight)

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        super()._study(train, held)
        assert self.units is not None
        u = self.units.inward(train).to(self.dtype)
        own = self._restarted("cost")
        with torch.no_grad():
            to_mean = (own or COSTS[self.cost])(u, u.mean(0).expand_as(u))
        self.unit = check_values(to_mean, len(u)).double().mean().cpu()

    def _build(self, seed: int) -> None:
        super()._build(seed)
        if self.stochastic:
            assert self.encoder is not None
            self.encoder = MeanFieldNormal(self.encoder)
        own = self._restarted("cost")
        # What a cost is must not be learnt: the cheapest one would be zero.
        self.own_cost = None if own is None else own.to(self.dtype).requires_grad_(False)

    @property
    def _outputs(self) -> int:
        return self.latent_dim * (2 if self.stochastic else 1)

    @property
    def _meaning(self) -> str:
        return "mean and raw scale" if self.stochastic else "the code"

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        one = is_small(train[0][: how.size])
        if self.start and self._started(train, how, one).interrupted:
            return
        self._optimise(train, held, how, one)

    def _started(self, train: Batch, how: Training, one: bool) -> Descent:
        """Bring the first two moments of the codes to those of the prior, before anything is reconstructed."""
        assert self.encoder is not None
        encoder = self.encoder

        def gap(batch: Batch, noise: torch.Generator) -> Tensor:
            return moment_gap(self._code_drawn(batch[0], noise))

        rows = min(START_ROWS, len(train[0]))
        return self._run(
            lambda: descend(encoder, gap, train, steps=self.start, batch_size=rows, seed=how.seed, progress=False,
                            learning_rate=self.learning_rate),
            one,
        )  # fmt: skip

    @abstractmethod
    def _optimise(self, train: Batch, held: Batch | None, how: Training, one: bool) -> None:
        """Minimise the objective."""

    def _terms(self, u: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean cost of a batch, its codes, and as many draws from the prior."""
        z = self._code_drawn(u, noise)
        cost = self.own_cost or COSTS[self.cost]
        values = check_values(cost(u, self._back(z, None)), len(u))
        return values.mean(), z, self._prior(len(u), noise, self.latent_dim)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        assert self.encoder is not None
        return self.encoder(u).mean if self.stochastic else self.encoder(u)

    def _code_drawn(self, u: Tensor, noise: torch.Generator) -> Tensor:
        """Return a draw of q(z | x) for each row."""
        if isinstance(self.encoder, MeanFieldNormal):
            return self.encoder.draw(u, noise)
        return self._code(u, None)

    def _codes_and_prior(self, x: Any, draws: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return codes of rows, and draws from the prior, in float64."""
        u, noise = self._inward(x), self._noise(seed)
        with self._quietly():
            codes = torch.cat([self._code_drawn(rows, noise) for rows in u.split(CHUNK)])
        return codes.double(), self._prior(count(draws, "draws", least=2), noise, self.latent_dim).double()

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        return self._back(self._prior(n, noise, self.latent_dim), c)
