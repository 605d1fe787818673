"""A kernel density estimate as a torch distribution."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from probdl.models.density.boundary import folded, reflected
from probdl.models.density.smoothing import Kernel
from probdl.models.density.tiles import Tiles

PANELS = 20_000  # of the quadrature for the moments inside bounds, at most


class KernelDensity(Distribution):
    r"""The mixture of kernels around points, :math:`p(x) = \sum_i w_i |L|^{-1} K(L^{-1}(x - x_i))`.

    Args:
        points: x_i, (n, d).
        weights: w_i, (n,), that sum to 1.
        root: L, (d, d), lower triangular; the bandwidth matrix is :math:`H = L L^T`.
        kernel: K; with bounds, a product and L diagonal.
        low, high: bounds (d,) at which the kernels are reflected, infinite where there is none.
        scalar: whether a draw is a number and no vector, for d = 1.

    Example:
        >>> import torch
        >>> x, w = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
        >>> p = KernelDensity(x, w, torch.eye(1, dtype=torch.float64), Kernel("gaussian", False, 1))
        >>> p.mean, p.variance
        (tensor([0.], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        points: Tensor,
        weights: Tensor,
        root: Tensor,
        kernel: Kernel,
        low: Tensor | None = None,
        high: Tensor | None = None,
        scalar: bool = False,
    ) -> None:
        self.points, self.weights, self.root, self.kernel = points, weights, root, kernel
        unbounded = points.new_full((points.shape[1],), math.inf)
        self.low, self.high = -unbounded if low is None else low, unbounded if high is None else high
        super().__init__(event_shape=torch.Size([] if scalar else [points.shape[1]]), validate_args=False)

    @property
    def support(self) -> Any:
        """The box of the bounds."""
        low, high = self.low.reshape(self.event_shape), self.high.reshape(self.event_shape)
        if bool(low.isinf().all() and high.isinf().all()):
            return constraints.independent(constraints.real, len(self.event_shape))
        return constraints.independent(constraints.interval(low, high), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of points (..., d), −∞ outside the bounds; differentiable in the points that ask for it."""
        x = value.reshape(-1, self.points.shape[1])
        y = self._whitened(x.to(self.points))
        if value.requires_grad:
            images, weights = self._images
            log = (weights.log() + self.kernel.log_values(y, images)).logsumexp(1)
        else:
            log = self.kernel.log_sums(self._tiles, Tiles.of(y))
        log = torch.where(((x >= self.low) & (x <= self.high)).all(1), log - self._log_det, -math.inf)
        return log.reshape(value.shape[: value.ndim - len(self.event_shape)]).to(value.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws (*sample_shape, d), from torch's global generator."""
        shape = torch.Size(sample_shape)
        return self.draws(shape.numel(), None).reshape(*shape, *self.event_shape)

    def draws(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Return n draws, (n, d), from a generator on the device of the points."""
        how: dict[str, Any] = {"generator": generator, "dtype": self.points.dtype, "device": self.points.device}
        ladder = self.weights.cumsum(0)
        which = torch.searchsorted(ladder, torch.rand(n, **how) * ladder[-1]).clamp_max(len(ladder) - 1)
        noise = self.kernel.draws(n, lambda *size: torch.randn(size, **how))
        return folded(self.points[which] + noise @ self.root.T, self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """(d,); inside bounds by quadrature."""
        return self._moments[0].reshape(self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Of each coordinate, (d,); likewise."""
        return self._moments[1].reshape(self.event_shape)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = self.weights @ self.points
        spread = self.weights @ (self.points - mean).square()
        mean, variance = mean, spread + self.kernel.variance * self.root.square().sum(1)
        for k in range(len(mean)):
            if self.low[k].isfinite() or self.high[k].isfinite():
                mean[k], variance[k] = self._inside(k)
        return mean, variance

    def _inside(self, k: int) -> tuple[Tensor, Tensor]:
        """Return mean and variance of one column inside its bounds, by Gauss-Legendre quadrature of its marginal."""
        kernel = Kernel(self.kernel.name, True, 1)
        column = KernelDensity(self.points[:, k : k + 1], self.weights, self.root[k : k + 1, k : k + 1], kernel,
                               self.low[k : k + 1], self.high[k : k + 1])  # fmt: skip
        h = float(self.root[k, k])
        start = max(float(self.low[k]), float(self.points[:, k].min()) - kernel.reach * h)
        stop = min(float(self.high[k]), float(self.points[:, k].max()) + kernel.reach * h)
        x, dx = _nodes(start, stop, min(PANELS, math.ceil(100 + 20 * (stop - start) / h)))
        x, dx = x.to(self.points), dx.to(self.points)
        mass = column.log_prob(x[:, None]).exp() * dx
        mean = (mass @ x) / mass.sum()
        return mean, mass @ (x - mean).square() / mass.sum()

    def kernel_values(self, x: Tensor, part: slice) -> Tensor:
        """Return the density that each of some points alone makes at x (m, d), inside the bounds, (m, part)."""
        points = self.points[part]
        images, weights = self._reflected(points, points.new_ones(len(points)))
        values = self.kernel.log_values(self._whitened(x), images).exp() / self._log_det.exp()
        return values.reshape(len(x), len(weights) // len(points), len(points)).sum(1)

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor]:
        """All points and their mirror images."""
        return self._reflected(self.points, self.weights)

    def _reflected(self, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return points and their mirror images, whitened, and their weights."""
        reach = self.kernel.reach * self.root.square().sum(1).sqrt()
        images, weights = reflected(points, weights, self.low, self.high, reach)
        return self._whitened(images), weights

    @cached_property
    def _tiles(self) -> Tiles:
        return Tiles.of(*self._images)

    @property
    def _log_det(self) -> Tensor:
        return self.root.diagonal().log().sum()

    def _whitened(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, (x - self.points.mean(0)).T, upper=False).T


def _nodes(start: float, stop: float, panels: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of Gauss-Legendre quadrature with 8 nodes in each panel."""
    import numpy as np

    z, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(8))
    half = (stop - start) / panels / 2
    middles = start + half * (2 * torch.arange(panels, dtype=torch.float64) + 1)
    return (middles[:, None] + half * z).flatten(), (half * w).repeat(panels)
