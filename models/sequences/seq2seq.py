"""Sequence to sequence: read all of one, then write another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from probdl.models.sequences.decoder import Given
from probdl.models.sequences.reader import Reader
from probdl.models.sequences.search import beam_search
from probdl.models.sequences.vocabulary import Vocabulary, padded
from probdl.models.sequences.writer import Batch, Writer
from probdl.nn.recurrent import State


class Seq2Seq(Writer):
    r"""Many to many with lag, as in translation: an encoder reads a sequence, a decoder writes another.

    .. math:: p(y | x) = \prod_{t=1}^{T+1} p(y_t | y_{<t}, x)

    with :math:`y_{T+1}` the end. The encoder's last state is what the decoder starts from; with ``attention`` it
    also looks back at the encoder's state at each token, by Luong's general score.

    Args:
        hidden: the size of the states and of the embeddings of tokens.
        cell: "rnn", "lstm" or "gru".
        layers: of the encoder and of the decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: whether the decoder looks back.
        rare: tokens that occur in ``fit`` fewer times than this, and those that come later, are one unknown token;
            0: an unknown token is an error.
        words: whether strings are split at white space into words, and not read as characters.
        max_length: tokens of a written sequence, at most; None: as many as the longest target of ``fit`` has.
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
        Sutskever, Vinyals and Le (2014), Sequence to sequence learning with neural networks, NeurIPS.
        Luong, Pham and Manning (2015), Effective approaches to attention-based neural machine translation, EMNLP.

    Example:
        >>> words = [f"{a}{b}{c}" for a in "abc" for b in "abc" for c in "abc"]
        >>> model = Seq2Seq(32, learning_rate=1e-2).fit(words, [w[::-1] for w in words], epochs=60, validation=None,
        ...     progress=False)
        >>> model.predict(["abc", "cab"])
        ['cba', 'bac']
    """

    SETTINGS = (
        "hidden",
        "cell",
        "layers",
        "bidirectional",
        "attention",
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
        bidirectional: bool = False,
        attention: bool = True,
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
            {},
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
        self.bidirectional, self.attention = bool(bidirectional), bool(attention)
        self.source: Vocabulary | None = None

    def alignment(self, source: Any, target: Any = None) -> Tensor:
        """Return where the decoder looks in one source while it writes one target.

        Args:
            source: a sequence.
            target: what is written; None: the greedy prediction.

        Returns:
            (T + 1, S), a row for each token of the target and one for its end; rows sum to one. ``viz.alignment``
            draws it.

        Raises:
            ValueError, TypeError: before ``fit``, without attention, or for sequences that cannot be used.
        """
        if not self.attention:
            raise ValueError("alignment needs attention; this model was made with attention=False.")
        rows = self._ready([source], "alignment", "source")
        with self._quietly():
            given = self._read(rows)
            if target is None:
                tokens, lengths, _ = (t[:, 0] for t in beam_search(self.decoder, given, 1, self.most))
            else:
                *_, tokens, lengths = self._pairs([source], [target], "source", "target")
            before = torch.nn.functional.pad(tokens[:, : int(lengths)], (1, 0), value=self.decoder.end)
            weights = self.decoder(given, before)[2]
        assert weights is not None
        return weights[0].to("cpu", torch.float64)

    @property
    def _memory(self) -> int:
        return self.hidden * (1 + self.bidirectional) if self.attention else 0

    def _learn_form(self, x: Any, train: Tensor) -> None:
        self.source = self._learnt_vocabulary(x, "x")

    def _rows(self, x: Any, name: str) -> Batch:
        assert self.source is not None
        return padded(self.source.indices(x, name))

    def _new_reader(self) -> None:
        assert self.source is not None
        embedding = nn.Embedding(len(self.source), self.hidden)
        self.encoder = Reader(
            embedding,
            self.hidden,
            self.hidden,
            cell=self.cell,
            layers=self.layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )
        # From both directions' last states to the decoder's first, for h and for an LSTM's c.
        parts = (2 if self.cell == "lstm" else 1) if self.bidirectional else 0
        self.bridges = nn.ModuleList(nn.Linear(2 * self.hidden, self.hidden) for _ in range(parts))

    def _read(self, rows: Batch) -> Given:
        tokens, lengths = rows[0][:, : int(rows[1].max())], rows[1]
        seen, state = self.encoder(tokens, lengths)
        if not self.attention:
            return Given(self._bridged(state))
        own = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return Given(self._bridged(state), seen, own)

    def _bridged(self, state: State) -> State:
        """Return the decoder's first state from the encoder's last."""
        if not self.bidirectional:
            return state
        both = [torch.cat([h[0::2], h[1::2]], -1) for h in (state if isinstance(state, tuple) else (state,))]
        found = tuple(bridge(h).tanh() for bridge, h in zip(self.bridges, both))
        return found if isinstance(state, tuple) else found[0]

    def _found(self) -> dict[str, Any]:
        assert self.source is not None
        return {**super()._found(), "source": self.source.to_json()}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.source = Vocabulary.from_json(found["source"])
        super()._rebuild(found)
