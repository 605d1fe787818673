"""What all models share that learn from rows alone, or from rows given a condition: ``fit``, and the way to a file."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from probdl.models.arguments import one_of
from probdl.models.condition import Condition
from probdl.models.form import Form
from probdl.models.held_out import split
from probdl.models.network_model import Training
from probdl.models.pairs import is_pair, parts
from probdl.models.row_model import RowModel
from probdl.models.units import WAYS, Units
from probdl.processes import chosen_device

Model = TypeVar("Model", bound="UnsupervisedModel")
Batch = tuple[Tensor, ...]


class UnsupervisedModel(RowModel):
    """A model of rows, fitted without labels; a subclass says what it finds in them, what it builds and how it learns.

    Args:
        networks, dtype: as of ``NetworkModel``.
        standardise: "shared", one shift and scale for all entries of a row, as images need; "column", one for each
            entry; "none"; "auto", "column" for tables and "shared" for the rest.
    """

    CONDITIONAL: ClassVar[bool] = False  # whether it can be fitted given a condition
    BATCH: ClassVar[int] = 128

    def __init__(self, networks: dict[str, nn.Module | None], dtype: torch.dtype, *, standardise: str = "auto") -> None:
        super().__init__(networks, dtype)
        self.standardise = one_of(standardise, WAYS, "standardise")
        self.condition: Condition | None = None

    def fit(
        self: Model,
        x: Any,
        y: None = None,
        *,
        condition: Any = None,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        validation: Any = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        progress: bool | None = None,
        checkpoint: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> Model:
        """Fit to the rows of ``x``, anew each time; networks that were passed start from the weights they came with.

        Args:
            x: array-like (n, ...): a table, whose columns of text or categories are zeros and ones inside; or images
                (n, c, h, w). Where a model takes missing entries, they are NaN or None.
            y: must be None: these models learn from ``x`` alone, or given a ``condition``.
            condition: what each row is given, for models that can be conditioned: labels (n,), of whole numbers, text
                or booleans; or covariates (n, k), numbers or a DataFrame.
            epochs, steps: how long at most; None: as the model chooses, which its docstring says.
            batch_size: rows in a step; None: the model's own choice.
            validation: "auto" keeps a tenth back (nothing of fewer than 20 rows), and the fit ends with the state that
                is best on it; a fraction; rows of your own, or with a condition a pair (x, condition); or None: all
                rows train, and the fit runs to its end.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: of the initial weights, the rows kept back, the order of rows and the noise.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. Ctrl-C stops the fit with a ``ConvergenceWarning``, and the model is usable with
            what it has learnt; ``message`` says how the fit ended, and ``history`` has its course.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used; the model is then as it was before.
            ConvergenceError: if a loss becomes NaN or infinite; the model has its last good state.
        """
        if y is not None:
            hint = "Pass labels as condition=." if self.CONDITIONAL else "Put further columns into x."
            raise ValueError(f"y must be None: a {type(self).__name__} learns from x alone. {hint}")
        form = self._form_of(x)
        rows = form.check(x, missing=self.MISSING)
        if len(rows) < 2:
            raise ValueError("x must hold at least 2 rows, of which a distribution can be learnt; got 1.")
        with self._or_as_before():
            self.form = form
            self.condition, given = self._conditioned(condition, len(rows))
            train, held = self._divided(rows, given, validation, seed)
            self._study(train[0], None if held is None else held[0])
            self._build(seed)
            how = Training.of(len(train[0]), batch_size, self.BATCH, epochs=epochs, steps=steps, seed=seed,
                              progress=progress, checkpoint=checkpoint, resume=resume)  # fmt: skip
        self.to(chosen_device(device, x))
        self._learn(self._placed(train), None if held is None else self._placed(held), how)
        return self

    def _form_of(self, x: Any) -> Form:
        """Return the form of the data that ``fit`` got, or raise for data that cannot be used."""
        if _are_sequences(x):
            name = type(self).__name__
            raise TypeError(f"x must be rows of one shape; got sequences. A SequenceVAE takes them, a {name} does not.")
        return Form.of(x, categories=True, missing=self.MISSING)

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        """Find what the model needs to know of the data, at least ``units``; raise for data that it cannot take.

        Args:
            train, held: rows in the data's own units; the second may be None.
        """
        self._check_support(train)
        if held is not None:
            self._check_support(held)
        self.units = Units.of(train, self.standardise, self.form)

    @abstractmethod
    def _build(self, seed: int) -> None:
        """Build the networks for ``form``, ``units`` and ``condition``, in ``dtype``; also before a file is loaded."""

    @abstractmethod
    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        """Train on rows (u,), or (u, c) with a condition, in standardised units."""

    @property
    def _condition_size(self) -> int:
        """How many numbers the condition of a row has."""
        return 0 if self.condition is None else self.condition.size

    def _condition_of(self, condition: Any, n: int) -> Tensor | None:
        """Return the condition of n rows for the networks, (n, size), or None for a model without one, or raise."""
        name = type(self).__name__
        if self.condition is None and condition is None:
            return None
        if self.condition is None:
            raise ValueError(f"condition must be left out: this {name} was fitted without one.")
        if condition is None:
            raise ValueError(f"condition must be given: this {name} was fitted with one. Pass one entry for each row.")
        return self.condition.rows(condition, n).to(self._device, self.dtype)

    def _batch(self, x: Any, condition: Any) -> Batch:
        """Return rows of a user's, and their condition if there is one, as the networks take them."""
        u = self._inward(x)
        c = self._condition_of(condition, len(u))
        return (u,) if c is None else (u, c)

    def _conditioned(self, condition: Any, n: int) -> tuple[Condition | None, Tensor | None]:
        if condition is None:
            return None, None
        if not self.CONDITIONAL:
            raise ValueError(
                f"condition must be None: a {type(self).__name__} cannot be conditioned. A VAE or a GAN can."
            )
        found = Condition.of(condition)
        return found, found.rows(condition, n)

    def _divided(self, rows: Tensor, given: Tensor | None, validation: Any, seed: int) -> tuple[Batch, Batch | None]:
        """Return what trains and what validates."""
        form, missing = self._form, self.MISSING
        if given is None:
            train, held = split(rows, validation, form, seed, missing=missing)
            return (train,), None if held is None else (held,)
        found = [(rows[part.to(rows.device)], given[part]) for part in parts(len(rows), validation, seed)]
        if is_pair(validation):
            own = form.check(validation[0], "validation[0]", missing=missing)
            assert self.condition is not None
            found.append((own, self.condition.rows(validation[1], len(own))))
        return found[0], found[1] if len(found) > 1 else None

    def _placed(self, batch: Batch) -> Batch:
        """Return checked rows and their conditions in standardised units, on the networks' device."""
        return (self._standardised(batch[0]), *(c.to(self._device, self.dtype) for c in batch[1:]))

    @property
    def _form(self) -> Form:
        assert self.form is not None
        return self.form

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "condition": self.condition and self.condition.to_json()}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.form, self.units = self._form_and_units(found)
        self.condition = found["condition"] and Condition.from_json(found["condition"])
        self._build(seed=0)


def _are_sequences(x: Any) -> bool:
    """Whether it is a list of strings, or of arrays (T_i, ...) that differ in length."""
    if not isinstance(x, (list, tuple)) or not x:
        return False
    return isinstance(x[0], str) or (np.ndim(x[0]) > 1 and len({*map(len, x)}) > 1)
