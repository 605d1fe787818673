"""Sequences through a recurrent network: each step becomes a vector, each vector moves a state."""

from __future__ import annotations

from torch import Tensor, nn

from probdl.nn import GRU, LSTM, RNN, Recurrent
from probdl.nn.recurrent import State

CELLS: dict[str, type[Recurrent]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class Reader(nn.Module):
    """What makes a vector of each step, and the recurrent network behind it.

    Args:
        steps: maps tokens (n, T) or frames (n, T, ...) to vectors (n, T, size).
        size: of these vectors.
        hidden: of the state.
        cell: "rnn", "lstm" or "gru".
        layers: of the network.
        bidirectional: whether it reads in both directions.
        dropout: the probability with which a number is dropped, in training, of what goes in, between and out.
    """

    def __init__(
        self,
        steps: nn.Module,
        size: int,
        hidden: int,
        *,
        cell: str,
        layers: int,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.steps = steps
        between = dropout if layers > 1 else 0.0
        self.network = CELLS[cell](size, hidden, layers=layers, bidirectional=bidirectional, dropout=between)
        self.drop = nn.Dropout(dropout)

    @property
    def outputs(self) -> int:
        """The size of the top layer's states, of both directions."""
        return self.network.outputs

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Return the top layer's states (n, T, outputs) and the last state, as ``probdl.nn.Recurrent`` does."""
        h, state = self.network(self.drop(self.steps(x)), lengths, state)
        return self.drop(h), state

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the top layer's state after the last step, (n, outputs); backward: after the first."""
        return self.drop(self.network.last(self(x, lengths)[1]))


class EachFrame(nn.Module):
    """A network of single frames, applied to each frame of sequences (n, T, ...) → (n, T, size)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors of all frames, those of padding too, which later are masked."""
        return self.network(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def checked_dropout(value: float, name: str = "dropout") -> float:
    """Return a probability below one, or raise a ValueError that names the argument."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1; got {value!r}.")
    return float(value)
