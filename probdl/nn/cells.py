"""The three recurrent networks: simple, long short-term memory, gated unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probdl.nn.padding import run_padded
from probdl.nn.recurrent import Part, Recurrent, State


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

    def step(self, x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return (h,) of one layer after one more step."""
        cell = torch.rnn_tanh_cell if self.activation == "tanh" else torch.rnn_relu_cell
        return (cell(x, *state, *weights),)

    def gate_values(self, from_x: dict[str, Tensor], from_h: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return h."""
        a = from_x["h"] + from_h["h"]
        return {"h": a.tanh() if self.activation == "tanh" else a.relu()}


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
    STATES = 2

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

    def run_ragged(self, x: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Do what ``forward`` does; on a CPU without packing, unless most of x is padding."""
        mostly_padding = 4 * int(lengths.sum()) < x.shape[0] * x.shape[1]
        if x.device.type != "cpu" or mostly_padding or (self.bidirectional and state is not None):
            return super().run_ragged(x, lengths, state)
        assert not isinstance(state, Tensor)
        return run_padded(self, x, lengths, state)

    def step(self, x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return (h, c) of one layer after one more step."""
        return torch.lstm_cell(x, state, *weights)

    def gate_values(self, from_x: dict[str, Tensor], from_h: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates i, f and o, and the new memory g."""
        a = {gate: from_x[gate] + from_h[gate] for gate in self.GATES}
        return {gate: a[gate].tanh() if gate == "g" else a[gate].sigmoid() for gate in self.GATES}


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

    def step(self, x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return (h,) of one layer after one more step."""
        return (torch.gru_cell(x, *state, *weights),)

    def gate_values(self, from_x: dict[str, Tensor], from_h: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates r and u, and the new state h."""
        r, u = ((from_x[gate] + from_h[gate]).sigmoid() for gate in "ru")
        return {"r": r, "u": u, "h": (from_x["h"] + r * from_h["h"]).tanh()}

    def _part(self, gate: str, U: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Part:
        return Part(U, w, b, c) if gate == "h" else Part(U, w, b + c)
