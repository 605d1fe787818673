"""The approximation as a Gaussian of z, held by its precision: base and sites multiplied, with the sites' marginals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from probdl.natural import GaussianFactor


class Sites(Protocol):
    """The sites of one observed factor, each seeing z through one or two projections."""

    site: Any
    target: Any
    tilted: Any
    error: float
    width: int

    def __len__(self) -> int: ...

    @property
    def negative(self) -> int:
        """How many sites have a precision that is not positive."""

    @property
    def is_silent(self) -> bool:
        """Whether the sites say nothing yet."""

    def as_gaussian(self, site: Any = None) -> GaussianFactor:
        """The product of the sites as a factor of z."""

    def marginal(self, mean: Tensor, root: Tensor) -> Any:
        """The marginals of the projections under a Gaussian with this mean and root of the precision."""

    def is_proper(self, marginal: Any, site: Any) -> bool:
        """Whether every cavity is a distribution."""

    def match(self, marginal: Any, tolerance: float | None = None) -> Tensor:
        """Compute the sites that match moments; return how far each of the present ones is from it."""

    def moved(self, step: float, rows: Tensor | None = None) -> Any:
        """The sites after a damped step."""

    def flat(self, site: Any) -> Tensor:
        """Sites as one vector."""

    def unflat(self, x: Tensor) -> Any:
        """Sites from one vector."""

    def scale(self, marginal: Any) -> Tensor:
        """What brings the entries of ``flat`` to the scale of their effect on the marginals."""

    def log_scale(self, marginal: Any) -> Tensor:
        """The logarithm of what scales the sites so that their integrals are those of the exact factors."""

    def expected(self, factor: Any, phi: Tensor, mean: Tensor, covariance: Tensor, marginal: Any) -> Tensor:
        """The expected log-likelihoods under the tilted distributions, for their gradient by the latents outside."""

    def forget(self) -> None:
        """Return to sites that say nothing."""

    def look_again(self) -> None:
        """Look for the tilted mass anew, in case it moved to where the quadrature does not see it."""


@dataclass(frozen=True)
class WeightSpace:
    """The product of base and sites, with the marginals that the sites see."""

    total: GaussianFactor
    root: Tensor
    mean: Tensor
    marginals: list[Any]

    @classmethod
    def of(cls, base: GaussianFactor, groups: list[Sites], sites: list[Any]) -> WeightSpace | None:
        """Return the product; None where it or a cavity is not a distribution."""
        total = base
        for group, site in zip(groups, sites):
            total = total * group.as_gaussian(site)
        root, info = torch.linalg.cholesky_ex(total.precision)
        if int(info):
            return None
        mean = torch.cholesky_solve(total.shift[:, None], root)[:, 0]
        marginals = [group.marginal(mean, root) for group in groups]
        if not all(g.is_proper(marginal, site) for g, marginal, site in zip(groups, marginals, sites)):
            return None
        return cls(total, root, mean, marginals)

    def covariance(self) -> Tensor:
        """Return the covariance of z, (d, d)."""
        return torch.cholesky_inverse(self.root)

    def log_integral(self) -> Tensor:
        """Return the logarithm of the integral of base and sites over z."""
        return self.total.log_integral()
