r"""Covariance functions of Gaussian processes, as in ``kernels.RBF() + kernels.Linear()`` or ``RBF() * Periodic()``.

Each has a variance, in squared units of f, and, where it has one, a length in units of the inputs; ``ard=True`` gives
each column its own. ``columns`` says which columns it reads (None: all), ``fixed`` which hyperparameters a fit leaves
alone. These have hyperparameters that are learnt; the kernels of ``probdl.divergences`` have a bandwidth that is not.

Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probdl.models.kernel_algebra import Kernel, Leaf, Product, Sum

__all__ = ["RBF", "Constant", "Kernel", "Linear", "Matern", "Periodic", "Product", "Sum", "White"]


class RBF(Leaf):
    r"""The squared exponential, :math:`k(x, x') = \sigma^2 e^{-|x - x'|^2 / 2\ell^2}`: functions smooth without end.

    Args:
        variance: σ², in squared units of f.
        length: ℓ, in units of the inputs, or one for each column.
        columns: those it reads; None reads all.
        ard: give each column its own length in a fit.
        fixed: names among "variance" and "length" that a fit leaves alone.

    Raises:
        ValueError, TypeError: for hyperparameters that are not positive numbers.

    Example:
        >>> import torch
        >>> RBF(variance=2.0)(torch.tensor([[0.0], [1.0]]))
        tensor([[2.0000, 1.2131],
                [1.2131, 2.0000]])
    """

    name, by_column = "rbf", ("length",)

    def __init__(
        self,
        variance: Any = 1.0,
        length: Any = 1.0,
        *,
        columns: Sequence[int] | None = None,
        ard: bool = False,
        fixed: Sequence[str] = (),
    ) -> None:
        super().__init__({"variance": variance, "length": length}, columns=columns, ard=ard, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        squares = _scaled_squares(self.read(x), self.read(x if y is None else y), self.value("length", x))
        return self.value("variance", x) * torch.exp(-0.5 * squares)


class Matern(Leaf):
    r"""The Matérn kernels with ν = 1/2, 3/2 and 5/2, of functions with 0, 1 and 2 derivatives.

    With :math:`r = \sqrt{2\nu}\,|x - x'| / \ell` they are :math:`\sigma^2 e^{-r}` times 1, 1 + r and 1 + r + r²/3.

    Args:
        nu: ν, one of 0.5, 1.5 and 2.5.
        variance, length, columns, ard, fixed: as for ``RBF``.

    Raises:
        ValueError, TypeError: for another ν, or hyperparameters that are not positive numbers.

    Example:
        >>> import torch
        >>> Matern(0.5)(torch.tensor([[0.0], [1.0]]))[0, 1]  # 1/e
        tensor(0.3679)
    """

    name, by_column = "matern", ("length",)

    def __init__(
        self,
        nu: float = 1.5,
        variance: Any = 1.0,
        length: Any = 1.0,
        *,
        columns: Sequence[int] | None = None,
        ard: bool = False,
        fixed: Sequence[str] = (),
    ) -> None:
        if nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"nu must be 0.5, 1.5 or 2.5; got {nu!r}. For smoother functions use RBF.")
        self.nu = nu
        super().__init__({"variance": variance, "length": length}, columns=columns, ard=ard, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        length = self.value("length", x)
        r = math.sqrt(2 * self.nu) * _scaled_distances(self.read(x), self.read(x if y is None else y), length)
        polynomial = 1 + (self.nu > 0.5) * r + (self.nu > 1.5) * r**2 / 3
        return self.value("variance", x) * polynomial * torch.exp(-r)

    def __repr__(self) -> str:
        return super().__repr__().replace("(", f"({self.nu}, ", 1)


class Periodic(Leaf):
    r"""Functions that repeat, :math:`k(x, x') = \sigma^2 \exp\{-2\sum_j \sin^2(\pi(x_j - x'_j)/p) / \ell_j^2\}`.

    Args:
        period: p, in units of the inputs.
        length: ℓ, without unit: below 1, several waves in a period.
        variance, columns, ard, fixed: as for ``RBF``.

    Raises:
        ValueError, TypeError: for hyperparameters that are not positive numbers.

    Example:
        >>> import torch
        >>> Periodic(period=2.0)(torch.tensor([[0.0]]), torch.tensor([[2.0], [1.0]]))  # one, and half a period away
        tensor([[1.0000, 0.1353]])
    """

    name, by_column = "periodic", ("length",)

    def __init__(
        self,
        period: Any = 1.0,
        variance: Any = 1.0,
        length: Any = 1.0,
        *,
        columns: Sequence[int] | None = None,
        ard: bool = False,
        fixed: Sequence[str] = (),
    ) -> None:
        values = {"period": period, "variance": variance, "length": length}
        super().__init__(values, columns=columns, ard=ard, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        length = self.value("length", x)
        twice = torch.cat([length, length]) if length.ndim else length
        squares = _weighted_squares(self._circle(x), self._circle(x if y is None else y), twice)
        return self.value("variance", x) * torch.exp(-0.5 * squares)

    def _circle(self, x: Tensor) -> Tensor:
        """The inputs on circles: chords have the squared length 4 sin²(π(x − x')/p)."""
        angle = 2 * math.pi * self.read(x) / self.value("period", x)
        return torch.cat([angle.cos(), angle.sin()], 1)


class Linear(Leaf):
    r"""Linear functions through the origin, :math:`k(x, x') = \sum_j \sigma_j^2 x_j x'_j`: Bayesian regression.

    Args:
        variance: σ², of the coefficients, or one for each column.
        columns, ard, fixed: as for ``RBF``; ``ard`` gives each column its own variance.

    Raises:
        ValueError, TypeError: for hyperparameters that are not positive numbers.

    Example:
        >>> import torch
        >>> (Linear(2.0) + Constant(1.0))(torch.tensor([[1.0], [3.0]]))
        tensor([[ 3.,  7.],
                [ 7., 19.]])
    """

    name, by_column = "linear", ("variance",)

    def __init__(
        self,
        variance: Any = 1.0,
        *,
        columns: Sequence[int] | None = None,
        ard: bool = False,
        fixed: Sequence[str] = (),
    ) -> None:
        super().__init__({"variance": variance}, columns=columns, ard=ard, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        return (self.read(x) * self.value("variance", x)) @ self.read(x if y is None else y).T

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the prior variances, which grow with the square of the inputs."""
        return (self.read(x) ** 2 * self.value("variance", x)).sum(1)


class Constant(Leaf):
    r"""One unknown level for all, :math:`k(x, x') = \sigma^2`; as a factor, a scale.

    Args:
        variance: σ², of the level.
        fixed: ("variance",) if a fit is to leave it alone.

    Example:
        >>> import torch
        >>> Constant(4.0)(torch.zeros(1, 1), torch.ones(2, 1))
        tensor([[4., 4.]])
    """

    name = "constant"

    def __init__(self, variance: Any = 1.0, *, fixed: Sequence[str] = ()) -> None:
        super().__init__({"variance": variance}, columns=None, ard=False, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        return self.value("variance", x).expand(len(x), len(x if y is None else y))


class White(Leaf):
    r"""Independent values at all inputs, :math:`\sigma^2` where x and x' are one row, 0 elsewhere.

    As a part of f it is also in predictions of f at new rows, which are other rows than those that were seen.

    Args:
        variance: σ².
        fixed: ("variance",) if a fit is to leave it alone.

    Example:
        >>> import torch
        >>> White(4.0)(torch.zeros(2, 1)), White(4.0)(torch.zeros(1, 1), torch.zeros(2, 1))
        (tensor([[4., 0.],
                [0., 4.]]), tensor([[0., 0.]]))
    """

    name = "white"

    def __init__(self, variance: Any = 1.0, *, fixed: Sequence[str] = ()) -> None:
        super().__init__({"variance": variance}, columns=None, ard=False, fixed=fixed)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        if y is not None:
            return torch.zeros(len(x), len(y), dtype=x.dtype, device=x.device)
        return self.value("variance", x).expand(len(x)).diag()


def _scaled_squares(x: Tensor, y: Tensor, length: Tensor) -> Tensor:
    """|x − y|²/ℓ²; with one length the distances carry no gradient, and only their scale is differentiated."""
    if length.ndim:
        return _weighted_squares(x, y, length)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / length**2


def _scaled_distances(x: Tensor, y: Tensor, length: Tensor) -> Tensor:
    """|x − y|/ℓ, whose gradient in ℓ is 0 where x = y, also where a root of 0 would make it NaN."""
    if not length.ndim:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") / length
    squares = _weighted_squares(x, y, length)
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def _weighted_squares(x: Tensor, y: Tensor, length: Tensor) -> Tensor:
    """Σⱼ (xⱼ − yⱼ)²/ℓⱼ² by matrix products, so that gradients need no (n, m, d); rounding errors around 0 are 0."""
    centre = x.detach().mean(0)
    x, y = (x - centre) / length, (y - centre) / length
    x_squares, y_squares = x.square().sum(1), y.square().sum(1)
    sums = x_squares[:, None] + y_squares
    squares = sums - 2 * x @ y.T
    return torch.where(squares > 16 * torch.finfo(x.dtype).eps * sums.detach(), squares, 0.0)
