"""Gradient and Hessian of a log-density, by plain reverse mode: torch.func would import the compiler at first use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from probdl.inference.programs.recording import NotRecordable, record


def at_least(tolerance: float, dtype: torch.dtype, times: float = 100.0) -> float:
    """Return a tolerance no smaller than ``times`` the rounding error of the type."""
    return max(tolerance, times * torch.finfo(dtype).eps)


def value_and_gradient(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(z) and its gradient, (d,).

    Example:
        >>> import torch
        >>> value_and_gradient(lambda z: (z**3).sum(), torch.tensor([1.0, 2.0]))
        (tensor(9.), tensor([ 3., 12.]))
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = f(z)
        gradient = _gradient(value, z)
    return value.detach(), gradient


def recorded_gradient(f: Callable[[Tensor], Tensor], like: Tensor) -> fx.GraphModule:
    """Return x → (f(x), its gradient) as one flat graph, itself differentiable, without autograd at run time.

    Args:
        f: maps (n,) to a scalar.
        like: where to record.

    Raises:
        NotRecordable: if ``f`` branches on its input, or its second derivatives through the graph are not those of f.

    Example:
        >>> import torch
        >>> graph = recorded_gradient(lambda z: (z**3).sum(), torch.tensor([0.5, 0.7]))
        >>> graph(torch.tensor([1.0, 2.0]))
        (tensor(9.), tensor([ 3., 12.]))
    """
    graph = record(lambda x: value_and_gradient(f, x), like, mend=False)
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:  # autograd's own, on what it saved for the backward pass
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    if not _same_product(graph, f, like):
        raise NotRecordable("the recorded gradient has other derivatives")
    return graph


def _same_product(graph: fx.GraphModule, f: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether the Hessian times a direction is the same through the graph as through f."""
    x = like.detach().clone().requires_grad_()
    with torch.enable_grad():
        try:
            slopes = graph(x)[1], torch.autograd.grad(f(x), x, create_graph=True)[0]
            ours, theirs = (
                torch.autograd.grad(s.sum(), x, allow_unused=True, materialize_grads=True)[0] for s in slopes
            )
        except RuntimeError:  # an operation of the backward pass has no derivative of its own
            return False
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def hessian(f: Callable[[Tensor], Tensor], z: Tensor, chunk: int = 256, batched: bool | None = None) -> Tensor:
    """Return the symmetric matrix of second derivatives of ``f`` at z, (d, d).

    Args:
        f: maps (d,) to a scalar.
        z: where, (d,).
        chunk: rows at a time.
        batched: whether ``f`` may run under vmap, on many rows at once; None: where it is a recorded graph.

    Example:
        >>> import torch
        >>> hessian(lambda z: z[0] ** 2 * z[1], torch.tensor([1.0, 2.0]))
        tensor([[4., 2.],
                [2., 0.]])
    """
    recorded = isinstance(f, fx.GraphModule) if batched is None else batched
    many = torch.vmap(f) if recorded else lambda rows: f(rows[0])[None]
    directions = torch.eye(len(z), dtype=z.dtype, device=z.device).split(chunk if recorded else 1)
    h = torch.cat([_hessian_products(many, z, part) for part in directions])
    return (h + h.T) / 2


def _hessian_products(many: Callable[[Tensor], Tensor], z: Tensor, directions: Tensor) -> Tensor:
    """Return the products of the Hessian with the rows of ``directions``; every backward pass starts at a scalar."""
    points = z.detach().expand(len(directions), -1).clone().requires_grad_()
    with torch.enable_grad():
        gradients = _gradient(many(points).sum(), points, create_graph=True)
        return _gradient((gradients * directions).sum(), points)


def _gradient(value: Tensor, z: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient of a scalar, which is zero where it does not depend on z at all."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(value, z, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(z) if gradient is None else gradient
