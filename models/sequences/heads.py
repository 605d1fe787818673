"""Sequences given a code: how probable each is, and what is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from probdl.families import NormalHead
from probdl.models.sequences.decoder import Decoder, Given
from probdl.models.sequences.reader import CELLS
from probdl.models.sequences.rows import PADDING
from probdl.models.sequences.search import Written, beam_search, draw
from probdl.nn.recurrent import State


class SequenceHead(nn.Module, ABC):
    """A distribution over sequences, as rows of ``SequenceForm``, given codes z (n, d)."""

    @abstractmethod
    def log_prob(self, u: Tensor, z: Tensor) -> Tensor:
        """Return log p(u | z) of each sequence with its length, (n,), in nats."""

    @abstractmethod
    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return one sequence for each code."""

    @abstractmethod
    def best(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Return a typical sequence for each code, without randomness; where it can be, as long as those of ``u``."""

    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fix, from pairs (u, z) of training rows, what training left open."""


class Start(nn.Module):
    """The first state of a recurrent network from a code."""

    def __init__(self, latent: int, hidden: int, cell: str, layers: int) -> None:
        super().__init__()
        self.hidden, self.layers, self.pair = hidden, layers, cell == "lstm"
        self.map = nn.Linear(latent, layers * hidden * (1 + self.pair))

    def forward(self, z: Tensor) -> State:
        """Return (layers, n, hidden), for an LSTM a pair."""
        parts = self.map(z).tanh().reshape(len(z), -1, self.layers, self.hidden).permute(1, 2, 0, 3).contiguous()
        return (parts[0], parts[1]) if self.pair else parts[0]


class TokenHead(SequenceHead):
    r"""Tokens one after another, :math:`p(x | z) = \prod_{t=1}^{T+1} p(x_t | x_{<t}, z)`, the last one the end.

    The code is in the first state and beside each state, so that it is not forgotten.

    Args:
        tokens: how many there are.
        latent: the dimension of z.
        hidden, cell, layers, dropout: of the decoder.
        word_dropout: the probability with which the token before is hidden in training, so that z is needed.
        most: tokens of a sequence, at most.

    Reference:
        Bowman et al. (2016), Generating sentences from a continuous space, CoNLL.
    """

    def __init__(
        self,
        tokens: int,
        latent: int,
        hidden: int,
        *,
        cell: str,
        layers: int,
        dropout: float,
        word_dropout: float,
        most: int,
    ) -> None:
        super().__init__()
        self.decoder = Decoder(tokens, hidden, cell=cell, layers=layers, memory=latent, dropout=dropout)
        self.start = Start(latent, hidden, cell, layers)
        self.word_dropout, self.most = word_dropout, most

    def log_prob(self, u: Tensor, z: Tensor) -> Tensor:
        """Return log p(u | z) of each sequence and its end, (n,), in nats."""
        lengths = (u != PADDING).sum(1)
        tokens = u[:, : int(lengths.max())].clamp(min=0)
        hidden = None
        if self.training and self.word_dropout:
            # Torch's generator, as for all dropout: the loops seed it and put it back.
            hidden = functional.dropout(torch.ones_like(tokens, dtype=z.dtype), self.word_dropout) == 0
        return self.decoder.log_prob(self._given(z), tokens, lengths, hidden)

    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return one sequence for each code, cut at the largest length."""
        return self._rows(draw(self.decoder, self._given(z), self.most, 1.0, generator))

    def best(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Return the most probable sequence that a beam search finds, of its own length."""
        found = beam_search(self.decoder, self._given(z), 4, self.most)
        return self._rows(Written(found.tokens[:, 0], found.lengths[:, 0], found.log_prob[:, 0]))

    def _given(self, z: Tensor) -> Given:
        own = torch.ones(len(z), 1, dtype=torch.bool, device=z.device)
        return Given(self.start(z), z[:, None], own)

    def _rows(self, written: Written) -> Tensor:
        tokens = written.tokens[:, : self.most]
        rows = tokens.new_full((len(tokens), self.most), PADDING)
        rows[:, : tokens.shape[1]] = tokens
        return rows.masked_fill(torch.arange(self.most, device=rows.device) >= written.lengths[:, None], PADDING)


class Unfolded(nn.Module):
    """A recurrent network that is given the code at each step: (n, latent) → frames (n, T, d)."""

    def __init__(self, latent: int, hidden: int, size: int, *, cell: str, layers: int, most: int) -> None:
        super().__init__()
        self.start, self.most = Start(latent, hidden, cell, layers), most
        self.network = CELLS[cell](latent, hidden, layers=layers, bidirectional=False, dropout=0.0)
        self.out = nn.Linear(hidden, size)

    def forward(self, z: Tensor) -> Tensor:
        """Return frames (n, most, d)."""
        steps = z[:, None].expand(-1, self.most, -1)
        return self.out(self.network(steps, state=self.start(z))[0])


class FrameHead(SequenceHead):
    r"""Frames that are independent given z and their number, :math:`p(x | z) = p(T | z) \prod_t N(x_t; μ_t(z), σ^2 I)`.

    Args:
        latent: the dimension of z.
        hidden, cell, layers: of the recurrent network that gives the means.
        size: of a frame.
        most: frames of a sequence, at most.
    """

    def __init__(self, latent: int, hidden: int, size: int, *, cell: str, layers: int, most: int) -> None:
        super().__init__()
        self.frames = NormalHead(Unfolded(latent, hidden, size, cell=cell, layers=layers, most=most))
        self.lengths = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, most))

    def log_prob(self, u: Tensor, z: Tensor) -> Tensor:
        """Return log p(u | z) of each sequence and its length, (n,), in nats."""
        last = (~u[..., 0].isnan()).sum(1) - 1
        length = self.lengths(z).log_softmax(1).gather(1, last[:, None])[:, 0]
        return self.frames.log_prob(u, z) + length

    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return one sequence for each code."""
        last = torch.multinomial(self.lengths(z).softmax(1), 1, generator=generator)
        return _cut(self.frames.draw(z, generator), last)

    def best(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Return the means of frames, as many as ``u`` has, or as are most probable."""
        last = self.lengths(z).argmax(1) if u is None else (~u[..., 0].isnan()).sum(1) - 1
        return _cut(self.frames.network(z), last[:, None])

    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fix the scale σ at its maximum-likelihood value."""
        self.frames.settle(pairs)


def _cut(frames: Tensor, last: Tensor) -> Tensor:
    """Return frames (n, T, d) that are NaN beyond the last step of each, (n, 1)."""
    beyond = torch.arange(frames.shape[1], device=frames.device) > last
    return frames.masked_fill(beyond[..., None], torch.nan)
