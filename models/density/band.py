"""A confidence band for the density that a kernel estimate estimates without bias, the smoothed one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.models.density.distribution import KernelDensity

VALUES = 2**20  # kernel values that are held at once
FEWEST = 30  # rows near a point, in effect, below which its estimate is far from normal
THIN = 5  # the same, below which the standard error is at least its limit where p̂ goes to 0


@dataclass(frozen=True, eq=False)
class Band:
    """A simultaneous confidence band for the smoothed density p_h = E p̂.

    Attributes:
        density: p̂ at the points, (m,).
        lower, upper: the band, (m,); at least 0.
        stderr: the standard error of p̂ at each point, (m,).
        level: the probability that the band covers p_h at all points.
        critical: how many standard errors wide it is to each side.
        target: what it covers.
        notes: what a careful reader should know.
    """

    density: Tensor
    lower: Tensor
    upper: Tensor
    stderr: Tensor
    level: float
    critical: float
    target: str
    notes: tuple[str, ...]


def simultaneous_band(p: KernelDensity, x: Tensor, level: float, draws: int, seed: int) -> Band:
    r"""Return the band :math:`\big(\sqrt{\hat p} ± c\, \hat σ / (2 \sqrt{\hat p})\big)^2`, c of a studentised supremum.

    The root makes the noise nearly normal where few rows count.

    .. math:: c: \; P^*\Big(\max_j \Big|\sum_i ξ_i w_i \frac{K_{ij} - \hat p(x_j)}{\hat σ(x_j)}\Big| \le c\Big)
        = \text{level}, \qquad \hat σ^2(x_j) = \sum_i w_i^2 (K_{ij} - \hat p(x_j))^2,

    with standard normal multipliers ξ.

    Args:
        p: the estimate.
        x: points, (m, d) or (m,).
        level: in (0, 1).
        draws: of the multipliers.
        seed: of the draws.

    Reference:
        Chernozhukov, Chetverikov and Kato (2014), Anti-concentration and honest, adaptive confidence bands, Annals of
        Statistics 42.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level}.")
    density = p.log_prob(x).exp()
    variance, moved = _moments(p, x.reshape(len(x), -1), density, draws, seed)
    stderr = variance.sqrt()
    sup = (moved / stderr.clamp_min(torch.finfo(stderr.dtype).tiny)).abs().amax(1)
    critical = float(sup.quantile(level))
    notes: tuple[str, ...] = ("it covers the smoothed density p_h = E p̂, not p: the bias of the bandwidth is left out",)
    thin = int((density.square() <= FEWEST * variance).sum())
    if thin:
        notes += (
            f"at {thin} of {len(x)} points fewer than {FEWEST} rows count in effect, and the band may cover less",
        )
    root, half = density.sqrt(), critical * _stderr_of_root(p, density, stderr)
    lower, upper = (root - half).clamp_min(0).square(), (root + half).square()
    return Band(density, lower, upper, stderr, level, critical, "p_h", notes)


def _stderr_of_root(p: KernelDensity, density: Tensor, stderr: Tensor) -> Tensor:
    """Return the standard error of √p̂; where the density is nearly 0, by the limit R(K) / (n |H|^½) of σ̂²/p̂."""
    limit = (p.kernel.roughness * p.weights.square().sum() / p.root.diagonal().prod()).sqrt()
    own = stderr / density.sqrt().clamp_min(torch.finfo(density.dtype).tiny)
    return torch.where(density.square() <= THIN * stderr.square(), torch.maximum(own, limit), own) / 2


def _moments(p: KernelDensity, x: Tensor, density: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return σ̂² at each point, (m,), and the bootstrap's Σ ξ_i w_i (K_ij − p̂_j), (draws, m)."""
    noise = torch.Generator(p.points.device).manual_seed(seed)
    variance, moved = torch.zeros_like(density), density.new_zeros(draws, len(density))
    step = max(1, VALUES // max(len(x), draws))
    for start in range(0, len(p.points), step):
        part = slice(start, start + step)
        away = p.weights[part] * (p.kernel_values(x, part) - density[:, None])
        xi = torch.randn(draws, away.shape[1], generator=noise, dtype=away.dtype, device=away.device)
        variance += away.square().sum(1)
        moved += xi @ away.T
    return variance, moved
