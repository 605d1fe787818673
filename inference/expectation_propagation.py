r"""Expectation propagation: iterate local moment matching until it stands still.

The posterior of jointly Gaussian latents is approximated by a Gaussian in which each likelihood factor
:math:`e^{\ell_i(a_i^\top z + c_i)}` is replaced by a Normal factor of :math:`a_i^\top z`, chosen so that the
approximation and the tilted distribution (the exact factor under the rest, its cavity) have the same mean and variance.
Each such projection minimises KL(tilted‖q); there is no global objective, and the iteration may fail to converge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError
from probdl.inference.approximations import GaussianApproximation
from probdl.inference.posterior import Posterior
from probdl.inference.program import Program
from probdl.inference.projections import Projection, find_projection
from probdl.inference.quadratic import gaussian_factor, is_quadratic
from probdl.inference.recording import NotRecordable, record
from probdl.inference.tilted import TiltedMoments, TiltedQuadrature
from probdl.loops.iterate import iterate
from probdl.natural import GaussianFactor, NormalFactor


class NotApplicable(ValueError):
    """The method does not fit the model; the message names the site and says what does."""


@dataclass(frozen=True)
class ExpectationPropagation:
    r"""Expectation propagation with parallel updates and adaptive damping.

    For models whose latents are jointly Gaussian a priori and whose observed factors are Gaussian in them, or see
    them through one affine projection: generalised linear models, Gaussian process classifiers, robust regression.
    The tilted moments are one-dimensional integrals, whatever the dimension.

    Args:
        tolerance: largest difference at the fixed point between the moments of the tilted distributions and of the
            approximation (means in sd units, log variances).
        max_sweeps: where the iteration gives up.

    Raises:
        ValueError: if a latent is not Gaussian or a factor sees more than one projection; it names the site.
        ConvergenceError: if there is no fixed point within ``max_sweeps``.

    Source: Minka (2001), *Expectation propagation for approximate Bayesian inference*; Rasmussen & Williams (2006),
    section 3.6, for the log evidence.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Bernoulli(logits=mu), obs=y)
        >>> fit(model, torch.tensor([1.0, 1.0, 0.0]), method=ExpectationPropagation()).mean("mu")  # exactly 0.3020
        tensor(0.3018, dtype=torch.float64)
    """

    tolerance: float = 1e-7
    max_sweeps: int = 500

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        started = time.perf_counter()
        base, projections = _split(program)
        state = _FixedPoint(base, projections)
        history = iterate(state.sweep, tolerance=self.tolerance, max_steps=self.max_sweeps, progress=progress)
        if not history.converged:
            raise ConvergenceError(_not_converged(self.max_sweeps, history.last, self.tolerance))
        mean, covariance = state.posterior().moments()
        notes = (*program.notes, *state.notes())
        evidence = Estimate(
            float(state.log_evidence()),
            None if projections else 0.0,
            self._method(projections),
            target="approximation" if projections else "population",
            notes=("the error of expectation propagation is unknown",) if projections else (),
        )
        return Posterior(
            method="expectation propagation",
            approximation=GaussianApproximation(program.latents, mean, covariance),
            converged=True,
            message=_message(projections, len(history.rows), notes),
            seconds=time.perf_counter() - started,
            history=history.frame(),
            log_evidence=evidence,
            notes=notes,
        )

    def _method(self, projections: dict[str, Projection]) -> str:
        return "expectation propagation" if projections else "closed form"


def _split(program: Program) -> tuple[GaussianFactor, dict[str, Projection]]:
    """Separate the Gaussian part (the prior and Gaussian likelihoods) from the factors that need sites."""
    _check_gaussian(program)
    base = gaussian_factor(program.recorded(program.log_prior), program.dim, program.start)
    projections = {}
    for name in program.observed:
        graph = _record_factor(program, name)
        total = _summed(graph)
        if is_quadratic(total, program.dim, program.start):
            base = base * gaussian_factor(total, program.dim, program.start)
        else:
            projections[name] = _project(graph, name, program)
    return base, projections


def _summed(graph: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: graph(z).sum()


def _check_gaussian(program: Program) -> None:
    for name, latent in program.latents.items():
        if not latent.is_real():
            raise NotApplicable(
                f"Expectation propagation needs Gaussian latents, but {name!r} has the support {latent.prior.support}. "
                "Use method='laplace' or 'nuts', or fix its value."
            )
    prior = program.recorded(program.log_prior)
    if is_quadratic(prior, program.dim, program.start):
        return
    wrong = [name for name in program.latents if not _latent_is_gaussian(program, name)]
    raise NotApplicable(
        f"Expectation propagation needs latents that are jointly Gaussian a priori, but the prior of "
        f"{', '.join(map(repr, wrong))} is not Gaussian given the other latents. Use method='laplace' or 'nuts'."
    )


def _latent_is_gaussian(program: Program, name: str) -> bool:
    log_latent = program.recorded(lambda z: program.log_latent(name, z))
    return is_quadratic(log_latent, program.dim, program.start)


def _record_factor(program: Program, name: str) -> torch.fx.GraphModule:
    try:
        return record(lambda z: program.log_factor(name, z), program.start)
    except NotRecordable as reason:
        raise NotApplicable(
            f"Expectation propagation could not read the factor of site {name!r}: {reason}. Use method='nuts'."
        ) from reason


def _project(graph: torch.fx.GraphModule, name: str, program: Program) -> Projection:
    projection = find_projection(graph, program.dim, program.start)
    if projection is None:
        raise NotApplicable(
            f"Expectation propagation needs each observation of site {name!r} to see the latents "
            f"{', '.join(program.latents)} through one affine projection a·z + c, and found none: the projection is "
            "not affine, or there is more than one. Use method='laplace' or 'nuts'."
        )
    return projection


class _FixedPoint:
    """The iteration's state: one Normal factor of a·z for each site, and the damping."""

    def __init__(self, base: GaussianFactor, projections: dict[str, Projection]) -> None:
        self.base = base
        self.groups = [_Group(p) for p in projections.values()]
        self.step = 1.0
        self.last_gap = float("inf")

    def posterior(self) -> GaussianFactor:
        """The Gaussian that the base and the sites make together."""
        total = self.base
        for group in self.groups:
            total = total * group.as_gaussian()
        return total

    def sweep(self) -> dict[str, float]:
        """Match the moments of all sites once; return the largest mismatch found before the step."""
        mean, covariance = self.posterior().moments()
        gaps = [group.match(mean, covariance) for group in self.groups]
        gap = max(gaps, default=0.0)
        self.step = max(0.7 * self.step, 0.02) if gap > self.last_gap else min(1.0, 1.1 * self.step)
        self.last_gap = gap
        if gap > 0:
            self._move()
        return {"gap": gap, "step": self.step}

    def _move(self) -> None:
        """Take the damped step, halved until the posterior and every cavity are distributions."""
        step = self.step
        for _ in range(30):
            proposed = [group.moved(step) for group in self.groups]
            if self._is_valid(proposed):
                for group, site in zip(self.groups, proposed):
                    group.site = site
                self.step = step
                return
            step = step / 2
        raise ConvergenceError(
            "Expectation propagation: no step, however small, keeps the posterior and its cavities proper. The "
            "posterior is probably improper: check that every latent has a proper prior, or use method='nuts'."
        )

    def _is_valid(self, proposed: list[NormalFactor]) -> bool:
        total = self.base
        for group, site in zip(self.groups, proposed):
            total = total * group.as_gaussian(site)
        root, info = torch.linalg.cholesky_ex(total.precision)
        if int(info):
            return False
        return all(group.cavities_are_proper(root, site) for group, site in zip(self.groups, proposed))

    def log_evidence(self) -> Tensor:
        """Log ∫ of the base times the sites, each scaled to keep its tilted normaliser."""
        mean, covariance = self.posterior().moments()
        scales = [group.log_scale(mean, covariance) for group in self.groups]
        return torch.stack([self.posterior().log_integral(), *scales]).sum()

    def notes(self) -> tuple[str, ...]:
        """What a careful reader should know of the sites."""
        negative = sum(int((g.site.precision < 0).sum()) for g in self.groups)
        error = max((g.error for g in self.groups), default=0.0)
        return (
            *(
                (f"{negative} sites have a negative precision, as likelihoods that are not log-concave need",)
                * (negative > 0)
            ),
            *((f"the quadrature of the tilted moments has an error of about {error:.1g}",) * (error > 1e-6)),
        )


class _Group:
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


def _message(projections: dict[str, Projection], sweeps: int, notes: tuple[str, ...]) -> str:
    if not projections:
        text = "Every factor is Gaussian in the latents, so the posterior and its evidence are exact."
    else:
        sites = ", ".join(f"{len(p.offsets)} of {name!r}" for name, p in projections.items())
        text = (
            f"Expectation propagation matched the moments of the sites ({sites}) to a fixed point in {sweeps} sweeps."
        )
    return " ".join([text, *(f"Note: {note}." for note in notes)])


def _not_converged(sweeps: int, gap: float, tolerance: float) -> str:
    return (
        f"Expectation propagation did not reach a fixed point in {sweeps} sweeps: the moments still differ by "
        f"{gap:.2g} (tolerance {tolerance:.2g}). Raise max_sweeps, rescale strongly correlated or separated "
        "covariates, give the latents tighter priors, or use method='laplace' or 'nuts'."
    )
