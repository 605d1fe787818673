"""Which form a location has: found by evaluating it at vectors of the Gaussian blocks, and certified at others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.free_form.gaussian_block import ArrowBlock, GaussianBlock
from probdl.inference.free_form.locations import AffineLocation, AffinePart, BilinearLocation
from probdl.inference.free_form.probing import NotConjugate, Parameter, close
from probdl.inference.free_form.reading import Values

Evaluate = Callable[[Values], Tensor]


def compile_location(evaluate: Parameter | Evaluate, site: str, blocks: list[GaussianBlock], values: Values):
    """Return the location as an ``AffineLocation`` or a ``BilinearLocation`` of the blocks it sees.

    Args:
        evaluate: latent values → the location, (F, d).
        site: its name, for errors.
        blocks: the Gaussian blocks that it may see.
        values: values of the other latents, which it does not see.

    Raises:
        NotConjugate: if it is neither.
    """
    probe = _Probe(evaluate, blocks, values)
    seen = [i for i in range(len(blocks)) if probe.sees(i)]
    pairs = [(i, j) for n, i in enumerate(seen) for j in seen[n + 1 :] if probe.interact(i, j)]
    if not pairs:
        location: AffineLocation | BilinearLocation = AffineLocation(probe.zero, [probe.affine(i) for i in seen])
    elif len(seen) == 2 and probe.zero.shape[-1] == 1 and not any(isinstance(b, ArrowBlock) for b in blocks):
        location = probe.bilinear(*pairs[0])
    else:
        names = ", ".join(name for i in seen for name in blocks[i].names)
        raise NotConjugate(site, names, "is a product of more than two, or of vectors of, the latents", grid=False)
    _certify(location, probe, site, blocks)
    return location


class _Probe:
    """Evaluates a location at vectors of the blocks; those not given are zero."""

    def __init__(self, evaluate: Evaluate, blocks: list[GaussianBlock], values: Values) -> None:
        self.evaluate, self.blocks, self.values = evaluate, blocks, values
        generator = torch.Generator().manual_seed(31)
        like = blocks[0].mean if blocks else torch.zeros(1, 1)
        self.random = [
            [torch.randn(b.units, b.size, generator=generator, dtype=like.dtype).to(like.device) for _ in range(3)]
            for b in blocks
        ]
        self.zero = self.at({})

    def at(self, vectors: dict[int, Tensor]) -> Tensor:
        values = dict(self.values)
        for i, block in enumerate(self.blocks):
            z = vectors.get(i)
            values |= block.value(torch.zeros_like(block.mean).reshape(-1) if z is None else z.reshape(-1))
        return self.evaluate(values)

    def sees(self, i: int) -> bool:
        others = {j: self.random[j][0] for j in range(len(self.blocks))}
        return not bool(close(self.at(others), self.at({**others, i: self.random[i][1]})).all())

    def interact(self, i: int, j: int) -> bool:
        a, b = self.random[i][0], self.random[j][0]
        mixed = self.at({i: a, j: b}) - self.at({i: a}) - self.at({j: b}) + self.zero
        return bool((mixed.abs() > 1e-9 * (1 + self.at({i: a, j: b}).abs().max())).any())

    def units(self, i: int, others: dict[int, Tensor]) -> Tensor:
        """The unit of block i that each row of entries sees, (F)."""
        block, (low, high, _) = self.blocks[i], self.random[i]
        units, rows = self._rows(block)
        high = torch.where(rows < 0, low, high)  # the core of an arrow stays where it is
        at_low, at_high = (self.at({**others, i: x}) for x in (low, high))
        sees = ~close(at_low, at_high)
        index = torch.zeros(at_low.shape, dtype=torch.long, device=low.device)
        for bit in range((units - 1).bit_length()):
            out = self.at({**others, i: torch.where((rows >> bit) % 2 == 1, high, low)})
            index += (sees & close(out, at_high)).long() << bit
        found = index.amax(-1)
        for dim in range(found.ndim):
            first = found.narrow(dim, 0, 1)
            if bool((found == first).all()):
                found = first
        return found

    def _rows(self, block: GaussianBlock) -> tuple[int, Tensor]:
        """The number of units, and the unit of each position, −1 in the core of an arrow; (units, size)."""
        if isinstance(block, ArrowBlock):
            leaves = torch.arange(block.leaves * block.leaf, device=self.zero.device) // block.leaf
            return block.leaves, torch.cat([leaves, leaves.new_full((block.core,), -1)])[None]
        return block.units, torch.arange(block.units, device=self.zero.device)[:, None].expand(-1, block.size)

    def _directions(self, block: GaussianBlock) -> list[Tensor]:
        """Ones at each position, in all units at once; then at each of the core of an arrow."""
        if not isinstance(block, ArrowBlock):
            return [e.expand(block.units, -1) for e in torch.eye(block.size, dtype=self.zero.dtype).to(self.zero)]
        position = torch.arange(block.size, device=self.zero.device)
        n = block.leaves * block.leaf
        leaves = [((position < n) & (position % block.leaf == i)) for i in range(block.leaf)]
        core = [position == n + j for j in range(block.core)]
        return [x.to(self.zero)[None] for x in (*leaves, *core)]

    def columns(self, i: int) -> Tensor:
        """A for block i, (F, d, k): the slopes along each direction."""
        return torch.stack([self.at({i: e}) - self.zero for e in self._directions(self.blocks[i])], -1)

    def affine(self, i: int) -> AffinePart:
        block, a = self.blocks[i], self.columns(i)
        a = torch.where(a.abs() < 1e-13 * a.abs().amax(), torch.zeros_like(a), a)
        for dim in range(a.ndim - 2):
            first = a.narrow(dim, 0, 1)
            if a.shape[dim] > 1 and bool((a == first).all()):
                a = first
        units = self.units(i, {})
        used = (a != 0).any(-2)
        most = max(int(used.sum(-1).max()), 1)
        arrow = isinstance(block, ArrowBlock)
        if arrow or (block.size > 8 and most**2 * 8 < block.size):  # few of many positions: gather them
            positions = used.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., :most]
            a = a.gather(-1, positions[..., None, :].expand(*a.shape[:-1], most))
            if isinstance(block, ArrowBlock):
                core = positions >= block.leaf
                shift = block.leaves * block.leaf - block.leaf
                positions = torch.where(core, positions + shift, positions + units[..., None] * block.leaf)
                units = torch.zeros_like(units)
            return AffinePart(block, units, positions, a)
        return AffinePart(block, units, None, a)

    def bilinear(self, i: int, j: int) -> BilinearLocation:
        left, right = self.blocks[i], self.blocks[j]
        u = self.units(i, {j: self.random[j][2]})
        v = self.units(j, {i: self.random[i][2]})
        z = self.random[j][2]
        extended = torch.nn.functional.pad(z, (1, 0), value=1.0)[v.expand(self.zero.shape[:-1])].flatten(0, -2)
        eye = torch.eye(left.size, dtype=z.dtype, device=z.device)
        base = self.at({j: z})[..., 0].reshape(-1)
        rows = [base, *(self.at({i: e.expand(left.units, -1), j: z})[..., 0].reshape(-1) - base for e in eye)]
        keep = torch.linspace(0, len(extended) - 1, min(len(extended), 20 * extended.shape[1]), device=z.device).long()
        m = torch.linalg.lstsq(extended[keep], torch.stack(rows, -1)[keep]).solution.T
        m = torch.where(m.abs() < 1e-11 * m.abs().amax(), torch.zeros_like(m), m)
        return BilinearLocation(left, right, u, v, m)


def _certify(
    location: AffineLocation | BilinearLocation, probe: _Probe, site: str, blocks: list[GaussianBlock]
) -> None:
    """Compare with the location itself at random vectors, near and far."""
    for scale in (1.0, 30.0):
        vectors = {i: scale * probe.random[i][1] for i in range(len(blocks))}
        moments = {id(b): (v, b.second_of(v)) for b, v in zip(blocks, vectors.values())}
        mean, _ = location(moments)
        exact = probe.at(vectors)
        size = exact.abs().amax().clamp(min=1.0)
        if not bool(((mean - exact).abs() <= 1e-8 * size).all()):
            names = ", ".join(name for b in location.blocks for name in b.names)
            raise NotConjugate(
                site, names, "has a location that is not linear in the latents, one unit at a time:", grid=False
            )
