r"""Gaussian families on unconstrained space, :math:`z = m + S\varepsilon`: S diagonal (mean field) or triangular.

Their parameters φ are whitened: at φ = 0 the location and the scales are those of the start, and where the start has
the curvature of the log-density, the Hessian of the bound in φ is near the identity, so that Newton's method needs few
steps and conjugate gradients few products.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

_ROOT2 = math.sqrt(2.0)  # the second derivative of the bound in a log-scale is 2 at the optimum


@dataclass(frozen=True)
class Family(ABC):
    """A Gaussian family around a start.

    Attributes:
        centre: location at φ = 0, (d,).
        root: lower triangular, (d, d): the location is centre + root·u, where u is the first part of φ.
        scale: standard deviations at φ = 0, (d,); a full-rank family starts at the root instead.
    """

    centre: Tensor
    root: Tensor
    scale: Tensor

    @property
    def dim(self) -> int:
        """The length of z."""
        return len(self.centre)

    @property
    @abstractmethod
    def size(self) -> int:
        """The length of φ."""

    def zero(self) -> Tensor:
        """Return φ at the start."""
        return self.centre.new_zeros(self.size)

    def location(self, phi: Tensor) -> Tensor:
        """Return m, (d,)."""
        return self.centre + self.root @ phi[: self.dim]

    @abstractmethod
    def points(self, phi: Tensor, noise: Tensor) -> Tensor:
        """Return m + S·ε for each row ε of the noise, (M, d)."""

    @abstractmethod
    def variances(self, phi: Tensor, directions: Tensor) -> Tensor:
        """Return the variance of a·z for each row a of the directions, (n,)."""

    @abstractmethod
    def log_det(self, phi: Tensor) -> Tensor:
        """Return log|S|, a scalar."""

    @abstractmethod
    def covariance(self, phi: Tensor) -> Tensor:
        """Return SSᵀ, (d, d)."""

    @abstractmethod
    def restarted(self, phi: Tensor, covariance: Tensor) -> Family:
        """Return the family whose start is this member, whitened by a covariance of the location."""

    @abstractmethod
    def narrowed(self, factor: float) -> Family:
        """Return the family whose start has scales smaller by a factor."""

    def entropy(self, phi: Tensor) -> Tensor:
        """Return the entropy in nats."""
        return self.log_det(phi) + 0.5 * self.dim * (1 + math.log(2 * math.pi))


class MeanFieldFamily(Family):
    """Independent normals: φ holds the whitened location and √2 times the log of each scale over its start."""

    @property
    def size(self) -> int:
        """2d."""
        return 2 * self.dim

    def scales(self, phi: Tensor) -> Tensor:
        """Return the standard deviations, (d,)."""
        return self.scale * (phi[self.dim :] / _ROOT2).exp()

    def points(self, phi: Tensor, noise: Tensor) -> Tensor:
        """Return m + s·ε, (M, d)."""
        return self.location(phi) + noise * self.scales(phi)

    def variances(self, phi: Tensor, directions: Tensor) -> Tensor:
        """Return Σ a²s², (n,)."""
        return directions.square() @ self.scales(phi).square()

    def log_det(self, phi: Tensor) -> Tensor:
        """Return Σ log s."""
        return self.scale.log().sum() + phi[self.dim :].sum() / _ROOT2

    def covariance(self, phi: Tensor) -> Tensor:
        """Return the diagonal covariance, (d, d)."""
        return torch.diag(self.scales(phi).square())

    def restarted(self, phi: Tensor, covariance: Tensor) -> MeanFieldFamily:
        """Return the family that starts here."""
        return MeanFieldFamily(self.location(phi), torch.linalg.cholesky(covariance), self.scales(phi))

    def narrowed(self, factor: float) -> MeanFieldFamily:
        """Return the family with a narrower start."""
        return MeanFieldFamily(self.centre, self.root, self.scale * factor)


class FullRankFamily(Family):
    """Any covariance: S = root·T with T lower triangular, its diagonal in logs; T is the identity at φ = 0."""

    @property
    def size(self) -> int:
        """d + d(d + 1)/2."""
        return self.dim + self.dim * (self.dim + 1) // 2

    def _inner(self, phi: Tensor) -> Tensor:
        d = self.dim
        rows, columns = torch.tril_indices(d, d, -1, device=phi.device)
        below = phi.new_zeros(d, d).index_put((rows, columns), phi[2 * d :])
        return below + torch.diag((phi[d : 2 * d] / _ROOT2).exp())

    def factor(self, phi: Tensor) -> Tensor:
        """Return S, lower triangular, (d, d)."""
        return self.root @ self._inner(phi)

    def points(self, phi: Tensor, noise: Tensor) -> Tensor:
        """Return m + Sε, (M, d)."""
        return self.location(phi) + noise @ self.factor(phi).T

    def variances(self, phi: Tensor, directions: Tensor) -> Tensor:
        """Return ‖aᵀS‖², (n,)."""
        return (directions @ self.factor(phi)).square().sum(1)

    def log_det(self, phi: Tensor) -> Tensor:
        """Return the sum of the logs of the diagonal of S."""
        return self.root.diagonal().log().sum() + phi[self.dim : 2 * self.dim].sum() / _ROOT2

    def covariance(self, phi: Tensor) -> Tensor:
        """Return SSᵀ, (d, d)."""
        return self.factor(phi) @ self.factor(phi).T

    def restarted(self, phi: Tensor, covariance: Tensor) -> FullRankFamily:
        """Return the family that starts here; its own root whitens it."""
        return FullRankFamily(self.location(phi), self.factor(phi), self.scale)

    def narrowed(self, factor: float) -> FullRankFamily:
        """Return the family with a narrower start."""
        return FullRankFamily(self.centre, self.root * factor, self.scale * factor)
