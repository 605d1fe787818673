"""Generalised linear models: a formula, a family and a prior become an ordinary Pyro program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probdl.inference import fit as infer
from probdl.inference.programs.program import Program
from probdl.models.regression.answers import RegressionAnswers
from probdl.models.regression.columns import ArrayDesign, vector
from probdl.models.regression.families import Family, family_of
from probdl.models.regression.findings import collinear_columns, constant_columns, refuse_exact_fit, separation
from probdl.models.regression.formulas import FormulaDesign
from probdl.models.regression.links import log_category_probabilities, log_odds
from probdl.models.regression.priors import Prior, chosen_prior
from probdl.models.regression.responses import Response, read_response
from probdl.models.regression.results import RegressionPosterior
from probdl.models.regression.units import COEFFICIENTS, LEVEL, Units, in_own_units, spreads

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Setting:
    """All that a regression's Pyro program knows beside its data.

    Attributes:
        family: of the response.
        link: of the family.
        prior: of intercept, coefficients and further sites.
        centre: means of the columns, at which the prior of the intercept holds, (p,).
        has_intercept: whether there is one.
        gaps: distances between cut-points, for ordered categories.
    """

    family: Family
    link: str
    prior: Prior
    centre: Tensor
    has_intercept: bool
    gaps: int = 0


def program_of(setting: Setting) -> Callable[..., Tensor]:
    """Return the Pyro program ``model(X, y=None, offset=None, trials=None, censored=None)`` of a regression."""

    def model(
        X: Tensor,
        y: Tensor | None = None,
        offset: Tensor | None = None,
        trials: Tensor | None = None,
        censored: Tensor | None = None,
    ) -> Tensor:
        eta = _linear_predictor(setting, X) if offset is None else _linear_predictor(setting, X) + offset
        values = _parameters(setting, X)
        if censored is not None and y is not None:
            return _survival(setting, eta, values, y, censored)
        with pyro.plate("rows", len(X)):
            return pyro.sample("y", likelihood(setting.family.name, setting.link, eta, values, trials), obs=y)

    return model


def _linear_predictor(setting: Setting, X: Tensor) -> Tensor:
    prior, eta = setting.prior, torch.zeros(len(X)).to(X)
    level: float | Tensor = prior.level[0]
    if len(prior.mean):
        b = pyro.sample(COEFFICIENTS, dist.Normal(prior.mean.to(X), prior.sd.to(X)).to_event(1))
        eta = X @ b
        level = level - setting.centre.to(X) @ b if bool((setting.centre != 0).any()) else level
    return eta + pyro.sample(LEVEL, dist.Normal(level, prior.level[1])) if setting.has_intercept else eta


def _parameters(setting: Setting, X: Tensor) -> dict[str, Any]:
    """The family's own parameter, with the degrees of freedom of Student's t."""
    family, prior = setting.family, setting.prior
    values: dict[str, Any] = dict(prior.fixed)
    names = [family.parameter] if family.parameter else []
    for name in [*names, *(k for k in prior.others if k not in names)]:
        law = _as_pyro(prior.others.get(name) or _default(family, prior.unit), X)
        if name == "gaps":
            values |= {name: pyro.sample(name, law.expand([setting.gaps]).to_event(1))} if setting.gaps else {}
        elif name not in values:
            values[name] = pyro.sample(name, law)
    return values


def _default(family: Family, unit: float) -> Any:
    kind, number = family.prior
    return dist.Exponential(number / unit) if kind == "exponential" else dist.LogNormal(0.0, number)


def _as_pyro(law: Any, X: Tensor) -> Any:
    """The distribution as Pyro's, whose class has the name of torch's, of the data's type."""
    kind = getattr(dist, type(law).__name__)
    return kind(**{k: torch.as_tensor(getattr(law, k)).to(X).reshape(()) for k in kind.arg_constraints})


def likelihood(family: str, link: str, eta: Tensor, values: Mapping[str, Any], trials: Tensor | None = None) -> Any:
    """Return the law of the response at linear predictors.

    Args:
        family: by name.
        link: by name.
        eta: linear predictors, (..., n).
        values: the family's parameters, each a number or (..., 1), "gaps" (K − 2,) or (..., 1, K − 2).
        trials: of the binomial family, (n,); None: one.
    """
    if family == "bernoulli":
        return dist.Bernoulli(logits=log_odds(eta, link))
    if family == "binomial":
        return dist.Binomial(torch.ones_like(eta) if trials is None else trials, logits=log_odds(eta, link))
    if family == "ordered":
        return dist.Categorical(logits=log_category_probabilities(eta, _cutpoints(values, eta), link))
    return _CONTINUOUS[family](eta, values)


def _cutpoints(values: Mapping[str, Any], eta: Tensor) -> Tensor:
    """The first is zero, where the intercept stands."""
    if "gaps" not in values:
        return torch.zeros(1).to(eta)
    gaps = values["gaps"]
    return torch.cat([torch.zeros_like(gaps[..., :1]), gaps.cumsum(-1)], -1)


_CONTINUOUS: dict[str, Callable[[Tensor, Mapping[str, Any]], Any]] = {
    "poisson": lambda eta, v: dist.Poisson(eta.exp()),
    "negative_binomial": lambda eta, v: dist.NegativeBinomial(
        1 / torch.as_tensor(v["dispersion"]).to(eta), logits=eta + torch.as_tensor(v["dispersion"]).to(eta).log()
    ),
    "gaussian": lambda eta, v: dist.Normal(eta, v["sigma"]),
    "student": lambda eta, v: dist.StudentT(v["df"], eta, v["sigma"]),
    "laplace": lambda eta, v: dist.Laplace(eta, v["scale"]),
    "gamma": lambda eta, v: dist.Gamma(1 / torch.as_tensor(v["dispersion"]).to(eta), (-eta).exp() / v["dispersion"]),
    "weibull": lambda eta, v: dist.Weibull(eta.exp(), torch.as_tensor(v["shape"]).to(eta)),
}


def _survival(setting: Setting, eta: Tensor, values: dict[str, Any], y: Tensor, censored: Tensor) -> Tensor:
    r"""Times of events, and for those cut off no event by then: a Poisson count of 0 with the cumulative hazard.

    The survival function of a Weibull is :math:`\exp\{-(t e^{-η})^k\}`, the probability of that count.
    """
    seen, cut = (~censored.bool()).nonzero()[:, 0], censored.bool().nonzero()[:, 0]
    if len(seen):
        with pyro.plate("events", len(seen)):
            pyro.sample("y", likelihood("weibull", setting.link, eta[seen], values), obs=y[seen])
    if len(cut):
        hazard = (values["shape"] * (y[cut].log() - eta[cut])).exp()
        with pyro.plate("survivors", len(cut)):
            pyro.sample("events_before", dist.Poisson(hazard), obs=torch.zeros(len(cut)).to(y))
    return y


class GLM(RegressionAnswers):
    r"""A generalised linear model with its posterior: by expectation propagation, or any other method.

    .. math:: y_i \sim p(y \mid η_i, φ), \qquad η_i = α + x_i^\top β + o_i.

    | family | response | links, the default first | further parameter, with its prior |
    |---|---|---|---|
    | bernoulli | 0/1, booleans or two levels | logit, probit, cloglog | |
    | binomial | successes of trials | logit, probit, cloglog | |
    | poisson | counts | log | |
    | negative_binomial | counts | log | dispersion d, Var = μ + dμ²: Exponential(1) |
    | gaussian | numbers | identity | sigma: Exponential with mean u |
    | student | numbers with outliers | identity | sigma: Exponential with mean u; ``df`` degrees of freedom |
    | laplace | numbers with outliers | identity | scale: Exponential with mean u |
    | gamma | positive numbers | log | dispersion d, Var = dμ²: Exponential(1) |
    | weibull | times, perhaps cut off | log | shape k, scale e^η: LogNormal(0, 1) |
    | ordered | ordered categories | logit, probit | distances between cut-points: LogNormal(0, 1) |

    The default prior is weakly informative and scaled to the data: coefficients Normal(0, 2.5u / sd(xⱼ)), and the
    intercept *at the means of the columns* Normal(m, 10u). Here u is 1, or for numbers the sd of y (robust families:
    1.4826 times its median absolute deviation), and m is 0, or for other than probabilities the link of the mean of y.
    Without an intercept the root mean square takes the place of sd(xⱼ).

    Args:
        formula: "y ~ x1 + x2 + C(group)", as in R, read by formulaic; for the binomial family the response may be
            ``cbind(successes, failures)``. None: ``fit(X, y)`` takes arrays.
        data: DataFrame with the columns that the formula names; may also be passed to ``fit``.
        family: one of the table.
        link: one of the family's; None: its default.
        prior: None, a number that is the sd of all coefficients, or a mapping from "coefficients", "Intercept" (at the
            means of the columns), the name of a coefficient ("x1", "C(group)[T.b]") or of a further parameter. A
            coefficient takes a sd, a pair (mean, sd) or a Normal, in its own unit; a further parameter takes a
            distribution, or a number that fixes it.
        intercept: whether a model of arrays has one; formulas say it themselves ("0 + x").
        success: the level of a bernoulli response that counts as success; None: the second.
        trials: of the binomial family: a column's name, numbers (n,), or one number.
        exposure: of counts: a column's name or positive numbers (n,); its logarithm is added to η.
        offset: a column's name or numbers (n,), added to η.
        censored: of the weibull family: a column's name or booleans (n,): the event had not happened by y.
        df: of the student family, fixed, unless ``prior`` gives "df" a distribution.
        context: functions that the formula calls, by name.

    Raises:
        ValueError, TypeError: for arguments that cannot be used.

    Source: McCullagh & Nelder (1989), *Generalized Linear Models*; Gelman, Jakulin, Pittau & Su (2008) and rstanarm for
    scaled priors.

    Example:
        >>> import pandas as pd
        >>> df = pd.DataFrame({"dose": [0, 0, 1, 1, 2, 2, 3, 3], "died": [0, 0, 0, 1, 0, 1, 1, 1]})
        >>> glm = GLM("died ~ dose", df, family="bernoulli").fit()
        >>> glm.summary().table.round(2)
                   mean    sd    5%   50%   95%  P(sign)
        Intercept -2.85  1.77 -5.76 -2.85  0.06     0.95
        dose       1.90  0.97  0.30  1.90  3.50     0.97
        >>> glm.predict(pd.DataFrame({"dose": [1.5]}))[["mean", "lower", "upper"]].round(2)
           mean  lower  upper
        0   0.5   0.16   0.84
    """

    def __init__(
        self,
        formula: str | None = None,
        data: pd.DataFrame | None = None,
        *,
        family: str = "gaussian",
        link: str | None = None,
        prior: Any = None,
        intercept: bool = True,
        success: Any = None,
        trials: Any = None,
        exposure: Any = None,
        offset: Any = None,
        censored: Any = None,
        df: float = 4.0,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.family, self.link = family_of(family, link)
        if formula is None and data is not None:
            raise ValueError("data= belongs to a formula, such as GLM('y ~ x', data). For arrays use GLM(…).fit(X, y).")
        if not 0 < df < math.inf:
            raise ValueError(f"df must be positive and finite; got {df!r}.")
        self.formula, self.data, self.prior, self.intercept = formula, data, prior, intercept
        self.success, self.df, self.context = success, df, context
        self.options = {"trials": trials, "exposure": exposure, "offset": offset, "censored": censored}

    def fit(
        self,
        data: Any = None,
        y: Any = None,
        *,
        method: Any = "auto",
        trials: Any = None,
        exposure: Any = None,
        offset: Any = None,
        censored: Any = None,
        seed: int = 0,
        device: str = "auto",
        dtype: torch.dtype = torch.float64,
        progress: bool | None = None,
    ) -> GLM:
        """Find the posterior, anew each time.

        Args:
            data: with a formula a DataFrame; None: that of the constructor. Without one the columns X: array-like
                (n, p) or (n,), or a DataFrame of numbers.
            y: without a formula, the n responses.
            method: as ``probdl.inference.fit`` takes it: "auto", "ep", "laplace", "meanfield", "fullrank", "nuts" or a
                value such as ``NUTS(draws=2000)``.
            trials, exposure, offset, censored: as in the constructor; these go first.
            seed: of whatever the method draws.
            device: where inference runs.
            dtype: floating type of the inference.
            progress: show a bar; None shows one in a terminal.

        Returns:
            The model itself.

        Raises:
            ValueError, TypeError: for data that cannot be used; the message names column and value.
            ConvergenceError: where the method has no result.
        """
        vars(self).pop("posterior", None)  # where this fit fails, no answer is that of an earlier one
        given = {"trials": trials, "exposure": exposure, "offset": offset, "censored": censored}
        self._used = {k: self.options[k] if v is None else v for k, v in given.items()}
        self.design = self._designed(data, y)
        self.response = self._responses(y)
        self._setting, self._units = self._prepared()
        self._refuse_exact_fit()
        self.notes = self._findings()
        standard = replace(self._setting, prior=self._standard_prior(), centre=torch.zeros_like(self._setting.centre))
        how: dict[str, Any] = {"method": method, "seed": seed, "device": device, "dtype": dtype, "progress": progress}
        X = self.arguments["X"]
        X = self._units.standardise(X) if self.design.names else X
        posterior = infer(program_of(standard), **how, **{**self.arguments, "X": X})  # type: ignore[arg-type]
        self.posterior = self._in_own_units(posterior, dtype, device)
        return self

    def _designed(self, data: Any, y: Any) -> FormulaDesign | ArrayDesign:
        if self.formula is None:
            if data is None or y is None:
                raise ValueError("A GLM without a formula is fitted to columns and responses: fit(X, y).")
            return ArrayDesign(data, self.intercept)
        data = self.data if data is None else data
        if data is None:
            raise ValueError("A formula needs data: GLM(formula, data) or fit(data).")
        if y is not None:
            raise ValueError("With a formula the response is a column of data, named on its left side; leave y out.")
        return FormulaDesign(self.formula, data, [v for v in self._used.values() if isinstance(v, str)], self.context)

    def _option(self, name: str, design: FormulaDesign | ArrayDesign, data: Any, given: Any) -> Any:
        """The values of trials, exposure, offset or censored."""
        return design.column(given, data) if isinstance(given, str) else given

    def _responses(self, y: Any) -> Response:
        columns, name = ([y], "y") if self.formula is None else (self.design.response, self.design.response_name)  # type: ignore[union-attr]
        options = {k: self._option(k, self.design, self.design.data, self._used[k]) for k in ("trials", "censored")}
        response = read_response(columns, self.family, name, success=self.success, **options)
        if len(response.y) != len(self.design.matrix):
            raise ValueError(
                f"y must have one entry for each of the {len(self.design.matrix)} rows; got {len(response.y)}."
            )
        return response

    def _offset(self, data: Any, options: dict[str, Any], n: int) -> Tensor | None:
        """The offset plus the logarithm of the exposure, (n,); None where there is neither."""
        parts = []
        if options["offset"] is not None:
            parts.append(vector(self._option("offset", self.design, data, options["offset"]), "offset", n))
        if options["exposure"] is not None:
            if not self.family.has_exposure:
                raise ValueError(f"exposure= belongs to counts; got it with family={self.family.name!r}. Use offset=.")
            exposure = vector(self._option("exposure", self.design, data, options["exposure"]), "exposure", n)
            if not bool((exposure > 0).all()):
                raise ValueError(f"exposure must be positive; the smallest is {float(exposure.min()):g}.")
            parts.append(exposure.log())
        return torch.stack(parts).sum(0) if parts else None

    def _prepared(self) -> tuple[Setting, Units]:
        """The setting of the Pyro program in the columns' own units, and the units."""
        matrix, names = self.design.matrix, self.design.names
        has_intercept = self.design.has_intercept or self.family.name == "ordered"
        if not names and not has_intercept:
            raise ValueError("The model has neither an intercept nor a column: nothing is left to learn.")
        units = Units.of(matrix, has_intercept)
        offset = self._offset(self.design.data, self._used, len(matrix))
        prior = chosen_prior(
            self.prior,
            names,
            spreads(matrix, has_intercept),
            self.family,
            self.response,
            0.0 if offset is None else offset,
        )
        if self.family.name == "student" and "df" not in prior.others:
            prior = replace(prior, fixed={"df": self.df, **prior.fixed})
        gaps = max(len(self.response.levels) - 2, 0) if self.family.name == "ordered" else 0
        kept = {"offset": offset, "trials": self.response.trials, "censored": self.response.censored}
        X = torch.as_tensor(matrix) if names else torch.ones(len(matrix), 1, dtype=torch.float64)  # counts the rows
        self.arguments = {"X": X, "y": self.response.y}
        self.arguments |= {k: v for k, v in kept.items() if v is not None}
        return Setting(self.family, self.link, prior, units.mean, has_intercept, gaps), units

    def _standard_prior(self) -> Prior:
        prior, scale = self._setting.prior, self._units.scale
        return replace(prior, mean=prior.mean * scale, sd=prior.sd * scale)

    def _in_own_units(self, posterior: Any, dtype: torch.dtype, device: str) -> RegressionPosterior:
        own = [LEVEL, COEFFICIENTS, *(k for k in posterior.names if k not in (LEVEL, COEFFICIENTS))]
        units = Units(*(x.to(posterior.program.start) for x in (self._units.mean, self._units.scale)))
        posterior.notes = (*self.notes, *posterior.notes)
        posterior.approximation = in_own_units(posterior.approximation, units, own)
        posterior.program = Program(program_of(self._setting), (), dict(self.arguments), dtype=dtype, device=device)
        labels = {COEFFICIENTS: self.design.names} if self.design.names else {}
        return RegressionPosterior.of(posterior, labels)

    @property
    def model(self) -> Callable:
        """The fitted model as a Pyro program, for ``probdl.inference.fit(glm.model, **glm.arguments)``.

        ``model(X, y=None, offset=None, trials=None, censored=None)`` has the sites "Intercept", "coefficients" and
        that of the family, in the units of the columns X, (n, p) without an intercept. ``GLM.fit`` itself runs on
        standardised columns, on which mean field loses less to correlation and no unit is too small or too large.
        """
        self._fitted()
        return program_of(self._setting)

    def _law(self, eta: Tensor, values: dict[str, Tensor], trials: Tensor | None) -> Any:
        fixed = {k: torch.tensor(v, dtype=eta.dtype) for k, v in self._setting.prior.fixed.items()}
        drawn = {k: x[:, None].to(eta) for k, x in values.items()}
        return likelihood(self.family.name, self.link, eta, fixed | drawn, trials)

    def _refuse_exact_fit(self) -> None:
        """Of numbers, and of gamma responses on the scale of their logarithms."""
        y, name = self.response.y, self.family.parameter
        if self.family.name not in ("gaussian", "student", "laplace", "gamma") or name in self._setting.prior.fixed:
            return
        on_scale = y.log() if self.family.name == "gamma" else y
        on_scale = on_scale - self.arguments.get("offset", torch.zeros_like(y))
        standard = self._units.standardise(torch.as_tensor(self.design.matrix)).numpy()
        refuse_exact_fit(standard, on_scale.numpy(), self._setting.has_intercept, self.family.name, str(name))

    def _findings(self) -> tuple[str, ...]:
        """What there is to note about columns and data."""
        matrix, names, has_intercept = self.design.matrix, self.design.names, self._setting.has_intercept
        standard = self._units.standardise(torch.as_tensor(matrix)).numpy()
        notes = (*constant_columns(matrix, names, has_intercept), *collinear_columns(standard, names))
        if self.family.takes in ("binary", "trials"):
            y, trials = self.response.y, self.response.trials
            failures = y < (1 if trials is None else trials)
            notes += separation(standard, names, (y > 0).numpy(), failures.numpy(), has_intercept)
        return (*self.response.notes, *notes)
