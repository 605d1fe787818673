"""What expectation propagation says of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from probdl.inference.propagation.factors import Factors
from probdl.inference.propagation.solving import Attempt, Solution
from probdl.inference.propagation.weight_space import Sites


def describe(factors: Factors, solution: Solution) -> str:
    """Return a sentence: what was matched, how, and after how many sweeps; and what failed before."""
    if not factors.projected:
        return "Every factor is Gaussian in the latents, so the posterior and its evidence are exact."
    groups = solution.state.groups
    sites = ", ".join(f"{len(g)} of {name!r}" for name, g in zip(factors.projected, groups))
    planes = [name for name, g in zip(factors.projected, groups) if g.width == 2]
    on_planes = f", those of {', '.join(map(repr, planes))} on planes of two projections," if planes else ""
    sweeps = len(solution.history.rows)
    text = (
        f"{named(solution).capitalize()} matched the moments of the sites ({sites}){on_planes} to a fixed point in "
        f"{sweeps} {solution.attempt.schedule} sweeps."
    )
    return text + failures(solution)


def named(solution: Solution) -> str:
    """Return the name of the method, with the power where it is not 1."""
    power = solution.attempt.power
    return "expectation propagation" if power == 1 else f"power expectation propagation (power {power:g})"


def powers(attempts: Iterable[Attempt]) -> tuple[str, ...]:
    """Return a note where the points of a grid have different powers, so that their evidences are not alike."""
    counts = Counter(attempt.power for attempt in attempts)
    if len(counts) < 2:
        return ()
    parts = ", ".join(f"{count} with power {power:g}" for power, count in sorted(counts.items(), reverse=True))
    return (f"points of the grid were solved {parts}, whose evidences are not strictly alike",)


def failures(solution: Solution) -> str:
    """Return a sentence about the attempts that failed, with a space before it; empty where there were none."""
    if not solution.failed:
        return ""
    return f" {len(solution.failed)} attempts before it did not converge, of which the first said: {solution.failed[0]}"


def site_notes(groups: list[Sites]) -> tuple[str, ...]:
    """Return what a careful reader should know of the sites."""
    negative = sum(g.negative for g in groups)
    error = max((g.error for g in groups), default=0.0)
    return (
        *(
            (f"{negative} sites have a negative precision, as likelihoods that are not log-concave need",)
            * (negative > 0)
        ),
        *((f"the quadrature of the tilted moments has an error of about {error:.1g}",) * (error > 1e-6)),
    )
