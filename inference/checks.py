"""What a program must have before any method runs it: latent and observed sites, and observations that fit them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def innermost(fn: Any) -> Any:
    """Return the distribution inside ``to_event``, ``expand`` and ``mask``."""
    return innermost(fn.base_dist) if hasattr(fn, "base_dist") else fn


def check_sites(latent: dict[str, Any], observed: tuple[str, ...]) -> None:
    """Raise a ValueError unless there are latent sites and observed ones."""
    if not latent:
        raise ValueError("The model has no latent site: nothing is to be inferred. Add a pyro.sample without obs=.")
    if not observed:
        raise ValueError(
            f"The model has no observed site, only the latents {', '.join(latent)}. "
            "Pass the data and give one pyro.sample obs=."
        )


def check_observation(name: str, site: Any) -> None:
    """Raise a ValueError unless the observation is finite, in the support, and of its distribution's shape."""
    fn, value = site["fn"], site["value"]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"obs of site {name!r} must be a tensor, or an array passed to fit; got {type(value).__name__}."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ValueError(f"obs of site {name!r} must be finite; it holds NaN or infinities.")
    shape = fn.shape()
    if value.shape != shape:
        raise ValueError(
            f"obs of site {name!r} has shape {tuple(value.shape)}, but its distribution has shape {tuple(shape)}. "
            "Make them equal: broadcasting would count observations twice."
        )
    inside = fn.support.check(value)
    if not bool(inside.all()):
        wrong = value.reshape(inside.shape + (-1,))[~inside].reshape(-1)[:3].tolist()
        raise ValueError(
            f"obs of site {name!r} must lie in the support of {type(innermost(fn)).__name__}, {fn.support}; "
            f"{int((~inside).sum())} of {inside.numel()} do not, such as {wrong}."
        )
