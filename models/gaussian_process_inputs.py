"""Tables, labels and measurements as a Gaussian process reads them, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import column_names, tensor
from probdl.models.kernel_algebra import Kernel

MOST = 10_000  # rows of a dense kernel matrix: 0.8 GB, of which a fit holds about eight


def read_inputs(X: Any, name: str = "X") -> Tensor:
    """Return the inputs as a finite (n, d) tensor in double precision; (n,) is one column.

    Raises:
        ValueError, TypeError: for empty, non-numeric or non-finite inputs, or more than two dimensions.
    """
    _check_missing(X, name)
    x = tensor(X, name)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2:
        raise ValueError(f"{name} must have the shape (n, d), one row an observation; got {tuple(x.shape)}.")
    return x


def read_training_inputs(X: Any) -> Tensor:
    """Return the inputs of a fit, not more than a dense kernel matrix allows."""
    x = read_inputs(X)
    if len(x) > MOST:
        raise ValueError(
            f"X has {len(x)} rows, and the kernel matrix of more than {MOST} is too large to hold. Fit a random part "
            "of the rows."
        )
    return x


def read_new_inputs(X: Any, columns: Sequence[str] | None, d: int) -> Tensor:
    """Return the inputs of a prediction: those columns of a table by name, or as many as the fit saw.

    Raises:
        ValueError: if columns are missing, or their number is another; it names them.
    """
    if columns is not None and column_names(X) is not None:
        X = X.rename(columns=str)
        missing = [c for c in columns if c not in X.columns]
        if missing:
            raise ValueError(f"X lacks the columns {missing}, which the model was fitted on; it has {list(X.columns)}.")
        X = X[list(columns)]
    x = read_inputs(X)
    if x.shape[1] != d:
        raise ValueError(f"X must have the {d} columns that the model was fitted on; got {x.shape[1]}.")
    return x


def _check_missing(X: Any, name: str) -> None:
    """Name the columns of a table that have missing values."""
    if not hasattr(X, "isna") or not hasattr(X, "columns"):
        return
    counts = X.isna().sum()
    if counts.sum():
        where = ", ".join(f"{column!r} ({n})" for column, n in counts[counts > 0].items())
        raise ValueError(f"{name} has missing values in the columns {where}. Drop or impute them first.")


def read_response(y: Any, n: int) -> Tensor:
    """Return n finite measurements as an (n,) tensor in double precision.

    Raises:
        ValueError, TypeError: for another length or shape, or values that are not finite numbers.
    """
    value = tensor(y, "y")
    value = value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value
    _check_length(value, n)
    return value


def read_labels(y: Any, n: int) -> tuple[np.ndarray, Tensor]:
    """Return the two classes, sorted, and the labels as −1 for the first and 1 for the second.

    Raises:
        ValueError: for missing labels, another length, or another number of classes than two; it names them.
    """
    labels = _as_labels(y)
    _check_length(labels, n)
    missing = sum(_is_missing(label) for label in labels.tolist())
    if missing:
        raise ValueError(f"y has {missing} missing labels of {n}. Drop those rows first.")
    try:
        classes = np.unique(labels)
    except TypeError as error:
        raise TypeError("y must hold labels of one kind, all text or all numbers; got a mixture.") from error
    if len(classes) != 2:
        shown = ", ".join(repr(c) for c in classes[:6].tolist()) + (", …" if len(classes) > 6 else "")
        what = "nothing to tell apart" if len(classes) < 2 else "fit one against the rest, as y == label"
        raise ValueError(f"y must hold two classes; got {len(classes)} ({shown}): {what}.")
    return classes, torch.from_numpy(np.where(labels == classes[1], 1.0, -1.0))


def _as_labels(y: Any) -> np.ndarray:
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    values = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if values.dtype.kind == "O" and all(isinstance(v, str) for v in values.reshape(-1)):
        values = values.astype(str)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _is_missing(label: Any) -> bool:
    return label is None or label != label or type(label).__name__ == "NAType"


def _check_length(y: Any, n: int) -> None:
    if y.ndim != 1 or len(y) != n:
        raise ValueError(f"y must have the shape ({n},), one value for each row of X; got {tuple(y.shape)}.")


def median_distance(x: Tensor, most: int = 1000) -> float:
    """Return the median distance between different rows, of the first thousand; 1 where all rows are equal."""
    apart = torch.nn.functional.pdist(x[torch.linspace(0, len(x) - 1, min(most, len(x))).long()])
    apart = apart[apart > 0]
    return apart.median().item() if len(apart) else 1.0


def check_kernel(kernel: Kernel, x: Tensor) -> None:
    """Raise unless the kernel matrix is finite, symmetric and, to rounding, positive semidefinite.

    Raises:
        TypeError: if it is no kernel.
        ValueError: with what is wrong and at which rows.
    """
    matrix = kernel(x)
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"The kernel {kernel!r} is NaN or infinite between some rows of X. Rescale the columns of X.")
    size = matrix.diagonal().mean()
    if not size > 0:
        raise ValueError(f"The kernel {kernel!r} has no variance at any row of X: f is known to be its prior mean.")
    if (matrix - matrix.T).abs().max() > 1e-9 * matrix.diagonal().max():
        raise ValueError(f"The kernel {kernel!r} is not symmetric, so that it is no covariance function.")
    padded = matrix.clone()
    padded.diagonal().add_(1e-8 * size)
    if int(torch.linalg.cholesky_ex(padded).info):
        smallest = torch.linalg.eigvalsh(matrix)[0].item()
        raise ValueError(
            f"The kernel {kernel!r} is not positive definite on X: the smallest eigenvalue of its matrix is "
            f"{smallest:.3g}, so that it is no covariance function."
        )
