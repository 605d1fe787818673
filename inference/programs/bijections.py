"""From unconstrained vectors to the supports of latent sites; torch lacks the one onto positive definite matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform


class PositiveDefiniteBijection(Transform):
    r"""From d(d+1)/2 numbers to positive definite d×d matrices, :math:`x = LL^\top`, with log-diagonals of L.

    The density of x counts its lower triangle: :math:`\log |\partial x / \partial u| = d\log 2 + \sum_i (d+1-i+1)
    \log L_{ii}` with i from 1.

    Example:
        >>> transform = PositiveDefiniteBijection()
        >>> transform(torch.zeros(3))
        tensor([[1., 0.],
                [0., 1.]])
    """

    domain = constraints.real_vector
    codomain = constraints.positive_definite
    bijective = True

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, PositiveDefiniteBijection)

    __hash__ = Transform.__hash__

    def _call(self, u: Tensor) -> Tensor:
        root = self._root(u)
        return root @ root.mT

    def _root(self, u: Tensor) -> Tensor:
        d = round(((8 * u.shape[-1] + 1) ** 0.5 - 1) / 2)
        row, column = torch.tril_indices(d, d, device=u.device)
        flat = torch.zeros(*u.shape[:-1], d * d, dtype=u.dtype, device=u.device)
        place = (row * d + column).expand(u.shape)
        lower = torch.scatter(flat, -1, place, u).reshape(*u.shape[:-1], d, d)
        return lower.tril(-1) + torch.diag_embed(lower.diagonal(dim1=-2, dim2=-1).exp())

    def _inverse(self, x: Tensor) -> Tensor:
        root = torch.linalg.cholesky(x)
        row, column = torch.tril_indices(*x.shape[-2:], device=x.device)
        logs = root.tril(-1) + torch.diag_embed(root.diagonal(dim1=-2, dim2=-1).log())
        return logs[..., row, column]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log determinant of the derivative of the lower triangle of y by x, (...)."""
        logs = self._root(x).diagonal(dim1=-2, dim2=-1).log()
        d = logs.shape[-1]
        powers = torch.arange(d + 1, 1, -1, dtype=x.dtype, device=x.device)
        return d * 0.6931471805599453 + (logs * powers).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        """Return the shape of x."""
        d = round(((8 * shape[-1] + 1) ** 0.5 - 1) / 2)
        return torch.Size((*shape[:-1], d, d))

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Return the shape of u."""
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


def bijection(support: Any) -> Transform:
    """Return the map from unconstrained space onto a support."""
    core = support
    while hasattr(core, "base_constraint"):
        core = core.base_constraint
    return PositiveDefiniteBijection() if core is constraints.positive_definite else biject_to(support)
