"""A posterior that is Gaussian on unconstrained space."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs.latents import Latent
from probdl.smoothing import kernel_density

_DRAWS = 20_000  # for moments that have no closed form or one-dimensional quadrature


class GaussianApproximation(Approximation):
    """A Gaussian on unconstrained space, pushed forward to the sites' own spaces.

    Real sites have exact moments. Sites that a transform maps elementwise (positive or bounded ones) have theirs by
    Gauss–Hermite quadrature. All others (simplexes, matrices) have them by a fixed set of 20,000 draws.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        covariance: covariance of z, shape (d, d).
    """

    def __init__(self, latents: dict[str, Latent], mean_: Tensor, covariance: Tensor) -> None:
        self.latents, self.free_mean, self.free_covariance = latents, mean_, covariance
        self.free_sd = covariance.diagonal().sqrt()

    @cached_property
    def root(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return torch.linalg.cholesky(self.free_covariance)

    @cached_property
    def _fixed_draws(self) -> dict[str, Tensor]:
        return self.draws(_DRAWS, seed=1)

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site."""
        latent = self.latents[name]
        if latent.is_real():
            return self.free_mean[latent.place].reshape(latent.shape)
        return self._moments(name)[0]

    def sd(self, name: str) -> Tensor:
        """Return the posterior standard deviation of a site."""
        latent = self.latents[name]
        if latent.is_real():
            return self.free_sd[latent.place].reshape(latent.shape)
        return self._moments(name)[1]

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        if not self._is_elementwise(name):
            x = self._fixed_draws[name]
            return x.mean(0), x.std(0)
        nodes, weights = _gauss_hermite(self.free_mean)
        x = self._at_standard(name, nodes)
        weights = weights.reshape(-1, *(1,) * (x.ndim - 1))
        mean = (weights * x).sum(0)
        return mean, (weights * (x - mean) ** 2).sum(0).sqrt()

    def _is_elementwise(self, name: str) -> bool:
        return self.latents[name].is_elementwise()

    def _at_standard(self, name: str, t: Tensor) -> Tensor:
        """The site's value where each unconstrained coordinate is mean + sd·t, (len(t), *shape)."""
        latent = self.latents[name]
        u = self.free_mean[latent.place] + t[:, None] * self.free_sd[latent.place]
        return latent.transform(u.reshape(len(t), *latent.free_shape))

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the q-quantile of a site; exact for elementwise monotone transforms."""
        if not self._is_elementwise(name):
            return self._fixed_draws[name].quantile(q, 0)
        t = torch.special.ndtri(torch.tensor([q], dtype=self.free_mean.dtype, device=self.free_mean.device))
        low, high = self._at_standard(name, t)[0], self._at_standard(name, -t)[0]
        falls = self._at_standard(name, torch.ones_like(t)) < self._at_standard(name, -torch.ones_like(t))
        return torch.where(falls[0], high, low)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return a density by differences of the distribution function between close quantiles."""
        if not self._is_elementwise(name):
            return kernel_density(self._fixed_draws[name].reshape(_DRAWS, -1)[:, entry])
        t = torch.linspace(-3.5, 3.5, 141, dtype=self.free_mean.dtype, device=self.free_mean.device)
        x, order = self._at_standard(name, t).reshape(len(t), -1)[:, entry].sort()
        mass = torch.special.ndtr(t).diff() if order[0] == 0 else torch.special.ndtr(t).diff().flip(0)
        return ((x[1:] + x[:-1]) / 2).cpu(), (mass / x.diff()).cpu()

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws (4000 where None) with a local generator."""
        z = self.free_mean + self._noise(n or 4000, seed) @ self.root.T
        return {name: latent.constrain(z) for name, latent in self.latents.items()}

    def _noise(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, len(self.free_mean), generator=generator, dtype=self.free_mean.dtype)
        return noise.to(self.free_mean.device)

    def draws_and_log_prob(self, n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return draws with their log-densities, exact even where a transform cannot be inverted in floating point."""
        noise = self._noise(n, seed)
        z = self.free_mean + noise @ self.root.T
        values, log_jacobian = {}, torch.zeros_like(z[:, 0])
        for name, latent in self.latents.items():
            u = z[:, latent.place].reshape(n, *latent.free_shape)
            values[name] = latent.transform(u)
            log_jacobian = log_jacobian + _summed(latent.transform.log_abs_det_jacobian(u, values[name]), 1)
        return values, self._log_standard(noise) - log_jacobian

    def errors(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the errors of the moments that a fixed set of draws gives; zero for the exact ones."""
        if self._is_elementwise(name):
            return super().errors(name)
        x = self._fixed_draws[name]
        squares = (x - x.mean(0)) ** 2
        return x.std(0) / _DRAWS**0.5, squares.std(0) / (2 * x.std(0) * _DRAWS**0.5)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return mean and covariance on unconstrained space."""
        return {"mean": self.free_mean, "covariance": self.free_covariance}, {}

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> GaussianApproximation:
        """Return the Gaussian with this mean and covariance."""
        return cls(latents, tensors["mean"], tensors["covariance"])

    def cov(self, names: tuple[str, ...]) -> Tensor:
        """Return the covariance of the flattened sites: exact where all are real, else by draws."""
        if not all(self.latents[name].is_real() for name in names):
            return super().cov(names)
        index = torch.cat([torch.arange(self.latents[k].place.start, self.latents[k].place.stop) for k in names])
        return self.free_covariance[index][:, index]

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log-density at sites' values, each (..., *shape), in their own spaces."""
        free, log_jacobian = [], torch.zeros_like(self.free_mean[0])
        for name, latent in self.latents.items():
            x = values[name].to(self.free_mean)
            u = latent.transform.inv(x)
            batch = x.ndim - len(latent.shape)
            free.append(u.reshape(*x.shape[:batch], -1))
            log_jacobian = log_jacobian + _summed(latent.transform.log_abs_det_jacobian(u, x), batch)
        gap = torch.cat(free, -1) - self.free_mean
        white = torch.linalg.solve_triangular(self.root, gap[..., None], upper=False)[..., 0]
        return self._log_standard(white) - log_jacobian

    def _log_standard(self, white: Tensor) -> Tensor:
        """The log-density on unconstrained space at mean + root·white, (...)."""
        normaliser = self.root.diagonal().log().sum() + 0.5 * len(self.free_mean) * math.log(2 * math.pi)
        return -0.5 * (white**2).sum(-1) - normaliser


def _summed(x: Tensor, batch: int) -> Tensor:
    """Sum all but the first ``batch`` dimensions."""
    return x.reshape(*x.shape[:batch], -1).sum(-1)


def _gauss_hermite(like: Tensor) -> tuple[Tensor, Tensor]:
    """64 nodes and weights for the expectation under a standard Normal."""
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = (torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in hermegauss(64))
    return nodes, weights / weights.sum()
