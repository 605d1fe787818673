"""Stochastic VI of latents that all rows share: from the pilot's mode through the stages to a posterior."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.deterministic.linear_response_gaussian import LinearResponseGaussian
from probdl.inference.deterministic.starts import start_of
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.batch_density import BatchDensity
from probdl.inference.stochastic.curvature import FULL, Curvature, average_curvature, flat_start, pilot_mode
from probdl.inference.stochastic.minibatches import RowSource
from probdl.inference.stochastic.stochastic_loop import Loop
from probdl.inference.stochastic.stochastic_steps import MeanFieldSteps
from probdl.loops.progress import bar

_PAIRS = 4  # antithetic pairs of draws a step: on a recorded batch they cost little more than one
_NEWTON = 6  # passes at most to bring the anchor near the mode
_BOUND_PAIRS = 32
_TOO_NARROW = 1.2  # ratio of the linear-response sd to the sd from which it is said
_RESPONSE = 4e9  # multiplications up to which the curvature for linear response is taken over all rows
_CHEAP = 1e8  # and up to which it is averaged over q


@dataclass
class GlobalFit:
    """A fit of latents that all rows share.

    Args:
        source: where batches come from.
        notes: what is known so far.
        tolerance, max_steps: of the loop.
        seed: of batches and draws.
        progress: whether to show a bar.
        started: when the fit began.
        start: a posterior of the same sites to start from; None starts at the mode on a pilot of the rows.
    """

    source: RowSource
    notes: tuple[str, ...]
    tolerance: float
    max_steps: int
    seed: int
    progress: bool | None
    started: float
    start: Posterior | None = None

    def posterior(self) -> Posterior:
        """Run the stages, and return what they found."""
        import pandas as pd

        self._prepare()
        loop = self._loop()
        bound, response = self._bound(loop), self._response(loop)
        notes = (*self.program.notes, *self.notes, *self.density.notes, *self._width(response))
        message = " ".join([said(loop, self.source), *(f"Note: {note}." for note in notes)])
        if loop.reason:
            warnings.warn(f"StochasticVI stopped early: {message}", ConvergenceWarning, stacklevel=5)
        return Posterior(
            method="svi",
            approximation=self._approximation(response),
            converged=not loop.reason,
            message=message,
            seconds=time.perf_counter() - self.started,
            history=pd.DataFrame(loop.rows),
            elbo=bound,
            notes=notes,
        )

    def _prepare(self) -> None:
        """Find where to start, and bring the anchor there."""
        self.program, self.density = self.source.program, BatchDensity(self.source)
        generator = torch.Generator().manual_seed(self.seed)
        self.source.prepare()
        self.pilot = self.source.pilot(max(2000, 20 * self.program.dim), generator)
        start = self._start()
        self.steps = MeanFieldSteps(self.density, *start, generator, _PAIRS if self.density.runs_fast else 1)
        self.steps.seen = sum(batch.size for batch in self.pilot)
        if self.source.can_pass:
            self._approach()

    def _start(self) -> tuple[Tensor, Curvature]:
        """The given start, or the mode on the pilot, or the prior means with the size of the gradients there."""
        if self.start is not None:
            centre = start_of(self.program, self.start).centre
            self.notes += (f"it started at a posterior by {self.start.method}",)
            return centre, average_curvature(self.density, self.pilot, centre[None])
        try:
            return pilot_mode(self.density, self.pilot)
        except ConvergenceError as reason:
            for batch in self.pilot:
                self.density.check_finite(self.program.start, batch, "At the start")
            self.notes += (f"it started at the prior means, since the pilot has no mode: {reason}",)
            return flat_start(self.density, self.pilot)

    def _approach(self) -> None:
        """Bring the anchor near the mode by Newton steps with the pilot's curvature, a pass over the rows each."""
        far = self.steps.drop_anchor()
        for _ in range(_NEWTON):
            if far < 0.3:
                break
            before, last = self.steps.anchor, far
            self.steps.mean = before.z + self.steps.curvature.solve(before.gradient)
            far = self.steps.drop_anchor()
            if not self.steps.anchor.value > before.value or far > last:
                self.steps.anchor, self.steps.mean = before, before.z.clone()
                break

    def _loop(self) -> Loop:
        with bar(self.max_steps, self.progress, "SVI") as shown:
            loop = Loop(self.steps, self.tolerance, self.max_steps, lambda n, text: shown.update(n))
            loop.run(self._refresh)
        return loop

    def _refresh(self) -> None:
        """Anchor and curvature at the present average."""
        if self.source.can_pass:
            self.steps.drop_anchor()
        if self.steps.curvature.root is not None:
            points = self.steps.mean + self.steps.sd * self.steps.noise(4 if self.program.dim <= 100 else 1)
            self.steps.curvature = average_curvature(self.density, self.pilot, points)

    def _bound(self, loop: Loop) -> Estimate:
        """The bound: from draws and a pass over all rows, or from the last steps where no pass is possible."""
        how: dict[str, Any] = {"target": "lower bound", "method": "monte carlo"}
        if self.source.can_pass:
            try:
                self.steps.drop_anchor()
                value, error = self.steps.bound_with_error(_BOUND_PAIRS)
                return Estimate(value, error, n=2 * _BOUND_PAIRS, **how)
            except ConvergenceError:  # rows that ended the loop spoil a pass as well
                if not loop.reason:
                    raise
        last = torch.tensor(loop.bounds[-max(200, len(loop.bounds) // 2) :])
        return Estimate(float(last.mean()), float(last.std() / len(last) ** 0.5), n=len(last), **how)

    def _response(self, loop: Loop) -> Tensor | None:
        """The linear-response covariance, the inverse curvature; None where the curvature is diagonal.

        The curvature is taken over all rows where that is cheap and possible, else over the pilot; and averaged over q
        where that is cheap too.
        """
        if self.steps.curvature.root is None:
            return None
        cost = numbers_a_row(self.program) * self.source.n * self.program.dim
        if loop.reason or not self.source.can_pass or cost > _RESPONSE:
            return self.steps.curvature.inverse()
        draws = self.steps.noise(4) if 8 * cost < _CHEAP else torch.zeros_like(self.steps.mean)[None]
        points = self.steps.mean + self.steps.sd * draws
        parts = [self.density.hessian(z, self.source.whole()) for z in points]
        return Curvature.full(-torch.stack(parts).mean(0)).inverse()

    def _approximation(self, response: Tensor | None) -> GaussianApproximation:
        mean, covariance = self.steps.mean, self.steps.sd.square().diag()
        if response is None:
            return GaussianApproximation(self.program.latents, mean, covariance)
        wider = GaussianApproximation(self.program.latents, mean, response)
        sds = {name: wider.sd(name) for name in self.program.latents}
        return LinearResponseGaussian(self.program.latents, mean, covariance, response, sds)

    def _width(self, response: Tensor | None) -> tuple[str, ...]:
        """Say where the approximation is much narrower than linear response finds the posterior to be."""
        if response is None:
            return (f"there are more than {FULL} latents, so that the curvature is diagonal and sd_lr is left out",)
        ratio = response.diagonal().sqrt() / self.steps.sd
        worst = int(ratio.argmax())
        if float(ratio[worst]) <= _TOO_NARROW:
            return ()
        return (
            "the approximation is too narrow, as mean field is where latents are correlated: at site "
            f"{self.program.site_at(worst)!r} the linear-response sd is {float(ratio[worst]):.2g} times its sd; read "
            "sd_lr in summary()",
        )


def numbers_a_row(program: Program) -> float:
    """Return the size of a row of the largest argument."""
    tensors = [x for x in (*program.args, *program.kwargs.values()) if isinstance(x, Tensor) and x.ndim]
    return max([x.numel() / len(x) for x in tensors], default=1.0)


def said(loop: Loop, source: RowSource) -> str:
    """Return what happened, and why it stopped."""
    rows = f"batches of {source.batch_size} of {source.n} rows" if source.plates else "all rows"
    if not source.can_repeat:
        end = f"{loop.reason}. " if loop.reason else ""
        return (
            f"Stochastic VI took {loop.step} steps of size 1/t on {rows} that could be read only once. {end}The error "
            "of its result is not known; pass a function that returns a fresh iterable, and it will be."
        )
    known = f"the average is known to {loop.stages[-1].error:.1g} posterior sd (rms)" if loop.stages else ""
    if loop.reason:
        state = known or "no stage became stationary, so that its error is not known"
        return f"Stochastic VI on {rows} stopped before its tolerance: {loop.reason}; {state}."
    return (
        f"Stochastic VI on {rows} took {loop.step} steps in {len(loop.stages)} stages and stopped since {known} and "
        f"smaller steps would move it by {loop.predicted:.1g}, together below the tolerance {loop.tolerance:g}."
    )
