"""Divergences of two densities: what is integrated, exact sums over atoms, and Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import bounds, dimension, double, draw, is_discrete, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_k

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
# The same divergences as means over draws from the mixture m = (p + q)/2, of functions of d = log q − log p.
OVER_MIXTURE: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda d: times(2 * torch.sigmoid(-d), -d),
    "js": lambda d: LOG2 - times(torch.sigmoid(-d), softplus(d)) - times(torch.sigmoid(d), softplus(-d)),
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
    return sum_over_atoms(INTEGRANDS[divergence], p, q)


def sum_over_atoms(integrand: Callable[[Tensor, Tensor], Tensor], p: Distribution, q: Distribution) -> Estimate:
    """Sum a function of the two log-probabilities over the atoms of two discrete laws."""
    p, q = double(p, "cpu"), double(q, "cpu")
    x = atoms(p, q)
    log_p, log_q = log_density(p, x), log_density(q, x)
    missing = max(0.0, 2 - (log_p.exp().sum() + log_q.exp().sum()).item())
    value = integrand(log_p, log_q).sum().item()
    notes: tuple[str, ...] = ("q has no probability on an atom of p",) if value == torch.inf else ()
    if missing > 1e-14:
        notes += (f"atoms with probability {missing:.1g} in all were left out",)
    return Estimate(value, 0.0, "exact sum", notes=notes)


def over_mixture(divergence: str, p: Distribution, q: Distribution, draws: int, seed: int) -> Estimate:
    """Estimate a divergence by draws from the mixture m = (p + q)/2."""
    mean = mixture_mean(OVER_MIXTURE[divergence], p, q, draws, seed)
    if math.isinf(mean.value):
        return Estimate(mean.value, 0.0, "monte carlo", n=mean.n, notes=("q has no density at a draw of p",))
    # Only the upper tail of log p/q can be heavy: P(q/p > t) ≤ 1/t under p.
    if divergence != "kl" or mean.k < 0.5:
        return Estimate(mean.value, mean.stderr, "monte carlo", n=mean.n)
    note = (
        f"log p/q has a heavy tail under p (Pareto k-hat {mean.k:.2f}): its variance may be infinite, so no error is "
        "given"
    )
    return Estimate(mean.value, None, "monte carlo", n=mean.n, notes=(note,))


class Mean(NamedTuple):
    """A mean over draws from the mixture, its standard error, and the terms that p's draws gave."""

    value: float
    stderr: float
    terms: Tensor
    ratios: Tensor
    n: int

    @property
    def k(self) -> float:
        """The Pareto k-hat of what is averaged."""
        return pareto_k(self.terms.clamp_min(0).log())


def mixture_mean(of: Callable[[Tensor], Tensor], p: Distribution, q: Distribution, draws: int, seed: int) -> Mean:
    r"""Average a function of d = log q − log p over draws from the mixture m = (p + q)/2, half from each side.

    The density ratios p/m and q/m are at most 2, so p/m − 1, whose mean is 0, is a control variate without heavy
    tails: unlike q/p − 1 under p, it needs no p that dominates q. Source: Owen and Zhou (2000), JASA 95(449).
    """
    n = draws // 2
    sides = [draw(h, n, 2 * seed + side) for side, h in enumerate((p, q))]
    ratios = [log_ratio(log_density(p, x), log_density(q, x)) for x in sides]
    terms = [of(d) for d in ratios]
    value = (terms[0].mean() + terms[1].mean()).item() / 2
    if math.isinf(value):
        return Mean(value, 0.0, terms[0], ratios[0], 2 * n)
    controls = [2 * torch.sigmoid(-d) - 1 for d in ratios]
    _check_masses(controls)
    c = _slope(terms, controls)
    rest = [f - c * g for f, g in zip(terms, controls)]
    value = (rest[0].mean() + rest[1].mean()).item() / 2
    stderr = math.sqrt((rest[0].var() + rest[1].var()).item() / n) / 2
    return Mean(value, stderr, terms[0], ratios[0], 2 * n)


def _check_masses(controls: list[Tensor]) -> None:
    """Raise unless p/m − 1 averages 0 over draws from m, as it does for densities of the laws that are drawn."""
    n = len(controls[0])
    mean = (controls[0].mean() + controls[1].mean()).item() / 2
    if abs(mean) > 6 * math.sqrt((controls[0].var() + controls[1].var()).item() / n) / 2 + 20 / n:
        raise NotApplicable(
            f"the log_prob of p or q is not the density of its draws: p/(p + q) averages {(1 + mean) / 2:.3g} over "
            "draws from both, not 0.5. Atoms, as of a Delta, have no density: use wasserstein, mmd2 or energy."
        )


def _slope(terms: list[Tensor], controls: list[Tensor]) -> float:
    """Return the slope of the terms on the control variate within the two sides."""
    centred = [(f - f.mean(), g - g.mean()) for f, g in zip(terms, controls)]
    spread = sum((g * g).sum().item() for _, g in centred)
    return sum((f * g).sum().item() for f, g in centred) / spread if spread > 0 else 0.0
