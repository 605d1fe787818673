"""Sums of a site's statistics over its entries, weighted by the probabilities of the discrete latents it sees."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.probing import NotConjugate, Parameter, flat_index
from probdl.inference.free_form.reading import Reading, Site

Moments = dict[Any, Any]


class Weights:
    """The weights of a site's entries: constant masks and scales, and one axis for each discrete latent it sees.

    Args:
        reading: the recorded program.
        site: the site.
        axes: the discrete latents that it sees.
        collapsed: the batch dimensions along which no parameter of the site changes.
    """

    def __init__(self, reading: Reading, site: Site, axes: tuple[str, ...], collapsed: tuple[int, ...]) -> None:
        self.site, self.axes, self.collapsed = site, axes, collapsed
        self.index = [_unit_seen(reading, site, name) for name in axes]
        varying = {d for index in self.index for d, n in enumerate(index.shape) if n > 1}
        self.contracted = tuple(sorted(varying)) if varying <= set(collapsed) else None
        self._constant: dict[int, Tensor] = {}

    def probabilities(self, moments: Moments) -> Tensor | None:
        """The joint probability of the axes' values for each entry, (K₁, …, *batch), or None without axes."""
        if not self.axes:
            return None
        out: Tensor | float = 1.0
        for axis, (name, index) in enumerate(zip(self.axes, self.index)):
            (r,) = moments[name]
            weights = r[index].movedim(-1, 0)
            shape = [1] * len(self.axes)
            shape[axis] = len(weights)
            out = out * weights.reshape((*shape, *weights.shape[1:]))
        assert isinstance(out, Tensor)
        return out

    def total(self, i: int, statistic: Tensor, moments: Moments, constant: bool) -> Tensor:
        """Σ weight · T over the collapsed entries, (K₁, …, *batch with ones, *event).

        Args:
            i: which statistic, to remember what is constant.
            statistic: T, (*batch, *event).
            moments: of the blocks.
            constant: whether T is the same at each call, as of an observation.
        """
        if not constant or i not in self._constant:
            weighted = self._weighted(statistic)
            rest = [d for d in self.collapsed if self.contracted is None or d not in self.contracted]
            if self.contracted is not None or not self.axes:
                weighted = weighted.sum(rest, keepdim=True) if rest else weighted
                if self.axes:
                    weighted = self._contracted_first(weighted)
            self._constant[i] = weighted
        prepared = self._constant[i]
        r = self.probabilities(moments)
        if r is None:
            return prepared
        k = r.shape[: len(self.axes)]
        event = statistic.ndim - len(self.site.batch)
        if self.contracted is not None:
            rows = math.prod(prepared.shape[: len(self.contracted)])
            flat = prepared.reshape(rows, -1)
            out = r.expand(*k, *self._spread_contracted(r)).reshape(math.prod(k), rows) @ flat
            shape = [1 if d in self.contracted else n for d, n in enumerate(self._kept_shape(statistic, event))]
            return out.reshape((*k, *shape))
        out = r.reshape((*r.shape, *(1,) * event)) * prepared
        dims = [len(k) + d for d in self.collapsed]
        return out.sum(dims, keepdim=True) if dims else out

    def _kept_shape(self, statistic: Tensor, event: int) -> list[int]:
        batch = [1 if d in self.collapsed else n for d, n in enumerate(self.site.batch)]
        return [*batch, *statistic.shape[statistic.ndim - event :]]

    def _spread_contracted(self, r: Tensor) -> list[int]:
        """The batch dimensions of the probabilities at full size where they are contracted."""
        assert self.contracted is not None
        return [self.site.batch[d] if d in self.contracted else 1 for d in range(len(self.site.batch))]

    def _contracted_first(self, x: Tensor) -> Tensor:
        assert self.contracted is not None
        return x.movedim(self.contracted, tuple(range(len(self.contracted))))

    def _weighted(self, statistic: Tensor) -> Tensor:
        w = self.site.weight
        if w is None:
            return statistic
        event = statistic.ndim - len(self.site.batch)
        w = w.expand(self.site.batch)
        return statistic * w.reshape((*w.shape, *(1,) * event))


def _unit_seen(reading: Reading, site: Site, name: str) -> Tensor:
    """Which unit of a discrete latent each entry sees, (*batch) with size 1 where it does not change.

    A parameter may read a latent and not change with it, such as a zero of its shape; so all that read it are asked.
    """
    support, shape = reading.support(name), reading.shape(name)
    low, high = support[0].expand(shape), support[-1].expand(shape)
    index = torch.zeros(site.batch, dtype=torch.long, device=low.device)
    for which, parents in enumerate(site.parents):
        if name in parents:
            found = _unit_of(reading, site, which, name, low, high)
            index = torch.maximum(index, found.flatten(len(site.batch)).amax(-1).reshape(site.batch))
    for dim in range(index.ndim):
        first = index.narrow(dim, 0, 1)
        if bool((index == first).all()):
            index = first
    return index


def _unit_of(reading: Reading, site: Site, which: int, name: str, low: Tensor, high: Tensor) -> Tensor:
    def evaluate(values: dict[str, Tensor]) -> Tensor:
        return reading.evaluate(site, which, values)

    index = flat_index(evaluate, reading.random_values(21), name, low, high, low.ndim)
    if index is None:
        raise NotConjugate(site.name, name, "sees several entries at once of the discrete latent")
    return index[..., None]


def collapsed_dims(parameters: list[Parameter], site: Site) -> tuple[int, ...]:
    """The batch dimensions that every parameter of a site has collapsed."""
    offset = len(parameters[0].axes)
    return tuple(
        d for d in range(len(site.batch)) if all(d + offset in p.collapsed or site.batch[d] == 1 for p in parameters)
    )
