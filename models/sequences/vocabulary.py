"""Tokens and their indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.models.sequences.frames import as_list, padded_frames

Token = str | int


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that ``fit`` saw, in the order of their indices.

    Attributes:
        tokens: characters, words or whole numbers, sorted.
        text: whether sequences are strings; else they are lists of tokens.
        unknown: whether one index more stands for every token that is not among them; without it, such a token is an
            error.
        words: whether strings are split at white space into words, and not read as characters.

    Example:
        >>> letters = Vocabulary.of(["abba", "cab"])
        >>> letters.tokens, letters.indices(["cb"])
        (('a', 'b', 'c'), [[2, 1]])
        >>> letters.sequence([0, 2])
        'ac'
        >>> Vocabulary.of(["to be or not to be"], words=True).tokens
        ('be', 'not', 'or', 'to')
    """

    tokens: tuple[Token, ...]
    text: bool
    unknown: bool = False
    words: bool = False

    @classmethod
    def of(cls, sequences: Any, name: str = "x", rare: int = 0, *, words: bool = False) -> Vocabulary:
        """Return the tokens of sequences.

        Args:
            sequences: strings, or lists (or arrays) of words or whole numbers.
            name: what to call the argument in errors.
            rare: tokens that occur fewer times than this, and those that come later, are one unknown token.
            words: whether strings are split at white space into words.

        Raises:
            TypeError: if they are neither.
            ValueError: if one is empty, or no token is left.
        """
        lists, text = as_lists(sequences, name, words)
        counts = Counter(token for tokens in lists for token in tokens)
        kept = sorted(token for token, times in counts.items() if times >= rare)
        if not kept:
            raise ValueError(f"{name} must hold tokens that occur at least {rare} times (rare=); none does.")
        return cls(tuple(kept), text, unknown=rare > 1, words=words and text)

    def indices(self, sequences: Any, name: str = "x") -> list[list[int]]:
        """Return the indices of the tokens of each sequence.

        Raises:
            TypeError: for sequences of another kind than those of ``fit``.
            ValueError: for tokens that ``fit`` did not see, which are named, or an empty sequence.
        """
        lists, text = as_lists(sequences, name, self.words)
        self._check_kind(lists, text, name)
        index = {token: i for i, token in enumerate(self.tokens)}
        spare = len(self.tokens) if self.unknown else -1
        found = [[index.get(token, spare) for token in tokens] for tokens in lists]
        if not self.unknown:
            self._check_known(lists, index, name)
        return found

    def sequence(self, indices: Sequence[int]) -> Any:
        """Return a sequence of the kind that ``fit`` saw, a string or a list; unknown tokens become � or None."""
        names: list[Any] = [*self.tokens, "\N{REPLACEMENT CHARACTER}" if self.text else None]
        found = [names[i] for i in indices]
        return (" " if self.words else "").join(found) if self.text else found

    def __len__(self) -> int:
        return len(self.tokens) + self.unknown

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"tokens": list(self.tokens), "text": self.text, "unknown": self.unknown, "words": self.words}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Vocabulary:
        """Return the vocabulary that ``to_json`` wrote."""
        if not isinstance(found["tokens"], list) or {type(t) for t in found["tokens"]} - {str, int}:
            raise TypeError("a vocabulary's tokens must be a list of text or whole numbers")
        return cls(tuple(found["tokens"]), *(bool(found[key]) for key in ("text", "unknown", "words")))

    def _check_kind(self, lists: list[list[Token]], text: bool, name: str) -> None:
        want, got = (_kind(some[0], t) for some, t in ((self.tokens, self.text), (lists[0], text)))
        if want != got:
            raise TypeError(f"{name} must hold {want}, as in fit; got {got}.")

    def _check_known(self, lists: list[list[Token]], index: dict[Token, int], name: str) -> None:
        unseen = set().union(*lists) - index.keys()
        if not unseen:
            return
        where = next((i, j) for i, tokens in enumerate(lists) for j, token in enumerate(tokens) if token in unseen)
        more = f" and {len(unseen) - 10} more" if len(unseen) > 10 else ""
        raise ValueError(
            f"{name} has tokens that fit did not see: {', '.join(map(repr, sorted(unseen)[:10]))}{more}; first "
            f"{lists[where[0]][where[1]]!r} in sequence {where[0]} at place {where[1]}. Remove them, or make the model "
            "with rare=2, which reads them as one unknown token."
        )


def as_lists(sequences: Any, name: str = "x", words: bool = False) -> tuple[list[list[Token]], bool]:
    """Return sequences as lists of tokens, and whether they were strings, which are split into characters or words.

    Raises:
        TypeError: if they are neither strings, nor lists or arrays of text or whole numbers.
        ValueError: if there is none, or one is empty.
    """
    each = as_list(sequences, name)
    missing = [i for i, s in enumerate(each) if s is None or (isinstance(s, float) and s != s)]
    if missing:
        raise ValueError(f"{name} must have a sequence everywhere; missing (None or NaN) at {missing[:10]}. Drop them.")
    text = isinstance(each[0], str)
    lists = [_tokens(sequence, text, f"{name}[{i}]", words) for i, sequence in enumerate(each)]
    if empty := [i for i, tokens in enumerate(lists) if not tokens]:
        raise ValueError(f"{name} must hold no empty sequence; empty are {empty[:10]}. Drop them.")
    return lists, text


def padded(sequences: Sequence[Sequence[int] | Tensor]) -> tuple[Tensor, Tensor]:
    """Return lists of indices as one tensor (n, T), zero beyond each end, and their lengths (n,).

    Example:
        >>> padded([[3, 1], [2]])
        (tensor([[3, 1],
                [2, 0]]), tensor([2, 1]))
    """
    return padded_frames([torch.as_tensor(s, dtype=torch.int64) for s in sequences])


def _tokens(sequence: Any, text: bool, name: str, words: bool) -> list[Token]:
    """Return the tokens of one sequence, all of one kind, or raise a TypeError."""
    if isinstance(sequence, str) != text:
        want, got = ("a string", "a list") if text else ("a list of tokens", "a string")
        raise TypeError(f"{name} must be {want}, like the first sequence; got {got}.")
    if isinstance(sequence, str):
        return [*sequence.split()] if words else [*sequence]
    if not hasattr(sequence, "__len__"):
        raise TypeError(f"{name} must be a list of tokens; got a {type(sequence).__name__}.")
    tokens = (
        sequence.tolist() if hasattr(sequence, "tolist") else [t.item() if hasattr(t, "item") else t for t in sequence]
    )
    if holes := [t for t, token in enumerate(tokens) if token is None or token != token]:
        raise ValueError(f"{name} must have a token everywhere; missing (None or NaN) at {holes[:10]}.")
    kinds = {type(token) for token in tokens}
    if len(kinds) > 1 or kinds - {str, int}:
        got = " and ".join(sorted(kind.__name__ for kind in kinds))
        hint = " Frames of one number each are arrays (T, 1)." if float in kinds else ""
        raise TypeError(f"{name} must hold tokens, all text or all whole numbers; got {got}.{hint}")
    return tokens


def _kind(token: Token, text: bool) -> str:
    return "strings" if text else f"lists of {'words' if isinstance(token, str) else 'whole numbers'}"
