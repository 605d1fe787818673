"""A formula with a DataFrame becomes a matrix with named columns, by formulaic; new rows are coded as the old ones."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probdl.models.regression.columns import check_finite, count_missing

if TYPE_CHECKING:
    import pandas as pd

_QUOTED = re.compile(r"`([^`]+)`")
_TEXT = re.compile(r"'[^']*'|\"[^\"]*\"")
_NAME = re.compile(r"(?<![\w.])([A-Za-z_]\w*)(?!\w*\s*\()")
_EVERYTHING = re.compile(r"(?<![\w.)\]`])\.(?![\w.])")


class FormulaDesign:
    """The design that a formula makes of a DataFrame.

    Args:
        formula: "response ~ terms", as in R; the response may be ``cbind(successes, failures)``.
        data: the columns that it names.
        extra: names of further columns that are used, such as an exposure.
        context: functions that the formula calls, by name.

    Attributes:
        names: of the columns of the design, without the intercept.
        matrix: their values, (n, p).
        has_intercept: whether the formula keeps one.
        response: the columns of the response: one, or two of ``cbind``.

    Raises:
        TypeError: if data are not a DataFrame, or the formula no text.
        ValueError: for a formula that cannot be read, columns that are missing, missing values (counted by column).
    """

    def __init__(
        self, formula: str, data: pd.DataFrame, extra: list[str], context: Mapping[str, Any] | None = None
    ) -> None:
        self.formula, self.data, self._context = formula, _frame(data), dict(context or {})
        left, right = _sides(formula)
        self._right = _expanded(right, left, extra, list(self.data.columns))
        self._parts = _response_parts(left)
        self._used = _columns_in(self._right, self.data)
        _require([*_named_in(left, self.data), *extra], self.data)
        count_missing(self.data, [*dict.fromkeys([*_columns_in(left, self.data), *self._used, *extra])])
        matrix = self._materialised(self.data)
        self._spec = matrix.model_spec
        names = list(map(str, matrix.columns))
        self.has_intercept = "Intercept" in names
        self.names = [name for name in names if name != "Intercept"]
        self.matrix = self._numbers(matrix)
        self.response = self.response_of(self.data)
        self.response_name = left

    def _materialised(self, data: pd.DataFrame) -> Any:
        from formulaic import Formula
        from formulaic.errors import FormulaicError

        try:
            return Formula(self._right).get_model_matrix(
                _as_objects(data, self._used), context=self._context, na_action="ignore"
            )
        except (FormulaicError, NameError, SyntaxError) as error:
            raise ValueError(self._unreadable(error)) from error

    def _unreadable(self, error: Exception) -> str:
        known = ", ".join(map(str, self.data.columns))
        return (
            f"The formula {self.formula!r} cannot be evaluated: {error} The data have the columns {known}; functions "
            "of your own go into context={'name': function}."
        )

    def _numbers(self, matrix: Any) -> np.ndarray:
        import pandas as pd

        values = pd.DataFrame(matrix)[self.names].to_numpy(dtype=float, copy=True)
        check_finite(values, self.names)
        return values

    def response_of(self, data: pd.DataFrame) -> list[pd.Series]:
        """Return the columns of the response in a DataFrame: one, or two of ``cbind``."""
        return [self._evaluated(part, data) for part in self._parts]

    def _evaluated(self, expression: str, data: pd.DataFrame) -> pd.Series:
        """A column as it is, or an expression of columns."""
        name = expression.strip().strip("`")
        if name in data.columns:
            return data[name]
        from formulaic import Formula
        from formulaic.errors import FormulaicError

        try:
            matrix = Formula(f"0 + {{{expression}}}").get_model_matrix(data, context=self._context, na_action="ignore")
        except (FormulaicError, NameError, SyntaxError) as error:
            raise ValueError(self._unreadable(error)) from error
        if matrix.shape[1] != 1:
            raise ValueError(f"The response {expression!r} must be one column; it makes {matrix.shape[1]}.")
        return matrix.iloc[:, 0].rename(expression)

    def new(self, data: Any) -> np.ndarray:
        """Return the design of new rows, with the levels, knots and centres of the fit.

        Raises:
            TypeError: if data are not a DataFrame.
            ValueError: for columns that are missing, missing values, and levels that the fit has not seen.
        """
        from formulaic.errors import DataMismatchWarning, FormulaicError

        data = _frame(data)
        _require(self._used, data)
        count_missing(data, self._used)
        self._check_levels(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            try:
                matrix = self._spec.get_model_matrix(
                    _as_objects(data, self._used), context=self._context, na_action="ignore"
                )
            except (FormulaicError, DataMismatchWarning, NameError) as error:
                raise ValueError(f"The new data do not fit the formula {self.formula!r}: {error}") from error
        return self._numbers(matrix)

    @property
    def covariates(self) -> list[str]:
        """The columns of the data that the terms read."""
        return self._used

    @property
    def categorical(self) -> set[str]:
        """Those of them that are coded as categories."""
        coded = [expression for expression, (_, state) in self._spec.encoder_state.items() if "categories" in state]
        return {name for expression in coded for name in _columns_in(str(expression), self.data)}

    def _check_levels(self, data: pd.DataFrame) -> None:
        for expression, (_, state) in self._spec.encoder_state.items():
            columns = _columns_in(str(expression), data)
            if "categories" not in state or len(columns) != 1 or not set(data[columns[0]]) - set(self.data[columns[0]]):
                continue
            seen, (name,) = list(state["categories"]), columns
            unseen = [level for level in dict.fromkeys(data[name]) if level not in seen]
            if unseen and set(seen) <= {*self.data[name], *getattr(self.data[name].dtype, "categories", [])}:
                raise ValueError(
                    f"Column {name!r} has levels that the fit has not seen: {_listed(unseen)}. It has seen "
                    f"{_listed(seen)}. Leave these rows out, or fit with data that have them."
                )

    def column(self, name: str, data: Any) -> Any:
        """Return a column that is not a covariate, such as an exposure.

        Raises:
            ValueError: if it is missing, or has missing values.
        """
        _require([name], _frame(data))
        count_missing(data, [name])
        return data[name]


def _as_objects(data: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Text as objects: formulaic before 1.2 does not know the string type of pandas 3."""
    import pandas as pd

    texts = [name for name in names if isinstance(data[name].dtype, pd.StringDtype)]
    return data.astype(dict.fromkeys(texts, object)) if texts else data


def _listed(levels: list) -> str:
    shown = ", ".join(repr(level) for level in levels[:8])
    return shown + (f" and {len(levels) - 8} more" if len(levels) > 8 else "")


def _frame(data: Any) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(data, pd.DataFrame):
        raise TypeError(
            f"data must be a pandas DataFrame, whose columns the formula names; got {type(data).__name__}. For arrays "
            "leave the formula out: GLM(family=…).fit(X, y)."
        )
    if len(data) == 0:
        raise ValueError("data must have at least one row; got an empty DataFrame.")
    return data


def _sides(formula: str) -> tuple[str, str]:
    if not isinstance(formula, str):
        raise TypeError(
            f"formula must be text such as 'y ~ x1 + x2'; got {type(formula).__name__}. For arrays leave it out: "
            "GLM(family=…).fit(X, y)."
        )
    sides = formula.split("~")
    if len(sides) != 2 or not sides[0].strip() or not sides[1].strip():
        raise ValueError(f"formula must have a response and terms, such as 'y ~ x1 + x2'; got {formula!r}.")
    return sides[0].strip(), sides[1].strip()


def _response_parts(left: str) -> list[str]:
    """The expressions of the response; those inside of R's cbind are taken apart."""
    found = re.fullmatch(r"cbind\((.*)\)", left)
    if not found:
        return [left]
    quoted: list[str] = _QUOTED.findall(left)
    plain = left
    for i, name in enumerate(quoted):
        plain = plain.replace(f"`{name}`", f"__quoted_{i}")
    call = ast.parse(plain, mode="eval").body
    parts = [ast.unparse(a) for a in call.args] if isinstance(call, ast.Call) else []
    if len(parts) != 2:
        raise ValueError(f"cbind takes two columns, successes and failures; got {left!r}.")
    return [re.sub(r"__quoted_(\d+)", lambda m: f"`{quoted[int(m[1])]}`", part) for part in parts]


def _expanded(right: str, left: str, extra: list[str], columns: list) -> str:
    """The terms, with "." as all columns that are used nowhere else."""
    if not _EVERYTHING.search(right):
        return right
    others = [c for c in columns if f"`{c}`" not in left and c not in re.findall(r"\w+", left) and c not in extra]
    return _EVERYTHING.sub("(" + " + ".join(f"`{c}`" for c in others) + ")", right)


def _columns_in(text: str, data: pd.DataFrame) -> list[str]:
    """The columns of data that an expression reads."""
    text = _TEXT.sub(" ", text)
    names = [*_QUOTED.findall(text), *_NAME.findall(_QUOTED.sub(" ", text))]
    return [name for name in dict.fromkeys(names) if name in data.columns]


def _named_in(left: str, data: pd.DataFrame) -> list[str]:
    """The column that a response without functions names, whether it is there or not."""
    return [left.strip("`")] if re.fullmatch(r"[A-Za-z_]\w*|`[^`]+`", left) else []


def _require(names: list[str], data: pd.DataFrame) -> None:
    missing = [name for name in dict.fromkeys(names) if name not in data.columns]
    if missing:
        known = ", ".join(map(str, data.columns))
        raise ValueError(f"data must have the columns {', '.join(missing)}, which are missing; they have {known}.")
