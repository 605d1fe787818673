"""The data's own units, and the standardised ones that networks work in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl.models.form import Form

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
    def of(cls, x: Tensor, how: str = "auto", form: Form | None = None, plain: Tensor | None = None) -> Units:
        """Return the units of training rows.

        Args:
            x: (n, ...); NaN is a missing entry.
            how: "shared", one mean and one standard deviation for all entries, keeps the contrast of an image and its
                constant pixels; "column", one for each entry, makes columns of a table comparable; "none"; "auto" is
                "column" for tables (n, d) or (n,), and "shared" for anything with more dimensions.
            form: of the rows; its blocks of categories keep their zeros and ones, and its columns are named in errors.
            plain: which further entries of a row stay as they are, booleans of its shape.

        Raises:
            ValueError: if a standard deviation is zero, or a column has no entry.
        """
        shape = tuple(x.shape[1:])
        if how == "none":
            return cls.plain(shape)
        each = how == "column" or (how == "auto" and x.ndim <= 2)
        keep = torch.zeros(shape, dtype=torch.bool) if plain is None else plain.cpu()
        keep = keep if form is None else keep | ~form.numeric
        if not keep.any():
            _check_spread(x, each, None if form is None else form.entries)
            shift, scale = _moments(x, each)
            return cls(shift.double(), scale.double(), shape)
        units, some = cls.plain(shape, each=True).to(x.device), ~keep.to(x.device)
        if some.any():
            names = None if form is None or form.entries is None else [e for e, k in zip(form.entries, keep) if not k]
            _check_spread(x[:, some], each, names)
            shift, scale = _moments(x[:, some], each)
            units.shift[some], units.scale[some] = shift.double(), scale.double()
        return units

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


def _moments(x: Tensor, each: bool) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of what is not missing, of each entry or of all."""
    if not x.isnan().any():
        return (x.mean(0), x.std(0, correction=0)) if each else (x.mean(), x.std(correction=0))
    mean = x.nanmean(0) if each else x.nanmean()
    squares = (x - mean).square()
    return mean, (squares.nanmean(0) if each else squares.nanmean()).sqrt()


def _check_spread(x: Tensor, each: bool, names: Sequence[Any] | None) -> None:
    """Raise where all rows are equal: a normal density there is unbounded."""
    high, low = x.nan_to_num(nan=-math.inf).amax(0), x.nan_to_num(nan=math.inf).amin(0)
    if (empty := (high < low)).any():
        columns = _named(empty, names)
        raise ValueError(f"x must have an entry in every column; all training rows lack columns {columns}. Drop them.")
    where = (high == low).reshape(-1)
    if where.all() and (not each or x.ndim == 1):
        raise ValueError("x must vary; all its training rows are equal, and there is nothing to learn.")
    if where.any() and each:
        raise ValueError(
            f"x must vary in every column; constant in the training rows: columns {_named(where, names)} of "
            f"{where.numel()}. Drop them, or pass standardise='shared' for one scale of all columns, as pixels have."
        )


def _named(where: Tensor, names: Sequence[Any] | None) -> list[Any]:
    """Return the first ten entries that are marked, by their columns' names if they have any."""
    found = where.reshape(-1).nonzero().flatten().tolist()[:10]
    return found if names is None else [names[i] for i in found]
