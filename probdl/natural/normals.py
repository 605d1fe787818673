"""The Normal families: on the line, in more dimensions, of a logarithm; and the Wishart of their precisions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from probdl.natural.exponential import ExponentialFamily, Parameters, columns
from probdl.natural.triangles import doubled, unvech, vech


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
    return torch.cat([precision @ q.loc, -0.5 * doubled(len(q.loc), q.loc) * vech(precision)])


def _gaussian_precision(eta: Tensor) -> tuple[Tensor, Tensor]:
    shift, lower = _gaussian_split(eta)
    return shift, unvech(-2 * lower / doubled(len(shift), eta))


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


def _wishart_split(v: Tensor) -> tuple[Tensor, Tensor, int]:
    d = round((math.sqrt(8 * (len(v) - 1) + 1) - 1) / 2)
    return v[0], v[1:], d


def _wishart_natural(q: Any) -> Tensor:
    d = q.event_shape[-1]
    return torch.cat([((q.df - d - 1) / 2)[None], -0.5 * doubled(d, q.df) * vech(q.precision_matrix)])


def _wishart_parameters(eta: Tensor) -> Parameters:
    half, lower, d = _wishart_split(eta)
    return {"df": 2 * half + d + 1, "covariance_matrix": torch.linalg.inv(unvech(-2 * lower / doubled(d, eta)))}


def _wishart_minus_log_g(eta: Tensor) -> Tensor:
    half, lower, d = _wishart_split(eta)
    df, inverse = 2 * half + d + 1, unvech(-2 * lower / doubled(d, eta))
    root, indefinite = torch.linalg.cholesky_ex(inverse)
    if int(indefinite) or not df > d - 1:  # a determinant and Γ may be finite there, but no member is
        return torch.full_like(half, torch.inf)
    return 0.5 * df * d * math.log(2) - df * root.diagonal().log().sum() + torch.mvlgamma(df / 2, d)


def _wishart_gap(mean: Tensor) -> Tensor:
    log_det, lower, _ = _wishart_split(mean)
    return torch.logdet(unvech(lower)) - log_det


def _wishart_guess(mean: Tensor) -> Tensor:
    _, lower, d = _wishart_split(mean)
    df = d + (d + 1) * d / 2 / _wishart_gap(mean).clamp(max=1e3)  # log|E W| − E log|W| is near d(d + 1)/(2 ν)
    return torch.cat([((df - d - 1) / 2)[None], -0.5 * df * doubled(d, mean) * vech(torch.linalg.inv(unvech(lower)))])


NORMALS = (
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
        td.Wishart, lambda z: torch.cat([torch.linalg.slogdet(z)[1][:, None], vech(z)], 1), _wishart_natural,
        _wishart_minus_log_g, _wishart_parameters, event=2, guess=_wishart_guess, spread=_wishart_gap,
    ),
)  # fmt: skip
