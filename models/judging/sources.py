"""What is passed to ``evaluate``: models, distributions or samples, alone or by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.distributions import Distribution

from probdl import data
from probdl.models.judging.space import HELD

SINGLE, TRAIN = "samples", "train"


def named(model_or_samples: Any) -> dict[str, Any]:
    """Return models or samples by name."""
    if not isinstance(model_or_samples, Mapping):
        return {SINGLE: model_or_samples}
    if not model_or_samples:
        raise ValueError("model_or_samples must not be empty; pass models or samples by name, as {'VAE': vae}.")
    if strange := [name for name in model_or_samples if not isinstance(name, str) or name in (HELD, TRAIN)]:
        raise ValueError(
            f"model_or_samples must have names that are text, other than {HELD!r} and {TRAIN!r}; got {strange}."
        )
    return dict(model_or_samples)


def enough(rows: Any, name: str, least: int) -> int:
    """Return the number of rows, or raise."""
    if not hasattr(rows, "__len__") or isinstance(rows, (str, Mapping)):
        raise TypeError(f"{name} must be rows (n, ...), as tensor, array or DataFrame; got {type(rows).__name__}.")
    if len(rows) < least:
        raise ValueError(f"{name} must have at least {least} rows; got {len(rows)}. With fewer, no interval is honest.")
    return len(rows)


def _is_model(thing: Any) -> bool:
    return hasattr(thing, "fit") and hasattr(thing, "sample")


def given_to(model: Any, name: str, condition: Any, n: int, draws: int | None) -> dict[str, Any]:
    """Return the condition as an argument, for a model that was fitted with one."""
    if not _is_model(model) or getattr(model, "condition", None) is None:
        return {}
    if condition is None:
        raise ValueError(f"condition must be given, one entry for each held-out row: {name} was fitted with one.")
    if draws not in (None, n):
        raise ValueError(f"draws must be None with a condition: a sample is drawn for each of the {n} held-out rows.")
    return {"condition": condition}


def samples_of(thing: Any, n: int, given: dict[str, Any], seed: int) -> Any:
    """Return n samples of a model or a distribution, or the samples that were passed."""
    if isinstance(thing, Distribution):
        return data.draws(thing, n, seed)
    return thing.sample(n, seed=seed, **given) if _is_model(thing) else thing
