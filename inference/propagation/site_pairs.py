"""The sites of factors with two projections: Gaussian factors of a plane that stand for likelihood factors."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.propagation.pairs import PairFactor, ProjectionPair
from probdl.inference.propagation.site_factors import raised
from probdl.inference.propagation.tilted_plane import PlaneMoments, TiltedPlane
from probdl.natural import GaussianFactor
from probdl.natural.planes import PlaneFactor


class SitePairs:
    """The sites of one observed factor, each on the plane of u = (a₁·z, a₂·z); see ``SiteFactors``."""

    width = 2  # projections of each site

    def __init__(self, projection: ProjectionPair, power: float = 1.0) -> None:
        self.a, self.power = projection.directions, power
        self.log_likelihood = projection.log_likelihood
        self.tilted = TiltedPlane(raised(projection.log_likelihood, power))
        self.error = 0.0
        self.forget()

    def __len__(self) -> int:
        return len(self.a)

    @property
    def negative(self) -> int:
        """How many sites have a precision that is not positive."""
        return int((torch.linalg.eigvalsh(self.site.precision)[:, 0] < 0).sum())

    @property
    def is_silent(self) -> bool:
        """Whether the sites say nothing yet."""
        return not bool(self.site.shift.any()) and not bool(self.site.precision.any())

    def forget(self) -> None:
        """Return to sites that say nothing."""
        zero = torch.zeros_like(self.a[..., 0])
        self.site = self.target = PlaneFactor(zero, zero[..., None] * zero[:, None])

    def look_again(self) -> None:
        """Look for the tilted mass anew."""
        self.tilted.forget()

    def as_gaussian(self, site: PlaneFactor | None = None) -> GaussianFactor:
        """The product of the sites as a factor of z."""
        site = site or self.site
        precision = torch.einsum("nid,nij,nje->de", self.a, site.precision, self.a)
        return GaussianFactor(
            torch.einsum("nid,ni->d", self.a, site.shift), precision, torch.zeros_like(site.shift).sum()
        )

    def marginal(self, mean: Tensor, root: Tensor) -> PlaneFactor:
        """The marginals on the planes; a projection that is zero, or twice the same, gets a sliver of variance."""
        n, d = len(self.a), self.a.shape[-1]
        spread = torch.linalg.solve_triangular(root, self.a.reshape(2 * n, d).T, upper=False).reshape(d, n, 2)
        covariance = torch.einsum("dni,dnj->nij", spread, spread)
        sliver = 1e-12 * covariance.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-12)
        covariance = covariance + sliver[:, None, None] * torch.eye(2, dtype=mean.dtype, device=mean.device)
        return PlaneFactor.from_moments(self.a @ mean, covariance)

    def is_proper(self, marginal: PlaneFactor, site: PlaneFactor) -> bool:
        """Whether each cavity is a distribution."""
        return marginal.without(site, self.power).is_proper()

    def _tilted(self, marginal: PlaneFactor, tolerance: float | None = None) -> tuple[PlaneFactor, PlaneMoments]:
        cavity = marginal.without(self.site, self.power)
        moments = self.tilted(cavity, tolerance)
        self.error = moments.error
        return cavity, moments

    def match(self, marginal: PlaneFactor, tolerance: float | None = None) -> Tensor:
        """Compute the sites that match moments; return how far each of the present ones is from it, (n,)."""
        cavity, moments = self._tilted(marginal, tolerance)
        whole = PlaneFactor.from_moments(moments.mean, moments.covariance).without(cavity)
        self.target = PlaneFactor(whole.shift / self.power, whole.precision / self.power)
        covariance = marginal.covariance
        sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        mean_gap = (moments.mean - marginal.mean).abs() / sd
        spread_gap = (moments.covariance - covariance).abs() / (sd[:, :, None] * sd[:, None, :])
        return torch.maximum(mean_gap.amax(-1), spread_gap.amax((-2, -1))) / self.power

    def moved(self, step: float, rows: Tensor | None = None) -> PlaneFactor:
        """The sites after a damped step towards their targets; only some where ``rows`` is a mask."""
        new = self.site.towards(self.target, step)
        if rows is None:
            return new
        return PlaneFactor(
            torch.where(rows[:, None], new.shift, self.site.shift),
            torch.where(rows[:, None, None], new.precision, self.site.precision),
        )

    def flat(self, site: PlaneFactor) -> Tensor:
        """Sites as one vector."""
        return torch.cat([site.shift.reshape(-1), site.precision.reshape(-1)])

    def unflat(self, x: Tensor) -> PlaneFactor:
        """Sites from one vector."""
        shift, precision = x.split([2 * len(self.a), 4 * len(self.a)])
        return PlaneFactor(shift.reshape(-1, 2), precision.reshape(-1, 2, 2))

    def scale(self, marginal: PlaneFactor) -> Tensor:
        """What brings the entries of ``flat`` to the scale of their effect on the marginals."""
        sd = marginal.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        return torch.cat([sd.reshape(-1), (sd[:, :, None] * sd[:, None, :]).reshape(-1)])

    def log_scale(self, marginal: PlaneFactor) -> Tensor:
        """Σ log s, where s·site has the same integral under the cavity as the exact factor, in the sense of power α."""
        cavity, moments = self._tilted(marginal)
        under_cavity = marginal.log_integral() - cavity.log_integral()
        return (moments.log_normaliser - under_cavity).sum() / self.power

    def expected(
        self, factor: PairFactor, phi: Tensor, mean: Tensor, covariance: Tensor, marginal: PlaneFactor
    ) -> Tensor:
        """Return Σ E ℓ over the tilted distributions, for its gradient by φ; see ``SiteFactors.expected``."""
        cavity = marginal.without(self.site, self.power)
        self.tilted(cavity)
        u, weights = self.tilted.nodes(cavity)
        along = torch.linalg.solve(marginal.covariance, self.a @ covariance)  # (n, 2, d)
        pair = factor.at(phi)
        slopes = pair.directions @ along.mT
        moved = pair.directions @ mean + (slopes @ (u - self.a @ mean)[..., None])[..., 0]
        return (weights * pair.log_likelihood(moved)).sum()
