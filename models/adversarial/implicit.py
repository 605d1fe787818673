"""What models without a density do alike: a generator, its samples, and how far they are from held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from probdl.divergences import Estimate
from probdl.divergences.dispatch import noted
from probdl.models.adversarial.generator import Generator
from probdl.models.arguments import count
from probdl.models.generative import CHUNK, GenerativeModel
from probdl.models.networks import check_network, chosen_decoder, is_image
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

HIDDEN = (128, 128, 128)


class ImplicitModel(GenerativeModel):
    r"""A model of rows :math:`x = G(z)`, z standard normal: easy to draw from, and without a density.

    Args:
        latent_dim: the dimension of z.
        networks, dtype, standardise: as of ``UnsupervisedModel``.
        hidden: of the chosen networks.
    """

    CONDITIONAL = True
    INSTEAD: ClassVar[str] = "evaluate(model, x)"

    def __init__(
        self,
        latent_dim: int,
        networks: dict[str, nn.Module | None],
        dtype: torch.dtype,
        *,
        hidden: Sequence[int] | None,
        standardise: str,
    ) -> None:
        super().__init__(networks, dtype, standardise=standardise)
        self.latent_dim = count(latent_dim, "latent_dim")
        self.hidden = None if hidden is None else tuple(hidden)
        self.generator: Generator | None = None

    def log_likelihood(self, x: Any, draws: int = 100) -> NoReturn:
        """Raise a NotImplementedError: the model has no density."""
        raise NotImplementedError(
            f"A {type(self).__name__} has no log_likelihood: it makes rows of noise, and the density of what it makes "
            f"is not known (nor is there one, if latent_dim is below the data's dimension). How far its samples are "
            f"from held-out rows say {self.INSTEAD}; a VAE has a likelihood."
        )

    def _build(self, seed: int) -> None:
        shape, inputs = self._form.shape, self.latent_dim + self._condition_size
        network = self._restarted("generator")
        if network is not None:
            check_network(network, "generator", (inputs,), shape, "the shape of a row")
        with seeded(seed):
            network = network if network is not None else chosen_decoder(inputs, shape, self._widths)
        self.generator = Generator(network, self._form.blocks).to(self.dtype)

    @property
    def _widths(self) -> Sequence[int] | None:
        """The sizes of the chosen networks: ``hidden``, or three layers for anything but images."""
        return HIDDEN if self.hidden is None and not is_image(self._form.shape) else self.hidden

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        assert self.generator is not None
        return self.generator(self._prior(n, noise, self.latent_dim), c, None if mean else noise)

    def _fakes(self, batch: Batch, noise: torch.Generator) -> Tensor:
        """Return as many samples as a batch has rows, given its conditions."""
        return self._draws(len(batch[0]), batch[1] if len(batch) > 1 else None, False, noise)

    def _between(
        self, estimate: Callable[[Tensor, Tensor], Estimate], x: Any, draws: int, condition: Any, seed: int
    ) -> Estimate:
        """Return what a divergence says of rows, and as fresh samples, both in the data's units and flat."""
        units, batch, noise = self._rows("divergence")[1], self._batch(x, condition), self._noise(seed)
        rows = torch.arange(count(draws, "draws"), device=self._device) % len(batch[0])
        with self._quietly():
            given = [tuple(part[some] for part in batch) for some in rows.split(CHUNK)]
            made = torch.cat([self._fakes(part, noise) for part in given])
        real, fake = (
            with_condition((units.outward(u), *(part[at].double() for part in batch[1:])))
            for u, at in ((batch[0], slice(None)), (made, rows))
        )
        return noted(estimate(real, fake), f"{draws} fresh samples")


def with_condition(batch: Batch) -> Tensor:
    """Return rows flat, with their condition beside them if they have one: (n, d + k)."""
    return torch.cat([part.reshape(len(part), -1) for part in batch], 1)
