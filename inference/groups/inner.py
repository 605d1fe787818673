r"""A group's own latents given the shared ones, for many values of these at once.

Given z, the own latents l have a mode :math:`\hat l(z)` and minus the Hessian :math:`H(z)` there, found by damped
Newton steps for all z together. H falls into blocks, one for each set of latents that see each other: entries of
different blocks are probed by one product, so that an effect for each of a hundred levels costs as much as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.groups.density import GroupDensity

_MOST = 2000  # own latents of a group, whose dependence is looked up pair by pair
_STEPS = 80


@dataclass(frozen=True)
class Blocks:
    """Which own latents depend on each other given the shared ones.

    Attributes:
        index: entries of each block, (blocks, size); the gaps of smaller blocks point behind the last entry.
        filled: which of them are entries.
    """

    index: Tensor
    filled: Tensor

    @property
    def size(self) -> int:
        """Entries of the largest block."""
        return self.index.shape[1]

    def direction(self, i: int, own: int) -> Tensor:
        """Return the sum of the i-th unit vectors of all blocks, (own,)."""
        v = torch.zeros(own + 1, dtype=torch.float64)
        v[self.index[:, i]] = self.filled[:, i].double()
        return v[:own]

    def split(self, x: Tensor) -> Tensor:
        """Bring vectors (B, own) to (B, blocks, size), with zeros in the gaps."""
        return torch.cat([x, torch.zeros_like(x[:, :1])], 1)[:, self.index]

    def join(self, x: Tensor) -> Tensor:
        """Bring (B, blocks, size) back to (B, own)."""
        return x[:, self.filled][:, torch.argsort(self.index[self.filled])]


def find_blocks(density: GroupDensity) -> Blocks:
    """Return the connected sets of own latents, by the zeros of the Hessian at a random point.

    Raises:
        ValueError: if there are too many.
    """
    from scipy.sparse.csgraph import connected_components

    if density.own > _MOST:
        raise ValueError(
            f"A group must have at most {_MOST} latents of its own; one has {density.own}. Make more groups, so that "
            "each holds less."
        )
    generator = torch.Generator().manual_seed(23)
    z, own = (x + 0.2 * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x) for x in density.start)
    eye = torch.eye(density.own, dtype=own.dtype, device=own.device)
    products = []
    for rows in eye.split(density.chunk(4)):
        points = own.expand(len(rows), -1).clone().requires_grad_()
        gradient = _gradient(density, z.expand(len(rows), -1), points)
        products.append(torch.autograd.grad((gradient * rows).sum(), points)[0])
    count, label = connected_components((torch.cat(products) != 0).cpu().numpy(), directed=False)
    members = [torch.from_numpy((label == i).nonzero()[0]) for i in range(count)]
    size = max(map(len, members))
    index = torch.full((count, size), density.own)
    for i, block in enumerate(members):
        index[i, : len(block)] = block
    return Blocks(index, index < density.own)


def _gradient(density: GroupDensity, z: Tensor, own: Tensor) -> Tensor:
    with torch.enable_grad():
        return torch.autograd.grad(density.many(z, own).sum(), own, create_graph=True)[0]


def curvature(gradient: Tensor, own: Tensor, blocks: Blocks, create_graph: bool = False) -> Tensor:
    """Return minus the Hessian along the own latents by blocks, (B, blocks, size, size), with ones in the gaps."""
    columns = []
    for i in range(blocks.size):
        along = blocks.direction(i, own.shape[1]).to(own)
        (product,) = torch.autograd.grad((gradient * along).sum(), own, create_graph=create_graph, retain_graph=True)
        columns.append(-blocks.split(product))
    matrix = torch.stack(columns, -1)
    both = (blocks.filled[:, :, None] & blocks.filled[:, None, :]).to(own.device)
    eye = torch.eye(blocks.size, dtype=own.dtype, device=own.device)
    matrix = torch.where(both, matrix, eye)
    return (matrix + matrix.mT) / 2


@dataclass(frozen=True)
class Modes:
    """Modes of the own latents, (B, own), and Cholesky factors of minus the Hessian there, (B, blocks, size, size)."""

    own: Tensor
    root: Tensor

    def half_log_det(self) -> Tensor:
        """Half the log-determinant of minus the Hessian, (B,)."""
        return self.root.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))


def find_modes(density: GroupDensity, blocks: Blocks, z: Tensor, start: Tensor) -> Modes:
    """Return the modes of the own latents at the rows of z (B, dim), from one start (own,).

    Raises:
        ConvergenceError: if one of them has no mode with positive curvature.
    """
    parts = [_modes(density, blocks, part, start) for part in z.split(density.chunk(4))]
    return Modes(torch.cat([p.own for p in parts]), torch.cat([p.root for p in parts]))


def _modes(density: GroupDensity, blocks: Blocks, z: Tensor, start: Tensor) -> Modes:
    own, ridge = start.expand(len(z), -1).clone(), torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for _ in range(_STEPS):
        point = own.clone().requires_grad_()
        value = density.many(z, point)
        (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=True)
        h = curvature(gradient, point, blocks)
        root, positive = _roots(h, ridge)
        step = blocks.join(torch.cholesky_solve(blocks.split(gradient.detach())[..., None], root)[..., 0])
        decrement = (step * gradient.detach()).sum(1)
        proposed = own + step
        with torch.no_grad():
            better = density.many(z, proposed) >= value - 1e-12 * value.abs().clamp(min=1.0)
        accepted = better & positive
        done = (decrement < 1e-16 * density.own) & (ridge == 0) & positive
        if bool(done.all()):
            return Modes(own, root)
        own = torch.where((accepted & ~done)[:, None], proposed, own)
        ridge = torch.where(accepted, torch.where(ridge < 1e-6, 0.0, ridge / 10), (10 * ridge).clamp(min=1e-4))
    finite = positive & (decrement < 1e-6)
    if bool(finite.all()):  # rounding keeps the last digits from standing still
        return Modes(own, root)
    raise ConvergenceError(
        f"The latents that belong to one group have no mode, given the others, at {int((~finite).sum())} of {len(z)} "
        f"points of the approximation. {ADVICE}"
    )


ADVICE = (
    "Write hierarchical effects non-centred (raw ~ N(0, 1), effect = mean + sd · raw), give scales tighter priors, or "
    "use GroupEP(moments='nuts')."
)


def _roots(h: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of h with a ridge relative to its diagonal, and where all of a point's blocks have one."""
    scale = h.diagonal(dim1=-2, dim2=-1).abs().clamp(min=1e-8)
    root, info = torch.linalg.cholesky_ex(h + torch.diag_embed(ridge[:, None, None] * scale))
    bad = (info != 0) | ~torch.isfinite(root).all(-1).all(-1)
    eye = torch.diag_embed(scale.sqrt())
    return torch.where(bad[..., None, None], eye, root), ~bad.any(1)


def laplace_marginal(density: GroupDensity, blocks: Blocks, z: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`L(z) = g(z, \hat l) + \tfrac m2 \log 2\pi - \tfrac12\log|H|` and its gradient, (B,) and (B, dim).

    The gradient follows the mode: :math:`g_z - \Lambda_z - g_{zl} H^{-1} \Lambda_l` with
    :math:`\Lambda = \tfrac12 \log |H|`.
    """
    modes = find_modes(density, blocks, z, start)
    parts = [
        _marginal(density, blocks, a.clone().requires_grad_(), b.clone().requires_grad_())
        for a, b in zip(z.split(density.chunk(8)), modes.own.split(density.chunk(8)))
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _marginal(density: GroupDensity, blocks: Blocks, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    value = density.many(z, own)
    of_z, of_own = torch.autograd.grad(value.sum(), (z, own), create_graph=True)
    root = torch.linalg.cholesky(curvature(of_own, own, blocks, create_graph=True))
    half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
    det_z, det_own = torch.autograd.grad(
        half_log_det.sum(), (z, own), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    v = blocks.join(torch.cholesky_solve(blocks.split(det_own)[..., None], root.detach())[..., 0])
    (through,) = torch.autograd.grad((of_own * v).sum(), z, allow_unused=True, materialize_grads=True)
    marginal = value + 0.5 * density.own * math.log(2 * math.pi) - half_log_det
    return marginal.detach(), (of_z - det_z - through).detach()
