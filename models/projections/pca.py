"""Principal components, and the normal density around them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count
from probdl.models.classical import ClassicalModel, flat
from probdl.models.generative import CHUNK, Encoding, GenerativeModel
from probdl.models.projections.spectrum import Spectrum, normal_log_prob, share_errors, value_errors
from probdl.models.row_model import home

ZERO = 1e-12  # of the largest eigenvalue: what is smaller is rounding


class PCA(ClassicalModel, Encoding, GenerativeModel):
    r"""Principal components of rows, and probabilistic PCA around them.

    .. math:: z = W^T (u - \bar u), \qquad u \sim N\bigl(\bar u,\ W (Λ - σ^2 I) W^T + σ^2 I\bigr), \qquad
              σ^2 = \frac{1}{d - k} \sum_{j > k} λ_j,

    with W the first k eigenvectors and λ all eigenvalues of the covariance (divisor n − 1) of the standardised rows u.
    Each component has its entry of largest size positive. By default tables get the components of their correlation
    matrix, and images those of the covariance of their pixels.

    Args:
        latent_dim: k, at most the number of entries of a row and less than the number of rows.
        mle: whether ``fit`` chooses ``latent_dim`` instead, by Minka's approximation to the evidence.
        whiten: whether codes are scaled to variance 1.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none".
        dtype: of the components.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61; Minka (2000), Automatic
        choice of dimensionality for PCA.

    Example:
        >>> import torch
        >>> noise = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 3, generator=noise, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0])
        >>> model = PCA(2, standardise="none").fit(x)
        >>> model.explained_variance.value.round(decimals=1)
        tensor([8.8000, 3.8000], dtype=torch.float64)
        >>> discarded = torch.linalg.eigvalsh(torch.cov(x.T))[0]
        >>> bool(torch.isclose((x - model.reconstruct(x)).square().sum() / 499, discarded))
        True
    """

    SETTINGS = ("latent_dim", "mle", "whiten", "standardise")
    mean: Tensor
    axes: Tensor
    spectrum: Tensor
    errors: Tensor
    rows: Tensor

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        mle: bool = False,
        whiten: bool = False,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(dtype, standardise=standardise)
        self.latent_dim, self.mle, self.whiten = count(latent_dim, "latent_dim"), bool(mle), bool(whiten)

    @property
    def components(self) -> Tensor:
        """The unit vectors W, (latent_dim, ...), of the shape of a row each, in standardised units."""
        return self.axes.reshape(-1, *self._rows("components")[0].shape)

    @property
    def explained_variance(self) -> Estimate:
        """The eigenvalues of the components, (latent_dim,), in standardised units, with their standard errors.

        These are asymptotic, for independent normal rows: λ√(2/n) of a covariance, and less of a correlation matrix,
        whose columns are scaled by their own standard deviations.
        """
        self._rows("explained_variance")
        return Estimate(self._values, self.errors, f"asymptotic, {self._matrix}, normal rows", n=int(self.rows))

    @property
    def explained_variance_ratio(self) -> Estimate:
        """The same as shares of the total variance; of a correlation matrix that is fixed, the number of columns."""
        self._rows("explained_variance_ratio")
        total, n = self.spectrum.sum(), int(self.rows)
        errors = self.errors / total if self._correlation else share_errors(self.spectrum, self.latent_dim, n)
        return Estimate(self._values / total, errors, f"asymptotic, {self._matrix}, normal rows", n=n)

    @property
    def noise_variance(self) -> float:
        """σ², the mean of the discarded eigenvalues, in standardised units; 0 where none is discarded."""
        d = math.prod(self._rows("noise_variance")[0].shape)
        return float(self.spectrum[self.latent_dim :].sum()) / max(1, d - self.latent_dim)

    def log_likelihood(self, x: Any) -> Estimate:
        """Return the log-density of each row under probabilistic PCA, (n,), in nats and in the data's units; exact.

        Raises:
            ValueError, TypeError: before ``fit``, for rows unlike those of ``fit``, or where the covariance is
                singular, so that there is no density.
        """
        form, units = self._rows("log_likelihood")
        d, noise = math.prod(form.shape), self.spectrum.new_tensor(self.noise_variance)
        self._check_density(d, noise)
        parts = [self._scores(u) for u in self._inward(x).split(CHUNK)]
        value = torch.cat([normal_log_prob(z, rest, self._values, noise, d) for z, rest in parts])
        notes = ("columns of categories count as numbers 0 and 1",) if form.blocks else ()
        return Estimate((value + units.log_jacobian).to(home(x)), 0.0, "closed form", notes=notes)

    def anomaly_score(self, x: Any) -> Tensor:
        r"""Return how far each row is from the plane of the components, :math:`|u - \hat u|^2`, (n,).

        As that of autoencoders it is in standardised units; and it is blind to distances within the plane, which
        ``log_likelihood`` sees too.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        self._rows("anomaly_score")
        return torch.cat([self._scores(u)[1] for u in self._inward(x).split(CHUNK)]).to(home(x))

    def _estimate(self, u: Tensor, seed: int) -> None:
        rows = flat(u)
        n, d = rows.shape
        if self.mle and n < d:
            raise ValueError(f"mle needs at least as many rows as a row has entries, {d}; got {n}. Pass mle=False.")
        if not self.mle and self.latent_dim > min(n - 1, d):
            raise ValueError(
                f"latent_dim must be at most {min(n - 1, d)}, since {n} rows of {d} entries vary in so many directions "
                f"at most; got {self.latent_dim}."
            )
        found = Spectrum.of(rows, "mle" if self.mle else self.latent_dim)
        self.latent_dim = len(found.axes)
        values = found.values.to(rows)
        if self.whiten and values[self.latent_dim - 1] <= ZERO * values[0]:
            raise ValueError("whiten must be False: a component has variance 0. Or pass a smaller latent_dim.")
        errors = value_errors(rows, found, self._correlation)
        self._keep(mean=found.mean, axes=found.axes, spectrum=values, errors=errors, rows=torch.tensor(n))
        share = float(values[: self.latent_dim].sum() / values.sum())
        self.message = f"principal components of the {self._matrix}: {self.latent_dim} hold {share:.1%} of the variance"

    @property
    def _correlation(self) -> bool:
        form, units = self._rows("this")
        return units.scale.ndim > 0 and not form.blocks

    @property
    def _matrix(self) -> str:
        return "correlation matrix" if self._correlation else "covariance"

    @property
    def _values(self) -> Tensor:
        return self.spectrum[: self.latent_dim]

    def _check_density(self, d: int, noise: Tensor) -> None:
        least = self._values[-1] if self.latent_dim == d else torch.minimum(noise, self._values[-1])
        if least <= ZERO * self._values[0]:
            raise ValueError(
                "log_likelihood has no value: the rows of fit lie in a plane of fewer dimensions than they have "
                "entries, and nothing is left for the noise around the components. Pass a smaller latent_dim, or fit "
                "to more rows, without columns that repeat others."
            )

    def _scores(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of rows, not whitened, and their squared distances from the plane."""
        centred = flat(u) - self.mean
        z = centred @ self.axes.T
        return z, (centred - z @ self.axes).square().sum(1)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        z = self._scores(u)[0]
        return z / self._values.sqrt() if self.whiten else z

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        scores = z * self._values.sqrt() if self.whiten else z
        return (scores @ self.axes + self.mean).reshape(len(z), *self._form.shape)

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        sigma2 = self.noise_variance
        z = self._prior(n, noise, self.latent_dim) * (self._values - sigma2).clamp(min=0).sqrt()
        u = self.mean + z @ self.axes
        if not mean:
            u = u + math.sqrt(sigma2) * self._prior(n, noise, u.shape[1])
        return u.reshape(n, *self._form.shape)
