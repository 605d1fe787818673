"""What ``SequenceClassifier`` and ``SequenceTagger`` share: sequences, and labels of them or of their steps."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from probdl.models.arguments import count, one_of
from probdl.models.labels import Labels
from probdl.models.network_model import NetworkModel, Training
from probdl.models.networks import is_image, is_small_step
from probdl.models.pairs import is_pair, parts
from probdl.models.sequences.frames import Frames, are_tokens, as_list, padded_frames
from probdl.models.sequences.reader import CELLS, EachFrame, Reader, checked_dropout
from probdl.models.sequences.streams import OTHER
from probdl.models.sequences.vocabulary import Vocabulary, padded
from probdl.models.units import WAYS, Units
from probdl.nn import CNN, seeded
from probdl.nn.mlp import sizes
from probdl.processes import chosen_device

STEPS = 5_000
CHUNK = 256  # sequences that are scored at a time

Batch = tuple[Tensor, ...]
Model = TypeVar("Model", bound="LabelledSequences")


class LabelledSequences(NetworkModel):
    """Sequences of tokens or frames through a ``Reader``, and logits of labels from its states.

    Its subclasses explain the arguments.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = (
        "hidden",
        "cell",
        "layers",
        "bidirectional",
        "embedding",
        "channels",
        "words",
        "rare",
        "standardise",
        "max_length",
        "dropout",
        "learning_rate",
        "decay",
        "patience",
        "clip",
    )

    def __init__(
        self,
        hidden: int = 64,
        *,
        cell: str = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        embedding: int | None = None,
        channels: Sequence[int] = (16, 32),
        words: bool = False,
        rare: int = 0,
        standardise: str = "auto",
        max_length: int | None = None,
        dropout: float = 0.0,
        learning_rate: float = 3e-3,
        decay: bool = False,
        patience: int | None = None,
        clip: float | None = 5.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({}, dtype)
        self.hidden, self.layers = count(hidden, "hidden"), count(layers, "layers")
        self.embedding, self.max_length, self.patience = (
            None if value is None else count(value, name)
            for value, name in ((embedding, "embedding"), (max_length, "max_length"), (patience, "patience"))
        )
        self.cell, self.words = one_of(cell, [*CELLS], "cell"), bool(words)
        self.channels, self.standardise = sizes(tuple(channels), "channels"), one_of(standardise, WAYS, "standardise")
        self.bidirectional, self.rare, self.dropout = (
            bool(bidirectional),
            count(rare, "rare", least=0),
            checked_dropout(dropout),
        )
        self.learning_rate, self.decay, self.clip = learning_rate, decay, clip
        self.vocabulary: Vocabulary | None = None
        self.frames: Frames | None = None
        self.units: Units | None = None
        self.labels: Labels | None = None

    # What a model adds.

    @abstractmethod
    def _learn_labels(self, y: Any) -> Labels:
        """Return the classes of labels."""

    @abstractmethod
    def _targets(self, y: Any, lengths: Tensor, name: str) -> Tensor:
        """Return the class indices of labels, with sequences in front, and ``OTHER`` where there is none."""

    @abstractmethod
    def _logits(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (n, k) of sequences, or (n, T, k) of their steps."""

    # What every model then can do.

    def fit(
        self: Model,
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
    ) -> Model:
        """Fit to sequences and their labels, anew each time.

        Args:
            x: n sequences, each of a length of its own: strings, lists of tokens, or arrays of frames (T, d) or images
                (T, c, h, w).
            y: their labels.
            epochs, steps: how long at most; None: 5,000 steps.
            batch_size: sequences in a step; None: 64.
            validation: "auto" keeps a tenth back (nothing of fewer than 20 sequences), stops when its loss no longer
                falls, and returns to the best epoch; a fraction; a pair (x, y) of your own; or None.
            device: where to compute; "auto": a GPU if there is one, else the CPU.
            seed: of the initial weights, the sequences kept back, their order, and dropout.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. ``history`` has a row an epoch, its losses in nats a label; ``message`` says how
            the fit ended. Ctrl-C stops it with a ``ConvergenceWarning`` and keeps what was learnt.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
            ConvergenceError: if the loss becomes NaN or infinite; the model has its last good state.
        """
        train, held = self._begin(x, y, validation, chosen_device(device, None), seed)
        arguments = {"seed": seed, "progress": progress, "checkpoint": checkpoint, "resume": resume}
        how = Training.of(len(train[0]), batch_size, 64, epochs=epochs, steps=steps, **arguments)
        one = is_small_step(train[0].device, how.size, self.hidden)
        self._train_in_batches(self._loss, train, held, how, one=one, most=STEPS)
        return self

    @property
    def classes(self) -> tuple[bool | int | str, ...]:
        """The classes, in the order of the columns of ``predict_proba``."""
        return self._labels("classes").classes

    # How it does so.

    def _begin(self, x: Any, y: Any, validation: Any, device: torch.device, seed: int) -> tuple[Batch, Batch | None]:
        """Check the data, build the model, and return the training rows and the validation rows, if any."""
        before = self.vocabulary, self.frames, self.units, self.labels
        try:
            found = self._checked(x, y, validation, seed)
        except Exception:  # a model that was fitted before stays as it is
            self.vocabulary, self.frames, self.units, self.labels = before
            raise
        self._assemble(seed)
        self.to(device)
        train, *held = [tuple(t.to(device) for t in _weighted(part)) for part in found]
        return train, held[0] if held else None

    def _checked(self, x: Any, y: Any, validation: Any, seed: int) -> list[Batch]:
        """Learn what there is to know of the data, and return it as tensors: training rows, perhaps validation rows."""
        which = parts(len(as_list(x)), validation, seed)
        self._learn_form(x, which[0])
        self.labels = self._learn_labels(y)
        rows = self._pairs(x, y, ("x", "y"))
        found = [tuple(t[part] for t in rows) for part in which]
        if is_pair(validation):
            found.append(self._pairs(validation[0], validation[1], ("validation[0]", "validation[1]")))
        return found

    def _learn_form(self, x: Any, train: Tensor) -> None:
        """Find what the sequences are made of: tokens, or frames and their units."""
        self.vocabulary = self.frames = self.units = None
        if are_tokens(x):
            self.vocabulary = Vocabulary.of(x, "x", self.rare, words=self.words)
        else:
            self.frames = Frames.of(x)
            sequences = self.frames.check(x)
            self.units = Units.of(torch.cat([sequences[i] for i in train.tolist()]), self.standardise)

    def _rows(self, x: Any, name: str = "x") -> Batch:
        """Return sequences, padded, and their lengths, on the CPU."""
        if are_tokens(x, name) != (self.vocabulary is not None):
            kinds = ("sequences of tokens", "arrays of frames")
            want, got = kinds if self.vocabulary is not None else kinds[::-1]
            raise TypeError(f"{name} must hold {want}, as in fit; got {got}.")
        rows, lengths = self._read(x, name)
        self._check_lengths(lengths, name)
        return rows, lengths

    def _read(self, x: Any, name: str) -> tuple[Tensor, Tensor]:
        if self.vocabulary is not None:
            return padded(self.vocabulary.indices(x, name))
        assert self.frames is not None and self.units is not None  # noqa: PT018
        shift, scale = self.units.shift.cpu(), self.units.scale.cpu()
        return padded_frames([((s - shift) / scale).to(self.dtype) for s in self.frames.check(x, name)])

    def _check_lengths(self, lengths: Tensor, name: str) -> None:
        if self.max_length is not None and int(lengths.max()) > self.max_length:
            long = (lengths > self.max_length).nonzero().flatten().tolist()
            raise ValueError(
                f"{name} must have at most max_length={self.max_length} steps a sequence; {len(long)} have more, first "
                f"{name}[{long[0]}] with {int(lengths[long[0]])}. Cut them, or make the model with a larger max_length."
            )

    def _pairs(self, x: Any, y: Any, names: tuple[str, str]) -> Batch:
        """Return padded sequences, their lengths, and the indices of their labels."""
        rows, lengths = self._rows(x, names[0])
        return rows, lengths, self._targets(y, lengths, names[1])

    def _assemble(self, seed: int) -> None:
        """Build the networks anew."""
        labels = self._labels("fit")
        with seeded(seed):
            steps, size = self._steps()
            self.reader = Reader(
                steps,
                size,
                self.hidden,
                cell=self.cell,
                layers=self.layers,
                bidirectional=self.bidirectional,
                dropout=self.dropout,
            )
            self.out = nn.Linear(self.reader.outputs, len(labels))
        self.reader.to(self.dtype)
        self.out.to(self.dtype)

    def _steps(self) -> tuple[nn.Module, int]:
        """Return what makes a vector of each step, and its size."""
        if self.vocabulary is not None:
            size = min(64, len(self.vocabulary)) if self.embedding is None else self.embedding
            return nn.Embedding(len(self.vocabulary), size), size
        assert self.frames is not None
        shape = self.frames.shape
        if len(shape) == 1:
            return nn.Identity(), shape[0]
        if not is_image(shape):
            raise ValueError(
                f"x must hold images (T, c, h, w) with h and w of at least 4; got frames of shape {shape}."
            )
        size = self.hidden if self.embedding is None else self.embedding
        return EachFrame(CNN(shape, size, channels=self.channels, hidden=())), size

    def _loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of −log p(label), in nats a label, and the accuracy."""
        rows, lengths, targets, weight = batch
        weight = weight.to(self.dtype)
        longest = int(lengths.max())
        logits = self._logits(rows[:, :longest], lengths)
        targets = targets if targets.ndim == 1 else targets[:, :longest]
        nats = cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=OTHER, reduction="none")
        right = (logits.argmax(-1) == targets).reshape(len(rows), -1).sum(1) * weight
        return (nats.reshape(len(rows), -1).sum(1) * weight).mean(), {"accuracy": right.mean()}

    def _log_p(self, rows: Tensor, lengths: Tensor) -> Iterator[Tensor]:
        """Yield log probabilities of some sequences at a time, padded to the longest of them, in float64."""
        with self._quietly():
            for some, own in zip(rows.split(CHUNK), lengths.split(CHUNK)):
                near = some[:, : int(own.max())].to(self._device)
                yield self._logits(near, own).double().log_softmax(-1).cpu()

    def _labels(self, what: str) -> Labels:
        if self.labels is None:
            raise ValueError(f"This {type(self).__name__} is not fitted yet: call fit(x, y) before {what}.")
        return self.labels

    def _found(self) -> dict[str, Any]:
        return {
            "vocabulary": None if self.vocabulary is None else self.vocabulary.to_json(),
            "frames": None if self.frames is None else list(self.frames.shape),
            "each": self.units is not None and self.units.scale.ndim > 0,
            "classes": self._labels("save").to_json(),
        }

    def _rebuild(self, found: dict[str, Any]) -> None:
        tokens, shape = found["vocabulary"], found["frames"]
        self.vocabulary = None if tokens is None else Vocabulary.from_json(tokens)
        self.frames = None if shape is None else Frames(tuple(shape))
        self.units = None if shape is None else Units.plain(tuple(shape), found["each"])
        self.labels = Labels.from_json(found["classes"])
        self._assemble(seed=0)


def _weighted(rows: Batch) -> Batch:
    """Append what makes a mean over rows one over labels: one over the mean number of labels a row."""
    labels = (rows[2] != OTHER).reshape(len(rows[0]), -1).sum(1).double().mean()
    return (*rows, (1 / labels).expand(len(rows[0])).contiguous())
