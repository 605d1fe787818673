r"""From standardised columns back to the columns' own units, exactly.

Inference runs on :math:`(x_j - m_j)/s_j`, where columns of any unit and any distance from zero do equally well. With
coefficients b there, those of the columns are :math:`β_j = b_j / s_j`, and the intercept is
:math:`α - \sum_j m_j β_j`: a linear map, under which a Gaussian stays Gaussian and the evidence stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from probdl.inference.deterministic.linear_response_gaussian import LinearResponseGaussian
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.posteriors.grid_mixture import GridMixture
from probdl.inference.posteriors.sampled import SampledApproximation
from probdl.inference.programs.latents import Latent, one_after_another
from probdl.smoothing import kernel_density

COEFFICIENTS, LEVEL = "coefficients", "Intercept"
_DRAWS = 20_000  # for quantiles of the intercept where they have no closed form


@dataclass(frozen=True)
class Units:
    """Means and scales of the columns.

    Attributes:
        mean: m, (p,): zeros where there is no intercept to take them up.
        scale: s, (p,).
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: np.ndarray, centred: bool) -> Units:
        """Return the units of the columns of a matrix (n, p)."""
        scale = spreads(matrix, centred)
        mean = matrix.mean(0) if centred else np.zeros(matrix.shape[1])
        return cls(torch.as_tensor(mean), torch.as_tensor(scale))

    def standardise(self, X: Tensor) -> Tensor:
        """Return the standardised columns."""
        return (X - self.mean) / self.scale

    def to_own(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sites' values in the columns' own units, from those of the standardised model."""
        own = dict(values)
        if COEFFICIENTS in values:
            own[COEFFICIENTS] = values[COEFFICIENTS] / self.scale
            if LEVEL in values:
                own[LEVEL] = values[LEVEL] - own[COEFFICIENTS] @ self.mean
        return own

    def to_standard(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sites' values in the standardised model."""
        standard = dict(values)
        if COEFFICIENTS in values:
            standard[COEFFICIENTS] = values[COEFFICIENTS] * self.scale
            if LEVEL in values:
                standard[LEVEL] = values[LEVEL] + values[COEFFICIENTS] @ self.mean
        return standard

    def matrix(self, old: dict[str, Latent], new: dict[str, Latent]) -> Tensor:
        """Return the map of flat vectors, (d, d), from the places of the old latents to those of the new."""
        dim = sum(x.place.stop - x.place.start for x in old.values())
        eye = torch.eye(dim, dtype=self.scale.dtype)
        values = {name: eye[:, x.place].reshape(dim, *x.free_shape) for name, x in old.items()}
        own = self.to_own({k: v for k, v in values.items() if k in (COEFFICIENTS, LEVEL)})
        out = torch.zeros_like(eye)
        for name, latent in new.items():
            out[latent.place] = own.get(name, values[name]).reshape(dim, -1).T
        return out


def spreads(matrix: np.ndarray, centred: bool) -> np.ndarray:
    """Return standard deviations of the columns (root mean squares without an intercept); 1 for constant columns."""
    centre = matrix.mean(0) if centred else np.zeros(matrix.shape[1])
    largest = np.abs(matrix).max(0, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)  # squares of very large numbers overflow
    spread = safe * np.sqrt((((matrix - centre) / safe) ** 2).mean(0)) if len(matrix) else safe
    return np.where(is_constant(matrix) & centred | (largest == 0), 1.0, spread)


def is_constant(matrix: np.ndarray) -> np.ndarray:
    """Return for each column whether all its values are the same, up to rounding; (p,)."""
    return np.ptp(matrix, axis=0) <= 1e-12 * np.abs(matrix).max(0, initial=0.0)


def in_own_units(approximation: Approximation, units: Units, names: list[str]) -> Approximation:
    """Return the posterior of the sites in the columns' own units.

    Args:
        approximation: of the standardised model.
        units: of the columns.
        names: of the sites, in the order of tables.
    """
    old = approximation.latents
    new = one_after_another({name: old[name] for name in names if name in old})
    kind = type(approximation)
    if isinstance(approximation, SampledApproximation):
        chains = units.to_own(approximation.chains)
        return SampledApproximation(new, {name: chains[name] for name in new})
    if kind is GaussianApproximation and isinstance(approximation, GaussianApproximation):
        a = units.matrix(old, new)
        return GaussianApproximation(new, a @ approximation.free_mean, _turned(approximation.free_covariance, a))
    if isinstance(approximation, LinearResponseGaussian):
        return _linear_response(approximation, units.matrix(old, new), new)
    if isinstance(approximation, GridMixture):
        return _on_grid(approximation, units, new)
    return InOwnUnits(approximation, units, new)


def _turned(covariance: Tensor, a: Tensor) -> Tensor:
    turned = a @ covariance @ a.T
    return (turned + turned.mT) / 2


def _linear_response(x: LinearResponseGaussian, a: Tensor, new: dict[str, Latent]) -> LinearResponseGaussian:
    response = _turned(x.response, a)
    sds = {
        name: response.diagonal()[latent.place].sqrt().reshape(latent.shape)
        if latent.is_real()
        else x.response_sds[name]
        for name, latent in new.items()
    }
    return LinearResponseGaussian(new, a @ x.free_mean, _turned(x.free_covariance, a), response, sds)


def _on_grid(x: GridMixture, units: Units, new: dict[str, Latent]) -> GridMixture:
    """The Gaussians at the nodes are mapped, one by one; the latents outside stay as they are."""
    inner = one_after_another({name: latent for name, latent in new.items() if name in x.inner})
    a = units.matrix(x.inner, inner)
    return GridMixture(new, inner, x.outer, x.cells, x.means @ a.T, _turned(x.covariances, a))


class InOwnUnits(Approximation):
    """Any posterior of the standardised model, with its answers brought to the columns' own units.

    Args:
        inner: the posterior of the standardised model.
        units: of the columns.
        latents: the sites, in the order of tables.
    """

    def __init__(self, inner: Approximation, units: Units, latents: dict[str, Latent]) -> None:
        self.inner, self.units, self.latents, self.notes = inner, units, latents, inner.notes

    @cached_property
    def _levels(self) -> Tensor:
        return self.draws(_DRAWS, 1)[LEVEL]

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site; exact, since the map is linear."""
        if name != LEVEL:
            return self._scaled(name, self.inner.mean(name))
        means = {k: self.inner.mean(k) for k in (LEVEL, COEFFICIENTS) if k in self.latents}
        return self.units.to_own(means)[LEVEL]

    def sd(self, name: str) -> Tensor:
        """Return the posterior standard deviation of a site, that of the intercept from covariances."""
        if name != LEVEL or COEFFICIENTS not in self.latents:
            return self._scaled(name, self.inner.sd(name))
        weights = torch.cat([torch.ones(1).to(self.units.mean), -self.units.mean / self.units.scale])
        return (weights @ self.inner.cov((LEVEL, COEFFICIENTS)) @ weights).sqrt()

    def quantile(self, name: str, q: float) -> Tensor:
        """Return a quantile of a site, that of the intercept from 20,000 draws."""
        if name != LEVEL:
            return self._scaled(name, self.inner.quantile(name, q))
        return self._levels.quantile(q)

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws of all sites."""
        own = self.units.to_own(self.inner.draws(n, seed))
        return {name: own[name] for name in self.latents}

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and densities of one entry of a site."""
        if name == LEVEL:
            return kernel_density(self._levels)
        x, density = self.inner.density(name, entry)
        scale = self.units.scale[entry].to(x) if name == COEFFICIENTS else 1.0
        return x / scale, density * scale

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log-density at sites' values."""
        jacobian = self.units.scale.log().sum() if COEFFICIENTS in self.latents else 0.0
        return self.inner.log_prob(self.units.to_standard(values)) + jacobian

    def columns(self, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return further columns of the summary; the intercept has them only where the columns have mean zero."""
        columns = self.inner.columns(seed)
        return {label: {k: self._column(k, x[k], label) for k in self.latents} for label, x in columns.items()}

    def _column(self, name: str, x: Tensor, label: str) -> Tensor:
        if name == LEVEL and bool((self.units.mean != 0).any()):
            return torch.full_like(x, torch.nan)
        return self._scaled(name, x) if label.startswith("sd") else x

    def _scaled(self, name: str, x: Tensor) -> Tensor:
        return x / self.units.scale.to(x) if name == COEFFICIENTS else x
