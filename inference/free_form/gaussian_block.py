"""Jointly Gaussian latents: units of equal size, independent of each other given all other factors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.free_form.blocks import Block


class GaussianBlock(Block):
    """Gaussian factors of n units with k entries each; moments are E z (n, k) and E zzᵀ (n, k, k).

    Args:
        places: for each latent site, the flat position u·k + i of each of its entries, in the site's shape.
        units: n.
        size: k.
        mean: the start, (n, k).
        sd: of the start.
    """

    def __init__(self, places: dict[str, Tensor], units: int, size: int, mean: Tensor, sd: float = 1.0) -> None:
        self.names, self.places, self.units, self.size = tuple(places), places, units, size
        eye = torch.eye(size, dtype=mean.dtype, device=mean.device).expand(units, size, size)
        self.restore((mean / sd**2, eye / sd**2))

    def state(self) -> tuple[Tensor, ...]:
        """Return shift (n, k) and precision (n, k, k)."""
        return self.shift, self.precision

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take shift and precision."""
        self.shift, self.precision = state
        shared = self.units > 1 and bool((self.precision == self.precision[:1]).all())
        precision = self.precision[:1] if shared else self.precision
        self.root, info = torch.linalg.cholesky_ex(precision)
        if bool((info != 0).any()):
            raise ConvergenceError(
                f"Coordinate ascent: the optimal factor of {', '.join(map(repr, self.names))} is improper, its "
                "precision is not positive. Give the latents proper priors, or use method='meanfield'."
            )
        self.covariance = torch.cholesky_inverse(self.root)
        if shared:
            self.mean = self.shift @ self.covariance[0]
        else:
            self.mean = (self.covariance @ self.shift[..., None])[..., 0]
        self.moments = (self.mean, self.covariance + self.mean[..., None] * self.mean[..., None, :])

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the optimum: shift from the gradient by E z, precision from that by E zzᵀ."""
        shift, second = gradient
        self.restore((shift, -(second + second.mT)))

    def entropy(self) -> Tensor:
        """Return the entropy, summed over units."""
        half = self.root.diagonal(dim1=-2, dim2=-1).log().sum() * (self.units / len(self.root))
        return 0.5 * self.units * self.size * (1 + math.log(2 * math.pi)) - half

    def covariances(self) -> Tensor:
        """Return the covariance of each unit, (n, k, k)."""
        return self.covariance.expand(self.units, self.size, self.size)

    def variances(self) -> Tensor:
        """Return the variance of each entry, flat in u·k + i."""
        return self.covariances().diagonal(dim1=-2, dim2=-1).reshape(-1)

    def value(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the sites' values from flat vectors (..., n·k)."""
        return {name: flat[..., place.reshape(-1)].reshape((*flat.shape[:-1], *place.shape)) for name, place in self.places.items()}
