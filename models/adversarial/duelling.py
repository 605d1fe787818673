"""What models do alike whose generator duels with a critic."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl.loops import cosine
from probdl.models.adversarial.critic import Critic
from probdl.models.adversarial.implicit import ImplicitModel
from probdl.models.arguments import count, one_of
from probdl.models.generative import CHUNK
from probdl.models.network_model import Training
from probdl.models.networks import check_network, chosen_encoder, is_small, joined_shape
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

Loss = Callable[[Batch, torch.Generator], "tuple[Tensor, dict[str, Tensor]]"]
Rule = Callable[..., torch.optim.Optimizer]
RULES: dict[str, Rule] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "sgd": torch.optim.SGD,
}


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
        self.critic_steps, self.optimiser = count(critic_steps, "critic_steps"), one_of(optimiser, [*RULES], "optimiser")
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
        rates = [cosine(rate) if self.decay else rate for rate in self.learning_rates]
        rules = [partial(RULES[self.optimiser], lr=rate, **self._betas) for rate in self.learning_rates]
        self._duel_in_batches(
            critic,
            generator,
            self._critic_loss,
            self._generator_loss,
            train,
            how,
            one=is_small(train[0][: how.size]),
            most=self.STEPS,
            critic_steps=self._turns,
            learning_rates=(rates[0], rates[1]),
            optimisers=(rules[0], rules[1]),
            ema=self.ema,
            score=self._scoring(held),
            **self._more,
        )

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
    def _turns(self) -> int | Callable[[int], int]:
        """The steps of the critic, a number or a function of the generator's step."""
        return self.critic_steps

    @property
    def _betas(self) -> dict[str, Any]:
        return {"betas": self.BETAS} if self.optimiser == "adam" else {}

    @property
    def _more(self) -> dict[str, Any]:
        """Further arguments of the duel."""
        return {}


def pair(values: Sequence[float]) -> tuple[float, float]:
    """Return two learning rates, or raise a ValueError."""
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise ValueError(f"learning_rates must be two numbers, the critic's and the generator's; got {values!r}.")
    return values[0], values[1]


def not_negative(value: float, name: str) -> float:
    """Return a number of at least 0, or raise a ValueError that names the argument."""
    return 0.0 if value == 0 else positive(value, name)


def positive(value: float, name: str) -> float:
    """Return a positive number, or raise a ValueError that names the argument."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive; got {value!r}.")
    return float(value)


def _check_critic(network: nn.Module, shape: Sequence[int]) -> None:
    """Raise a ValueError unless a network gives (n, 1) or (n,)."""
    try:
        check_network(network, "critic", shape, (1,), "a number for each row")
    except ValueError:
        check_network(network, "critic", shape, (), "a number for each row")
