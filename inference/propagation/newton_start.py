"""Where to begin: sites from the curvature of log-concave likelihoods at the posterior mode.

From sites that say nothing the first parallel step moves many sites by many sds at once; from here few steps are left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.propagation.weight_space import Sites
from probdl.natural import GaussianFactor, NormalFactor

_STEPS = 25


def sites_at_mode(base: GaussianFactor, groups: list[Sites]) -> list[NormalFactor] | None:
    """Return the sites of Laplace's method, found by Newton steps; None where a likelihood is not log-concave there.

    Args:
        base: the Gaussian part of the model.
        groups: sites that each see one projection; others return None.
    """
    if not groups or any(group.width != 1 for group in groups):
        return None
    z = base.moments()[0]
    value, sites = _expanded(base, groups, z)
    for _ in range(_STEPS):
        if sites is None:
            return None
        step = _newton_point(base, groups, sites) - z
        moved = _ascent(base, groups, z, step, value)
        if moved is None:
            return None
        gained, (z, value, sites) = moved[1] - value, moved
        if gained < 1e-3:
            return sites
    return None


def _newton_point(base: GaussianFactor, groups: list[Sites], sites: list[NormalFactor]) -> Tensor:
    total = base
    for group, site in zip(groups, sites):
        total = total * group.as_gaussian(site)
    return total.moments()[0]


def _ascent(
    base: GaussianFactor, groups: list[Sites], z: Tensor, step: Tensor, value: float
) -> tuple[Tensor, float, list[NormalFactor] | None] | None:
    """The first of the halved steps that does not lower the density."""
    for _ in range(20):
        new_value, sites = _expanded(base, groups, z + step)
        if new_value >= value - 1e-9 * abs(value):
            return z + step, new_value, sites
        step = step / 2
    return None


def _expanded(base: GaussianFactor, groups: list[Any], z: Tensor) -> tuple[float, list[NormalFactor] | None]:
    """The log-density at z, and the likelihoods' expansions to second order there; None if one is not concave."""
    total = float(base.constant + base.shift @ z - 0.5 * z @ base.precision @ z)
    sites = []
    for group in groups:
        u = (group.a @ z)[None].requires_grad_()
        with torch.enable_grad():
            log_likelihood = group.log_likelihood(u).sum()
            if not log_likelihood.requires_grad:
                return total, None
            (slope,) = torch.autograd.grad(log_likelihood, u, create_graph=True)
            if not slope.requires_grad:
                return total, None
            (curvature,) = torch.autograd.grad(slope.sum(), u)
        total += float(log_likelihood.detach())
        precision, slope, at = -curvature[0].detach(), slope[0].detach(), u[0].detach()
        if not bool(((precision > 0) & torch.isfinite(precision) & torch.isfinite(slope)).all()):
            return total, None
        sites.append(NormalFactor(slope + precision * at, precision))
    return (total if total == total else -float("inf")), sites
