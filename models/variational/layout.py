"""Which entries of a row share a likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form

NAMES = ("gaussian", "bernoulli", "poisson", "categorical")


@dataclass(frozen=True)
class Group:
    """Entries of a row that have one likelihood.

    Attributes:
        name: of the likelihood.
        entries: which; None: all, of rows of any shape. A categorical group is one category, as zeros and a one.
    """

    name: str
    entries: tuple[int, ...] | None = None

    def of(self, x: Tensor) -> Tensor:
        """Return these entries of rows (n, ...)."""
        return x if self.entries is None else x[:, list(self.entries)]


Layout = tuple[Group, ...]


def plain_entries(layout: Layout, shape: Sequence[int]) -> Tensor:
    """Return which entries of a row have no units, as zeros and ones and counts have none; booleans."""
    return entries_of(layout, ("bernoulli", "poisson", "categorical"), shape)


def entries_of(layout: Layout, names: Sequence[str], shape: Sequence[int]) -> Tensor:
    """Return which entries of a row have one of these likelihoods; booleans of its shape."""
    found = torch.zeros(tuple(shape), dtype=torch.bool)
    for group in layout:
        if group.name in names:
            found[... if group.entries is None else list(group.entries)] = True
    return found


def says(layout: Layout, form: Form) -> str:
    """Return the names of the likelihoods, and where there are several their columns."""
    if len(layout) == 1:
        return f"{layout[0].name} likelihood"
    labels = form.entries or tuple(range(form.shape[0]))
    columns: dict[str, dict[Any, None]] = {}
    for group in layout:
        columns.setdefault(group.name, {}).update(dict.fromkeys(labels[i] for i in group.entries or ()))
    return ", ".join(f"{name} ({_some(list(of))})" for name, of in columns.items()) + " likelihood"


def _some(labels: list[Any]) -> str:
    return ", ".join(map(str, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
