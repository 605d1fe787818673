r"""What all covariance functions share: names for their hyperparameters, and sums and products.

A sum of covariance functions is the covariance of a sum of independent processes; a product is one too. A kernel is a
value: it is not changed by a fit, which returns another one with other hyperparameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Kernel:
    """A covariance function k(x, x') of inputs (n, d), with positive hyperparameters that have names.

    Names are those of the simple kernels it is made of, numbered where one occurs twice: "rbf.length", "rbf2.length".

    Example:
        >>> import torch
        >>> from probdl.models.kernels import RBF, White
        >>> k = RBF(length=2.0) + White(0.1)  # sums and products of kernels are kernels
        >>> isinstance(k, Kernel), k.diagonal(torch.zeros(3, 1))
        (True, tensor([1.1000, 1.1000, 1.1000]))
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances of f(x) and f(y), (n, m); without ``y`` those of f(x) with itself, (n, n)."""
        raise NotImplementedError

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the prior variances of f(x), (n,)."""
        raise NotImplementedError

    def leaves(self) -> tuple[Leaf, ...]:
        """Return the simple kernels that it is made of, from left to right."""
        raise NotImplementedError

    def rebuilt(self, leaves: Iterator[Leaf]) -> Kernel:
        """Return the same expression of other simple kernels."""
        raise NotImplementedError

    def __add__(self, other: Kernel) -> Kernel:
        return Sum(self, _checked(other, "+"))

    def __mul__(self, other: Kernel) -> Kernel:
        return _product(self, _checked(other, "*"))

    def prefixes(self) -> tuple[str, ...]:
        """Return the name of each simple kernel."""
        total, seen, names = Counter(leaf.name for leaf in self.leaves()), Counter[str](), []
        for leaf in self.leaves():
            seen[leaf.name] += 1
            names.append(leaf.name if total[leaf.name] == 1 else f"{leaf.name}{seen[leaf.name]}")
        return tuple(names)

    @property
    def hyperparameters(self) -> dict[str, Tensor]:
        """Name to value: a scalar, or one for each column."""
        return {f"{p}.{k}": v for p, leaf in zip(self.prefixes(), self.leaves()) for k, v in leaf.values.items()}

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the hyperparameters that a fit may change."""
        pairs = zip(self.prefixes(), self.leaves())
        return tuple(f"{p}.{k}" for p, leaf in pairs for k in leaf.values if k not in leaf.fixed)

    def replaced(self, values: Mapping[str, Any]) -> Kernel:
        """Return the kernel with other values for some of its hyperparameters.

        Raises:
            ValueError: for a name that is not there, or a value that is not positive.
        """
        unknown = [name for name in values if name not in self.hyperparameters]
        if unknown:
            raise ValueError(f"There is no hyperparameter {unknown[0]!r}; there are {list(self.hyperparameters)}.")
        return self.rebuilt(
            leaf.with_values({k: values.get(f"{p}.{k}", v) for k, v in leaf.values.items()})
            for p, leaf in zip(self.prefixes(), self.leaves())
        )

    def for_columns(self, d: int) -> Kernel:
        """Return the kernel with one hyperparameter for each of d columns where ``ard=True`` asks for it.

        Raises:
            ValueError: if a kernel has another number of hyperparameters, or reads columns that are not there.
        """
        return self.rebuilt(leaf.for_width(d) for leaf in self.leaves())

    def __repr__(self) -> str:
        raise NotImplementedError


class Leaf(Kernel):
    """A simple kernel: its hyperparameters by name, those that stay fixed, and the columns that it reads."""

    name = "kernel"
    by_column: tuple[str, ...] = ()  # the hyperparameters of which there may be one for each column

    def __init__(
        self, values: Mapping[str, Any], *, columns: Sequence[int] | None, ard: bool, fixed: Sequence[str]
    ) -> None:
        self.values = {key: _positive(value, f"{self.name}.{key}") for key, value in values.items()}
        self.columns = None if columns is None else tuple(columns)
        self.ard, self.fixed = ard, tuple(fixed)
        unknown = [key for key in self.fixed if key not in self.values]
        if isinstance(fixed, str) or unknown:
            raise ValueError(f"fixed must list names among {list(self.values)}; got {fixed!r}.")
        for key, value in self.values.items():
            if value.ndim > (key in self.by_column):
                raise ValueError(f"{self.name}.{key} must be one number; got {value.numel()}.")

    def _like(self, values: Mapping[str, Any], fixed: Sequence[str]) -> Leaf:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        Leaf.__init__(other, values, columns=self.columns, ard=self.ard, fixed=fixed)
        return other

    def with_values(self, values: Mapping[str, Any]) -> Leaf:
        """Return the kernel with these hyperparameters."""
        return self._like(values, self.fixed)

    def with_fixed(self, key: str) -> Leaf:
        """Return the kernel with one more hyperparameter that a fit leaves alone."""
        return self._like(self.values, (*self.fixed, key))

    def for_width(self, d: int) -> Leaf:
        """Return the kernel for inputs of d columns, checked."""
        if self.columns is not None and not all(-d <= c < d for c in self.columns):
            raise ValueError(f"The {self.name} kernel reads the columns {list(self.columns)}; the inputs have {d}.")
        width = d if self.columns is None else len(self.columns)
        values = dict(self.values)
        for key in self.by_column:
            if values[key].ndim == 1 and len(values[key]) != width:
                raise ValueError(f"{self.name}.{key} has {len(values[key])} values for {width} columns; give one each.")
            if self.ard and values[key].ndim == 0:
                values[key] = values[key].expand(width).clone()
        return self.with_values(values)

    def read(self, x: Tensor) -> Tensor:
        """Return the columns that the kernel reads."""
        return x if self.columns is None else x[:, list(self.columns)]

    def value(self, key: str, like: Tensor) -> Tensor:
        """Return a hyperparameter in the type of the inputs."""
        return self.values[key].to(dtype=like.dtype, device=like.device)

    def leaves(self) -> tuple[Leaf, ...]:
        """Return the kernel itself."""
        return (self,)

    def rebuilt(self, leaves: Iterator[Leaf]) -> Kernel:
        """Return the next simple kernel."""
        return next(iter(leaves))

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the prior variances, equal everywhere unless a kernel says otherwise."""
        return self.value("variance", x).expand(len(x))

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={_shown(value)}" for key, value in self.values.items())
        return f"{type(self).__name__}({values})"


class _Pair(Kernel):
    def __init__(self, left: Kernel, right: Kernel) -> None:
        self.left, self.right = left, right

    def leaves(self) -> tuple[Leaf, ...]:
        """Return the simple kernels of both."""
        return self.left.leaves() + self.right.leaves()

    def rebuilt(self, leaves: Iterator[Leaf]) -> Kernel:
        """Return the same expression of other simple kernels."""
        leaves = iter(leaves)
        return type(self)(self.left.rebuilt(leaves), self.right.rebuilt(leaves))


class Sum(_Pair):
    """k₁ + k₂, the covariance of the sum of two independent processes; written ``k1 + k2``.

    Example:
        >>> import torch
        >>> from probdl.models.kernels import RBF, Constant
        >>> (RBF() + Constant(2.0))(torch.zeros(1, 1))
        tensor([[3.]])
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        return self.left(x, y) + self.right(x, y)

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the prior variances (n,)."""
        return self.left.diagonal(x) + self.right.diagonal(x)

    def __repr__(self) -> str:
        return f"{self.left!r} + {self.right!r}"


class Product(_Pair):
    """k₁ · k₂, written ``k1 * k2``; only one of their variances is free, as only their product is known.

    Example:
        >>> import torch
        >>> from probdl.models.kernels import RBF, Periodic
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> (RBF(length=2.0) * Periodic(period=1.0))(x)[0, 1]  # a whole period apart: the RBF's, exp(-1/8)
        tensor(0.8825)
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the covariances (n, m)."""
        return self.left(x, y) * self.right(x, y)

    def diagonal(self, x: Tensor) -> Tensor:
        """Return the prior variances (n,)."""
        return self.left.diagonal(x) * self.right.diagonal(x)

    def __repr__(self) -> str:
        return " * ".join(f"({k!r})" if isinstance(k, Sum) else repr(k) for k in (self.left, self.right))


def _product(left: Kernel, right: Kernel) -> Kernel:
    """Return the product with the variance of one factor fixed: of the right one, unless that is a sum."""
    if isinstance(right, Sum) and not isinstance(left, Sum):
        return Product(_without_scale(left), right)
    return Product(left, _without_scale(right))


def _without_scale(kernel: Kernel) -> Kernel:
    """Return the kernel with the first of its free variances, if any, fixed."""
    leaves = list(kernel.leaves())
    for i, leaf in enumerate(leaves):
        if "variance" in leaf.values and "variance" not in leaf.fixed and leaf.values["variance"].ndim == 0:
            leaves[i] = leaf.with_fixed("variance")
            break
    return kernel.rebuilt(iter(leaves))


def _checked(other: Any, sign: str) -> Kernel:
    if not isinstance(other, Kernel):
        raise TypeError(f"kernel {sign} expects another kernel; got {type(other).__name__}. A number c is Constant(c).")
    return other


def _positive(value: Any, name: str) -> Tensor:
    try:
        number = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a positive number, or one for each column; got {value!r}.") from error
    if number.ndim > 1 or number.numel() == 0 or not bool((torch.isfinite(number) & (number > 0)).all()):
        raise ValueError(f"{name} must be positive and finite; got {value!r}.")
    return number


def _shown(value: Tensor) -> str:
    numbers = [f"{v:.4g}" for v in value.detach().reshape(-1).tolist()]
    return numbers[0] if value.ndim == 0 else f"[{', '.join(numbers)}]"
