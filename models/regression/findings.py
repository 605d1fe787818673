"""What a careful reader should know of a design: constant and collinear columns and separated data, by name."""

from __future__ import annotations

import numpy as np

from probdl.models.regression.units import is_constant

_DEPENDENT = 1e-9  # of the largest pivot; columns are standardised
_MOST_CELLS = 400_000  # rows × columns up to which a linear programme looks for separation


def constant_columns(matrix: np.ndarray, names: list[str], has_intercept: bool) -> tuple[str, ...]:
    """Return a note that names the constant columns, where an intercept makes them superfluous."""
    found = [name for name, constant in zip(names, is_constant(matrix)) if constant] if has_intercept else []
    if not found:
        return ()
    what = "the data cannot tell it from the intercept, and its posterior is its prior"
    return (f"{_columns(found)} {_is(found)} constant: {what}",)


def collinear_columns(standardised: np.ndarray, names: list[str]) -> tuple[str, ...]:
    """Return a note that names the columns that are linear combinations of others.

    Args:
        standardised: columns (n, p), centred where there is an intercept.
        names: of the columns.
    """
    from scipy.linalg import qr, solve_triangular

    alive = np.flatnonzero(~is_constant(standardised))
    if len(alive) < 2:
        return ()
    r, order = qr(standardised[:, alive], mode="r", pivoting=True)
    pivots = np.abs(np.diagonal(r))
    rank = int((pivots > _DEPENDENT * pivots[0]).sum())
    if rank == len(alive):
        return ()
    if len(standardised) <= len(alive):
        return (
            f"there are {len(alive)} columns and only {len(standardised)} rows: directions without data keep their "
            "prior",
        )
    weights = solve_triangular(r[:rank, :rank], r[:rank, rank:])
    named = [names[j] for j in alive[order]]
    said = [f"{named[rank + j]} from {_list(_involved(named, weights[:, j]))}" for j in range(weights.shape[1])]
    return (f"collinear columns: {'; '.join(said)}. Only their combinations are learnt from data, the rest is prior",)


def refuse_exact_fit(standardised: np.ndarray, y: np.ndarray, has_intercept: bool, family: str, parameter: str) -> None:
    r"""Raise a ValueError where the columns fit the response without error: the posterior of its spread is improper.

    With residuals of zero the density of n responses grows as :math:`σ^{-(n - r)}` towards σ = 0, r the rank.

    Args:
        standardised: columns (n, p).
        y: the response on the scale of the linear predictor, (n,).
        has_intercept: whether there is one.
        family: in the message.
        parameter: of the family, which goes to zero.
    """
    design = np.column_stack([standardised, np.ones(len(y))]) if has_intercept else standardised
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=_DEPENDENT)
    if len(y) > rank and np.abs(y - design @ coefficients).max() <= 1e-9 * np.abs(y).max():
        what = "does not vary" if np.ptp(y) == 0 else "is a linear function of the columns, without any error"
        raise ValueError(
            f"The response {what}, so that the posterior of {parameter!r} of the {family} family is improper: it piles "
            f"up at zero. Fix it, as in prior={{{parameter!r}: 0.1}}, or see whether the response is among the columns."
        )


def _involved(names: list[str], weights: np.ndarray) -> list[str]:
    return [name for name, w in zip(names, weights) if abs(w) > 1e-6]


def separation(
    standardised: np.ndarray, names: list[str], successes: np.ndarray, failures: np.ndarray, has_intercept: bool
) -> tuple[str, ...]:
    r"""Return a note that names the covariates that separate successes from failures, if any do.

    Data are separated where some direction β ≠ 0 has :math:`x_i^\top β ≥ 0` for all successes and ≤ 0 for all
    failures: the likelihood then has no maximum, and how far the posterior goes along β is up to the prior.

    Args:
        standardised: columns (n, p).
        names: of the columns.
        successes: whether a row has any, (n,).
        failures: whether a row has any, (n,).
        has_intercept: whether a constant is among the directions.

    Source: Konis (2007), *Linear programming algorithms for detecting separated data in binary logistic regression*.
    """
    why = "the likelihood has no maximum there, and the prior decides how large the coefficients are"
    if not failures.any() or not successes.any():
        only = "success" if successes.any() else "failure"
        return (f"every response is a {only}: {why}",) if has_intercept else ()
    alone = [name for j, name in enumerate(names) if _separates(standardised[:, j], successes, failures)]
    if alone and has_intercept:
        return (f"{_list(alone)} separate{'s' * (len(alone) == 1)} successes from failures: {why}",)
    direction = _separating_direction(standardised, successes, failures, has_intercept)
    if direction is None:
        return ()
    largest = np.abs(direction).max()
    terms = [f"{w / largest:+.2g}·{name}" for name, w in zip([*names], direction) if abs(w) > 1e-4 * largest]
    shown = " ".join(terms[:6]) + (" …" if len(terms) > 6 else "")
    return (f"successes and failures are separated along {shown} (columns in sd units): {why}",)


def _separates(x: np.ndarray, successes: np.ndarray, failures: np.ndarray) -> bool:
    if np.ptp(x) <= 1e-12:
        return False
    return x[failures].max() <= x[successes].min() or x[successes].max() <= x[failures].min()


def _separating_direction(
    x: np.ndarray, successes: np.ndarray, failures: np.ndarray, has_intercept: bool
) -> np.ndarray | None:
    from scipy.optimize import linprog

    if x.shape[1] == 0 or x.size > _MOST_CELLS:
        return None
    design = np.column_stack([x, np.ones(len(x))]) if has_intercept else x
    rows = np.concatenate([design[successes], -design[failures]])
    found = linprog(-rows.sum(0) / len(rows), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs")
    if found.status != 0 or -found.fun < 1e-7:
        return None
    return found.x[: x.shape[1]]


def _list(names: list[str]) -> str:
    shown = names[:6] + [f"{len(names) - 6} more"] * (len(names) > 6)
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _columns(names: list[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {_list(names)}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
