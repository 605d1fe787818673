"""Closed forms: torch's registry for KL, Gaussians, uniform laws, disjoint supports."""

from __future__ import annotations

import math

import torch
from torch.distributions import Distribution, Uniform, kl_divergence

from probdl.divergences import density, gaussian, quadrature
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import dimension, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.gaussian import Gaussian
from probdl.divergences.kernels import RBF, Kernel
from probdl.divergences.support import disjoint, outside

APART = {"kl": math.inf, "js": math.log(2), "tv": 1.0, "hellinger2": 1.0}  # the largest value of each


def exact(value: float, *notes: str) -> Estimate:
    """Return an estimate without error."""
    return Estimate(value, 0.0, "closed form", notes=notes)


def pair(p: Distribution, q: Distribution) -> tuple[Gaussian, Gaussian] | None:
    """Return the moments of both if both are Gaussian, else None."""
    first, second = gaussian.gaussian(p), gaussian.gaussian(q)
    return None if first is None or second is None else (first, second)


def no_closed_form(divergence: str, p: Distribution, q: Distribution) -> NotApplicable:
    """Return the error that names both kinds of distribution."""
    return NotApplicable(f"no closed form of {divergence} is known for {type(p).__name__} and {type(q).__name__}.")


def f_divergence(divergence: str, p: Distribution, q: Distribution) -> Estimate:
    """Return the closed form of a divergence of two densities."""
    if disjoint(p, q):
        return exact(APART[divergence], "the supports do not overlap")
    if divergence == "kl":
        return kl(p, q)
    gaussians = pair(p, q)
    if gaussians is not None:
        return _of_gaussians(divergence, *gaussians)
    if isinstance(p, Uniform) and isinstance(q, Uniform):
        return exact(_of_uniforms(divergence, p, q))
    raise no_closed_form(divergence, p, q)


def kl(p: Distribution, q: Distribution) -> Estimate:
    """Return KL(p‖q) from the moments of Gaussians or from torch's registry."""
    reason = outside(p, q)
    if reason:
        return exact(math.inf, f"q has no density where p has some: {reason}")
    gaussians = pair(p, q)
    if gaussians is not None:
        return exact(gaussian.kl(*gaussians))
    try:
        value = kl_divergence(p, q).item()
    except NotImplementedError:  # its message may be empty
        raise no_closed_form("KL", p, q) from None
    if math.isnan(value):
        raise NotApplicable("torch's closed form gives NaN.")
    return exact(value, *(["q has no probability where p has some"] if value == math.inf else []))


def _of_gaussians(divergence: str, p: Gaussian, q: Gaussian) -> Estimate:
    if divergence == "hellinger2":
        return exact(gaussian.hellinger2(p, q))
    if not gaussian.same_covariance(p, q):
        raise NotApplicable(f"{divergence} of Gaussians has a closed form only for equal covariances.")
    if divergence != "tv":
        raise NotApplicable(f"no closed form of {divergence} is known for Gaussians.")
    return exact(gaussian.tv(p, q))


def _of_uniforms(divergence: str, p: Uniform, q: Uniform) -> float:
    """Sum the integrand over the overlap and over the two parts outside of it, on each of which it is constant."""
    (a, b), (c, d) = ((u.low.item(), u.high.item()) for u in (p, q))
    cuts = sorted([a, b, c, d])
    width = torch.tensor(cuts, dtype=torch.float64).diff()
    middle = torch.tensor([(x + y) / 2 for x, y in zip(cuts, cuts[1:])], dtype=torch.float64)[:, None]
    return (density.INTEGRANDS[divergence](log_density(p, middle), log_density(q, middle)) * width).sum().item()


def wasserstein(p: Distribution, q: Distribution, order: float) -> Estimate:
    """Return the closed form of W_p for Gaussians and for uniform laws on the line."""
    gaussians = pair(p, q)
    if gaussians is not None:
        if gaussian.same_covariance(*gaussians):
            return exact((gaussians[0].mean - gaussians[1].mean).norm().item())
        if order == 2:
            return exact(gaussian.wasserstein2(*gaussians))
        if order == 1 and dimension(p) == 1:
            return exact(gaussian.wasserstein1_line(*gaussians))
    if isinstance(p, Uniform) and isinstance(q, Uniform):
        return exact(_linear_map(p.low.item() - q.low.item(), p.high.item() - q.high.item(), order))
    raise no_closed_form(f"W of order {order:g}", p, q)


def _linear_map(left: float, right: float, order: float) -> float:
    """Return (∫₀¹ |left + (right − left)u|^order du)^(1/order)."""
    if math.isclose(left, right, rel_tol=1e-3):  # the primitive would cancel; this rule is exact to rounding
        nodes, weights = quadrature.legendre(10)
        distance = (left + (right - left) * (1 + nodes) / 2).abs()
        return (distance**order * weights / 2).sum().item() ** (1 / order)
    primitive = [math.copysign(abs(v) ** (order + 1), v) / (order + 1) for v in (left, right)]
    return ((primitive[1] - primitive[0]) / (right - left)) ** (1 / order)


def energy(p: Distribution, q: Distribution) -> Estimate:
    """Return the energy distance of Gaussians on the line."""
    gaussians = pair(p, q)
    if gaussians is None or dimension(p) > 1:
        raise no_closed_form("energy", p, q)
    return exact(gaussian.energy_line(*gaussians))


def mmd2(p: Distribution, q: Distribution, kernel: Kernel) -> Estimate:
    """Return the squared MMD of Gaussians under an RBF kernel, or the mean of several."""
    gaussians = pair(p, q)
    if gaussians is None or not isinstance(kernel, RBF):
        raise no_closed_form("mmd2", p, q)
    values = [gaussian.mmd2_rbf(*gaussians, bandwidth) for bandwidth in kernel.bandwidths]
    return exact(sum(values) / len(values))
