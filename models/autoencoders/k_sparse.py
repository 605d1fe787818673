"""The autoencoder whose codes have k entries that are not zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from probdl.models.arguments import count
from probdl.models.autoencoders.base import Loss
from probdl.models.autoencoders.codes import PlainAutoencoder
from probdl.models.autoencoders.tied import Transposed
from probdl.models.network_model import Training
from probdl.models.row_model import home
from probdl.models.unsupervised import Batch
from probdl.nn import MLP


class KSparseAutoencoder(PlainAutoencoder):
    r"""Linear codes of which only the k largest entries are kept.

    .. math:: \min_{W, b, c} E\,|u - W\,\mathrm{top}_k(W^T u + b) - c|^2

    Rows u are in standardised units, and squares are summed over their entries. The largest entries are those of
    largest value, not size. An entry that is never among the largest gets no gradient; so over the first half of the
    steps k falls from all entries to its value. With k = ``latent_dim`` the codes are those of a tied linear
    autoencoder.

    Without epochs and steps, at most 2000 steps are taken, or 20 epochs if these are more.

    Args:
        latent_dim: the number of entries of a code.
        k: how many of them are kept.
        alpha: in ``encode`` ⌈alpha·k⌉ entries are kept; the authors found up to 3 to serve classifiers better than 1.
            ``reconstruct`` and ``anomaly_score`` keep k, as the fit does.
        tied: whether the decoder is the transpose of the encoder.
        encoder: a network (n, ...) → (n, latent_dim). None: an affine map.
        decoder: a network (n, latent_dim) → (n, ...); not with ``tied``. None: an affine map.
        standardise, learning_rate, decay, patience, dtype: as of ``Autoencoder``.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Makhzani and Frey (2014), k-sparse autoencoders, ICLR.

    Example:
        >>> import torch
        >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> codes = KSparseAutoencoder(8, k=2).fit(x, epochs=20, progress=False).encode(x)
        >>> (codes != 0).sum(1).unique().tolist()
        [2]
    """

    SETTINGS = ("latent_dim", "standardise", "learning_rate", "decay", "patience", "k", "alpha", "tied")
    OVERCOMPLETE = True
    FLAT = True
    seen: Tensor
    ramp: Tensor

    def __init__(
        self,
        latent_dim: int = 100,
        k: int = 10,
        *,
        alpha: float = 1.0,
        tied: bool = True,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        standardise: str = "auto",
        learning_rate: float = 2e-3,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, {"encoder": encoder, "decoder": decoder}, hidden=None, standardise=standardise,
            learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        if count(k, "k") > self.latent_dim:
            raise ValueError(f"k must be at most latent_dim, {self.latent_dim}; got {k}.")
        if tied and decoder is not None:
            raise ValueError("decoder must be None with tied=True: it has the encoder's weights. Pass tied=False.")
        if not 1 <= alpha < float("inf"):
            raise ValueError(f"alpha must be a number of at least 1; got {alpha!r}.")
        self.k, self.alpha, self.tied = k, float(alpha), bool(tied)
        # Buffers, so that a fit that is resumed goes on with the k it had come to.
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("ramp", torch.zeros((), dtype=torch.long))

    def encode(self, x: Any, *, condition: Any = None) -> Tensor:
        """Return the code of each row with its ⌈alpha·k⌉ largest entries, (n, latent_dim); deterministic.

        Args:
            x: rows like those of ``fit``.
            condition: must be None.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        kept = min(self.latent_dim, math.ceil(self.alpha * self.k))
        with self._quietly():
            codes = [largest(super(KSparseAutoencoder, self)._code(u, c), kept) for u, c in self._chunks(x, condition)]
        return torch.cat(codes).to(home(x))

    def _chosen_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        return MLP(shape, self.latent_dim, hidden=())

    def _chosen_decoder(self, shape: tuple[int, ...]) -> nn.Module:
        if not self.tied:
            return MLP(self.latent_dim, shape, hidden=())
        assert self.encoder is not None
        return Transposed(self.encoder, shape)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        self.seen.zero_()
        self.ramp.fill_(how.steps_at_most(len(train[0]), self._most(train, how)) // 2)
        super()._learn(train, held, how)

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        if self.training:
            self.seen += 1
        return super()._loss(batch, noise)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        return largest(super()._code(u, c), self._kept if self.training else self.k)

    @property
    def _kept(self) -> int:
        """How many entries a training row keeps now."""
        share = min(1.0, int(self.seen) / max(1, int(self.ramp)))
        return round(self.latent_dim - share * (self.latent_dim - self.k))


def largest(z: Tensor, k: int) -> Tensor:
    """Return codes (n, d) with all but the k largest entries of each row set to zero.

    Example:
        >>> largest(torch.tensor([[1.0, -3.0, 2.0]]), 2)
        tensor([[1., 0., 2.]])
    """
    values, where = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter(1, where, values)
