"""A posterior as a file: tensors and JSON, never a program."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, identity_transform

from probdl import files
from probdl.divergences.estimate import Estimate
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs import supports
from probdl.inference.programs.bijections import bijection
from probdl.inference.programs.latents import Latent
from probdl.inference.programs.predictive import Source
from probdl.inference.programs.program import Program

if TYPE_CHECKING:
    import pandas as pd

    from probdl.inference.posterior import Posterior


_ANYWHERE = {"place": None}  # where a site stands in the flat vector is of no matter to another method


@dataclass(frozen=True)
class _OnSupport:
    """Stands for the prior of a loaded site, of which only the support is known."""

    support: Any


def save(posterior: Posterior, path: str | os.PathLike) -> None:
    """Write a posterior to one safetensors file."""
    kind = type(posterior.approximation).__name__
    tensors, settings = posterior.approximation.to_tensors()
    bounds: dict[str, Tensor] = {}
    header = {
        "object": "Posterior",
        "kind": kind,
        "settings": settings,
        "latents": [_latent_to_json(x, bounds) for x in posterior.approximation.latents.values()],
        "method": posterior.method,
        "converged": bool(posterior.converged),
        "message": posterior.message,
        "seconds": float(posterior.seconds),
        "history": _frame_to_json(posterior.history),
        "elbo": _estimate_to_json(posterior.elbo),
        "log_evidence": _estimate_to_json(posterior.log_evidence),
        "notes": list(posterior.notes),
        "approximation_notes": list(posterior.approximation.notes),
        "khat": None if posterior.khat is None else _number(posterior.khat),
        "source": _source_to_json(posterior.source if posterior.program is None else Source.of(posterior.program)),
    }
    parts = {f"approximation/{k}": v for k, v in tensors.items()} | {f"bounds/{k}": v for k, v in bounds.items()}
    files.write(path, parts, header)


def load(path: str | os.PathLike, model: Callable | None) -> dict[str, Any]:
    """Return the fields of a ``Posterior`` that ``save`` wrote, with the model where it is given.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or is damaged.
    """
    tensors, header = files.read(path)
    if header.get("object") != "Posterior":
        held = header.get("object") or header.get("model") or "something else"
        raise ValueError(f"path must be a file of Posterior.save; {str(path)!r} holds a {held}.")
    try:
        return _fields(tensors, header) | {"source": _source_from_json(header["source"], model)}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"path must be a file of Posterior.save; {str(path)!r} is incomplete ({error}).") from error


def _fields(tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Any]:
    parts = {k.removeprefix("approximation/"): v for k, v in tensors.items() if k.startswith("approximation/")}
    bounds = {k.removeprefix("bounds/"): v for k, v in tensors.items() if k.startswith("bounds/")}
    latents = {x["name"]: _latent_from_json(x, bounds) for x in header["latents"]}
    approximation = _kinds()[header["kind"]].from_tensors(latents, parts, header["settings"])
    approximation.notes = tuple(header["approximation_notes"])
    plain = {key: header[key] for key in ("method", "converged", "message", "seconds")}
    return plain | {
        "approximation": approximation,
        "history": _frame_from_json(header["history"]),
        "elbo": _estimate_from_json(header["elbo"]),
        "log_evidence": _estimate_from_json(header["log_evidence"]),
        "notes": tuple(header["notes"]),
        "khat": None if header["khat"] is None else float(header["khat"]),
    }


def _source_to_json(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    dtype = str(source.dtype).removeprefix("torch.")
    names = {key: list(getattr(source, key)) for key in ("observed", "discrete", "of_rows")}
    return names | {"dtype": dtype}


def _source_from_json(x: dict[str, Any] | None, model: Callable | None) -> Source | None:
    if x is None:
        return None
    if x["dtype"] not in ("float32", "float64", "float16", "bfloat16"):
        raise ValueError(f"it names the unknown type {x['dtype']!r}")
    dtype = getattr(torch, x["dtype"])
    names = {key: tuple(x[key]) for key in ("observed", "discrete", "of_rows")}
    return Source(model, dtype=dtype, device=torch.device("cpu"), **names)


def _kinds(base: type[Approximation] = Approximation) -> dict[str, type[Approximation]]:
    """Every kind of approximation by the name of its class: a file can name no other class."""
    below = [kind for sub in base.__subclasses__() for kind in _kinds(sub).values()]
    return {kind.__name__: kind for kind in [base, *below]}


def _latent_to_json(latent: Latent, bounds: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "name": latent.name,
        "place": [latent.place.start, latent.place.stop],
        "free_shape": list(latent.free_shape),
        "shape": list(latent.shape),
        "support": supports.to_json(latent.prior.support, latent.name, bounds),
    }


def _latent_from_json(x: dict[str, Any], bounds: dict[str, Tensor]) -> Latent:
    support = supports.from_json(x["support"], bounds)
    # Sites on integers have no map from the reals.
    transform = identity_transform if support.is_discrete else bijection(support)
    prior = cast(Distribution, _OnSupport(support))
    return Latent(x["name"], slice(*x["place"]), torch.Size(x["free_shape"]), torch.Size(x["shape"]), transform, prior)


def program_for(posterior: Posterior, model: Callable, args: tuple, kwargs: dict[str, Any]) -> Program | None:
    """Return the program of a loaded posterior; None where no data are given and the model cannot run without.

    Raises:
        ValueError: if the model does not have the posterior's sites; it names one.
    """
    dtype = torch.float64 if posterior.source is None else posterior.source.dtype
    try:
        program = Program(model, args, kwargs, dtype=dtype)
    except (TypeError, ValueError):
        if args or kwargs:
            raise
        return None
    for latent in posterior.approximation.latents.values():
        _check_fits(program, latent)
    return program


def _check_fits(program: Program, latent: Latent) -> None:
    found = program.latents.get(latent.name)
    if latent.name in program.discrete:
        return
    if found is None or _latent_to_json(found, {}) | _ANYWHERE != _latent_to_json(latent, {}) | _ANYWHERE:
        other = "is not a site of model" if found is None else f"is {_described(found)} in model"
        raise ValueError(
            "model must be the one that was fitted, with data of the same groups: site "
            f"{latent.name!r}, {_described(latent)}, {other}."
        )


def _described(latent: Latent) -> str:
    return f"of shape {tuple(latent.shape)} and support {latent.prior.support}"


def _number(x: float) -> float | str:
    """JSON has no infinities and no NaN: these are written as text, which float() reads."""
    return float(x) if math.isfinite(x) else str(float(x))


def _estimate_to_json(e: Estimate | None) -> dict[str, Any] | None:
    if e is None:
        return None
    numbers = {"value": _number(float(e.value)), "stderr": None if e.stderr is None else _number(float(e.stderr))}
    return numbers | {"method": e.method, "target": e.target, "n": e.n, "notes": list(e.notes)}


def _estimate_from_json(x: dict[str, Any] | None) -> Estimate | None:
    if x is None:
        return None
    stderr = None if x["stderr"] is None else float(x["stderr"])
    return Estimate(float(x["value"]), stderr, x["method"], x["target"], x["n"], tuple(x["notes"]))


def _frame_to_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    def plain(v: Any) -> Any:
        return _number(v) if isinstance(v, float) else v

    return [
        {"name": str(c), "dtype": str(frame[c].dtype), "values": [plain(v) for v in frame[c].tolist()]} for c in frame
    ]


def _frame_from_json(columns: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    def column(c: dict[str, Any]) -> pd.Series:
        values = [float(v) for v in c["values"]] if c["dtype"].startswith("float") else c["values"]
        return pd.Series(values, dtype=c["dtype"])

    return pd.DataFrame({c["name"]: column(c) for c in columns})
