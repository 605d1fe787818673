"""The iteration over all groups: start at the mode, draw in all groups, match moments, until they stand still."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.groups import answer, tilted
from probdl.inference.groups.derivatives import Derivatives, derivatives
from probdl.inference.groups.given import FirstGroup
from probdl.inference.groups.partition import split_rows
from probdl.inference.groups.plan import Run, make_plan, places_in_whole, prior_density
from probdl.inference.groups.report import message, not_converged, weights_imprecise, weights_without_mean
from probdl.inference.groups.sites import USABLE, Errors, Sites
from probdl.inference.groups.start import find_start
from probdl.inference.groups.tilted import TiltedDraws
from probdl.inference.groups.workers import forget, work
from probdl.inference.posterior import Posterior
from probdl.inference.programs.derivatives import at_least
from probdl.inference.programs.program import Program
from probdl.inference.propagation.quadratic import gaussian_factor, is_quadratic
from probdl.loops.iterate import Iteration, iterate
from probdl.natural import GaussianFactor

if TYPE_CHECKING:
    from probdl.inference.group_ep import GroupEP

NEGLIGIBLE = 0.1  # of the Monte Carlo error
NEAR = 0.03  # a gap at which it is worth while to find that error
_INNER = 8  # matchings on the same draws
_LARGEST = 3000  # latents of a dense posterior


class Propagation:
    """One fit.

    Args:
        method: the settings.
        program: of all data, or of the first group.
        key: of the fit.
        seed: of the draws.
        run: calls a function once for each group.
    """

    def __init__(self, method: GroupEP, program: Program, key: str, seed: int, run: Run) -> None:
        program.require_continuous()
        self.method, self.program, self.key, self.seed, self.run = method, program, key, seed, run
        self.given = isinstance(program, FirstGroup)
        self.rows: list[Tensor] = []
        if isinstance(program, FirstGroup):
            groups = program.groups
        else:
            program.require_all_rows()
            groups, self.rows = split_rows(program, method.groups, method.plate)
        self.plan = make_plan(key, groups, method.local, run, whole=not self.given)
        self.prior = prior_density(program, self.plan)
        self.base = self._gaussian_prior()
        self.sites: Sites
        self.errors: Errors
        # The gap of NUTS is counted in its Monte Carlo errors, where 1 is what noise gives.
        self.tolerance = at_least(method.tolerance, program.dtype, 1e4) if method.moments == "importance" else 2.0
        self.sweeps = 0
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.draws: list[TiltedDraws] = []

    def _gaussian_prior(self) -> GaussianFactor | None:
        """The prior as a Gaussian factor; None where it is none."""
        z = self.prior.start[0]

        def f(x: Tensor) -> Tensor:
            return self.prior.graph(x, x[:0])

        return gaussian_factor(f, len(z), z) if is_quadratic(f, len(z), z) else None

    def everywhere(self, job: str, arguments: list[tuple]) -> list[Any]:
        """Do one job in all groups."""
        return self.run(work, [(task, job, each) for task, each in zip(self.plan.tasks, arguments)])

    def start(self) -> Sites:
        """Return the sites that approximate each group's likelihood at the posterior mode."""

        def evaluate(z: Tensor) -> list[Derivatives]:
            return [derivatives(self.prior, z), *self.everywhere("derivatives", [(z,)] * len(self.plan.tasks))]

        z, parts = find_start(evaluate, self.prior.start[0])
        like = parts[0][2]
        empty = GaussianFactor(torch.zeros_like(z), torch.zeros_like(like), torch.zeros_like(z[0]))
        kept = parts[1:] if self.base is not None else parts
        return Sites(
            self.base or empty, torch.stack([g - h @ z for _, g, h in kept]), torch.stack([-h for _, _, h in kept])
        )

    def sweep(self) -> dict[str, float]:
        """Draw in all groups once, and match moments on these draws until they stand still."""
        self.sweeps += 1
        self.draws = self.drawn()
        found = self.sites.match(self.draws)
        khat = max(m.khat for m in self.sites.matched)
        row = {"gap": found, "found": found, "khat": khat}
        if self.method.moments == "nuts":
            row["gap"] = self.sites.gap_in_errors(self.sites.errors(self.draws), max(1, len(self.kept)))
        if self._stands_still(row["gap"]):
            return {**row, "gap": 0.0, "step": self.sites.step}
        if self.method.moments == "importance":
            self.sites.move(found)
        else:
            self._settle(found, khat)
            self._average()
        return {**row, "gap": max(row["gap"], 1.01 * self.tolerance), "step": self.sites.step}

    def _stands_still(self, gap: float) -> bool:
        """Whether the gap is below the tolerance, or below what Monte Carlo error leaves uncertain."""
        if self.method.moments == "nuts":
            return gap <= self.tolerance and len(self.kept) >= 2
        if not self.method.tolerance < gap < NEAR:
            return gap <= self.method.tolerance
        return gap <= NEGLIGIBLE * float(torch.cat(self.sites.errors(self.draws).of_q()).max())

    def _settle(self, gap: float, khat: float) -> None:
        """Match moments again and again on the same draws, as long as these stand for the tilted distributions."""
        for _ in range(_INNER):
            self.sites.move(gap)
            gap = self.sites.match(self.draws)
            if gap <= self.method.tolerance or max(m.khat for m in self.sites.matched) > max(khat, USABLE):
                break

    def _average(self) -> None:
        """Average the sites over the sweeps after the first, whose draws of NUTS are independent."""
        if self.sweeps > 1:
            self.kept.append((self.sites.shift, self.sites.precision))
            self.sites.shift, self.sites.precision = (torch.stack(x).mean(0) for x in zip(*self.kept))

    def drawn(self) -> list[TiltedDraws]:
        """Return draws for all sites; those of a prior that has a site are made here."""
        mean, covariance = self.sites.total().moments()
        root = torch.linalg.cholesky(covariance)
        n, draws = len(self.plan.tasks), self.method.draws
        first = (
            []
            if self.base is not None
            else [tilted.importance_draws(self.prior, mean, root, draws, self._seed(0), 0 in self.sites.wide)]
        )
        if self.method.moments == "importance":
            wide = [k + len(first) in self.sites.wide for k in range(n)]
            each: list[tuple] = [(mean, root, draws, self._seed(k + 1), wide[k]) for k in range(n)]
            return first + self.everywhere("importance", each)
        cavities = [self.sites.cavity(k + len(first)) for k in range(n)]
        seeds = [self._seed(k + 1) + 100_003 * self.sweeps for k in range(n)]
        each = [(mean, root, *cavities[k], self.method.sampler, seeds[k]) for k in range(n)]
        return first + self.everywhere("nuts", each)

    def _seed(self, k: int) -> int:
        return 1009 * self.seed + k

    def posterior(self, started: float, progress: bool | None) -> Posterior:
        """Iterate to the fixed point and put the posterior together."""
        try:
            self.sites = self.start()
            history = iterate(self.sweep, tolerance=self.tolerance, max_steps=self.method.max_sweeps, progress=progress)
            if not history.converged:
                raise ConvergenceError(not_converged(self.method, history, self.sites, self.draws))
            self._check_weights()
            self.errors = self.sites.errors(self.draws)
            return self._answer(started, history)
        finally:
            forget(self.key)

    def _check_weights(self) -> None:
        """Raise or warn where the draws do not stand for the tilted distributions."""
        khats = [m.khat for m in self.sites.matched]
        name = self._names()[max(range(len(khats)), key=khats.__getitem__)]
        if max(khats) > 1.0:
            raise ConvergenceError(weights_without_mean(name, max(khats)))
        if max(khats) > USABLE:
            warnings.warn(weights_imprecise(name, max(khats)), ConvergenceWarning, stacklevel=6)
        rhat = max(d.rhat for d in self.draws)
        if rhat > 1.1:
            warnings.warn(
                f"NUTS has not mixed in a tilted distribution: the largest split R-hat is {rhat:.2f}. Raise draws and "
                "warmup in GroupEP(sampler=NUTS(...)).",
                ConvergenceWarning,
                stacklevel=6,
            )

    def mc_errors(self) -> tuple[Tensor, Tensor]:
        """Return the Monte Carlo errors of the means of q, in sds, and of its log variances."""
        of_mean, of_variance = self.errors.of_q()
        return of_mean / max(1, len(self.kept)) ** 0.5, of_variance / max(1, len(self.kept)) ** 0.5

    def _names(self) -> list[str]:
        """What stands behind each site, for messages."""
        prior = [] if self.base is not None else ["the prior"]
        return prior + [f"group {task.group.label}" for task in self.plan.tasks]

    def _answer(self, started: float, history: Iteration) -> Posterior:
        approximation, notes = self._approximation()
        normalised = all(d.normalised for d in self.draws)
        return Posterior(
            method="expectation propagation over groups",
            approximation=approximation,
            converged=True,
            message=message(self, len(history.rows), notes),
            seconds=time.perf_counter() - started,
            history=history.frame(),
            log_evidence=self.sites.evidence("expectation propagation over groups", self.errors)
            if normalised
            else None,
            notes=notes,
        )

    def _approximation(self) -> tuple[answer.GroupApproximation, tuple[str, ...]]:
        mean, covariance = self.sites.total().moments()
        errors = self.mc_errors()
        shared, latents = self.plan.shared, self.program.latents
        why = self._only_shared()
        if why:
            return answer.of_shared(latents, shared, mean, covariance, errors), (why,)
        places = places_in_whole(self.program, self.plan, self.rows)
        first = len(self.draws) - len(self.plan.tasks)
        of_groups = self.draws[first:], self.sites.matched[first:]
        return answer.of_all(latents, places, (mean, covariance), errors, *of_groups), ()

    def _only_shared(self) -> str | None:
        """Why the latents of single groups are left out of the posterior, if they are."""
        if self.plan.own and self.given:
            return f"the sites {', '.join(self.plan.own)} belong to single groups, were integrated out and are left out"
        if self.plan.own and self.program.dim > _LARGEST:
            return f"the sites {', '.join(self.plan.own)} were integrated out; they are too many for a dense posterior"
        return None
