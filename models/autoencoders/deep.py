"""The autoencoder of any depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from probdl.models.autoencoders.codes import PlainAutoencoder
from probdl.models.autoencoders.tied import Transposed


class Autoencoder(PlainAutoencoder):
    r"""Codes from which rows can be reconstructed, :math:`\min_{f, g} E\,|u - g(f(u))|^2`.

    Rows u are in standardised units, and squares are summed over their entries. A code has fewer entries than a row:
    what the data do not share is lost. Nothing is said of how codes are distributed, so there is no ``sample``.

    Without epochs and steps, at most 2000 steps are taken, or 20 epochs if these are more.

    Args:
        latent_dim: the dimension of the code z = f(u).
        tied: whether the decoder has the encoder's weights, transposed, and only its biases are its own.
        encoder: a network f, (n, ...) → (n, latent_dim). None: chosen by the shape of a row, a CNN for images
            (c, h, w), an MLP for anything else.
        decoder: a network g, (n, latent_dim) → (n, ...); not with ``tied``.
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
        Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural networks, Science 313.

    Example:
        A curve in the plane has one dimension.

        >>> import torch
        >>> t = torch.linspace(-2, 2, 400, dtype=torch.float64)
        >>> x = torch.stack([t, t**2], 1)
        >>> model = Autoencoder(1).fit(x, epochs=100, progress=False)
        >>> bool((model.reconstruct(x) - x).square().sum(1).mean() < 0.05 * x.var(0).sum())
        True
    """

    SETTINGS = (*PlainAutoencoder.SETTINGS, "tied")

    def __init__(
        self,
        latent_dim: int = 2,
        *,
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
        if tied and decoder is not None:
            raise ValueError("decoder must be None with tied=True: it has the encoder's weights. Pass tied=False.")
        super().__init__(
            latent_dim, {"encoder": encoder, "decoder": decoder}, hidden=hidden, standardise=standardise,
            learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        self.tied = bool(tied)

    def _chosen_decoder(self, shape: tuple[int, ...]) -> nn.Module:
        if not self.tied:
            return super()._chosen_decoder(shape)
        assert self.encoder is not None
        return Transposed(self.encoder, shape)
