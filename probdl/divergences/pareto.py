"""How heavy is the tail of importance ratios: the shape of a generalised Pareto law fitted to the largest of them."""

from __future__ import annotations

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
    log_weights = log_weights.detach().double().flatten()
    if bool((torch.isnan(log_weights) | (log_weights == torch.inf)).any()):
        raise ValueError("log_weights must be below infinity and not NaN.")
    n = len(log_weights)
    size = int(min(0.2 * n, 3 * n**0.5))
    if size < 5:
        return torch.inf
    weights = torch.exp(log_weights - log_weights.max()).sort().values
    tail = weights[-size:] - weights[-size - 1]
    tail = tail[tail > 0]
    if len(tail) == 0:
        return -torch.inf
    return _shape(tail) if len(tail) >= 5 else torch.inf


def _shape(x: Tensor) -> float:
    """Fit the shape to the sorted exceedances x > 0 by Zhang and Stephens' posterior mean."""
    n = len(x)
    m = 30 + int(n**0.5)
    grid = torch.arange(1, m + 1, dtype=x.dtype, device=x.device)
    b = (1 - torch.sqrt(m / (grid - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    k = torch.log1p(-b[:, None] * x).mean(1)
    profile = n * (torch.log(-b / k) - k - 1)
    b_mean = (torch.softmax(profile, 0) * b).sum()
    k_hat = torch.log1p(-b_mean * x).mean().item()
    return (n * k_hat + 10 * 0.5) / (n + 10)  # Vehtari et al.'s weak prior, worth ten draws at 0.5
