"""A Gaussian posterior that also knows the standard deviations by linear response."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from probdl.inference.gaussian import GaussianApproximation
from probdl.inference.latents import Latent


class LinearResponseGaussian(GaussianApproximation):
    """A Gaussian on unconstrained space, with the linear-response covariance beside its own.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        covariance: covariance of z under the approximation, (d, d).
        response: its linear-response covariance, (d, d).
    """

    def __init__(self, latents: dict[str, Latent], mean_: Tensor, covariance: Tensor, response: Tensor) -> None:
        super().__init__(latents, mean_, covariance)
        self.response = GaussianApproximation(latents, mean_, response)

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return sd_lr, the linear-response standard deviation of each entry.

        On sites that are not real it is that of the transformed normal with the linear-response variance.
        """
        return {"sd_lr": {name: self.response.sd(name) for name in self.latents}}

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return mean and both covariances on unconstrained space."""
        tensors = {
            "mean": self.free_mean, "covariance": self.free_covariance, "response": self.response.free_covariance
        }  # fmt: skip
        return tensors, {}

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> LinearResponseGaussian:
        """Return the Gaussian with this mean and these covariances."""
        return cls(latents, tensors["mean"], tensors["covariance"], tensors["response"])
