"""What a user passes becomes one of three kinds: a ``Distribution``, ``Draws`` or a ``LogDensity``.

All checks of input live here; the rooms behind it compute and need not check again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution


class LogDensity:
    r"""A density known through its logarithm, :math:`\log \tilde p(x)`, perhaps up to a constant.

    Args:
        f: maps points of shape (n, dim) to log-densities of shape (n,), in nats.
        dim: the number of columns.
        normalised: whether the density integrates to one.

    Raises:
        ValueError: if ``dim`` is not a positive integer.
        TypeError: if ``f`` cannot be called.

    Example:
        >>> import torch, probdl
        >>> probdl.LogDensity(lambda x: -(x**2).sum(1) / 2, dim=2)(torch.ones(3, 2))
        tensor([-1., -1., -1.])
    """

    def __init__(self, f: Callable[[Tensor], Tensor], dim: int, normalised: bool = False) -> None:
        if not callable(f):
            raise TypeError(f"f must be a function of points (n, dim); got {type(f).__name__}.")
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim must be a positive integer; got {dim!r}.")
        self.f, self.dim, self.normalised = f, dim, normalised

    def __call__(self, x: Tensor) -> Tensor:
        """Return the log-density at the rows of ``x``."""
        value = self.f(x)
        if value.shape != x.shape[:1]:
            raise ValueError(f"The log-density must return shape {tuple(x.shape[:1])}; got {tuple(value.shape)}.")
        return value


class Draws:
    """Draws from a distribution, with optional weights.

    Args:
        x: array-like of shape (n, d), (n,) or (n, ...); trailing dimensions are flattened.
        weights: array-like of shape (n,), non-negative; normalised to sum to one. None means equal weights.
        name: what to call the argument in errors.

    Raises:
        TypeError: for object or string arrays.
        ValueError: for empty data, NaN, infinities, or weights that are negative or of another length.

    Example:
        >>> import probdl
        >>> probdl.Draws([[0.0, 1.0], [2.0, 3.0]], weights=[1, 3]).weights
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    def __init__(self, x: Any, weights: Any = None, *, name: str = "x") -> None:
        raw = tensor(x, name)
        self.x = raw.reshape(raw.shape[0], -1)
        self.columns = column_names(x)
        self.notes: tuple[str, ...] = ()
        if raw.ndim > 2:
            self.notes += (f"{name} of shape {tuple(raw.shape)} was flattened to {tuple(self.x.shape)}",)
        self.weights = None if weights is None else self._normalised(weights, name)

    def _normalised(self, weights: Any, name: str) -> Tensor:
        w = tensor(weights, f"weights of {name}").to(self.x.device)
        if w.shape != (self.n,):
            raise ValueError(f"weights of {name} must have shape ({self.n},), one for each draw; got {tuple(w.shape)}.")
        if bool((w < 0).any()):
            raise ValueError(f"weights of {name} must not be negative; the smallest is {w.min().item():g}.")
        total = w.sum()
        if not total > 0:
            raise ValueError(f"weights of {name} must have a positive sum; all are zero.")
        if abs(total.item() - 1) > 1e-9:
            self.notes += (f"weights of {name} were divided by their sum {total.item():.6g}",)
        return w / total

    @property
    def n(self) -> int:
        """The number of draws."""
        return self.x.shape[0]

    @property
    def dim(self) -> int:
        """The number of columns."""
        return self.x.shape[1]


def tensor(x: Any, name: str, *, dtype: torch.dtype | None = torch.float64, missing: bool = False) -> Tensor:
    """Return array-like ``x`` as a finite, non-empty floating tensor of at least one dimension.

    Args:
        x: torch tensor, NumPy array, pandas DataFrame or Series, or nested list of numbers.
        name: what to call the argument in errors.
        dtype: the floating type to return; None keeps a floating type and makes float64 of the rest.
        missing: whether NaN stands for an entry that is missing, and may stay.

    Raises:
        TypeError: for object, string, complex or date arrays, sparse tensors, and tensors that hold no numbers.
        ValueError: for empty data, NaN or infinities.
    """
    value = x if isinstance(x, Tensor) else _from_numpy(x, name)
    if value.layout != torch.strided or value.is_meta:
        what = "on the meta device" if value.is_meta else f"with layout {value.layout}: pass {name}.to_dense()"
        raise TypeError(f"{name} must be a dense tensor that holds numbers; got one {what}.")
    if value.is_complex():
        raise TypeError(f"{name} must hold real numbers; got {value.dtype}.")
    if value.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension (n,); got a single number.")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(value.shape)}. Pass at least one row and one column.")
    value = value.detach()
    value = value.to(dtype or (value.dtype if value.is_floating_point() else torch.float64))
    bad = int((torch.isinf(value) if missing else ~torch.isfinite(value)).sum())
    if bad:
        nans = 0 if missing else int(torch.isnan(value).sum())
        raise ValueError(
            f"{name} must be finite; got {nans} NaN and {bad - nans} infinite of {value.numel()} values. "
            "Drop or impute them first."
        )
    return value


def _from_numpy(x: Any, name: str) -> Tensor:
    array = _numpy(x, name)
    if array.dtype.kind not in "biuf":
        hint = _object_columns(x)
        raise TypeError(f"{name} must hold numbers; got an array of type {array.dtype}{hint}.")
    if array.dtype.kind == "u" or array.dtype == np.float16:
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array, order="C"))


def _numpy(x: Any, name: str) -> np.ndarray:
    if hasattr(x, "to_numpy"):  # pandas; nullable and mixed numeric columns become float64
        array = x.to_numpy()
        if array.dtype.kind == "O" and not _object_columns(x):
            array = x.to_numpy(dtype=np.float64, na_value=np.nan)
        return array
    if isinstance(x, (np.ndarray, list, tuple, range)):
        if isinstance(x, (list, tuple)) and any(isinstance(row, Tensor) for row in x):
            return np.array([row.detach().cpu().numpy() if isinstance(row, Tensor) else row for row in x])
        try:
            return np.asarray(x)
        except ValueError as error:
            raise ValueError(f"{name} must be a rectangular array; its rows have different lengths.") from error
    raise TypeError(
        f"{name} must be array-like (torch tensor, NumPy array, pandas DataFrame or Series); got {type(x).__name__}."
    )


def _object_columns(x: Any) -> str:
    if not hasattr(x, "dtypes") or not hasattr(x, "columns"):
        return ""
    from pandas.api.types import is_numeric_dtype

    text = [str(c) for c in x.columns if not is_numeric_dtype(x[c])]
    return f" (not numeric: {', '.join(text[:5])})" if text else ""


def column_names(x: Any) -> tuple[str, ...] | None:
    """Return the column names of a DataFrame, or None for anything else."""
    return tuple(str(c) for c in x.columns) if hasattr(x, "columns") else None


def hold(p: Any, name: str) -> Distribution | Draws | LogDensity:
    """Return what is held of a distribution: the thing itself, or array-like draws as ``Draws``."""
    if isinstance(p, (Distribution, Draws, LogDensity)):
        return p
    if callable(p) and not isinstance(p, Tensor):
        raise TypeError(f"{name} is a function; wrap it as probdl.LogDensity(f, dim) so that its dimension is known.")
    return Draws(p, name=name)


def check_same_columns(x: Draws, y: Draws, names: Sequence[str] = ("x", "y")) -> None:
    """Raise a ValueError unless both draws have the same number, and where known the same names, of columns."""
    if x.dim != y.dim:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of columns; "
            f"got {names[0]}: ({x.n}, {x.dim}) and {names[1]}: ({y.n}, {y.dim})."
        )
    if x.columns and y.columns and x.columns != y.columns:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same columns in the same order; "
            f"got {list(x.columns)} and {list(y.columns)}. Select them as {names[1]}[{names[0]}.columns]."
        )
