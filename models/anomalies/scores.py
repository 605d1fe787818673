"""The methods that score rows, and the score that a model gives a row: larger is stranger."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from probdl import ConvergenceWarning

METHODS = ("kde", "mixture", "pca", "ae", "vae", "isolation forest")
CODED = ("pca", "ae")  # whose codes must be smaller than a row
STEPS = 500  # of the networks
WAYS = ("log_prob", "log_likelihood", "anomaly_score", "score_samples")
STRANGE = ("anomaly_score",)  # larger for stranger rows; of the others the negative is


@dataclass(frozen=True, eq=False)
class Method:
    """A way to score rows.

    Attributes:
        model: a model of the user's, of which copies are fitted; None for those of the package.
        ways: the names of the methods to ask for a score, of which the first that the model has is taken.
    """

    model: Any = None
    ways: tuple[str, ...] = WAYS


def methods_of(methods: Any) -> dict[str, Method]:
    """Return the methods by name, or raise for names that there are not and models that give no score."""
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, (Mapping, Sequence)) or not methods:
        raise ValueError(f"methods must be names among {list(METHODS)}, or {{name: model}}; got {methods!r}.")
    named: dict[Any, Any] = {}
    for part in [methods] if isinstance(methods, Mapping) else methods:
        named |= part if isinstance(part, Mapping) else {part: None}
    return {name: _own(name) if model is None else _passed(name, model) for name, model in named.items()}


def _own(name: Any) -> Method:
    if name not in METHODS:
        raise ValueError(
            f"methods must be names among {list(METHODS)}, or {{name: model}}; got {name!r}. Pass a model of your own "
            "as {name: model}, alone or in a list beside these names."
        )
    return Method(ways=("anomaly_score",) if name in CODED else WAYS)


def _passed(name: str, model: Any) -> Method:
    if isinstance(model, type) or not hasattr(model, "fit") or not any(hasattr(model, way) for way in WAYS):
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"methods[{name!r}] must be a model with fit and one of {', '.join(WAYS)}; got {got}.")
    return Method(model)


def build(name: str, n: int, d: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """Return the model of a name for n rows of d columns in standardised units, and how it is fitted.

    Codes have a third of the columns, at most ten entries.
    """
    from probdl import models

    if name in CODED and d < 2:
        raise ValueError("its code must have fewer entries than a row, which needs at least 2 columns; got 1")
    code = max(1, min(d // 3, 10, n - 1))
    if name == "kde":
        return models.KDE("silverman", product=True), {}
    if name == "mixture":
        return models.GaussianMixture((1, 2, 3), starts=3, standardise="none"), {}
    if name == "pca":
        return models.PCA(code, standardise="none"), {}
    if name == "ae":
        return models.Autoencoder(code, hidden=(32,), standardise="none"), {"steps": STEPS}
    if name == "vae":
        return models.VAE(min(code, 5), "gaussian", hidden=(32,), standardise="none"), {"steps": STEPS}
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed), {}


def scores_of(name: str, method: Method, fit: Any, rows: Any, seed: int) -> tuple[Tensor, list[str]]:
    """Fit a method to some rows and return the scores of others, (n,), float64, and what was warned of.

    Raises:
        ValueError: if the model cannot be fitted, or a score is NaN.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            model, how = (
                (deepcopy(method.model), {}) if method.model is not None else build(name, len(fit), fit.shape[1], seed)
            )
            known = signature(model.fit).parameters
            model.fit(fit, **how, **{k: v for k, v in {"seed": seed, "progress": False}.items() if k in known})
            found = _score(model, rows, method.ways)
        except ValueError as error:
            raise ValueError(f"method {name!r} cannot score these rows: {error}") from error
    if found.shape != (len(rows),) or bool(found.isnan().any()):
        what = f"{int(found.isnan().sum())} NaN" if found.shape == (len(rows),) else f"shape {tuple(found.shape)}"
        raise ValueError(f"method {name!r} must give each of {len(rows)} rows a number; got {what}.")
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return found, [f"{name}: {w.message}" for w in caught if issubclass(w.category, ConvergenceWarning)]


def _score(model: Any, rows: Any, ways: Sequence[str]) -> Tensor:
    for way in ways:
        if not hasattr(model, way):
            continue
        try:
            found = getattr(model, way)(rows)
        except NotImplementedError:  # said by models without a density
            continue
        value = torch.as_tensor(getattr(found, "value", found)).detach().double().cpu()
        return value if way in STRANGE else -value
    raise ValueError(f"a {type(model).__name__} has no score; it needs one of {', '.join(ways)}")
