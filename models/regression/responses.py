"""A response is read and checked against its family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.models.regression.columns import length, vector
from probdl.models.regression.families import Family


@dataclass(frozen=True)
class Response:
    """What was observed.

    Attributes:
        name: of the column, or "y".
        y: as the Pyro program takes it, (n,): numbers, or the positions of ordered categories.
        levels: what the categories are called: of "ordered" all, of "bernoulli" failure and success; else none.
        trials: of the binomial family, (n,).
        censored: of survival times, whether the time was cut off, (n,).
        notes: what a careful reader should know.
    """

    name: str
    y: Tensor
    levels: tuple = ()
    trials: Tensor | None = None
    censored: Tensor | None = None
    notes: tuple[str, ...] = ()


def read_response(
    columns: list[Any], family: Family, name: str, *, success: Any = None, trials: Any = None, censored: Any = None
) -> Response:
    """Return the response of a family.

    Args:
        columns: array-like (n,) each: one, or successes and failures.
        family: what they are checked against.
        name: of the response, in errors.
        success: the level of a "bernoulli" response that counts as success; None: the second.
        trials: of the binomial family, (n,) or one number.
        censored: of the weibull family, (n,): whether the time was cut off.

    Raises:
        ValueError: for values outside of the family's support; it names the family and a value.
        TypeError: for values of the wrong kind.
    """
    columns = _split(columns, family)
    n = length(columns[0], name)
    _refuse_options(family, trials=trials, censored=censored, success=success)
    if family.takes == "trials":
        return _read_trials(columns, family, name, trials)
    if len(columns) == 2:
        raise ValueError(f"family={family.name!r} takes one column; two belong to family='binomial'.")
    _check_no_missing(columns[0], name)
    if family.takes == "binary":
        return _read_binary(columns[0], name, success)
    if family.takes == "ordered":
        return _read_ordered(columns[0], name)
    y = _numbers(columns[0], family, name)
    _check_support(y, family, name)
    seen = None if censored is None else _flags(censored, n)
    return Response(name, y, censored=seen)


def _split(columns: list[Any], family: Family) -> list[Any]:
    """An array (n, 2) of the binomial family is two columns."""
    if len(columns) == 1 and family.takes == "trials" and np.ndim(columns[0]) == 2:
        values = columns[0].to_numpy() if hasattr(columns[0], "to_numpy") else np.asarray(columns[0])
        if values.shape[1] != 2:
            raise ValueError(
                f"y of the binomial family must have two columns, successes and failures; got {values.shape}."
            )
        return [values[:, 0], values[:, 1]]
    if len(columns) == 1 and np.ndim(columns[0]) == 2:
        values = columns[0]
        if np.shape(values)[1] != 1:
            raise ValueError(f"y must have one column; got the shape {tuple(np.shape(values))}.")
        return [values.iloc[:, 0] if hasattr(values, "iloc") else values[:, 0]]
    return columns


def _refuse_options(family: Family, **options: Any) -> None:
    belongs = {"trials": ("binomial",), "censored": ("weibull",), "success": ("bernoulli",)}
    for option, value in options.items():
        if value is not None and family.name not in belongs[option]:
            raise ValueError(f"{option}= belongs to family={belongs[option][0]!r}; got it with family={family.name!r}.")


def _check_no_missing(column: Any, name: str) -> None:
    import pandas as pd

    values = column.detach().cpu().numpy() if isinstance(column, Tensor) else column
    missing = int(np.sum(np.asarray(pd.isna(values))))
    if missing:
        raise ValueError(f"The response {name!r} has {missing} missing values. Drop these rows or impute them.")


def _numbers(column: Any, family: Family, name: str) -> Tensor:
    try:
        return vector(column, name, length(column, name))
    except TypeError as error:
        hint = " For two levels use family='bernoulli', for ordered ones family='ordered'."
        raise TypeError(f"family={family.name!r} takes numbers as {name!r}: {error}{hint}") from error


_SUPPORTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "counts": ("counts 0, 1, 2, …", lambda y: (y >= 0) & (y == y.round())),
    "positive": ("positive numbers", lambda y: y > 0),
    "real": ("finite numbers", torch.isfinite),
}


def _check_support(y: Tensor, family: Family, name: str) -> None:
    takes, inside = _SUPPORTS[family.takes]
    outside = (~inside(y)).nonzero()[:, 0]
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"family={family.name!r} takes {takes} as {name!r}; row {row} holds {float(y[row]):g} "
            f"({len(outside)} of {len(y)} rows are outside)."
        )


def _flags(values: Any, n: int) -> Tensor:
    x = vector(values, "censored", n)
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError("censored must hold booleans, or 0 and 1: whether the time was cut off before the event.")
    return x.bool()


def _plain(column: Any) -> np.ndarray:
    if isinstance(column, Tensor):
        return column.detach().cpu().numpy()
    return np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)


def _read_binary(column: Any, name: str, success: Any) -> Response:
    values = _plain(column)
    if values.dtype.kind in "biuf" and success is None and not _is_categorical(column):
        y = vector(values, name, len(values))
        wrong = y[(y != 0) & (y != 1)]
        if len(wrong):
            raise ValueError(
                f"family='bernoulli' takes 0 and 1, booleans, or two levels as {name!r}; got {float(wrong[0]):g}. Say "
                "which value is the success, as in success=2, or use family='binomial' with trials=."
            )
        return Response(name, y)
    levels = _two_levels(column, name, success)
    y = torch.as_tensor(values == levels[1], dtype=torch.float64)
    note = f"the success is {name} = {levels[1]!r}, the failure {levels[0]!r}"
    return Response(name, y, tuple(levels), notes=() if success is not None else (note,))


def _is_categorical(column: Any) -> bool:
    return hasattr(getattr(column, "dtype", None), "categories")


def _two_levels(column: Any, name: str, success: Any) -> list:
    """Failure and success: in the order of a categorical, else sorted."""
    levels = list(column.dtype.categories) if _is_categorical(column) else sorted(set(_plain(column).tolist()))
    if len(levels) != 2:
        shown = ", ".join(map(repr, levels[:5]))
        raise ValueError(
            f"family='bernoulli' takes two levels as {name!r}; got {len(levels)}: {shown}. For more levels that have "
            "an order use family='ordered'."
        )
    if success is None:
        return levels
    if success not in levels:
        raise ValueError(
            f"success must be one of the levels {levels[0]!r} and {levels[1]!r} of {name!r}; got {success!r}."
        )
    return sorted(levels, key=lambda level: level == success)


def _read_ordered(column: Any, name: str) -> Response:
    values = _plain(column)
    if _is_categorical(column):
        levels = list(column.dtype.categories)
        if not column.dtype.ordered and values.dtype.kind not in "iuf":
            raise ValueError(_no_order(name, levels))
    else:
        levels = sorted(set(values.tolist()))
        if values.dtype.kind not in "biuf":
            raise ValueError(_no_order(name, levels))
        if any(float(level) != round(float(level)) for level in levels):
            raise ValueError(f"family='ordered' takes categories as {name!r}; got the number {levels[0]!r}.")
    if len(levels) < 2:
        raise ValueError(f"family='ordered' takes at least two categories as {name!r}; got only {levels[0]!r}.")
    place = {level: k for k, level in enumerate(levels)}
    y = torch.tensor([place[v] for v in values.tolist()])
    empty = [repr(level) for k, level in enumerate(levels) if not bool((y == k).any())]
    notes = (f"no row has the category {', '.join(empty)}: its probability comes from the prior",) if empty else ()
    return Response(name, y, tuple(levels), notes=notes)


def _no_order(name: str, levels: list) -> str:
    shown = ", ".join(map(repr, levels[:8]))
    return (
        f"family='ordered' needs to know the order of the categories of {name!r}, which are {shown}. Pass integers, or "
        f"pd.Categorical({name}, categories=[…], ordered=True) with the lowest first."
    )


def _read_trials(columns: list[Any], family: Family, name: str, trials: Any) -> Response:
    for column in columns:
        _check_no_missing(column, name)
    y = _numbers(columns[0], family, name)
    if len(columns) == 2 and trials is not None:
        raise ValueError("Pass either successes and failures, or successes with trials=; got both.")
    if len(columns) == 1 and trials is None:
        raise ValueError(
            "family='binomial' needs the numbers of trials: write 'cbind(successes, failures) ~ …' or pass "
            "trials='column', or an array. For single trials use family='bernoulli'."
        )
    total = y + _numbers(columns[1], family, name) if len(columns) == 2 else vector(trials, "trials", len(y))
    wrong = ((y < 0) | (y > total) | (y != y.round()) | (total != total.round())).nonzero()[:, 0]
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"family='binomial' takes whole numbers of successes between 0 and the trials; row {i} of {name!r} holds "
            f"{float(y[i]):g} successes of {float(total[i]):g} trials ({len(wrong)} of {len(y)} rows are outside)."
        )
    return replace(Response(name, y), trials=total)


def read_again(response: Response, columns: list[Any], family: Family, trials: Any, censored: Any) -> Response:
    """Return new responses, coded as those of the fit.

    Raises:
        ValueError: for a level that the fit has not, or values outside of the support.
    """
    if not response.levels:
        return read_response(columns, family, response.name, trials=trials, censored=censored)
    values = _plain(_split(columns, family)[0])
    places = {level: k for k, level in enumerate(response.levels)}
    unseen = [v for v in dict.fromkeys(values.tolist()) if v not in places]
    if unseen:
        raise ValueError(
            f"The response {response.name!r} has the levels {unseen} that the fit has not; it has {list(places)}."
        )
    y = torch.tensor([places[v] for v in values.tolist()])
    return replace(response, y=y.double() if family.takes == "binary" else y)
