"""Value, gradient and Hessian of a group's log-likelihood of the shared latents, its own integrated out."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.groups.density import GroupDensity
from probdl.inference.groups.inner import find_blocks, laplace_marginal

Derivatives = tuple[Tensor, Tensor, Tensor]


def derivatives(density: GroupDensity, z: Tensor) -> Derivatives:
    """Return the log-likelihood at z (dim,), its gradient (dim,) and Hessian (dim, dim).

    A group's own latents are integrated out by Laplace's method, whose gradient is differenced.
    """
    return _of_marginal(density, z) if density.own else _exact(density, z)


def _exact(density: GroupDensity, z: Tensor) -> Derivatives:
    eye, none = torch.eye(density.dim, dtype=z.dtype, device=z.device), z.new_zeros(density.dim, 0)
    rows, gradient, value = [], z, z[0]
    for part in eye.split(density.chunk(4)):
        points = z.expand(len(part), -1).clone().requires_grad_()
        values = density.many(points, none[: len(part)])
        (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        rows.append(_product(slopes, part, points))
        gradient, value = slopes[0].detach(), values[0].detach()
    h = torch.cat(rows)
    return value, gradient, (h + h.T) / 2


def _product(slopes: Tensor, directions: Tensor, points: Tensor) -> Tensor:
    if not slopes.requires_grad:
        return torch.zeros_like(points)
    (product,) = torch.autograd.grad((slopes * directions).sum(), points, allow_unused=True, materialize_grads=True)
    return product


def _of_marginal(density: GroupDensity, z: Tensor) -> Derivatives:
    blocks, size = find_blocks(density), 1e-4
    eye = size * torch.eye(density.dim, dtype=z.dtype, device=z.device)
    values, gradients = laplace_marginal(density, blocks, torch.cat([z[None], z + eye, z - eye]), density.start[1])
    ahead, behind = gradients[1:].split(density.dim)
    h = (ahead - behind) / (2 * size)
    return values[0], gradients[0], (h + h.T) / 2
