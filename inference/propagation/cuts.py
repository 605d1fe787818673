r"""Where the graph of a log-density is affine, and how to cut it there.

A factor is recorded as a graph of (z, φ): the Gaussian latents, and those that are held outside. At fixed φ a node is
affine in z where f(z₀) + f(z₁) = f(z₂) + f(z₀ + z₁ − z₂) at random points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from probdl.inference.programs.derivatives import at_least

_CONSTANT = ("aten.zeros_like.default", "aten.ones_like.default", "aten.full_like.default", "aten.empty_like.default")
Runs = list[dict[fx.Node, Any]]


class FactorGraph:
    """A recorded factor, (z, φ) → one log-density for each observation, with its values at four points.

    Args:
        graph: with one input, z, or two, z and φ.
        dim: length of z.
        phi: where the latents outside are held; its entries must lie in the interior.
        like: a tensor of the dtype and device to use.
    """

    def __init__(self, graph: fx.GraphModule, dim: int, phi: Tensor, like: Tensor) -> None:
        self.graph, self.dim, self.phi, self.like = graph, dim, phi, like
        self.inputs = [x for x in graph.graph.nodes if x.op == "placeholder"]
        (self.output,) = graph.graph.output_node().all_input_nodes
        generator = torch.Generator().manual_seed(21)
        z = torch.randn(3, dim, generator=generator, dtype=like.dtype).to(like.device)
        points = (*z, z[0] + z[1] - z[2])
        self.runs: Runs = [self._values(point, phi) for point in points]
        self.elsewhere: Runs = [self._values(point, phi + 0.37) for point in points] if phi.numel() else []
        self._affine: dict[fx.Node, bool] = {}

    @property
    def result(self) -> Tensor:
        """The log-densities at the first point."""
        return self.runs[0][self.output]

    def _values(self, z: Tensor, phi: Tensor) -> dict[fx.Node, Any]:
        interpreter = fx.Interpreter(self.graph, garbage_collect_values=False)
        interpreter.run(*(z, phi)[: len(self.inputs)])
        return interpreter.env

    def is_affine(self, node: fx.Node) -> bool:
        """Whether a node is an affine function of z, wherever φ is held."""
        if node not in self._affine:
            self._affine[node] = _is_affine(node, self.runs) and (
                not self.elsewhere or _is_affine(node, self.elsewhere)
            )
        return self._affine[node]

    def reads_z(self) -> set[fx.Node]:
        """The nodes that z reaches."""
        return self._reached(set())

    def cuts(self, nodes: set[fx.Node]) -> bool:
        """Whether every path from z to the output runs through one of the nodes."""
        return self.output not in self._reached(nodes)

    def _reached(self, closed: set[fx.Node]) -> set[fx.Node]:
        reached = {self.inputs[0]} - closed
        for x in self.graph.graph.nodes:
            if x not in closed and str(x.target) not in _CONSTANT and any(y in reached for y in x.all_input_nodes):
                reached.add(x)
        return reached

    def before(self, node: fx.Node) -> fx.GraphModule:
        """Return the part that computes a node: (z, φ) → its value."""
        part = fx.Graph()
        copies = {x: part.node_copy(x) for x in self.inputs}
        for x in self.graph.graph.nodes:
            if x.op != "output" and x not in copies:
                copies[x] = part.node_copy(x, copies.__getitem__)
            if x is node:
                break
        return self._finished(part, copies[node])

    def after(self, nodes: list[fx.Node]) -> fx.GraphModule:
        """Return the rest that computes the output: (values of the nodes, …, φ) → log-densities."""
        part = fx.Graph()
        copies = {node: part.placeholder(f"eta{i}") for i, node in enumerate(nodes)}
        for x in self.graph.graph.nodes:
            if x in copies or x.op == "output" or x is self.inputs[0]:
                continue
            if all(y in copies for y in x.all_input_nodes):
                copies[x] = part.node_copy(x, copies.__getitem__)
        return self._finished(part, copies[self.output])

    def _finished(self, part: fx.Graph, result: fx.Node) -> fx.GraphModule:
        if len(self.inputs) == 1:  # so that every part takes φ
            with part.inserting_after([x for x in part.nodes if x.op == "placeholder"][-1]):
                part.placeholder("phi")
        part.output(result)
        part.eliminate_dead_code()
        return fx.GraphModule(self.graph, part)


def _is_affine(node: fx.Node, runs: Runs) -> bool:
    if node.op not in ("call_function", "placeholder"):
        return False
    a, b, c, d = (run[node] for run in runs)
    if not (isinstance(a, Tensor) and a.is_floating_point()):
        return False
    scale = torch.stack([x.abs().max() for x in (a, b, c, d)]).max() if a.numel() else a.new_zeros(())
    gap = (a + b - c - d).abs().max() if a.numel() else a.new_ones(())
    near = at_least(1e-10, a.dtype, 1e3) * scale.clamp(min=torch.finfo(a.dtype).tiny)
    return bool(gap <= near) and bool(torch.isfinite(scale))


def spreads(small: torch.Size, large: torch.Size) -> bool:
    """Whether one shape broadcasts to the other."""
    try:
        return np.broadcast_shapes(small, large) == tuple(large)  # torch's own imports sympy
    except ValueError:
        return False


def spread(x: Tensor, shape: torch.Size) -> Tensor:
    """Bring (*node shape, k) to (n, k): one row for each observation."""
    n, k = shape.numel(), x.shape[-1]
    return x.reshape(n, k) if x[..., 0].numel() == n else x.expand(*shape, k).reshape(n, k)


def affine_map(eta: fx.GraphModule, dim: int, phi: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrix, its last axis over z, and the offset of an affine function, by its values at unit vectors."""
    offset = eta(torch.zeros(dim, dtype=like.dtype, device=like.device), phi)
    units = torch.eye(dim, dtype=like.dtype, device=like.device)
    columns = torch.vmap(lambda z: eta(z, phi))(units) - offset
    return columns.movedim(0, -1), offset[..., None]
