r"""First and second moments of Gaussian locations, as multilinear functions of the Gaussian blocks' moments.

A location is affine in each block, :math:`l_f = c_f + A_f z_{u(f)}`, where u(f) is the unit that entry f sees; or, as
in factor analysis, bilinear in two, :math:`l_f = \tilde w_{u(f)}^\top M \tilde z_{v(f)}`, :math:`\tilde z = (1, z)`.
Which it is, which units, A and M are found by evaluating it, whatever way the program writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.gaussian_block import GaussianBlock

Moments = Mapping[Any, tuple[Tensor, ...]]  # E z and E zzᵀ by the id of a block


class AffinePart:
    """How a location sees one block: units u (F), positions in the unit (F, s) or all of them, A (F, d, s)."""

    def __init__(self, block: GaussianBlock, units: Tensor, positions: Tensor | None, a: Tensor) -> None:
        self.block, self.units, self.positions, self.a = block, units, positions, a
        if positions is not None:
            self.flat = units[..., None] * block.size + positions
            self.pairs = block.pair_index(self.flat[..., :, None], self.flat[..., None, :])
        d, k = a.shape[-2:]
        eye = torch.eye(d, dtype=a.dtype, device=a.device)
        self.is_identity = d == k and bool((a == eye).all())
        self._ready = (
            bool((units == torch.arange(block.units, device=units.device).reshape(units.shape)).all())
            if (units.numel() == block.units)
            else False
        )

    def _gather(self, x: Tensor) -> Tensor:
        """The rows of a block's moment for the units that the entries see."""
        if self._ready:
            return x.reshape((*self.units.shape, *x.shape[1:]))
        return x[self.units] if len(x) > 1 else x[0]

    def first(self, mean: Tensor) -> Tensor:
        """A E z, (F, d)."""
        z = self._gather(mean) if self.positions is None else mean.reshape(-1)[self.flat]
        return z if self.is_identity else (self.a * z[..., None, :]).sum(-1)

    def second(self, second: Tensor) -> Tensor:
        """A E zzᵀ Aᵀ, (F, d, d)."""
        s = self._gather(second) if self.positions is None else second.reshape(-1)[self.pairs]
        if self.is_identity:
            return s
        if self.a.shape[-2] == 1:
            a = self.a[..., 0, :]
            if s.ndim == 2:
                return ((a @ s) * a).sum(-1)[..., None, None]
            return ((a[..., None, :] @ s)[..., 0, :] * a).sum(-1)[..., None, None]
        return self.a @ s @ self.a.mT


class AffineLocation:
    """l = c + Σ over blocks of A z, (F, d); the blocks are independent of each other.

    Args:
        offset: c, (F, d).
        parts: one for each block that it sees.
    """

    def __init__(self, offset: Tensor, parts: list[AffinePart]) -> None:
        self.offset, self.parts = offset, parts
        self._products = self._sums_of_products()

    def _sums_of_products(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Σ aaᵀ, Σ c a and Σ c² over entries, where all see one unit of one block, as rows of a regression do."""
        if len(self.parts) != 1 or self.offset.shape[-1] != 1:
            return None
        (part,) = self.parts
        if part.positions is not None or part.block.units != 1:
            return None
        shape = torch.broadcast_shapes(self.offset.shape[:-1], part.a.shape[:-2])
        a = part.a[..., 0, :].expand(*shape, -1).reshape(-1, part.block.size)
        c = self.offset[..., 0].expand(shape).reshape(-1)
        return a.T @ a, a.T @ c, c @ c

    def sum_of_squares(self, moments: Moments) -> Tensor | None:
        """Return Σ E l² over entries where that is cheaper than the entries themselves, else None; d = 1."""
        if self._products is None:
            return None
        gram, cross, constant = self._products
        mean, second = moments[id(self.parts[0].block)]
        return (gram * second[0]).sum() + 2 * (cross @ mean[0]) + constant

    @property
    def blocks(self) -> list[GaussianBlock]:
        """The blocks that the location sees."""
        return [part.block for part in self.parts]

    def first(self, moments: Moments) -> Tensor:
        """Return E l (F, d)."""
        mean = self.offset
        for part in self.parts:
            mean = mean + part.first(moments[id(part.block)][0])
        return mean

    def __call__(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return E l (F, d) and E llᵀ (F, d, d), linear in the moments of each block."""
        firsts = [part.first(moments[id(part.block)][0]) for part in self.parts]
        seconds = [part.second(moments[id(part.block)][1]) for part in self.parts]
        mean = self.offset
        for first in firsts:
            mean = mean + first
        if len(self.parts) == 1 and not bool(self.offset.any()):
            return mean, seconds[0]
        second = mean[..., :, None] * mean[..., None, :]
        for a, b in zip(firsts, seconds):
            second = second + b - a[..., :, None] * a[..., None, :]
        return mean, second


class BilinearLocation:
    """l_f = w̃ᵀ M z̃ with w̃ = (1, w), z̃ = (1, z) of two independent blocks; d = 1.

    Args:
        left: the block of w.
        right: the block of z.
        left_units: which unit of w an entry sees, (F) with size 1 where it does not change.
        right_units: which unit of z.
        m: M, (1 + k, 1 + k').
    """

    def __init__(
        self, left: GaussianBlock, right: GaussianBlock, left_units: Tensor, right_units: Tensor, m: Tensor
    ) -> None:
        self.blocks = [left, right]
        self.units, self.m = (left_units, right_units), m
        self.shape = torch.broadcast_shapes(left_units.shape, right_units.shape)
        self.outer = all(a == 1 or b == 1 for a, b in zip(left_units.shape, right_units.shape))
        self.pure = not bool(m[0].any()) and not bool(m[:, 0].any())  # no terms in one of the two alone
        core = m[1:, 1:] if self.pure else m
        self.core = (
            None if core.shape[0] == core.shape[1] and bool((core == torch.eye(len(core)).to(core)).all()) else core
        )
        self._counting = [torch.equal(u.reshape(-1), torch.arange(u.numel(), device=u.device)) for u in self.units]

    def _parts(self, moments: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E w̃ᵀM and MᵀE w̃w̃ᵀM, then E z̃ and E z̃z̃ᵀ."""
        left, right = (moments[id(block)] for block in self.blocks)
        (w, ww), (z, zz) = (left, right) if self.pure else (_extended(*left), _extended(*right))
        if self.core is not None:
            w, ww = w @ self.core, self.core.T @ ww @ self.core
        return w, ww, z, zz

    def __call__(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return E l (F, 1) and E l² (F, 1, 1)."""
        w, ww, z, zz = self._parts(moments)
        mean = self._pair(w, z)
        second = self._pair(ww.flatten(1), zz.flatten(1))
        return mean[..., None], second[..., None, None]

    def first(self, moments: Moments) -> Tensor:
        """Return E l (F, 1)."""
        w, _, z, _ = self._parts(moments)
        return self._pair(w, z)[..., None]

    def sum_of_squares(self, moments: Moments) -> Tensor | None:
        """Return Σ E l² over entries where they form a grid of units, else None: the sums factorise."""
        if not self.outer:
            return None
        _, ww, _, zz = self._parts(moments)
        return (self._of_unit(ww, 0).sum(0) * self._of_unit(zz, 1).sum(0)).sum()

    def _of_unit(self, x: Tensor, side: int) -> Tensor:
        """The rows of the units that entries see along one side."""
        return x if self._counting[side] and len(x) == self.units[side].numel() else x[self.units[side].reshape(-1)]

    def _pair(self, left: Tensor, right: Tensor) -> Tensor:
        """Σ_j left[u, j] right[v, j] for the entries' units u and v: a matrix product where they form a grid."""
        u, v = self.units
        if self.outer:
            grid = self._of_unit(left, 0) @ self._of_unit(right, 1).T
            split = grid.reshape((*u.shape, *v.shape))
            dims = len(u.shape)
            order = [x for i in range(dims) for x in (i, dims + i)]
            return split.permute(order).reshape(self.shape)
        return (left[u] * right[v]).sum(-1)


def _extended(mean: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of (1, z)."""
    first = torch.nn.functional.pad(mean, (1, 0), value=1.0)
    lower = torch.cat([mean[..., None], second], -1)
    return first, torch.cat([first[..., None, :], lower], -2)
