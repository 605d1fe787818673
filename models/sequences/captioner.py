"""Image to sequence: look once, then write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl.models.arguments import one_of
from probdl.models.form import Form
from probdl.models.networks import check_images, check_network
from probdl.models.sequences.decoder import Given
from probdl.models.sequences.writer import Batch, Writer
from probdl.models.units import WAYS, Units
from probdl.nn import CNN
from probdl.nn.mlp import sizes


class Captioner(Writer):
    r"""One to many: a convolutional network looks at an image, a recurrent decoder writes about it.

    .. math:: p(y | x) = \prod_{t=1}^{T+1} p(y_t | y_{<t}, h_0(x))

    with :math:`y_{T+1}` the end and :math:`h_0` the decoder's first state, an affine map of the encoder's features.

    Args:
        hidden: the size of the states and of the embeddings of tokens, and the number of the encoder's features.
        cell: "rnn", "lstm" or "gru".
        layers: of the decoder.
        encoder: a network (n, ...) → (n, hidden); None: a ``CNN`` of images (c, h, w).
        channels: of the chosen CNN's convolutions.
        standardise: "shared" ("auto"), one shift and scale for all pixels; "column", one for each; "none".
        rare: tokens that occur in ``fit`` fewer times than this, and those that come later, are one unknown token;
            0: an unknown token is an error.
        words: whether strings are split at white space into words, and not read as characters.
        max_length: tokens of a caption, at most; None: as many as the longest of ``fit`` has.
        dropout: the probability with which a number is dropped in training, of embeddings and states.
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine over the steps or epochs that ``fit`` is given.
        patience: epochs without a better validation loss until the fit stops; None: as many as make 1000 steps, at
            least 5.
        clip: the largest norm of the gradient, or None.
        dtype: of the networks.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Vinyals, Toshev, Bengio and Erhan (2015), Show and tell: a neural image caption generator, CVPR.

    Example:
        >>> import torch
        >>> images = torch.zeros(60, 1, 8, 8)
        >>> images[::2, :, :4] = 1.0
        >>> model = Captioner(32, channels=(8,)).fit(images, ["top", "none"] * 30, epochs=80, validation=None,
        ...     progress=False)
        >>> model.predict(images[:3])
        ['top', 'none', 'top']
    """

    SETTINGS = (
        "hidden",
        "cell",
        "layers",
        "channels",
        "standardise",
        "rare",
        "words",
        "max_length",
        "dropout",
        "learning_rate",
        "decay",
        "patience",
        "clip",
    )

    def __init__(
        self,
        hidden: int = 128,
        *,
        cell: str = "gru",
        layers: int = 1,
        encoder: nn.Module | None = None,
        channels: Sequence[int] = (32, 64),
        standardise: str = "auto",
        rare: int = 0,
        words: bool = False,
        max_length: int | None = None,
        dropout: float = 0.0,
        learning_rate: float = 1e-3,
        decay: bool = False,
        patience: int | None = None,
        clip: float | None = 5.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            {"encoder": encoder},
            dtype,
            hidden=hidden,
            cell=cell,
            layers=layers,
            dropout=dropout,
            rare=rare,
            words=words,
            max_length=max_length,
            learning_rate=learning_rate,
            decay=decay,
            patience=patience,
            clip=clip,
        )
        self.channels, self.standardise = sizes(tuple(channels), "channels"), one_of(standardise, WAYS, "standardise")
        self.form: Form | None = None
        self.units: Units | None = None

    def _learn_form(self, x: Any, train: Tensor) -> None:
        self.form = Form.of(x)
        rows = self.form.check(x)
        self.units = Units.of(rows[train.to(rows.device)] if len(train) < len(rows) else rows, self.standardise)

    def _rows(self, x: Any, name: str) -> Batch:
        form, units = self._looks()
        return (units.inward(form.check(x, name)).to(self.dtype),)

    def _new_reader(self) -> None:
        form, encoder = self._looks()[0], self._restarted("encoder")
        if encoder is not None:
            check_network(encoder, "encoder", form.shape, (self.hidden,), "the features of an image")
        else:
            check_images(form.shape, "an encoder=")
        self.encoder = encoder or CNN(form.shape, self.hidden, channels=self.channels, hidden=())
        self.starts = nn.Linear(self.hidden, self.layers * self.hidden * (2 if self.cell == "lstm" else 1))

    def _read(self, rows: Batch) -> Given:
        start = self.starts(self.encoder(rows[0]).relu()).tanh()
        parts = start.reshape(len(start), -1, self.layers, self.hidden).permute(1, 2, 0, 3).contiguous()
        return Given((parts[0], parts[1]) if self.cell == "lstm" else parts[0])

    def _looks(self) -> tuple[Form, Units]:
        assert self.form is not None and self.units is not None  # noqa: PT018
        return self.form, self.units

    def _found(self) -> dict[str, Any]:
        form, units = self._looks()
        return {**super()._found(), "form": form.to_json(), "each": units.scale.ndim > 0}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.form = Form.from_json(found["form"])
        self.units = Units.plain(self.form.shape, found["each"])
        super()._rebuild(found)
