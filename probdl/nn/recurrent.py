"""What recurrent networks share: ragged sequences on torch's fast kernels, and the parts of their equations by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from probdl.nn.mlp import sizes

State = Tensor | tuple[Tensor, Tensor]


class Part(NamedTuple):
    r"""One affine map :math:`b + U x_t + w h_{t-1}` of a cell; ``U`` and ``w`` are views of the network's weights.

    In the new state of a GRU, :math:`\tanh(b + U x_t + r_t ⊙ (w h_{t-1} + b_r))`, torch has a second bias
    :math:`b_r`; it is None elsewhere.
    """

    U: Tensor
    w: Tensor
    b: Tensor
    b_r: Tensor | None = None


class Recurrent(nn.Module, ABC):
    """What ``RNN``, ``LSTM`` and ``GRU`` share; the constructors' arguments are explained there.

    Example:
        >>> from probdl.nn import GRU, LSTM, RNN
        >>> [issubclass(kind, Recurrent) for kind in (RNN, LSTM, GRU)]
        [True, True, True]
    """

    GATES: ClassVar[tuple[str, ...]]  # in the order of torch's rows
    STATES: ClassVar[int] = 1  # tensors of a state

    def __init__(self, inputs: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        (self.inputs,), (self.hidden,), (self.layers,) = (
            sizes(value, name) for value, name in ((inputs, "inputs"), (hidden, "hidden"), (layers, "layers"))
        )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1; got {dropout!r}.")
        if dropout and layers == 1:
            raise ValueError(f"dropout acts between layers; with layers=1 dropout={dropout} does nothing. Pass 0.")
        self.bidirectional, self.dropout = bool(bidirectional), float(dropout)
        self.directions = 1 + self.bidirectional
        self.outputs = self.hidden * self.directions
        self.cell = self._make()

    @abstractmethod
    def _make(self) -> nn.RNNBase:
        """Return torch's layers."""

    @abstractmethod
    def step(self, x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the state of one layer after one more step.

        Args:
            x: the layer's input, (n, inputs of the layer).
            state: (h,), for an LSTM (h, c), each (n, hidden).
            weights: U, w and the two biases, stacked over the gates as torch has them.
        """

    @abstractmethod
    def gate_values(self, from_x: dict[str, Tensor], from_h: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates' values, given b + Ux and w h (with b_r, if any) of each gate, of any shape."""

    def _arguments(self) -> dict:
        """Return the arguments that torch's three classes share."""
        return {
            "input_size": self.inputs,
            "hidden_size": self.hidden,
            "num_layers": self.layers,
            "bidirectional": self.bidirectional,
            "dropout": self.dropout,
            "batch_first": True,
        }

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Run over sequences; padding changes nothing, in either direction.

        Args:
            x: (n, T, inputs).
            lengths: (n,) whole numbers from 1 to T: how many steps of each sequence are its own, the rest is padding;
                None: all T.
            state: to start from, as it is returned; None: zeros.

        Returns:
            The top layer's h at each step, (n, T, hidden · directions), forward then backward, zero at padding; and the
            state after each sequence's own last step (backward: its first), (layers · directions, n, hidden), for an
            LSTM the pair (h, c).

        Raises:
            ValueError: if ``x`` has another shape or no step, or a length is not between 1 and T.
        """
        self.check(x)
        if lengths is None:
            return self.cell(x, state)
        lengths = checked_lengths(lengths, len(x), x.shape[1])
        if int(lengths.min()) == x.shape[1]:
            return self.cell(x, state)
        return self.run_ragged(x, lengths, state)

    def run_ragged(self, x: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Do what ``forward`` does, for lengths that are checked and on the CPU."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, state = self.cell(packed, state)
        return pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0], state

    def last(self, state: State) -> Tensor:
        """Return the top layer's h after each sequence's last step, (n, hidden · directions), from a state."""
        h = state[0] if isinstance(state, tuple) else state
        return h[-self.directions :].transpose(0, 1).reshape(h.shape[1], self.outputs)

    def parts(self, layer: int = 0, *, backward: bool = False) -> dict[str, Part]:
        """Return the affine maps of one layer by the names of the equations.

        Torch has two biases, of the input and of the state; where they only occur as a sum, ``b`` is this sum (a new
        tensor). ``U`` and ``w`` are views: what is written into them, under ``torch.no_grad``, changes the network.

        Args:
            layer: from 0, the lowest, whose x is the input; the x of layer m is the h of layer m - 1.
            backward: whether of the backward direction.

        Returns:
            From the name of a gate to its ``Part``, with U (hidden, inputs of the layer), w (hidden, hidden) and
            b (hidden,).

        Raises:
            ValueError: if there is no such layer or direction.
        """
        names = self.weight_names(layer, backward=backward)
        U, w, b, c = (getattr(self.cell, name).chunk(len(self.GATES)) for name in names)
        return {gate: self._part(gate, U[k], w[k], b[k], c[k]) for k, gate in enumerate(self.GATES)}

    def set_bias(self, gate: str, value: float | Tensor, *, layer: int = 0, backward: bool = False) -> None:
        """Set the b of one gate: torch's first bias becomes the value and its second zero.

        Args:
            gate: a key of ``parts``.
            value: a number, or (hidden,).
            layer, backward: as in ``parts``.
        """
        if gate not in self.GATES:
            raise ValueError(f"gate must be one of {', '.join(self.GATES)}; got {gate!r}.")
        _, _, *biases = self.weight_names(layer, backward=backward)
        with torch.no_grad():
            for name, new in zip(biases, (value, 0.0)):
                rows = getattr(self.cell, name).chunk(len(self.GATES))[self.GATES.index(gate)]
                rows.copy_(torch.as_tensor(new, dtype=rows.dtype))

    def weight_names(self, layer: int = 0, *, backward: bool = False) -> list[str]:
        """Return torch's names, within ``cell``, of a layer's U, w and two biases."""
        if not 0 <= layer < self.layers or backward > self.bidirectional:
            which = " backward" if backward else ""
            raise ValueError(
                f"There is no{which} layer {layer!r}: this {type(self).__name__} has {self.layers} layer(s), from 0, "
                f"in {self.directions} direction(s)."
            )
        end = f"_l{layer}" + ("_reverse" if backward else "")
        return [name + end for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def _part(self, gate: str, U: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Part:
        return Part(U, w, b + c)

    def check(self, x: Tensor) -> None:
        """Raise a ValueError unless x has the shape (n, T, inputs), with something in it."""
        if x.ndim != 3 or x.shape[2] != self.inputs or 0 in x.shape:
            raise ValueError(
                f"x must have shape (n, T, {self.inputs}), with at least one sequence and one step; got "
                f"{tuple(x.shape)}. Leave empty sequences out."
            )


def checked_lengths(lengths: Tensor, n: int, T: int) -> Tensor:
    """Return the lengths of n padded sequences of T steps on the CPU, as packing needs them.

    Raises:
        ValueError, TypeError: if they are not n whole numbers from 1 to T.
    """
    lengths = torch.as_tensor(lengths).cpu()
    if lengths.shape != (n,) or lengths.is_floating_point():
        raise ValueError(f"lengths must be ({n},) whole numbers, one a sequence; got {_kind(lengths)}.")
    low, high = int(lengths.min()), int(lengths.max())
    if low < 1:
        raise ValueError(f"lengths must be at least 1; sequence {int(lengths.argmin())} has {low}. Leave it out.")
    if high > T:
        raise ValueError(f"lengths must be at most T = {T}; sequence {int(lengths.argmax())} has {high}. Pad x.")
    return lengths


def _kind(lengths: Tensor) -> str:
    return f"{tuple(lengths.shape)} of {str(lengths.dtype).removeprefix('torch.')}"
