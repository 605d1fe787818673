"""The posterior that the optimum of a Gaussian family stands for: its bound, its message and its warnings."""

from __future__ import annotations

import math
import time
import warnings

import torch

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.deterministic.advice import advice
from probdl.inference.deterministic.deterministic_vi import Optimum
from probdl.inference.deterministic.expectations import DrawnExpectation
from probdl.inference.deterministic.fixed_draws import standard_draws
from probdl.inference.deterministic.linear_response import response_sds
from probdl.inference.deterministic.linear_response_gaussian import LinearResponseGaussian
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program

_ELBO_DRAWS = 1000  # fresh ones, since the bound is too high on those that it was maximised on


def bound(optimum: Optimum, seed: int) -> Estimate:
    """Return the evidence lower bound: by quadrature, or on fresh antithetic draws."""
    family, phi, expectation = optimum.family, optimum.phi, optimum.expectation
    entropy = float(family.entropy(phi))
    if not isinstance(expectation, DrawnExpectation):
        rough, fine = (float(other(family, phi)) for other in expectation.others())
        return Estimate(fine + entropy, abs(fine - rough), "quadrature", target="lower bound", n=4 * expectation.points)
    pairs = max(_ELBO_DRAWS // 2, family.dim)
    z = family.points(phi, standard_draws(pairs, family.dim, seed + 1, phi))
    gap = z - family.location(phi)
    quadratic = -0.5 * ((gap @ optimum.mean_hessian) * gap).sum(1)  # a control variate with a known mean
    known = -0.5 * float((optimum.mean_hessian * family.covariance(phi)).sum())
    values = expectation.at(z) - quadratic
    halves = (values[:pairs] + values[pairs:]) / 2
    stderr = float(halves.std()) / pairs**0.5
    return Estimate(float(halves.mean()) + known + entropy, stderr, "monte carlo", target="lower bound", n=2 * pairs)


def posterior_of(program: Program, optimum: Optimum, method: str, start: str, seed: int, started: float) -> Posterior:
    """Return the posterior that an optimum stands for, with its message and warnings."""
    import pandas as pd

    family, phi = optimum.family, optimum.phi
    sds = response_sds(program.latents, family, phi, optimum.curvature, optimum.covariance)
    approximation = LinearResponseGaussian(
        program.latents, family.location(phi), family.covariance(phi), optimum.covariance, sds
    )
    rows = optimum.rows
    notes = (*program.notes, *advice(program, optimum, approximation))
    message = " ".join([f"{_done(optimum, method)} {start}", *(f"Note: {note}." for note in notes)])
    elbo = _finite(bound(optimum, seed), program, optimum)
    if not optimum.converged:
        warnings.warn(f"{method} stopped before its optimum: {message}", ConvergenceWarning, stacklevel=4)
    return Posterior(
        method=method,
        approximation=approximation,
        converged=optimum.converged,
        message=message,
        seconds=time.perf_counter() - started,
        history=pd.DataFrame(rows),
        elbo=elbo,
        notes=notes,
    )


def _finite(elbo: Estimate, program: Program, optimum: Optimum) -> Estimate:
    """Refuse a bound that is not finite: some of the approximation lies where the posterior has no mass."""
    if math.isfinite(float(elbo.value)) and math.isfinite(float(elbo.stderr or 0.0)):
        return elbo
    family, phi = optimum.family, optimum.phi
    for z in family.points(phi, 4 * standard_draws(500, family.dim, 0, phi)):  # the quadrature looks far out
        bad = [name for name in program.observed if not bool(torch.isfinite(program.log_factor(name, z)).all())]
        if bad:
            raise ConvergenceError(
                f"The bound is minus infinity: the factor of site {', '.join(bad)} is zero where the approximation has "
                "mass, so the posterior is cut off and no normal fits it. Use method='nuts', or write the bounded "
                "latents with a bounded prior."
            )
    raise ConvergenceError(
        "The bound is not finite: the log-density is not, somewhere in the tails. Use method='nuts'."
    )


def _done(optimum: Optimum, method: str) -> str:
    expectation = optimum.expectation
    how = f"{expectation.points} {'fixed draws' if expectation.unit == 'draws' else expectation.unit}"
    error = f"which leave an error of at most {optimum.location_error:.1g} sd in the means"
    state = "maximised the bound" if optimum.converged else "did not reach the maximum of the bound"
    name = {"meanfield": "Mean-field", "fullrank": "Full-rank"}[method]
    return f"{name} VI {state} in {_counted(len(optimum.rows) - 1, 'Newton step')} by {how}, {error}."


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
