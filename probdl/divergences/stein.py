r"""The kernel Stein discrepancy: draws against a log-density whose normaliser need not be known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import Draws, LogDensity, hold
from probdl.divergences.dispatch import NotApplicable, positive_integer, single
from probdl.divergences.distributions import dimension, double, draw, is_discrete
from probdl.divergences.distributions import log_density as density_at
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import (
    CLEAR,
    RBF,
    InverseMultiquadratic,
    equal_weights,
    median_bandwidth,
    spread,
    tile_of,
)

Radial = RBF | InverseMultiquadratic


def ksd2(draws: Any, log_density: Any, kernel: Radial | None = None, *, seed: int = 0, n: int = 5000) -> Estimate:
    r"""Return the squared kernel Stein discrepancy of draws from a density known up to a constant.

    .. math:: KSD^2 = E\,u(X, X'), \quad
              u(x, y) = s(x)^\top s(y)\,k + s(x)^\top \nabla_y k + s(y)^\top \nabla_x k + \operatorname{tr} \nabla_x
              \nabla_y k, \quad s = \nabla \log p

    Args:
        draws: draws of shape (n, d) or (n,), weighted as ``probdl.Draws``; or a distribution to draw from.
        log_density: the target, as a ``probdl.LogDensity``, whose normaliser plays no part, or a continuous
            ``torch.distributions.Distribution``. Its gradient is had by autograd.
        kernel: ``RBF`` or ``InverseMultiquadratic``; None takes the inverse multiquadratic whose bandwidth is the
            median distance of the draws. Under it, unlike under RBF, it tells convergence in any dimension.
        seed: seeds whatever is drawn.
        n: how many draws are taken of a distribution.

    Returns:
        An ``Estimate``: the unbiased U-statistic, which may be negative; no interval where it is below 3 standard
        errors. Memory is O(n·d).

    Raises:
        ValueError: for fewer than 2 draws, sizes that differ, a discrete target, or a gradient that is not finite.
        TypeError: for a kernel whose derivatives are not known.

    Source:
        Liu, Lee and Jordan (2016), A kernelized Stein discrepancy, ICML; the kernel is that of Gorham and Mackey
        (2017), Measuring sample quality with kernels, ICML.

    Example:
        >>> import torch, probdl
        >>> x = torch.linspace(-2, 2, 401, dtype=torch.float64)
        >>> target = probdl.LogDensity(lambda x: -((x - 3) ** 2).sum(1) / 2, dim=1)
        >>> ksd2(x, target, RBF(1.0)).value > 1
        True
    """
    positive_integer(n, "n", least=2)
    target = _target(log_density)
    x, notes = _drawn(draws, n, seed)
    if target.dim != x.dim:
        raise ValueError(f"draws have {x.dim} columns and log_density takes {target.dim}; they must be as many.")
    if x.n < 2 or (x.weights is not None and x.weights.max() > 1 - 1e-12):
        raise ValueError(f"draws must hold at least 2 draws of positive weight; got {x.n}.")
    if kernel is None:
        bandwidth = median_bandwidth(x.x, x.x[:0], seed, like="InverseMultiquadratic(bandwidth)")
        kernel = InverseMultiquadratic(bandwidth)
        notes += (f"inverse multiquadratic of bandwidth {bandwidth:.6g}, the median distance of the draws",)
    if not isinstance(kernel, (RBF, InverseMultiquadratic)):
        raise TypeError(f"kernel must be an RBF or InverseMultiquadratic, whose derivatives are known; got {kernel!r}.")
    return _estimate(x, score(target, x.x), kernel, notes)


def _target(log_density: Any) -> LogDensity:
    """Return the target as a function of points (n, d)."""
    if isinstance(log_density, Distribution):
        single(log_density, "log_density")
        if is_discrete(log_density):
            raise NotApplicable("log_density must be continuous: a Stein discrepancy takes its gradient.")
        return LogDensity(_density_of(double(log_density)), dimension(log_density))
    if not isinstance(log_density, LogDensity):
        raise TypeError(
            "log_density must be a probdl.LogDensity(f, dim) or a torch distribution; "
            f"got {type(log_density).__name__}."
        )
    return log_density


def _density_of(p: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the log-density at points (n, d), NaN off the support so that its gradient is found out."""

    def f(x: Tensor) -> Tensor:
        value = p.log_prob(x.reshape(-1, *p.batch_shape, *p.event_shape)).reshape(-1)
        inside = density_at(p, x.detach()) > -torch.inf
        return value * torch.where(inside, 1.0, torch.nan)

    return f


def _drawn(draws: Any, n: int, seed: int) -> tuple[Draws, tuple[str, ...]]:
    held = hold(draws, "draws")
    if isinstance(held, LogDensity):
        raise NotApplicable("draws is a LogDensity, which gives no draws: pass draws or a distribution.")
    if isinstance(held, Draws):
        return held, held.notes
    single(held, "draws")
    return Draws(draw(double(held), n, seed)), (f"{n} draws were taken from draws with seed {seed}",)


def score(target: LogDensity, x: Tensor) -> Tensor:
    """Return ∇ log p (n, d) at each draw."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target(at).sum(), at)
    bad = int((~torch.isfinite(gradient)).any(1).sum())
    if bad:
        raise ValueError(
            f"The gradient of log_density is not finite at {bad} of {len(x)} draws; they may lie off its support."
        )
    return gradient.detach().to(x)


def _estimate(x: Draws, s: Tensor, kernel: Radial, notes: tuple[str, ...]) -> Estimate:
    w = equal_weights(x.x, x.weights)
    centred = x.x - x.x.mean(0)
    sums = _sums(kernel, centred, s, w)
    value = (w @ sums / (1 - w @ w)).item()
    stderr = 2 * math.sqrt(spread(sums / (1 - w), w))
    if value > CLEAR * stderr:
        return Estimate(value, stderr, "u-statistic", n=x.n, notes=notes)
    why = (
        f"value/SE is below {CLEAR:g} (SE {stderr:.2g} to first order): near equality the estimator is not normal, so "
        "no interval"
    )
    return Estimate(value, None, "u-statistic", n=x.n, notes=(*notes, why))


def _sums(kernel: Radial, x: Tensor, s: Tensor, w: Tensor) -> Tensor:
    """Return Σ_{j≠i} wⱼ u(xᵢ, xⱼ) for each i, tile by tile; each pair is computed once."""
    sums, size = torch.zeros_like(w), tile_of(x)
    for i in range(0, len(x), size):
        a = slice(i, i + size)
        sums[a] += stein_gram(kernel, x[a], x[a], s[a], s[a]).fill_diagonal_(0) @ w[a]
        for j in range(i + size, len(x), size):
            b = slice(j, j + size)
            tile = stein_gram(kernel, x[a], x[b], s[a], s[b])
            sums[a] += tile @ w[b]
            sums[b] += tile.T @ w[a]
    return sums


def stein_gram(kernel: Radial, x: Tensor, y: Tensor, sx: Tensor, sy: Tensor) -> Tensor:
    """Return u (n, m): φ·s·t + 2φ′·(t − s)ᵀ(x − y) − 2dφ′ − 4φ″r² for k = φ(r²), with scores s at x and t at y."""
    squares = (x.square().sum(1)[:, None] + y.square().sum(1)).addmm_(x, y.T, alpha=-2).clamp_min_(0)
    value, first, second = kernel.radial(squares)
    across = x @ sy.T + sx @ y.T - (x * sx).sum(1)[:, None] - (y * sy).sum(1)
    return value * (sx @ sy.T) + 2 * first * (across - x.shape[1]) - 4 * second * squares
