r"""Normal distributions in natural parameters, where multiplying densities is adding parameters.

A Normal factor is :math:`\exp(h z - \tfrac12 z P z)` with shift h and precision P. Dividing one Normal by another
may leave a negative precision: that is a valid factor, though not a distribution, and expectation propagation needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalFactor:
    r"""Many one-dimensional factors :math:`\exp(h_i z_i - \tfrac12 \tau_i z_i^2)`, held elementwise.

    Args:
        shift: h, precision times mean, shape (n,).
        precision: τ, may be negative, shape (n,).

    Source: Minka (2001), *Expectation propagation for approximate Bayesian inference*.

    Example:
        >>> import torch
        >>> a = NormalFactor.from_moments(torch.tensor([1.0]), torch.tensor([2.0]))
        >>> (a * a / a).mean, (a * a).variance
        (tensor([1.]), tensor([1.]))
    """

    shift: Tensor
    precision: Tensor

    @classmethod
    def from_moments(cls, mean: Tensor, variance: Tensor) -> NormalFactor:
        """Return the Normal with these means and variances (moment matching)."""
        return cls(mean / variance, 1 / variance)

    @property
    def mean(self) -> Tensor:
        """The mean h/τ; meaningful where the precision is positive."""
        return self.shift / self.precision

    @property
    def variance(self) -> Tensor:
        """The variance 1/τ; meaningful where the precision is positive."""
        return 1 / self.precision

    def __mul__(self, other: NormalFactor) -> NormalFactor:
        return NormalFactor(self.shift + other.shift, self.precision + other.precision)

    def __truediv__(self, other: NormalFactor) -> NormalFactor:
        return NormalFactor(self.shift - other.shift, self.precision - other.precision)

    def log_integral(self) -> Tensor:
        r"""Return :math:`\log\int \exp(hz - \tfrac12\tau z^2)dz = \tfrac12\log(2\pi/\tau) + h^2/(2\tau)`."""
        return 0.5 * (math.log(2 * math.pi) - self.precision.log()) + self.shift**2 / (2 * self.precision)

    def towards(self, other: NormalFactor, step: Tensor | float) -> NormalFactor:
        """Return the damped update: this factor moved by ``step`` (0 to 1) towards ``other``."""
        return NormalFactor(
            self.shift + step * (other.shift - self.shift), self.precision + step * (other.precision - self.precision)
        )


@dataclass(frozen=True)
class GaussianFactor:
    r"""One factor :math:`\exp(c + h^\top z - \tfrac12 z^\top P z)` of a vector z.

    Args:
        shift: h, shape (d,).
        precision: P, symmetric, shape (d, d).
        constant: c, a scalar.
    """

    shift: Tensor
    precision: Tensor
    constant: Tensor

    def __mul__(self, other: GaussianFactor) -> GaussianFactor:
        return GaussianFactor(
            self.shift + other.shift, self.precision + other.precision, self.constant + other.constant
        )

    def cholesky(self) -> Tensor:
        """Return the lower Cholesky factor of the precision.

        Raises:
            torch.linalg.LinAlgError: if the precision is not positive definite, so that there is no distribution.
        """
        return torch.linalg.cholesky(self.precision)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean (d,) and the covariance (d, d)."""
        covariance = torch.cholesky_inverse(self.cholesky())
        return covariance @ self.shift, covariance

    def log_integral(self) -> Tensor:
        r"""Return :math:`c + \tfrac d2\log 2\pi - \tfrac12\log|P| + \tfrac12 h^\top P^{-1}h`."""
        root = self.cholesky()
        half = torch.linalg.solve_triangular(root, self.shift[:, None], upper=False)[:, 0]
        half_log_det = root.diagonal().log().sum()
        return self.constant + 0.5 * len(half) * math.log(2 * math.pi) - half_log_det + 0.5 * half @ half
