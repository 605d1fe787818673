"""Receptive fields: which part of the input a unit of a layer can see, measured and not derived from a list of layers.

On a float64 copy of the network whose weights are 1, whose biases are 0 and whose batch norms do nothing, rows and
columns of the input are set in turn to 1, and to NaN. A unit sees a row if its value is then other than for an input of
zeros. Ones are enough for convolutions, pools, ReLUs and sums; NaN also gets through what can hide them: gates
that are closed at zero, saturated sigmoids, differences, and normalisations, which couple all that they average over.
"""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.layers import hooked

PROBES = (1.0, math.nan)


def boxes(
    model: nn.Module, layer: str, channel: int, position: Tensor, size: torch.Size, batch_size: int
) -> tuple[Tensor, str]:
    """Return the receptive fields of some units of a channel: the smallest boxes that hold all that they can see.

    Args:
        model: in eval mode.
        layer: the name of a layer.
        channel: of the layer.
        position: (k, d), where in the channel each unit is.
        size: of an input, (channels, ...), with D dimensions after the channels.
        batch_size: the number of inputs in a forward pass.

    Returns:
        (k, 2 D), for each dimension the first place seen and the one after the last: top, bottom, left, right of an
        image; and a note, which is empty unless the field could not be had and the box is the whole input.
    """
    sides = size[1:]
    whole = torch.tensor([end for side in sides for end in (0, side)]).expand(len(position), -1)
    try:
        bare = structure(model)
        with torch.no_grad():
            probes = [_Probe(bare, layer, channel, position, size, dim, batch_size) for dim in range(len(sides))]
            ends = [end for end in (probe.ends() for probe in probes) if end is not None]
    except Exception as error:  # whatever the user's network raises on a float64 copy, or on NaN
        return whole, f"Boxes are the whole input: the network could not be probed ({type(error).__name__}: {error})."
    if len(ends) < len(sides):
        return whole, "Boxes are the whole input: the network, probed with ones and with NaN, let nothing through."
    return (torch.cat(ends, 1) if ends else whole), ""


def structure(model: nn.Module) -> nn.Module:
    """Return a copy that only adds and takes maxima, in float64 on the CPU, where a NaN stays in its own sums."""
    bare = copy.deepcopy(model).to("cpu", torch.float64)
    for name, parameter in bare.named_parameters():
        parameter.data.fill_(0.0 if name.rsplit(".", 1)[-1].startswith("bias") else 1.0)
    for name, buffer in bare.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("var")))
    return bare


@dataclass(frozen=True)
class _Probe:
    """Asks what some units of a channel see along one dimension of the input."""

    model: nn.Module
    layer: str
    channel: int
    position: Tensor
    size: torch.Size
    dim: int
    batch_size: int

    def ends(self) -> Tensor | None:
        """Return the first place that each unit sees and the one after the last, (k, 2); None if one sees nothing.

        Blocks of places are probed first, and then the places of those blocks in which a field begins or ends.
        """
        side = self.size[self.dim + 1]
        places = torch.arange(side)
        blocks = places // math.ceil(side**0.5)
        coarse = self._seen(blocks.unique()[:, None] == blocks)
        if not bool(coarse.any(1).all()):
            return None
        fine = places[torch.isin(blocks, _outermost(coarse))]
        seen = self._seen(fine[:, None] == places)
        return fine[_outermost(seen)] + torch.tensor([0, 1]) if bool(seen.any(1).all()) else None

    def _seen(self, masks: Tensor) -> Tensor:
        """Say for each unit which of several sets of places, (m, side), it sees: (k, m)."""
        at_zero = self._values(torch.zeros(1, masks.shape[1], dtype=torch.bool), 0.0)
        changed = [
            torch.cat([self._values(part, value) != at_zero for part in masks.split(self.batch_size)])
            for value in PROBES
        ]
        return torch.stack(changed).any(0).T

    def _values(self, masks: Tensor, value: float) -> Tensor:
        """Return the units, (m, k), for inputs of zeros in which a set of places has a value in all channels."""
        shape = [-1 if dim == self.dim + 1 else 1 for dim in range(len(self.size))]
        x = torch.where(masks.reshape(len(masks), *shape), value, 0.0).to(torch.float64)
        found = _up_to(self.model, x.expand(-1, *self.size).contiguous(), self.layer)
        unit: tuple[Any, ...] = (slice(None), self.channel, *self.position.cpu().unbind(1))
        units = (found if found.ndim > 1 else found[:, None])[unit]
        return units.reshape(len(masks), -1).expand(-1, len(self.position))  # one unit for all where there are no maps


class _Reached(Exception):
    """A forward pass has come to the layer that was asked for."""


def _up_to(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    """Return what a layer holds, and compute nothing after it."""
    held: list[Tensor] = []

    def look(name: str, output: Tensor) -> None:
        if name == layer:
            held.append(output)
            raise _Reached

    with suppress(_Reached), hooked(model, look):
        model(x)
    return held[0]


def _outermost(seen: Tensor) -> Tensor:
    """Return the first and the last place that is seen in each row, (k, 2)."""
    seen = seen.int()
    return torch.stack([seen.argmax(1), seen.shape[1] - 1 - seen.flip(1).argmax(1)], 1)
