"""What models do alike whose generator duels with a critic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl.divergences import energy_loss
from probdl.loops import cosine
from probdl.models.adversarial.critic import Critic
from probdl.models.adversarial.implicit import ImplicitModel, with_condition
from probdl.models.adversarial.rules import RULES, Rate, Rule, pair
from probdl.models.adversarial.trace import Trace, noise_of_energy
from probdl.models.arguments import count, one_of, positive
from probdl.models.generative import CHUNK
from probdl.models.network_model import Training
from probdl.models.networks import check_network, chosen_encoder, is_image, is_small, joined_shape
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

SCORED, FEWEST = 1000, 200  # held-out rows and samples in the energy distance that validates


class DuellingModel(ImplicitModel):
    """An implicit model that learns from a critic, which learns to tell its samples from the data.

    Args:
        latent_dim, networks, dtype, hidden, standardise: as of ``ImplicitModel``.
        critic_steps: k, of the critic before each step of the generator.
        optimiser: the rule of both, one of ``RULES``.
        learning_rates: of the critic and the generator.
        decay: whether both fall to zero along half a cosine.
        ema: the decay of the average of the generator's weights, or None.
    """

    STEPS: ClassVar[int] = 20_000
    STEPS_OF_IMAGES: ClassVar[int] = 5_000
    SEEN: ClassVar[tuple[str, ...]] = ("validation",)  # columns of the history that come of held-out rows
    BETAS: ClassVar[tuple[float, float]] = (0.0, 0.999)

    def __init__(
        self,
        latent_dim: int,
        networks: dict[str, nn.Module | None],
        dtype: torch.dtype,
        *,
        hidden: Sequence[int] | None,
        standardise: str,
        critic_steps: int,
        optimiser: str,
        learning_rates: Sequence[float],
        decay: bool,
        ema: float | None,
    ) -> None:
        super().__init__(latent_dim, networks, dtype, hidden=hidden, standardise=standardise)
        self.critic_steps, self.optimiser = (
            count(critic_steps, "critic_steps"),
            one_of(optimiser, [*RULES], "optimiser"),
        )
        self.learning_rates = tuple(positive(rate, "learning_rates") for rate in pair(learning_rates))
        self.decay, self.ema = decay, ema
        self.critic: Critic | None = None

    @abstractmethod
    def _critic_loss(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the critic descends, and terms for the history."""

    @abstractmethod
    def _generator_loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        """Return what the generator descends."""

    def _build(self, seed: int) -> None:
        super()._build(seed)
        shape = joined_shape(self._form.shape, self._condition_size)
        network = self._restarted("critic")
        if network is not None:
            _check_critic(network, shape)
        with seeded(seed + 1):
            network = network if network is not None else chosen_encoder(shape, 1, self._widths)
        self.critic = Critic(network).to(self.dtype)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        critic, generator = self._players
        trace = critic.trace = self._trace(held)
        try:
            self._duel_in_batches(
                critic,
                generator,
                self._critic_loss,
                self._generator_loss,
                train,
                how,
                one=is_small(train[0][: how.size]),
                most=self.STEPS_OF_IMAGES if is_image(self._form.shape) else self.STEPS,
                critic_steps=self._turns,
                learning_rates=self._rates,
                optimisers=self._rules,
                ema=self.ema,
                score=None if trace is None or held is None else self._scoring(trace, held),
                **self._more,
            )
        finally:
            critic.trace = None
            self._remember(trace)

    def _trace(self, held: Batch | None) -> Trace | None:
        """Return where records of held-out rows are kept, if there are enough of them."""
        if held is None or len(held[0]) < 2:
            return None
        some = with_condition(tuple(part[:SCORED] for part in held))
        return Trace(len(self.SEEN), noise_of_energy(some, len(some), _scored(len(some)))).to(self._device)

    def _scoring(self, trace: Trace, held: Batch) -> Callable[[torch.Generator], float]:
        """Return what a record looks at: how far samples, always of the same noise, are from held-out rows."""
        some = tuple(part[:SCORED] for part in held)
        at = torch.arange(_scored(len(some[0])), device=self._device) % len(some[0])
        enough = tuple(part[at] for part in some)

        def score(noise: torch.Generator) -> float:
            fake = self._fakes(enough, noise)
            energy = energy_loss(with_condition(some), with_condition((fake, *enough[1:])))
            return trace.add(energy.item(), *self._seen(held, noise))

        return score

    def _seen(self, held: Batch, noise: torch.Generator) -> tuple[float, ...]:
        """Return further numbers, the rest of ``SEEN``, from held-out rows."""
        return ()

    def _remember(self, trace: Trace | None) -> None:
        """Put what was seen of held-out rows into the history."""
        if trace is not None and self.history is not None:
            for name, column in zip(self.SEEN, trace.table()[: len(self.history)].T):
                self.history[name] = column.tolist()

    def _values(self, x: Any, condition: Any) -> Tensor:
        """Return the critic's value at a user's rows, float64."""
        critic, batch = self._players[0], self._batch(x, condition)
        with self._quietly():
            parts = zip(*(part.split(CHUNK) for part in batch))
            return torch.cat([critic(*part) for part in parts]).double()

    @property
    def _players(self) -> tuple[Critic, nn.Module]:
        assert self.critic is not None
        assert self.generator is not None
        return self.critic, self.generator

    @property
    def _rates(self) -> tuple[Rate, Rate]:
        first, second = (cosine(rate) if self.decay else rate for rate in self.learning_rates)
        return first, second

    @property
    def _rules(self) -> tuple[Rule, Rule]:
        """What makes the optimisers of the critic and the generator."""
        more: dict[str, Any] = {}
        if self.optimiser == "adam":
            more = {"betas": self.BETAS, "fused": self._device.type in ("cpu", "cuda")}
        first, second = (partial(RULES[self.optimiser], lr=rate, **more) for rate in self.learning_rates)
        return first, second

    @property
    def _turns(self) -> int | Callable[[int], int]:
        """The steps of the critic, a number or a function of the generator's step."""
        return self.critic_steps

    @property
    def _more(self) -> dict[str, Any]:
        """Further arguments of the duel."""
        return {}


def _scored(held: int) -> int:
    """Return how many samples are held against so many rows."""
    return min(max(held, FEWEST), SCORED)


def _check_critic(network: nn.Module, shape: Sequence[int]) -> None:
    """Raise a ValueError unless a network gives (n, 1) or (n,)."""
    try:
        check_network(network, "critic", shape, (1,), "a number for each row")
    except ValueError:
        check_network(network, "critic", shape, (), "a number for each row")
