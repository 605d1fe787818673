"""What is said of a fit over groups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probdl.inference.groups.inner import ADVICE

if TYPE_CHECKING:
    from probdl.inference.group_ep import GroupEP
    from probdl.inference.groups.propagation import Propagation
    from probdl.inference.groups.sites import Sites
    from probdl.inference.groups.tilted import TiltedDraws
    from probdl.loops.iterate import Iteration


def message(fitting: Propagation, sweeps: int, notes: tuple[str, ...]) -> str:
    """Say what was done, and how sure the moments are."""
    plan, (of_mean, of_variance) = fitting.plan, fitting.mc_errors()
    khat = max(m.khat for m in fitting.sites.matched)
    tail = f"the largest k-hat is {khat:.2f}" if math.isfinite(khat) else "the weights are nearly equal"  # no tail
    said = [
        f"Expectation propagation matched the moments of {len(plan.tasks)} groups of {min(plan.observations)} to "
        f"{max(plan.observations)} observations by {fitting.method.moments} draws to a fixed point in {sweeps} sweeps; "
        f"the Monte Carlo errors are at most {float(of_mean.max()):.2g} sd in means and "
        f"{0.5 * float(of_variance.max()):.1%} in sds; {tail}."
    ]
    if fitting.base is None:
        said.append("The prior is not Gaussian on unconstrained space and has a site of its own.")
    if plan.own:
        said.append(f"The sites {', '.join(plan.own)} belong to single groups and were integrated out there.")
    if plan.split:
        said.append(
            f"The sites {', '.join(plan.split)} are shared, since rows of one entry are in several groups; labels that "
            "keep them together (groups='county') would integrate them out."
        )
    return " ".join([*said, *(f"Note: {note}." for note in notes)])


def not_converged(method: GroupEP, history: Iteration, sites: Sites, draws: list[TiltedDraws]) -> str:
    """Say why there is no result."""
    errors = sites.errors(draws).of_q()
    return (
        f"Expectation propagation over groups did not reach a fixed point in {method.max_sweeps} sweeps: the gap is "
        f"{history.last:.2g}, the step {sites.step:.2g}, the Monte Carlo errors are up to {float(errors[0].max()):.2g} "
        f"sd in means, and the largest k-hat is {max(m.khat for m in sites.matched):.2f}. Raise draws, use fewer "
        f"groups so that each tells more, or raise max_sweeps. {ADVICE}"
    )


def weights_without_mean(name: str, khat: float) -> str:
    """Say what to do where importance weights have no mean."""
    return (
        f"The importance weights of {name} have no mean (k-hat {khat:.2f}, above 1): its tilted distribution is far "
        f"from Gaussian, and its moments would be wrong. {ADVICE}"
    )


def weights_imprecise(name: str, khat: float) -> str:
    """Say what to do where importance weights are heavy."""
    return (
        f"The importance weights of {name} are heavy (k-hat {khat:.2f}, above 0.7), so its moments are imprecise. "
        f"Raise draws. {ADVICE}"
    )
