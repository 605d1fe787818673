"""What the data looked like: the shape of a row, the columns of a table, and the way back to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import tensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Form:
    """The form of the data that a model was fitted to.

    Attributes:
        shape: the shape of one row.
        columns: the labels of a DataFrame's columns, or None.
        dtypes: their types.
        home: the device where the data were; results go back there.
    """

    shape: tuple[int, ...]
    columns: tuple[Any, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    home: str = "cpu"

    @classmethod
    def of(cls, x: Any) -> Form:
        """Return the form of array-like data of shape (n, ...)."""
        shape = tuple(tensor(x, "x", dtype=None).shape[1:])
        home = str(x.device) if isinstance(x, Tensor) else "cpu"
        if not hasattr(x, "columns"):
            return cls(shape, home=home)
        if not x.columns.is_unique:
            raise ValueError(f"x must have distinct columns; twice or more: {_twice(x.columns)}.")
        return cls(shape, tuple(_label(c) for c in x.columns.tolist()), tuple(str(t) for t in x.dtypes), home)

    def check(self, x: Any, name: str = "x") -> Tensor:
        """Return ``x`` as a tensor (n, *shape), floating and finite, or say what is wrong with it."""
        if self.columns is not None and hasattr(x, "columns"):
            self._check_columns(tuple(_label(c) for c in x.columns.tolist()), name)
        value = tensor(x, name, dtype=None)
        if tuple(value.shape[1:]) == self.shape:
            return value
        hint = f" Pass a single row as {name}[None]." if tuple(value.shape) == self.shape else ""
        raise ValueError(f"{name} must have shape {_rows(self.shape)}, as in fit; got {tuple(value.shape)}.{hint}")

    def dress(
        self, value: Tensor, dtype: torch.dtype, *, index: Any = None, draws: bool = False
    ) -> Tensor | pd.DataFrame:
        """Return rows as the data were: a DataFrame with the columns and their types, or a tensor at home.

        Args:
            value: (n, *shape), in the data's units.
            dtype: of a tensor.
            index: of a DataFrame; None counts from 0.
            draws: whether the rows are data, whose whole-number columns are rounded, and not means, which are not.
        """
        if self.columns is None:
            return value.to(self.home, dtype)
        import pandas as pd

        table = pd.DataFrame(value.cpu().numpy(), columns=list(self.columns), index=index)
        cast = (_as_type(table[c], kind, draws) for c, kind in zip(self.columns, self.dtypes or ()))
        return pd.concat(cast, axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Form:
        """Return the form that ``to_json`` wrote; loaded models give their results on the CPU."""
        columns, dtypes = (None if found[k] is None else tuple(found[k]) for k in ("columns", "dtypes"))
        return cls(tuple(found["shape"]), columns, dtypes)

    def _check_columns(self, columns: tuple[Any, ...], name: str) -> None:
        if columns != self.columns:
            raise ValueError(
                f"{name} must have the columns that fit saw, in the same order: {list(self.columns or ())}; "
                f"got {list(columns)}. Select them as {name}[{list(self.columns or ())[:2]}...]."
            )


def _as_type(column: pd.Series, dtype: str, draws: bool) -> pd.Series:
    """Cast a column back; whole-number types only where the values are draws, not means."""
    kind = dtype.lower()
    if kind.startswith("float"):
        return column.astype(dtype)
    if not draws:
        return column
    if kind.startswith("bool"):
        return (column > 0.5).astype(dtype)
    limits = np.iinfo(kind)
    return column.round().clip(max(limits.min, -(2**53)), min(limits.max, 2**53)).astype(dtype)


def _label(column: Any) -> Any:
    """Return a column's label as something that a file can hold."""
    return column if isinstance(column, (str, int, float, bool)) else str(column)


def _twice(columns: Any) -> list[Any]:
    return list(columns[columns.duplicated()].unique())[:3]


def _rows(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["n", *map(str, shape)]) + ("," if not shape else "") + ")"
