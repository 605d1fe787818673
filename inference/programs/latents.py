"""Latent sites: where each stands in the flat unconstrained vector, and where to start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from probdl.inference.programs.bijections import bijection


@dataclass(frozen=True)
class Latent:
    """Where a latent site stands in the flat vector z, and how it is brought to its own space."""

    name: str
    place: slice
    free_shape: torch.Size
    shape: torch.Size
    transform: Transform
    prior: Distribution

    def constrain(self, z: Tensor) -> Tensor:
        """Return the value (..., *shape) at unconstrained vectors z (..., dim)."""
        return self.transform(z[..., self.place].reshape(z.shape[:-1] + self.free_shape))

    def is_real(self) -> bool:
        """Whether the site lives on the whole real space, so that its transform is the identity."""
        return _core(self.prior.support) is torch.distributions.constraints.real

    def is_elementwise(self) -> bool:
        """Whether the transform maps each entry by itself, as those of positive and bounded sites do."""
        return self.shape == self.free_shape and _core(self.prior.support).event_dim == 0


def _core(support: Any) -> Any:
    """The constraint inside those of ``to_event``, which makes events of entries that do not mix."""
    return _core(support.base_constraint) if hasattr(support, "base_constraint") else support


def lay_out(latent: dict[str, Any]) -> dict[str, Latent]:
    """Place the latent sites of a trace one after another in the flat vector."""
    laid, stop = {}, 0
    for name, site in latent.items():
        transform = bijection(site["fn"].support)
        free = transform.inv(site["value"])
        start, stop = stop, stop + free.numel()
        laid[name] = Latent(name, slice(start, stop), free.shape, site["value"].shape, transform, site["fn"])
    return laid


def one_after_another(latents: dict[str, Latent]) -> dict[str, Latent]:
    """Return some of the sites as they stand in a vector of their own."""
    laid, stop = {}, 0
    for name, latent in latents.items():
        start, stop = stop, stop + latent.place.stop - latent.place.start
        laid[name] = replace(latent, place=slice(start, stop))
    return laid


def typical_value(msg: dict) -> Tensor:
    """The prior mean where it exists inside the support, else the middle of unconstrained space."""
    fn = msg["fn"]
    if is_discrete(fn):
        return _first_value(fn)
    transform = bijection(fn.support)
    try:
        mean = fn.mean.expand(fn.shape())
        inside = bool(fn.support.check(mean).all()) and bool(torch.isfinite(transform.inv(mean)).all())
    except (NotImplementedError, AttributeError):
        inside = False
    return mean.detach() if inside else transform(torch.zeros_like(transform.inv(fn.sample())))


def _first_value(fn: Any) -> Tensor:
    """The first value of a discrete distribution that can be listed, else a draw; no global seed is changed."""
    if getattr(fn, "has_enumerate_support", False):
        return fn.enumerate_support(expand=False)[0].expand(fn.shape())
    with torch.random.fork_rng(devices=[]):
        return fn.sample()


def is_discrete(fn: Any) -> bool:
    """Whether the distribution lives on integers or other isolated points."""
    return bool(getattr(_core(fn.support), "is_discrete", False))
