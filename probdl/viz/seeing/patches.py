"""Top patches: what drives a channel of a layer most, in many inputs, and what of it gets through to the channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probdl.viz.seeing.batches import batches, rows_of
from probdl.viz.seeing.fields import boxes
from probdl.viz.seeing.graph import deconvolved, derivative
from probdl.viz.seeing.layers import as_tokens, held
from probdl.viz.seeing.scores import of_unit
from probdl.viz.seeing.unchanged import as_input, unchanged

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Patches:
    """The inputs in which a channel is largest, the strongest first.

    Attributes:
        value: (k,), the largest value of the channel in each input.
        index: (k,), which row of the data it is.
        position: (k, d), where in the channel: row and column of a map; (k, 0) for a layer without maps.
        box: (k, 4), the receptive field of that place, clipped to the image: top, bottom, left and right, the second
            and fourth not included. (k, 2 D) for inputs with D dimensions after the channels.
        image: (k, c, height, width), what is in the boxes. All have the size of the largest box; a box that the border
            clips has zeros beyond the border, as padded convolutions see them.
        projection: as ``image``, what the deconvolutional network makes of the unit, set to its value; None if it has
            no such picture.
        notes: why boxes are whole inputs or there are no projections, where that is so.
    """

    value: Tensor
    index: Tensor
    position: Tensor
    box: Tensor
    image: Tensor
    projection: Tensor | None
    notes: tuple[str, ...]

    def plot(self, columns: int = 9, ax: Axes | None = None) -> Axes:
        """Draw each patch above its projection; the number below is the value of the channel.

        Args:
            columns: the number of patches in a row.
            ax: where to draw; None makes a figure.

        Raises:
            ValueError: if patches are no images of one or three channels, and no sequences, which are drawn with a row
                for each channel; or if ``columns`` is no positive integer.
        """
        from probdl.viz.sheets import sheet

        return sheet(self.image, self.projection, [f"{value:.3g}" for value in self.value.tolist()], columns, ax)


def top_patches(model: nn.Module, data: Any, layer: str, channel: int, k: int = 9, batch_size: int = 256) -> Patches:
    r"""Return the k inputs in which a channel is largest, with the part of each that the largest unit sees.

    Of each input x the unit of the channel that is largest counts, :math:`\max_j a_{cj}(x)`, so that no input comes
    twice. Its receptive field is measured on a copy of the network: what part of the input can change it at all.
    Where layers couple everything (attention, linear layers, global pools, normalisations other than batch norm) that
    is all of it. The projection is that of Zeiler and Fergus: all units of the layer but that one are set to 0, and
    its value goes back through the deconvolutional network, with max-pools where they had their maxima.

    Args:
        model: any torch module; it runs in eval mode and is left as it was.
        data: inputs of shape (n, c, height, width), a tensor or an array; or (n, ...).
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them.
        channel: of the layer's output (n, channels, ...). In a layer without maps it is a unit.
        k: how many.
        batch_size: the number of inputs in a forward pass; memory grows with it, and not with the data.

    Returns:
        Patches, ordered by value, equal ones by their place in the data. The fields take up to two forward passes for
        each row and column of an input, in float64 on the CPU and no further than the layer. Without a ReLU below the
        layer, or where one could hide, there are no projections.

    Raises:
        TypeError: if ``model`` is no module, or ``data`` does not hold numbers.
        ValueError: for an unknown layer, a channel or k out of range, a layer that is NaN, empty or infinite ``data``,
            a ``batch_size`` that is no positive integer, or a compiled or scripted model.

    Reference:
        Zeiler & Fergus (2014), Visualizing and understanding convolutional networks.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2, bias=False), torch.nn.ReLU())
        >>> _ = torch.nn.init.ones_(model[0].weight)
        >>> data = torch.zeros(5, 1, 4, 4)
        >>> data[3, 0, 2, 1] = 7.0
        >>> found = top_patches(model, data, "1", channel=0, k=1)
        >>> found.value, found.index, found.position, found.box
        (tensor([7.]), tensor([3]), tensor([[1, 0]]), tensor([[1, 3, 0, 2]]))
    """
    rows = rows_of(data, "data")
    _check(channel, k, len(rows))
    with unchanged(model) as seen:
        if as_tokens(seen, rows) is not None:
            raise ValueError(
                "data must hold images, or other numbers to cut patches from; got tokens. Use activations."
            )
        with torch.no_grad():
            parts = [
                _largest(held(seen, x, [layer])[layer], layer, channel) for x in batches(seen, rows, "data", batch_size)
            ]
        values, positions = (torch.cat(part) for part in zip(*parts, strict=True))
        value, index = (order[:k] for order in values.sort(descending=True, stable=True))
        position = positions[index]
        x = as_input(seen, rows[index.tolist()], "data")
        box, unboxed = boxes(seen, layer, channel, position, x.shape[1:], batch_size)
        unit = torch.cat([torch.full_like(index, channel)[:, None], position], 1)
        try:
            projections, unseen = derivative(seen, x, of_unit(layer, unit), deconvolved), ""
        except ValueError as error:
            projections, unseen = None, f"There are no projections: {error}"
    if projections is not None:
        projections = cropped(projections * value.reshape(-1, *[1] * (x.ndim - 1)), box)
    notes = tuple(note for note in (unboxed, unseen) if note)
    return Patches(value, index, position, box.to(index.device), cropped(x, box), projections, notes)


def cropped(x: Tensor, box: Tensor) -> Tensor:
    """Return what is in a box of each row, (k, c, ...), in a frame of zeros of the size of the largest box."""
    ends = box.reshape(len(box), -1, 2)
    frame = (ends[..., 1] - ends[..., 0]).amax(0).tolist()
    return torch.stack(
        [_framed(row, [(a, b) for a, b in place], frame) for row, place in zip(x, ends.tolist(), strict=True)]
    )


def _framed(row: Tensor, place: list[tuple[int, int]], frame: list[int]) -> Tensor:
    part = row[(slice(None), *(slice(first, last) for first, last in place))]
    sides = [_missing(*at, side, size) for at, side, size in zip(place, row.shape[1:], frame, strict=True)]
    return F.pad(part, [n for before, after in reversed(sides) for n in (before, after)])


def _missing(first: int, last: int, side: int, size: int) -> tuple[int, int]:
    """Return how much of a frame is empty before and after a box: beyond the border that clips it, or around it."""
    empty = size - (last - first)
    before = empty if first == 0 and last < side else 0 if last == side and first > 0 else empty // 2
    return before, empty - before


def _largest(values: Tensor, layer: str, channel: int) -> tuple[Tensor, Tensor]:
    """Return the largest value of a channel in each row, (n,), and where it is, (n, d)."""
    values = values if values.ndim > 1 else values[:, None]
    if not 0 <= channel < values.shape[1]:
        raise ValueError(f"channel must be in 0, ..., {values.shape[1] - 1}, one of layer {layer!r}; got {channel}.")
    maps = values[:, channel]
    if bool(torch.isnan(maps).any()):
        raise ValueError(f"layer {layer!r} must hold numbers to be ordered; it holds NaN.")
    largest, where = maps.reshape(len(maps), -1).max(1)
    places = torch.unravel_index(where, maps.shape[1:]) if maps.ndim > 1 else ()
    return largest, torch.stack(places, 1) if places else where.new_empty(len(maps), 0)


def _check(channel: int, k: int, n: int) -> None:
    if isinstance(channel, bool) or not isinstance(channel, int):
        raise ValueError(f"channel must be an integer; got {channel!r}.")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to {n}, the number of inputs; got {k!r}.")
