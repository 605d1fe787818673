r"""Find the affine projection :math:`\eta_i = a_i^\top z + c_i` through which each observation sees the latents.

The log-density of an observed site is recorded as a graph. A node is affine where
f(z₀) + f(z₁) = f(z₂) + f(z₀ + z₁ − z₂) at random points. The earliest affine node through which every path from z to
the output runs, and on which the rest of the graph acts elementwise, is η; the rest of the graph, with that node as
its input, *is* the log-likelihood ℓ(η), to the last bit. So ``Bernoulli(logits=X @ w)``, ``Poisson(exp(X @ w))`` and
``Binomial(n, probs=sigmoid(f))`` are all found without rules for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from probdl.inference.programs.derivatives import at_least

_CONSTANT = ("aten.zeros_like.default", "aten.ones_like.default", "aten.full_like.default", "aten.empty_like.default")


@dataclass(frozen=True)
class Projection:
    """The sites of one observed factor.

    Attributes:
        directions: a, shape (n, d).
        offsets: c, shape (n,).
        log_likelihood: ℓ, maps η of shape (k, n) to log-densities of shape (k, n).
    """

    directions: Tensor
    offsets: Tensor
    log_likelihood: Callable[[Tensor], Tensor]


def find_projection(graph: fx.GraphModule, dim: int, like: Tensor) -> Projection | None:
    """Return the one affine projection of each observation, or None where there is none or more than one.

    Args:
        graph: records z (dim,) → log-densities, one entry for each observation.
        dim: length of z.
        like: a tensor of the dtype and device to use.
    """
    generator = torch.Generator().manual_seed(21)
    z = torch.randn(3, dim, generator=generator, dtype=like.dtype).to(like.device)
    runs = [_all_values(graph, point) for point in (*z, z[0] + z[1] - z[2])]
    output = _result_of(graph)
    for node in graph.graph.nodes:
        if _is_affine(node, runs) and _is_cut(node, output):
            projection = _try_node(graph, node, runs[0], output, dim, generator)
            if projection is not None:
                return projection
    return None


def _result_of(graph: fx.GraphModule) -> fx.Node:
    (result,) = graph.graph.output_node().all_input_nodes
    return result


def _all_values(graph: fx.GraphModule, z: Tensor) -> dict[fx.Node, Any]:
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.run(z)
    return interpreter.env


def _is_affine(node: fx.Node, runs: list[dict[fx.Node, Any]]) -> bool:
    if node.op not in ("call_function", "placeholder"):
        return False
    a, b, c, d = (run[node] for run in runs)
    if not (isinstance(a, Tensor) and a.is_floating_point()):
        return False
    scale = torch.stack([x.abs().max() for x in (a, b, c, d)]).max() if a.numel() else a.new_zeros(())
    gap = (a + b - c - d).abs().max() if a.numel() else a.new_ones(())
    near = at_least(1e-10, a.dtype, 1e3) * scale.clamp(min=torch.finfo(a.dtype).tiny)
    return bool(gap <= near) and bool(torch.isfinite(scale))


def _is_cut(node: fx.Node, output: fx.Node) -> bool:
    """Whether every path from the input to the output runs through ``node``."""
    reached = {x for x in node.graph.nodes if x.op == "placeholder"} - {node}
    for x in node.graph.nodes:
        if x is not node and str(x.target) not in _CONSTANT and any(y in reached for y in x.all_input_nodes):
            reached.add(x)
    return output not in reached


def _try_node(
    graph: fx.GraphModule, node: fx.Node, run: dict, output: fx.Node, dim: int, generator: torch.Generator
) -> Projection | None:
    value, result = run[node], run[output]
    rest = _between(graph, node, output)
    for log_likelihood in _ways_to_feed(rest, value, result):
        if _acts_elementwise(log_likelihood, value, result, generator):
            directions, offsets = _affine_map(_between(graph, None, node), dim, value)
            offsets = _spread(offsets, result.shape)[:, 0]
            return Projection(_spread(directions, result.shape), offsets, log_likelihood)
    return None


def _between(graph: fx.GraphModule, start: fx.Node | None, end: fx.Node) -> fx.GraphModule:
    """Return the part of the graph that computes ``end`` from ``start`` (None: from the input)."""
    part, copies = fx.Graph(), {}
    if start is not None:
        copies[start] = part.placeholder("eta")
    for x in graph.graph.nodes:
        if x is start or x.op == "output" or (x.op == "placeholder" and start is not None):
            continue
        if start is None or x.op == "get_attr" or all(y in copies for y in x.all_input_nodes):
            copies[x] = part.node_copy(x, copies.__getitem__)
        if x is end:
            break
    part.output(copies[end])
    part.eliminate_dead_code()
    return fx.GraphModule(graph, part)


def _ways_to_feed(rest: fx.GraphModule, value: Tensor, result: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """The ways in which η of shape (k, n) may enter at a node: one entry each, spread over all, or shared by all."""
    shape, n = result.shape, result.numel()
    if value.numel() == n:
        yield lambda eta: torch.vmap(lambda e: rest(e.reshape(value.shape)).reshape(n))(eta)
    elif _spreads(value.shape, shape):
        yield lambda eta: torch.vmap(lambda e: rest(e.reshape(shape)).reshape(n))(eta)
    if value.numel() == 1:
        yield lambda eta: _shared(lambda e: rest(e.reshape(value.shape)).reshape(n), eta)


def _shared(f: Callable[[Tensor], Tensor], eta: Tensor) -> Tensor:
    """Each observation has its own value of a projection that all share: run them all, keep the diagonal."""
    n = eta.shape[1]
    rows = max(1, int(5e6 / n**2))
    return torch.cat([torch.vmap(f)(part.reshape(-1)).reshape(-1, n, n).diagonal(0, 1, 2) for part in eta.split(rows)])


def _spreads(small: torch.Size, large: torch.Size) -> bool:
    try:
        return np.broadcast_shapes(small, large) == tuple(large)  # torch's own imports sympy
    except ValueError:
        return False


def _acts_elementwise(f: Callable, value: Tensor, result: Tensor, generator: torch.Generator) -> bool:
    """Whether ℓ gives the recorded values at the recorded η, and its Jacobian is diagonal (two random products)."""
    n = result.numel()
    eta = (value.reshape(n) if value.numel() == n else value.expand(result.shape).reshape(n))[None]
    close = at_least(1e-9, eta.dtype, 1e3)
    try:
        same = torch.allclose(f(eta)[0], result.reshape(n), rtol=close, atol=close)
    except (RuntimeError, IndexError):  # the rest of the graph does not take this shape: not a way to feed it
        return False
    if not same:
        return False
    eta = eta + torch.randn(eta.shape, generator=generator, dtype=eta.dtype).to(eta.device)
    weights = torch.randn(eta.shape, generator=generator, dtype=eta.dtype).to(eta.device)
    eta.requires_grad_()
    with torch.enable_grad():
        out = f(eta)
        (weighted,) = torch.autograd.grad((out * weights).sum(), eta, retain_graph=True)
        (plain,) = torch.autograd.grad(out.sum(), eta)
    return torch.allclose(weighted, weights * plain, rtol=10 * close, atol=close)


def _affine_map(eta: Callable[[Tensor], Tensor], dim: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrix, its last axis over z, and the offset of an affine function, by its values at unit vectors."""
    zero = torch.zeros(dim, dtype=value.dtype, device=value.device)
    offset = eta(zero)
    columns = torch.vmap(eta)(torch.eye(dim, dtype=value.dtype, device=value.device)) - offset
    return columns.movedim(0, -1), offset[..., None]


def _spread(x: Tensor, shape: torch.Size) -> Tensor:
    """Bring (*node shape, k) to (n, k): one row for each observation."""
    n, k = shape.numel(), x.shape[-1]
    return x.reshape(n, k) if x[..., 0].numel() == n else x.expand(*shape, k).reshape(n, k)
