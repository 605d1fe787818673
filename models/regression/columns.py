"""Matrices with named columns, from arrays or DataFrames of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probdl import access

if TYPE_CHECKING:
    import pandas as pd


def count_missing(data: pd.DataFrame, names: list[str]) -> None:
    """Raise a ValueError that counts the missing values of each column, if there are any."""
    missing = {name: int(data[name].isna().sum()) for name in names}
    missing = {name: n for name, n in missing.items() if n}
    if missing:
        counted = ", ".join(f"{n} in {name!r}" for name, n in missing.items())
        raise ValueError(
            f"data must not have missing values in the columns that are used; there are {counted} (of {len(data)} rows "
            "each). Drop these rows, as data.dropna(subset=[...]) does, or impute them."
        )


def check_finite(matrix: np.ndarray, names: list[str]) -> None:
    """Raise a ValueError that names the columns of the design that are not finite, with their counts."""
    bad = (~np.isfinite(matrix)).sum(0)
    if bad.any():
        counted = ", ".join(f"{n} in {name!r}" for name, n in zip(names, bad) if n)
        raise ValueError(
            f"The columns of the design must be finite; there are NaN or infinite values: {counted}. Check the "
            "transformations in the formula, such as the logarithm of zero."
        )


def length(values: Any, name: str) -> int:
    """Return the number of rows of something array-like."""
    try:
        return len(values)
    except TypeError as error:
        raise TypeError(
            f"{name} must be array-like with one entry for each row; got {type(values).__name__}."
        ) from error


class ArrayDesign:
    """Columns that users pass as an array (n, p) or (n,), or a DataFrame of numbers.

    Args:
        X: the columns, without an intercept.
        intercept: whether the model has one.

    Attributes:
        names: of the columns.
        matrix: their values, (n, p).
        has_intercept: whether the model has one.
        formula: None.
    """

    formula: str | None = None

    def __init__(self, X: Any, intercept: bool = True) -> None:
        self.has_intercept = intercept
        self._columns = _labels(X)
        self.matrix = self._read(X)
        self.names = self._columns or [f"x[{j}]" for j in range(self.matrix.shape[1])]
        self.data = X

    def _read(self, X: Any) -> np.ndarray:
        if hasattr(X, "columns"):
            if len(X) == 0:
                raise ValueError("X must have at least one row; got an empty DataFrame.")
            texts = [str(c) for c in X.columns if X[c].dtype.kind not in "biuf"]
            if texts:
                raise TypeError(
                    f"X must hold numbers; the columns {', '.join(texts)} do not. Write a formula, such as "
                    f"GLM('y ~ C({texts[0]})', data), which codes categories."
                )
            count_missing(X, list(X.columns))
            X = X.to_numpy(dtype=float)
        if np.ndim(X) == 2 and np.shape(X)[0] and not np.shape(X)[1]:
            return np.empty((len(X), 0))
        x = access.tensor(X, "X")
        if x.ndim not in (1, 2):
            raise ValueError(f"X must have shape (n, p) or (n,); got {tuple(x.shape)}.")
        return x.reshape(len(x), -1).cpu().numpy()

    def new(self, X: Any) -> np.ndarray:
        """Return the design of new rows.

        Raises:
            ValueError: for columns that are missing or too many; it names them.
        """
        if self._columns and hasattr(X, "columns"):
            missing = [c for c in self._columns if c not in map(str, X.columns)]
            if missing:
                raise ValueError(f"data must have the columns of the fit; {', '.join(missing)} are missing.")
            X = X.set_axis(list(map(str, X.columns)), axis=1)[self._columns]
        x = self._read(X)
        if x.shape[1] != len(self.names):
            raise ValueError(f"X must have the {len(self.names)} columns of the fit; got {x.shape[1]}.")
        return x

    def column(self, name: str, data: Any) -> Any:
        """Return a column that is not a covariate, such as an exposure."""
        raise ValueError(f"{name!r} names a column, but the model has no formula and so no data. Pass the values.")


def _labels(X: Any) -> list[str] | None:
    return [str(c) for c in X.columns] if hasattr(X, "columns") else None


def vector(values: Any, name: str, n: int) -> torch.Tensor:
    """Return n finite numbers, or raise an error that names the argument."""
    if np.ndim(values) == 0 and not isinstance(values, str):
        values = np.full(n, values)
    array = np.asarray(values)
    if array.dtype.kind == "O" and any(v is None or v != v for v in array.ravel()):
        raise ValueError(f"{name} must not have missing values.")
    x = access.tensor(array if array.dtype.kind != "O" else values, name)
    if x.shape != (n,):
        raise ValueError(f"{name} must have one entry for each of the {n} rows; got shape {tuple(x.shape)}.")
    return x
