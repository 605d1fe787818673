r"""Expectations of the log-density under a Gaussian family: by fixed draws, or exactly through affine projections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, fx

from probdl.inference.deterministic.fixed_draws import standard_draws
from probdl.inference.deterministic.gaussian_families import Family
from probdl.inference.laplace import Density
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.propagation.factors import NotApplicable, split_factors
from probdl.inference.propagation.projections import Projection
from probdl.inference.propagation.site_factors import SiteFactors
from probdl.natural import GaussianFactor

_REPLICATES, _MORE = 4, 4  # further sets of draws, and how much larger they are
_FEW = 3  # evaluations after which a batch of draws is worth recording
_BUDGET = 4_000_000  # values held at a time
_LARGEST = 40_000_000  # values of the largest rule
_MANY = 100_000  # observations from which a small rule is taken
_MOST_SHARED = 2000  # observations that share one projection, which a quadrature would evaluate n² times


class Expectation(ABC):
    """E_q log p(x, z) as a function of the parameters of a family."""

    points: int
    unit: str
    most: int  # points up to which they may be doubled
    tolerance: float  # of a location's error, in linear-response sd units, where it is cheaper than the user's

    @abstractmethod
    def __call__(self, family: Family, phi: Tensor) -> Tensor:
        """Return the expectation, a scalar in nats."""

    def density(self) -> Density | None:
        """Return the log-density in a faster form than a recording, where there is one."""
        return None

    @abstractmethod
    def refined(self) -> Expectation:
        """Return the same expectation with twice the points."""

    @abstractmethod
    def others(self) -> list[Expectation]:
        """Return the same expectation at other points, whose gradients show the error of these."""

    @abstractmethod
    def pooled(self, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far to move and the error of that, (n,) each.

        Args:
            moves: how far each of the others would move the optimum, (n, k).
        """


class ProjectedExpectation(Expectation):
    r"""Exact up to one-dimensional Gauss–Hermite quadrature: the log-density is Gaussian factors and sites ℓ(a·z).

    Under q each a·z is normal, so :math:`E_q \ell(a^\top z)` is a one-dimensional integral whatever the dimension, and
    there is no draw noise at all.

    Args:
        base: the product of the Gaussian factors.
        sites: those that see z through one affine projection each.
        points: nodes of the quadrature.
    """

    unit, tolerance = "quadrature nodes", 1e-2

    def __init__(self, base: GaussianFactor, sites: list[SiteFactors], points: int = 32) -> None:
        from scipy.special import roots_hermitenorm  # NumPy's overflows above 250 nodes

        self.base, self.sites, self.points = base, sites, points
        self.most = min(256, _LARGEST // (4 * max([len(site.a) for site in sites], default=1)))
        self._root = base.cholesky().T  # rows whose variances sum to tr(PΣ)
        nodes, weights = (torch.as_tensor(a).to(base.shift) for a in roots_hermitenorm(points))
        self._nodes, self._weights = nodes[:, None], weights / weights.sum()

    def __call__(self, family: Family, phi: Tensor) -> Tensor:
        """Return the expectation."""
        m, base = family.location(phi), self.base
        spread = family.variances(phi, self._root).sum()
        total = base.constant + base.shift @ m - 0.5 * (m @ base.precision @ m + spread)
        for site in self.sites:
            eta = site.a @ m + family.variances(phi, site.a).sqrt() * self._nodes
            total = total + self._weights @ site.log_likelihood(eta).sum(1) + site.constant
        return total

    def density(self) -> Density:
        """Return the log-density, whose Hessian is P and one number for each observation."""
        return ProjectedDensity(self.base, self.sites)

    def refined(self) -> ProjectedExpectation:
        """Return the same with twice the nodes."""
        return ProjectedExpectation(self.base, self.sites, 2 * self.points)

    def others(self) -> list[Expectation]:
        """Return the rules with twice and four times the nodes."""
        return [self.refined(), self.refined().refined()]

    def pooled(self, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Move to where the best rule would; its difference from the next best bounds its error."""
        return moves[:, 1], (moves[:, 1] - moves[:, 0]).abs()


class ProjectedDensity:
    """Gaussian factors and sites: log p = c + h·z − ½ zᵀPz + Σ ℓ(a·z), with second derivatives −P + Aᵀ diag(ℓ″) A."""

    def __init__(self, base: GaussianFactor, sites: list[SiteFactors]) -> None:
        self.base, self.sites = base, sites

    def _derivatives(self, site: SiteFactors, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Σ ℓ, ℓ′ and ℓ″ at η = a·z."""
        eta = (site.a @ z).requires_grad_()
        with torch.enable_grad():
            total = site.log_likelihood(eta[None]).sum()
            (first,) = torch.autograd.grad(total, eta, create_graph=True)
            second = torch.zeros_like(first)
            if first.requires_grad:
                (second,) = torch.autograd.grad(first.sum(), eta)
        return total.detach(), first.detach(), second.detach()

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density at z and its gradient."""
        z, base = z.detach(), self.base
        value = base.constant + base.shift @ z - 0.5 * z @ base.precision @ z
        gradient = base.shift - base.precision @ z
        for site in self.sites:
            total, first, _ = self._derivatives(site, z)
            value, gradient = value + total + site.constant, gradient + site.a.T @ first
        return value, gradient

    def hessian(self, z: Tensor) -> Tensor:
        """Return the second derivatives at z."""
        out = -self.base.precision
        for site in self.sites:
            _, _, second = self._derivatives(site, z.detach())
            out = out + (site.a.T * second) @ site.a
        return out


class DrawnExpectation(Expectation):
    """By fixed antithetic draws, for any log-density.

    Args:
        log_joint: maps (d,) to a scalar; a recorded graph is run on many rows at once, anything else row by row.
        noise: the draws, from ``standard_draws``.
        seed: that they came from.
        width: numbers that one evaluation touches, which limits how many draws are run at once.
    """

    unit, tolerance, most = "draws", 1.0, 1_000_000

    def __init__(self, log_joint: Callable[[Tensor], Tensor], noise: Tensor, seed: int, width: int = 1) -> None:
        self.log_joint, self.noise, self.seed, self.width = log_joint, noise, seed, width
        self.points = len(noise)
        self._seen = 0
        self._batched: Callable[[Tensor], Tensor] | None = None

    def at(self, z: Tensor) -> Tensor:
        """Return the log-density of each row of z, (M,)."""
        if not isinstance(self.log_joint, fx.GraphModule):
            return torch.stack([self.log_joint(row) for row in z])
        rows = max(1, _BUDGET // self.width)
        if z.shape == self.noise.shape and len(z) <= rows and self._seen > _FEW:
            self._batched = self._batched or _record_batch(self.log_joint, self.noise)
            return self._batched(z)
        self._seen += 1
        return torch.cat([torch.vmap(self.log_joint)(part) for part in z.split(rows)])

    def __call__(self, family: Family, phi: Tensor) -> Tensor:
        """Return the mean over the draws."""
        return self.at(family.points(phi, self.noise)).mean()

    def refined(self) -> DrawnExpectation:
        """Return the same with twice the draws."""
        return self._with(2 * self.points, self.seed)

    def _with(self, points: int, seed: int) -> DrawnExpectation:
        noise = standard_draws(points // 2, self.noise.shape[1], seed, self.noise)
        return DrawnExpectation(self.log_joint, noise, seed, self.width)

    def others(self) -> list[Expectation]:
        """Return more draws each from other scramblings: more, since setting their moments biases few."""
        return [self._with(_MORE * self.points, self.seed + 7919 * i) for i in range(1, _REPLICATES + 1)]

    def pooled(self, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Move to the mean over the other sets of draws; they are independent, so its error is known."""
        return moves.mean(1), moves.std(1) / moves.shape[1] ** 0.5


def _record_batch(graph: fx.GraphModule, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Record the graph on many rows at once, which spares vmap's work at each operation; else leave that to vmap."""
    many = torch.vmap(graph)
    try:
        return record(many, like, mend=False)
    except NotRecordable:
        return many


def expectation_of(program: Program, pairs: int, seed: int) -> Expectation:
    """Return the exact expectation where the program's factors allow it, else one by fixed draws."""
    try:
        if program.discrete:
            raise NotApplicable("summing them out mixes the factors")
        base, projections = split_factors(program)
        if not any(_is_shared_by_many(p) for p in projections.values()):
            sites = [SiteFactors(p) for p in projections.values()]
            many = sum(len(site.a) for site in sites) > _MANY  # whose posterior is narrow
            return ProjectedExpectation(base, sites, 8 if many else 32)
    except NotApplicable:
        pass
    noise = standard_draws(pairs, program.dim, seed, program.start)
    return DrawnExpectation(program.recorded(program.log_joint), noise, seed, program.width())


def _is_shared_by_many(projection: Projection) -> bool:
    a = projection.directions
    return len(a) > _MOST_SHARED and bool((a == a[0]).all())
