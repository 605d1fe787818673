"""What does an array depend on? Answered by evaluating it at chosen values of the latents.

An array of natural parameters is a function of latent values. Its entries usually see one entry of a latent array each
(``tau[group]``, ``mu[k]``), and see it through the sufficient statistics of the latent's family. Both are found here,
however the program is written, and checked at other values: that check is the certificate of conjugacy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from probdl.inference.free_form.reading import Reading, Site, Values
from probdl.inference.programs.derivatives import at_least


class NotConjugate(ValueError):
    """A factor does not have the form that the mean field needs.

    Args:
        site: whose factor.
        latent: the latent at fault.
        reason: what is wrong, before the latent's name.
        grid: whether it could be mended by putting the latent on a grid.
    """

    def __init__(self, site: str, latent: str, reason: str, grid: bool = True) -> None:
        super().__init__(f"the factor of site {site!r} {reason} {latent!r}")
        self.site, self.latent, self.grid = site, latent, grid


class Parameter:
    """One natural parameter of a site, with discrete parents summed over and constant dimensions collapsed.

    An evaluation has the shape (K₁, …, *batch, *event): an axis for each discrete latent that the site sees (of size 1
    where this parameter does not see it), then the site's batch, in which a dimension along which nothing changes has
    size 1.

    Args:
        reading: the recorded program.
        site: the site.
        which: the index of the natural parameter.
        axes: the discrete latents that the site sees, one axis each.
    """

    def __init__(self, reading: Reading, site: Site, which: int, axes: tuple[str, ...]) -> None:
        self.reading, self.site, self.which, self.axes = reading, site, which, axes
        self.parents = tuple(name for name in site.parents[which] if name not in reading.discrete)
        self._supports = [reading.support(name) if name in site.parents[which] else None for name in axes]
        self.collapsed: list[int] = []
        probes = [self(reading.random_values(seed)) for seed in (3, 4)]
        self.parents = tuple(name for name in self.parents if self._sees(name))
        self.event = probes[0].ndim - len(axes) - len(site.batch)
        for dim in range(len(axes), len(axes) + len(site.batch)):
            if all(bool(close(x, x.narrow(dim, 0, 1)).all()) for x in probes):
                self.collapsed.append(dim)

    def _sees(self, name: str) -> bool:
        """Whether the parameter changes with a latent; a graph may read its shape only."""
        here, there = (self.reading.random_values(seed) for seed in (5, 6))
        return not torch.equal(self(here), self({**here, name: there[name]}))

    def __call__(self, values: Values) -> Tensor:
        """Return the parameter at latent values."""
        rows = [
            self._at(values, choice) for choice in product(*[range(1 if s is None else len(s)) for s in self._supports])
        ]
        sizes = [1 if s is None else len(s) for s in self._supports]
        out = rows[0] if not self.axes else torch.stack(rows).reshape((*sizes, *rows[0].shape))
        for dim in self.collapsed:
            out = out.narrow(dim, 0, 1)
        return out

    def _at(self, values: Values, choice: Sequence[int]) -> Tensor:
        fixed = dict(values)
        for name, support, k in zip(self.axes, self._supports, choice):
            if support is not None:
                fixed[name] = support[k].expand(self.reading.shape(name))
        return self.reading.evaluate(self.site, self.which, fixed)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> Tensor:
    """Whether entries agree up to rounding; infinities agree with themselves."""
    tolerance = at_least(tolerance, a.dtype, 1e4)
    return (a == b) | ((a - b).abs() <= tolerance * torch.maximum(a.abs(), b.abs()).clamp(min=1e-3))


def index_along(
    evaluate: Callable[[Values], Tensor], values: Values, name: str, dim: int, low: Tensor, high: Tensor
) -> Tensor | None:
    """Return for each entry of an array which index along one dimension of a latent it sees, or None if several.

    The entries of the latent are set to ``low`` or ``high`` by the bits of their index; an entry of the array that sees
    one index only has the value that it has when all are low, or all are high, and spells the index out bit by bit.
    """
    at_low, at_high = (evaluate({**values, name: x}) for x in (low, high))
    sees = ~close(at_low, at_high)
    index = torch.zeros(at_low.shape, dtype=torch.long, device=low.device)
    size = low.shape[dim]
    position = torch.arange(size, device=low.device).reshape([-1 if d == dim else 1 for d in range(low.ndim)])
    for bit in range((size - 1).bit_length()):
        out = evaluate({**values, name: torch.where((position >> bit) % 2 == 1, high, low)})
        is_high, is_low = close(out, at_high), close(out, at_low)
        if bool((sees & ~is_high & ~is_low).any()):
            return None
        index += (sees & is_high).long() << bit
    return index


def flat_index(
    evaluate: Callable[[Values], Tensor], values: Values, name: str, low: Tensor, high: Tensor, dims: int
) -> Tensor | None:
    """Return the flat index over the first ``dims`` dimensions of the entry of a latent that each entry sees."""
    index = torch.zeros((), dtype=torch.long, device=low.device)
    for dim in range(dims):
        along = index_along(evaluate, values, name, dim, low, high)
        if along is None:
            return None
        index = index * low.shape[dim] + along
    if not dims:
        return torch.zeros(evaluate({**values, name: low}).shape, dtype=torch.long, device=low.device)
    return index
