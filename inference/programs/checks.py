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
    """Raise a ValueError unless the observation is finite and of its distribution's shape."""
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


def check_support(name: str, site: Any, moved: Any) -> None:
    """Raise a ValueError if the observation is outside the support, unless the support moves with the latents.

    Args:
        name: of the site.
        site: as it was at the first run.
        moved: as it was at other values of the latents.
    """
    fn, value = site["fn"], site["value"]
    inside = fn.support.check(value)
    if not bool(inside.all()) and _same_bounds(fn.support, moved["fn"].support):
        wrong = value.reshape(inside.shape + (-1,))[~inside].reshape(-1)[:3].tolist()
        raise ValueError(
            f"obs of site {name!r} must lie in the support of {type(innermost(fn)).__name__}, {fn.support}; "
            f"{int((~inside).sum())} of {inside.numel()} do not, such as {wrong}."
        )


def _same_bounds(a: Any, b: Any) -> bool:
    """Whether two constraints of one kind have the same bounds."""
    if hasattr(a, "base_constraint"):
        return _same_bounds(a.base_constraint, b.base_constraint)
    bounds = [[torch.as_tensor(getattr(x, k)) for k in ("lower_bound", "upper_bound") if hasattr(x, k)] for x in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*bounds))


def check_same_sites(first: dict[str, Any], moved: dict[str, Any]) -> None:
    """Raise a ValueError unless two runs at different values of the latents had the same sites of the same shapes.

    Args:
        first: the sites of one run.
        moved: the sites of the other.
    """
    for name in [*first, *moved]:
        if name not in first or name not in moved:
            raise ValueError(
                f"Site {name!r} appears only at some values of the latents, so the density has no fixed set of "
                "variables. Sample it always, and use it only where it is needed."
            )
        before, after = tuple(first[name]["fn"].shape()), tuple(moved[name]["fn"].shape())
        if before != after:
            raise ValueError(
                f"The shape of site {name!r} changes with the values of the latents, from {before} to {after}. Give "
                "its plate a fixed size, and mask the rows that do not count (poutine.mask or .mask())."
            )


def failing_site(error: BaseException) -> str | None:
    """Return the name of the site in whose pyro.sample an error was raised, or None."""
    name, step = None, error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_name == "sample" and frame.f_globals.get("__name__", "").startswith("pyro."):
            name = frame.f_locals.get("name", name)
        step = step.tb_next
    return name
