"""The sites of expectation propagation: Normal factors of a·z that stand for likelihood factors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.propagation.projections import Projection
from probdl.inference.propagation.tilted import TiltedMoments, TiltedQuadrature
from probdl.natural import GaussianFactor, NormalFactor


class SiteFactors:
    """The sites of one observed factor: η = a·z + c, with a site factor of u = a·z."""

    def __init__(self, projection: Projection) -> None:
        seen = (projection.directions != 0).any(1)  # an observation with a = 0 says nothing of z
        self.a = projection.directions[seen]
        self.quadrature = TiltedQuadrature(_on(projection, seen))
        self.constant = projection.log_likelihood(projection.offsets[None])[0, ~seen].sum()
        zero = torch.zeros_like(projection.offsets[seen])
        self.site = NormalFactor(zero, zero)
        self.target = self.site
        self.error = 0.0

    def as_gaussian(self, site: NormalFactor | None = None) -> GaussianFactor:
        """The product of the sites as a factor of z."""
        site = site or self.site
        return GaussianFactor(
            self.a.T @ site.shift, (self.a.T * site.precision) @ self.a, torch.zeros_like(site.shift).sum()
        )

    def marginal(self, mean: Tensor, covariance: Tensor) -> NormalFactor:
        """The marginals of u = a·z under the posterior."""
        return NormalFactor.from_moments(self.a @ mean, ((self.a @ covariance) * self.a).sum(1))

    def _tilted(self, marginal: NormalFactor) -> tuple[NormalFactor, TiltedMoments]:
        cavity = marginal / self.site
        moments = self.quadrature(cavity)
        self.error = moments.error
        return cavity, moments

    def match(self, mean: Tensor, covariance: Tensor) -> float:
        """Compute the sites that match moments; return how far the present ones are from it."""
        marginal = self.marginal(mean, covariance)
        cavity, moments = self._tilted(marginal)
        self.target = NormalFactor.from_moments(moments.mean, moments.variance) / cavity
        mean_gap = (moments.mean - marginal.mean) / marginal.variance.sqrt()
        log_variance_gap = (moments.variance / marginal.variance).log()
        return float(torch.maximum(mean_gap.abs(), log_variance_gap.abs()).max())

    def moved(self, step: float) -> NormalFactor:
        """The sites after a damped step towards their targets."""
        return self.site.towards(self.target, step)

    def cavities_are_proper(self, root: Tensor, site: NormalFactor) -> bool:
        """Whether each cavity keeps a positive precision, under the posterior precision with this Cholesky factor."""
        spread = torch.linalg.solve_triangular(root, self.a.T, upper=False)
        return bool((site.precision * (spread**2).sum(0) < 1 - 1e-10).all())

    def log_scale(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Σ log s, where s·site has the same integral under the cavity as the exact factor."""
        cavity, moments = self._tilted(self.marginal(mean, covariance))
        under_cavity = (cavity * self.site).log_integral() - cavity.log_integral()
        return (moments.log_normaliser - under_cavity).sum() + self.constant


def _on(projection: Projection, seen: Tensor) -> Callable[[Tensor], Tensor]:
    """The log-likelihood of the sites that depend on z, as a function of u = a·z, (k, m) → (k, m)."""
    if bool(seen.all()):
        return lambda u: projection.log_likelihood(u + projection.offsets)

    def log_likelihood(u: Tensor) -> Tensor:
        eta = projection.offsets.repeat(len(u), 1)
        eta[:, seen] += u
        return projection.log_likelihood(eta)[:, seen]

    return log_likelihood
