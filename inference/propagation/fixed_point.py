"""The iteration of expectation propagation: parallel or sequential steps, damped as far as they need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.propagation.extrapolation import AndersonMixing
from probdl.inference.propagation.newton_start import sites_at_mode
from probdl.inference.propagation.weight_space import Sites, WeightSpace
from probdl.loops.iterate import Iteration, iterate
from probdl.natural import GaussianFactor

_MOST_BLOCKS = 64  # of sites that a sequential sweep moves one after another


class FixedPoint:
    """The sites, the Gaussian that they make with the base, and the steps towards a fixed point.

    Args:
        base: the Gaussian part of the model.
        groups: the sites of each observed factor, which keep their values.
        damping: share of a step that is left out, in [0, 1); "auto" takes as little as the iteration needs.
    """

    def __init__(self, base: GaussianFactor, groups: list[Sites], damping: float | str = "auto") -> None:
        self.base, self.groups, self.damping = base, groups, damping
        self.step = 1.0 if isinstance(damping, str) else 1.0 - damping
        self.gap = float("inf")
        self.mixing = AndersonMixing()
        self.solution = self._start()

    def _start(self) -> WeightSpace:
        """The solution at the sites' values, or at those of the mode where they say nothing yet and it is concave."""
        silent = all(group.is_silent for group in self.groups)
        sites = sites_at_mode(self.base, self.groups) if silent else None
        if sites is not None and self._take(sites):
            return self.solution
        solution = WeightSpace.of(self.base, self.groups, [g.site for g in self.groups])
        if solution is None:
            for group in self.groups:
                group.forget()
            solution = WeightSpace.of(self.base, self.groups, [g.site for g in self.groups])
        if solution is None:
            raise ConvergenceError("Expectation propagation: the prior is not a proper Gaussian.")
        return solution

    def run(
        self, schedule: str, tolerance: float, max_sweeps: int, progress: bool | None, verify: bool = True
    ) -> Iteration:
        """Sweep until all moments match; to verify, once more from a fresh look at the tilted distributions."""
        sweep = self.parallel if schedule == "parallel" else self.sequential
        history = iterate(lambda: sweep(tolerance), tolerance=tolerance, max_steps=max_sweeps, progress=progress)
        if verify and history.converged and self.groups:
            for group in self.groups:
                group.look_again()
            self.gap = self._largest(self._matched(0.0))
            error = max(group.error for group in self.groups)
            history.converged = self.gap <= 10 * max(tolerance, error)
        return history

    def _matched(self, accuracy: float) -> list[Tensor]:
        return [g.match(marginal, accuracy) for g, marginal in zip(self.groups, self.solution.marginals)]

    def _largest(self, gaps: list[Tensor]) -> float:
        return max([float(gap.max()) for gap in gaps if len(gap)], default=0.0)

    def parallel(self, tolerance: float) -> dict[str, float]:
        """Match the moments of all sites once; return the largest mismatch found before the step."""
        accuracy = min(1e-2, 1e-3 * self.gap)
        gap = self._largest(self._matched(accuracy))
        if gap <= tolerance < accuracy:  # too loose an integral for a verdict
            gap = self._largest(self._matched(0.0))
        self._adapt(gap)
        if gap > 0 and not self._leap():
            self.step = self._move(self.step, None)
        return {"gap": gap, "step": self.step}

    def _leap(self) -> bool:
        """Step from the best combination of the last iterates, near the fixed point; whether that was possible."""
        if self.damping != "auto" or self.step < 1 or self.gap > 0.1:
            self.mixing.forget()
            return False
        here = torch.cat([g.flat(g.site) for g in self.groups])
        there = torch.cat([g.flat(g.target) for g in self.groups])
        scale = torch.cat([g.scale(marginal) for g, marginal in zip(self.groups, self.solution.marginals)])
        leap = self.mixing.propose(here, there, scale)
        parts = leap.split([len(g.flat(g.site)) for g in self.groups])
        if self._take([g.unflat(part) for g, part in zip(self.groups, parts)]):
            return True
        self.mixing.forget()
        return False

    def _take(self, sites: list[Any]) -> bool:
        """Put the sites in place; False, and nothing done, where they or their cavities are not proper."""
        solution = WeightSpace.of(self.base, self.groups, sites)
        if solution is None:
            return False
        for group, site in zip(self.groups, sites):
            group.site = site
        self.solution = solution
        return True

    def _adapt(self, gap: float) -> None:
        if self.damping == "auto":
            self.step = max(0.7 * self.step, 0.02) if gap > self.gap else min(1.0, 1.1 * self.step)
        self.gap = gap

    def sequential(self, tolerance: float) -> dict[str, float]:
        """Move the sites one after another, or in 64 blocks; return the largest mismatch met on the way."""
        largest, step = 0.0, self.step
        for rows in self._blocks():
            gaps = self._matched(min(1e-2, 1e-3 * self.gap))
            largest = max(largest, self._largest([gap[keep] for gap, keep in zip(gaps, rows)]))
            step = min(step, self._move(self.step, rows))
        self._adapt(largest)
        return {"gap": largest, "step": step}

    def _blocks(self) -> list[list[Tensor]]:
        """Masks of the sites to move at a time, for each group."""
        sizes = [len(g) for g in self.groups]
        count = min(sum(sizes), _MOST_BLOCKS)
        block = torch.arange(sum(sizes)) * count // max(sum(sizes), 1)
        device = self.solution.mean.device
        return [[part.to(device) for part in (block == i).split(sizes)] for i in range(count)]

    def _move(self, step: float, rows: list[Tensor] | None) -> float:
        """Take the damped step, halved until the posterior and every cavity are distributions; return its size."""
        for _ in range(30):
            proposed: list[Any] = [
                g.moved(step, None if rows is None else keep)
                for g, keep in zip(self.groups, rows or [Tensor()] * len(self.groups))
            ]
            if self._take(proposed):
                return step
            step = step / 2
        raise ConvergenceError(
            "Expectation propagation: no step, however small, keeps the posterior and its cavities proper. The "
            "posterior is probably improper: check that every latent has a proper prior, or use method='nuts'."
        )

    def log_evidence(self) -> Tensor:
        """Log ∫ of the base times the sites, each scaled to keep its tilted normaliser."""
        scales = [g.log_scale(marginal) for g, marginal in zip(self.groups, self.solution.marginals)]
        return torch.stack([self.solution.log_integral(), *scales]).sum()
