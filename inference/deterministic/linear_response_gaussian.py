"""A Gaussian posterior that also knows the standard deviations by linear response."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.latents import Latent


class LinearResponseGaussian(GaussianApproximation):
    """A Gaussian on unconstrained space, with the linear-response standard deviations beside its own.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        covariance: covariance of z under the approximation, (d, d).
        response: its linear-response covariance, (d, d).
        response_sds: linear-response standard deviation of each site in its own space, in its shape.
    """

    def __init__(
        self,
        latents: dict[str, Latent],
        mean_: Tensor,
        covariance: Tensor,
        response: Tensor,
        response_sds: dict[str, Tensor],
    ) -> None:
        super().__init__(latents, mean_, covariance)
        self.response, self.response_sds = response, response_sds

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return sd_lr, the linear-response standard deviation of each entry."""
        return {"sd_lr": self.response_sds}

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return mean, both covariances on unconstrained space, and the linear-response sds."""
        tensors, settings = super().to_tensors()
        sds = {f"sd_lr.{name}": sd for name, sd in self.response_sds.items()}
        return tensors | {"response": self.response} | sds, settings

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> LinearResponseGaussian:
        """Return what ``to_tensors`` took apart."""
        sds = {name: tensors[f"sd_lr.{name}"] for name in latents}
        return cls(latents, tensors["mean"], tensors["covariance"], tensors["response"], sds)
