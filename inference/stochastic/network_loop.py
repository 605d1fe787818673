r"""The loop of amortised stochastic VI: Adam at a fixed step size until the bound is flat, averages, smaller steps.

Networks have no posterior sd to measure steps in, so stages are judged by the bound itself. A stage ends when its trend
is flat; its result is the average of the parameters over its later part (Polyak), valued on fixed batches with fixed
noise, so that two stages are compared in pairs. The loop ends when the gain of the last stage, which the next would at
best repeat, is below the tolerance or a small share of all that was gained.
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
from probdl.inference.stochastic.guides import Guide
from probdl.inference.stochastic.minibatches import Batch

FIRST_RATE = 5e-3
_SHARE = 0.1  # of a stage's rise: when its later half brings less, smaller steps bring more
_SLOW = 0.02  # of the whole rise: after a stage that brings less the step size is halved
WORTH = 3e-4  # of the whole rise: a stage that brings less is the last


class Averages:
    """Means of parameters over the last half to whole of a stage, without keeping its iterates."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.restart()

    def restart(self) -> None:
        """Forget all iterates."""
        self.steps, self._next = 0, 64
        self._old, self._new = self._zeros(), self._zeros()
        self._counts = [0, 0]

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def add(self) -> None:
        """Add the present parameters; at every doubling of the steps, what is older than half of them is dropped."""
        torch._foreach_add_(self._new, self.parameters)
        self.steps, self._counts[1] = self.steps + 1, self._counts[1] + 1
        if self.steps == self._next:
            self._old, self._new = self._new, self._zeros()
            self._counts, self._next = [self._counts[1], 0], 2 * self._next

    def values(self) -> list[Tensor]:
        """Return the means."""
        total = max(1, sum(self._counts))
        return [(a + b) / total for a, b in zip(self._old, self._new)]


@dataclass
class NetworkLoop:
    """Where the stages stand.

    Args:
        guide: gives the bound of a batch.
        parameters: to be learned.
        fixed: batches for comparing stages.
        tolerance: nats per row.
        share: of the whole rise, which a stage must bring so that it is not the last.
        max_steps: where it gives up.
        seed: of the noise when stages are compared.
        tick: called after each block with its steps and a short text.
    """

    guide: Guide
    parameters: list[Tensor]
    fixed: list[Batch]
    generator: torch.Generator
    tolerance: float
    share: float
    max_steps: int
    seed: int
    tick: Callable[[int, str], Any]
    rows: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    stages: int = 0
    rate: float = FIRST_RATE
    gain: float = math.inf
    noise: float = 0.0
    worth: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        self.n, self.batches = self.guide.source.n, self.guide.source.batches(self.generator)
        self.block = min(max(50, self.n // max(1, self.guide.source.batch_size)), 500)
        self.averages, self.good = Averages(self.parameters), [p.detach().clone() for p in self.parameters]
        self.started, self._longest = time.perf_counter(), self.max_steps
        self._adam()

    def _adam(self) -> None:
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.rate, betas=(0.9, 0.99))

    def run(self) -> bool:
        """Run stages until the end, and leave the best average in the parameters; return whether it was reached."""
        try:
            first = before = self._fixed_bounds()
            while not self._stage():
                before = self._close(before)
                rise = float((before - first).mean())
                self.worth = max(self.tolerance, self.share * rise)
                if abs(self.gain) + 2 * self.noise <= self.worth and self.stages > 2:
                    break
                if self.rate < FIRST_RATE / 200:
                    self.reason = (
                        f"steps have become small, but whether they still raise the bound by {self.worth:.1g} nats a "
                        f"row cannot be told from the noise of batches, {self.noise:.1g}; use larger batches, and no "
                        "guide where all rows share the latents"
                    )
                    break
                if self.gain <= max(10 * self.tolerance, _SLOW * rise):
                    self.rate /= 2
                self._adam()
        except StopIteration:
            self.reason = f"the iterable of batches ended after {self.step} steps"
        except KeyboardInterrupt:
            self.reason = f"interrupted at step {self.step}"
        except ConvergenceError as error:
            if self.step < self.block:
                raise
            self.reason = str(error)
        self._put(self._last())
        return not self.reason

    def _stage(self) -> bool:
        """Run one stage, until its trend is flat or it is twice as long as the last; return whether steps are spent."""
        self.averages.restart()
        started, bounds = self.step, list[float]()
        while not _is_flat(bounds, self.tolerance) and self.step - started < self._longest:
            if self.step >= self.max_steps:
                self.reason = f"the {self.max_steps} steps allowed were not enough"
                return True
            bounds.append(self._block())
        self._longest = 2 * (self.step - started)
        return False

    def _block(self) -> float:
        """Take a block of steps; return the mean bound per row."""
        total, taken = 0.0, 0
        for _ in range(self.block):
            batch = next(self.batches)
            bound = self._one(batch)
            if bound is not None:
                total, taken = total + bound, taken + 1
        mean = total / max(1, taken)
        seconds = time.perf_counter() - self.started
        self.rows.append({"step": self.step, "seconds": seconds, "step_size": self.rate, "elbo": mean * self.n})
        self.tick(self.block, f"bound {mean * self.n:.5g}, step size {self.rate:.2g}")
        return mean

    def _one(self, batch: Batch) -> float | None:
        self.optimiser.zero_grad()
        bound = self.guide.bound(batch) / self.n
        value = float(bound.detach())
        if not math.isfinite(value):
            self._not_finite(batch)
            return None
        (-bound).backward()
        self.optimiser.step()
        self.averages.add()
        self.step += 1
        return value

    def _not_finite(self, batch: Batch) -> None:
        """Go back to the last average with a quarter of the step size, unless the batch itself is at fault."""
        self.guide.check_finite(batch, self.step + 1)
        self.rate /= 4
        if self.rate < 1e-6:
            raise ConvergenceError(f"The bound is not finite at step {self.step + 1}, however small the steps.")
        self._put(self.good)
        self._adam()

    def _close(self, before: Tensor) -> Tensor:
        """End a stage: its average becomes the state, valued on the fixed batches, which are returned."""
        self._put(self.averages.values())
        self.good = [p.detach().clone() for p in self.parameters]
        after = self._fixed_bounds()
        gains = after - before
        self.gain, self.noise = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
        self.stages += 1
        return after

    @torch.no_grad()
    def _fixed_bounds(self) -> Tensor:
        """The bound per row on the fixed batches, with the same noise each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            return torch.stack([self.guide.bound(b) for b in self.fixed]) / self.n

    def _last(self) -> list[Tensor]:
        return self.averages.values() if self.averages.steps >= 50 else self.good

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self.parameters, values):
            p.copy_(value)


def _is_flat(bounds: list[float], tolerance: float) -> bool:
    """Whether the later half of the block means rises by less than the tolerance, two errors, or a tenth of all."""
    if len(bounds) < 8:
        return False
    y = torch.tensor(bounds[len(bounds) // 2 :], dtype=torch.float64)
    t = torch.linspace(-0.5, 0.5, len(y), dtype=torch.float64)
    slope = float((t * y).sum() / t.square().sum())
    left = y - y.mean() - slope * t
    error = float((left.square().sum() / (len(y) - 2) / t.square().sum()).sqrt())
    return slope <= max(tolerance, 2 * error, _SHARE * (float(y.mean()) - bounds[0]))
