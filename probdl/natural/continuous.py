"""Families of positive numbers, of proportions and of angles."""

from __future__ import annotations

import math

import torch
import torch.distributions as td
from torch import Tensor

from probdl.natural.exponential import ExponentialFamily, columns, log_gamma


def _gamma_minus_log_g(eta: Tensor) -> Tensor:
    return log_gamma(eta[0] + 1) - (eta[0] + 1) * torch.log(-eta[1])


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
    return log_gamma(eta + 1).sum() - log_gamma((eta + 1).sum())


def _jensen_gap(mean: Tensor) -> Tensor:
    """One minus the sum of exp E[log z_k], zero only where z is constant."""
    return 1 - mean.exp().sum()


def _von_mises_guess(mean: Tensor) -> Tensor:
    r = mean.norm()
    return mean / r * (r * (2 - r**2) / (1 - r**2))


CONTINUOUS = (
    ExponentialFamily(
        td.Gamma, lambda z: columns(z.log(), z), lambda q: torch.stack([q.concentration - 1, -q.rate]),
        _gamma_minus_log_g, lambda e: {"concentration": e[0] + 1, "rate": -e[1]}, guess=_gamma_guess, spread=_gamma_gap,
    ),
    ExponentialFamily(
        td.InverseGamma, lambda z: columns(z.log(), 1 / z), lambda q: torch.stack([-q.concentration - 1, -q.rate]),
        lambda e: log_gamma(-e[0] - 1) + (e[0] + 1) * torch.log(-e[1]),
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
        td.VonMises, lambda z: columns(z.cos(), z.sin()),
        lambda q: q.concentration * torch.stack([q.loc.cos(), q.loc.sin()]),
        lambda e: torch.log(torch.special.i0e(e.norm())) + e.norm() + math.log(2 * math.pi),
        lambda e: {"loc": torch.atan2(e[1], e[0]), "concentration": e.norm()}, guess=_von_mises_guess,
        spread=lambda m: 1 - m.norm(),
    ),
)  # fmt: skip
