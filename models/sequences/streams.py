"""Texts in windows: what truncated back-propagation through time takes step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

OTHER = -100  # the target at padding; cross_entropy leaves it out


class Windows(NamedTuple):
    """Windows of texts, n rows; with ``streams`` > 0 row r follows row r − streams in its stream.

    Attributes:
        tokens: (n, T), what is read.
        targets: (n, T), what is predicted, the next tokens; ``OTHER`` at padding.
        first: (n,), whether a text begins, so that the state is zero.
        stream: (n,), the number of the stream, whose state the row goes on from.
        weight: (n,), one over the mean number of targets a row, so that a mean over rows is one over targets.
    """

    tokens: Tensor
    targets: Tensor
    first: Tensor
    stream: Tensor
    weight: Tensor


def lanes(texts: Sequence[Tensor], window: int, most: int) -> int:
    """Return how many streams to read side by side; 0 where no text is longer than a window, and order is free.

    Args:
        texts: indices (T_i,), each with two tokens or more.
        window: targets of a row, at most.
        most: how many streams, at most.
    """
    if max(map(len, texts)) <= window + 1:
        return 0
    return max(1, min(most, sum(len(text) - 1 for text in texts) // window))


def windows(texts: Sequence[Tensor], window: int, streams: int) -> Windows:
    """Cut texts into windows, and lay these into streams that are read side by side.

    A single long text becomes ``streams`` pieces of equal length, each a stream. Where no text is longer than a window,
    each is a row of its own.

    Args:
        texts: indices (T_i,), each with two tokens or more.
        window: targets of a row, at most.
        streams: how many.

    Example:
        >>> rows = windows([torch.arange(9)], window=2, streams=2)
        >>> rows.targets.tolist(), rows.first.tolist()
        ([[1, 2], [5, 6], [3, 4], [7, 8]], [True, True, False, False])
    """
    total = sum(len(text) - 1 for text in texts)
    if max(map(len, texts)) <= window + 1:
        return _rows([(text, True, i % streams) for i, text in enumerate(texts)], total)
    laid: list[list[tuple[Tensor, bool]]] = [[] for _ in range(streams)]
    pieces = [piece for text in texts for piece in _pieces(text, math.ceil(total / streams))]
    for piece in sorted(pieces, key=len, reverse=True):
        # Windows of equal length, so that few rows hold padding.
        parts = _pieces(piece, math.ceil((len(piece) - 1) / math.ceil((len(piece) - 1) / window)))
        min(laid, key=len).extend((part, i == 0) for i, part in enumerate(parts))
    blank = (texts[0][:1], True)  # a stream that ends before the others goes on with rows without targets
    depth = max(map(len, laid))
    full = [lane + [blank] * (depth - len(lane)) for lane in laid]
    return _rows([(*full[s][k], s) for k in range(depth) for s in range(streams)], total)


def _pieces(text: Tensor, most: int) -> list[Tensor]:
    """Cut a text into pieces of at most ``most`` targets; the last token of one is the first of the next."""
    return [text[at : at + most + 1] for at in range(0, len(text) - 1, most)]


def _rows(parts: list[tuple[Tensor, bool, int]], total: int) -> Windows:
    width = max(len(part) for part, _, _ in parts) - 1
    tokens, targets = torch.zeros(len(parts), width, dtype=torch.int64), torch.full((len(parts), width), OTHER)
    for row, (part, _, _) in enumerate(parts):
        tokens[row, : len(part) - 1], targets[row, : len(part) - 1] = part[:-1], part[1:]
    first, stream = (torch.tensor(column) for column in list(zip(*parts))[1:])
    return Windows(tokens, targets, first, stream, torch.full((len(parts),), len(parts) / total, dtype=torch.float64))
