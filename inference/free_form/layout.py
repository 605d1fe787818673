"""Which latents make up which factor of the mean field."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import BLOCKS, CategoricalBlock
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.factors import Layout, _axes, _residual
from probdl.inference.free_form.gaussian_block import ArrowBlock, GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.probing import NotConjugate, Parameter, index_along
from probdl.inference.free_form.reading import Reading, Site, Values

LARGEST = 1500  # entries of a joint Gaussian unit


@dataclass
class _View:
    """How the Gaussian latents enter the location of one site: indices along the dimensions of each latent."""

    site: str
    index: dict[str, list[Tensor | None]]
    interacting: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class _Group:
    """Sites that will be one Gaussian block."""

    places: dict[str, Tensor]
    units: int
    size: int
    core: int = 0  # entries that all units see; an arrow

    @property
    def total(self) -> int:
        return self.units * self.size + self.core


def gaussian_groups(reading: Reading, names: tuple[str, ...], whole: set[str]) -> list[_Group]:
    """Group Gaussian latents: connected ones jointly, unless they multiply each other or would be too large.

    Args:
        reading: the recorded program.
        names: the Gaussian latents.
        whole: those that a factor sees as a whole, so that they are one unit.
    """
    views = [v for site in reading.sites.values() if site.kind == "gaussian" if (v := _view(reading, site, names))]
    groups = {name: _single(reading, name, views, name in whole) for name in names}
    multiply = {pair for v in views for pair in v.interacting}
    pairs = {tuple(sorted(p)) for v in views for p in combinations(v.index, 2)} | set(combinations(sorted(whole), 2))
    owner = {name: groups[name] for name in names}
    for _ in range(len(names)):
        best = _best_merge(pairs, multiply, owner, views)
        if best is None:
            break
        for name in best.places:
            owner[name] = best
    return list({id(g): g for g in owner.values()}.values())


def _view(reading: Reading, site: Site, names: tuple[str, ...]) -> _View | None:
    axes = _axes(reading, site)
    location = Parameter(reading, site, 0, axes)
    evaluate = _residual(reading, location, site, len(axes)) if site.value is None else location
    seen = [n for n in names if n in location.parents or (site.value is None and n == site.name)]
    if not seen:
        return None
    a, b, c = (reading.random_values(seed) for seed in (41, 42, 43))
    view = _View(site.name, {})
    for name in seen:
        _check_affine(evaluate, site.name, name, a, b, c)
        dims = range(len(reading.shape(name)))
        view.index[name] = [index_along(evaluate, a, name, d, b[name], c[name]) for d in dims]
    for first, second in combinations(seen, 2):
        corners = [
            evaluate({**a, **move})
            for move in ({}, {first: b[first]}, {second: b[second]}, {first: b[first], second: b[second]})
        ]
        mixed = corners[0] - corners[1] - corners[2] + corners[3]
        if bool((mixed.abs() > 1e-9 * (1 + torch.stack(corners).abs().amax())).any()):
            view.interacting.add((min(first, second), max(first, second)))
    return view


def _check_affine(evaluate: Any, site: str, name: str, a: Values, b: Values, c: Values) -> None:
    points = [a[name], b[name], c[name], a[name] + b[name] - c[name]]
    w, x, y, z = (evaluate({**a, name: p}) for p in points)
    scale = torch.stack([w, x, y, z]).abs().amax()
    if not bool(((w + x - y - z).abs() <= 1e-9 * (1 + scale)).all()):
        raise NotConjugate(site, name, "has a location that is not affine in the latent", grid=False)


def _single(reading: Reading, name: str, views: list[_View], whole: bool) -> _Group:
    """The units of one site: the dimensions along which each entry of every location sees a single index."""
    shape = reading.shape(name)
    inner = [whole or _is_inner(d, name, views) for d in range(len(shape))]
    outer_dims = [d for d in range(len(shape)) if not inner[d]]
    inner_dims = [d for d in range(len(shape)) if inner[d]]
    order = outer_dims + inner_dims
    flat = torch.arange(shape.numel()).reshape([shape[d] for d in order])
    back = [order.index(d) for d in range(len(shape))]
    size = 1
    for d in inner_dims:
        size *= shape[d]
    return _Group({name: flat.permute(back)}, shape.numel() // max(size, 1), size)


def _is_inner(dim: int, name: str, views: list[_View]) -> bool:
    for view in views:
        if name in view.index:
            index = view.index[name][dim]
            if index is None or bool((index != index.narrow(-1, 0, 1)).any()):
                return True
    return False


def _best_merge(pairs: set, multiply: set, owner: dict[str, _Group], views: list[_View]) -> _Group | None:
    candidates = []
    for first, second in pairs:
        a, b = owner[first], owner[second]
        if a is b or any((min(x, y), max(x, y)) in multiply for x in a.places for y in b.places):
            continue
        merged = _merge(a, b, all(_same_units(a, b, v) for v in views))
        alone = {name for pair in multiply for name in pair}
        if merged.core and alone & set(merged.places):
            continue
        if merged.size + merged.core <= LARGEST:
            candidates.append(merged)
    return min(candidates, key=lambda g: g.size + g.core, default=None)


def _same_units(a: _Group, b: _Group, view: _View) -> bool:
    """Whether two groups have units of the same number, and each entry sees the same unit of both."""
    if a.units != b.units or a.core or b.core:
        return False
    units = []
    for group in (a, b):
        for name, place in group.places.items():
            if name in view.index:
                units.append(_units_of(view.index[name], place, group))
    return all(bool((u == v).all()) for u, v in zip(units, units[1:]))


def _units_of(index: list[Tensor | None], place: Tensor, group: _Group) -> Tensor:
    """The unit that each entry of a location sees, by the indices along the outer dimensions."""
    at = tuple(torch.zeros((), dtype=torch.long) if i is None else i.amax(-1).cpu() for i in index)
    return place[at] // group.size if at else torch.zeros((), dtype=torch.long)


def _merge(a: _Group, b: _Group, same_units: bool) -> _Group:
    if same_units:
        size = a.size + b.size
        left = {n: p // a.size * size + p % a.size for n, p in a.places.items()}
        right = {n: p // b.size * size + a.size + p % b.size for n, p in b.places.items()}
        return _Group(left | right, a.units, size)
    if a.total < b.total or a.units == 1:
        a, b = b, a  # the one with more units makes the leaves of an arrow, all else its core
    if a.units == 1:
        shifted = {n: p + a.total for n, p in b.places.items()}
        return _Group(a.places | shifted, 1, a.total + b.total)
    shifted = {n: p + a.total for n, p in b.places.items()}
    return _Group(a.places | shifted, a.units, a.size, a.core + b.total)


def scalar_block(reading: Reading, site: Site, typical: Values) -> Any:
    """Return the factor of a latent that is neither Gaussian nor in a chain, started at its prior."""
    name, shape = site.name, reading.shape(site.name)
    if name in reading.discrete:
        support = reading.support(name)
        zeros = torch.zeros(shape.numel(), len(support), dtype=reading.program.dtype, device=reading.program.device)
        return CategoricalBlock(name, shape, support, zeros)
    if site.kind not in BLOCKS:
        latent = reading.program.latents[name]
        if not latent.is_elementwise():
            raise NotConjugate(name, name, "is none that coordinate ascent knows, and no scalar to put on a grid: ")
        return GridBlock(latent, latent.transform.inv(typical[name]).reshape(-1))
    kind, event = BLOCKS[site.kind]
    natural = [reading.evaluate(site, i, typical) for i in range(1, len(site.parts))]
    units = shape[: len(shape) - event].numel()
    start = torch.cat([x.reshape(units, -1).to(reading.program.dtype) for x in natural], 1)
    return kind(name, shape, event, start)


def chains(reading: Reading) -> list[tuple[str, ...]]:
    """Return the chains of discrete latents: each site's one discrete parent, where no latent has two children."""
    parent = {}
    for name in reading.program.discrete:
        axes = _axes(reading, reading.sites[name])
        same = len(axes) == 1 and reading.shape(axes[0]) == reading.shape(name)
        if same and reading.sites[name].kind == "categorical":
            parent[name] = axes[0]
    children: dict[str, list[str]] = {}
    for name, p in parent.items():
        children.setdefault(p, []).append(name)
    links = {p: names[0] for p, names in children.items() if len(names) == 1}
    heads = [p for p in links if links.get(parent.get(p, "")) != p]
    paths = []
    for head in heads:
        path = [head]
        while path[-1] in links:
            path.append(links[path[-1]])
        paths.append(tuple(path))
    return paths


def lay_out(reading: Reading, typical: Values, whole: set[str]) -> tuple[Layout, list[Any]]:
    """Return the layout of the mean field, and its blocks in the order of the program."""
    names = reading.gaussian_latents
    gaussian = [_gaussian_block(g, typical) for g in gaussian_groups(reading, names, whole)]
    scalar: dict[str, Any] = {}
    for sequence, path in reading.sequences.items():
        support, shape = reading.support(path[0]), reading.shape(path[0])
        rows = len(path) * shape.numel()
        zero = torch.zeros(rows, len(support), dtype=reading.program.dtype, device=reading.program.device)
        block = ChainBlock(path, sequence, shape, support, zero)
        scalar |= dict.fromkeys((*path, sequence), block)
    for name in reading.latents:
        if name not in scalar and name not in names:
            scalar[name] = scalar_block(reading, reading.sites[name], typical)
    by_name = scalar | {n: b for b in gaussian for n in b.names}
    blocks = list({id(by_name[n]): by_name[n] for n in reading.latents}.values())
    layout = Layout(scalar, gaussian)
    layout.split = tuple(n for b in gaussian for n in b.names) if len(gaussian) > 1 and _too_large(gaussian) else ()
    return layout, blocks


def _too_large(gaussian: list[GaussianBlock]) -> bool:
    """Whether the Gaussian latents together would pass the limit, so that connected ones may have been left apart."""
    return sum(b.units * b.size for b in gaussian) > LARGEST and all(b.units == 1 for b in gaussian)


def _gaussian_block(group: _Group, typical: Values) -> GaussianBlock:
    like = next(iter(typical.values()))
    places = {n: p.to(like.device) for n, p in group.places.items()}
    flat = torch.zeros(group.total, dtype=typical[next(iter(places))].dtype, device=like.device)
    for name, place in places.items():
        flat[place.reshape(-1)] = typical[name].reshape(-1)
    if group.core:
        return ArrowBlock(places, group.units, group.size, group.core, flat)
    return GaussianBlock(places, group.units, group.size, flat.reshape(group.units, group.size))
