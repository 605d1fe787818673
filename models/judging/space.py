"""Where rows are compared: one form for all of them, and units from the held-out ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form

HELD = "x_heldout"


@dataclass(frozen=True)
class Space:
    """The form of rows and the units in which their distances are taken.

    Attributes:
        form: of all tables together, so that each knows the categories of the others.
        shift, scale: of each of the d entries of a row.
        note: what the units are.
    """

    form: Form
    shift: Tensor
    scale: Tensor
    note: str

    @classmethod
    def of(cls, held: Any, others: Mapping[str, Any], how: str) -> Space:
        """Return the space of held-out rows, for other rows by name too.

        Args:
            held: rows (n, ...).
            others: rows that will be compared with them.
            how: "column", "shared", "none" or "auto", as ``standardise`` of the models.

        Raises:
            ValueError, TypeError: for rows that cannot be used, or columns that differ.
        """
        form = _form(held, others)
        x = form.check(held, HELD).double()
        rows = x.reshape(len(x), -1)
        if bool((rows == rows[0]).all()):
            raise ValueError(f"{HELD} must vary; all its {len(rows)} rows are equal, and no distance can be scaled.")
        how = ("column" if x.ndim <= 2 else "shared") if how == "auto" else how
        scale, note = _scale(rows, form, how)
        return cls(form, rows.mean(0), scale, note)

    def __call__(self, x: Any, name: str) -> Tensor:
        """Return rows as points (n, d), float64, on the device of the held-out rows."""
        try:
            rows = self.form.check(x, name).to(self.scale)
        except ValueError as error:
            raise ValueError(str(error).replace("as in fit", f"as {HELD}")) from error
        return (rows.reshape(len(rows), -1) - self.shift) / self.scale


def _form(held: Any, others: Mapping[str, Any]) -> Form:
    if not hasattr(held, "columns"):
        return Form.of(held, HELD)
    import pandas as pd

    tables = [x for x in others.values() if hasattr(x, "columns")]
    for name, x in others.items():
        _check_columns(held, x, name)
    return Form.of(pd.concat([held, *tables], ignore_index=True), HELD, categories=True)


def _check_columns(held: Any, x: Any, name: str) -> None:
    if hasattr(x, "columns") and list(x.columns) != list(held.columns):
        raise ValueError(
            f"{name} must have the columns of {HELD}, in the same order: {list(held.columns)}; got {list(x.columns)}. "
            f"Select them as {name}[{HELD}.columns]."
        )


def _scale(rows: Tensor, form: Form, how: str) -> tuple[Tensor, str]:
    """Return what each entry is divided by; a column of categories counts as a column of numbers with variance 1."""
    if how == "none":
        return torch.ones_like(rows[0]), "distances in the units of the data"
    variance = rows.var(0, correction=0)
    for block in form.blocks:
        variance[block.start : block.stop] = variance[block.start : block.stop].sum()
    if how == "shared":
        scale = variance.mean().sqrt().expand_as(variance)
        return scale, "distances in units of one scale for all entries, their mean standard deviation among x_heldout"
    varies = variance > 1e-24 * (1 + rows.square().mean(0))
    note = "distances after each column was scaled to variance 1 among x_heldout"
    if not bool(varies.all()):
        note += f"; {int((~varies).sum())} that do not vary there keep their unit"
    return torch.where(varies, variance, 1.0).sqrt(), note
