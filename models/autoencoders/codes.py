"""What has a code for each row and a way back, and no distribution."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from probdl.models.autoencoders.base import EncoderDecoder, Loss, squared_error
from probdl.models.cards import GENERATOR, NONE, Card
from probdl.models.unsupervised import Batch


class PlainAutoencoder(EncoderDecoder):
    """An autoencoder that minimises the squared error of reconstruction; it has no distribution to sample from.

    Args:
        as of ``EncoderDecoder``.
    """

    CARD = Card(
        "AE", "transformation", decoder=GENERATOR, prior=NONE, encoder="z = f(x; θ_f)",
        objective="|x − g(f(x; θ_f); θ_g)|²",
    )  # fmt: skip

    def sample(self, *_: Any, **__: Any) -> NoReturn:
        """Raise a NotImplementedError: there is no distribution of codes to sample from."""
        raise NotImplementedError(
            f"This {type(self).__name__} has no sample: it says nothing of how codes are distributed, so there is "
            "nothing to draw them from. Use a VAE, WAEMMD or WAEGAN, whose codes are held to a normal."
        )

    def log_likelihood(self, *_: Any, **__: Any) -> NoReturn:
        """Raise a NotImplementedError: there is no distribution of rows."""
        raise NotImplementedError(
            f"This {type(self).__name__} has no log_likelihood: it is no distribution of x. A VAE is one; how well "
            "rows are reconstructed says anomaly_score(x)."
        )

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        return squared_error(batch[0], self._back(self._code(batch[0], None), None)).mean()
