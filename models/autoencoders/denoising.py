"""The autoencoder that undoes noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.models.arguments import one_of
from probdl.models.autoencoders.base import Loss, squared_error
from probdl.models.autoencoders.corruption import NOISES, Corruption, check_noise
from probdl.models.autoencoders.deep import Autoencoder
from probdl.models.network_model import Training
from probdl.models.unsupervised import Batch

if TYPE_CHECKING:
    import pandas as pd


class DenoisingAutoencoder(Autoencoder):
    r"""Reconstruct rows from corrupted copies of them, :math:`\min_{f, g} E\,|u - g(f(\tilde u))|^2`.

    Rows u are in standardised units, and squares are summed over their entries; each step corrupts its rows afresh. A
    copy would carry the noise along, so a code may have as many entries as a row, and more. The minimum over all maps
    is the conditional mean :math:`E(u | \tilde u)`; linear maps without a bottleneck reach
    :math:`Σ(Σ + s^2 I)^{-1} \tilde u` under Gaussian noise, Σ the covariance of u. ``reconstruct`` adds no noise: it
    takes rows as they are, noisy ones to be cleaned.

    Without epochs and steps, at most 2000 steps are taken, or 20 epochs if these are more.

    Args:
        latent_dim: the dimension of the code.
        noise: "gaussian", u + s ε; "masking", each column or pixel is set to its mean (in images the mean of all) with
            probability s; "salt_and_pepper", each entry is set with probability s to its smallest or largest training
            value (in images to those of all) by a fair coin.
        level: s; for Gaussian noise in standard deviations (standardised units), else a probability.
        tied, encoder, decoder, hidden, standardise, learning_rate, decay, patience, dtype: as of ``Autoencoder``.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Vincent, Larochelle, Bengio and Manzagol (2008), Extracting and composing robust features with denoising
        autoencoders, ICML.

    Example:
        >>> import torch
        >>> t = torch.linspace(-2, 2, 400)
        >>> x = torch.stack([t, t, -t], 1)
        >>> model = DenoisingAutoencoder(1, level=0.5).fit(x, epochs=100, progress=False)
        >>> noisy = model.corrupt(x)
        >>> before, after = ((y - x).square().mean() for y in (noisy, model.reconstruct(noisy)))
        >>> bool(after < before / 2)
        True
    """

    SETTINGS = (*Autoencoder.SETTINGS, "noise", "level")
    OVERCOMPLETE = True

    def __init__(
        self,
        latent_dim: int = 32,
        *,
        noise: str = "gaussian",
        level: float = 0.5,
        tied: bool = False,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 2e-3,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, tied=tied, encoder=encoder, decoder=decoder, hidden=hidden, standardise=standardise,
            learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        self.noise = one_of(noise, NOISES, "noise")
        self.level = check_noise(noise, level)
        self.corruption: Corruption | None = None

    def corrupt(self, x: Any, *, seed: int = 0) -> Tensor | pd.DataFrame:
        """Return a corrupted copy of rows, in their units and form, as the fit saw such copies.

        Args:
            x: rows like those of ``fit``.
            seed: of the noise.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        units = self._rows("corrupt")[1]
        assert self.corruption is not None
        return self._as_given(units.outward(self.corruption(self._inward(x), self._noise(seed))), x)

    def _build(self, seed: int) -> None:
        super()._build(seed)
        entries = self._form.entries
        columns = None if entries is None else [self._form.columns.index(e) for e in entries]  # type: ignore[union-attr]
        self.corruption = Corruption(self.noise, self.level, self._form.shape, columns).to(self.dtype)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        assert self.units is not None
        assert self.corruption is not None
        self.corruption.watch(train[0], shared=self.units.scale.ndim == 0 and len(self._form.shape) > 1)
        super()._learn(train, held, how)

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        assert self.corruption is not None
        u = batch[0]
        return squared_error(u, self._back(self._code(self.corruption(u, noise), None), None)).mean()
