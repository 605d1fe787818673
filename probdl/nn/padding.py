"""Ragged sequences through an LSTM without packing, which on a CPU takes three to five times as long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import dropout

if TYPE_CHECKING:
    from probdl.nn.cells import LSTM

SHUT = 1e4  # the sigmoid is 0 at minus this, and 1 at this, to the last bit


def run_padded(
    net: LSTM, x: Tensor, lengths: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    r"""Run an LSTM over padded sequences in one go, and return what packing returns.

    At padding, one more input shuts the input gate and opens the forget gate, :math:`c_t = 1 ⊙ c_{t-1} + 0`. So the
    cell keeps its last value, which no gradient but that of the last value reaches; and the backward direction, which
    meets the padding first, keeps its zeros.

    Args:
        net: an ``LSTM``.
        x: (n, T, inputs).
        lengths: (n,), from 1 to T, on the CPU.
        state: to start from, for a network of one direction, or None.
    """
    n, T, _ = x.shape
    padding = (torch.arange(T) >= lengths[:, None]).to(x.device)[:, :, None]
    ends, rows = (lengths - 1).to(x.device), torch.arange(n, device=x.device)
    zeros = x.new_zeros(net.layers * net.directions, n, net.hidden)
    start = [s.split(net.directions) for s in ((zeros, zeros) if state is None else state)]
    last_h, last_c = [], []
    x = x.masked_fill(padding, 0)
    for layer, (h, c) in enumerate(zip(*start)):
        out, _, c = torch.lstm(
            torch.cat([x, padding.to(x)], 2),
            (h.contiguous(), c.contiguous()),
            [weight for backward in range(net.directions) for weight in _weights(net, layer, bool(backward))],
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=net.training,
            bidirectional=net.bidirectional,
            batch_first=True,
        )
        last_h += [out[rows, ends, : net.hidden], *([out[:, 0, net.hidden :]] if net.bidirectional else [])]
        last_c.append(c)
        x = out.masked_fill(padding, 0)
        if net.dropout and layer + 1 < net.layers:
            x = dropout(x, net.dropout, net.training)
    return x, (torch.stack(last_h), torch.cat(last_c))


def _weights(net: LSTM, layer: int, backward: bool) -> list[Tensor]:
    """Return a layer's weights, U with a column for the input that is one at padding."""
    U, *others = (getattr(net.cell, name) for name in net.weight_names(layer, backward=backward))
    shut = {"i": -SHUT, "f": SHUT}
    column = torch.tensor([shut.get(gate, 0.0) for gate in net.GATES]).to(U).repeat_interleave(net.hidden)
    return [torch.cat([U, column[:, None]], 1), *others]
