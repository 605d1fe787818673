"""The sites of expectation propagation: Normal factors of a·z that stand for likelihood factors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.propagation.projections import ProjectedFactor, Projection
from probdl.inference.propagation.recognised import ClosedForm, recognised
from probdl.inference.propagation.tilted import TiltedMoments, TiltedQuadrature
from probdl.natural import GaussianFactor, NormalFactor


class SiteFactors:
    r"""The sites of one observed factor: η = a·z + c, with a site factor of u = a·z.

    Under power α the cavity lacks the α-th power of its site, and the tilted distribution holds that of the exact
    factor: :math:`q^{\backslash i} = q / s_i^\alpha`, :math:`\hat p_i \propto q^{\backslash i} e^{\alpha \ell_i}`.

    Args:
        projection: of each observation.
        power: α in (0, 1].

    Source: Minka (2004), *Power EP*.
    """

    width = 1  # projections of each site

    def __init__(self, projection: Projection, power: float = 1.0) -> None:
        self.seen = seen = (projection.directions != 0).any(1)  # an observation with a = 0 says nothing of z
        self.a = projection.directions[seen]
        self.power = power
        self.log_likelihood = _on(projection, seen)
        quadrature = TiltedQuadrature(raised(self.log_likelihood, power))
        closed = recognised(self.log_likelihood, self.a[:, 0]) if power == 1 else None
        self.tilted = quadrature if closed is None else ClosedForm(closed, quadrature)
        self.constant = projection.log_likelihood(projection.offsets[None])[0, ~seen].sum()
        zero = torch.zeros_like(projection.offsets[seen])
        self.site = NormalFactor(zero, zero)
        self.target = self.site
        self.error = 0.0

    def __len__(self) -> int:
        return len(self.a)

    @property
    def negative(self) -> int:
        """How many sites have a negative precision."""
        return int((self.site.precision < 0).sum())

    @property
    def is_silent(self) -> bool:
        """Whether the sites say nothing yet."""
        return not bool(self.site.shift.any()) and not bool(self.site.precision.any())

    def forget(self) -> None:
        """Return to sites that say nothing."""
        self.site = self.target = NormalFactor(torch.zeros_like(self.site.shift), torch.zeros_like(self.site.shift))

    def look_again(self) -> None:
        """Look for the tilted mass anew."""
        self.tilted.forget()

    def as_gaussian(self, site: NormalFactor | None = None) -> GaussianFactor:
        """The product of the sites as a factor of z."""
        site = site or self.site
        return GaussianFactor(
            self.a.T @ site.shift, (self.a.T * site.precision) @ self.a, torch.zeros_like(site.shift).sum()
        )

    def marginal(self, mean: Tensor, root: Tensor) -> NormalFactor:
        """The marginals of u = a·z under a Gaussian with this mean and Cholesky factor of the precision."""
        spread = torch.linalg.solve_triangular(root, self.a.T, upper=False)
        return NormalFactor.from_moments(self.a @ mean, (spread**2).sum(0))

    def cavity(self, marginal: NormalFactor, site: NormalFactor | None = None) -> NormalFactor:
        """The marginals without the sites' power."""
        site = site or self.site
        return NormalFactor(marginal.shift - self.power * site.shift, marginal.precision - self.power * site.precision)

    def is_proper(self, marginal: NormalFactor, site: NormalFactor) -> bool:
        """Whether each cavity keeps a positive precision."""
        return bool((self.power * site.precision < (1 - 1e-10) * marginal.precision).all())

    def _tilted(self, marginal: NormalFactor, tolerance: float | None = None) -> tuple[NormalFactor, TiltedMoments]:
        cavity = self.cavity(marginal)
        moments = self.tilted(cavity, tolerance)
        self.error = moments.error
        return cavity, moments

    def match(self, marginal: NormalFactor, tolerance: float | None = None) -> Tensor:
        """Compute the sites that match moments; return how far each of the present ones is from it, (n,)."""
        cavity, moments = self._tilted(marginal, tolerance)
        whole = NormalFactor.from_moments(moments.mean, moments.variance) / cavity
        self.target = NormalFactor(whole.shift / self.power, whole.precision / self.power)
        mean_gap = (moments.mean - marginal.mean) * marginal.precision.sqrt()
        log_variance_gap = (moments.variance * marginal.precision).log()
        return torch.maximum(mean_gap.abs(), log_variance_gap.abs()) / self.power

    def moved(self, step: float, rows: Tensor | None = None) -> NormalFactor:
        """The sites after a damped step towards their targets; only some where ``rows`` is a mask."""
        new = self.site.towards(self.target, step)
        if rows is None:
            return new
        return NormalFactor(
            torch.where(rows, new.shift, self.site.shift), torch.where(rows, new.precision, self.site.precision)
        )

    def flat(self, site: NormalFactor) -> Tensor:
        """Sites as one vector."""
        return torch.cat([site.shift, site.precision])

    def unflat(self, x: Tensor) -> NormalFactor:
        """Sites from one vector."""
        return NormalFactor(*x.chunk(2))

    def scale(self, marginal: NormalFactor) -> Tensor:
        """What brings the entries of ``flat`` to the scale of their effect on the marginals."""
        return torch.cat([marginal.precision.rsqrt(), marginal.precision.reciprocal()])

    def log_scale(self, marginal: NormalFactor) -> Tensor:
        """Σ log s, where s·site has the same integral under the cavity as the exact factor, in the sense of power α."""
        cavity, moments = self._tilted(marginal)
        under_cavity = marginal.log_integral() - cavity.log_integral()
        return (moments.log_normaliser - under_cavity).sum() / self.power + self.constant

    def expected(
        self, factor: ProjectedFactor, phi: Tensor, mean: Tensor, covariance: Tensor, marginal: NormalFactor
    ) -> Tensor:
        r"""Return Σ E ℓ(a(φ)·z + c(φ); φ) over the tilted distributions, for its gradient by φ.

        Given u = a·z at the present a, the mean of z under a tilted distribution is that under the posterior, so that
        it moves along Σa/(aᵀΣa).
        """
        cavity = self.cavity(marginal)
        self.tilted(cavity)
        u, weights = self.tilted.nodes(cavity)
        along = self.a @ covariance
        along = along / (along * self.a).sum(1, keepdim=True)
        directions, offsets = factor.affine_map(phi)
        eta = (directions @ mean + offsets).expand(len(u), -1)
        slopes = (directions[self.seen] * along).sum(1)
        eta = eta.index_add(1, self.seen.nonzero()[:, 0], slopes * (u - self.a @ mean))
        log_likelihood = factor.log_likelihood(eta, phi)
        return (weights * log_likelihood[:, self.seen]).sum() + log_likelihood[0, ~self.seen].sum()


def raised(log_likelihood: Callable[[Tensor], Tensor], power: float) -> Callable[[Tensor], Tensor]:
    """Return the logarithm of a power of a likelihood."""
    return log_likelihood if power == 1 else lambda u: power * log_likelihood(u)


def _on(projection: Projection, seen: Tensor) -> Callable[[Tensor], Tensor]:
    """The log-likelihood of the sites that depend on z, as a function of u = a·z, (k, m) → (k, m)."""
    if bool(seen.all()):
        return lambda u: projection.log_likelihood(u + projection.offsets)

    def log_likelihood(u: Tensor) -> Tensor:
        eta = projection.offsets.repeat(len(u), 1)
        eta[:, seen] += u
        return projection.log_likelihood(eta)[:, seen]

    return log_likelihood
