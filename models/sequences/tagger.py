"""Many to many without lag: a label for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.labels import Label, Labels
from probdl.models.scores import proportion
from probdl.models.sequences.blocks import block_mean
from probdl.models.sequences.frames import as_list
from probdl.models.sequences.labelled import LabelledSequences
from probdl.models.sequences.streams import OTHER


class SequenceTagger(LabelledSequences):
    r"""Many to many without lag: each step of a sequence gets the probabilities of its label.

    .. math:: p(y_t = c | x) = \mathrm{softmax}_c(b + V h_t)

    With ``bidirectional`` h has the states of both directions at t, and so the whole sequence in view; without, only
    the past, :math:`x_1, …, x_t`. Given x, labels count as independent: the probability of a sequence of
    labels is the product, and ``predict`` gives the most probable label of each step, not the most probable path.

    Args:
        hidden, cell, layers, embedding, channels, words, rare, standardise: as of ``SequenceClassifier``.
        max_length, dropout, learning_rate, decay, patience, clip, dtype: as of ``SequenceClassifier``.
        bidirectional: whether it reads in both directions.
        missing: a label that stands for "not known"; steps with it have no share in the loss or in scores. None: every
            step needs a label.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Graves and Schmidhuber (2005), Framewise phoneme classification with bidirectional LSTM, Neural Networks 18.

    Example:
        >>> x = ["abca", "bcab", "cabcab", "ab"] * 20
        >>> y = [s.upper() for s in x]  # a string, or a list of labels, a sequence
        >>> model = SequenceTagger(16, learning_rate=1e-2).fit(x, y, epochs=20, progress=False)
        >>> [row.tolist() for row in model.predict(["bca", "ab"])]
        [['B', 'C', 'A'], ['A', 'B']]
    """

    SETTINGS = (*LabelledSequences.SETTINGS, "missing")

    def __init__(
        self,
        hidden: int = 64,
        *,
        cell: str = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        missing: Label | None = None,
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
        super().__init__(
            hidden,
            cell=cell,
            layers=layers,
            bidirectional=bidirectional,
            embedding=embedding,
            channels=channels,
            words=words,
            rare=rare,
            standardise=standardise,
            max_length=max_length,
            dropout=dropout,
            learning_rate=learning_rate,
            decay=decay,
            patience=patience,
            clip=clip,
            dtype=dtype,
        )
        self.missing = missing

    def predict_proba(self, x: Any) -> list[Tensor]:
        """Return the probabilities of the classes at each step, one (T_i, k) a sequence, columns as in ``classes``.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        return [log_p.exp() for log_p in self._log_probabilities(x, "predict_proba")]

    def predict(self, x: Any) -> list[Tensor | np.ndarray]:
        """Return the most probable label of each step, (T_i,) a sequence: tensors, or arrays where labels are text.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        labels = self._labels("predict")
        return [labels.named(log_p.argmax(1)) for log_p in self._log_probabilities(x, "predict")]

    def log_likelihood(self, x: Any, y: Any) -> Estimate:
        """Return log p(y | x) of each sequence's labels, in nats: the sum over its steps; exact, given the model.

        Args:
            x: sequences like those of ``fit``; only held-out ones say how good the model is.
            y: their labels, (T_i,) each.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences or labels unlike those of ``fit``.
        """
        scored = self._scored(x, y, "log_likelihood")
        value = torch.stack([log_p.gather(1, truth[:, None]).sum() for log_p, truth in scored])
        return Estimate(value, torch.zeros_like(value), "closed form", n=len(value))

    def accuracy(self, x: Any, y: Any) -> Estimate:
        """Return the share of steps whose most probable label is right.

        The standard error is by blocks of neighbouring steps, or whole sequences, since neighbours err together.

        Args:
            x, y: held-out sequences and their labels.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences or labels unlike those of ``fit``.
        """
        right = [log_p.argmax(1) == truth for log_p, truth in self._scored(x, y, "accuracy")]
        share = block_mean(right, "steps")
        if share.value in (0.0, 1.0):  # no spread, yet not certain: count sequences, not steps
            return proportion(torch.full((len(right),), bool(share.value)))
        return share

    def _learn_labels(self, y: Any) -> Labels:
        found = [label for row in self._label_lists(y, "y") for label in row if not self._is_missing(label)]
        if not found:
            raise ValueError("y must have labels; every step is missing.")
        return Labels.of(found)

    def _targets(self, y: Any, lengths: Tensor, name: str) -> Tensor:
        rows = self._label_lists(y, name)
        if len(rows) != len(lengths):
            raise ValueError(f"{name} must have labels for each sequence, {len(lengths)}; got {len(rows)}.")
        targets = torch.full((len(rows), int(lengths.max())), OTHER)
        for i, (row, length) in enumerate(zip(rows, lengths.tolist())):
            if len(row) != length:
                raise ValueError(
                    f"{name}[{i}] must have a label for each step of its sequence, {length}; got {len(row)}."
                )
            known = [t for t, label in enumerate(row) if not self._is_missing(label)]
            if known:
                targets[i, known] = self._labels("this").indices([row[t] for t in known], name=f"{name}[{i}]")
        if bool((targets == OTHER).all()):
            raise ValueError(f"{name} must have labels; every step is missing.")
        return targets

    def _label_lists(self, y: Any, name: str) -> list[list[Any]]:
        """Return labels as lists, or say where one is missing."""
        rows = [_listed(row, f"{name}[{i}]") for i, row in enumerate(as_list(y, name))]
        for i, row in enumerate(rows):
            holes = [t for t, label in enumerate(row) if _is_hole(label)]
            if holes:
                raise ValueError(
                    f"{name}[{i}] must have a label everywhere; missing (None or NaN) at {holes[:10]}. Put a label of "
                    "your own there, and name it as missing= when you make the model: it is then left out."
                )
        return rows

    def _is_missing(self, label: Any) -> bool:
        return self.missing is not None and type(label) is type(self.missing) and label == self.missing

    def _logits(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.out(self.reader(x, lengths)[0])

    def _log_probabilities(self, x: Any, what: str) -> list[Tensor]:
        """Return log p of each class at each step, (T_i, k) a sequence, in float64."""
        self._check_fitted(what)
        rows, lengths = self._rows(x)
        padded = (log_p for some in self._log_p(rows, lengths) for log_p in some)
        return [log_p[:length] for log_p, length in zip(padded, lengths.tolist())]

    def _scored(self, x: Any, y: Any, what: str) -> list[tuple[Tensor, Tensor]]:
        """Return the log probabilities of the steps that have a label, and its index, for each sequence."""
        found = self._log_probabilities(x, what)
        targets = self._targets(y, torch.tensor([len(log_p) for log_p in found]), "y")
        known = [row[: len(log_p)] != OTHER for row, log_p in zip(targets, found)]
        return [(log_p[k], row[: len(log_p)][k]) for log_p, row, k in zip(found, targets, known)]


def _listed(row: Any, name: str) -> list[Any]:
    """Return the labels of one sequence as a list; a string has one at each character."""
    if not hasattr(row, "__len__"):
        raise TypeError(f"{name} must be the labels of a sequence, one a step; got {row!r}.")
    found = row.tolist() if hasattr(row, "tolist") else list(row)
    plain = [v.item() if hasattr(v, "item") else v for v in found]
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in plain]


def _is_hole(label: Any) -> bool:
    return label is None or type(label).__name__ in ("NAType", "NaTType") or label != label
