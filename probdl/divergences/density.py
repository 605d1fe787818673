"""Divergences of two densities: what is integrated, exact sums over atoms, and Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import bounds, dimension, double, draw, is_discrete, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_k
from probdl.divergences.support import known_inside

LOG2 = math.log(2)


def log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return log q − log p, with 0 where both densities vanish."""
    return torch.where((log_p == -torch.inf) & (log_q == -torch.inf), 0.0, log_q - log_p)


def times(density: Tensor, logarithm: Tensor) -> Tensor:
    """Return the product, with 0·∞ = 0 as in the definition of a divergence."""
    return torch.where(density == 0, 0.0, density * logarithm)


def kl_integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return p·(r − 1 − log r), r = q/p: never negative, and with the same integral as p·log(p/q)."""
    d, p, q = log_ratio(log_p, log_q), log_p.exp(), log_q.exp()
    small = d.abs() < 1  # there the second form cancels; elsewhere the first overflows
    return torch.where(small, times(p, torch.expm1(d) - d), q - p - times(p, d))


def js_integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ½p·log(p/m) + ½q·log(q/m) for the mixture m = (p + q)/2."""
    d = log_ratio(log_p, log_q)
    return (times(log_p.exp(), LOG2 - softplus(d)) + times(log_q.exp(), LOG2 - softplus(-d))) / 2


def tv_integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ½|p − q|."""
    return (log_p.exp() - log_q.exp()).abs() / 2


def hellinger2_integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ½(√p − √q)²."""
    return ((log_p / 2).exp() - (log_q / 2).exp()).square() / 2


INTEGRANDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": kl_integrand,
    "js": js_integrand,
    "tv": tv_integrand,
    "hellinger2": hellinger2_integrand,
}
# The same divergences as means over draws from the mixture (p + q)/2, of bounded functions of d = log q − log p.
OVER_MIXTURE: dict[str, Callable[[Tensor], Tensor]] = {
    "js": lambda d: LOG2 - (torch.sigmoid(-d) * softplus(d) + torch.sigmoid(d) * softplus(-d)),
    "tv": lambda d: torch.tanh(d / 2).abs(),
    "hellinger2": lambda d: 1 - 1 / torch.cosh(d / 2),
}


def atoms(p: Distribution, q: Distribution) -> Tensor:
    """Return points (k, d) that hold all atoms of both discrete laws, up to 1e-12 of their probability."""
    if not (is_discrete(p) and is_discrete(q)):
        raise NotApplicable("an exact sum needs two discrete distributions.")
    listed = [_listed(h) for h in (p, q)]
    if listed[0] is not None and listed[1] is not None:
        return torch.cat([listed[0], listed[1]]).unique(dim=0)
    if dimension(p) != 1:
        raise NotApplicable(f"an exact sum needs laws that list their support; these have {dimension(p)} coordinates.")
    return _lattice(p, q)


def _listed(p: Distribution) -> Tensor | None:
    try:
        return p.enumerate_support(expand=False).reshape(-1, dimension(p)).double()
    except NotImplementedError:
        return None


def _lattice(p: Distribution, q: Distribution) -> Tensor:
    """Return integers from the lower end upwards until they hold both laws."""
    start = min(bounds(p)[0].item(), bounds(q)[0].item())
    start = 0.0 if start == -torch.inf else start
    for size in (2**k for k in range(6, 23, 2)):
        x = start + torch.arange(size, dtype=torch.float64)[:, None]
        if all(log_density(h, x).exp().sum() > 1 - 1e-12 for h in (p, q)):
            return x
    raise NotApplicable("an exact sum would need more than four million atoms.")


def exact_sum(divergence: str, p: Distribution, q: Distribution) -> Estimate:
    """Sum a divergence of two discrete laws over their atoms."""
    p, q = double(p, "cpu"), double(q, "cpu")
    x = atoms(p, q)
    log_p, log_q = log_density(p, x), log_density(q, x)
    missing = max(0.0, 2 - (log_p.exp().sum() + log_q.exp().sum()).item())
    value = INTEGRANDS[divergence](log_p, log_q).sum().item()
    notes: tuple[str, ...] = ("q has no probability on an atom of p",) if value == torch.inf else ()
    if missing > 1e-14:
        notes += (f"atoms with probability {missing:.1g} in all were left out",)
    return Estimate(value, 0.0, "exact sum", notes=notes)


def over_mixture(divergence: str, p: Distribution, q: Distribution, draws: int, seed: int) -> Estimate:
    """Estimate JS, TV or H² by draws from the mixture, half of them from each side: ratios stay bounded."""
    n = draws // 2
    values = []
    for side, h in enumerate((p, q)):
        x = draw(h, n, 2 * seed + side)
        values.append(OVER_MIXTURE[divergence](log_ratio(log_density(p, x), log_density(q, x))))
    value = (values[0].mean() + values[1].mean()).item() / 2
    stderr = math.sqrt((values[0].var() + values[1].var()).item() / n) / 2
    return Estimate(value, stderr, "monte carlo", n=2 * n)


def kl_by_draws(p: Distribution, q: Distribution, draws: int, seed: int) -> Estimate:
    """Estimate KL(p‖q) by draws from p, with a control variate where that is safe."""
    x = draw(p, draws, 2 * seed)
    d = log_ratio(log_density(p, x), log_density(q, x))
    if bool((d == -torch.inf).any()):
        return Estimate(torch.inf, 0.0, "monte carlo", n=draws, notes=("q has no density at a draw of p",))
    terms, notes = _controlled(-d, d, p, q)
    k = pareto_k(d.abs().log())
    if k >= 0.5:
        note = f"log p/q has a heavy tail under p (Pareto k-hat {k:.2f}): its variance may be infinite"
        return Estimate(terms.mean().item(), None, "monte carlo", n=draws, notes=(note, *notes))
    return Estimate(terms.mean().item(), terms.std().item() / math.sqrt(draws), "monte carlo", n=draws, notes=notes)


def _controlled(terms: Tensor, d: Tensor, p: Distribution, q: Distribution) -> tuple[Tensor, tuple[str, ...]]:
    """Add c(r − 1), r = q/p, whose mean is 0 if q ≪ p, provided that r has a finite variance."""
    if not known_inside(q, p):
        return terms, ("no control variate: q is not known to be dominated by p",)
    k = pareto_k(d)
    if k >= 0.5:
        return terms, (f"no control variate: q/p has a heavy tail under p (Pareto k-hat {k:.2f})",)
    r = torch.expm1(d)
    c = -((terms - terms.mean()) * (r - r.mean())).mean() / r.var().clamp_min(1e-300)
    return terms + c * r, (f"control variate c(q/p − 1), c = {c.item():.3g}, Pareto k-hat {k:.2f}",)
