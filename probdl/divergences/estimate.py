"""The result of every divergence: a value, its standard error, how it was had, and what it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

TARGETS = ("population", "lower bound", "expected estimate", "approximation")


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty and its method.

    Attributes:
        value: the estimate, in the unit of the quantity; a float, or a tensor where there is one per row.
        stderr: its standard error in the same unit; 0.0 only when exact, None when it cannot be had.
        method: how it was had, such as "closed form", "quadrature" or "monte carlo".
        target: what the value and its interval stand for: the "population" value, a "lower bound" on it, the
            "expected estimate" (the mean of the estimator, which may be biased) or an "approximation".
        n: the number of draws behind it, where there are any.
        notes: what a careful reader should know.

    Example:
        >>> Estimate(0.44312, 0.0021, "monte carlo", n=100_000)
        0.4431 ± 0.0021 (monte carlo, n=100000)
    """

    value: float | Tensor
    stderr: float | Tensor | None
    method: str
    target: str = "population"
    n: int | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {TARGETS}; got {self.target!r}.")

    def interval(self, level: float = 0.95) -> tuple[float | Tensor, float | Tensor]:
        """Return the normal interval ``value ± z·stderr`` that covers ``target`` with probability ``level``.

        Raises:
            ValueError: if ``level`` is not in (0, 1), or there is no standard error.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level}.")
        if self.stderr is None:
            why = "; ".join(self.notes) or f"the method {self.method!r} gives none"
            raise ValueError(f"There is no standard error, so no interval: {why}.")
        z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()
        return self.value - z * self.stderr, self.value + z * self.stderr

    def __float__(self) -> float:
        if isinstance(self.value, Tensor) and self.value.numel() != 1:
            raise TypeError(f"This estimate has {self.value.numel()} values, one per row; use .value.")
        return float(self.value)

    def __repr__(self) -> str:
        how = self.method if self.n is None else f"{self.method}, n={self.n}"
        if isinstance(self.value, Tensor):
            return f"Estimate(value of shape {tuple(self.value.shape)}, mean {self.value.mean():.4f}) ({how})"
        if self.stderr is None:
            return f"{self.value:.4g}, error unknown ({how})"
        return f"{_rounded(self.value, float(self.stderr))} ({how})"


def _rounded(value: float, stderr: float) -> str:
    """Write value ± stderr with two significant digits of the error."""
    if stderr == 0 or stderr != stderr or abs(value) == float("inf"):
        return f"{value:.6g} ± {stderr:.2g}"
    digits = max(0, 1 - int(torch.tensor(stderr, dtype=torch.float64).log10().floor()))
    if digits > 8:
        return f"{value:.6g} ± {stderr:.2g}"
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"
