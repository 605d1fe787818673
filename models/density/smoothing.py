"""The kernels: their constants, their logarithms by pairs, their draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.models.density import sums
from probdl.models.density.tiles import Tiles

KERNELS = ("gaussian", "epanechnikov")


@dataclass(frozen=True)
class Kernel:
    r"""A kernel K on d-dimensional space that integrates to 1, radial or a product of kernels in one dimension.

    .. math:: K(u) = (2π)^{-d/2} e^{-|u|^2/2}, \qquad K(u) = \tfrac{d+2}{2 V_d} (1 - |u|^2)_+, \qquad
        K(u) = \prod_k \tfrac34 (1 - u_k^2)_+

    Attributes:
        name: "gaussian" or "epanechnikov".
        product: whether it is the product of d kernels; of Gaussians that is the same.
        dim: d.

    Reference:
        Wand and Jones (1995), Kernel Smoothing, chapters 2 and 4.

    Example:
        >>> Kernel("epanechnikov", False, 1).variance, round(Kernel("epanechnikov", True, 1).roughness, 12)
        (0.2, 0.6)
    """

    name: str
    product: bool
    dim: int

    @property
    def log_height(self) -> float:
        """log K(0)."""
        d = self.dim
        if self.name == "gaussian":
            return -d / 2 * math.log(2 * math.pi)
        return d * math.log(0.75) if self.product else math.log((d + 2) / 2) - _log_ball(d)

    @property
    def variance(self) -> float:
        """∫ u₁² K(u) du."""
        return 1.0 if self.name == "gaussian" else 1 / ((1 if self.product else self.dim) + 4)

    @property
    def roughness(self) -> float:
        """∫ K²."""
        d = self.dim
        if self.name == "gaussian":
            return (4 * math.pi) ** (-d / 2)
        return 0.6**d if self.product else 2 * (d + 2) / (d + 4) * math.exp(-_log_ball(d))

    @property
    def canonical(self) -> float:
        """The factor that gives this kernel the smoothing of a Gaussian of bandwidth 1 (Marron and Nolan 1988)."""
        d, plain = self.dim, (4 * math.pi) ** (-self.dim / 2)
        return (self.roughness / self.variance**2 / plain) ** (1 / (d + 4))

    @property
    def reach(self) -> float:
        """How far in each coordinate K is not 0, or of a Gaussian not below 10⁻¹⁶ of K(0)."""
        return 8.6 if self.name == "gaussian" else 1.0

    def log_sums(self, x: Tiles, y: Tiles | None = None) -> Tensor:
        """Return log Σ w_i K(x_i − y_j) for each j; without ``y`` at each point, left out of its own sum."""
        of = (
            sums.gaussian
            if self.name == "gaussian"
            else sums.epanechnikov_product
            if self.product
            else sums.epanechnikov
        )
        return of(x, y) + self.log_height

    def log_values(self, y: Tensor, x: Tensor) -> Tensor:
        """Return log K(x_i − y_j) of all pairs, (m, n); differentiable."""
        squares = (y[:, None] - x).square()
        if self.name == "gaussian":
            return self.log_height - squares.sum(2) / 2
        if self.product:
            return self.log_height + (1 - squares).clamp_min(0).log().sum(2)
        return self.log_height + (1 - squares.sum(2)).clamp_min(0).log()

    def draws(self, n: int, normal: Callable[[int, int], Tensor]) -> Tensor:
        """Return n draws from K, (n, d); ``normal`` gives standard normal numbers of a shape.

        The first d coordinates of a point that is uniform on the sphere in d + 4 dimensions have density ∝ 1 − |u|².
        """
        d = self.dim
        if self.name == "gaussian":
            return normal(n, d)
        if self.product:
            return _on_sphere(normal(n * d, 5))[:, 0].reshape(n, d)
        return _on_sphere(normal(n, d + 4))[:, :d]


def _on_sphere(z: Tensor) -> Tensor:
    return z / torch.linalg.vector_norm(z, dim=1, keepdim=True)


def _log_ball(d: int) -> float:
    """Return the logarithm of the volume of the unit ball."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
