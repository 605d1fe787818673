"""The rows of a program in groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.groups.loading import GroupModel, in_memory
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.minibatches import RowsOfArguments, row_arguments
from probdl.inference.stochastic.row_plates import _row_plate, check_parts


def split_rows(program: Program, groups: Any, plate: str | None) -> tuple[list[GroupModel], list[Tensor]]:
    """Return the program's rows as groups, and which rows they are.

    Args:
        program: the model with all its data.
        groups: how many of about equal size, in the order of the rows; a label for each row; or the name of the
            argument that holds the labels.
        plate: over the rows; None finds it.

    Raises:
        ValueError: if the rows cannot be grouped like that.
    """
    name, n = _row_plate(program, plate)
    rows = _rows_of(program, groups, n)
    source = RowsOfArguments(program, name, n, max(1, n // 2))
    check_parts(source)
    columns = row_arguments(program, n)
    device = str(program.device)
    parts = [
        GroupModel(program.model, _part(program, columns, which), program.dtype, device, (name,), label)
        for label, which in rows.items()
    ]
    return parts, list(rows.values())


def _part(program: Program, columns: list[int | str], rows: Tensor) -> Any:
    def of(key: int | str, x: Any) -> Any:
        return x.index_select(0, rows.to(x.device)) if key in columns else x

    args = tuple(of(i, x) for i, x in enumerate(program.args))
    return in_memory(args, {key: of(key, x) for key, x in program.kwargs.items()})


def _rows_of(program: Program, groups: Any, n: int) -> dict[str, Tensor]:
    """Return the rows of each group, by its label."""
    if isinstance(groups, bool) or (isinstance(groups, int) and not 2 <= groups <= n):
        raise ValueError(f"groups must be between 2 and the {n} rows; got {groups!r}.")
    if isinstance(groups, int):
        return {str(i): rows for i, rows in enumerate(torch.arange(n).tensor_split(groups))}
    labels = _labels(program, groups)
    if len(labels) != n:
        raise ValueError(f"groups must hold a label for each of the {n} rows; got {len(labels)} labels.")
    values, codes = _codes(labels)
    if len(values) < 2:
        raise ValueError(f"groups must hold at least 2 different labels; all rows have {values[0]!r}.")
    return {str(value): (codes == i).nonzero()[:, 0] for i, value in enumerate(values)}


def _labels(program: Program, groups: Any) -> Any:
    if not isinstance(groups, str):
        return groups
    named = dict(zip(_names(program), program.args)) | program.kwargs
    if groups not in named:
        raise ValueError(f"groups names the argument {groups!r}, but the model was given {', '.join(named)}.")
    return named[groups]


def _names(program: Program) -> list[str]:
    from probdl.inference.programs.arguments import _argument_names

    return _argument_names(program.model, program.args, program.kwargs)


def _codes(labels: Any) -> tuple[list, Tensor]:
    """Return the sorted different labels, which may be text, and the place of each row's among them."""
    import pandas as pd

    if isinstance(labels, Tensor):
        labels = labels.cpu().numpy()
    if getattr(labels, "ndim", 1) != 1:
        raise ValueError(f"groups must have shape (n,); got {tuple(labels.shape)}.")
    codes, values = pd.factorize(pd.Series(labels), sort=True)
    if (codes < 0).any():
        raise ValueError(f"groups must hold a label for each row; {int((codes < 0).sum())} are missing.")
    return list(values), torch.from_numpy(codes.astype("int64"))
