r"""Divergences of powers of densities, :math:`\int p^\alpha q^{1-\alpha}`: χ² and Rényi.

Both are computed from :math:`A_\alpha = (\int p^\alpha q^{1-\alpha} - 1)/(\alpha(\alpha - 1))`, whose integrand can be
written so that it is never negative and does not cancel where p and q are close.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Uniform
from torch.nn.functional import softplus

from probdl.divergences import closed, density, gaussian, quadrature
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_k
from probdl.divergences.support import disjoint, outside

USABLE, SURE = 0.7, 0.5  # Pareto k-hat of what is averaged, above which a mean, or its error, is not to be trusted


def excess(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the integrand of A, q·(r^α − 1 − α(r − 1))/(α(α − 1)) for r = p/q."""

    def integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
        s, q = -density.log_ratio(log_p, log_q), log_q.exp()
        near = density.times(q, torch.expm1(alpha * s) - alpha * torch.expm1(s))
        far = power(alpha)(log_p, log_q) - alpha * log_p.exp() - (1 - alpha) * q
        return torch.where(s.abs() < 1, near, far) / (alpha * (alpha - 1))

    return integrand


def power(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the integrand p^α q^(1−α), 0 where both densities vanish."""

    def integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
        neither = (log_p == -torch.inf) & (log_q == -torch.inf)
        return torch.where(neither, 0.0, (alpha * log_p + (1 - alpha) * log_q).exp())

    return integrand


def power_over_mixture(alpha: float) -> Callable[[Tensor], Tensor]:
    """Return p^α q^(1−α)/m as a function of d = log q − log p, for the mixture m = (p + q)/2."""

    def term(d: Tensor) -> Tensor:
        exponent = torch.where(d < 0, (1 - alpha) * d - softplus(d), -alpha * d - softplus(-d))
        return 2 * exponent.exp()

    return term


def excess_over_mixture(alpha: float) -> Callable[[Tensor], Tensor]:
    """Return the integrand of A divided by m, as a function of d = log q − log p."""

    def term(d: Tensor) -> Tensor:
        linear = alpha * torch.sigmoid(-d) + (1 - alpha) * torch.sigmoid(d)
        return (power_over_mixture(alpha)(d) - 2 * linear) / (alpha * (alpha - 1))

    return term


def closed_renyi(p: Distribution, q: Distribution, alpha: float) -> Estimate:
    """Return the closed form for disjoint supports, Gaussians and uniform laws."""
    reason = outside(p, q) if alpha > 1 else ""
    if disjoint(p, q) or reason:
        return closed.exact(math.inf, f"q has no density where p has some: {reason}" if reason else "disjoint supports")
    gaussians = closed.pair(p, q)
    if gaussians is not None:
        value = gaussian.renyi(*gaussians, alpha)
        return closed.exact(value, *(["the tails of p are too heavy for those of q"] if value == math.inf else []))
    if isinstance(p, Uniform) and isinstance(q, Uniform):
        return closed.exact(_of_uniforms(p, q, alpha))
    raise closed.no_closed_form("a power divergence", p, q)


def _of_uniforms(p: Uniform, q: Uniform, alpha: float) -> float:
    """Return log(overlap·|p|^−α·|q|^(α−1))/(α − 1), |p| the length of the interval of p."""
    overlap = min(p.high.item(), q.high.item()) - max(p.low.item(), q.low.item())
    lengths = [(u.high - u.low).item() for u in (p, q)]
    return (math.log(overlap / lengths[0]) + (alpha - 1) * math.log(lengths[1] / lengths[0])) / (alpha - 1)


def by_sum(p: Distribution, q: Distribution, alpha: float) -> Estimate:
    """Return A over the atoms of two discrete laws."""
    return density.sum_over_atoms(excess(alpha), p, q)


def by_quadrature(p: Distribution, q: Distribution, alpha: float) -> Estimate:
    """Return A by quadrature, with a bound on its error."""
    result = quadrature.f_divergence(excess(alpha), p, q)
    if result.value == math.inf:
        return replace(result, notes=("the integral of p^α q^(1−α) diverges",))
    return result


def by_draws(p: Distribution, q: Distribution, alpha: float, draws: int, seed: int) -> Estimate:
    """Return A by draws from the mixture of p and q; refused where the largest terms decide.

    Under the mixture the terms have half the tail index that w² has under q. The integrand of A has a heavier shape
    than p^α q^(1−α) long before both reach the same tail, so it decides about the error.
    """
    mean = density.mixture_mean(excess_over_mixture(alpha), p, q, draws, seed)
    if mean.value == math.inf:
        return Estimate(math.inf, 0.0, "monte carlo", n=mean.n, notes=("q has no density at a draw of p",))
    if alpha < 1:  # the terms are bounded
        return Estimate(mean.value, mean.stderr, "monte carlo", n=mean.n)
    k = pareto_k(power_over_mixture(alpha)(mean.ratios).log())
    if k > USABLE:
        raise NotApplicable(
            f"the largest of the {mean.n} terms decide their mean (Pareto k-hat {k:.2f}, above {USABLE}): the "
            "divergence may be infinite. Use js, tv or hellinger2, which are bounded."
        )
    k = max(k, mean.k)
    if k > SURE:
        note = f"the terms have a heavy tail (Pareto k-hat {k:.2f}, above {SURE}), so no error is given"
        return Estimate(mean.value, None, "monte carlo", n=mean.n, notes=(note,))
    return Estimate(mean.value, mean.stderr, "monte carlo", n=mean.n)
