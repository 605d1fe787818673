"""What a posterior is made of: whatever it is, it answers the same questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from probdl.inference.programs.latents import Latent


class Approximation(ABC):
    """Moments, quantiles and draws of the latents in their own spaces."""

    latents: dict[str, Latent]
    notes: tuple[str, ...] = ()
    chains: dict[str, Tensor] = {}  # of a sampler: by site, (chains, n, *shape)

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

    @property
    def tabled(self) -> tuple[str, ...]:
        """The sites that tables and pictures show unless asked for others."""
        return tuple(self.latents)

    @property
    def is_sampled(self) -> bool:
        """Whether it is known by Markov chains: without a density, but with R-hat and effective sample sizes."""
        return bool(self.chains)

    def repeated_draws(self, n: int, seed: int) -> dict[str, Tensor]:
        """Return n draws, (n, *shape), some of them several times where fewer are held."""
        return self.draws(n, seed)

    def draws_and_log_prob(self, n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return n draws with their log-densities, (n,), which a subclass may know without inverting transforms."""
        values = self.draws(n, seed)
        return values, self.log_prob(values)

    def without(self, names: tuple[str, ...]) -> Approximation | None:
        """Return the approximation of the other sites alone, where these factor off; else None."""
        return None

    def probabilities(self, name: str) -> Tensor:
        """Return the probabilities of the values of a discrete site, (*shape, K).

        Raises:
            ValueError: if the site is continuous.
        """
        raise ValueError(f"Site {name!r} is continuous; probabilities are those of a discrete latent's values.")

    def errors(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the Monte Carlo standard errors of a site's mean and sd, in its shape; zero where they are exact."""
        mean = self.mean(name)
        return torch.zeros_like(mean), torch.zeros_like(mean)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors, and settings that JSON can hold, from which ``from_tensors`` builds this again.

        Raises:
            TypeError: if this kind cannot be saved.
        """
        raise TypeError(f"A posterior held as {type(self).__name__} cannot be saved. Keep its draws(n) instead.")

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> Approximation:
        """Return what ``to_tensors`` took apart."""
        raise TypeError(f"A posterior held as {cls.__name__} cannot be loaded.")

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return further columns of the summary, each in the site's shape."""
        return {}

    def cov(self, names: tuple[str, ...]) -> Tensor:
        """Return the covariance of the flattened sites, by draws."""
        draws = self.draws(None, 0)
        return torch.cov(torch.cat([draws[name].reshape(len(draws[name]), -1) for name in names], 1).T).reshape(
            2 * (sum(draws[name][0].numel() for name in names),)
        )
