r"""Expectation propagation: iterate local moment matching until it stands still.

The posterior of jointly Gaussian latents is approximated by a Gaussian in which each likelihood factor
:math:`e^{\ell_i(a_i^\top z + c_i)}` is replaced by a Normal factor of :math:`a_i^\top z`, chosen so that the
approximation and the tilted distribution (the exact factor under the rest, its cavity) have the same mean and variance.
Each such projection minimises KL(tilted‖q); there is no global objective, and the iteration may fail to converge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.derivatives import at_least
from probdl.inference.programs.program import Program
from probdl.inference.propagation.factors import split_factors
from probdl.inference.propagation.fixed_point import FixedPoint
from probdl.inference.propagation.projections import Projection
from probdl.inference.propagation.site_factors import SiteFactors
from probdl.inference.propagation.weight_space import Sites


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
        base, projections = split_factors(program)
        state = FixedPoint(base, [SiteFactors(p) for p in projections.values()])
        tolerance = at_least(self.tolerance, program.dtype)
        history = state.run("parallel", tolerance, self.max_sweeps, progress)
        if not history.converged:
            raise ConvergenceError(_not_converged(self.max_sweeps, history.last, tolerance))
        mean, covariance = state.solution.mean, state.solution.covariance()
        notes = (*program.notes, *_site_notes(state.groups))
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


def _site_notes(groups: list[Sites]) -> tuple[str, ...]:
    """What a careful reader should know of the sites."""
    negative = sum(g.negative for g in groups)
    error = max((g.error for g in groups), default=0.0)
    return (
        *(
            (f"{negative} sites have a negative precision, as likelihoods that are not log-concave need",)
            * (negative > 0)
        ),
        *((f"the quadrature of the tilted moments has an error of about {error:.1g}",) * (error > 1e-6)),
    )


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
