"""What a model is conditioned on: labels, or covariates, as numbers that its networks take beside a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import one_hot

from probdl.models.form import Form
from probdl.models.labels import Labels
from probdl.models.units import Units

NAME = "condition"


class Condition(nn.Module):
    """The labels or covariates that ``fit`` saw, and how they become rows (n, size) of zeros and ones, or standardised.

    Args:
        labels: the classes of labels; or None.
        form, units: of covariates; or None.

    Example:
        >>> condition = Condition.of(["cat", "dog", "cat"])
        >>> condition.size, condition.rows("dog", 2).tolist()
        (2, [[0.0, 1.0], [0.0, 1.0]])
    """

    def __init__(self, labels: Labels | None, form: Form | None = None, units: Units | None = None) -> None:
        super().__init__()
        self.labels, self.form, self.units = labels, form, units

    @classmethod
    def of(cls, condition: Any) -> Condition:
        """Return what whole numbers, text or booleans (n,) are, labels, or numbers (n,) or (n, k), covariates.

        Raises:
            ValueError, TypeError: for anything else, missing entries, or covariates that do not vary.
        """
        if _are_labels(condition):
            return cls(Labels.of(condition, NAME))
        form = Form.of(condition, NAME, categories=True)
        if len(form.shape) > 1:
            raise ValueError(f"{NAME} must be labels (n,) or covariates (n, k); got rows of shape {form.shape}.")
        try:
            return cls(None, form, Units.of(form.check(condition, NAME), "column", form))
        except ValueError as error:
            raise ValueError(str(error).replace("x must", f"{NAME} must")) from error

    @property
    def size(self) -> int:
        """How many numbers a row becomes."""
        if self.labels is not None:
            return len(self.labels)
        assert self.form is not None
        return self.form.shape[0] if self.form.shape else 1

    def rows(self, condition: Any, n: int) -> Tensor:
        """Return labels or covariates of n rows as numbers (n, size), float64.

        Args:
            condition: like those of ``fit``, one for each row; or a single one, for all.
            n: how many.

        Raises:
            ValueError, TypeError: for another number, or labels or covariates unlike those of ``fit``.
        """
        if np.ndim(condition) == 0 or isinstance(condition, str):
            condition = [condition] * n
        if self.labels is not None:
            return one_hot(self.labels.indices(condition, n, NAME), len(self.labels)).double()
        assert self.form is not None
        assert self.units is not None
        found = self.form.check(condition, NAME)
        if len(found) != n:
            raise ValueError(f"{NAME} must have one entry for each row, {n}; got {len(found)}.")
        return self.units.inward(found).double().reshape(n, -1)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold; the units are in the state of the module."""
        return {"labels": self.labels and self.labels.to_json(), "form": self.form and self.form.to_json()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Condition:
        """Return what ``to_json`` wrote, with units whose numbers are loaded afterwards."""
        if found["labels"] is not None:
            return cls(Labels.from_json(found["labels"]))
        form = Form.from_json(found["form"])
        return cls(None, form, Units.plain(form.shape, each=True))


def _are_labels(condition: Any) -> bool:
    """Whether it is one-dimensional, and not of numbers with decimals."""
    if isinstance(condition, Tensor):
        return condition.ndim == 1 and not condition.is_floating_point()
    if hasattr(condition, "columns"):
        return False
    array = np.asarray(condition)
    return array.ndim == 1 and array.dtype.kind != "f"
