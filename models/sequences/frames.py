"""Sequences of frames: vectors, or images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import tensor


@dataclass(frozen=True)
class Frames:
    """The form of the frames that ``fit`` saw.

    Attributes:
        shape: of one frame, (d,) or (c, h, w).

    Example:
        >>> frames = Frames.of([torch.zeros(5, 2), torch.zeros(3, 2)])
        >>> frames.shape, [len(s) for s in frames.check([torch.ones(4, 2)])]
        ((2,), [4])
    """

    shape: tuple[int, ...]

    @classmethod
    def of(cls, sequences: Any, name: str = "x") -> Frames:
        """Return the form of a list of arrays (T_i, d) or (T_i, c, h, w), that of the first.

        Raises:
            ValueError: for another shape.
        """
        first = tensor(as_list(sequences, name)[0], f"{name}[0]", dtype=None)
        if first.ndim not in (2, 4):
            raise ValueError(
                f"{name}[0] must be a sequence of vectors (T, d) or images (T, c, h, w); got shape "
                f"{tuple(first.shape)}. Frames of one number each are arrays (T, 1)."
            )
        return cls(tuple(first.shape[1:]))

    def check(self, sequences: Any, name: str = "x") -> list[Tensor]:
        """Return each sequence as a tensor (T_i, *shape), floating and finite, or say which is wrong.

        Raises:
            TypeError: for sequences that do not hold numbers.
            ValueError: for an empty sequence, NaN or infinite frames, or frames of another shape.
        """
        return [self._check(s, f"{name}[{i}]") for i, s in enumerate(as_list(sequences, name))]

    def _check(self, sequence: Any, name: str) -> Tensor:
        if hasattr(sequence, "__len__") and not len(sequence):
            raise ValueError(f"{name} is an empty sequence. Leave it out.")
        value = tensor(sequence, name, dtype=None)
        if tuple(value.shape[1:]) != self.shape:
            want = ", ".join(["T", *map(str, self.shape)])
            raise ValueError(f"{name} must have shape ({want}), as in fit; got {tuple(value.shape)}.")
        return value.cpu()


def as_list(sequences: Any, name: str = "x") -> list[Any]:
    """Return sequences as a list, or raise unless it holds one.

    Raises:
        TypeError: for anything but a list, an array (n, T, ...) or a Series of sequences.
        ValueError: for none.
    """
    if isinstance(sequences, str) or hasattr(sequences, "columns") or not hasattr(sequences, "__len__"):
        raise TypeError(f"{name} must be a list of sequences; got a {type(sequences).__name__}. Pass one as [it].")
    if not len(sequences):
        raise ValueError(f"{name} is empty; pass at least one sequence.")
    return list(sequences)


def are_tokens(sequences: Any, name: str = "x") -> bool:
    """Whether sequences are of tokens (strings, or lists of text or whole numbers), and not of frames."""
    first = as_list(sequences, name)[0]
    if isinstance(first, str) or first is None:
        return True
    if hasattr(first, "ndim"):
        return first.ndim == 1 and not _is_floating(first)
    return hasattr(first, "__len__") and (not len(first) or isinstance(first[0], (str, int, np.integer)))


def padded_frames(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return sequences (T_i, ...) as one tensor (n, T, ...), zero beyond each end, and their lengths (n,)."""
    lengths = torch.tensor([len(s) for s in sequences])
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def _is_floating(array: Any) -> bool:
    return array.is_floating_point() if isinstance(array, Tensor) else np.asarray(array).dtype.kind == "f"
