"""Sequences as the rows of one tensor, with padding that can be told from what is there, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form
from probdl.models.sequences.frames import Frames, are_tokens, padded_frames
from probdl.models.sequences.vocabulary import Vocabulary

PADDING = -1  # stands where a sequence of tokens has ended; frames are NaN there


@dataclass(frozen=True)
class SequenceForm(Form):
    """The form of the sequences that a model was fitted to: tokens, or frames (T, d).

    Attributes:
        shape: of one step, () for tokens and (d,) for frames.
        vocabulary: the tokens, or None for frames.
        most: steps of a sequence, at most.

    Example:
        >>> form = SequenceForm.of_sequences(["abc", "a"])
        >>> form.check(["ca", "b"]).tolist(), form.sequences(torch.tensor([[0, 2], [1, -1]]))
        ([[2, 0, -1], [1, -1, -1]], ['ac', 'b'])
    """

    vocabulary: Vocabulary | None = None
    most: int = 1

    @classmethod
    def of_sequences(cls, x: Any, *, rare: int = 0, words: bool = False, max_length: int | None = None) -> SequenceForm:
        """Return the form of strings, lists of tokens, or arrays of frames (T, d), each of a length of its own.

        Args:
            x: n sequences.
            rare, words: as of ``Vocabulary.of``.
            max_length: steps of a sequence, at most; None: as many as the longest of ``x`` has.

        Raises:
            ValueError, TypeError: for sequences that cannot be used.
        """
        if are_tokens(x):
            vocabulary = Vocabulary.of(x, "x", rare, words=words)
            return cls((), vocabulary=vocabulary, most=max_length or max(map(len, vocabulary.indices(x))))
        shape = Frames.of(x).shape
        if len(shape) != 1:
            raise ValueError(
                f"x must hold tokens or arrays of vectors (T, d); its frames have shape {shape}. Flatten them."
            )
        return cls(shape, most=max_length or max(map(len, Frames(shape).check(x))))

    def check(self, x: Any, name: str = "x", *, missing: bool = False) -> Tensor:
        """Return sequences as one tensor: tokens (n, most), or frames (n, most, d).

        Raises:
            ValueError, TypeError: for sequences unlike those of ``fit``, or longer than ``most``.
        """
        if are_tokens(x, name) != (self.vocabulary is not None):
            kinds = ("sequences of tokens", "arrays of frames")
            want, got = kinds if self.vocabulary is not None else kinds[::-1]
            raise TypeError(f"{name} must hold {want}, as in fit; got {got}.")
        if self.vocabulary is not None:
            lists = self.vocabulary.indices(x, name)
            self._check_lengths([len(s) for s in lists], name)
            return _widened([torch.tensor(s) for s in lists], self.most, PADDING)
        frames = [f.double() for f in Frames(self.shape).check(x, name)]
        self._check_lengths([len(f) for f in frames], name)
        return _widened(frames, self.most, torch.nan)

    def lengths(self, rows: Tensor) -> Tensor:
        """Return the lengths (n,) of sequences as ``check`` returns them."""
        return (~rows[..., 0].isnan()).sum(1) if self.vocabulary is None else (rows != PADDING).sum(1)

    def sequences(self, rows: Tensor) -> list[Any]:
        """Return rows as sequences of the kind that ``fit`` saw: strings or lists of tokens, or tensors (T, d)."""
        cut = [row[:length] for row, length in zip(rows, self.lengths(rows).tolist())]
        return cut if self.vocabulary is None else [self.vocabulary.sequence(row.tolist()) for row in cut]

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        vocabulary = None if self.vocabulary is None else self.vocabulary.to_json()
        return {"shape": self.shape, "most": self.most, "vocabulary": vocabulary}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SequenceForm:
        """Return the form that ``to_json`` wrote."""
        vocabulary = None if found["vocabulary"] is None else Vocabulary.from_json(found["vocabulary"])
        return cls(tuple(found["shape"]), vocabulary=vocabulary, most=int(found["most"]))

    def _check_lengths(self, lengths: list[int], name: str) -> None:
        if max(lengths) > self.most:
            where = lengths.index(max(lengths))
            raise ValueError(
                f"{name} must have at most {self.most} steps a sequence (max_length, or the longest of fit); "
                f"{name}[{where}] has {lengths[where]}. Cut it, or make the model with a larger max_length."
            )


def _widened(sequences: list[Tensor], width: int, filling: float) -> Tensor:
    """Return sequences (T_i, ...) as one tensor (n, width, ...), filled up."""
    rows, lengths = padded_frames(sequences)
    found = rows.new_full((len(rows), width, *rows.shape[2:]), filling)
    found[:, : rows.shape[1]] = rows
    beyond = torch.arange(width) >= lengths[:, None]
    found[beyond] = filling
    return found
