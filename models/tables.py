"""Tables with columns of categories: as rows of numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from probdl.access import tensor
from probdl.models.labels import Labels

if TYPE_CHECKING:
    import pandas as pd


def classes_of(column: pd.Series, name: str, missing: bool) -> Labels | None:
    """Return the categories of a column of text, categories or other objects, or None for a column of numbers.

    Args:
        column: of a DataFrame; booleans count as numbers, 0 and 1.
        name: what to call it in errors.
        missing: whether entries may be missing; they are no category.

    Raises:
        TypeError: for dates, or for values that are neither all text nor all whole numbers or booleans.
        ValueError: for missing entries, or a single category.
    """
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column.dtype):
        return None
    if column.dtype.kind in "Mm":
        raise TypeError(f"{name} holds dates or times ({column.dtype}); turn them into numbers first.")
    if column.isna().all():
        raise ValueError(f"{name} holds no entry; all are missing. Drop it.")
    if _are_numbers(column):
        return None
    return Labels.of(column.dropna() if missing else column, name)


def numbers(table: pd.DataFrame, categories: Sequence[Labels | None], name: str, missing: bool) -> Tensor:
    """Return a table as float64 rows, each column of categories as one column for each of them, zeros and a one.

    Args:
        table: its columns in the order of ``categories``.
        categories: of each column, or None for numbers.
        name: what to call it in errors.
        missing: whether entries may be missing; they are NaN.

    Raises:
        ValueError, TypeError: for categories that ``fit`` did not see, or numbers that cannot be used.
    """
    if not len(table):
        raise ValueError(f"{name} is empty: its shape is {table.shape}. Pass at least one row.")
    parts = []
    for (label, column), labels in zip(table.items(), categories):
        where = f"column {label!r} of {name}"
        if labels is None:
            plain = column.to_numpy(dtype=np.float64, na_value=np.nan) if _are_numbers(column) else column
            parts.append(tensor(plain, where, missing=missing)[:, None])
        else:
            parts.append(_indicators(column, labels, where, missing))
    return torch.cat(parts, 1)


def dressed(
    value: Tensor,
    columns: Sequence[Any],
    dtypes: Sequence[str],
    categories: Sequence[Labels | None],
    index: Any,
    draws: bool,
) -> pd.DataFrame:
    """Return rows as a table, as ``Form.dress`` says."""
    import pandas as pd

    rows, found = value.cpu(), {}
    widths = [1 if labels is None else len(labels) for labels in categories]
    for column, kind, labels, part in zip(columns, dtypes, categories, rows.split(widths, 1)):
        if labels is None:
            found[column] = _as_type(pd.Series(part[:, 0].numpy(), index=index), kind, draws)
        else:
            found[column] = _as_category(labels, part.argmax(1), kind, index)
    return pd.DataFrame(found, columns=list(columns), index=index)


def _are_numbers(column: pd.Series) -> bool:
    """Whether a column holds numbers, perhaps as objects beside None."""
    if column.dtype != object:
        return column.dtype.kind in "biuf"
    return all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in column.dropna())


def _indicators(column: pd.Series, labels: Labels, name: str, missing: bool) -> Tensor:
    there = torch.from_numpy((~column.isna()).to_numpy().copy())
    if not missing or bool(there.all()):
        return one_hot(labels.indices(column, name=name), len(labels)).double()
    found = torch.full((len(column), len(labels)), torch.nan, dtype=torch.float64)
    if bool(there.any()):
        found[there] = one_hot(labels.indices(column.dropna(), name=name), len(labels)).double()
    return found


def _as_category(labels: Labels, indices: Tensor, dtype: str, index: Any) -> pd.Series:
    import pandas as pd

    if dtype == "category":
        return pd.Series(pd.Categorical.from_codes(indices.tolist(), list(labels.classes)), index=index)
    return pd.Series([labels.classes[i] for i in indices.tolist()], index=index).astype(dtype)


def _as_type(column: pd.Series, dtype: str, draws: bool) -> pd.Series:
    """Cast a column back; whole-number types only where the values are draws, not means."""
    kind = dtype.lower()
    if kind.startswith("float"):
        return column.astype(dtype)
    if not draws or kind == "object":
        return column
    if kind.startswith("bool"):
        return (column > 0.5).astype(dtype)
    limits = np.iinfo(kind)
    return column.round().clip(max(limits.min, -(2**53)), min(limits.max, 2**53)).astype(dtype)
