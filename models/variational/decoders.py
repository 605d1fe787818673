"""The decoder of rows with a layout: the shape of its network's output, and the family around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probdl import families
from probdl.families import Conditional, MixedHead, Part
from probdl.models.variational.layout import Group, Layout

SCALES = ("shared", "column", "network")


class Making(NamedTuple):
    """How heads are made.

    Attributes:
        shape: of one row.
        scale: "shared", "column" or "network".
        free: whether scales are parameters, and not in closed form.
        rate: of counts, of the shape of one row.
    """

    shape: tuple[int, ...]
    scale: str
    free: bool
    rate: Tensor


def doubled(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a row that has twice as many entries along its first axis."""
    return (2 * shape[0], *shape[1:]) if shape else (2,)


def output_shape(layout: Layout, shape: Sequence[int], scale: str) -> tuple[int, ...]:
    """Return the shape of the network's output for one row: a row's, and a raw scale for entries that have one.

    Args:
        layout, scale: of the model.
        shape: of one row.

    Returns:
        ``shape``; with scale="network" for Gaussian rows twice as many entries along the first axis, means and then raw
        scales; for a mixed table all entries, and then the raw scales of its Gaussian ones.
    """
    if scale != "network" or all(group.name != "gaussian" for group in layout):
        return tuple(shape)
    if len(layout) == 1:
        return doubled(shape)
    return (shape[0] + sum(len(g.entries or ()) for g in layout if g.name == "gaussian"),)


def built_decoder(network: nn.Module, layout: Layout, how: Making) -> Conditional:
    """Return the family of rows around a network whose output has the ``output_shape``."""
    if len(layout) == 1:
        return _head(network, layout[0].name, how)
    parts, size = [], math.prod(how.shape)
    for group in layout:
        entries = group.entries or ()
        scales = tuple(range(size, size + len(entries))) if _is_normal(group) and how.scale == "network" else ()
        own = how._replace(shape=(len(entries),), rate=how.rate[list(entries)])
        parts.append(Part(_head(nn.Identity(), group.name, own), entries, entries + scales))
    return MixedHead(network, parts)


def _head(network: nn.Module, name: str, how: Making) -> Conditional:
    if name == "gaussian" and how.scale == "network":
        return families.NetworkScaleNormalHead(network, how.shape)
    if name == "gaussian":
        head = families.FreeScaleNormalHead if how.free else families.NormalHead
        return head(network, how.shape if how.scale == "column" else ())
    if name == "poisson":
        return families.PoissonHead(network, how.rate)
    return families.BernoulliHead(network) if name == "bernoulli" else families.CategoricalHead(network)


def _is_normal(group: Group) -> bool:
    return group.name == "gaussian"


def mean_counts(x: Tensor) -> Tensor:
    """Return the mean of each entry, of what is not missing; at least half a count in all rows."""
    return x.nanmean(0).nan_to_num(1.0).clamp(min=0.5 / len(x))


def scales(decoder: Conditional, layout: Layout, shape: Sequence[int], scale: Tensor) -> Tensor:
    """Return the standard deviations of Gaussian entries in the data's units.

    Args:
        decoder: as ``built_decoder`` made it.
        layout, shape: of a row.
        scale: of the units.

    Returns:
        For Gaussian rows one number, or one for each entry; for a mixed table one for each entry, NaN where it is not
        Gaussian.

    Raises:
        ValueError: if there is none that all rows share.
    """
    heads = list(decoder.heads) if isinstance(decoder, MixedHead) else [decoder]
    found: Tensor | None = None
    for head, group in zip(heads, layout):
        if isinstance(head, families.NetworkScaleNormalHead):
            raise ValueError("sigma depends on z for scale='network'; no number holds for all rows.")
        if isinstance(head, (families.NormalHead, families.FreeScaleNormalHead)):
            own = head.variance.detach().double().sqrt()
            if group.entries is None:
                return own * scale
            found = torch.full(tuple(shape), torch.nan, dtype=torch.float64, device=own.device)
            found[list(group.entries)] = own * scale.expand(tuple(shape))[list(group.entries)]
    if found is None:
        raise ValueError(f"sigma is a Gaussian decoder's; this model has likelihood {layout[0].name!r}.")
    return found
