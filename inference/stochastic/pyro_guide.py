"""Pyro programs as guides, and the choice of a guide from what a user passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from probdl.inference.programs.program import Program
from probdl.inference.stochastic.guides import Guide, Sums
from probdl.inference.stochastic.minibatches import RowSource, site_sums
from probdl.inference.stochastic.network_guide import NetworkGuide
from probdl.inference.stochastic.row_plates import local_sites, sample_sites


class PyroGuide(Guide):
    """A guide that is a Pyro program with the model's arguments.

    Args:
        source: where batches come from.
        guide: samples every latent site of the model, from distributions with reparameterised draws.
    """

    def __init__(self, source: RowSource, guide: Callable) -> None:
        super().__init__(source)
        self.guide = guide

    def parameters(self) -> list[Tensor]:
        """Return the parameters of a guide that is a module."""
        return list(self.guide.parameters()) if isinstance(self.guide, nn.Module) else []

    def propose(self, program: Program, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Sums]:
        """Return draws of all sites with their log-densities."""
        trace = self.trace(program, inputs)
        sites = sample_sites(trace)
        for name, site in sites.items():
            if not site["is_observed"] and not site["fn"].has_rsample:
                raise ValueError(
                    f"The guide's site {name!r} has a {type(site['fn']).__name__}, which cannot be reparameterised. "
                    "Use a distribution with rsample, or sum the site out of the model."
                )
        with program._running():
            return {name: site["value"] for name, site in sites.items()}, site_sums(trace, self.source.plates)

    def trace(self, program: Program, inputs: tuple[Tensor, ...]) -> Any:
        """Run the guide on a batch."""
        run = copy.copy(program)
        run.model = self.source.with_rows(self.guide, inputs)
        with run._running():
            return poutine.trace(run.model).get_trace(*run.args, **run.kwargs)


def make_guide(source: RowSource, guide: Any) -> Guide:
    """Return the guide that a user's argument stands for.

    Raises:
        TypeError: if it is neither a network, a dict of networks, nor a Pyro guide.
    """
    if guide is None:
        return NetworkGuide(source, {})
    if isinstance(guide, dict):
        return NetworkGuide(source, guide)
    if isinstance(guide, nn.Module) and not isinstance(guide, PyroModule):
        local = local_sites(source.program, source.plates) if source.plates else ()
        return NetworkGuide(source, {local[0] if len(local) == 1 else "guide": guide})
    if callable(guide):
        return PyroGuide(source, guide)
    raise TypeError(
        f"guide must be a network, a dict of networks by site, or a Pyro guide; got {type(guide).__name__}."
    )


def learnable(guide: Guide) -> list[Tensor]:
    """Return all parameters to learn, after a first run that makes Pyro's: of the guide and of the model."""
    stored = [p for _, p in pyro.get_param_store().named_parameters()]
    model = guide.program.model
    own = list(model.parameters()) if isinstance(model, nn.Module) else []
    unique = {id(p): p for p in (*guide.parameters(), *stored, *own) if p.requires_grad}
    return list(unique.values())
