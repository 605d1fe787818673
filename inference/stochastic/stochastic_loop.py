r"""The loop of stochastic VI: stationarity at a fixed step size, the average of the iterates, then a smaller step.

A stage runs at one step size ρ until the iterates are stationary (split R-hat of the best late window at most 1.1) and
their average is known well enough; its result is that average. The next stage has ρ/2. The loop ends when the Monte
Carlo error of the average and the change that still smaller steps would bring are together below the tolerance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.stochastic.averaging import Iterates, drift, error_of_mean, predicted_change
from probdl.inference.stochastic.minibatches import Batch
from probdl.inference.stochastic.stochastic_steps import MeanFieldSteps

BLOCK = 50
RHAT = 1.1
_LEAST = 0.02  # first step size where the noise at the start asks for less
_CALM = 0.5  # stationary sd, in posterior sd, that the first step size aims at


@dataclass
class Stage:
    """A step size, and the average of the stationary iterates at it."""

    rate: float
    average: Tensor
    error: float


@dataclass
class Loop:
    """Where the stages stand.

    Args:
        steps: the variational parameters and their gradients.
        tolerance: root mean square error of means and log-sds, in posterior sd units.
        max_steps: where it gives up.
        tick: called after each block with a short text.
    """

    steps: MeanFieldSteps
    tolerance: float
    max_steps: int
    tick: Callable[[int, str], Any]
    rows: list[dict[str, float]] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    step: int = 0
    rate: float = 0.5
    reason: str = ""
    bounds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.good = self.steps.parameters()
        self.changes: list[float] = []
        self.noises: list[float] = []
        self.iterates, self.scale = self._fresh()

    def run(self, refresh: Callable[[], None]) -> bool:
        """Run stages until the end, and leave the best average in the steps; return whether the tolerance was met.

        Args:
            refresh: called before each stage with the average in the steps: a new anchor, a new curvature.
        """
        if not self.steps.density.source.can_repeat:
            return self._single_pass()
        try:
            self.rate = min(self.rate, self._first_rate())
            while not self._is_done():
                refresh()
                if not self._stage():
                    break
                self.rate /= 2
        except KeyboardInterrupt:
            if self.step < 2 * BLOCK:
                raise
            self.reason = f"interrupted at step {self.step}"
        except ConvergenceError as error:
            if not self.stages and self.iterates.steps < 2 * BLOCK:
                raise
            self.reason = str(error)
        except StopIteration:
            self.reason = f"the iterable of batches ended after {self.step} steps"
        self.steps.put(self._best())
        return not self.reason

    def _single_pass(self) -> bool:
        """Run over batches that come once, with steps 1/t: the t-th batch counts as much as each before it.

        With the curvature as gain this is stochastic approximation at its best rate (Chung 1954, Fabian 1968); the last
        iterate already is an average over all rows.
        """
        source, first = self.steps.density.source, self.steps.seen / self.steps.density.source.batch_size
        rows = self.steps.seen
        try:
            while True:
                batch = self.steps.next_batch()
                self.rate = 1.0 / (first + self.step + 1)
                self._one(batch)
                rows += batch.size
                self.good = self.steps.parameters()
                if self.step % BLOCK == 0:
                    self.tick(BLOCK, f"step size {self.rate:.2g}")
                    self._log(sum(self.bounds[-BLOCK:]) / BLOCK, math.nan, math.nan)
        except StopIteration:
            if rows != source.n:
                self.reason = f"the iterable of batches ended after {rows} of {source.n} rows"
        except KeyboardInterrupt:
            self.reason = f"interrupted after {rows} of {source.n} rows"
        except ConvergenceError as error:
            self.reason = str(error)
        self.steps.put(self.good)
        return not self.reason

    def _first_rate(self) -> float:
        """Return the step size at which the stationary sd of μ is half a posterior sd, from the noise at the start."""
        draws = [self.steps.gradient(self.steps.next_batch()).mean for _ in range(20)]
        noise = torch.stack([self.steps.curvature.solve(g) for g in draws])
        away = noise - noise.mean(0)
        variance = sum(self.steps.curvature.norm(x) ** 2 for x in away) / (len(away) - 1)
        limit = min(0.5, 1.0 / self.steps.curvature.spread)
        # Far from the optimum the noise says little of that at the optimum; steps there are cut, so they may be longer.
        return min(limit, max(_LEAST, 2 * _CALM**2 / max(variance, 1e-300))) if math.isfinite(variance) else _LEAST

    def _is_done(self) -> bool:
        """Whether error and predicted change are together below the tolerance."""
        return bool(self.stages) and math.hypot(self.stages[-1].error, self.predicted) <= self.tolerance

    @property
    def predicted(self) -> float:
        """How far the averages would still move, in sd units."""
        return predicted_change(self.changes, self.noises)

    def _fresh(self) -> tuple[Iterates, Tensor]:
        """An empty record, and the units in which iterates are judged: √2 for log-sds, 1/sd for means."""
        scale = torch.cat([1 / self.steps.sd, torch.full_like(self.steps.sd, math.sqrt(2.0))])
        return Iterates(len(scale), scale), scale

    def _stage(self) -> bool:
        """Run one stage; return False where it was ended by the number of steps or a failure."""
        self.iterates, self.scale = self._fresh()
        self.window: Tensor | None = None
        needed, check = max(100, math.ceil(20 / self.rate)), 0.0
        while self.step < self.max_steps:
            bound = self._block()
            if self.iterates.steps < check:
                continue
            check = 1.2 * self.iterates.steps
            window, rhat = self.iterates.best_window(needed)
            calm = rhat <= RHAT or (math.isfinite(rhat) and drift(window) <= 0.3 * self.tolerance)
            error = float(error_of_mean(window).square().mean().sqrt()) if len(window) >= 40 else math.inf
            self._log(bound, rhat, error)
            if calm:
                self.window = window
                if error <= self.tolerance / 2:
                    self._close(window, error)
                    return True
        self.reason = f"the {self.max_steps} steps allowed did not bring the error below the tolerance"
        if self.window is not None and len(self.window) >= 40:
            self._close(self.window, float(error_of_mean(self.window).square().mean().sqrt()))
        return False

    def _block(self) -> float:
        """Take a block of steps, and make them smaller where many are cut; return the mean bound."""
        cut, before = 0, len(self.bounds)
        for _ in range(BLOCK):
            cut += self._one(self.steps.next_batch())
        if cut > BLOCK / 2 and self.iterates.steps > 3 * BLOCK:
            self._smaller("the steps do not settle")
        elif cut > BLOCK / 20 and self.iterates.steps > 3 * BLOCK:  # cut steps have no mean of zero at the optimum
            self.rate /= 2
            self.iterates, self.scale = self._fresh()
        bounds = self.bounds[before:]
        bound = sum(bounds) / max(1, len(bounds))
        self.tick(BLOCK, f"bound {bound:.4g}, step size {self.rate:.2g}")
        return bound

    def _one(self, batch: Batch) -> bool:
        """Take one step, and keep the iterate; where numbers are not finite, go back. Return whether it was cut."""
        gradient = self.steps.gradient(batch)
        if not math.isfinite(gradient.bound) or not bool(torch.isfinite(gradient.mean + gradient.log_sd).all()):
            self._not_finite(batch)
            return False
        self.step += 1
        cut = self.steps.step(gradient, self.rate)
        self.iterates.add(self.steps.parameters() * self.scale)
        self.bounds.append(gradient.bound)
        return cut

    def _not_finite(self, batch: Batch) -> None:
        self.steps.density.check_finite(self.good[: len(self.good) // 2], batch, f"At step {self.step + 1}")
        self._smaller("the density is not finite")

    def _smaller(self, why: str) -> None:
        """Go back to the last good state with a quarter of the step size."""
        self.rate /= 4
        if self.rate < 1e-6:
            raise ConvergenceError(
                f"Stochastic VI: {why} at step {self.step}, however small the steps. Rescale the covariates, use "
                "proper priors, or use method='nuts'."
            )
        self.steps.put(self.good)
        self.iterates, self.scale = self._fresh()

    def _close(self, window: Tensor, error: float) -> None:
        """End a stage: its average becomes the state."""
        average = window.mean(0) / self.scale
        if self.stages:
            gap = (average - self.stages[-1].average) * self.scale
            self.changes.append(float(gap.square().mean().sqrt()))
            self.noises.append(math.hypot(error, self.stages[-1].error))
        self.stages.append(Stage(self.rate, average, error))
        self.good = average
        self.steps.put(average)

    def _best(self) -> Tensor:
        """The average of the last stage, or of the second half of one that was ended early."""
        rows = self.iterates.rows()
        if not self.stages and len(rows) >= 20:
            return rows[len(rows) // 2 :].mean(0) / self.scale
        return self.good

    def _log(self, bound: float, rhat: float, error: float) -> None:
        seconds = time.perf_counter() - self.started
        row = {"step": self.step, "seconds": seconds, "step_size": self.rate, "elbo": bound, "rhat": rhat}
        self.rows.append(row | {"error": error, "predicted_change": self.predicted})
