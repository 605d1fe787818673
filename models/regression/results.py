"""The posterior with the names of the columns, and the summary that reads like R's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.posteriors.grid_mixture import GridMixture
from probdl.models.regression.units import COEFFICIENTS, LEVEL

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class RegressionPosterior(Posterior):
    """A posterior whose tables and pictures have the names of the design's columns.

    Attributes:
        labels: by site, the names of its entries.
    """

    labels: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, posterior: Posterior, labels: dict[str, list[str]]) -> RegressionPosterior:
        """Return a posterior with the names of its entries."""
        held = {f.name: getattr(posterior, f.name) for f in fields(Posterior)}
        return cls(**held, labels=labels)

    def entries(self, name: str) -> list[str]:
        """Return the names of a site's entries, in the order in which they are flattened."""
        return self.labels.get(name) or super().entries(name)


@dataclass(frozen=True)
class GLMSummary:
    """What a regression found, to be read or used as a table.

    Attributes:
        table: one row for each coefficient and further parameter: posterior mean, sd and quantiles, and ``P(sign)``,
            the posterior probability of the sign that its median has.
        priors: one row for each coefficient, with mean and sd of its prior in the column's own units.
        header: lines above the table.
        footer: lines below it.
    """

    table: pd.DataFrame
    priors: pd.DataFrame
    header: tuple[str, ...]
    footer: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([*self.header, "", _written(self.table), "", *self.footer])

    def _repr_html_(self) -> str:
        from html import escape

        above, below = ("<br>".join(map(escape, lines)) for lines in (self.header, self.footer))
        return f"<p>{above}</p>{_rounded(self.table).to_html(na_rep='')}<p>{below}</p>"


def _written(table: pd.DataFrame) -> str:
    return _rounded(table).to_string(na_rep="")


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Text of the numbers: three digits of each sd decide how many its row has."""
    import pandas as pd

    rows = [[_entry(label, value, float(row["sd"])) for label, value in row.items()] for _, row in table.iterrows()]
    return pd.DataFrame(rows, index=table.index, columns=table.columns)


def _entry(label: Any, value: float, sd: float) -> str:
    if value != value:
        return ""
    if label == "ess":
        return f"{value:.0f}"
    if label in ("P(sign)", "rhat"):
        return f"{value:.4f}"
    digits = 2 - math.floor(math.log10(sd)) if 0 < sd < math.inf else 4
    if digits > 7 or digits < -4:
        return f"{value:.3e}"
    return f"{value:.{max(digits, 0)}f}"


def coefficient_table(posterior: RegressionPosterior, level: float) -> pd.DataFrame:
    """Return the summary of a posterior with the probability of the sign of each coefficient."""
    table = posterior.summary(level)
    signs = torch.cat([_sign(posterior, name) for name in posterior.approximation.tabled])
    place = len([c for c in table.columns if c in ("mean", "sd") or str(c).endswith("%")])
    table.insert(place, "P(sign)", signs.cpu().numpy())
    first = posterior.entries(LEVEL) if LEVEL in posterior.names else []  # as in every table of a regression
    return table.loc[[*first, *table.index.drop(first)]]


def _sign(posterior: RegressionPosterior, name: str) -> Tensor:
    """The probability of the median's sign; NaN for sites that have only one."""
    mean = posterior.mean(name).reshape(-1)
    if name not in (COEFFICIENTS, LEVEL):
        return torch.full_like(mean, torch.nan)
    if isinstance(posterior.approximation, GaussianApproximation):
        return torch.special.ndtr((mean / posterior.sd(name).reshape(-1)).abs())
    if isinstance(posterior.approximation, GridMixture):
        mixture = posterior.approximation
        place, weights = mixture.inner[name].place, mixture.weights[:, None]
        positive = (weights * torch.special.ndtr(mixture.means[:, place] / mixture.sds[:, place])).sum(0)
        return torch.maximum(positive, 1 - positive)
    draws = _many_draws(posterior)[name].reshape(-1, len(mean))
    positive = (draws > 0).to(mean).mean(0)
    return torch.maximum(positive, 1 - positive)


def _many_draws(posterior: Posterior) -> dict[str, Tensor]:
    return posterior.draws(None if posterior.approximation.is_sampled else 20_000)


def cutpoint_rows(posterior: RegressionPosterior, levels: tuple, level: float) -> pd.DataFrame:
    """Return the summary of the cut-points c_k = g_k − Intercept between ordered categories, by draws."""
    import pandas as pd

    cuts = cutpoints_of(_many_draws(posterior))
    quantiles = {f"{100 * q:.3g}%": cuts.quantile(q, 0) for q in ((1 - level) / 2, 0.5, (1 + level) / 2)}
    positive = (cuts > 0).to(cuts).mean(0)
    signs = torch.maximum(positive, 1 - positive)
    columns = {"mean": cuts.mean(0), "sd": cuts.std(0), **quantiles, "P(sign)": signs}
    index = [f"{a}|{b}" for a, b in zip(levels[:-1], levels[1:])]
    return pd.DataFrame({k: v.cpu().numpy() for k, v in columns.items()}, index=index)


def cutpoints_of(values: dict[str, Tensor]) -> Tensor:
    """Return the cut-points of draws of intercept and gaps, (n, K − 1)."""
    first = -values[LEVEL][:, None]
    if "gaps" not in values:
        return first
    return torch.cat([first, first + values["gaps"].cumsum(-1)], -1)
