"""The bandwidth by Improved Sheather–Jones, the fixed point of a plug-in rule without a normal reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from probdl.errors import ConvergenceError

if TYPE_CHECKING:
    import numpy as np

BINS = 2**14
STAGES = 7
BEYOND = 0.1  # how far the grid goes beyond the data where there is no bound, as a share of their range
GONE = 700  # exponents beyond, whose terms are nothing
SEARCH = (1e-12, 0.1)  # of the squared bandwidth, as a share of the squared length of the grid


def improved_sheather_jones(x: Tensor, weights: Tensor, low: float = -math.inf, high: float = math.inf) -> float:
    r"""Return the bandwidth h of a Gaussian kernel, the root of :math:`h^2 = ξ γ^{[7]}(h^2)`, in the units of x.

    Args:
        x: (n,).
        weights: (n,), that sum to 1.
        low, high: bounds of the data, at which the density is reflected.

    Raises:
        ConvergenceError: if the equation has no root, as with few rows or many duplicates.

    Reference:
        Botev, Grotowski and Kroese (2010), Kernel density estimation via diffusion, Annals of Statistics 38.
    """
    import numpy as np
    from scipy.fft import dct
    from scipy.optimize import brentq

    values, w = x.cpu().numpy(), weights.cpu().numpy()
    extent = np.ptp(values)
    start = low if math.isfinite(low) else values.min() - BEYOND * extent
    length = (high if math.isfinite(high) else values.max() + BEYOND * extent) - start
    squared = (dct(_shares((values - start) / length, w))[1:] / 2) ** 2
    n = min(len(np.unique(values)), 1 / (w**2).sum())
    step = _Step(squared, n)
    if not step(SEARCH[0]) * step(SEARCH[1]) < 0:
        raise ConvergenceError(
            f"bandwidth='isj': the fixed-point equation has no root for these {len(values)} rows ({n:.0f} distinct or "
            "effective). Pass 'silverman', or more rows."
        )
    return float(length * math.sqrt(brentq(step, *SEARCH, xtol=1e-16, rtol=1e-12)))


def _shares(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight in each bin, that of a point shared between the two bins nearest to it."""
    import numpy as np

    place = np.clip(u * BINS - 0.5, 0, BINS - 1)
    left = np.minimum(place.astype(int), BINS - 2)
    right = place - left
    return np.bincount(left, weights * (1 - right), BINS) + np.bincount(left + 1, weights * right, BINS)


class _Step:
    """t − ξγ^[7](t) as a function of t = h², on data of unit range."""

    def __init__(self, squared: np.ndarray, n: float) -> None:
        import numpy as np

        self.squared, self.n = squared, n
        self.frequencies = (np.arange(1, len(squared) + 1) * math.pi) ** 2

    def roughness(self, order: int, t: float) -> float:
        """Return ‖f^(order)‖² after diffusion for a time t."""
        import numpy as np

        some = slice(0, np.searchsorted(self.frequencies, GONE / t) + 1)
        terms = self.frequencies[some] ** order * np.exp(-self.frequencies[some] * t) * self.squared[some]
        return 2 * float(terms.sum())

    def __call__(self, t: float) -> float:
        found = self.roughness(STAGES, t)
        for s in range(STAGES - 1, 1, -1):
            odd = math.prod(range(1, 2 * s, 2)) / math.sqrt(2 * math.pi)
            time = (
                (2 * (1 + 0.5 ** (s + 0.5)) / 3 * odd / self.n / found) ** (2 / (3 + 2 * s)) if found > 0 else math.inf
            )
            found = self.roughness(s, time)
        return t - (2 * self.n * math.sqrt(math.pi) * found) ** (-0.4) if found > 0 else -math.inf
