r"""Factors that are not conjugate, but see Gaussian latents through affine projections: :math:`\ell(a^\top z + c)`.

Their expectation is a one-dimensional Gaussian integral for each observation. Its gradient in the moments of the block
is a natural gradient: :math:`\eta \leftarrow (1-\rho)\eta + \rho \nabla_\mu E_q \log f`, with ρ = 1 the update of a
conjugate factor (Khan and Lin 2017).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.factors import Layout
from probdl.inference.free_form.gaussian_block import ArrowBlock
from probdl.inference.free_form.reading import Reading, Site
from probdl.inference.free_form.weights import Moments
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.propagation.factors import NotApplicable
from probdl.inference.propagation.projections import find_projection
from probdl.inference.propagation.site_factors import SiteFactors

_NODES = 40


class ProjectedFactor:
    """E Σ ℓ(a·z + c) under one Gaussian block, by Gauss–Hermite quadrature."""

    weights = None

    def __init__(self, reading: Reading, site: Site, layout: Layout) -> None:
        from numpy.polynomial.hermite_e import hermegauss

        self.site = site
        blocks = layout.gaussian_of(site.seen)
        if len(blocks) != 1 or blocks[0].units != 1 or isinstance(blocks[0], ArrowBlock):
            raise refusal(site, "is not conjugate in latents that are not one Gaussian block")
        (self.block,) = blocks
        self.reads = set(self.block.names)
        self.sites = SiteFactors(_projection(reading, site, self.block))
        nodes, weights = (torch.as_tensor(a).to(self.sites.a) for a in hermegauss(_NODES))
        self._nodes, self._weights = nodes[:, None], weights / weights.sum()

    def __call__(self, moments: Moments) -> Tensor:
        """Return the expected log-density, a scalar."""
        mean, second = moments[id(self.block)]
        a = self.sites.a
        eta = a @ mean[0]
        variance = ((a @ second[0]) * a).sum(1) - eta**2
        at = eta + variance.clamp(min=1e-300).sqrt() * self._nodes
        return self._weights @ self.sites.log_likelihood(at).sum(1) + self.sites.constant


def is_projected(reading: Reading, site: Site, gaussian: set[str]) -> bool:
    """Whether a site may be such a factor: observed, not Gaussian itself, and it sees Gaussian latents only."""
    return site.value is not None and site.kind != "gaussian" and bool(site.seen) and set(site.seen) <= gaussian


def refusal(site: Site, reason: str) -> NotApplicable:
    """The error for a site that coordinate ascent cannot take."""
    return NotApplicable(
        f"Coordinate ascent: the factor of site {site.name!r} {reason} ({', '.join(site.seen)}). Use "
        "method='meanfield', which takes any continuous latents, or 'nuts'."
    )


def _projection(reading: Reading, site: Site, block: Any) -> Any:
    program = reading.program

    def log_factor(flat: Tensor) -> Tensor:
        values = block.value(flat)
        pieces = [
            values[n].reshape(-1) if n in values else program.start[latent.place]
            for n, latent in program.latents.items()
        ]
        return program.log_factor(site.name, torch.cat(pieces))

    try:
        graph = record(log_factor, block.mean.reshape(-1))
    except NotRecordable as reason:
        raise refusal(site, f"cannot be recorded, {reason}, and sees") from reason
    found = find_projection(graph, block.size, block.mean)
    if found is None:
        raise refusal(site, "is not conjugate, and sees through no single affine projection the latents")
    return found
