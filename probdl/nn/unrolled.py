"""A recurrent network step by step, so that its states and gates can be seen and derivatives taken between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.nn.recurrent import Recurrent

States = list[tuple[Tensor, ...]]


def unroll(net: Recurrent, x: Tensor, layer: int, w: Sequence[Tensor] | None = None) -> States:
    """Run one layer on its inputs, with a node of its own in autograd's graph for each state.

    Args:
        net: one way; its weights are constants.
        x: the inputs of the layer, (n, T, inputs of the layer).
        layer: from 0.
        w: the w of each step, where they are to differ; else the network's.

    Returns:
        The state after each step, T times (h,) or, for an LSTM, (h, c).
    """
    U, shared, *biases = (getattr(net.cell, name).detach() for name in net.weight_names(layer))
    # A start that requires a gradient puts all states into the graph.
    state = tuple(x.new_zeros(len(x), net.hidden, requires_grad=True) for _ in range(net.STATES))
    found = []
    for t in range(x.shape[1]):
        new = net.step(x[:, t], state, (U, shared if w is None else w[t], *biases))
        # Clones: the step of an LSTM gives h and c, and h is on the way from c on some devices and not on others.
        state = tuple(s.clone() for s in new)
        found.append(state)
    return found


def hidden_states(states: States) -> Tensor:
    """Return the h of all steps, (n, T, hidden)."""
    return torch.stack([state[0] for state in states], 1)


def layer_inputs(net: Recurrent, x: Tensor, layer: int) -> Tensor:
    """Return what a layer gets from the layers below, without dropout: (n, T, inputs of the layer)."""
    with torch.no_grad():
        for below in range(layer):
            x = hidden_states(unroll(net, x, below))
    return x


def gates(net: Recurrent, x: Any, *, layer: int = -1) -> dict[str, Tensor]:
    """Return the values of the gates at each step, without dropout.

    Args:
        net: an ``RNN``, ``LSTM`` or ``GRU``, one way.
        x: array-like, (n, T, inputs).
        layer: from 0; -1 is the top.

    Returns:
        From the names in ``net.parts()`` to tensors (n, T, hidden): an LSTM's i, f, o and new memory g; a GRU's u, r
        and new state h; the state h of a simple network.

    Raises:
        ValueError, TypeError: for a network of two directions, or another shape of ``x``.

    Example:
        >>> import torch
        >>> from probdl.nn import LSTM
        >>> net = LSTM(2, 3, forget_bias=50.0).double()
        >>> gates(net, torch.zeros(1, 4, 2))["f"].round().min().item()
        1.0
    """
    x, layer = checked(net, x, layer)
    with torch.no_grad():
        x = layer_inputs(net, x, layer)
        h = hidden_states(unroll(net, x, layer))
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        parts = net.parts(layer)
        from_x = {name: x @ part.U.T + part.b for name, part in parts.items()}
        from_h = {name: before @ p.w.T + (0 if p.b_r is None else p.b_r) for name, p in parts.items()}
        return net.gate_values(from_x, from_h)


def checked(net: Recurrent, x: Any, layer: int, kind: type[Recurrent] = Recurrent) -> tuple[Tensor, int]:
    """Return x as a tensor of the network's type and place, and the layer from 0.

    Raises:
        ValueError, TypeError: if they, or the network, cannot be used.
    """
    if not isinstance(net, kind):
        wanted = "an RNN, LSTM or GRU" if kind is Recurrent else f"an {kind.__name__}"
        raise TypeError(f"net must be {wanted} of probdl.nn; got {type(net).__name__}.")
    if net.bidirectional:
        raise ValueError(
            "net must run one way: with bidirectional=True the output at t depends on all steps, and has no ∂h_t/∂h_k."
        )
    layer = layer_index(net, layer)
    like = next(net.parameters())
    x = tensor(x, "x").to(like.device, like.dtype)
    net.check(x)
    return x, layer


def layer_index(net: Recurrent, layer: int) -> int:
    """Return a layer, perhaps counted from the top, as its number from 0, or raise a ValueError."""
    if not -net.layers <= layer < net.layers:
        raise ValueError(f"layer must be from 0 to {net.layers - 1}, or -1 for the top; got {layer!r}.")
    return layer % net.layers
