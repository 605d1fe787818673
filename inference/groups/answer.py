"""The posterior of expectation propagation over groups: a Gaussian with the Monte Carlo errors of its moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.groups.errors import standard_errors
from probdl.inference.groups.sites import Matched
from probdl.inference.groups.tilted import TiltedDraws
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.latents import Latent, one_after_another


class GroupApproximation(GaussianApproximation):
    """A Gaussian on unconstrained space whose moments come from draws.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        covariance: covariance of z, shape (d, d).
        mean_error: Monte Carlo errors of the means in sds, (d,).
        variance_error: of the log variances, (d,).
    """

    def __init__(
        self,
        latents: dict[str, Latent],
        mean_: Tensor,
        covariance: Tensor,
        mean_error: Tensor,
        variance_error: Tensor,
    ) -> None:
        super().__init__(latents, mean_, covariance)
        self.mean_error, self.variance_error = mean_error, variance_error

    def errors(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the Monte Carlo errors of a site's mean and sd; carried over to first order by transforms."""
        sd, (mean_fixed, sd_fixed) = self.sd(name), super().errors(name)
        place, shape = self.latents[name].place, self.latents[name].shape
        of_mean, of_sd = self.mean_error[place], 0.5 * self.variance_error[place]
        if not self._is_elementwise(name):
            of_mean, of_sd, shape = of_mean.max(), of_sd.max(), torch.Size()
        return (
            ((sd * of_mean.reshape(shape)) ** 2 + mean_fixed**2).sqrt(),
            ((sd * of_sd.reshape(shape)) ** 2 + sd_fixed**2).sqrt(),
        )

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return the Monte Carlo error of the means."""
        return {"mcse": {name: self.errors(name)[0] for name in self.latents}}

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return mean and covariance on unconstrained space, and their errors."""
        tensors, settings = super().to_tensors()
        return tensors | {"mean_error": self.mean_error, "variance_error": self.variance_error}, settings

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> GroupApproximation:
        """Return the Gaussian with these moments."""
        return cls(latents, *(tensors[k] for k in ("mean", "covariance", "mean_error", "variance_error")))


def of_shared(
    latents: dict[str, Latent], shared: tuple[str, ...], mean: Tensor, covariance: Tensor, errors: tuple[Tensor, Tensor]
) -> GroupApproximation:
    """Return the posterior of the shared sites alone."""
    laid = one_after_another({name: latents[name] for name in shared})
    return GroupApproximation(laid, mean, covariance, *errors)


def of_all(
    latents: dict[str, Latent],
    places: tuple[Tensor, list[Tensor]],
    moments: tuple[Tensor, Tensor],
    errors: tuple[Tensor, Tensor],
    draws: list[TiltedDraws],
    matched: list[Matched],
) -> GroupApproximation:
    r"""Return the posterior of shared and own sites, :math:`l_k \mid z \sim N(a_k + B_k z, R_k)` with moments of draws.

    Args:
        latents: of the program with all data.
        places: in its flat vector, of the shared latents, and of the own ones of each group.
        moments: mean and covariance of the shared latents.
        errors: Monte Carlo errors of theirs.
        draws: of each group.
        matched: with their weights.
    """
    shared, owns = places
    order = torch.cat([shared, *owns])
    mean, slope, rest, extra = [moments[0]], [torch.eye(len(shared)).to(moments[1])], [0 * moments[1]], [errors]
    for d, m in zip(draws, matched):
        if not d.own.shape[1]:
            continue
        own, z = m.weights @ d.own, m.weights @ d.z
        apart, apart_z = d.own - own, d.z - z
        weighted = (m.weights[:, None] * apart).T
        of_z = (m.weights[:, None] * apart_z).T @ apart_z
        b = torch.linalg.solve(of_z, (weighted @ apart_z).T).T
        within = weighted @ apart
        mean.append(own)
        slope.append(b)
        rest.append(within - b @ of_z @ b.T)
        sd = within.diagonal().sqrt()
        both = standard_errors(m.weights, torch.cat([apart / sd, (apart / sd) ** 2 - 1], 1), d.normalised)
        extra.append(both.split(len(sd)))
    through = torch.cat(slope)
    covariance = through @ moments[1] @ through.T + torch.block_diag(*rest)
    back = torch.argsort(order)
    mean_error, variance_error = (torch.cat([e[i] for e in extra])[back] for i in (0, 1))
    return GroupApproximation(latents, torch.cat(mean)[back], covariance[back][:, back], mean_error, variance_error)
