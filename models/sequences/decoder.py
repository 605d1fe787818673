"""A recurrent decoder: one token after another, given what was read before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from probdl.models.sequences.reader import Reader
from probdl.nn.recurrent import State


@dataclass(frozen=True)
class Given:
    """What a decoder writes from: its state, and the memory that it may attend to.

    Attributes:
        state: of the decoder's cell, (layers, n, hidden), for an LSTM a pair.
        memory: (n, S, size), one vector for each token of a source, or None.
        own: booleans (n, S), False at the source's padding, or None.
    """

    state: State
    memory: Tensor | None = None
    own: Tensor | None = None

    def rows(self, index: Tensor) -> Given:
        """Return some of the rows, or all of them in another order, or repeatedly."""
        memory, own = (None if t is None else t.index_select(0, index) for t in (self.memory, self.own))
        return Given(each_part(self.state, lambda h: h.index_select(1, index)), memory, own)

    def __len__(self) -> int:
        return (self.state[0] if isinstance(self.state, tuple) else self.state).shape[1]


class Attention(nn.Module):
    r"""Looks back at a memory m, weighted by how well each part fits the decoder's state h.

    .. math:: α_{ts} = \mathrm{softmax}_s(h_t^\top W m_s), \quad c_t = \sum_s α_{ts} m_s, \quad
        \tilde h_t = \tanh(W_c [c_t; h_t])

    Args:
        hidden: the size of h.
        memory: the size of each m.

    Reference:
        Luong, Pham and Manning (2015), Effective approaches to attention-based neural machine translation, EMNLP
        (global attention, score "general", without input feeding).
    """

    def __init__(self, hidden: int, memory: int) -> None:
        super().__init__()
        self.score = nn.Linear(memory, hidden, bias=False)
        self.combine = nn.Linear(memory + hidden, hidden)

    def forward(self, h: Tensor, memory: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new states (n, T, hidden) and the weights (n, T, S), zero at padding."""
        scores = h @ self.score(memory).transpose(1, 2)
        weights = scores.masked_fill(~own[:, None], -torch.inf).softmax(-1)
        return self.combine(torch.cat([weights @ memory, h], -1)).tanh(), weights


class Decoder(nn.Module):
    r"""A distribution over sequences, :math:`p(y | \text{given}) = \prod_{t=1}^{T+1} p(y_t | y_{<t}, \text{given})`.

    :math:`y_{T+1}` is the end, which stands before the first token too.

    Args:
        tokens: how many there are, beside the end; the end's index is ``tokens``.
        hidden: the size of the state, and of the embedding of a token.
        cell: "rnn", "lstm" or "gru".
        layers: of the cell.
        memory: the size of what it attends to, or 0 for no attention.
        dropout: the probability with which a number is dropped in training, of embeddings and states.
    """

    def __init__(self, tokens: int, hidden: int, *, cell: str, layers: int, memory: int, dropout: float) -> None:
        super().__init__()
        self.end = tokens
        embedding = nn.Embedding(tokens + 1, hidden)
        self.reader = Reader(embedding, hidden, hidden, cell=cell, layers=layers, dropout=dropout)
        self.attention = Attention(hidden, memory) if memory else None
        self.out = nn.Linear(hidden, tokens + 1)

    def forward(self, given: Given, tokens: Tensor) -> tuple[Tensor, Given, Tensor | None]:
        """Return log p of every next token, what is given from then on, and the attention.

        Args:
            given: for n sequences.
            tokens: the tokens before, (n, T).

        Returns:
            (n, T, tokens + 1), the new state, and the weights (n, T, S) or None.
        """
        h, state = self.reader(tokens, state=given.state)
        weights = None
        if self.attention is not None:
            assert given.memory is not None and given.own is not None  # noqa: PT018
            h, weights = self.attention(h, given.memory, given.own)
        return torch.log_softmax(self.out(h), -1), Given(state, given.memory, given.own), weights

    def log_prob(self, given: Given, tokens: Tensor, lengths: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return log p of sequences with their ends, (n,), in nats; each token is given the true ones before it.

        Args:
            given: for n sequences.
            tokens: (n, T); what stands beyond a length does not matter.
            lengths: (n,), of the sequences without their ends, at most T.
            hidden: booleans (n, T), which tokens are not seen by those that come after them; None: all are.
        """
        place = torch.arange(tokens.shape[1] + 1, device=tokens.device)
        targets = pad(tokens, (0, 1)).masked_fill(place >= lengths[:, None], self.end)
        seen = targets[:, :-1] if hidden is None else targets[:, :-1].masked_fill(hidden, self.end)
        before = pad(seen, (1, 0), value=self.end)
        log_p = self(given, before)[0].gather(2, targets[..., None])[..., 0]
        return (log_p * (place <= lengths[:, None])).sum(1)


def each_part(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """Return a state with ``change`` done to h, and to the c of an LSTM."""
    return (change(state[0]), change(state[1])) if isinstance(state, tuple) else change(state)
