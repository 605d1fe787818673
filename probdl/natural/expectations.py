"""The expected sufficient statistics of what is held of a distribution: draws, torch's distribution, a log-density."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from probdl.access import Draws, LogDensity
from probdl.divergences.distributions import double, draw, is_discrete
from probdl.natural.exponential import ExponentialFamily
from probdl.natural.integrals import over_density, over_distribution
from probdl.natural.supports import check_distribution, check_draws

OF_THE_MEAN = ("Exponential", "Poisson", "Bernoulli", "Geometric")  # whose statistic is z itself


class Expectation(NamedTuple):
    """E[u] (k,), its standard error or a bound on the error of quadrature (k,), and how it was found."""

    mean: Tensor
    stderr: Tensor
    method: str


def expected_statistics(
    family: ExponentialFamily, p: Distribution | Draws | LogDensity, draws: int, seed: int
) -> Expectation:
    """Return E_p[u] by the most precise way that there is.

    Raises:
        ValueError: if p leaves the support of the family, has one draw, or has no finite E[u].
    """
    if isinstance(p, Draws):
        return of_draws(family, p, "draws")
    if isinstance(p, LogDensity):
        return Expectation(*over_density(family, p), "quadrature")
    check_distribution(family, p)
    p = double(p, "cpu")
    exact = _closed_form(family, p)
    if exact is not None:
        return Expectation(_finite(family, exact), torch.zeros_like(exact), "closed form")
    if not p.event_shape and not is_discrete(p):
        return Expectation(*over_distribution(family, p), "quadrature")
    return of_draws(family, Draws(draw(p, draws, seed)), "monte carlo")


def of_draws(family: ExponentialFamily, p: Draws, method: str) -> Expectation:
    """Return the weighted mean of u over draws, and its standard error."""
    if p.n < 2:
        raise ValueError("p must have at least two draws, to tell its spread; got one.")
    u = family.statistics(check_draws(family, p))
    weights = u.new_full((p.n,), 1 / p.n) if p.weights is None else p.weights
    mean = weights @ u
    spread = (u - mean).square()
    return Expectation(mean, (weights.square() @ spread).sqrt(), method)


def _closed_form(family: ExponentialFamily, p: Distribution) -> Tensor | None:
    """E[u] where the family has p as a member, where torch has the moments, or by a sum over p's values."""
    if isinstance(p, family.kind):
        return family.mean_statistics(family.natural(p))
    if p.has_enumerate_support and not isinstance(p, Independent):
        z = p.enumerate_support()
        return p.log_prob(z).exp() @ family.statistics(check_draws(family, Draws(z)))
    return _from_moments(family, p)


def _from_moments(family: ExponentialFamily, p: Distribution) -> Tensor | None:
    try:
        if family.name == "Normal":
            return torch.stack([p.mean, p.variance + p.mean**2])
        if family.name in OF_THE_MEAN:
            return p.mean[None]
        covariance = _covariance(p) if family.name == "MultivariateNormal" else None
    except NotImplementedError:  # torch does not have every moment
        return None
    if covariance is None:
        return None
    second = covariance + torch.outer(p.mean, p.mean)
    return torch.cat([p.mean, second[tuple(torch.triu_indices(len(second), len(second)).flip(0))]])


def _covariance(p: Distribution) -> Tensor | None:
    if isinstance(p, Independent) and not p.base_dist.event_shape:
        return torch.diag(p.variance)
    return getattr(p, "covariance_matrix", None)


def _finite(family: ExponentialFamily, mean: Tensor) -> Tensor:
    if not bool(torch.isfinite(mean).all()):
        raise ValueError(f"p has no finite moments E[u] for {family.name}: {mean.tolist()}. Choose another family.")
    return mean
