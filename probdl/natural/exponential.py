r"""Exponential families in the course's form, :math:`q(z) = h(z)\, g(\eta) \exp(\eta^\top u(z))`.

Each family says its sufficient statistics u, its natural parameters :math:`\eta`, and :math:`-\log g(\eta)`, whose
gradient is the expectation of u; statistics are minimal, so that this gradient has an inverse.
"""

from __future__ import annotations

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


def log_gamma(x: Tensor) -> Tensor:
    """Return log Γ(x), and infinity for x ≤ 0, where no member of a family is, though log |Γ| is finite."""
    return torch.where(x > 0, torch.lgamma(x), torch.inf)
