r"""A Gaussian prior times one Normal factor on each entry, without the inverse of the prior covariance.

:math:`N(f; m, K) \prod_i e^{h_i f_i - \frac12 S_i f_i^2}` has covariance :math:`\Sigma = K - K W K` and mean
:math:`m + K w`. A smooth kernel makes K singular to rounding, so nothing here divides by it: with the positive entries
of S, :math:`B = I + S^{1/2} K S^{1/2}` has eigenvalues of at least 1, and its Cholesky factor serves for everything.
Negative entries, which likelihoods that are not log-concave need, come in a second stage whose own Cholesky
factorisation fails exactly where the product is no longer a distribution.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probdl.natural import NormalFactor

_NOTHING = 1e-20  # the site precision, in units of 1/max K, that stands for none at all


class ConditionedGaussian:
    r"""The product of N(m, K) and Normal factors of the entries, and its integral.

    Args:
        mean: m, (n,).
        covariance: K, (n, n), symmetric and positive semidefinite; may be singular.
        site: the Normal factors, (n,); precisions may be negative.

    Attributes:
        proper: whether the product is a distribution; where not, nothing else may be asked.
        weights: w, (n,), with posterior mean m + K w.
        mean: of the product, (n,).
        variance: the diagonal of its covariance, Σᵢᵢ, (n,).
        leftover: 1 − SᵢΣᵢᵢ, (n,); a cavity is a distribution where it is positive.
        informed: where SᵢKᵢᵢ > 1, so that the factor says more than the prior; formulas differ, to keep their digits.

    Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 3.6, for positive sites.

    Example:
        >>> import torch
        >>> K = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)  # f₁ = f₂, seen once with variance 1
        >>> seen = NormalFactor(torch.tensor([3.0, 0.0]).double(), torch.tensor([1.0, 0.0]).double())
        >>> posterior = ConditionedGaussian(torch.zeros(2, dtype=torch.float64), K, seen)
        >>> posterior.mean, posterior.variance
        (tensor([1.5000, 1.5000], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """

    def __init__(self, mean: Tensor, covariance: Tensor, site: NormalFactor) -> None:
        self.prior_mean, self.prior_covariance, self.site = mean, covariance, site
        self.prior_variance = covariance.diagonal()
        self._floor = _NOTHING / self.prior_variance.max().clamp(min=torch.finfo(mean.dtype).tiny ** 0.5)
        self._negative = torch.nonzero(site.precision < 0)[:, 0]
        self.informed = site.precision * self.prior_variance > 1
        self.proper = self._condition_on_positive() and self._condition_on_negative()
        if self.proper:
            self._find_mean()

    def _condition_on_positive(self) -> bool:
        """Factorise B; with B = L Lᵀ the loss of variance of entry i is ‖(Lᵀ − L⁻¹)ᵢ‖² / Sᵢ, a column norm."""
        self._root = self.site.precision.clamp(min=self._floor).sqrt()
        b = self.prior_covariance * self._root
        b *= self._root[:, None]
        b.diagonal().add_(1)
        self._cholesky, info = torch.linalg.cholesky_ex(b)
        if int(info):
            return False
        self._inverse = triangular_inverse(self._cholesky)
        diagonal, below = self._cholesky.diagonal(), _off_diagonal_squares(self._inverse, 0)
        # The diagonals are taken apart: both are near 1 where S is small, and their difference must keep its digits.
        off_diagonal = _off_diagonal_squares(self._cholesky, 1) + below
        loss = (off_diagonal + (diagonal - 1 / diagonal) ** 2) / self._root**2
        smallest = 16 * torch.finfo(loss.dtype).eps * self.prior_variance.max()
        self.leftover = below + 1 / diagonal**2  # the diagonal of B⁻¹, which is 1 − SΣ
        self.variance = torch.where(
            self.informed, (1 - self.leftover) / self._root**2, (self.prior_variance - loss).clamp(min=smallest)
        )
        return True

    def _condition_on_negative(self) -> bool:
        """Give back what factors with negative precision −d² add: Σ + ΣE d (I − dΣ₋₋d)⁻¹ d EᵀΣ, in these entries."""
        rows = self._negative
        if len(rows):
            unseen = -self._gain_of_positive(self.prior_covariance[:, rows])
            unseen[rows, torch.arange(len(rows), device=rows.device)] += 1
            d = (-self.site.precision[rows]).sqrt()
            remaining = -d[:, None] * (self.prior_covariance[rows] @ unseen) * d
            remaining.diagonal().add_(1)
            self._negative_root, info = torch.linalg.cholesky_ex(remaining)
            if int(info):
                return False
            self._given_back = self._solve_negative(d[:, None] * unseen.T)
            added = (self._given_back @ self.prior_covariance).square().sum(0)
            self.variance, self.leftover = self.variance + added, self.leftover - self.site.precision * added
        self.leftover = torch.where(self.informed, self.leftover, 1 - self.site.precision * self.variance)
        return True

    def _solve_negative(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self._negative_root, x, upper=False)

    def _find_mean(self) -> None:
        """Find w = (I − WK)(h − Sm): where S is large as S^½ B⁻¹ S^½ (h/S − m), as the difference would cancel."""
        self._surprise = self.site.shift - self.site.precision * self.prior_mean
        whitened = torch.where(self.informed, self._surprise / self._root, 0.0)
        rest = torch.where(self.informed, 0.0, self._surprise)
        weights = self._root * (self._inverse.T @ (self._inverse @ whitened)) + rest
        weights -= self._gain_of_positive(self.prior_covariance @ rest)
        if len(rows := self._negative):
            seen = (-self.site.precision[rows]).sqrt() * (self.prior_covariance[rows] @ weights)
            weights = weights + self._given_back.T @ self._solve_negative(seen[:, None])[:, 0]
        self.weights = weights
        self._change = self.prior_covariance @ weights
        self.mean = self.prior_mean + self._change

    def cavity(self, power: float = 1.0) -> NormalFactor:
        r"""Return the marginals without their own site to this power, :math:`N(\mu - p\Sigma w/b, \Sigma/b)`.

        Here b is 1 − pSΣ. Dividing the marginal by the site says the same and loses the digits of S/(cavity precision).
        """
        left = 1 - power + power * self.leftover
        return NormalFactor.from_moments(self.mean - power * self.variance * self.weights / left, self.variance / left)

    @property
    def marginal(self) -> NormalFactor:
        """The marginals of the entries."""
        return NormalFactor.from_moments(self.mean, self.variance)

    def _gain_of_positive(self, x: Tensor) -> Tensor:
        root = self._root if x.ndim == 1 else self._root[:, None]
        return root * (self._inverse.T @ (self._inverse @ (root * x)))

    def gain_times(self, x: Tensor) -> Tensor:
        """Return W x for x of shape (n,) or (n, k), where Σ = K − K W K; W is (K + S⁻¹)⁻¹ where S has an inverse."""
        gain = self._gain_of_positive(x)
        return gain - self._given_back.T @ (self._given_back @ x) if len(self._negative) else gain

    def gain(self) -> Tensor:
        """Return W, (n, n)."""
        gain = torch.cholesky_inverse(self._cholesky) * self._root
        gain *= self._root[:, None]
        return gain - self._given_back.T @ self._given_back if len(self._negative) else gain

    def covariance(self) -> Tensor:
        """Return Σ, (n, n)."""
        return self.conditional_covariance(self.prior_covariance, self.prior_covariance)

    def conditional_covariance(self, cross: Tensor, prior: Tensor) -> Tensor:
        """Return the covariance (t, t) of other entries, from their prior covariances with f (t, n) and each other."""
        seen = self._inverse @ (self._root[:, None] * cross.T)
        result = prior - seen.T @ seen
        if len(self._negative):
            given_back = self._given_back @ cross.T
            result = result + given_back.T @ given_back
        return result

    def conditional_moments(self, cross: Tensor, prior_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the means of other entries move from their prior means, and their variances, each (t,).

        Args:
            cross: their prior covariances with f, (t, n).
            prior_variance: (t,).
        """
        seen = self._inverse @ (self._root[:, None] * cross.T)
        variance = prior_variance - seen.square().sum(0)
        if len(self._negative):
            variance = variance + (self._given_back @ cross.T).square().sum(0)
        return cross @ self.weights, variance.clamp(min=0)

    def log_integral(self) -> Tensor:
        r"""Return :math:`-\tfrac12\log|I + KS| + h^\top m - \tfrac12 m^\top Sm + \tfrac12(h-Sm)^\top\Sigma(h-Sm)`."""
        return self.log_integral_at_unit_heights() + self.log_heights.sum()

    @property
    def log_heights(self) -> Tensor:
        """The log height h²/2S of the factors of informed entries, 0 elsewhere."""
        return torch.where(self.informed, 0.5 * (self.site.shift / self._root) ** 2, 0.0)

    def log_integral_at_unit_heights(self) -> Tensor:
        """Return the log integral with the factors of informed entries divided by their height, which may be huge."""
        half_log_det = self._cholesky.diagonal().log().sum()
        if len(self._negative):
            half_log_det = half_log_det + self._negative_root.diagonal().log().sum()
        informed = -self._surprise * self.weights / self._root**2
        at_prior_mean = self.prior_mean * (2 * self.site.shift - self.site.precision * self.prior_mean)
        rest = at_prior_mean + self._surprise * self._change
        return 0.5 * torch.where(self.informed, informed, rest).sum() - half_log_det


def _off_diagonal_squares(x: Tensor, dim: int) -> Tensor:
    """The sums of squares along an axis, without the diagonal."""
    squares = x.square()
    squares.diagonal().zero_()
    return squares.sum(dim)


def triangular_inverse(root: Tensor) -> Tensor:
    """Return the inverse of a lower triangular matrix; LAPACK's own routine takes a fifth of the time of a solve.

    Example:
        >>> import torch
        >>> triangular_inverse(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        tensor([[ 0.5000,  0.0000],
                [-0.5000,  1.0000]])
    """
    if root.device.type != "cpu":
        return torch.linalg.solve_triangular(
            root, torch.eye(len(root), dtype=root.dtype, device=root.device), upper=False
        )
    from scipy.linalg import get_lapack_funcs

    lower = np.asfortranarray(root.numpy())  # torch's factors lie by columns already, as LAPACK wants them
    (invert,) = get_lapack_funcs(("trtri",), (lower,))
    inverse, info = invert(lower, lower=1)
    if info:
        raise ValueError(f"The triangular matrix is singular: entry {info - 1} of its diagonal is zero.")
    return torch.from_numpy(inverse)
