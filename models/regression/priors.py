r"""Priors of the coefficients, scaled to the data so that a change of units changes nothing.

With u = 1 where the linear predictor has no unit (log-odds, logarithms), else the standard deviation of the response,

.. math:: β_j \sim N(0, (2.5\,u / \mathrm{sd}(x_j))^2), \qquad α \sim N(m, (10\,u)^2),

where α is the linear predictor at the means of the columns and m is 0 for probabilities, else the link of the mean of
the response. The scaled 2.5 is that of rstanarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.models.regression.families import Family
from probdl.models.regression.responses import Response

SLOPE, LEVEL = 2.5, 10.0


@dataclass(frozen=True)
class Prior:
    """Normal priors of intercept and coefficients, and those of further sites.

    Attributes:
        mean: of the coefficients, (p,).
        sd: of the coefficients, (p,).
        level: mean and sd of the intercept at the means of the columns.
        unit: of the linear predictor.
        others: distributions of further sites that users gave.
        fixed: values of further sites that users gave.
        given: names of those that users gave.
    """

    mean: Tensor
    sd: Tensor
    level: tuple[float, float]
    unit: float
    others: dict[str, Distribution]
    fixed: dict[str, float]
    given: tuple[str, ...] = ()


def chosen_prior(
    prior: Any, names: list[str], spreads: np.ndarray, family: Family, response: Response, log_exposure: Tensor | float
) -> Prior:
    """Return the prior: the default, changed where the user says so.

    Args:
        prior: None, one standard deviation for all coefficients, or a mapping; see ``GLM``.
        names: of the coefficients.
        spreads: standard deviations of their columns, (p,).
        family: of the response.
        response: what was observed, which gives the unit.
        log_exposure: what is added to the linear predictor, (n,) or 0.

    Raises:
        ValueError: for an improper prior, a standard deviation that is not positive, or a name that there is not.
        TypeError: for a prior that is neither a number, a pair nor a distribution.
    """
    unit = unit_of(response, family)
    mean, sd = torch.zeros(len(names), dtype=torch.float64), torch.as_tensor(SLOPE * unit / spreads)
    level = (centre_of(response, family, log_exposure), LEVEL * unit)
    others: dict[str, Distribution] = {}
    fixed: dict[str, float] = {}
    given = _as_mapping(prior)
    if "coefficients" in given:  # before those of single ones, wherever it stands
        given = {"coefficients": given["coefficients"], **given}
    for name, value in given.items():
        if name == "coefficients":
            m, s = _normal(value, name)
            mean[:], sd[:] = m, s
        elif name == "Intercept":
            level = _normal(value, name)
        elif name in names:
            mean[names.index(name)], sd[names.index(name)] = _normal(value, name)
        else:
            found = _other(value, name, names, family)
            others |= {name: found} if isinstance(found, Distribution) else {}
            fixed |= {} if isinstance(found, Distribution) else {name: found}
    return Prior(mean, sd, level, unit, others, fixed, tuple(given))


def _as_mapping(prior: Any) -> dict[str, Any]:
    if prior is None:
        return {}
    return dict(prior) if isinstance(prior, Mapping) else {"coefficients": prior}


def _normal(value: Any, name: str) -> tuple[float, float]:
    """Mean and sd of a Normal prior, from a sd, a pair or a distribution."""
    if isinstance(value, Distribution):
        value = value.base_dist if hasattr(value, "base_dist") else value
        if not isinstance(value, torch.distributions.Normal) or value.loc.numel() != 1:
            raise ValueError(
                f"The prior of {name!r} must be a Normal of one number; got {type(value).__name__}. For other priors "
                "write a Pyro program, for which glm.model is a pattern."
            )
        pair: tuple[Any, Any] = (value.loc, value.scale)
    elif np.ndim(value) == 0 and not isinstance(value, str):
        pair = (0.0, value)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        pair = (value[0], value[1])
    else:
        raise TypeError(
            f"The prior of {name!r} must be a standard deviation, a pair (mean, sd) or a Normal; got {value!r}."
        )
    try:
        mean, sd = float(pair[0]), float(pair[1])
    except (TypeError, ValueError) as error:
        raise TypeError(f"The prior of {name!r} must be made of numbers; got {value!r}.") from error
    if math.isinf(sd) and sd > 0:
        raise ValueError(
            f"The prior of {name!r} is improper: its standard deviation is infinite. Expectation propagation, evidence "
            "and separated data need a proper prior; a wide one, such as (0, 100), is proper."
        )
    if not (sd > 0 and math.isfinite(mean)):
        raise ValueError(f"The prior of {name!r} must have a finite mean and a positive sd; got {mean:g} and {sd:g}.")
    return mean, sd


def _other(value: Any, name: str, names: list[str], family: Family) -> Distribution | float:
    sites = [s for s in (family.parameter, "df" if family.name == "student" else None) if s]
    if name not in sites:
        known = ", ".join(["coefficients", "Intercept", *names, *sites])
        raise ValueError(f"prior has the name {name!r}, which the model does not; it has {known}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "gaps":
        if not 0 < value < math.inf:
            raise ValueError(f"The value at which prior fixes {name!r} must be positive and finite; got {value!r}.")
        return float(value)
    if not isinstance(value, Distribution):
        raise TypeError(
            f"The prior of {name!r} must be a distribution on positive numbers, or a number that fixes it; got "
            f"{value!r}."
        )
    lowest = float(torch.as_tensor(getattr(value.support, "lower_bound", -1.0)).min())
    if lowest < 0 or value.batch_shape.numel() != 1 or isinstance(value, torch.distributions.Independent):
        raise ValueError(f"The prior of {name!r} must be a distribution of one positive number; got {value}.")
    return value


def unit_of(response: Response, family: Family) -> float:
    """Return the unit of the linear predictor: 1, or the spread of the response, robust where the family is."""
    y = response.y.double()
    if not family.in_units_of_y:
        return 1.0
    spread = 0.0
    if family.name != "gaussian":
        spread = 1.4826 * float((y - y.median()).abs().median())
    if not spread > 0 and len(y) > 1:
        spread = float(y.std())
    return spread if spread > 1e-12 * float(y.abs().max()) else float(y.abs().max()) or 1.0


def centre_of(response: Response, family: Family, log_exposure: Tensor | float) -> float:
    """Return the prior mean of the linear predictor at the means of the columns."""
    y = response.y.double()
    if family.takes in ("binary", "trials", "ordered"):
        return 0.0
    if family.takes == "real":
        return float((y - log_exposure).mean() if family.name == "gaussian" else (y - log_exposure).median())
    total = float(y.sum()) or 0.5  # no count at all: half a count
    exposure = torch.as_tensor(log_exposure, dtype=torch.float64).expand(len(y))
    return math.log(total) - float(torch.logsumexp(exposure, 0))
