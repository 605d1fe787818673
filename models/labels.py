"""Labels of any kind, and the class indices that networks see instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS: dict[type, str] = {bool: "booleans", int: "whole numbers", str: "text"}
Label = bool | int | str


@dataclass(frozen=True)
class Labels:
    """The classes that ``fit`` saw, in the order of their indices.

    Attributes:
        classes: the labels themselves, whole numbers, text or booleans; sorted, or in the order of a Categorical.

    Example:
        >>> labels = Labels.of(["cat", "dog", "cat"])
        >>> labels.classes, labels.indices(["dog", "cat"])
        (('cat', 'dog'), tensor([1, 0]))
        >>> labels.named(torch.tensor([0, 0, 1])).tolist()
        ['cat', 'cat', 'dog']
    """

    classes: tuple[Label, ...]

    @classmethod
    def of(cls, y: Any, name: str = "y") -> Labels:
        """Return the classes of array-like labels (n,); categories of a Categorical that do not occur are left out.

        Raises:
            TypeError: for labels that are not all whole numbers, all text or all booleans.
            ValueError: for missing labels (it says where), another shape, or fewer than two classes.
        """
        values = _values(y, name)
        order = _categories(y)
        seen = set(values)
        classes = tuple(sorted(seen) if order is None else [c for c in order if c in seen])
        if len(classes) < 2:
            raise ValueError(f"{name} must hold at least two classes; all {len(values)} labels are {classes[0]!r}.")
        return cls(classes)

    def indices(self, y: Any, n: int | None = None, name: str = "y") -> Tensor:
        """Return the index of each label's class, (n,) int64.

        Args:
            y: array-like (n,): tensor, NumPy array, Series, Categorical, or list.
            n: how many labels there must be; None: any number.
            name: what to call the argument in errors.

        Raises:
            TypeError: for labels of another kind than those of ``fit``.
            ValueError: for labels that ``fit`` did not see (it names them), missing labels, or another number.
        """
        values = _values(y, name)
        if n is not None and len(values) != n:
            raise ValueError(f"{name} must have one label for each row, {n}; got {len(values)}.")
        if isinstance(values[0], str) != isinstance(self.classes[0], str):
            want, got = KINDS[type(self.classes[0])], KINDS[type(values[0])]
            raise TypeError(f"{name} must hold labels as in fit, {want} such as {self.classes[0]!r}; got {got}.")
        index = {label: i for i, label in enumerate(self.classes)}
        if unseen := {v: None for v in values if v not in index}:
            raise ValueError(
                f"{name} has labels that fit did not see: {_some(list(unseen))}, first at position "
                f"{values.index(next(iter(unseen)))}. The classes are {_some(self.classes)}."
            )
        return torch.tensor([index[v] for v in values])

    def named(self, indices: Tensor) -> Tensor | np.ndarray:
        """Return the labels of class indices, in their shape: an array of text, or a tensor of numbers or booleans."""
        if isinstance(self.classes[0], str):
            return np.array(self.classes)[indices.cpu().numpy()]
        return torch.tensor(self.classes, device=indices.device)[indices]

    def __len__(self) -> int:
        return len(self.classes)

    def to_json(self) -> list[Label]:
        """Return what JSON can hold."""
        return list(self.classes)

    @classmethod
    def from_json(cls, found: list[Label]) -> Labels:
        """Return the labels that ``to_json`` wrote.

        Raises:
            TypeError: for anything else.
        """
        if not isinstance(found, list) or len(found) < 2 or {type(c) for c in found} - set(KINDS):
            raise TypeError(f"classes must be a list of at least two labels; got {found!r}.")
        return cls(tuple(found))


def _values(y: Any, name: str) -> list[Label]:
    """Return labels as Python values of one kind, or say which are missing, or of which kinds they are."""
    values = _flat(y, name)
    if missing := [i for i, v in enumerate(values) if _is_missing(v)]:
        raise ValueError(
            f"{name} must have a label everywhere; {len(missing)} of {len(values)} are missing (None or NaN), at "
            f"positions {_some(missing)}. Drop those rows first."
        )
    values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    kinds = {type(v) for v in values}
    if len(kinds) > 1 or kinds - set(KINDS):
        got = " and ".join(sorted(kind.__name__ for kind in kinds))
        hint = " Numbers with decimals are measurements, not classes." if float in kinds else ""
        raise TypeError(f"{name} must hold labels, all whole numbers, all text or all booleans; got {got}.{hint}")
    return values


def _flat(y: Any, name: str) -> list[Any]:
    """Return array-like labels (n,) or (n, 1) as a list."""
    if isinstance(y, str) or not (hasattr(y, "__len__") and hasattr(y, "__getitem__")):
        raise TypeError(f"{name} must be array-like labels of shape (n,); got {type(y).__name__}.")
    array = _array(y)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1:
        hint = " Pass one-hot rows as y.argmax(1)." if array.ndim == 2 else ""
        raise ValueError(f"{name} must have shape (n,), one label for each row; got {array.shape}.{hint}")
    if not len(array):
        raise ValueError(f"{name} is empty; pass at least one label.")
    return array.tolist()


def _array(y: Any) -> np.ndarray:
    """Return labels as an array that keeps each label as it is."""
    if isinstance(y, Tensor):
        return y.detach().cpu().numpy()
    if not isinstance(y, (list, tuple)):
        return y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    plain = [v.item() if isinstance(v, (Tensor, np.generic)) and v.ndim == 0 else v for v in y]
    if any(isinstance(v, (list, tuple, np.ndarray, Tensor)) for v in plain):
        return np.array(plain, dtype=object)
    array = np.empty(len(plain), dtype=object)  # np.asarray would make text of a mixture
    array[:] = plain
    return array


def _categories(y: Any) -> list[Any] | None:
    """Return the categories of a Categorical, or of a Series of them, in their order; None for anything else."""
    found = getattr(y, "cat", y)
    return found.categories.tolist() if hasattr(found, "categories") else None


def _is_missing(label: Any) -> bool:
    return (
        label is None or type(label).__name__ in ("NAType", "NaTType") or (isinstance(label, float) and label != label)
    )


def _some(things: Sequence[Any]) -> str:
    """Return the first five of some things, and how many more there are."""
    return ", ".join(map(repr, things[:5])) + (f" and {len(things) - 5} more" if len(things) > 5 else "")
