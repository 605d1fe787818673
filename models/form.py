"""What the data looked like: the shape of a row, the columns of a table, and the way back to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.models import tables
from probdl.models.labels import Label, Labels

if TYPE_CHECKING:
    import pandas as pd


class Block(NamedTuple):
    """The entries of a row that hold one column of categories, as zeros and a single one."""

    column: Any
    start: int
    stop: int
    classes: tuple[Label, ...]


@dataclass(frozen=True)
class Form:
    """The form of the data that a model was fitted to.

    Attributes:
        shape: the shape of one row, as the model sees it: a column of categories counts as often as it has them.
        columns: the labels of a DataFrame's columns, or None.
        dtypes: their types.
        home: the device where the data were; results go back there.
        categories: of each column the ``Labels``, or None where it holds numbers; None where all columns do.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [31.0, 45.0, 27.0], "smokes": ["no", "yes", "no"]})
        >>> form = Form.of(table, categories=True)
        >>> form.shape, form.blocks[0].classes, form.check(table)[1].tolist()
        ((3,), ('no', 'yes'), [45.0, 0.0, 1.0])
        >>> form.dress(torch.tensor([[30.0, 0.2, 0.8]]), torch.float32)["smokes"].tolist()
        ['yes']
    """

    shape: tuple[int, ...]
    columns: tuple[Any, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    home: str = "cpu"
    categories: tuple[Labels | None, ...] | None = None

    @classmethod
    def of(cls, x: Any, name: str = "x", *, categories: bool = False, missing: bool = False) -> Form:
        """Return the form of array-like data of shape (n, ...).

        Args:
            x: the data.
            name: what to call it in errors.
            categories: whether columns of a DataFrame may hold text or categories; as blocks of zeros and a one.
            missing: whether entries may be missing (NaN or None).

        Raises:
            ValueError, TypeError: for data that cannot be used.
        """
        if not hasattr(x, "columns"):
            home = str(x.device) if isinstance(x, Tensor) else "cpu"
            return cls(tuple(tensor(x, name, dtype=None, missing=missing).shape[1:]), home=home)
        if not x.columns.is_unique:
            raise ValueError(f"{name} must have distinct columns; twice or more: {_twice(x.columns)}.")
        columns, dtypes = tuple(_label(c) for c in x.columns.tolist()), tuple(str(t) for t in x.dtypes)
        if not categories:
            return cls(tuple(tensor(x, name, missing=missing).shape[1:]), columns, dtypes)
        found = tuple(tables.classes_of(x[c], f"column {c!r} of {name}", missing) for c in x.columns)
        plain = not any(found) and "object" not in dtypes
        return cls((sum(map(_width, found)),), columns, dtypes, "cpu", None if plain else found)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Where in a row the columns of categories stand, in the order of the columns."""
        found, start = [], 0
        for column, labels in zip(self.columns or (), self.categories or ()):
            if labels is not None:
                found.append(Block(column, start, start + len(labels), labels.classes))
            start += _width(labels)
        return tuple(found)

    @property
    def entries(self) -> tuple[Any, ...] | None:
        """The column from which each entry of a row comes, or None for data without columns."""
        if self.columns is None:
            return None
        categories = self.categories or (None,) * len(self.columns)
        return tuple(c for c, labels in zip(self.columns, categories) for _ in range(_width(labels)))

    @property
    def numeric(self) -> Tensor:
        """Whether each entry of a row is a number, and none of a block; booleans of shape ``shape``."""
        mask = torch.ones(self.shape, dtype=torch.bool)
        for block in self.blocks:
            mask[block.start : block.stop] = False
        return mask

    def check(self, x: Any, name: str = "x", *, missing: bool = False) -> Tensor:
        """Return ``x`` as a tensor (n, *shape), floating and finite, or say what is wrong with it.

        Args:
            x: data of this form.
            name: what to call it in errors.
            missing: whether entries may be missing; they are NaN in the result, of a category in its whole block.
        """
        if self.columns is not None and hasattr(x, "columns"):
            self._check_columns(tuple(_label(c) for c in x.columns.tolist()), name)
            if self.categories is not None:
                return tables.numbers(x, self.categories, name, missing)
        value = tensor(x, name, dtype=None, missing=missing)
        if tuple(value.shape[1:]) == self.shape:
            return value
        hint = f" Pass a single row as {name}[None]." if tuple(value.shape) == self.shape else ""
        raise ValueError(f"{name} must have shape {_rows(self.shape)}, as in fit; got {tuple(value.shape)}.{hint}")

    def dress(
        self, value: Tensor, dtype: torch.dtype, *, index: Any = None, draws: bool = False
    ) -> Tensor | pd.DataFrame:
        """Return rows as the data were: a DataFrame with the columns and their types, or a tensor at home.

        Args:
            value: (n, *shape), in the data's units; of a block, the category with the largest entry is taken.
            dtype: of a tensor.
            index: of a DataFrame; None counts from 0.
            draws: whether the rows are data, whose whole-number columns are rounded, and not means, which are not.
        """
        if self.columns is None:
            return value.to(self.home, dtype)
        categories = self.categories or (None,) * len(self.columns)
        return tables.dressed(value, self.columns, self.dtypes or (), categories, index, draws)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        classes = self.categories and [labels and labels.to_json() for labels in self.categories]
        names = {"shape": self.shape, "columns": self.columns, "dtypes": self.dtypes, "home": self.home}
        return {**names, "categories": classes}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Form:
        """Return the form that ``to_json`` wrote; loaded models give their results on the CPU."""
        columns, dtypes = (None if found[k] is None else tuple(found[k]) for k in ("columns", "dtypes"))
        classes = found["categories"] and tuple(c and Labels.from_json(c) for c in found["categories"])
        return cls(tuple(found["shape"]), columns, dtypes, categories=classes)

    def _check_columns(self, columns: tuple[Any, ...], name: str) -> None:
        if columns != self.columns:
            raise ValueError(
                f"{name} must have the columns that fit saw, in the same order: {list(self.columns or ())}; "
                f"got {list(columns)}. Select them as {name}[{list(self.columns or ())[:2]}...]."
            )


def _width(labels: Labels | None) -> int:
    return 1 if labels is None else len(labels)


def _label(column: Any) -> Any:
    """Return a column's label as something that a file can hold."""
    return column if isinstance(column, (str, int, float, bool)) else str(column)


def _twice(columns: Any) -> list[Any]:
    return list(columns[columns.duplicated()].unique())[:3]


def _rows(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["n", *map(str, shape)]) + ("," if not shape else "") + ")"
