"""KL against a density that is known by its logarithm, perhaps up to a constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import LogDensity
from probdl.divergences.dispatch import single
from probdl.divergences.distributions import draw, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_k

UP_TO_Z = "the density of q is known up to a constant: this is KL(p‖q) − log Z, with Z the integral of exp(log-density)"


def known(q: Distribution | LogDensity, x: Tensor) -> Tensor:
    """Return log q at the rows of x."""
    if isinstance(q, Distribution):
        single(q, "q")
        return log_density(q, x)
    with torch.no_grad():
        value = q(x).double()
    if bool((torch.isnan(value) | (value == torch.inf)).any()):
        raise ValueError("the log-density of q must be below infinity and not NaN at the draws of p.")
    return value


def kl(p: Distribution, q: LogDensity, draws: int, seed: int) -> Estimate:
    """Return the mean of log p − log q over draws of p; up to log Z where q is not normalised."""
    single(p, "p")
    x = draw(p, draws, seed)
    terms = log_density(p, x) - known(q, x)
    target = "population" if q.normalised else "approximation"
    notes: tuple[str, ...] = () if q.normalised else (UP_TO_Z,)
    if bool((terms == torch.inf).any()):
        notes += ("q has no density at a draw of p",)
        return Estimate(torch.inf, 0.0, "monte carlo", target, draws, notes)
    k = pareto_k(terms.clamp_min(0).log())
    stderr = math.sqrt(terms.var().item() / draws) if k < 0.5 else None
    if stderr is None:
        notes += (f"log p/q has a heavy tail under p (Pareto k-hat {k:.2f}): no error is given",)
    return Estimate(terms.mean().item(), stderr, "monte carlo", target, draws, notes)
