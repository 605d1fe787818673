"""Groups that the user passes, so that no process needs to hold more than one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from probdl.inference.groups.loading import GroupModel, as_group
from probdl.inference.programs.program import Program


class FirstGroup(Program):
    """The program of the first group, standing for a model whose data are held nowhere as a whole."""

    groups: list[GroupModel]

    def require_all_rows(self) -> None:
        """Raise a ValueError once it stands for all groups."""
        if hasattr(self, "groups"):
            raise ValueError(f"Only the first of the {len(self.groups)} groups is held here, and this needs all data.")
        super().require_all_rows()


def read_groups(
    model: Callable, args: tuple, kwargs: dict[str, Any], *, dtype: torch.dtype, device: str | torch.device
) -> Program:
    """Return the program of the first group, which knows all groups.

    Raises:
        TypeError: if ``fit`` was not passed one iterable of groups.
        ValueError: if there are fewer than two.
    """
    if len(args) != 1 or kwargs or not hasattr(args[0], "__iter__"):
        raise TypeError(
            "With groups='given', pass fit one iterable of groups, each a tuple of the model's arguments or a callable "
            f"that loads one; got {len(args) + len(kwargs)} arguments."
        )
    items = list(args[0])
    if len(items) < 2:
        raise ValueError(f"With groups='given', pass fit at least two groups; got {len(items)}.")
    data = [as_group(item, f"Group {i}") for i, item in enumerate(items)]
    first = data[0].arguments()
    program = FirstGroup(model, *first, dtype=dtype, device=device)
    program.require_all_rows()
    device = str(program.device)
    program.groups = [GroupModel(model, x, dtype, device, plates=None, label=str(i)) for i, x in enumerate(data)]
    # Predictions and checks then know that the data are not here.
    program.stream, program.subsampled = program.groups, {"groups": (len(items), 1)}  # type: ignore[attr-defined]
    return program
