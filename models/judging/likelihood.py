"""The held-out log-likelihood, of the models that have one."""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.judging.evaluation import Measure

NAME = "log_likelihood"


def measures(model: Any, x: Any, given: dict[str, Any]) -> dict[str, Measure]:
    """Return the mean log-likelihood of held-out rows, or why there is none; nothing for samples.

    Args:
        model: what was passed to ``evaluate``.
        x: held-out rows as they were passed.
        given: the condition, for a model that has one.
    """
    if not hasattr(model, "fit") or not hasattr(model, NAME):
        return {}
    known = signature(model.log_likelihood).parameters
    try:
        rows = model.log_likelihood(x, **{name: value for name, value in given.items() if name in known})
    except (NotImplementedError, ValueError) as reason:  # no density, or none where these rows are
        return {NAME: Measure(None, better="higher", why=str(reason))}
    return {NAME: Measure(_mean(rows), better="higher")}


def _mean(rows: Estimate) -> Estimate:
    """Return the mean over rows; its standard error counts the rows, and with them the noise of each value."""
    value = torch.as_tensor(rows.value).double()
    n, noise = len(value), rows.stderr
    notes = ["nats for one row, in the data's own units; compare models of the same data in the same units only"]
    if isinstance(noise, Tensor):
        numerical = float(noise.double().square().sum().sqrt()) / n
        notes.append(f"the numerical error of the mean, which stderr counts too, is {numerical:.3g}")
    stderr = float(value.std()) / math.sqrt(n)
    return Estimate(float(value.mean()), stderr, rows.method, rows.target, n, (*notes, *rows.notes[:1]))
