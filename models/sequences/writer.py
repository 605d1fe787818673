"""What ``Seq2Seq`` and ``Captioner`` share: they read a row and write a sequence about it."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, one_of
from probdl.models.network_model import NetworkModel, Training
from probdl.models.networks import is_small_step
from probdl.models.pairs import is_pair, parts
from probdl.models.scores import Proportion, proportion
from probdl.models.sequences.decoder import Decoder, Given
from probdl.models.sequences.reader import CELLS, checked_dropout
from probdl.models.sequences.search import Written, beam_search, draw
from probdl.models.sequences.vocabulary import Vocabulary, padded
from probdl.nn import seeded
from probdl.processes import chosen_device

if TYPE_CHECKING:
    import pandas as pd

STEPS = 10_000
CHUNK = 512  # sequences that are written or scored at a time

Batch = tuple[Tensor, ...]


class Writer(NetworkModel):
    r"""A conditional distribution over sequences, :math:`p(y | x) = \prod_t p(y_t | y_{<t}, x)`, by a ``Decoder``.

    Args:
        hidden, cell, layers, dropout: of the decoder.
        rare, words: as of ``Vocabulary.of``.
        max_length: tokens of a written sequence, at most; None: as many as the longest of ``fit`` has.
        learning_rate, decay, patience, clip: of the descent.
        networks, dtype: as of ``NetworkModel``.
    """

    decoder: Decoder

    def __init__(
        self,
        networks: dict[str, nn.Module | None],
        dtype: torch.dtype,
        *,
        hidden: int,
        cell: str,
        layers: int,
        dropout: float,
        rare: int,
        words: bool,
        max_length: int | None,
        learning_rate: float,
        decay: bool,
        patience: int | None,
        clip: float | None,
    ) -> None:
        super().__init__(networks, dtype)
        self.hidden, self.layers, self.cell = (
            count(hidden, "hidden"),
            count(layers, "layers"),
            one_of(cell, [*CELLS], "cell"),
        )
        self.max_length = None if max_length is None else count(max_length, "max_length")
        self.patience = None if patience is None else count(patience, "patience")
        self.dropout, self.learning_rate, self.decay, self.clip = checked_dropout(dropout), learning_rate, decay, clip
        self.rare, self.words = count(rare, "rare", least=0), bool(words)
        self.vocabulary: Vocabulary | None = None
        self.most = 0

    # What a model adds: how it reads.

    @abstractmethod
    def _learn_form(self, x: Any, train: Tensor) -> None:
        """Find what is to be known of the things to read, such as their shape; ``train`` indexes training rows."""

    @abstractmethod
    def _rows(self, x: Any, name: str) -> Batch:
        """Return things to read as tensors with rows in front, or raise."""

    @abstractmethod
    def _new_reader(self) -> None:
        """Build the networks that read."""

    @abstractmethod
    def _read(self, rows: Batch) -> Given:
        """Return what the decoder is given for each row."""

    @property
    def _memory(self) -> int:
        """The size of what the decoder attends to, or 0."""
        return 0

    # What every model then can do.

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        validation: Any = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        progress: bool | None = None,
        checkpoint: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> Any:
        """Fit to pairs of what is read and what is written about it, anew each time.

        In training each token is given the true tokens before it (teacher forcing).

        Args:
            x: n things to read.
            y: n sequences: strings, which are read as characters, or lists of tokens.
            epochs, steps: how long at most; None: 10,000 steps.
            batch_size: pairs in a step; None: 64.
            validation: "auto" keeps a tenth back (nothing of fewer than 20 pairs), stops when its loss no longer
                falls, and returns to the best epoch; a fraction; a pair (x, y) of your own; or None.
            device: where to compute; "auto": a GPU if there is one, else the CPU.
            seed: of the initial weights, the pairs kept back, their order, and dropout.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. ``history`` has a row an epoch, its losses in nats a pair; ``message`` says how the
            fit ended. Ctrl-C stops it with a ``ConvergenceWarning`` and keeps what was learnt.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
            ConvergenceError: if the loss becomes NaN or infinite; the model has its last good state.
        """
        train, held = self._begin(x, y, validation, chosen_device(device, x), seed)
        arguments = {"seed": seed, "progress": progress, "checkpoint": checkpoint, "resume": resume}
        how = Training.of(len(train[0]), batch_size, 64, epochs=epochs, steps=steps, **arguments)
        one = is_small_step(train[0].device, how.size, self.hidden)
        self._train_in_batches(self._loss, train, held, how, one=one, most=STEPS)
        return self

    def predict(self, x: Any, *, beams: int = 1) -> list[Any]:
        """Return the most probable sequence that was found for each row: strings or lists of tokens, as in ``fit``.

        Args:
            x: things to read, like those of ``fit``.
            beams: how many beginnings the beam search keeps; 1 is the greedy search.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        found = (self._texts(w.tokens[:, 0], w.lengths[:, 0]) for w in self._searched(x, beams))
        return [text for texts in found for text in texts]

    def candidates(self, x: Any, *, beams: int = 5) -> pd.DataFrame:
        """Return the best sequences of a beam search for each row, with their log-likelihoods.

        Args:
            x: things to read, like those of ``fit``.
            beams: how many beginnings are kept, and sequences returned.

        Returns:
            One line a sequence, best first: "row", "rank" (from 1), "sequence" and "log_likelihood" in nats.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        import pandas as pd

        lines: list[dict[str, Any]] = []
        for written in self._searched(x, beams):
            for tokens, lengths, log_p in zip(*written):
                row = lines[-1]["row"] + 1 if lines else 0
                for rank, text in enumerate(self._texts(tokens, lengths)):
                    lines.append({"row": row, "rank": rank + 1, "sequence": text, "log_likelihood": log_p[rank].item()})
        table = pd.DataFrame(lines)
        return table[table["log_likelihood"] > -math.inf].reset_index(drop=True)

    def sample(self, x: Any, *, temperature: float = 1.0, seed: int = 0) -> list[Any]:
        """Draw a sequence for each row.

        Args:
            x: things to read, like those of ``fit``.
            temperature: τ > 0, of the probabilities :math:`p^{1/τ}` that each token is drawn from.
            seed: of the draws.

        Returns:
            Strings or lists of tokens; one that does not end within the maximal length is cut there.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be a positive number; got {temperature!r}.")
        rows = self._ready(x, "sample")
        texts, noise = [], self._noise(seed)
        with self._quietly():
            for part in some_at_a_time(rows, CHUNK):
                tokens, lengths, _ = draw(self.decoder, self._read(part), self.most, temperature, noise)
                texts += self._texts(tokens, lengths)
        return texts

    def log_likelihood(self, x: Any, y: Any) -> Estimate:
        """Return log p(y | x) of each pair, in nats: the sum over the tokens of y and its end; exact, given the model.

        Args:
            x: things to read, like those of ``fit``; only held-out pairs say how good the model is.
            y: as many sequences.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        self._check_fitted("log_likelihood")
        pairs = self._pairs(x, y, "x", "y")
        with self._quietly():
            value = torch.cat([self._log_prob(part).double() for part in some_at_a_time(pairs, CHUNK)]).cpu()
        return Estimate(value, torch.zeros_like(value), "closed form", n=len(value))

    def accuracy(self, x: Any, y: Any, *, beams: int = 1) -> Proportion:
        """Return the share of rows whose prediction is right in every token; its ``interval`` is Wilson's.

        Args:
            x, y: held-out pairs.
            beams: as in ``predict``.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        self._check_fitted("accuracy")
        *_, tokens, lengths = self._pairs(x, y, "x", "y")
        return proportion(
            torch.tensor([a == b for a, b in zip(self.predict(x, beams=beams), self._texts(tokens, lengths))])
        )

    # How it does so.

    def _begin(self, x: Any, y: Any, validation: Any, device: torch.device, seed: int) -> tuple[Batch, Batch | None]:
        """Check the data, build the model, and return the training pairs and the validation pairs, if any."""
        self.vocabulary = self._learnt_vocabulary(y, "y")
        tokens = self.vocabulary.indices(y, "y")
        kept = parts(len(tokens), validation, seed)
        self._learn_form(x, kept[0])
        self.most = self.max_length or max(map(len, tokens))
        self._assemble(seed)
        self.to(device)
        pairs = self._pairs(x, y, "x", "y")
        found = [tuple(t[part.to(device)] for t in pairs) for part in kept]
        if is_pair(validation):
            found.append(self._pairs(*validation, "validation[0]", "validation[1]"))
        return found[0], found[1] if len(found) > 1 else None

    def _learnt_vocabulary(self, sequences: Any, name: str) -> Vocabulary:
        return Vocabulary.of(sequences, name, self.rare, words=self.words)

    def _assemble(self, seed: int) -> None:
        """Build the networks anew."""
        assert self.vocabulary is not None
        with seeded(seed):
            self._new_reader()
            self.decoder = Decoder(
                len(self.vocabulary),
                self.hidden,
                cell=self.cell,
                layers=self.layers,
                memory=self._memory,
                dropout=self.dropout,
            )
        self.to(self.dtype)

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the mean of −log p(y | x) over pairs, in nats."""
        return -self._log_prob(batch).mean()

    def _log_prob(self, batch: Batch) -> Tensor:
        *rows, tokens, lengths = batch
        return self.decoder.log_prob(self._read(tuple(rows)), tokens[:, : int(lengths.max())], lengths)

    def _ready(self, x: Any, what: str, name: str = "x") -> Batch:
        """Return things to read as tensors on the model's device."""
        self._check_fitted(what)
        return tuple(t.to(self._device) for t in self._rows(x, name))

    def _pairs(self, x: Any, y: Any, *names: str) -> Batch:
        """Return things to read and what is written about them, as tensors on the model's device."""
        assert self.vocabulary is not None
        rows, sequences = self._rows(x, names[0]), self.vocabulary.indices(y, names[1])
        if len(rows[0]) != len(sequences):
            counts = f"{len(rows[0])} and {len(sequences)}"
            raise ValueError(f"{names[0]} and {names[1]} must have the same number of rows; got {counts}.")
        tokens, lengths = padded(sequences)
        if int(lengths.max()) > self.most:
            where, name = int(lengths.argmax()), names[1]
            raise ValueError(
                f"{name} must have at most {self.most} tokens a sequence (max_length, or the longest of fit); "
                f"{name}[{where}] has {int(lengths[where])}. Cut it, or make the model with a larger max_length."
            )
        return tuple(t.to(self._device) for t in (*rows, tokens, lengths))

    def _searched(self, x: Any, beams: int) -> Iterator[Written]:
        """Yield what a beam search finds, some rows at a time."""
        rows, beams = self._ready(x, "predict"), count(beams, "beams")
        with self._quietly():
            for part in some_at_a_time(rows, max(1, CHUNK // beams)):
                yield beam_search(self.decoder, self._read(part), beams, self.most)

    def _texts(self, tokens: Tensor, lengths: Tensor) -> list[Any]:
        """Return rows of tokens as sequences of the kind that ``fit`` saw."""
        assert self.vocabulary is not None
        return [self.vocabulary.sequence(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist())]

    def _found(self) -> dict[str, Any]:
        assert self.vocabulary is not None
        return {"vocabulary": self.vocabulary.to_json(), "most": self.most}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.vocabulary, self.most = Vocabulary.from_json(found["vocabulary"]), count(found["most"], "most")
        self._assemble(seed=0)


def some_at_a_time(rows: Batch, size: int) -> Iterator[Batch]:
    """Yield rows some at a time."""
    yield from zip(*(t.split(size) for t in rows))
