"""A posterior that is known by draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs.latents import Latent
from probdl.smoothing import kernel_density


class SampledApproximation(Approximation):
    """Draws from a Markov chain, each site (chains, n, *shape)."""

    def __init__(self, latents: dict[str, Latent], chains: dict[str, Tensor]) -> None:
        self.latents, self.chains = latents, chains
        self.pooled = {name: x.flatten(0, 1) for name, x in chains.items()}
        self.n = len(next(iter(self.pooled.values())))

    def mean(self, name: str) -> Tensor:
        """Return the mean of the draws."""
        return self.pooled[name].mean(0)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of the draws."""
        return self.pooled[name].std(0)

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the empirical quantile of the draws."""
        return self.pooled[name].quantile(q, 0)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return a kernel density estimate of the draws."""
        return kernel_density(self.pooled[name].reshape(self.n, -1)[:, entry])

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return all draws, or n of them chosen without replacement."""
        if n is None:
            return self.pooled
        if n > self.n:
            raise ValueError(f"n must be at most the {self.n} draws that this posterior holds; got {n}. Fit with more.")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(self.n, generator=generator)[:n]
        return {name: x[chosen.to(x.device)] for name, x in self.pooled.items()}

    def repeated_draws(self, n: int, seed: int) -> dict[str, Tensor]:
        """Return n draws; once all were taken, they are taken again."""
        once = self.draws(min(n, self.n), seed)
        return {name: x[torch.arange(n, device=x.device) % len(x)] for name, x in once.items()}

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return split R-hat and effective sample size of each entry."""
        from pyro.ops.stats import effective_sample_size, split_gelman_rubin

        chains = {name: self._halved(x) for name, x in self.chains.items()}
        return {
            "rhat": {name: split_gelman_rubin(x) for name, x in chains.items()},
            "ess": {name: effective_sample_size(x) for name, x in chains.items()},
        }

    @staticmethod
    def _halved(x: Tensor) -> Tensor:
        """Chains whose length four divides; a single chain becomes two."""
        even = x[:, : 4 * (x.shape[1] // 4)]
        return even if len(even) > 1 else torch.cat(even.chunk(2, 1))

    def errors(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the Monte Carlo errors of mean and sd, from the effective sample sizes of x and of (x − mean)²."""
        from pyro.ops.stats import effective_sample_size

        x, sd = self._halved(self.chains[name]), self.sd(name)
        squares = (x - self.mean(name)) ** 2
        of_squares = squares.flatten(0, 1).std(0) / effective_sample_size(squares).sqrt()
        return sd / effective_sample_size(x).sqrt(), of_squares / (2 * sd)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the chains of each site."""
        return dict(self.chains), {}

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> SampledApproximation:
        """Return the posterior with these chains."""
        return cls(latents, {name: tensors[name] for name in latents})
