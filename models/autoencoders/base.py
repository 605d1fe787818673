"""What autoencoders share, with and without a distribution: an encoder, a decoder, and the way there and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl.models.arguments import count
from probdl.models.generative import Encoding
from probdl.models.network_model import Training
from probdl.models.networks import check_network, chosen_decoder, chosen_encoder, is_small
from probdl.models.row_model import home
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

EPOCHS = 20
Loss = Tensor | tuple[Tensor, dict[str, Tensor]]


class EncoderDecoder(Encoding):
    r"""A pair of networks, :math:`z = f(x)` and :math:`\hat x = g(z)`, that are learnt together.

    Args:
        latent_dim: the dimension of z.
        networks: "encoder" and "decoder" as they were passed, or None, and further ones.
        hidden, learning_rate, decay, patience, standardise, dtype: as of ``Autoencoder``.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = (
        "latent_dim", "hidden", "standardise", "learning_rate", "decay", "patience",
    )  # fmt: skip
    FLAT: ClassVar[bool] = False  # whether rows of any shape go through dense layers
    STEPS: ClassVar[int] = 2000  # at most, or so many as make EPOCHS, where fit is not told
    OVERCOMPLETE: ClassVar[bool] = False  # whether a code may have more entries than a row
    INSTEAD: ClassVar[str] = "A SparseAutoencoder or a KSparseAutoencoder can have more codes than entries."

    def __init__(
        self,
        latent_dim: int,
        networks: dict[str, nn.Module | None],
        *,
        hidden: Sequence[int] | None,
        standardise: str,
        learning_rate: float,
        decay: bool,
        patience: int | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(networks, dtype, standardise=standardise)
        self.latent_dim = count(latent_dim, "latent_dim")
        self.hidden = None if hidden is None else tuple(hidden)
        self.learning_rate, self.decay = learning_rate, decay
        self.patience = None if patience is None else count(patience, "patience")
        self.encoder: nn.Module | None = None
        self.decoder: nn.Module | None = None

    def anomaly_score(self, x: Any) -> Tensor:
        r"""Return how badly each row is reconstructed, :math:`|u - \hat u|^2`, (n,); larger is stranger; deterministic.

        The squares are of standardised units u, in which training rows have variance 1 (all entries together, or each
        column for itself), and are summed over a row; its own units are :math:`u c`, with c in ``units.scale``.

        Args:
            x: rows like those of ``fit``.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        self._rows("anomaly_score")
        with self._quietly():
            scores = [squared_error(u, self._back(self._code(u, c), c)) for u, c in self._chunks(x, None)]
        return torch.cat(scores).to(home(x))

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        super()._study(train, held)
        entries = math.prod(self._form.shape)
        if self.latent_dim > entries and not self.OVERCOMPLETE:
            raise ValueError(
                f"latent_dim must be at most the number of entries of a row, {entries}; got {self.latent_dim}. "
                f"It would copy its input. {self.INSTEAD}"
            )

    def _build(self, seed: int) -> None:
        encoder, decoder = (self._restarted(name) for name in ("encoder", "decoder"))
        shape = self._form.shape
        if encoder is not None:
            check_network(encoder, "encoder", shape, (self._outputs,), self._meaning)
        if decoder is not None:
            check_network(decoder, "decoder", (self.latent_dim,), shape, "the shape of a row")
        with seeded(seed):
            self.encoder = (encoder if encoder is not None else self._chosen_encoder(shape)).to(self.dtype)
            self.decoder = (decoder if decoder is not None else self._chosen_decoder(shape)).to(self.dtype)

    def _chosen_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        return chosen_encoder(shape, self._outputs, self.hidden)

    def _chosen_decoder(self, shape: tuple[int, ...]) -> nn.Module:
        return chosen_decoder(self.latent_dim, shape, self.hidden)

    @property
    def _outputs(self) -> int:
        """How many numbers the encoder returns for a row."""
        return self.latent_dim

    @property
    def _meaning(self) -> str:
        """What they stand for, in errors."""
        return "the code"

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        batch, most = train[0][: how.size], self._most(train, how)
        one = is_small(batch.reshape(len(batch), -1) if self.FLAT else batch)
        self._train_in_batches(self._loss, train, held, how, one=one, most=most)

    def _most(self, train: Batch, how: Training) -> int:
        """Return the number of steps at most where ``fit`` names neither epochs nor steps."""
        return max(self.STEPS, EPOCHS * math.ceil(len(train[0]) / how.size))

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        """Return the loss of a batch, a mean over its rows, and its terms if it has several."""
        raise NotImplementedError

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        assert self.encoder is not None
        return self.encoder(u)

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        assert self.decoder is not None
        return self.decoder(z)


def squared_error(u: Tensor, v: Tensor) -> Tensor:
    """Return the squared Euclidean distance of each row of one batch to that of another, (n,)."""
    return (u - v).square().reshape(len(u), -1).sum(1)
