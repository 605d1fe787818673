"""How heavy is the tail of importance ratios: a generalised Pareto law fitted to the largest, or in their place."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def pareto_k(log_weights: Tensor) -> float:
    r"""Return :math:`\hat k`, the tail index of importance weights.

    The largest :math:`M = \min(0.2\,n, 3\sqrt n)` weights above their threshold are fitted by a generalised Pareto
    law with density :math:`\sigma^{-1}(1 + k x/\sigma)^{-1/k - 1}`. Below 0.5 the weights have a finite variance, so
    a standard error can be trusted; above 0.7 an importance-sampling average should not be used at all.

    Args:
        log_weights: logarithms of non-negative weights, shape (n,); a common constant does not matter.

    Returns:
        k-hat: minus infinity where the tail is constant, plus infinity where fewer than 5 weights make up the tail.

    Raises:
        ValueError: if a log-weight is NaN or plus infinity.

    Source:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72);
        the fit is that of Zhang and Stephens (2009), Technometrics 51(3).

    Example:
        >>> import torch
        >>> u = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
        >>> round(pareto_k(-0.7 * torch.log(u)), 1)  # u^(-0.7) is a Pareto law with k = 0.7
        0.7
    """
    return _fit_tail(_checked(log_weights)).shape


def pareto_smoothed(log_weights: Tensor) -> tuple[Tensor, float]:
    r"""Return Pareto-smoothed log-weights, and :math:`\hat k`.

    The :math:`M` largest weights are replaced by the quantiles :math:`F^{-1}((j - \tfrac12)/M)` of the generalised
    Pareto law fitted to them, in their order, and cut at the largest raw weight: this tames the variance that a few
    huge weights bring, for a small bias. Where fewer than 5 weights make up the tail, they stay as they are.

    Args:
        log_weights: logarithms of non-negative weights, shape (n,).

    Returns:
        Smoothed logarithms, shape (n,), in the order and with the constant of ``log_weights``; and k-hat.

    Raises:
        ValueError: if a log-weight is NaN or plus infinity.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72), section 3.

    Example:
        >>> import torch
        >>> u = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
        >>> smoothed, k = pareto_smoothed(-0.3 * torch.log(u))
        >>> round(float(smoothed.exp().mean()), 2)  # the mean of u^(-0.3) is 1/0.7
        1.43
    """
    x = _checked(log_weights)
    tail = _fit_tail(x)
    if not torch.isfinite(torch.tensor(tail.shape)):
        return x, tail.shape
    size = len(tail.order)
    p = (torch.arange(size, dtype=x.dtype, device=x.device) + 0.5) / size
    quantiles = tail.scale * torch.expm1(-tail.shape * torch.log1p(-p)) / tail.shape
    smoothed = x.clone()
    smoothed[tail.order] = (torch.log(quantiles + tail.threshold) + x.max()).clamp(max=x.max())
    return smoothed, tail.shape


def _checked(log_weights: Tensor) -> Tensor:
    x = log_weights.detach().double().flatten()
    if bool((torch.isnan(x) | (x == torch.inf)).any()):
        raise ValueError("log_weights must be below infinity and not NaN.")
    return x


class _Tail(NamedTuple):
    """The fitted tail: shape, scale and threshold of weights whose largest is 1, and where they stand, by size."""

    shape: float
    scale: float
    threshold: float
    order: Tensor


def _fit_tail(x: Tensor) -> _Tail:
    n = len(x)
    size = math.ceil(min(0.2 * n, 3 * n**0.5))
    if size < 5 or n <= size:
        return _Tail(torch.inf, 0.0, 0.0, x.new_zeros(0, dtype=torch.long))
    weights, order = torch.exp(x - x.max()).sort()
    threshold = weights[-size - 1].item()
    beyond = weights > threshold
    excess, order = weights[beyond] - threshold, order[beyond]
    if len(excess) < 5:
        return _Tail(-torch.inf if len(excess) == 0 else torch.inf, 0.0, threshold, order)
    return _Tail(*_shape_and_scale(excess), threshold, order)


def _shape_and_scale(x: Tensor) -> tuple[float, float]:
    """Fit the law to the sorted exceedances x > 0 by Zhang and Stephens' posterior mean."""
    n = len(x)
    m = 30 + int(n**0.5)
    grid = torch.arange(1, m + 1, dtype=x.dtype, device=x.device)
    b = (1 - torch.sqrt(m / (grid - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    k = torch.log1p(-b[:, None] * x).mean(1)
    profile = n * (torch.log(-b / k) - k - 1)
    b_mean = (torch.softmax(profile, 0) * b).sum()
    k_hat = torch.log1p(-b_mean * x).mean().item()
    shape = (n * k_hat + 10 * 0.5) / (n + 10)  # Vehtari et al.'s weak prior, worth ten draws at 0.5
    return shape, -k_hat / b_mean.item()
