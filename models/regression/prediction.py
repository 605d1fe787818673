"""Means of the response, and new responses, at new rows: by draws of the posterior, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.models.regression.units import COEFFICIENTS, LEVEL

if TYPE_CHECKING:
    import pandas as pd

_CELLS = 4_000_000  # draws × rows at a time
Law = Callable[[Tensor, dict[str, Tensor], Tensor | None], Any]  # (η, parameters, trials) → distribution


class Predictor:
    """Linear predictors of rows, drawn from the posterior, and the law of the response there.

    Where intercept and coefficients are all that is unknown, and jointly Gaussian, each row's linear predictor is
    Gaussian too, and evenly spaced quantiles take the place of draws: there is no Monte Carlo error in the mean.

    Args:
        posterior: in the columns' own units.
        law: the distribution of the response at linear predictors.
        X: the design, (n, p).
        offset: added to the linear predictor, (n,) or None.
        trials: of the binomial family, (n,) or None.
        draws: how many.
        seed: of a local generator.
    """

    def __init__(
        self,
        posterior: Posterior,
        law: Law,
        X: Tensor,
        offset: Tensor | None,
        trials: Tensor | None,
        draws: int,
        seed: int,
    ) -> None:
        if draws < 2:
            raise ValueError(f"draws must be at least 2; got {draws}.")
        self.posterior, self.law, self.X, self.offset, self.trials = posterior, law, X, offset, trials
        self.draws, self.seed = draws, seed
        sites = set(posterior.names)
        self.is_even = isinstance(posterior.approximation, GaussianApproximation) and sites <= {COEFFICIENTS, LEVEL}
        self._drawn = {} if self.is_even else posterior.approximation.repeated_draws(draws, seed)

    def chunks(self) -> Iterator[tuple[slice, Tensor, Any]]:
        """Yield rows with their linear predictors (draws, rows) and laws, under a seed of their own."""
        size = max(1, _CELLS // self.draws)
        with torch.random.fork_rng(devices=[]):  # laws draw from the global generator, which is restored
            torch.manual_seed(self.seed)
            for start in range(0, len(self.X), size):
                rows = slice(start, min(start + size, len(self.X)))
                eta = self._evenly(rows) if self.is_even else self._linear(self._drawn, rows)
                eta = eta if self.offset is None else eta + self.offset[rows]
                trials = None if self.trials is None else self.trials[rows]
                yield rows, eta, self.law(eta, self._parameters(), trials)

    def _parameters(self) -> dict[str, Tensor]:
        return {name: x for name, x in self._drawn.items() if name not in (COEFFICIENTS, LEVEL)}

    def _linear(self, values: dict[str, Tensor], rows: slice) -> Tensor:
        """Linear predictors of draws (S, ...), as (S, rows)."""
        X = self.X[rows]
        eta = torch.zeros(self.draws, len(X), dtype=X.dtype)
        if COEFFICIENTS in values:
            eta = values[COEFFICIENTS].to(X) @ X.T
        return eta + values[LEVEL][:, None].to(X) if LEVEL in values else eta

    def _evenly(self, rows: slice) -> Tensor:
        """Quantiles of each row's linear predictor at the middles of equally likely parts, (draws, rows)."""
        design = self._design(rows)
        names = tuple(name for name in (LEVEL, COEFFICIENTS) if name in self.posterior.names)
        mean = design @ torch.cat([self.posterior.mean(name).reshape(-1) for name in names]).to(design)
        variance = ((design @ self.posterior.cov(*names).to(design)) * design).sum(1).clamp(min=0)
        middles = (torch.arange(self.draws, dtype=design.dtype) + 0.5) / self.draws
        return mean + torch.special.ndtri(middles)[:, None] * variance.sqrt()

    def _design(self, rows: slice) -> Tensor:
        X = self.X[rows]
        return torch.cat([X.new_ones(len(X), 1), X], 1) if LEVEL in self.posterior.names else X


def predicted(predictor: Predictor, mean_of: Callable[[Tensor, Any], Tensor], level: float, index: Any) -> pd.DataFrame:
    """Return means of the response with their intervals, and intervals of new responses, one row each.

    Args:
        predictor: draws of linear predictors and laws.
        mean_of: the mean of the response at linear predictors, given its law, (draws, rows).
        level: coverage of the intervals.
        index: of the table.
    """
    import pandas as pd

    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level}.")
    parts = [_summarised(mean_of(eta, law), law.sample(), level) for _, eta, law in predictor.chunks()]
    labels = ["mean", "sd", "lower", "upper", "new_lower", "new_upper"]
    return pd.DataFrame(np.concatenate(parts), columns=labels, index=index)


def _summarised(means: Tensor, new: Tensor, level: float) -> np.ndarray:
    # whole numbers stay whole: of new responses an order statistic, not a value between two
    ends = [*_quantiles(means, level), *_quantiles(new, level, "nearest")]
    return np.stack([means.mean(0).numpy(), means.std(0).numpy(), *ends], 1)


def _quantiles(x: Tensor, level: float, method: Any = "linear") -> np.ndarray:
    """The outer quantiles of draws (S, ...), (2, ...); NumPy's are the faster ones."""
    return np.quantile(
        x.movedim(0, -1).contiguous().numpy(), [(1 - level) / 2, (1 + level) / 2], axis=-1, method=method
    )


def predicted_categories(predictor: Predictor, levels: tuple, level: float, index: Any) -> pd.DataFrame:
    """Return probabilities of ordered categories with their intervals, and an interval of new categories."""
    import pandas as pd

    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level}.")
    means, intervals, new = [], [], []
    for _, _, law in predictor.chunks():
        means.append(law.probs.mean(0).numpy())
        intervals.append(_quantiles(law.probs, level))
        new.append(_quantiles(law.sample(), level, "nearest"))
    low, high = np.concatenate(intervals, 1)
    columns: dict[str, Any] = {}
    for suffix, table in (("", np.concatenate(means)), (" lower", low), (" upper", high)):
        columns |= {f"P({name}){suffix}": table[:, k] for k, name in enumerate(levels)}
    for end, places in zip(("new_lower", "new_upper"), np.concatenate(new, 1).astype(int)):
        columns[end] = [levels[place] for place in places]
    return pd.DataFrame(columns, index=index)


def pointwise(predictor: Predictor, y: Tensor, density: Callable[[Any, Tensor, slice], Tensor]) -> Estimate:
    r"""Return :math:`\log E_q\, p(y_i \mid θ)` of each row, with its Monte Carlo error.

    Args:
        predictor: draws of linear predictors and laws.
        y: responses, (n,).
        density: log-density of the rows' responses under a law, (draws, rows).
    """
    values, errors = [], []
    for rows, _, law in predictor.chunks():
        log_p = density(law, y[rows], rows)
        values.append(torch.logsumexp(log_p, 0) - np.log(predictor.draws))
        relative = (log_p - values[-1]).exp()
        errors.append(relative.std(0) / predictor.draws**0.5)
    how = "quantiles of the linear predictor" if predictor.is_even else "monte carlo"
    stderr = torch.cat(errors) * (0.0 if predictor.is_even else 1.0)
    notes = ("posterior predictive: the parameters are averaged over their posterior",)
    return Estimate(torch.cat(values), stderr, how, "approximation", predictor.draws, notes)
