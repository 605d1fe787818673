r"""Exponential families in the course's form, :math:`q(z) = h(z)\, g(\eta) \exp(\eta^\top u(z))`.

Each family says its sufficient statistics u, its natural parameters :math:`\eta`, and :math:`-\log g(\eta)`, whose
gradient is the expectation of u; statistics are minimal, so that this gradient has an inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from probdl.natural.solving import solve_mean

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class ExponentialFamily:
    r"""One family.

    Attributes:
        kind: the distribution of torch.
        statistics: u, from draws (n, *event) to (n, k).
        natural: η of a distribution, (k,).
        minus_log_g: :math:`-\log g(\eta)`, from (k,) to a scalar; differentiable.
        parameters: of the distribution with natural parameters η; differentiable.
        event: how many dimensions a draw has.
        closed: parameters from E[u] (k,), where there is a formula; None solves for η.
        guess: η to start from, given E[u]; None where there is a formula.
        spread: a number of E[u] that is zero where no member has these E[u] and finite natural parameters, as for
            constant draws, else positive.
        log_base: log h(z) of draws, (n,).
    """

    kind: type[td.Distribution]
    statistics: Callable[[Tensor], Tensor]
    natural: Callable[[Any], Tensor]
    minus_log_g: Callable[[Tensor], Tensor]
    parameters: Callable[[Tensor], Parameters]
    event: int = 0
    closed: Callable[[Tensor], Parameters] | None = None
    guess: Callable[[Tensor], Tensor] | None = None
    spread: Callable[[Tensor], Tensor] | None = None
    log_base: Callable[[Tensor], Tensor] = lambda z: z.new_zeros(len(z))

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return self.kind.__name__

    def mean_statistics(self, eta: Tensor) -> Tensor:
        r"""Return :math:`E_q[u] = -\partial \log g(\eta)/\partial\eta`, (k,)."""
        eta = eta.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.minus_log_g(eta), eta)[0]

    def from_mean(self, mean: Tensor) -> Parameters:
        """Return the parameters of the member with E[u] = mean; differentiable in it."""
        if self.closed is not None:
            return self.closed(mean)
        assert self.guess is not None
        return self.parameters(solve_mean(self.minus_log_g, mean, self.guess(mean.detach())))

    def log_density(self, eta: Tensor, z: Tensor) -> Tensor:
        """Return log h(z) + log g(η) + ηᵀu(z) at draws, (n,)."""
        return self.log_base(z) - self.minus_log_g(eta) + self.statistics(z) @ eta


def columns(*parts: Tensor) -> Tensor:
    """Stack statistics of draws (n,) as (n, k)."""
    return torch.stack(parts, -1)


def vech(x: Tensor) -> Tensor:
    """Return the lower triangle of symmetric matrices (..., d, d), column by column, (..., d(d + 1)/2)."""
    i, j = _triangle(x.shape[-1], x.device)
    return x[..., i, j]


def unvech(v: Tensor) -> Tensor:
    """Return symmetric matrices from their lower triangles."""
    d = round((math.sqrt(8 * v.shape[-1] + 1) - 1) / 2)
    i, j = _triangle(d, v.device)
    place = torch.zeros(d, d, dtype=torch.long, device=v.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=v.device)
    return v[..., place]


def _triangle(d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    j, i = torch.triu_indices(d, d, device=device)
    return i, j


def _doubled(d: int, like: Tensor) -> Tensor:
    """How often each entry of the lower triangle stands in the matrix: once on the diagonal, else twice."""
    return 2 - vech(torch.eye(d, dtype=like.dtype, device=like.device))


def _normal_natural(loc: Tensor, scale: Tensor) -> Tensor:
    return torch.stack([loc / scale**2, -0.5 / scale**2])


def _normal_minus_log_g(eta: Tensor) -> Tensor:
    return -(eta[0] ** 2) / (4 * eta[1]) - 0.5 * torch.log(-2 * eta[1])


def _normal_parameters(eta: Tensor) -> Parameters:
    variance = -0.5 / eta[1]
    return {"loc": eta[0] * variance, "scale": variance.sqrt()}


def _normal_closed(mean: Tensor) -> Parameters:
    return {"loc": mean[0], "scale": _variance(mean).sqrt()}


def _variance(mean: Tensor) -> Tensor:
    return mean[1] - mean[0] ** 2


def _gaussian_split(v: Tensor) -> tuple[Tensor, Tensor]:
    """The first d entries and the lower triangle after them, of d + d(d + 1)/2."""
    d = round((math.sqrt(8 * len(v) + 9) - 3) / 2)
    return v[:d], v[d:]


def _gaussian_statistics(z: Tensor) -> Tensor:
    return torch.cat([z, vech(z[:, :, None] * z[:, None, :])], 1)


def _gaussian_natural(q: Any) -> Tensor:
    precision = q.precision_matrix
    return torch.cat([precision @ q.loc, -0.5 * _doubled(len(q.loc), q.loc) * vech(precision)])


def _gaussian_precision(eta: Tensor) -> tuple[Tensor, Tensor]:
    shift, lower = _gaussian_split(eta)
    return shift, unvech(-2 * lower / _doubled(len(shift), eta))


def _gaussian_minus_log_g(eta: Tensor) -> Tensor:
    shift, precision = _gaussian_precision(eta)
    return 0.5 * shift @ torch.linalg.solve(precision, shift) - 0.5 * torch.logdet(precision)


def _gaussian_parameters(eta: Tensor) -> Parameters:
    shift, precision = _gaussian_precision(eta)
    covariance = torch.linalg.inv(precision)
    return {"loc": covariance @ shift, "covariance_matrix": covariance}


def _gaussian_closed(mean: Tensor) -> Parameters:
    loc, lower = _gaussian_split(mean)
    return {"loc": loc, "covariance_matrix": unvech(lower) - torch.outer(loc, loc)}


def _gaussian_spread(mean: Tensor) -> Tensor:
    """The smallest eigenvalue of the correlations; zero where a column is constant or follows from others."""
    covariance = _gaussian_closed(mean)["covariance_matrix"]
    sd = covariance.diagonal().clamp(min=0).sqrt()
    scale = mean[len(sd) :].abs().max() * torch.finfo(mean.dtype).eps
    if bool((sd**2 <= 10 * scale).any()):
        return torch.zeros_like(mean[0])
    return torch.linalg.eigvalsh(covariance / torch.outer(sd, sd))[0]


def _gamma_minus_log_g(eta: Tensor) -> Tensor:
    return torch.lgamma(eta[0] + 1) - (eta[0] + 1) * torch.log(-eta[1])


def _gamma_gap(mean: Tensor) -> Tensor:
    """Log E[z] − E[log z], from (E log z, E z)."""
    return mean[1].log() - mean[0]


def _gamma_guess(mean: Tensor) -> Tensor:
    s = _gamma_gap(mean)
    a = (3 - s + torch.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    return torch.stack([a - 1, -a / mean[1]])


def _inverse(mean: Tensor) -> Tensor:
    """Of (E log z, E 1/z), those of 1/z."""
    return torch.stack([-mean[0], mean[1]])


def _inverse_gamma_guess(mean: Tensor) -> Tensor:
    a, b = _gamma_guess(_inverse(mean))
    return torch.stack([-a - 2, b])


def _dirichlet_minus_log_g(eta: Tensor) -> Tensor:
    return torch.lgamma(eta + 1).sum() - torch.lgamma((eta + 1).sum())


def _jensen_gap(mean: Tensor) -> Tensor:
    """One minus the sum of exp E[log z_k], zero only where z is constant."""
    return 1 - mean.exp().sum()


def _one_hot(z: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(z.long(), k)[:, :-1].double()


def _categorical_closed(mean: Tensor) -> Parameters:
    return {"probs": torch.cat([mean, 1 - mean.sum()[None]])}


def _categorical_parameters(eta: Tensor) -> Parameters:
    return {"probs": torch.softmax(torch.cat([eta, eta.new_zeros(1)]), 0)}


def _wishart_split(v: Tensor) -> tuple[Tensor, Tensor, int]:
    d = round((math.sqrt(8 * (len(v) - 1) + 1) - 1) / 2)
    return v[0], v[1:], d


def _wishart_natural(q: Any) -> Tensor:
    d = q.event_shape[-1]
    return torch.cat([((q.df - d - 1) / 2)[None], -0.5 * _doubled(d, q.df) * vech(q.precision_matrix)])


def _wishart_parameters(eta: Tensor) -> Parameters:
    half, lower, d = _wishart_split(eta)
    return {"df": 2 * half + d + 1, "covariance_matrix": torch.linalg.inv(unvech(-2 * lower / _doubled(d, eta)))}


def _wishart_minus_log_g(eta: Tensor) -> Tensor:
    half, lower, d = _wishart_split(eta)
    df, inverse = 2 * half + d + 1, unvech(-2 * lower / _doubled(d, eta))
    return 0.5 * df * d * math.log(2) - 0.5 * df * torch.logdet(inverse) + torch.mvlgamma(df / 2, d)


def _wishart_gap(mean: Tensor) -> Tensor:
    log_det, lower, _ = _wishart_split(mean)
    return torch.logdet(unvech(lower)) - log_det


def _wishart_guess(mean: Tensor) -> Tensor:
    _, lower, d = _wishart_split(mean)
    df = d + (d + 1) * d / 2 / _wishart_gap(mean).clamp(max=1e3)  # log|E W| − E log|W| is near d(d + 1)/(2 ν)
    return torch.cat([((df - d - 1) / 2)[None], -0.5 * df * _doubled(d, mean) * vech(torch.linalg.inv(unvech(lower)))])


def _von_mises_guess(mean: Tensor) -> Tensor:
    r = mean.norm()
    return mean / r * (r * (2 - r**2) / (1 - r**2))


_FAMILIES = (
    ExponentialFamily(
        td.Normal, lambda z: columns(z, z**2), lambda q: _normal_natural(q.loc, q.scale), _normal_minus_log_g,
        _normal_parameters, closed=_normal_closed, spread=lambda m: _variance(m) / m[1].clamp(min=1e-300),
        log_base=lambda z: torch.full_like(z, -0.5 * math.log(2 * math.pi)),
    ),
    ExponentialFamily(
        td.MultivariateNormal, _gaussian_statistics, _gaussian_natural, _gaussian_minus_log_g, _gaussian_parameters,
        event=1, closed=_gaussian_closed, spread=_gaussian_spread,
        log_base=lambda z: z.new_full((len(z),), -0.5 * z.shape[1] * math.log(2 * math.pi)),
    ),
    ExponentialFamily(
        td.LogNormal, lambda z: columns(z.log(), z.log() ** 2), lambda q: _normal_natural(q.loc, q.scale),
        _normal_minus_log_g, _normal_parameters, closed=_normal_closed,
        spread=lambda m: _variance(m) / m[1].clamp(min=1.0), log_base=lambda z: -0.5 * math.log(2 * math.pi) - z.log(),
    ),
    ExponentialFamily(
        td.Gamma, lambda z: columns(z.log(), z), lambda q: torch.stack([q.concentration - 1, -q.rate]),
        _gamma_minus_log_g, lambda e: {"concentration": e[0] + 1, "rate": -e[1]}, guess=_gamma_guess, spread=_gamma_gap,
    ),
    ExponentialFamily(
        td.InverseGamma, lambda z: columns(z.log(), 1 / z), lambda q: torch.stack([-q.concentration - 1, -q.rate]),
        lambda e: torch.lgamma(-e[0] - 1) + (e[0] + 1) * torch.log(-e[1]),
        lambda e: {"concentration": -e[0] - 1, "rate": -e[1]}, guess=_inverse_gamma_guess,
        spread=lambda m: _gamma_gap(_inverse(m)),
    ),
    ExponentialFamily(
        td.Exponential, lambda z: z[:, None], lambda q: -q.rate[None], lambda e: -torch.log(-e[0]),
        lambda e: {"rate": -e[0]}, closed=lambda m: {"rate": 1 / m[0]}, spread=lambda m: m[0],
    ),
    ExponentialFamily(
        td.Beta, lambda z: columns(z.log(), torch.log1p(-z)),
        lambda q: torch.stack([q.concentration1 - 1, q.concentration0 - 1]), _dirichlet_minus_log_g,
        lambda e: {"concentration1": e[0] + 1, "concentration0": e[1] + 1}, guess=torch.zeros_like, spread=_jensen_gap,
    ),
    ExponentialFamily(
        td.Dirichlet, torch.log, lambda q: q.concentration - 1, _dirichlet_minus_log_g,
        lambda e: {"concentration": e + 1}, event=1, guess=torch.zeros_like, spread=_jensen_gap,
    ),
    ExponentialFamily(
        td.Bernoulli, lambda z: z[:, None], lambda q: q.logits[None], lambda e: torch.nn.functional.softplus(e[0]),
        lambda e: {"probs": torch.sigmoid(e[0])}, closed=lambda m: {"probs": m[0]},
        spread=lambda m: m[0] * (1 - m[0]),
    ),
    ExponentialFamily(
        td.Categorical, lambda z: _one_hot(z, int(z.max()) + 1), lambda q: q.logits[:-1] - q.logits[-1],
        lambda e: torch.logsumexp(torch.cat([e, e.new_zeros(1)]), 0), _categorical_parameters,
        closed=_categorical_closed, spread=lambda m: _categorical_closed(m)["probs"].min(),
    ),
    ExponentialFamily(
        td.Poisson, lambda z: z[:, None], lambda q: q.rate.log()[None], lambda e: e[0].exp(),
        lambda e: {"rate": e[0].exp()}, closed=lambda m: {"rate": m[0]}, spread=lambda m: m[0],
        log_base=lambda z: -torch.lgamma(z + 1),
    ),
    ExponentialFamily(
        td.Geometric, lambda z: z[:, None], lambda q: torch.log1p(-q.probs)[None],
        lambda e: -torch.log(-torch.expm1(e[0])), lambda e: {"probs": -torch.expm1(e[0])},
        closed=lambda m: {"probs": 1 / (1 + m[0])}, spread=lambda m: m[0],
    ),
    ExponentialFamily(
        td.Wishart, lambda z: torch.cat([torch.linalg.slogdet(z)[1][:, None], vech(z)], 1), _wishart_natural,
        _wishart_minus_log_g, _wishart_parameters, event=2, guess=_wishart_guess, spread=_wishart_gap,
    ),
    ExponentialFamily(
        td.VonMises, lambda z: columns(z.cos(), z.sin()),
        lambda q: q.concentration * torch.stack([q.loc.cos(), q.loc.sin()]),
        lambda e: torch.log(torch.special.i0e(e.norm())) + e.norm() + math.log(2 * math.pi),
        lambda e: {"loc": torch.atan2(e[1], e[0]), "concentration": e.norm()}, guess=_von_mises_guess,
        spread=lambda m: 1 - m.norm(),
    ),
)  # fmt: skip
FAMILIES: dict[str, ExponentialFamily] = {family.name: family for family in _FAMILIES}


def family_named(family: Any) -> ExponentialFamily:
    """Return an exponential family by its distribution, or by the name of that in any case.

    Raises:
        ValueError: if it is none of those known.

    Example:
        >>> family_named("gamma").name, family_named(td.Normal).name
        ('Gamma', 'Normal')
    """
    if isinstance(family, ExponentialFamily):
        return family
    wanted = family if isinstance(family, str) else getattr(family, "__name__", type(family).__name__)
    by_name = {name.lower(): found for name, found in FAMILIES.items()}
    if wanted.lower().replace("_", "") not in by_name:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, or its name; got {wanted!r}.")
    return by_name[wanted.lower().replace("_", "")]
