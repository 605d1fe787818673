"""The sweep: each factor in turn takes its optimum given the others, and the bound can only rise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.free_form.blocks import Block, CategoricalBlock
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.expected import StatisticLinear
from probdl.inference.free_form.factors import ChainFactor, compile_factor
from probdl.inference.free_form.gaussian_block import GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.layout import lay_out
from probdl.inference.free_form.projected import ProjectedFactor
from probdl.inference.free_form.reading import Reading, Values
from probdl.inference.free_form.weights import Moments
from probdl.inference.programs.recording import NotRecordable, record


class FreeForm:
    """The mean field of a program: its blocks, and the expected log-density of each site.

    Attributes:
        blocks: the factors, in the order of a sweep.
        factors: the expected log-densities.
    """

    def __init__(self, reading: Reading, typical: Values, projected: frozenset[str] = frozenset()) -> None:
        self.reading, self.projected = reading, projected
        whole = {name for site in projected for name in reading.sites[site].seen}
        self.layout, self.blocks = lay_out(reading, typical, whole)
        self.blocks.sort(key=lambda b: isinstance(b, (CategoricalBlock, ChainBlock)))  # they are what a start gives
        self.factors: list[Any] = []
        for site in reading.sites.values():
            chained = site.members is not None and site.value is None
            kind = ProjectedFactor if site.name in projected else ChainFactor if chained else compile_factor
            self.factors.append(kind(reading, site, self.layout))
        self._recorded: dict[Any, Callable[..., Any]] = {}
        self._touching = {id(b): [f for f in self.factors if f.reads & _names(b)] for b in self.blocks}

    def update(self, block: Block) -> None:
        """Give a block its optimum: the gradient of the expected log-density in its moments."""
        if self._is_projected(block):
            self._natural_step(block)
        else:
            block.update(self._gradient(block))
        if isinstance(block, GridBlock):
            self._follow(block)

    def _is_projected(self, block: Block) -> bool:
        return bool(self.projected) and any(isinstance(f, ProjectedFactor) for f in self._touching[id(block)])

    def plain_update(self, block: Block) -> None:
        """Update a block with no check of the bound and no new grid; by half a step where it is not conjugate."""
        old = block.state()
        block.update(self._gradient(block))
        if self._is_projected(block):
            block.restore(tuple((a + b) / 2 for a, b in zip(old, block.state())))

    def _natural_step(self, block: Block) -> None:
        """A natural-gradient step, halved until the bound rises."""
        old, bound = block.state(), self.elbo()
        block.update(self._gradient(block))
        new = block.state()
        for halving in range(1, 30):
            if bool(self.elbo() >= bound - 1e-10 * bound.abs()):
                return
            step = 0.5**halving
            block.restore(tuple(a + step * (b - a) for a, b in zip(old, new)))
        raise ConvergenceError(
            f"Coordinate ascent: no natural-gradient step of {', '.join(block.names)}, however small, raises the "
            "bound. Rescale the covariates, or use method='meanfield'."
        )

    def _gradient(self, block: Block) -> tuple[Tensor, ...]:
        """The natural parameters of a block's optimum, by a graph that is recorded once."""
        key = id(block)
        if key not in self._recorded:
            self._recorded[key] = self._record(lambda *m: self._slopes(block, m))
        return self._recorded[key](*self._flat())

    def _record(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Record a function of the moments of all blocks; one that writes in place runs as it is."""
        try:
            return record(f, *self._flat(), again=(), mend=False)
        except NotRecordable:
            return f

    def _slopes(self, block: Block, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradient of the expected log-density in a block's moments, at the moments of all blocks."""
        first = sum(len(b.moments) for b in self.blocks[: self.blocks.index(block)])
        own = slice(first, first + len(block.moments))
        leaves = tuple(m.detach().requires_grad_() for m in tensors[own])
        with torch.enable_grad():
            moments = self._by_name((*tensors[: own.start], *leaves, *tensors[own.stop :]))
            total = torch.stack([f(moments) for f in self._touching[id(block)]]).sum()
            gradient = torch.autograd.grad(total, leaves, allow_unused=True)
        return tuple(torch.zeros_like(m) if g is None else g for m, g in zip(leaves, gradient))

    def _flat(self) -> list[Tensor]:
        return [m for block in self.blocks for m in block.moments]

    def _by_name(self, tensors: tuple[Tensor, ...]) -> Moments:
        """The moments of all blocks, one tensor after another, by what factors call them."""
        moments: Moments = {}
        rest = list(tensors)
        for block in self.blocks:
            moments |= _named(block, tuple(rest.pop(0) for _ in block.moments))
        return moments

    def energy(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The expected log-density at the moments of all blocks, one tensor after another, a scalar."""
        moments = self._by_name(tensors)
        return torch.stack([f(moments) for f in self.factors]).sum()

    def has_grids(self) -> bool:
        """Whether a factor is a density on a grid, whose bound is exact up to its spacing only."""
        return any(isinstance(b, GridBlock) for b in self.blocks)

    def forget(self) -> None:
        """Forget what depends on where grids lie: coefficients are solved for, and graphs recorded, anew."""
        for block in self.blocks:
            if isinstance(block, GridBlock):
                self._compile_again(block)

    def _compile_again(self, block: GridBlock) -> None:
        for f in self._touching[id(block)]:
            for e in getattr(f, "expected", [getattr(f, "precision", None), getattr(f, "log_det", None)]):
                if isinstance(e, StatisticLinear) and block in e.parents:
                    e.compile()
        self._recorded.clear()

    def _follow(self, block: GridBlock, most: int = 30) -> None:
        """Move a grid to where the mass is, and take the optimum there."""
        for _ in range(most):
            if not block.needs_new_grid():
                return
            block.move()
            self._compile_again(block)
            block.restore(self._slopes(block, tuple(self._flat())))
        raise ConvergenceError(
            f"Coordinate ascent: the grid of {block.name!r} finds no place for its mass. Give it a proper prior."
        )

    def elbo(self) -> Tensor:
        """The evidence lower bound E log p(x, z) + entropy, with all constants, in nats."""
        if "energy" not in self._recorded:
            self._recorded["energy"] = self._record(lambda *m: self.energy(m))
        return self._recorded["energy"](*self._flat()) + torch.stack([b.entropy() for b in self.blocks]).sum()

    def is_small(self) -> bool:
        """Whether a sweep is so cheap that a second thread costs more than it brings."""
        return sum(m.numel() for m in self._flat()) < 1_000_000

    def sweep(self) -> None:
        """Update each block once."""
        for block in self.blocks:
            self.update(block)

    def state(self) -> list[tuple[Tensor, ...]]:
        """The natural parameters of all blocks."""
        return [tuple(x.clone() for x in b.state()) for b in self.blocks]

    def restore(self, state: list[tuple[Tensor, ...]]) -> None:
        """Take natural parameters that ``state`` returned."""
        for block, own in zip(self.blocks, state):
            block.restore(own)


def _names(block: Block) -> set[str]:
    return {*block.names, block.sequence} if isinstance(block, ChainBlock) else set(block.names)


def _named(block: Block, moments: tuple[Tensor, ...]) -> Moments:
    if isinstance(block, GaussianBlock):
        return {id(block): moments}
    if isinstance(block, ChainBlock):
        return block.named(moments)
    return {block.names[0]: moments}


def step_between(block: Block, before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> float:
    """How far a block moved: Gaussian means in sd units, probabilities, or relative change of other statistics."""
    if isinstance(block, GaussianBlock):
        gap = (after[0] - before[0]).abs().reshape(-1)
        return float((gap / block.variances().sqrt()).max())
    if isinstance(block, (CategoricalBlock, ChainBlock, GridBlock)):
        return max(float((a - b).abs().max()) for a, b in zip(after, before))
    return float(((after[0] - before[0]).abs() / (1e-3 + after[0].abs())).max())
