"""The part of a recorded graph that computes one natural parameter."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.utils._pytree import tree_map


class Part:
    """The part of a recorded graph that computes one natural parameter; compiled when it is first run.

    Attributes:
        parents: the latents that it reads, in the program's order.
    """

    def __init__(
        self, graph: fx.GraphModule, output: fx.Node, latents: tuple[str, ...], order: dict[fx.Node, int]
    ) -> None:
        self.graph, self.output = graph, output
        needed, waiting = {output}, [output]
        while waiting:
            for node in waiting.pop().all_input_nodes:
                if node not in needed:
                    needed.add(node)
                    waiting.append(node)
        self.nodes = sorted(needed, key=order.__getitem__)
        read = {node for node in self.nodes if node.op == "placeholder"}
        inputs = [node for node in order if node.op == "placeholder"]
        self.inputs = [node for node in inputs if node in read]
        self.parents = tuple(name for node, name in zip(inputs, latents) if node in read)
        self._compiled: fx.GraphModule | None = None

    def __call__(self, *values: Tensor) -> Tensor:
        """Return the parameter at the parents' values."""
        if self._compiled is None:
            part: fx.Graph = fx.Graph()
            copies = {node: part.placeholder(node.name) for node in self.inputs}
            for node in self.nodes:
                if node.op != "placeholder":
                    copies[node] = part.node_copy(node, copies.__getitem__)
            part.output(copies[self.output])
            self._compiled = fx.GraphModule(self.graph, part)
        return self._compiled(*values)

    def structure(self) -> tuple[list[tuple], list[Tensor]]:
        """Return operations with where their arguments come from, and the constants, to compare with another part."""
        place = {node: i for i, node in enumerate([*self.inputs, *(n for n in self.nodes if n.op != "placeholder")])}

        def plain(x: Any) -> Any:
            return ("node", place[x]) if isinstance(x, fx.Node) else repr(x)

        operations, constants = [], []
        for node in self.nodes:
            if node.op == "get_attr":
                constants.append(getattr(self.graph, str(node.target)))
            elif node.op != "placeholder":
                operations.append((str(node.target), repr(tree_map(plain, (node.args, dict(node.kwargs))))))
        return operations, constants
