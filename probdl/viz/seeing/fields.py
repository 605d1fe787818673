"""Receptive fields: which part of the input a unit of a layer can see, measured and not derived from a list of layers.

On a float64 copy of the network whose weights are 1, whose biases are 0 and whose batch norms do nothing, each row and
each column of the input is set in turn to 1, and to NaN. The unit sees a row if its value is then other than for an
input of zeros. Ones are enough for convolutions, pools, ReLUs and sums; NaN also gets through what can hide them: gates
that are closed at zero, saturated sigmoids, differences, and normalisations, which couple all that they average over.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from probdl.viz.seeing.layers import held

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
        with torch.no_grad():
            seen = [
                _seen(structure(model), layer, channel, position, size, dim, batch_size) for dim in range(len(sides))
            ]
    except Exception as error:  # whatever the user's network raises on a float64 copy, or on NaN
        return whole, f"Boxes are the whole input: the network could not be probed ({type(error).__name__}: {error})."
    if not all(bool(places.any(1).all()) for places in seen):
        return whole, "Boxes are the whole input: the network, probed with ones and with NaN, let nothing through."
    return torch.cat([_ends(places) for places in seen], 1) if seen else whole, ""


def structure(model: nn.Module) -> nn.Module:
    """Return a copy that only adds and takes maxima, in float64 on the CPU, where a NaN stays in its own sums."""
    bare = copy.deepcopy(model).to("cpu", torch.float64)
    for name, parameter in bare.named_parameters():
        parameter.data.fill_(0.0 if name.rsplit(".", 1)[-1].startswith("bias") else 1.0)
    for name, buffer in bare.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("var")))
    return bare


def _seen(
    bare: nn.Module, layer: str, channel: int, position: Tensor, size: torch.Size, dim: int, batch_size: int
) -> Tensor:
    """Say for each unit which places along a dimension it sees: (k, side)."""

    def values(x: Tensor) -> Tensor:
        found = held(bare, x, [layer])[layer]
        units = (found if found.ndim > 1 else found[:, None])[(slice(None), channel, *position.cpu().unbind(1))]
        return units.reshape(len(x), -1).expand(-1, len(position))  # one unit for all where there are no maps

    side, at_zero = size[dim + 1], values(torch.zeros(1, *size, dtype=torch.float64))
    places = torch.arange(side)
    changed = [
        torch.cat([values(_probes(part, value, size, dim)) != at_zero for part in places.split(batch_size)])
        for value in PROBES
    ]
    return torch.stack(changed).any(0).T


def _probes(places: Tensor, value: float, size: torch.Size, dim: int) -> Tensor:
    """Return inputs of zeros with one place along a dimension set, in all channels: (len(places), *size)."""
    x = torch.zeros(len(places), *size, dtype=torch.float64).movedim(dim + 2, 1)
    x[torch.arange(len(places)), places] = value
    return x.movedim(1, dim + 2).contiguous()


def _ends(places: Tensor) -> Tensor:
    """Return the first place that is seen and the one after the last: (k, 2)."""
    first, last = places.int().argmax(1), places.shape[1] - places.flip(1).int().argmax(1)
    return torch.stack([first, last], 1)
