r"""Free-form mean field by coordinate ascent, derived from an unmodified program."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.free_form.acceleration import Acceleration
from probdl.inference.free_form.approximation import FactorisedApproximation, all_latents
from probdl.inference.free_form.ascent import FreeForm, step_between
from probdl.inference.free_form.derive import derive
from probdl.inference.free_form.linear_response import responses
from probdl.inference.free_form.report import message_of
from probdl.inference.free_form.starts import continue_from, is_multimodal, start_at_random, start_from, start_of
from probdl.inference.programs.densities import log_joint_of_draws
from probdl.inference.programs.program import Program
from probdl.loops.iterate import Iteration, iterate
from probdl.threads import one_thread

if TYPE_CHECKING:
    from probdl.inference.posterior import Posterior

_SHORT = 15  # sweeps after which the best of several starts goes on alone


@dataclass(frozen=True)
class CoordinateAscent:
    r"""Mean-field variational inference by coordinate ascent: each factor in turn takes its optimum.

    .. math:: q_j(z_j) \propto \exp E_{i \neq j} \log p(x, z), \qquad
        \text{ELBO} = E_q \log p(x, z) - E_q \log q(z) \le \log p(x)

    The factors are derived from the program by evaluating its log-density, and certified at random values: Normal and
    multivariate Normal latents (connected ones jointly), Gamma and inverse Gamma, Beta, Dirichlet, Wishart, and
    discrete latents, alone or as a chain by forward–backward sums. A scalar latent with another prior, or in a factor
    that is not conjugate, gets a free-form density on a grid; an observed factor that is not conjugate in Gaussian
    latents, such as a logistic likelihood, is followed by natural gradients. There is no step size, the bound rises at
    every sweep, and it is exact with all its constants. After 30 sweeps every third is an extrapolation of the last
    ones, kept where the bound rises.

    Args:
        tolerance: the largest step of a factor in one sweep, in posterior sd units or as a probability, and the largest
            relative change of the bound (a hundredth of it), at which the ascent stops.
        max_sweeps: where it gives up, with a warning.
        restarts: starts for models with discrete latents, of which the one that is best after 15 sweeps goes on; None
            takes 5. It need not be the one that would end best.
        start: where to begin: another ``Posterior``, or a mapping from sites to means (of Gaussian latents) or
            probabilities (of discrete ones, (…, K)).
        conjugate_only: refuse factors that are not conjugate, instead of grids and natural gradients.

    Raises:
        ValueError: if a factor of the program fits no form; it names the site and says what would work.
        ConvergenceError: if a factor is improper, the bound falls, or it differs from a Monte Carlo estimate.

    Warns:
        ConvergenceWarning: if it has not converged after ``max_sweeps``.

    Source: Bishop (2006), *Pattern Recognition and Machine Learning*, chapter 10; Winn & Bishop (2005), JMLR 6; Khan &
    Lin (2017) for the natural gradients.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)
        >>> posterior = fit(model, torch.tensor([1.0, 2.0, 4.0]), method=CoordinateAscent())
        >>> posterior.mean("mu"), posterior.elbo
        (tensor(2.3205, dtype=torch.float64), -8.16624 ± 0 (coordinate ascent))
    """

    tolerance: float = 1e-5
    max_sweeps: int = 2000
    restarts: int | None = None
    start: Posterior | Mapping[str, Any] | None = None
    conjugate_only: bool = False

    def __post_init__(self) -> None:
        if self.restarts is not None and self.restarts < 1:
            raise ValueError(f"restarts must be at least 1; got {self.restarts}.")

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        from probdl.inference.posterior import Posterior

        started = time.perf_counter()
        program.require_all_rows()
        working = _in_double_precision(program)
        field = derive(working, self.conjugate_only)
        with one_thread(field.is_small()):
            runs = self._begin(field, seed)
            history = self._ascend(field, progress)
        _certify(working, field, seed)
        elbo = Estimate(float(field.elbo()), 0.0, "coordinate ascent", target="lower bound")
        latents = all_latents(working, field.reading.latents)
        approximation = FactorisedApproximation(latents, field.blocks, lambda: responses(field))
        if program.dtype is not torch.float64:
            approximation = approximation.to(all_latents(program, field.reading.latents), program.dtype)
        message, notes = message_of(field, history, runs)
        return Posterior(
            method="coordinate ascent",
            approximation=approximation,
            converged=history.converged,
            message=message,
            seconds=time.perf_counter() - started,
            history=history.frame(),
            elbo=elbo,
            notes=(*program.notes, *notes),
        )

    def _begin(self, field: FreeForm, seed: int) -> int:
        """Start the blocks; of several random starts, keep the one whose bound is highest after a few sweeps."""
        if continue_from(field, self.start):
            return 1
        given = start_of(self.start)
        several = is_multimodal(field) and not given
        runs = (self.restarts or 5) if several else 1
        prior, best = field.state(), None
        for i in range(runs):
            field.restore(prior)
            start_at_random(field, seed, i)
            start_from(field, given)
            if runs == 1:
                return 1
            for _ in range(_SHORT):
                field.sweep()
            bound = float(field.elbo())
            if best is None or bound > best[0]:
                best = (bound, field.state())
        assert best is not None
        field.restore(best[1])
        return runs

    def _ascend(self, field: FreeForm, progress: bool | None) -> Iteration:
        state = {"elbo": -float("inf")}
        acceleration = Acceleration(field)

        def sweep() -> dict[str, float]:
            before = [b.moments for b in field.blocks]
            acceleration.sweep()
            elbo = float(field.elbo())
            rise = elbo - state["elbo"]
            _check_rise(rise, elbo, field)
            state["elbo"] = elbo
            step = max(step_between(b, m, b.moments) for b, m in zip(field.blocks, before))
            return {"gap": max(step, min(100 * abs(rise) / (1 + abs(elbo)), 1.0)), "elbo": elbo}

        history = iterate(sweep, tolerance=self.tolerance, max_steps=self.max_sweeps, progress=progress)
        if not history.converged:
            warnings.warn(
                f"Coordinate ascent has not converged after {self.max_sweeps} sweeps: factors still move by "
                f"{history.last:.2g} (tolerance {self.tolerance:.2g}). Raise max_sweeps; strongly dependent factors "
                "converge slowly.",
                ConvergenceWarning,
                stacklevel=5,
            )
        return history


def _in_double_precision(program: Program) -> Program:
    """Return the program in float64: differences of log-densities tell what is conjugate, and need the digits."""
    if program.dtype is torch.float64:
        return program
    return Program(program.model, program.args, program.kwargs, dtype=torch.float64, device=program.device)


def _check_rise(rise: float, elbo: float, field: FreeForm) -> None:
    slack = 1e-6 if field.has_grids() else 1e-9
    if rise < -slack * (1 + abs(elbo)) or elbo != elbo:
        raise ConvergenceError(
            f"Coordinate ascent: the bound fell by {-rise:.3g} to {elbo:.6g}, which it cannot for this model's form. "
            "Rescale the data towards unit variance, or use method='meanfield'."
        )


def _certify(program: Program, field: FreeForm, seed: int, draws: int = 64) -> None:
    """Compare the bound with a Monte Carlo estimate of it that runs the program itself."""
    q = FactorisedApproximation(all_latents(program, field.reading.latents), field.blocks)
    values, log_q = q.draws_and_log_prob(draws, seed + 1)
    terms = log_joint_of_draws(program, values) - log_q
    error = float(terms.std()) / draws**0.5
    bound = float(field.elbo())
    gap = abs(float(terms.mean()) - bound)
    if not gap <= 6 * error + 1e-6 * (1 + abs(bound)):
        raise ConvergenceError(
            f"Coordinate ascent: the bound {bound:.6g} differs from a Monte Carlo estimate of it, "
            f"{float(terms.mean()):.6g} ± {error:.2g}: the derived factors are not those of the program. Please report "
            "the model; use method='meanfield'."
        )
