"""Recurrent networks on torch's fast kernels, with the parts of their equations by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from probdl.nn.mlp import sizes

State = Tensor | tuple[Tensor, Tensor]
Net = TypeVar("Net", bound="Recurrent")


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
    """What ``RNN``, ``LSTM`` and ``GRU`` share; the constructors' arguments are explained there."""

    GATES: ClassVar[tuple[str, ...]]  # in the order of torch's rows

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
        self._check(x)
        if lengths is None:
            return self.cell(x, state)
        lengths = checked_lengths(lengths, len(x), x.shape[1])
        if int(lengths.min()) == x.shape[1]:
            return self.cell(x, state)
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

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[2] != self.inputs or 0 in x.shape:
            raise ValueError(
                f"x must have shape (n, T, {self.inputs}), with at least one sequence and one step; got "
                f"{tuple(x.shape)}. Leave empty sequences out."
            )


class RNN(Recurrent):
    r"""The simple recurrent network, :math:`h_t = a(b + w h_{t-1} + U x_t)`.

    Args:
        inputs: the size of :math:`x_t`.
        hidden: the size of :math:`h_t`.
        layers: how many; the h of one is the x of the next.
        bidirectional: whether a second network runs from the last step to the first.
        dropout: the probability with which an h is dropped between layers, in training.
        activation: a, "tanh" or "relu".

    Its part is named "h".

    Raises:
        ValueError: if a size is not a positive integer, ``dropout`` not a probability (or without effect), or
            ``activation`` another one.

    Reference:
        Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors, Nature 323.

    Example:
        >>> import torch
        >>> net = RNN(3, 8).double()
        >>> h, state = net(torch.zeros(5, 7, 3, dtype=torch.float64), lengths=torch.tensor([7, 7, 4, 1, 2]))
        >>> h.shape, net.last(state).shape
        (torch.Size([5, 7, 8]), torch.Size([5, 8]))
    """

    GATES = ("h",)

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: str = "tanh",
    ) -> None:
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation must be 'tanh' or 'relu'; got {activation!r}.")
        self.activation = activation
        super().__init__(inputs, hidden, layers, bidirectional, dropout)

    def _make(self) -> nn.RNNBase:
        return nn.RNN(nonlinearity=self.activation, **self._arguments())


class LSTM(Recurrent):
    r"""Long short-term memory: a cell c that gates write to, keep and read.

    .. math::
        i_t &= σ(b^i + U^i x_t + w^i h_{t-1}) \quad\text{(input gate)} \\
        f_t &= σ(b^f + U^f x_t + w^f h_{t-1}) \quad\text{(forget gate)} \\
        \tilde c_t &= \tanh(b^g + U^g x_t + w^g h_{t-1}) \quad\text{(new memory)} \\
        c_t &= f_t ⊙ c_{t-1} + i_t ⊙ \tilde c_t \\
        o_t &= σ(b^o + U^o x_t + w^o h_{t-1}) \quad\text{(output gate)} \\
        h_t &= o_t ⊙ \tanh(c_t)

    Args:
        inputs, hidden, layers, bidirectional, dropout: as in ``RNN``.
        forget_bias: the forget gates' b to start from, so that they begin open; None leaves torch's, near zero.

    Its parts are named "i", "f", "g" and "o"; its state is the pair (h, c).

    Raises:
        ValueError: as ``RNN``.

    Reference:
        Hochreiter and Schmidhuber (1997), Long short-term memory, Neural Computation 9; the forget gate and its bias:
        Gers, Schmidhuber and Cummins (2000), Learning to forget, Neural Computation 12, and Jozefowicz, Zaremba and
        Sutskever (2015), An empirical exploration of recurrent network architectures, ICML.

    Example:
        >>> import torch
        >>> net = LSTM(3, 8, layers=2, bidirectional=True).double()
        >>> out, (h, c) = net(torch.zeros(5, 7, 3, dtype=torch.float64))
        >>> out.shape, c.shape, sorted(net.parts(layer=1))
        (torch.Size([5, 7, 16]), torch.Size([4, 5, 8]), ['f', 'g', 'i', 'o'])
    """

    GATES = ("i", "f", "g", "o")

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float | None = 1.0,
    ) -> None:
        super().__init__(inputs, hidden, layers, bidirectional, dropout)
        if forget_bias is not None:
            for layer in range(self.layers):
                for backward in range(self.directions):
                    self.set_bias("f", forget_bias, layer=layer, backward=bool(backward))

    def _make(self) -> nn.RNNBase:
        return nn.LSTM(**self._arguments())


class GRU(Recurrent):
    r"""The gated recurrent unit, which mixes the old state with a new one.

    .. math::
        u_t &= σ(b^u + U^u x_t + w^u h_{t-1}) \quad\text{(update gate)} \\
        r_t &= σ(b^r + U^r x_t + w^r h_{t-1}) \quad\text{(reset gate)} \\
        \tilde h_t &= \tanh(b^h + U^h x_t + r_t ⊙ (w^h h_{t-1} + b_r^h)) \\
        h_t &= u_t ⊙ h_{t-1} + (1 - u_t) ⊙ \tilde h_t

    With u = 0 and r = 1 it is the simple network. The reset gate acts after :math:`w^h`, as in torch; Cho et al. apply
    it to :math:`h_{t-1}` before; Chung et al. (2014) let u and 1 - u change places.

    Args:
        inputs, hidden, layers, bidirectional, dropout: as in ``RNN``.

    Its parts are named "u", "r" and "h".

    Raises:
        ValueError: as ``RNN``.

    Reference:
        Cho et al. (2014), Learning phrase representations using RNN encoder-decoder, EMNLP.

    Example:
        >>> import torch
        >>> net = GRU(3, 8).double()
        >>> net(torch.zeros(5, 7, 3, dtype=torch.float64))[0].shape
        torch.Size([5, 7, 8])
        >>> net.parts()["u"].w.shape
        torch.Size([8, 8])
    """

    GATES = ("r", "u", "h")

    def __init__(
        self, inputs: int, hidden: int, *, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(inputs, hidden, layers, bidirectional, dropout)

    def _make(self) -> nn.RNNBase:
        return nn.GRU(**self._arguments())

    def _part(self, gate: str, U: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Part:
        return Part(U, w, b, c) if gate == "h" else Part(U, w, b + c)


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
