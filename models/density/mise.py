"""Exact errors of kernel density estimates with Gaussian kernels, where the truth is a mixture of normals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.access import Draws, tensor


@dataclass(frozen=True, eq=False)
class NormalMixture:
    r"""The density :math:`\sum_l w_l\, N(x; μ_l, σ_l^2 I)`, and how well a kernel estimate of n rows does on it.

    Attributes:
        weights: (k,), that sum to 1.
        means: (k, d).
        sds: (k,).

    Reference:
        Marron and Wand (1992), Exact mean integrated squared error, Annals of Statistics 20.

    Example:
        >>> normal = NormalMixture.of([1.0], [[0.0]], [1.0])
        >>> round(normal.mise(0.5, 100), 4), round(normal.best_bandwidth(100), 4)
        (0.0056, 0.4455)
    """

    weights: Tensor
    means: Tensor
    sds: Tensor

    @classmethod
    def of(cls, weights: Any, means: Any, sds: Any) -> NormalMixture:
        """Return the mixture of array-likes (k,), (k, d) or (k,), and (k,); weights are divided by their sum."""
        m = Draws(means, weights, name="means")
        s = tensor(sds, "sds")
        if s.shape != (m.n,) or not bool((s > 0).all()):
            raise ValueError(f"sds must be {m.n} positive numbers, one for each mean; got {s.tolist()}.")
        assert m.weights is not None
        return cls(m.weights, m.x, s)

    def mise(self, h: float, n: int) -> float:
        r"""Return :math:`E \int (\hat p - p)^2` for the Gaussian kernel with bandwidth matrix h²I on n rows."""
        d = self.means.shape[1]
        noise = 1 / (n * (2 * h * math.sqrt(math.pi)) ** d)
        return noise + (1 - 1 / n) * self._overlap(2 * h**2) - 2 * self._overlap(h**2) + self._overlap(0.0)

    def best_bandwidth(self, n: int) -> float:
        """Return the h of least ``mise``."""
        from scipy.optimize import minimize_scalar

        grid = torch.linspace(math.log(1e-3), math.log(10.0), 400, dtype=torch.float64) + float(self.sds.max().log())
        best = min(range(1, 399), key=lambda i: self.mise(math.exp(grid[i]), n))
        ends = (float(grid[best - 1]), float(grid[best + 1]))
        found = minimize_scalar(lambda t: self.mise(math.exp(t), n), bounds=ends, method="bounded")
        return math.exp(found.x)

    def density(self, x: Tensor, widened: float = 0.0) -> Tensor:
        """Return the density at x (m, d), smoothed by a normal of that variance: with h², p_h = E p̂."""
        return _normal(x[:, None] - self.means, self.sds.square() + widened) @ self.weights

    def mse(self, x: Tensor, h: float, n: int) -> Tensor:
        r"""Return :math:`E (\hat p(x) - p(x))^2` at points (m, d), for the same estimate."""
        d, mean = x.shape[1], self.density(x, h**2)
        second = self.density(x, h**2 / 2) / (2 * h * math.sqrt(math.pi)) ** d
        return (second - mean.square()) / n + (mean - self.density(x)).square()

    def draws(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n draws, (n, d)."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[which] + self.sds[which, None] * noise

    def _overlap(self, widened: float) -> float:
        """Return ∫ of the product of the density with itself, smoothed by a normal of that variance."""
        variance = self.sds.square()
        between = _normal(self.means[:, None] - self.means, variance[:, None] + variance + widened)
        return float(self.weights @ between @ self.weights)


def _normal(away: Tensor, variance: Tensor) -> Tensor:
    """Return the density of N(0, variance · I) at (..., d)."""
    d = away.shape[-1]
    return torch.exp(-away.square().sum(-1) / (2 * variance)) / (2 * math.pi * variance) ** (d / 2)
