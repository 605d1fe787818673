"""How wide the kernels are: rules of thumb, cross-validation, and what a user passes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.models.density.cross_validation import LEAVE_ONE_OUT, best_factor
from probdl.models.density.plug_in import improved_sheather_jones
from probdl.models.density.smoothing import Kernel

RULES = ("auto", "scott", "silverman", "lscv", "likelihood", "isj")
SINGULAR = 1e-12  # smallest eigenvalue of a correlation matrix that counts as positive


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows that a bandwidth is chosen for.

    Attributes:
        x: (n, d), in the data's units.
        weights: (n,), that sum to 1.
        kernel: whose bandwidth it is; of a product, the bandwidth matrix is diagonal.
        ends: bounds (2, d) of the data.
    """

    x: Tensor
    weights: Tensor
    kernel: Kernel
    ends: Tensor

    @property
    def n(self) -> float:
        """The effective number of rows, 1/Σw² (Kish)."""
        return 1 / float(self.weights.square().sum())

    @property
    def root(self) -> Tensor:
        """The Cholesky factor of the rows' unbiased covariance, (d, d); for a product, of its diagonal.

        Raises:
            ValueError: if it is singular.
        """
        z = self.x - self.weights @ self.x
        covariance = z.T @ (z * self.weights[:, None]) / (1 - self.weights.square().sum())
        sd = covariance.diagonal().sqrt()
        if self.kernel.product:
            return torch.diag(sd)
        correlation = covariance / sd / sd[:, None]
        if not float(torch.linalg.eigvalsh(correlation)[0]) > SINGULAR:
            n, d = self.x.shape
            raise ValueError(
                f"x must spread in all directions, but the covariance of its {n} rows in {d} columns is singular: at "
                "least d + 1 rows are needed, and no column that others determine. Pass product=True for one bandwidth "
                "a column, or fewer columns, as the codes of a PCA."
            )
        return torch.linalg.cholesky(covariance)


def chosen(bandwidth: Any, sample: Sample) -> tuple[Tensor, str]:
    """Return the root L (d, d) of the bandwidth matrix, in the data's units, and how it was had.

    Args:
        bandwidth: a rule, a number, d numbers or a matrix.
        sample: the rows.

    Raises:
        ValueError: if the rule or the numbers do not fit the rows.
        ConvergenceError: where a criterion has no minimum.
    """
    if not isinstance(bandwidth, str):
        return _given(bandwidth, sample), "bandwidth as given"
    if bandwidth == "auto":
        return _auto(sample)
    return _by_rule(bandwidth, sample), f"bandwidth by {bandwidth!r}"


def _auto(sample: Sample) -> tuple[Tensor, str]:
    """Take the plug-in rule in one dimension where it has a solution, else Silverman's."""
    if sample.x.shape[1] > 1:
        return _by_rule("silverman", sample), "bandwidth by 'silverman' ('auto' for several columns)"
    try:
        return _by_rule("isj", sample), "bandwidth by 'isj' ('auto' for one column)"
    except ConvergenceError:
        return _by_rule("silverman", sample), "bandwidth by 'silverman' ('auto' where 'isj' has no solution)"


def _by_rule(rule: str, sample: Sample) -> Tensor:
    """Return L by a rule, which is one of the Gaussian kernel; others get the same smoothing."""
    n, d, canonical = sample.n, sample.x.shape[1], sample.kernel.canonical
    if rule == "isj":
        if d > 1:
            raise ValueError(f"bandwidth='isj' is for one column; got {d}. Pass 'silverman', 'lscv' or 'likelihood'.")
        found = improved_sheather_jones(sample.x[:, 0], sample.weights, *sample.ends[:, 0].tolist())
        return sample.x.new_full((1, 1), canonical * found)
    if rule in LEAVE_ONE_OUT:
        root = sample.root
        z = torch.linalg.solve_triangular(root, (sample.x - sample.x.mean(0)).T, upper=False).T
        return canonical * best_factor(rule, z, sample.weights, n ** (-1 / (d + 4))) * root
    factor = n ** (-1 / (d + 4)) * (1 if rule == "scott" else (4 / (d + 2)) ** (1 / (d + 4)))
    return canonical * factor * sample.root


def checked(bandwidth: Any) -> Any:
    """Return a bandwidth in a form that JSON holds, or raise for one that is none."""
    if isinstance(bandwidth, str):
        if bandwidth not in RULES:
            raise ValueError(f"bandwidth must be one of {', '.join(map(repr, RULES))}, or numbers; got {bandwidth!r}.")
        return bandwidth
    if isinstance(bandwidth, bool) or bandwidth is None:
        raise TypeError(f"bandwidth must be a rule, a number, d numbers or a (d, d) matrix; got {bandwidth!r}.")
    value = tensor([bandwidth] if isinstance(bandwidth, (int, float)) else bandwidth, "bandwidth")
    if value.ndim == 2:
        _root(value)  # raises
        return value.tolist()
    if value.ndim > 2 or not bool((value > 0).all()):
        raise ValueError(f"bandwidth must be positive: a number, d numbers or a (d, d) matrix; got {bandwidth!r}.")
    return float(value[0]) if isinstance(bandwidth, (int, float)) else value.tolist()


def _root(matrix: Tensor) -> Tensor:
    """Return the Cholesky factor of a bandwidth matrix, or raise."""
    square = matrix.shape[0] == matrix.shape[1]
    if square and torch.allclose(matrix, matrix.T, rtol=1e-10, atol=0):
        root, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return root
    raise ValueError(
        "bandwidth must be a symmetric positive definite matrix, the covariance of the kernel in the data's units "
        f"squared; got {matrix.tolist()}."
    )


def _given(bandwidth: Any, sample: Sample) -> Tensor:
    """Return L of the numbers that a user passed."""
    d = sample.x.shape[1]
    value = torch.as_tensor(bandwidth, dtype=sample.x.dtype, device=sample.x.device)
    if value.ndim and value.shape not in ((d,), (d, d)):
        raise ValueError(
            f"bandwidth must have shape () or ({d},) or ({d}, {d}) for {d} columns; got {tuple(value.shape)}."
        )
    if value.ndim < 2:
        return torch.diag(value.expand(d))
    if sample.kernel.product and bool((value - torch.diag(value.diagonal())).any()):
        raise ValueError("bandwidth must be a diagonal matrix with product=True or bounds; pass its d roots instead.")
    return _root(value)


def warn_of_ties(x: Tensor, rule: Any) -> None:
    """Warn where so many rows stand more than once that rules for continuous data mislead."""
    if rule not in ("isj", *LEAVE_ONE_OUT) and not (rule == "auto" and x.shape[1] == 1):
        return
    distinct = len(x.unique(dim=0))
    if distinct < 0.9 * len(x):
        warnings.warn(
            f"x has {len(x) - distinct} duplicates among {len(x)} rows, and bandwidth={rule!r} supposes none; "
            "it may come out too small. Pass 'silverman', or a bandwidth of at least the width of the rounding.",
            ConvergenceWarning,
            stacklevel=2,
        )
