"""The posterior as a product of free-form factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import identity_transform

from probdl.inference.free_form import stored
from probdl.inference.free_form.answers import marginals_of
from probdl.inference.free_form.marginals import DiscreteMarginals, GaussianMarginals
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs.latents import Latent
from probdl.inference.programs.predictive import seeded
from probdl.inference.programs.program import Program


class FactorisedApproximation(Approximation):
    """A product of factors, each an exponential family, a discrete distribution or a density on a grid.

    Args:
        latents: all latent sites, discrete ones with the identity as their transform.
        blocks: the factors.
        responses: computes sd_lr by site where linear response is to be had, else None.
    """

    def __init__(
        self, latents: dict[str, Latent], blocks: list[Any], responses: Callable[[], dict[str, Tensor]] | None = None
    ) -> None:
        self.latents, self.blocks, self.responses = latents, blocks, responses
        self._marginals = [marginals_of(b) for b in blocks]
        self._of = {name: m for m in self._marginals for name in m.block.names}
        self._sd_lr: dict[str, Tensor] | None = None

    @property
    def tabled(self) -> tuple[str, ...]:
        """The sites that tables and pictures show unless asked for others: the continuous ones, where there are any."""
        continuous = tuple(k for k in self.latents if not isinstance(self._of[k], DiscreteMarginals))
        return continuous or tuple(self.latents)

    def mean(self, name: str) -> Tensor:
        """Return the mean of a site; of a discrete one, that of its value."""
        return self._of[name].mean(name)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of a site."""
        return self._of[name].sd(name)

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the q-quantile of a site."""
        return self._of[name].quantile(name, q)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and densities, or values and probabilities, of one entry."""
        return self._of[name].density(name, entry)

    def without(self, names: tuple[str, ...]) -> FactorisedApproximation:
        """Return the factors that hold none of some sites, which are independent of the rest."""
        kept = {name: latent for name, latent in self.latents.items() if name not in names}
        return FactorisedApproximation(kept, [b for b in self.blocks if not set(b.names) & set(names)])

    def probabilities(self, name: str) -> Tensor:
        """Return the probabilities of a discrete site's values, (*shape, K)."""
        marginals = self._of[name]
        if not isinstance(marginals, DiscreteMarginals):
            raise ValueError(f"Site {name!r} is continuous; probabilities are those of a discrete latent's values.")
        return marginals.probabilities(name)

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws of all sites (4000 where None)."""
        with seeded(seed, torch.device("cpu")):
            drawn = [m.draws(n or 4000) for m in self._marginals]
        together = {k: x for part in drawn for k, x in part.items()}
        return {name: together[name] for name in self.latents}

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return log q at sites' values, each (..., *shape)."""
        return torch.stack([m.log_prob(values) for m in self._marginals]).sum(0)

    def cov(self, names: tuple[str, ...]) -> Tensor:
        """Return the covariance of the flattened sites: exact where all are Gaussian, else by draws."""
        if not all(isinstance(self._of[name], GaussianMarginals) for name in names):
            return super().cov(names)
        sizes = [self.latents[name].shape.numel() for name in names]
        out = self.mean(names[0]).new_zeros(sum(sizes), sum(sizes))
        starts = [sum(sizes[:i]) for i in range(len(names))]
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if self._of[a] is self._of[b]:
                    part = _covariance_between(self._of[a].block, a, b)
                    out[starts[i] : starts[i] + sizes[i], starts[j] : starts[j] + sizes[j]] = part
        return out

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return sd_lr, where linear response gives it."""
        if self._sd_lr is None and self.responses is not None:
            self._sd_lr = self.responses()
        return {} if not self._sd_lr else {"sd_lr": self._sd_lr}

    def to(self, latents: dict[str, Latent], dtype: torch.dtype) -> FactorisedApproximation:
        """Return the same factors in another floating type, of sites in that type."""
        tensors, settings = self.to_tensors()
        cast = {k: x.to(dtype) if x.is_floating_point() else x for k, x in tensors.items()}
        return self.from_tensors(latents, cast, settings)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the natural parameters of the blocks, and what they are."""
        tensors, settings = stored.take_apart(self.blocks)
        for name, x in self.columns(0).get("sd_lr", {}).items():
            tensors[f"sd_lr/{name}"] = x
        return tensors, settings

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> FactorisedApproximation:
        """Return what ``to_tensors`` took apart."""
        out = cls(latents, stored.put_together(latents, tensors, settings))
        out._sd_lr = {k.removeprefix("sd_lr/"): x for k, x in tensors.items() if k.startswith("sd_lr/")} or None
        return out


def _covariance_between(block: Any, a: str, b: str) -> Tensor:
    """The covariance of two sites of a Gaussian block, flattened; zero between units."""
    covariance = block.covariances()
    i, j = block.places[a].reshape(-1, 1), block.places[b].reshape(1, -1)
    entry = covariance[i // block.size, i % block.size, j % block.size]
    return torch.where(i // block.size == j // block.size, entry, torch.zeros_like(entry))


def all_latents(program: Program, order: tuple[str, ...]) -> dict[str, Latent]:
    """Return the latent sites in order, discrete ones as sites of no unconstrained entries."""
    out = {}
    for name in order:
        if name in program.latents:
            out[name] = program.latents[name]
        else:
            fn = program.discrete[name]
            shape = fn.shape()
            out[name] = Latent(name, slice(0, 0), shape, shape, identity_transform, fn)
    return out
