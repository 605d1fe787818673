"""A Gaussian posterior with a diagonal covariance that is never written out: for latents of every row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.latents import Latent

_DENSE = 5000  # latents up to which a covariance matrix is built when somebody asks for it


class DiagonalGaussian(GaussianApproximation):
    """Independent normals on unconstrained space, pushed forward to the sites' own spaces.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        sd_: standard deviation of z, shape (d,).
    """

    def __init__(self, latents: dict[str, Latent], mean_: Tensor, sd_: Tensor) -> None:
        self.latents, self.free_mean, self.free_sd = latents, mean_, sd_

    @property
    def free_covariance(self) -> Tensor:  # type: ignore[override]
        """The covariance of z, (d, d).

        Raises:
            ValueError: if it would have more than 5000 rows.
        """
        if len(self.free_sd) > _DENSE:
            raise ValueError(
                f"The covariance would have {len(self.free_sd)} rows; all off the diagonal are zero: use sd."
            )
        return self.free_sd.square().diag()

    @property
    def root(self) -> Tensor:  # type: ignore[override]
        """The diagonal Cholesky factor of the covariance."""
        return self.free_covariance.sqrt()

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws (4000, or what fits in 10⁷ numbers, where None) with a local generator."""
        n = n or min(4000, max(100, 10_000_000 // max(1, len(self.free_mean))))
        z = self.free_mean + self.free_sd * self._noise(n, seed)
        return {name: latent.constrain(z) for name, latent in self.latents.items()}

    def draws_and_log_prob(self, n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return n draws with their log-densities, (n,)."""
        noise = self._noise(n, seed)
        z = self.free_mean + self.free_sd * noise
        values = {name: latent.constrain(z) for name, latent in self.latents.items()}
        return values, self._log_standard(noise) - self._log_jacobian(z, values)

    def _log_jacobian(self, z: Tensor, values: dict[str, Tensor]) -> Tensor:
        total = torch.zeros_like(z.sum(-1))
        for name, latent in self.latents.items():
            u = z[..., latent.place].reshape(*z.shape[:-1], *latent.free_shape)
            jacobian = latent.transform.log_abs_det_jacobian(u, values[name])
            total = total + jacobian.reshape(*z.shape[:-1], -1).sum(-1)
        return total

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log-density at sites' values, each (..., *shape), in their own spaces."""
        free, given = [], {}
        for name, latent in self.latents.items():
            given[name] = values[name].to(self.free_mean)
            batch = given[name].shape[: given[name].ndim - len(latent.shape)]
            free.append(latent.transform.inv(given[name]).reshape(*batch, -1))
        z = torch.cat(free, -1)
        return self._log_standard((z - self.free_mean) / self.free_sd) - self._log_jacobian(z, given)

    def _log_standard(self, white: Tensor) -> Tensor:
        normal = torch.distributions.Normal(0.0, 1.0, validate_args=False)
        return normal.log_prob(white).sum(-1) - self.free_sd.log().sum()

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return mean and standard deviation on unconstrained space."""
        return {"mean": self.free_mean, "sd": self.free_sd}, {}

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> DiagonalGaussian:
        """Return the Gaussian with this mean and standard deviation."""
        return cls(latents, tensors["mean"], tensors["sd"])
