"""What a posterior is made of: whatever it is, it answers the same questions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from probdl.inference.latents import Latent


class Approximation(ABC):
    """Moments, quantiles and draws of the latents in their own spaces."""

    latents: dict[str, Latent]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site, in its shape."""

    @abstractmethod
    def sd(self, name: str) -> Tensor:
        """Return the posterior standard deviation of a site, in its shape."""

    @abstractmethod
    def quantile(self, name: str, q: float) -> Tensor:
        """Return the q-quantile of a site, in its shape."""

    @abstractmethod
    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws of all sites, each (n, *shape)."""

    @abstractmethod
    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and marginal densities there of one entry of the flattened site, for a picture."""

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log-density at sites' values, each (..., *shape), in their own spaces.

        Raises:
            ValueError: if the posterior is known by draws only.
        """
        raise ValueError("A posterior that is known by its draws has no density. Fit with another method.")

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return further columns of the summary, each in the site's shape."""
        return {}

    def cov(self, names: tuple[str, ...]) -> Tensor:
        """Return the covariance of the flattened sites, by draws."""
        draws = self.draws(None, 0)
        return torch.cov(torch.cat([draws[name].reshape(len(draws[name]), -1) for name in names], 1).T).reshape(
            2 * (sum(draws[name][0].numel() for name in names),)
        )


def kernel_density(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Gaussian kernel estimate with Scott's bandwidth, between the draws' extremes and a little beyond."""
    from scipy.stats import gaussian_kde

    draws = x.cpu().double()
    grid = torch.linspace(-0.1, 1.1, 200, dtype=torch.float64) * (draws.max() - draws.min()) + draws.min()
    return grid, torch.as_tensor(gaussian_kde(draws.numpy())(grid.numpy()))
