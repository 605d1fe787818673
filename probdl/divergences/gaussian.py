"""Closed forms for two Gaussians N(m₁, S₁) and N(m₂, S₂), each given as a mean (d,) and a covariance (d, d)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal


class Gaussian(NamedTuple):
    """A mean (d,) and a covariance (d, d)."""

    mean: Tensor
    covariance: Tensor


def gaussian(p: Distribution) -> Gaussian | None:
    """Return the moments of ``p`` if it is one Gaussian, else None."""
    base = p
    while isinstance(base, Independent):
        base = base.base_dist
    if p.batch_shape.numel() != 1 or not isinstance(base, (Normal, MultivariateNormal, LowRankMultivariateNormal)):
        return None
    if isinstance(base, Normal):
        return Gaussian(base.mean.flatten(), base.variance.flatten().diag())
    if base is not p:  # independent Gaussian vectors: blocks along the diagonal
        blocks = base.covariance_matrix.reshape(-1, *base.covariance_matrix.shape[-2:])
        return Gaussian(base.mean.flatten(), torch.block_diag(*blocks))
    return Gaussian(base.mean.flatten(), base.covariance_matrix.reshape(2 * [p.event_shape.numel()]))


def same_covariance(p: Gaussian, q: Gaussian) -> bool:
    """Whether the covariances are equal up to rounding."""
    return torch.allclose(p.covariance, q.covariance, rtol=1e-13, atol=0)


def mahalanobis(p: Gaussian, q: Gaussian, covariance: Tensor) -> float:
    """Return √((m₁ − m₂)ᵀ S⁻¹ (m₁ − m₂))."""
    scaled = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (p.mean - q.mean)[:, None], upper=False)
    return scaled.norm().item()


def log_det(covariance: Tensor) -> float:
    """Return log |S|."""
    return 2 * torch.linalg.cholesky(covariance).diagonal().log().sum().item()


def kl(p: Gaussian, q: Gaussian) -> float:
    """Return ½[tr S₂⁻¹S₁ − d + (m₁ − m₂)ᵀS₂⁻¹(m₁ − m₂) + log |S₂|/|S₁|]."""
    ratio = torch.linalg.solve_triangular(
        torch.linalg.cholesky(q.covariance), torch.linalg.cholesky(p.covariance), upper=False
    )
    spread = ratio.square().sum().item() - len(p.mean) - 2 * ratio.diagonal().log().sum().item()
    return (spread + mahalanobis(p, q, q.covariance) ** 2) / 2


def hellinger2(p: Gaussian, q: Gaussian) -> float:
    """Return 1 − |S₁|^¼|S₂|^¼|S̄|^−½ exp(−⅛(m₁ − m₂)ᵀS̄⁻¹(m₁ − m₂)), S̄ = (S₁ + S₂)/2."""
    middle = (p.covariance + q.covariance) / 2
    scale = (log_det(p.covariance) + log_det(q.covariance)) / 4 - log_det(middle) / 2
    return -math.expm1(scale - mahalanobis(p, q, middle) ** 2 / 8)


def tv(p: Gaussian, q: Gaussian) -> float:
    """Return 2Φ(δ/2) − 1 for equal covariances, δ the Mahalanobis distance of the means."""
    return math.erf(mahalanobis(p, q, p.covariance) / math.sqrt(8))


def wasserstein2(p: Gaussian, q: Gaussian) -> float:
    """Return √(|m₁ − m₂|² + tr(S₁ + S₂ − 2(S₁^½ S₂ S₁^½)^½)).

    The trace is min |A − BU|² over orthogonal U for A Aᵀ = S₁, B Bᵀ = S₂ (Bures), which does not cancel.
    """
    a, b = torch.linalg.cholesky(p.covariance), torch.linalg.cholesky(q.covariance)
    left, _, right = torch.linalg.svd(b.T @ a)
    return math.hypot((p.mean - q.mean).norm().item(), (a - b @ left @ right).norm().item())


def wasserstein1_line(p: Gaussian, q: Gaussian) -> float:
    """Return E|m₁ − m₂ + (s₁ − s₂)Z| for standard normal Z, the cost of the monotone coupling in one dimension."""
    shift = (p.mean - q.mean).item()
    spread = (p.covariance.sqrt() - q.covariance.sqrt()).item()
    return mean_absolute(shift, abs(spread))


def mean_absolute(mean: float, sd: float) -> float:
    """Return E|N(mean, sd²)|."""
    if sd == 0:
        return abs(mean)
    z = mean / sd
    return sd * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(z / math.sqrt(2))


def energy_line(p: Gaussian, q: Gaussian) -> float:
    """Return 2E|X − Y| − E|X − X′| − E|Y − Y′| in one dimension."""
    v, w = p.covariance.item(), q.covariance.item()
    across = mean_absolute((p.mean - q.mean).item(), math.sqrt(v + w))
    return 2 * across - mean_absolute(0, math.sqrt(2 * v)) - mean_absolute(0, math.sqrt(2 * w))


def mean_rbf(shift: Tensor, covariance: Tensor, bandwidth: float) -> float:
    """Return E exp(−|Z|²/2ℓ²) for Z ~ N(shift, S): ℓ^d |ℓ²I + S|^−½ exp(−½ shiftᵀ(ℓ²I + S)⁻¹shift)."""
    root = torch.linalg.cholesky(covariance + bandwidth**2 * torch.eye(len(shift)).to(covariance))
    scaled = torch.linalg.solve_triangular(root, shift[:, None], upper=False)
    log_scale = len(shift) * math.log(bandwidth) - root.diagonal().log().sum().item()
    return math.exp(log_scale - scaled.square().sum().item() / 2)


def mmd2_rbf(p: Gaussian, q: Gaussian, bandwidth: float) -> float:
    """Return E k(X, X′) + E k(Y, Y′) − 2E k(X, Y) for the RBF kernel."""
    none = torch.zeros_like(p.mean)
    within = mean_rbf(none, 2 * p.covariance, bandwidth) + mean_rbf(none, 2 * q.covariance, bandwidth)
    return within - 2 * mean_rbf(p.mean - q.mean, p.covariance + q.covariance, bandwidth)


def along_one_direction(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Return N(0, 1) and N(δ, 1) for Gaussians of equal covariance: every f-divergence stays the same."""
    first, second = gaussian(p), gaussian(q)
    if first is None or second is None or len(first.mean) == 1 or not same_covariance(first, second):
        return p, q
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return Normal(zero, one), Normal(one * mahalanobis(first, second, first.covariance), one)


def energy_integrand(p: Gaussian, q: Gaussian, s: Tensor) -> Tensor:
    r"""Return the function of s > 0 whose integral is the energy distance in any dimension.

    :math:`E|Z| = \pi^{-1/2}\int_0^\infty (1 - E e^{-s^2|Z|^2})\,s^{-2}\,ds`, and the expectation is closed.
    """
    none = torch.zeros_like(p.mean)
    within = _expm1_square(none, 2 * p.covariance, s) + _expm1_square(none, 2 * q.covariance, s)
    across = _expm1_square(p.mean - q.mean, p.covariance + q.covariance, s)
    return (within - 2 * across) / (s.square() * math.sqrt(math.pi))


def _expm1_square(shift: Tensor, covariance: Tensor, s: Tensor) -> Tensor:
    """Return E exp(−s²|Z|²) − 1 for Z ~ N(shift, covariance), exact also where it is tiny."""
    variance, axes = torch.linalg.eigh(covariance)
    t = s.square()[:, None]
    exponent = -0.5 * torch.log1p(2 * t * variance) - t * (axes.T @ shift).square() / (1 + 2 * t * variance)
    return torch.expm1(exponent.sum(1))


def entropic_cost(p: Gaussian, q: Gaussian, epsilon: float) -> float:
    """Return the entropic cost under |x − y|², without the terms that cancel in the debiased divergence.

    Source: Janati, Muzellec, Peyré and Cuturi (2020), Entropic optimal transport between unbalanced Gaussian measures
    has a closed form, NeurIPS; their σ² is ε/2.
    """
    half = epsilon / 2
    root = torch.linalg.cholesky(p.covariance)
    singular = torch.linalg.eigvalsh(root.T @ q.covariance @ root).clamp_min(0)
    d = (4 * singular + half**2).sqrt()
    moments = (p.mean - q.mean).square().sum() + p.covariance.trace() + q.covariance.trace()
    return (moments - d.sum() + half * (d + half).log().sum()).item()


def sinkhorn(p: Gaussian, q: Gaussian, epsilon: float) -> float:
    """Return the debiased Sinkhorn divergence under |x − y|²."""
    own = (entropic_cost(p, p, epsilon) + entropic_cost(q, q, epsilon)) / 2
    return entropic_cost(p, q, epsilon) - own


def renyi(p: Gaussian, q: Gaussian, alpha: float) -> float:
    """Return the Rényi divergence; infinite where αS₂ + (1 − α)S₁ is not positive definite.

    Source: Gil, Alajaji and Linder (2013), Rényi divergence measures for commonly used univariate continuous
    distributions, Information Sciences 249.
    """
    mixed = alpha * q.covariance + (1 - alpha) * p.covariance
    if torch.linalg.eigvalsh(mixed)[0] <= 0:
        return math.inf
    logs = log_det(mixed) - (1 - alpha) * log_det(p.covariance) - alpha * log_det(q.covariance)
    return alpha * mahalanobis(p, q, mixed) ** 2 / 2 - logs / (2 * (alpha - 1))
