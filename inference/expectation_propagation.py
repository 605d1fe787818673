r"""Expectation propagation: iterate local moment matching until it stands still.

The posterior of jointly Gaussian latents is approximated by a Gaussian in which each likelihood factor
:math:`e^{\ell_i(a_i^\top z + c_i)}` is replaced by a Normal factor of :math:`a_i^\top z`, chosen so that the
approximation and the tilted distribution (the exact factor under the rest, its cavity) have the same mean and variance.
Each such projection minimises KL(tilted‖q); there is no global objective, and the iteration may fail to converge.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from probdl.divergences.estimate import Estimate
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.program import Program
from probdl.inference.propagation.factors import Factors, latents_outside
from probdl.inference.propagation.hyperparameters import maximise_evidence
from probdl.inference.propagation.outer_grid import explore
from probdl.inference.propagation.report import describe, named, site_notes
from probdl.inference.propagation.solving import Attempt, Solution, solve


@dataclass(frozen=True)
class ExpectationPropagation:
    r"""Expectation propagation, and power expectation propagation, with adaptive damping.

    For models with jointly Gaussian latents whose observed factors are Gaussian in them, or see them through one or
    two affine projections: generalised linear models, Gaussian process classifiers, robust and heteroscedastic
    regression, mixtures. The tilted moments are integrals on a line or a plane, whatever the dimension. Up to three
    entries of latents that are not Gaussian, such as scales and dispersions, are held on a grid outside, with the
    evidence as their weight.

    Args:
        power: α in (0, 1]: 1 is expectation propagation, which is inclusive and matches moments; towards 0 it becomes
            Gaussian variational inference (``FullRank``).
        schedule: "parallel" moves all sites at once, "sequential" one after another; "auto" falls from the first to
            the second, and then to half the power, where there is no convergence.
        damping: share of each step that is left out, in [0, 1); "auto" takes as little as the iteration needs.
        tolerance: largest difference at the fixed point between the moments of the tilted distributions and of the
            approximation (means in sd units, log variances).
        max_sweeps: where an attempt gives up.
        optimise: names of sample sites and ``pyro.param``s to set to the maximum of the log evidence (for sample
            sites, times their prior density) in place of a posterior; the message reports their values.

    Raises:
        ValueError: for arguments out of range, too many latents that are not Gaussian, a factor that sees more than
            two projections, or projections that are not affine; it names the site.
        ConvergenceError: if no attempt reaches a fixed point within ``max_sweeps``.

    Source: Minka (2001), *Expectation propagation for approximate Bayesian inference*; Minka (2004), *Power EP*;
    Rasmussen & Williams (2006), section 3.6, for the log evidence; Rue, Martino & Chopin (2009) for the grid.

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

    power: float = 1.0
    schedule: str = "auto"
    damping: float | str = "auto"
    tolerance: float = 1e-7
    max_sweeps: int = 500
    optimise: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise a ValueError for arguments out of range."""
        if not 0 < self.power <= 1:
            raise ValueError(f"power must be above 0 and at most 1; got {self.power}. At 0 it is method='fullrank'.")
        if self.schedule not in ("auto", "parallel", "sequential"):
            raise ValueError(f"schedule must be 'auto', 'parallel' or 'sequential'; got {self.schedule!r}.")
        if self.damping != "auto" and (isinstance(self.damping, str) or not 0 <= self.damping < 1):
            raise ValueError(f"damping must be 'auto' or a share in [0, 1); got {self.damping!r}.")
        if not self.tolerance > 0 or self.max_sweeps < 1:
            raise ValueError(f"tolerance and max_sweeps must be positive; got {self.tolerance} and {self.max_sweeps}.")
        if isinstance(self.optimise, str):
            raise ValueError(f"optimise must be a list of names; got the string {self.optimise!r}.")

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        started = time.perf_counter()
        attempt = Attempt(self.power, self.schedule, self.damping, self.tolerance, self.max_sweeps)
        optimum = maximise_evidence(program, tuple(self.optimise), attempt, progress) if self.optimise else None
        if optimum is not None:
            program = optimum.program
        outside = latents_outside(program)
        if outside:
            posterior = explore(program, outside, attempt, progress)
        else:
            factors = Factors(program)
            start = None if optimum is None else optimum.solution.start()
            solution = solve(factors, factors.start, attempt, start, progress, verify=True)
            posterior = _gaussian(program, factors, solution)
        if optimum is not None:
            posterior = replace(
                posterior,
                program=program,
                message=f"{optimum.sentence} {posterior.message}",
                notes=(*posterior.notes, optimum.sentence),
            )
        posterior.seconds = time.perf_counter() - started
        return posterior


def _gaussian(program: Program, factors: Factors, solution: Solution) -> Posterior:
    """The posterior where all latents are Gaussian."""
    notes = (*program.notes, *site_notes(solution.state.groups))
    exact = not factors.projected
    evidence = Estimate(
        solution.log_evidence(),
        0.0 if exact else None,
        "closed form" if exact else named(solution),
        target="population" if exact else "approximation",
        notes=() if exact else ("the error of expectation propagation is unknown",),
    )
    return Posterior(
        method=named(solution),
        approximation=GaussianApproximation(program.latents, solution.mean, solution.covariance()),
        converged=True,
        message=" ".join([describe(factors, solution), *(f"Note: {note}." for note in notes)]),
        seconds=0.0,
        history=solution.history.frame(),
        log_evidence=evidence,
        notes=notes,
    )
