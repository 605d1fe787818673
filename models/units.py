"""The data's own units, and the standardised ones that networks work in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WAYS = ("auto", "shared", "column", "none")


class Units(nn.Module):
    r"""Standardisation, :math:`u = (x - m) / c`, and the way back.

    A density in the units of u becomes one in the units of x by :math:`\log p(x) = \log p(u) - \sum_j \log c_j`.

    Args:
        shift: m, of the shape of one row, or a scalar for all its entries.
        scale: c > 0, likewise.
        shape: the shape of one row.

    Example:
        >>> import torch
        >>> units = Units(torch.tensor(1.0), torch.tensor(2.0), (3,))
        >>> units.inward(torch.full((1, 3), 5.0))
        tensor([[2., 2., 2.]])
        >>> round(units.log_jacobian, 4)
        -2.0794
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, x: Tensor, how: str = "auto") -> Units:
        """Return the units of training rows.

        Args:
            x: (n, ...).
            how: "shared", one mean and one standard deviation for all entries, keeps the contrast of an image and its
                constant pixels; "column", one for each entry, makes columns of a table comparable; "none"; "auto" is
                "column" for tables (n, d) or (n,), and "shared" for anything with more dimensions.

        Raises:
            ValueError: if a standard deviation is zero.
        """
        shape = tuple(x.shape[1:])
        if how == "none":
            return cls.plain(shape)
        each = how == "column" or (how == "auto" and x.ndim <= 2)
        _check_spread(x, each)
        shift, scale = (x.mean(0), x.std(0, correction=0)) if each else (x.mean(), x.std(correction=0))
        return cls(shift.double(), scale.double(), shape)

    @classmethod
    def plain(cls, shape: tuple[int, ...], each: bool = False) -> Units:
        """Return units that change nothing; with ``each``, of one number for each entry."""
        size = shape if each else ()
        return cls(torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64), shape)

    def inward(self, x: Tensor) -> Tensor:
        """Return rows in standardised units, in the floating type of ``x``."""
        return (x - self.shift.to(x)) / self.scale.to(x)

    def outward(self, u: Tensor) -> Tensor:
        """Return standardised rows in the data's units, in float64."""
        return u.to(self.scale.dtype) * self.scale + self.shift

    @property
    def log_jacobian(self) -> float:
        """Return log |du/dx| of one row, to be added to log p(u)."""
        repeats = math.prod(self.shape) / self.scale.numel()
        return -float(self.scale.double().log().sum()) * repeats


def _check_spread(x: Tensor, each: bool) -> None:
    """Raise where all rows are equal: a normal density there is unbounded."""
    equal = x.amax(0) == x.amin(0) if each else x.max() == x.min()
    where = equal.reshape(-1).nonzero().flatten().tolist()
    if where and (not each or x.ndim == 1):
        raise ValueError("x must vary; all its training values are equal, and there is nothing to learn.")
    if where:
        raise ValueError(
            f"x must vary in every column; constant in the training rows: columns {where[:10]} of {equal.numel()}. "
            "Drop them, or pass standardise='shared' for one scale of all columns, as pixels have."
        )
