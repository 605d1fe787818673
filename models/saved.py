"""What all models do with a file beside ``probdl.files``: check that it is theirs, and keep the history."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("settings", "dtype", "networks", "found", "history", "message")


def check_header(
    header: dict[str, Any], model: str, networks: dict[str, nn.Module | None], path: str | os.PathLike
) -> dict[str, Any]:
    """Return the constructor's settings from a file's header.

    Args:
        header: as ``probdl.files.read`` returns it; "networks" names the classes of those that the user had passed.
        model: the name of the class that loads it.
        networks: those passed now.
        path: for the error.

    Raises:
        ValueError: if the file holds another model, or was saved with networks other than those passed.
    """
    if header.get("model") != model:
        raise ValueError(f"path must be a file of {model}.save; {str(path)!r} holds a {header.get('model')}.")
    if missing := [key for key in KEYS if key not in header]:
        raise ValueError(
            f"path must be a file of {model}.save; the header of {str(path)!r} lacks {', '.join(missing)}."
        )
    for name in dict.fromkeys([*header["networks"], *networks]):
        network, saved = networks.get(name), header["networks"].get(name)
        if saved and network is None:
            raise ValueError(f"{name} must be passed: {str(path)!r} was saved with your own {name}, a {saved}.")
        if network is not None and not saved:
            raise ValueError(f"{name} must be left out: {str(path)!r} was saved without one.")
    dtype = getattr(torch, header["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"path must be a file of {model}.save; {str(path)!r} names no floating type of torch.")
    return {**header["settings"], "dtype": dtype}


def rebuild(model: Any, found: Any, path: str | os.PathLike) -> None:
    """Build the parts of a model from what a file's header says it found, or raise a ValueError."""
    try:
        model._rebuild(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"path must be a file of {type(model).__name__}.save; the header of {str(path)!r} does not describe one "
            f"({type(error).__name__}: {error})."
        ) from error


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Put saved tensors into a module of the same structure, or raise a ValueError."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"The networks do not fit the weights in {str(path)!r}; build them as they were saved. {error}"
        ) from error


def history_to_json(history: pd.DataFrame | None) -> dict[str, list] | None:
    """Return the columns of a history as lists, with None for NaN."""
    if history is None:
        return None
    return {str(c): [_or_none(v) for v in history[c].tolist()] for c in history.columns}


def history_from_json(columns: dict[str, list] | None) -> pd.DataFrame | None:
    """Return the history that ``history_to_json`` wrote."""
    import pandas as pd

    if columns is None:
        return None
    return pd.DataFrame({c: [math.nan if v is None else v for v in values] for c, values in columns.items()})


def _or_none(value: float) -> float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
