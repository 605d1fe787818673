"""Is a log-density quadratic, so that its factor is Gaussian? And which Gaussian?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.programs.derivatives import at_least, hessian, value_and_gradient
from probdl.natural import GaussianFactor

SCALES = (1.0, 30.0, 1000.0)  # a wide Cauchy looks quadratic near its centre, so look far out as well


def is_quadratic(f: Callable[[Tensor], Tensor], dim: int, like: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether ``f`` of a vector is a quadratic polynomial, by its third differences along random lines.

    Args:
        f: maps (dim,) to a scalar.
        dim: length of the vector.
        like: a tensor of the dtype and device to use.
        tolerance: the largest third difference, relative to the values of f.
    """
    tolerance = at_least(tolerance, like.dtype, 1e4)
    generator = torch.Generator().manual_seed(20)
    for scale in SCALES:
        start, along = torch.randn(2, dim, generator=generator, dtype=like.dtype).to(like.device) * scale
        values = torch.stack([f(start + t * along) for t in range(4)])
        third = values[3] - 3 * values[2] + 3 * values[1] - values[0]
        if not bool(third.abs() <= tolerance * values.abs().max().clamp(min=1.0)):
            return False
    return True


def gaussian_factor(
    f: Callable[[Tensor], Tensor], dim: int, like: Tensor, batched: bool | None = None
) -> GaussianFactor:
    """Return the Gaussian factor exp(f) of a quadratic ``f``: value, gradient and Hessian at zero."""
    zero = torch.zeros(dim, dtype=like.dtype, device=like.device)
    precision = -hessian(f, zero, batched=batched)
    value, gradient = value_and_gradient(f, zero)
    return GaussianFactor(gradient, precision, value)
