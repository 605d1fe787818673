"""The pictures of a posterior, each of some entries of its sites."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from probdl.inference.posteriors.gaussian import GaussianApproximation

if TYPE_CHECKING:
    from probdl.inference.posterior import Posterior

Entries = dict[str, tuple[str, int]]  # by label, the site and the place in it
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the quantiles in a forest
DRAWS = 20_000  # of an approximation, for regions that are smooth


def marginals(posterior: Posterior, entries: Entries, ax: Any, label: str) -> Any:
    """Draw the density of each entry."""
    from probdl import viz

    return viz.marginals(_curves(posterior, entries), ax=ax, label=label)


def forest(posterior: Posterior, entries: Entries, ax: Any, label: str) -> Any:
    """Draw median, 50 % and 90 % interval of each entry."""
    from probdl import viz

    quantiles = [{site: posterior.quantile(site, q) for site in _sites(entries)} for q in LEVELS]
    rows = [torch.stack(list(_picked(row, entries).values())) for row in quantiles]
    return viz.forest(list(entries), rows, ax=ax, label=label)


def pairs(posterior: Posterior, entries: Entries, ax: Any, label: str) -> Any:
    """Draw the joint density of each two entries; of a sampler from its draws, which are drawn too."""
    from probdl import viz

    sampled = posterior.approximation.is_sampled
    draws = posterior.draws(None if sampled else DRAWS)
    x = {entry: draws[site].reshape(len(draws[site]), -1)[:, i] for entry, (site, i) in entries.items()}
    curves, joints = _curves(posterior, entries), _joints(posterior, entries)
    return viz.pairs(x, ax, label=label, points=sampled, curves=curves, joints=joints)


def trace(posterior: Posterior, entries: Entries, ax: Any, label: str) -> Any:
    """Draw the course of the inference, or the chains of a sampler."""
    from probdl import viz

    if not posterior.approximation.is_sampled:
        return viz.convergence(posterior.history, ax=ax, label=label)
    chains = {site: x.reshape(*x.shape[:2], -1) for site, x in posterior.approximation.chains.items()}
    return viz.chains({entry: chains[site][..., i] for entry, (site, i) in entries.items()}, ax=ax)


def _curves(posterior: Posterior, entries: Entries) -> dict[str, tuple[Tensor, Tensor]]:
    return {entry: posterior.approximation.density(site, i) for entry, (site, i) in entries.items()}


def _joints(posterior: Posterior, entries: Entries) -> dict[tuple[str, str], Distribution]:
    """Return by (row, column) the Gaussian of each two entries that the approximation takes as such."""
    held = posterior.approximation
    if not isinstance(held, GaussianApproximation):
        return {}
    real = {e: (site, i) for e, (site, i) in entries.items() if held.latents[site].is_real()}
    place = {e: held.latents[site].place.start + i for e, (site, i) in real.items()}
    found: dict[tuple[str, str], Distribution] = {}
    for column, row in itertools.combinations(place, 2):
        at = torch.tensor([place[column], place[row]])
        mean, covariance = held.free_mean.cpu()[at], held.free_covariance.cpu()[at][:, at]
        found[row, column] = MultivariateNormal(mean, covariance)
    return found


def _sites(entries: Entries) -> list[str]:
    return list(dict.fromkeys(site for site, _ in entries.values()))


def _picked(values: dict[str, Tensor], entries: Entries) -> dict[str, Tensor]:
    """Return the value of each entry."""
    return {entry: values[site].reshape(-1)[i] for entry, (site, i) in entries.items()}


KINDS: dict[str, Callable[..., Any]] = {"marginals": marginals, "forest": forest, "pairs": pairs, "trace": trace}
