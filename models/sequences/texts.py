"""Texts: which part of them trains and which validates, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form
from probdl.models.held_out import FEWEST, split
from probdl.models.sequences.vocabulary import Vocabulary


def as_texts(x: Any) -> Any:
    """Return a list of texts; a string is one, and so is a list or an array (T,) of whole numbers."""
    array = getattr(x, "ndim", 0) == 1 and "int" in str(x.dtype)
    numbers = array or (isinstance(x, (list, tuple)) and bool(x) and type(x[0]) is int)
    return [x] if isinstance(x, str) or numbers else x


def read(vocabulary: Vocabulary, x: Any, name: str = "x") -> list[Tensor]:
    """Return texts as indices (T_i,), or raise."""
    return [torch.tensor(text) for text in vocabulary.indices(as_texts(x), name)]


def divided(vocabulary: Vocabulary, x: Any, validation: Any, seed: int) -> tuple[list[Tensor], list[Tensor] | None]:
    """Return the training texts and the validation texts, as indices, without those that have no second token.

    Args:
        vocabulary: of x.
        x: texts.
        validation: "auto" or a fraction cuts the end off each text or, of 20 texts or more, keeps some of them back;
            a list of texts; or None.
        seed: draws the texts kept back.

    Raises:
        TypeError, ValueError: for texts or a ``validation`` that cannot be used, or where no text can train.
    """
    train, held = read(vocabulary, x), None
    if isinstance(validation, (list, tuple)):
        held = read(vocabulary, validation, "validation")
    elif not (validation is None or isinstance(validation, (bool, str, int, float))):
        what = type(validation).__name__
        raise TypeError(f"validation must be 'auto', a fraction, a list of texts, or None; got a {what}.")
    elif validation is not None and validation is not False:
        train, held = _some(train, validation, seed) if len(train) >= FEWEST else _ends(train, validation)
    train = [text for text in train if len(text) > 1]
    if not train:
        raise ValueError("x must hold a training text of two tokens or more: the first is given, not predicted.")
    return train, [text for text in held or [] if len(text) > 1] or None


def _some(texts: Sequence[Tensor], validation: Any, seed: int) -> tuple[list[Tensor], list[Tensor] | None]:
    """Keep some texts back, at random."""
    kept, back = split(torch.arange(len(texts)), validation, Form(()), seed)
    return [texts[i] for i in kept.tolist()], None if back is None else [texts[i] for i in back.tolist()]


def _ends(texts: Sequence[Tensor], validation: Any) -> tuple[list[Tensor], list[Tensor] | None]:
    """Cut the end off each text; the last token of training is given to the first that is held out."""
    kept: list[Tensor] = []
    held: list[Tensor] = []
    for text in texts:
        train, back = split(torch.arange(len(text)), validation, Form(()), 0)
        kept.append(text[: len(train)])
        held += [] if back is None else [text[len(train) - 1 :]]
    return kept, held or None
