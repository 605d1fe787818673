"""One solution of expectation propagation, given the latents outside: the attempts, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.derivatives import at_least
from probdl.inference.propagation.factors import Factors, Seen
from probdl.inference.propagation.fixed_point import FixedPoint
from probdl.inference.propagation.projections import Projection
from probdl.inference.propagation.site_factors import SiteFactors
from probdl.inference.propagation.site_pairs import SitePairs
from probdl.inference.propagation.weight_space import Sites
from probdl.loops.iterate import Iteration
from probdl.natural import GaussianFactor


@dataclass(frozen=True)
class Attempt:
    """How to look for a fixed point.

    Attributes:
        power: α of power expectation propagation, in (0, 1].
        schedule: "parallel" or "sequential"; before the first attempt also "auto", which stands for both.
        damping: share of a step that is left out, or "auto".
        tolerance: of the moments at the fixed point.
        max_sweeps: where to give up.
    """

    power: float
    schedule: str
    damping: float | str
    tolerance: float
    max_sweeps: int

    def fallbacks(self) -> list[Attempt]:
        """Return the attempts in order: parallel, sequential, then both with half the power."""
        schedules = ["parallel", "sequential"] if self.schedule == "auto" else [self.schedule]
        powers = [1.0, 0.5] if self.power == 1 and self.schedule == "auto" else [self.power]
        return [replace(self, power=p, schedule=s) for p in powers for s in schedules]


@dataclass(frozen=True)
class Start:
    """What a solution nearby needs of another: the attempt that led to it, its sites, and where their mass lay."""

    attempt: Attempt
    sites: list[Any]
    places: list[Any]


@dataclass(frozen=True)
class Solution:
    """A fixed point.

    Attributes:
        state: the sites and the Gaussian that they make.
        history: the sweeps.
        attempt: what led to it.
        failed: what the attempts before it said.
    """

    state: FixedPoint
    history: Iteration
    attempt: Attempt
    failed: tuple[str, ...] = ()

    @property
    def mean(self) -> Tensor:
        """The mean of the Gaussian latents, (d,)."""
        return self.state.solution.mean

    def covariance(self) -> Tensor:
        """Return their covariance, (d, d)."""
        return self.state.solution.covariance()

    def start(self) -> Start:
        """Return where a solution nearby may start; it does not hold the projections."""
        groups = self.state.groups
        return Start(self.attempt, [g.site for g in groups], [g.tilted.place for g in groups])

    def log_evidence(self) -> float:
        """Return the log evidence, in nats."""
        return float(self.state.log_evidence())


def solve(
    factors: Factors,
    phi: Tensor,
    attempt: Attempt,
    start: Start | None = None,
    progress: bool | None = None,
    verify: bool = False,
) -> Solution:
    """Return a fixed point given φ, by the first attempt that reaches one.

    Args:
        factors: of the program.
        phi: values of the latents outside.
        attempt: the first; others follow where its schedule is "auto".
        start: from a solution nearby, whose kind of attempt comes first, and whose quadrature is trusted.
        progress: show a bar.
        verify: match all moments once more from a fresh look at the tilted distributions, as without a start.

    Raises:
        ConvergenceError: if no attempt reaches a fixed point.
    """
    base, seen = factors.at(phi)
    failed: list[str] = []
    with torch.no_grad():
        for each in attempt.fallbacks() if start is None else [start.attempt, *attempt.fallbacks()]:
            try:
                state, history = _attempt(base, seen, each, None if failed else start, progress, verify)
                return Solution(state, history, each, tuple(failed))
            except ConvergenceError as error:
                failed.append(str(error))
    raise ConvergenceError(failed[0])


def _attempt(
    base: GaussianFactor,
    seen: dict[str, Seen],
    attempt: Attempt,
    start: Start | None,
    progress: bool | None,
    verify: bool,
) -> tuple[FixedPoint, Iteration]:
    groups = [_sites(x, attempt.power) for x in seen.values()]
    if start is not None:
        for group, site, place in zip(groups, start.sites, start.places):
            group.site, group.tilted.place = site, place
    state = FixedPoint(base, groups, attempt.damping)
    tolerance = at_least(attempt.tolerance, base.shift.dtype)
    history = state.run(attempt.schedule, tolerance, attempt.max_sweeps, progress, verify or start is None)
    if not history.converged:
        raise ConvergenceError(_not_converged(len(history.rows), state.gap, tolerance))
    return state, history


def _sites(seen: Seen, power: float) -> Sites:
    return SiteFactors(seen, power) if isinstance(seen, Projection) else SitePairs(seen, power)


def _not_converged(sweeps: int, gap: float, tolerance: float) -> str:
    return (
        f"Expectation propagation did not reach a fixed point in {sweeps} sweeps: the moments still differ "
        f"by {gap:.2g} (tolerance {tolerance:.2g}). Raise max_sweeps, use power=0.5, rescale strongly correlated or "
        "separated covariates, give the latents tighter priors, or use method='laplace' or 'nuts'."
    )
