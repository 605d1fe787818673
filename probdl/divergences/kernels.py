"""Kernels and their tiled sums: the maximum mean discrepancy and the energy distance, with O(n) memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences.absolute import absolute_sums
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate

Kernel = Callable[[Tensor, Tensor], Tensor]  # points (n, d) and (m, d) to the Gram matrix (n, m)
TILE = 512  # a tile of 2 MB stays in the processor's cache
TILE_GPU = 4096  # where starting a computation costs more than memory
DIRECT = 16  # columns up to which distances are summed coordinate by coordinate
CLEAR = 3.0  # standard errors from 0 below which a degenerate U-statistic is far from normal


def tile_of(x: Tensor) -> int:
    """Return the edge of a square tile for the device."""
    return TILE if x.device.type == "cpu" else TILE_GPU


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return Euclidean distances (n, m), in few dimensions without the matrix product, which is fast but cancels."""
    direct = x.shape[-1] <= DIRECT
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist" if direct else "use_mm_for_euclid_dist")


def _checked(bandwidth: float | Sequence[float]) -> tuple[float, ...]:
    """Return the bandwidths, or raise a ValueError unless all are positive and finite."""
    several = isinstance(bandwidth, Sequence) and not isinstance(bandwidth, str)
    values: tuple[Any, ...] = tuple(bandwidth) if several else (bandwidth,)  # type: ignore
    numbers = all(isinstance(b, Real) and not isinstance(b, bool) for b in values)
    if not values or not numbers or not all(math.isfinite(b) and b > 0 for b in values):
        raise ValueError(f"bandwidth must be positive and finite; got {bandwidth!r}.")
    return tuple(float(b) for b in values)


def _mean(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    return sum(others, first) / (1 + len(others)) if others else first


@dataclass(frozen=True)
class _Radial:
    """A kernel of the distance, at one bandwidth or averaged over several."""

    bandwidth: float | Sequence[float]

    def __post_init__(self) -> None:
        _checked(self.bandwidth)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """All bandwidths."""
        return _checked(self.bandwidth)


class RBF(_Radial):
    r"""The Gaussian kernel :math:`k(x, y) = \exp(-|x - y|^2 / 2\ell^2)`, or the mean of several.

    Args:
        bandwidth: :math:`\ell > 0`, in the unit of the data; several are averaged.

    Raises:
        ValueError: if a bandwidth is not positive and finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> RBF(1.0)(x, x)
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]], dtype=torch.float64)
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Gram matrix (n, m)."""
        squared = squares(x, y)
        return _mean(squared.mul(-0.5 / b**2).exp() for b in self.bandwidths)

    def radial(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return k and its first two derivatives in the squared distance."""
        grams = [(-0.5 / b**2, squared.mul(-0.5 / b**2).exp()) for b in self.bandwidths]
        value, first, second = (_mean(c**power * gram for c, gram in grams) for power in range(3))
        return value, first, second


class InverseMultiquadratic(_Radial):
    r"""The kernel :math:`k(x, y) = (1 + |x - y|^2 / \ell^2)^{-1/2}`, or the mean of several.

    Args:
        bandwidth: :math:`\ell > 0`, in the unit of the data; several are averaged.

    Raises:
        ValueError: if a bandwidth is not positive and finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> InverseMultiquadratic(1.0)(x, x)
        tensor([[1.0000, 0.7071],
                [0.7071, 1.0000]], dtype=torch.float64)
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Gram matrix (n, m)."""
        squared = squares(x, y)
        return _mean(squared.mul(1 / b**2).add(1).rsqrt() for b in self.bandwidths)

    def radial(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return k and its first two derivatives in the squared distance."""
        grams = [(1 / b**2, squared.mul(1 / b**2).add(1).rsqrt()) for b in self.bandwidths]
        first = _mean(-0.5 * c * gram**3 for c, gram in grams)
        second = _mean(0.75 * c * c * gram**5 for c, gram in grams)
        return _mean(gram for _, gram in grams), first, second


def squares(x: Tensor, y: Tensor) -> Tensor:
    """Return squared Euclidean distances (n, m)."""
    return distances(x, y).square()


def negative_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return −|x − y|: under this kernel the squared MMD is the energy distance."""
    return -distances(x, y)


def median_bandwidth(x: Tensor, y: Tensor, seed: int, most: int = 2000, like: str = "RBF(bandwidth)") -> float:
    """Return the median distance between different points of the pooled draws, of at most ``most`` of them."""
    n = len(x)
    if n + len(y) > most:
        with seeded(seed):
            rows = torch.randperm(n + len(y))[:most].to(x.device)
        x, y = x[rows[rows < n]], y[rows[rows >= n] - n]
    pooled = torch.cat([x, y])
    apart = torch.nn.functional.pdist(pooled)
    apart = apart[apart > 0]
    if len(apart) == 0:
        raise NotApplicable(f"all draws are equal, so no bandwidth can be had from them; pass kernel={like}.")
    return apart.median().item()


def centred(*points: Tensor) -> tuple[Tensor, ...]:
    """Subtract one common centre, so that distances keep their digits far from the origin."""
    centre = points[0].detach().mean(0)
    return tuple(x - centre for x in points)


def equal_weights(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weights, or equal ones that sum to 1."""
    return torch.full_like(x[:, 0], 1 / len(x)) if weights is None else weights.to(x)


def _is_line(kernel: Kernel, x: Tensor) -> bool:
    """Whether the sums over all pairs can be had by sorting."""
    return kernel is negative_distance and x.shape[1] == 1


def across(kernel: Kernel, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σⱼ wⱼ k(xᵢ, yⱼ) for each i and Σᵢ vᵢ k(xᵢ, yⱼ) for each j, tile by tile."""
    if _is_line(kernel, x):
        return -absolute_sums(x[:, 0], y[:, 0], w), -absolute_sums(y[:, 0], x[:, 0], v)
    rows, columns = torch.zeros_like(v), torch.zeros_like(w)
    size = tile_of(x)
    for i in range(0, len(x), size):
        for j in range(0, len(y), size):
            tile = kernel(x[i : i + size], y[j : j + size])
            rows[i : i + size] += tile @ w[j : j + size]
            columns[j : j + size] += tile.T @ v[i : i + size]
    return rows, columns


def within(kernel: Kernel, x: Tensor, w: Tensor) -> Tensor:
    """Return Σ_{j≠i} wⱼ k(xᵢ, xⱼ) for each i, tile by tile; each pair is computed once."""
    if _is_line(kernel, x):
        return -absolute_sums(x[:, 0], x[:, 0], w)
    sums = torch.zeros_like(w)
    size = tile_of(x)
    for i in range(0, len(x), size):
        a = slice(i, i + size)
        sums[a] += kernel(x[a], x[a]).fill_diagonal_(0) @ w[a]
        for j in range(i + size, len(x), size):
            b = slice(j, j + size)
            tile = kernel(x[a], x[b])
            sums[a] += tile @ w[b]
            sums[b] += tile.T @ w[a]
    return sums


class Witness(NamedTuple):
    """The two-sample U-statistic and its first-order terms: aᵢ for the draws of x and bⱼ for those of y."""

    value: float
    a: Tensor
    b: Tensor


def u_statistic(kernel: Kernel, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> Witness:
    """Return Σ_{i≠i'} v v k / Σ_{i≠i'} v v + the same of y − 2 Σ v w k(x, y), and its first-order terms."""
    self_x, self_y = within(kernel, x, v), within(kernel, y, w)
    cross_x, cross_y = across(kernel, x, y, v, w)
    value = v @ self_x / (1 - v @ v) + w @ self_y / (1 - w @ w) - v @ cross_x - w @ cross_y
    return Witness(value.item(), self_x / (1 - v) - cross_x, self_y / (1 - w) - cross_y)


def spread(terms: Tensor, weights: Tensor) -> float:
    """Return the variance of the weighted mean of the terms, Σ w² (t − t̄)² with Bessel's correction."""
    squares = weights.square() @ (terms - weights @ terms).square()
    return (squares / (1 - weights @ weights)).item()


def discrepancy(kernel: Kernel, x: Draws, y: Draws, names: tuple[str, str], *notes: str) -> Estimate:
    """Estimate the squared MMD by the unbiased U-statistic, with the standard error of Sutherland et al."""
    for name, sample in zip(names, (x, y)):
        if sample.n < 2 or (sample.weights is not None and sample.weights.max() > 1 - 1e-12):
            raise ValueError(f"{name} must hold at least 2 draws of positive weight; got {sample.n}.")
    v, w = equal_weights(x.x, x.weights), equal_weights(y.x, y.weights)
    a, b = centred(x.x, y.x.to(x.x.device))
    result = u_statistic(kernel, a, b, v, w.to(v.device))
    stderr = 2 * math.sqrt(spread(result.a, v) + spread(result.b, w.to(v.device)))
    if result.value <= CLEAR * stderr:
        notes += (
            f"value/SE is below {CLEAR:g} (SE {stderr:.2g} to first order): near equality the estimator is not normal, "
            "so no interval; a permutation test tells the two apart",
        )
        return Estimate(result.value, None, "u-statistic", n=x.n + y.n, notes=notes)
    return Estimate(result.value, stderr, "u-statistic", n=x.n + y.n, notes=notes)
