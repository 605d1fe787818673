"""The data of one group: in memory, or loaded where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from probdl.inference.programs.program import Program


@dataclass(frozen=True)
class GroupData:
    """The arguments of the model for one group.

    Attributes:
        args: positional arguments. Tensors are kept as arrays, which joblib shares between processes by mapped files.
        kwargs: keyword arguments.
        load: where it is given, returns the arguments: a tuple of them, or a dict of keyword arguments.
    """

    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    load: Callable[[], Any] | None = None

    def arguments(self) -> tuple[tuple, dict[str, Any]]:
        """Return positional and keyword arguments; arrays become tensors of their own memory."""
        given = self if self.load is None else as_group(self.load(), "what the callable returned")
        return tree_map(_unpacked, (given.args, given.kwargs))


def in_memory(args: tuple, kwargs: dict[str, Any]) -> GroupData:
    """Return the group with these arguments."""
    return GroupData(*tree_map(_packed, (args, kwargs)))


def as_group(item: Any, name: str) -> GroupData:
    """Return what a user passes as a group: a tuple of arguments, a dict of them, or a callable that returns one.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(item, dict):
        return in_memory((), item)
    if isinstance(item, (tuple, list)):
        return in_memory(tuple(item), {})
    if callable(item) and not isinstance(item, Tensor):
        return GroupData(load=item)
    raise TypeError(
        f"{name} must be a tuple of the model's arguments, a dict of keyword arguments, or a callable that returns "
        f"one; got {type(item).__name__}."
    )


def _packed(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def _unpacked(x: Any) -> Any:
    """A tensor in memory of torch's own alignment, so that the same numbers give the same bits in every process."""
    return torch.from_numpy(np.array(x)).clone() if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" else x


@dataclass(frozen=True)
class GroupModel:
    """A model with the data of one group, from which any process builds the program.

    Attributes:
        model: the Pyro program.
        data: of the group.
        dtype: floating type.
        device: where it runs.
        plates: around the observed sites of the group; None where all observed sites belong to it.
        label: of the group, for errors.
    """

    model: Callable
    data: GroupData
    dtype: torch.dtype
    device: str
    plates: tuple[str, ...] | None
    label: str

    def program(self) -> Program:
        """Return the program.

        Raises:
            ValueError: if the model does not run on the group's data; it names the group.
        """
        args, kwargs = self.data.arguments()
        try:
            program = Program(self.model, args, kwargs, dtype=self.dtype, device=self.device)
        except (ValueError, TypeError) as error:
            raise type(error)(f"In group {self.label}: {error}") from error
        program.require_all_rows()
        program.require_continuous()
        return program
