"""Which factors of a program are Gaussian in its latents, and which see them through one affine projection."""

from __future__ import annotations

import torch

from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.propagation.projections import Projection, find_projection
from probdl.inference.propagation.quadratic import gaussian_factor, is_quadratic
from probdl.natural import GaussianFactor


class NotApplicable(ValueError):
    """The method does not fit the model; the message names the site and says what does."""


def split_factors(program: Program) -> tuple[GaussianFactor, dict[str, Projection]]:
    """Separate the Gaussian part (the prior and Gaussian likelihoods) from the factors that need sites."""
    program.require_all_rows()
    program.require_continuous()
    _check_gaussian(program)
    base = gaussian_factor(program.recorded(program.log_prior), program.dim, program.start)
    projections = {}
    for name in program.observed:
        graph = _record_factor(program, name)
        total = _summed(graph)
        if is_quadratic(total, program.dim, program.start):
            base = base * gaussian_factor(total, program.dim, program.start)
        else:
            projections[name] = _project(graph, name, program)
    _check_proper(base, program)
    return base, projections


def _check_proper(base: GaussianFactor, program: Program) -> None:
    site, smallest = program.weakest_site(base.precision)
    if smallest <= 1e-14:
        raise NotApplicable(
            f"Expectation propagation starts from the prior, and the prior is improper along {site!r}: its smallest "
            f"precision there is {smallest:.2g} of the largest. Give it a proper, perhaps wide, prior."
        )


def _summed(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """The graph of the sum over observations."""
    nodes = torch.fx.Graph()
    total = nodes.graph_copy(graph.graph, {})
    nodes.output(nodes.call_function(torch.ops.aten.sum.default, (total,)))
    return torch.fx.GraphModule(graph, nodes)


def _check_gaussian(program: Program) -> None:
    for name, latent in program.latents.items():
        if not latent.is_real():
            raise NotApplicable(
                f"Expectation propagation needs Gaussian latents, but {name!r} has the support {latent.prior.support}. "
                "Use method='laplace' or 'nuts', or fix its value."
            )
    prior = program.recorded(program.log_prior)
    if is_quadratic(prior, program.dim, program.start):
        return
    wrong = [name for name in program.latents if not _latent_is_gaussian(program, name)]
    raise NotApplicable(
        f"Expectation propagation needs latents that are jointly Gaussian a priori, but the prior of "
        f"{', '.join(map(repr, wrong))} is not Gaussian given the other latents. Use method='laplace' or 'nuts'."
    )


def _latent_is_gaussian(program: Program, name: str) -> bool:
    log_latent = program.recorded(lambda z: program.log_latent(name, z))
    return is_quadratic(log_latent, program.dim, program.start)


def _record_factor(program: Program, name: str) -> torch.fx.GraphModule:
    try:
        return record(lambda z: program.log_factor(name, z), program.start)
    except NotRecordable as reason:
        raise NotApplicable(
            f"Expectation propagation could not read the factor of site {name!r}: {reason}. Use method='nuts'."
        ) from reason


def _project(graph: torch.fx.GraphModule, name: str, program: Program) -> Projection:
    projection = find_projection(graph, program.dim, program.start)
    if projection is None:
        raise NotApplicable(
            f"Expectation propagation needs each observation of site {name!r} to see the latents "
            f"{', '.join(program.latents)} through one affine projection a·z + c, and found none: the projection is "
            "not affine, or there is more than one. Use method='laplace' or 'nuts'."
        )
    return projection
