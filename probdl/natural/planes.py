"""Many two-dimensional Gaussian factors, held by shift and precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PlaneFactor:
    r"""Factors :math:`\exp(h_i^\top u - \tfrac12 u^\top P_i u)` of points on a plane.

    Args:
        shift: h, shape (n, 2).
        precision: P, symmetric, perhaps indefinite, shape (n, 2, 2).
    """

    shift: Tensor
    precision: Tensor

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> PlaneFactor:
        """Return the Normals with these means (n, 2) and covariances (n, 2, 2)."""
        precision = torch.linalg.inv(covariance)
        precision = (precision + precision.mT) / 2
        return cls((precision @ mean[..., None])[..., 0], precision)

    @property
    def covariance(self) -> Tensor:
        """The inverse of the precision."""
        return torch.linalg.inv(self.precision)

    @property
    def mean(self) -> Tensor:
        """The means (n, 2)."""
        return torch.linalg.solve(self.precision, self.shift)

    def without(self, other: PlaneFactor, power: float = 1.0) -> PlaneFactor:
        """Return this factor divided by a power of another."""
        return PlaneFactor(self.shift - power * other.shift, self.precision - power * other.precision)

    def is_proper(self, margin: float = 1e-10) -> bool:
        """Whether every precision is positive definite."""
        scale = self.precision.diagonal(dim1=-2, dim2=-1).abs().amax(-1, keepdim=True)
        eye = torch.eye(2, dtype=scale.dtype, device=scale.device)
        return not bool(torch.linalg.cholesky_ex(self.precision - margin * scale[..., None] * eye)[1].any())

    def log_integral(self) -> Tensor:
        """Return the logarithms of the integrals, (n,)."""
        half = (self.shift * self.mean).sum(-1) / 2
        return math.log(2 * math.pi) - 0.5 * torch.linalg.slogdet(self.precision)[1] + half

    def log_prob(self, u: Tensor) -> Tensor:
        """Return the normalised log-densities at u (..., n, 2), of proper factors."""
        root = torch.linalg.cholesky(self.precision)
        gap = u - self.mean
        first = gap[..., 0] * root[:, 0, 0] + gap[..., 1] * root[:, 1, 0]
        second = gap[..., 1] * root[:, 1, 1]
        log_height = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - math.log(2 * math.pi)
        return log_height - 0.5 * (first * first + second * second)

    def towards(self, other: PlaneFactor, step: float) -> PlaneFactor:
        """Return this factor moved by ``step`` towards another."""
        return PlaneFactor(
            self.shift + step * (other.shift - self.shift), self.precision + step * (other.precision - self.precision)
        )
