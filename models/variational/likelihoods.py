"""Which likelihood each entry of a row has: chosen by name, by column, or by a look at the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from probdl.models.arguments import one_of
from probdl.models.form import Form
from probdl.models.variational.layout import NAMES, Group, Layout
from probdl.models.variational.support import is_binary


def checked_likelihood(likelihood: str | Mapping[Any, str]) -> str | dict[Any, str]:
    """Return the argument, or raise a ValueError or TypeError for names that there are not."""
    if isinstance(likelihood, str):
        return one_of(likelihood, ("auto", *NAMES), "likelihood")
    if not isinstance(likelihood, Mapping):
        raise TypeError(f"likelihood must be a name or {{column: name}}; got {type(likelihood).__name__}.")
    keys = {c if isinstance(c, (str, int)) else str(c): name for c, name in likelihood.items()}
    return {c: one_of(name, ("auto", *NAMES), f"likelihood[{c!r}]") for c, name in keys.items()}


def chosen_layout(likelihood: str | Mapping[Any, str], form: Form, rows: Sequence[Tensor]) -> Layout:
    """Return the likelihood of each entry.

    Args:
        likelihood: one name for all (columns of categories are categorical all the same), a name by column, or "auto":
            categorical for columns of categories, Bernoulli for columns of zeros and ones, or for arrays that hold
            nothing else, Gaussian for the rest.
        form: of the rows.
        rows: of training and validation, to be looked at.

    Raises:
        ValueError: for columns that there are not, or that hold something else than their likelihood takes.
    """
    by_column = isinstance(likelihood, Mapping)
    if not (by_column or form.blocks or (likelihood == "auto" and form.columns)):
        found = "bernoulli" if all(map(is_binary, rows)) else "gaussian"
        return (Group(found if likelihood == "auto" else str(likelihood)),)
    if len(form.shape) != 1:
        raise ValueError(f"likelihood by column needs a table (n, d); rows have shape {form.shape}. Pass one name.")
    return _grouped(_names(likelihood, form, rows), form)


def _names(likelihood: str | Mapping[Any, str], form: Form, rows: Sequence[Tensor]) -> list[str]:
    """Return the likelihood of each entry of a row of a table; "categorical" of a block's."""
    labels = form.entries or tuple(range(form.shape[0]))
    asked = dict.fromkeys(labels, likelihood) if isinstance(likelihood, str) else _by_label(likelihood, labels)
    names = [asked.get(label, "auto") for label in labels]
    blocks = {i: block for block in form.blocks for i in range(block.start, block.stop)}
    for i, (label, name) in enumerate(zip(labels, names)):
        if i in blocks:
            if not isinstance(likelihood, str) and name not in ("auto", "categorical"):
                raise ValueError(f"likelihood[{label!r}] must be 'categorical' for a column of text; got {name!r}.")
            names[i] = "categorical"
        elif name == "categorical":
            raise ValueError(
                f"likelihood must be 'gaussian', 'poisson' or 'bernoulli' for column {label!r}, which holds numbers. "
                "Make it text for 'categorical', as in x[column].astype(str)."
            )
        elif name == "auto":
            names[i] = "bernoulli" if _are_bits([x[:, i] for x in rows]) else "gaussian"
    return names


def _are_bits(rows: Sequence[Tensor]) -> bool:
    """Whether a column holds zeros and ones, and both of them in training: a constant column is to be told."""
    return all(map(is_binary, rows)) and bool((rows[0] == 0).any() and (rows[0] == 1).any())


def _by_label(likelihood: Mapping[Any, str], labels: Sequence[Any]) -> dict[Any, str]:
    """Return names by the labels of columns; a file keeps labels as text."""
    known = {**{str(label): label for label in labels}, **{label: label for label in labels}}
    if unknown := [c for c in likelihood if c not in known]:
        raise ValueError(
            f"likelihood names columns that x lacks: {unknown[:5]}; it has {list(dict.fromkeys(labels))[:10]}."
        )
    return {known[c]: name for c, name in likelihood.items()}


def _grouped(names: Sequence[str], form: Form) -> Layout:
    blocks = [Group("categorical", tuple(range(block.start, block.stop))) for block in form.blocks]
    found = [Group(name, tuple(i for i, n in enumerate(names) if n == name)) for name in NAMES[:3]]
    groups = tuple(group for group in [*found, *blocks] if group.entries)
    return groups if len(groups) > 1 else (Group(groups[0].name),)
