"""What a likelihood gives a probability, and what to use for the rest."""

from __future__ import annotations

from torch import Tensor

from probdl.models.form import Form
from probdl.models.variational.layout import Layout


def check_support(x: Tensor, layout: Layout, form: Form) -> None:
    """Raise a ValueError for rows that a likelihood gives no probability; it names one that fits."""
    for group in layout:
        values = group.of(x)
        wrong = {"bernoulli": _not_binary, "poisson": _not_counts, "categorical": _not_one_hot}.get(group.name)
        if wrong is None or (why := wrong(values)) is None:
            continue
        bad = None if group.entries is None else next(i for i in group.entries if wrong(x[:, i]))
        who = "x" if bad is None else f"column {(form.entries or range(form.shape[0]))[bad]!r} of x"
        raise ValueError(f"{who} must hold {why}")


def check_entries(x: Tensor, form: Form) -> None:
    """Raise a ValueError if an entry is missing in all training rows."""
    empty = x.isnan().all(0).reshape(-1).nonzero()[:, 0].tolist()
    if empty:
        named = [i if form.entries is None else form.entries[i] for i in empty[:10]]
        raise ValueError(f"x must have an entry in every column; all training rows lack columns {named}. Drop them.")


def _not_binary(x: Tensor) -> str | None:
    if is_binary(x):
        return None
    return (
        f"only 0 and 1 for likelihood='bernoulli'; its values are between {_least(x):g} and {_largest(x):g}. Use "
        "likelihood='gaussian', or 'poisson' for counts; or binarise them, as in (x > 0.5)."
    )


def _not_counts(x: Tensor) -> str | None:
    if bool((((x >= 0) & (x == x.round())) | x.isnan()).all()):
        return None
    return (
        f"counts, 0, 1, 2, ..., for likelihood='poisson'; its values are between {_least(x):g} and {_largest(x):g}; "
        f"{int((x < 0).sum())} are negative, {int((x != x.round()).sum() - x.isnan().sum())} not whole. "
        "Use likelihood='gaussian'."
    )


def _not_one_hot(x: Tensor) -> str | None:
    if x.ndim == 1 or (is_binary(x) and bool(((x.sum(1) == 1) | x.isnan().all(1)).all())):
        return None
    return (
        "zeros and a single one in each row for likelihood='categorical'. Use likelihood='gaussian' for numbers, or a "
        "DataFrame, whose columns of text are categories."
    )


def is_binary(x: Tensor) -> bool:
    """Whether all values are 0 or 1, or missing."""
    return bool(((x == 0) | (x == 1) | x.isnan()).all())


def _least(x: Tensor) -> float:
    return x[~x.isnan()].min().item()


def _largest(x: Tensor) -> float:
    return x[~x.isnan()].max().item()
