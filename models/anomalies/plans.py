"""Which rows fit, which calibrate and which are judged; no row does two of these at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.models.form import Form
from probdl.models.units import Units


@dataclass(frozen=True, eq=False)
class Plan:
    """Rows of the pool by their index.

    Attributes:
        fit, calibrate, judge: (n,) each, disjoint; of folds, whose rows calibrate one another, the second is empty.
    """

    fit: Tensor
    calibrate: Tensor
    judge: Tensor


def split_plan(train: int, judged: int, share: float, seed: int) -> Plan:
    """Return the plan with rows to learn from: ``train`` rows, split at random, and ``judged`` rows after them."""
    order = _shuffled(train, seed)
    held = _held(train, share)
    return Plan(order[held:], order[:held], torch.arange(train, train + judged))


def fold_plans(n: int, folds: int, seed: int) -> list[Plan]:
    """Return a plan for each of some folds of n rows, drawn at random: all rows outside of it fit, and it is judged."""
    if n < 2 * folds:
        raise ValueError(f"x must have at least two rows for each of {folds} folds; got {n}. Pass train= or more rows.")
    parts, nothing = _shuffled(n, seed).tensor_split(folds), torch.zeros(0, dtype=torch.long)
    return [Plan(torch.cat([*parts[:k], *parts[k + 1 :]]), nothing, part) for k, part in enumerate(parts)]


def _held(n: int, share: float) -> int:
    held = round(n * share)
    if held < 1 or n - held < 2:
        raise ValueError(
            f"calibration must leave a row to calibrate and two to fit; {share:g} of {n} rows is {held}. Pass more "
            "rows or another share."
        )
    return held


def _shuffled(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows that are passed, those of ``train`` first.

    Attributes:
        raw: as they were passed, a DataFrame or a tensor (n, ...).
        rows: the same as numbers, float64 on the CPU, columns of categories as zeros and ones.
        form: of them.
        train: how many are of ``train``; 0 without.
        index: of the rows that are judged.
    """

    raw: Any
    rows: Tensor
    form: Form
    train: int
    index: Any

    @classmethod
    def of(cls, x: Any, train: Any) -> Pool:
        """Return the pool, or raise for rows that cannot be used."""
        import pandas as pd

        tables = [hasattr(rows, "columns") for rows in (x, train) if rows is not None]
        if len(set(tables)) > 1 or (train is not None and tables[0] and list(x.columns) != list(train.columns)):
            raise ValueError(
                "train must be like x: both arrays of one shape, or both DataFrames with the same columns."
            )
        if tables[0]:
            raw = x if train is None else pd.concat([train, x], ignore_index=True)
            index = x.index
        else:
            raw, index = _stacked(x, train), pd.RangeIndex(len(x))
        form = Form.of(raw, categories=True)
        return cls(raw, form.check(raw).double().cpu(), form, 0 if train is None else len(train), index)

    def part(self, rows: Tensor) -> Any:
        """Return some rows as they were passed."""
        return self.raw.iloc[rows.numpy()] if hasattr(self.raw, "columns") else self.raw[rows.to(self.raw.device)]

    def numbers(self, plan: Plan) -> tuple[Tensor, list[str]]:
        """Return all rows (n, d) in units of the rows that fit, by which no other row is seen, and what was left out.

        Columns of a table that are constant in the rows that fit are left out; categories keep their zeros and ones.
        """
        fit = self.rows[plan.fit]
        if self.rows.ndim > 2:
            return Units.of(fit, "shared").inward(self.rows).flatten(1), []
        rows = self.rows.reshape(len(self.rows), -1)
        fit, varies = rows[plan.fit], (rows[plan.fit] != rows[plan.fit[0]]).any(0)
        if not bool(varies.any()):
            raise ValueError("x must vary; all rows that fit the models are equal, and there is nothing to learn.")
        units = Units.of(fit[:, varies], "column", plain=~self.form.numeric.reshape(-1)[varies])
        return units.inward(rows[:, varies]), self._left_out(~varies, rows, plan)

    def _left_out(self, gone: Tensor, rows: Tensor, plan: Plan) -> list[str]:
        names = self.form.entries or range(rows.shape[1])
        differ = int((rows[plan.judge][:, gone] != rows[plan.fit[0]][gone]).any(1).sum())
        if not bool(gone.any()):
            return []
        found = list(dict.fromkeys(name for name, g in zip(names, gone.tolist()) if g))
        return [
            f"columns constant in the rows that fit are left out (of categories the values that they lack): {found}; "
            f"{differ} judged rows differ there, which no score sees"
        ]


def _stacked(x: Any, train: Any) -> Tensor:
    x = tensor(x, "x")
    if train is None:
        return x
    train = tensor(train, "train").to(x.device)
    if train.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"train must have rows like those of x, of shape {tuple(x.shape[1:])}; got {tuple(train.shape[1:])}."
        )
    return torch.cat([train, x])
