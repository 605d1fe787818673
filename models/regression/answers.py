"""The answers of a fitted regression: summary, predictions, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.inference.posterior import Posterior
from probdl.models.regression.columns import vector
from probdl.models.regression.pictures import along, plot_coefficients, plot_effect
from probdl.models.regression.prediction import Predictor, pointwise, predicted, predicted_categories
from probdl.models.regression.responses import read_again
from probdl.models.regression.results import GLMSummary, RegressionPosterior, coefficient_table, cutpoint_rows
from probdl.models.regression.units import COEFFICIENTS, LEVEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class RegressionAnswers:
    """What a fitted regression answers; ``GLM`` fits it.

    Attributes:
        posterior: of the sites "Intercept", "coefficients" and that of the family.
        arguments: those of ``model``: X, y, and what else there is.
        notes: what a careful reader should know of the data.
    """

    posterior: RegressionPosterior
    arguments: dict[str, Tensor]
    notes: tuple[str, ...]
    family: Any
    link: str
    formula: str | None
    design: Any
    response: Any
    _setting: Any
    _units: Any
    _used: dict[str, Any]

    def _fitted(self) -> None:
        if "posterior" not in vars(self):
            raise ValueError("The model is not fitted yet: call fit() first.")

    @property
    def names(self) -> list[str]:
        """The names of the coefficients, without the intercept."""
        self._fitted()
        return list(self.design.names)

    @property
    def log_evidence(self) -> Estimate | None:
        """The log marginal likelihood of the data in nats, where the method has it."""
        self._fitted()
        return self.posterior.log_evidence

    def summary(self, level: float = 0.9, posterior: Posterior | None = None) -> GLMSummary:
        """Return what was found, to be read like R's ``summary(glm)``; its ``table`` is a DataFrame.

        Args:
            level: coverage of the outer quantiles.
            posterior: of ``model`` by another fit; None: that of this one.

        Raises:
            ValueError: before ``fit``, or if ``level`` is not in (0, 1).
        """
        import pandas as pd

        self._fitted()
        found = self.posterior if posterior is None else RegressionPosterior.of(posterior, self.posterior.labels)
        table = coefficient_table(found, level)
        if self.family.takes == "ordered":
            hidden = [LEVEL, *(found.entries("gaps") if "gaps" in found.names else [])]
            table = pd.concat([table.drop(index=hidden), cutpoint_rows(found, self.response.levels, level)])
        return GLMSummary(table, self._prior_table(), self._header(found), self._footer(found))

    def _prior_table(self) -> pd.DataFrame:
        import pandas as pd

        prior = self._setting.prior
        rows = {name: [float(m), float(s)] for name, m, s in zip(self.design.names, prior.mean, prior.sd)}
        if self._setting.has_intercept:
            rows = {"Intercept, at the means of the columns": list(prior.level), **rows}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd"])

    def _header(self, found: Posterior) -> tuple[str, ...]:
        name = self.response.name
        what = f"{self.family.name} family, {self.link} link"
        success = (
            f"; success is {name} = {self.response.levels[1]!r}"
            if self.family.takes == "binary" and self.response.levels
            else ""
        )
        model = self.formula or f"y on {len(self.design.names)} columns"
        return (
            f"GLM: {model}",
            f"{what}{success}",
            f"{found.method}, n = {len(self.response.y)}, {_evidence(found)}",
        )

    def _footer(self, found: Posterior) -> tuple[str, ...]:
        notes = [*self.notes, *(note.rstrip(".") for note in found.notes if note not in self.notes)]
        return (
            "P(sign): posterior probability that a coefficient has the sign of its median.",
            f"Prior: {self._prior_sentence()}",
            *(f"Note: {note}." for note in notes),
        )

    def _prior_sentence(self) -> str:
        prior = self._setting.prior
        parts = []
        if self._setting.has_intercept:
            parts.append(f"intercept at the means of the columns Normal({prior.level[0]:.3g}, {prior.level[1]:.3g})")
        if self.design.names and not set(prior.given) & {"coefficients", *self.design.names}:
            parts.append(f"coefficients Normal(0, {2.5 * prior.unit:.3g}/sd(x))")
        elif self.design.names:
            parts.append("coefficients Normal, partly as given; see .priors")
        parts += self._further_priors()
        return ", ".join(parts) + "."

    def _further_priors(self) -> list[str]:
        prior, (kind, number) = self._setting.prior, self.family.prior
        said = [f"{name} fixed at {value:g}" for name, value in prior.fixed.items()]
        said += [f"{name} {type(law).__name__} as given" for name, law in prior.others.items()]
        name = self.family.parameter
        if not name or name in prior.fixed or name in prior.others or (name == "gaps" and not self._setting.gaps):
            return said
        if kind == "exponential":
            return [*said, f"{name} Exponential with mean {prior.unit / number:.3g}"]
        return [*said, f"{'distances between cut-points' if name == 'gaps' else name} LogNormal(0, {number:g})"]

    def predict(
        self,
        data: Any = None,
        *,
        level: float = 0.9,
        draws: int = 4000,
        seed: int = 0,
        trials: Any = None,
        exposure: Any = None,
        offset: Any = None,
    ) -> pd.DataFrame:
        r"""Return the mean of the response at new rows, with intervals for it and for new observations.

        Args:
            data: a DataFrame with the columns of the formula, or for arrays the columns X; None: the rows of the fit.
            level: coverage of the intervals.
            draws: of the posterior; where only coefficients are unknown and jointly Gaussian, evenly spaced quantiles
                of each linear predictor take their place, and the mean has no Monte Carlo error. Else it has an error
                of sd/√draws.
            seed: of the draws.
            trials, exposure, offset: of the new rows, where the fit had them: a column's name, or numbers (n,); None:
                the column of that name that the fit used. Without trials the response is that of a single trial.

        Returns:
            A DataFrame with the index of ``data`` and the columns "mean", "sd", "lower" and "upper" of the mean of the
            response, and "new_lower" and "new_upper" of a new observation. Of ordered categories: "P(c)",
            "P(c) lower" and "P(c) upper" for each category c. The mean of Student's t is its centre η.

        Raises:
            ValueError, TypeError: for columns that are missing, missing values, levels that the fit has not seen (it
                names them).
        """
        self._fitted()
        predictor = self._predictor(data, draws, seed, {"trials": trials, "exposure": exposure, "offset": offset})
        index = getattr(self.design.data if data is None else data, "index", None)
        index = None if index is None or callable(index) else index
        if self.family.takes == "ordered":
            return predicted_categories(predictor, self.response.levels, level, index)
        return predicted(predictor, self._mean_of, level, index)

    def _mean_of(self, eta: Tensor, law: Any) -> Tensor:
        return eta if self.family.takes == "real" else law.mean

    def _predictor(self, data: Any, draws: int, seed: int, given: dict[str, Any]) -> Predictor:
        if data is None and any(value is not None for value in given.values()):
            raise ValueError(
                "trials=, exposure= and offset= belong to new rows; without data those of the fit are taken."
            )
        if data is None:
            x, offset, trials = (self.arguments.get(k) for k in ("X", "offset", "trials"))
            assert x is not None
        else:
            x = torch.as_tensor(self.design.new(data))
            options = {k: self._of_new_rows(k, value) for k, value in given.items()}
            offset, trials = self._offset(data, options, len(x)), self._trials(data, options, len(x))
        return Predictor(self.posterior, self._law, x[:, : len(self.design.names)], offset, trials, draws, seed)

    def _of_new_rows(self, name: str, given: Any) -> Any:
        used = self._used[name]
        if given is not None or used is None:
            return given
        if isinstance(used, (str, int, float)) or name == "trials":
            return used if isinstance(used, (str, int, float)) else None
        raise ValueError(
            f"The fit had an {name} for each row; pass {name}= for the new rows, numbers or a column's name."
        )

    def _trials(self, data: Any, options: dict[str, Any], n: int) -> Tensor | None:
        if options["trials"] is None:
            return None
        trials = vector(self._option("trials", self.design, data, options["trials"]), "trials", n)
        if not bool(((trials >= 0) & (trials == trials.round())).all()):
            raise ValueError("trials must be whole numbers, not negative.")
        return trials

    def log_likelihood(
        self, data: Any = None, y: Any = None, *, draws: int = 4000, seed: int = 0, **options: Any
    ) -> Estimate:
        r"""Return :math:`\log \int p(y_i \mid θ)\, q(θ)\, dθ` of each row, nats.

        Args:
            data: a DataFrame with the columns of the formula and its response, or the columns X; None: the fit's rows.
            y: the responses, without a formula.
            draws: as in ``predict``.
            seed: of the draws.
            options: trials, exposure, offset and censored of the new rows.

        Returns:
            An ``Estimate`` whose value has the shape (n,).

        Raises:
            ValueError, TypeError: for data that cannot be used.
        """
        self._fitted()
        response = self.response if data is None else self._new_response(data, y, options)
        given = {k: options.get(k) for k in ("trials", "exposure", "offset")}
        predictor = self._predictor(data, draws, seed, given)
        predictor.trials = response.trials

        def density(law: Any, y: Tensor, rows: slice) -> Tensor:
            log_p = law.log_prob(y)
            if response.censored is None:
                return log_p
            hazard = (y / law.scale) ** law.concentration
            return torch.where(response.censored[rows], -hazard, log_p)

        return pointwise(predictor, response.y, density)

    def _new_response(self, data: Any, y: Any, options: dict[str, Any]) -> Any:
        columns = [y] if self.formula is None else self.design.response_of(data)
        if self.formula is None and y is None:
            raise ValueError("log_likelihood of new columns needs their responses y.")
        chosen = {k: options.get(k) if options.get(k) is not None else self._used[k] for k in ("trials", "censored")}
        chosen = {k: self._option(k, self.design, data, value) for k, value in chosen.items()}
        return read_again(self.response, columns, self.family, **chosen)

    def plot(
        self,
        effect: str | None = None,
        *,
        standardised: bool = False,
        level: float = 0.9,
        ax: Axes | None = None,
        label: str | None = None,
    ) -> Axes:
        """Draw the coefficients with their intervals, or the mean of the response along one covariate.

        Args:
            effect: None draws all coefficients, without the intercept; the name of a covariate draws the mean of the
                response along it, the others at their median or most frequent value.
            standardised: multiply each coefficient by the standard deviation of its column, so that they compare.
            level: coverage of the outer intervals.
            ax: where to draw; None makes a figure. Pass the axes of an earlier call to put a second fit beside it.
            label: of the coefficients in the legend; None: the method.

        Raises:
            ValueError: for a model without columns, or a covariate that there is not.
        """
        self._fitted()
        if effect is not None:
            return self._plot_effect(effect, level, ax)
        if not self.design.names:
            raise ValueError("There is no coefficient to draw: the model has an intercept alone.")
        scales = self._units.scale.to(self.posterior.mean(COEFFICIENTS)) if standardised else None
        return plot_coefficients(self.posterior, scales, level, ax, label)

    def _plot_effect(self, effect: str, level: float, ax: Axes | None) -> Axes:
        import pandas as pd

        if self.formula is None:
            data, categorical = pd.DataFrame(self.design.matrix, columns=self.design.names), set()
        else:
            data, categorical = self.design.data[self.design.covariates], self.design.categorical
        if effect not in data.columns:
            raise ValueError(
                f"effect must be one of the covariates {', '.join(map(str, data.columns))}; got {effect!r}."
            )
        if self.family.takes == "ordered":
            raise ValueError("Effects on ordered categories have one curve for each; draw the columns of predict().")
        rows = along(data, effect, categorical)
        offset = self.arguments.get("offset")
        options = {} if offset is None else {"offset": float(offset.median())}
        table = self._at(rows, level, options)
        what = {"binary": "probability", "trials": "probability"}.get(
            self.family.takes, f"mean of {self.response.name}"
        )
        return plot_effect(rows[effect].to_numpy(), table, effect, what, level, ax)

    def _at(self, rows: pd.DataFrame, level: float, options: dict[str, float]) -> pd.DataFrame:
        """Predictions at made-up rows, for one trial and the median offset."""
        x = torch.as_tensor(self.design.new(rows))
        offset = torch.full((len(x),), options["offset"], dtype=x.dtype) if options else None
        predictor = Predictor(self.posterior, self._law, x, offset, None, 4000, 0)
        return predicted(predictor, self._mean_of, level, rows.index)

    def __repr__(self) -> str:
        what = f"{self.formula!r}, " if self.formula else ""
        fitted = ", not fitted"
        if "posterior" in vars(self):
            evidence = "" if self.log_evidence is None else f", log evidence {self.log_evidence.value:.4f}"
            fitted = f", fitted by {self.posterior.method} to {len(self.response.y)} rows{evidence}"
        return f"GLM({what}family={self.family.name!r}, link={self.link!r}{fitted})"

    def _law(self, eta: Tensor, values: dict[str, Tensor], trials: Tensor | None) -> Any:
        raise NotImplementedError

    def _offset(self, data: Any, options: dict[str, Any], n: int) -> Tensor | None:
        raise NotImplementedError

    def _option(self, name: str, design: Any, data: Any, given: Any) -> Any:
        raise NotImplementedError


def _evidence(found: Posterior) -> str:
    """The evidence, or the bound on it, with its error."""
    name, e = ("log evidence", found.log_evidence) if found.log_evidence is not None else ("evidence bound", found.elbo)
    if e is None:
        return "no log evidence by this method"
    error = "error unknown" if e.stderr is None else f"± {float(e.stderr):.2g}"
    return f"{name} {float(e):.2f} ({error}, {e.method})"
