"""The sweep: each factor in turn takes its optimum given the others, and the bound can only rise."""

from __future__ import annotations

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
from probdl.inference.free_form.probing import NotConjugate
from probdl.inference.free_form.reading import Reading, Values
from probdl.inference.free_form.weights import Moments


class FreeForm:
    """The mean field of a program: its blocks, and the expected log-density of each site.

    Attributes:
        blocks: the factors, in the order of a sweep.
        factors: the expected log-densities.
    """

    def __init__(self, reading: Reading, typical: Values, whole: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.reading = reading
        self.layout, self.blocks = lay_out(reading, typical, whole)
        links = {pair for b in self.blocks if isinstance(b, ChainBlock) for pair in b.pairs}
        self.factors: list[Any] = []
        for site in reading.sites.values():
            chained = any(site.name == child for _, child in links) and site.value is None
            self.factors.append(
                ChainFactor(reading, site, self.layout) if chained else compile_factor(reading, site, self.layout)
            )
        self._touching = {id(b): [f for f in self.factors if f.reads & set(b.names)] for b in self.blocks}

    def moments(self) -> Moments:
        """The expected statistics of all blocks: by site, by pair of neighbours, by Gaussian block."""
        out: Moments = {}
        for block in self.blocks:
            out |= _named(block, block.moments)
        return out

    def update(self, block: Block) -> None:
        """Give a block its optimum: the gradient of the expected log-density in its moments."""
        leaves = tuple(m.detach().clone().requires_grad_() for m in block.moments)
        moments = self.moments() | _named(block, leaves)
        with torch.enable_grad():
            total = torch.stack([f(moments) for f in self._touching[id(block)]]).sum()
            gradient = torch.autograd.grad(total, leaves, allow_unused=True)
        block.update(tuple(torch.zeros_like(m) if g is None else g for m, g in zip(leaves, gradient)))
        if isinstance(block, GridBlock):
            self._follow(block)

    def _follow(self, block: GridBlock, most: int = 30) -> None:
        """Move a grid to where the mass is, and take the optimum there."""
        for _ in range(most):
            if not block.needs_new_grid():
                return
            block.move()
            for f in self._touching[id(block)]:
                for e in getattr(f, "expected", [getattr(f, "precision", None), getattr(f, "log_det", None)]):
                    if isinstance(e, StatisticLinear) and block in e.parents:
                        e.compile()
            leaf = torch.zeros_like(block.moments[0]).requires_grad_()
            moments = self.moments() | {block.name: (leaf,)}
            with torch.enable_grad():
                total = torch.stack([f(moments) for f in self._touching[id(block)]]).sum()
                (gradient,) = torch.autograd.grad(total, leaf)
            block.restore((gradient,))
        raise ConvergenceError(
            f"Coordinate ascent: the grid of {block.name!r} finds no place for its mass. Give it a proper prior."
        )

    def elbo(self) -> Tensor:
        """The evidence lower bound E log p(x, z) + entropy, with all constants, in nats."""
        moments = self.moments()
        return torch.stack([*(f(moments) for f in self.factors), *(b.entropy() for b in self.blocks)]).sum()

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


def _named(block: Block, moments: tuple[Tensor, ...]) -> Moments:
    if isinstance(block, GaussianBlock):
        return {id(block): moments}
    if isinstance(block, ChainBlock):
        t = len(block.names)
        return {n: (m,) for n, m in zip(block.names, moments[:t])} | {
            p: (m,) for p, m in zip(block.pairs, moments[t:])
        }
    return {block.names[0]: moments}


def step_between(block: Block, before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> float:
    """How far a block moved: Gaussian means in sd units, probabilities, or relative change of other statistics."""
    if isinstance(block, GaussianBlock):
        sd = block.covariances().diagonal(dim1=-2, dim2=-1).sqrt()
        return float(((after[0] - before[0]).abs() / sd).max())
    if isinstance(block, (CategoricalBlock, ChainBlock, GridBlock)):
        return max(float((a - b).abs().max()) for a, b in zip(after, before))
    return float(((after[0] - before[0]).abs() / (1e-3 + after[0].abs())).max())
