"""Which factors of a program are Gaussian in its latents, and which see them through one or two affine projections.

Latents that are not Gaussian given the others, such as a noise scale, are held outside: given their values φ, the
factors are those of a model of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, fx

from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.propagation.cuts import FactorGraph
from probdl.inference.propagation.given import Given
from probdl.inference.propagation.pairs import PairFactor, ProjectionPair, pair_factor
from probdl.inference.propagation.projections import ProjectedFactor, Projection, projected_factor
from probdl.inference.propagation.quadratic import gaussian_factor, is_quadratic
from probdl.natural import GaussianFactor

Seen = Projection | ProjectionPair


class NotApplicable(ValueError):
    """The method does not fit the model; the message names the site and says what does."""


def split_factors(program: Program) -> tuple[GaussianFactor, dict[str, Projection]]:
    """Separate the Gaussian part (the prior and Gaussian likelihoods) from the factors that see one projection.

    Raises:
        NotApplicable: if a latent is not Gaussian, or a factor sees more than one projection; it names the site.
    """
    require_gaussian(program)
    base, seen = Factors(program, pairs=False).at(program.start[:0])
    return base, {name: x for name, x in seen.items() if isinstance(x, Projection)}


class Factors:
    """The factors of a program, given the latents that are held outside.

    Args:
        program: the model with its data.
        outside: names of the latent sites that are held outside.
        pairs: whether factors may see two projections.

    Attributes:
        start: where the latents outside begin, φ.
    """

    def __init__(self, program: Program, outside: tuple[str, ...] = (), pairs: bool = True) -> None:
        program.require_all_rows()
        program.require_continuous()
        self.program, self.outside = program, outside
        self.given = Given(program, outside)
        self.start, self._origin = self.given.start, torch.zeros_like(program.start[self.given.free])
        self.prior = self._recorded_prior()
        self.gaussian: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        self.projected: dict[str, ProjectedFactor | PairFactor] = {}
        for name in program.observed:
            self._sort(name, pairs)

    def at(self, phi: Tensor) -> tuple[GaussianFactor, dict[str, Seen]]:
        """Return the Gaussian part, with the prior of φ as a constant, and what the other factors see, given φ.

        Raises:
            NotApplicable: if the prior is improper.
        """
        base = self._gaussian_factor(self.prior, phi)
        for total in self.gaussian.values():
            base = base * self._gaussian_factor(total, phi)
        self._check_proper(base)
        return base, {name: factor.at(phi) for name, factor in self.projected.items()}

    def log_gaussian(self, z: Tensor, phi: Tensor) -> Tensor:
        """Return the logarithm of the Gaussian part at rows z (k, d), given φ; (k,)."""
        totals = [self.prior, *self.gaussian.values()]
        return torch.stack([_rows(f, z, phi) for f in totals]).sum(0)

    def _gaussian_factor(self, f: Callable[[Tensor, Tensor], Tensor], phi: Tensor) -> GaussianFactor:
        return gaussian_factor(
            lambda z: f(z, phi), len(self._origin), self._origin, batched=isinstance(f, fx.GraphModule)
        )

    def _recorded_prior(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The log prior as a function of (z, φ), recorded where that is safe."""
        if not self.outside:
            recorded = self.program.recorded(self.program.log_prior)
            return _with_second_input(recorded) if isinstance(recorded, fx.GraphModule) else lambda z, phi: recorded(z)
        try:
            return record(self.given.log_prior, self._origin, self.start)
        except NotRecordable:
            self.program.recorded(self.program.log_prior)  # puts the reason into the program's notes
            return self.given.log_prior

    def _sort(self, name: str, pairs: bool) -> None:
        """Put an observed factor among the Gaussian or the projected ones."""
        graph = self._record_factor(name)
        total = _summed(graph)
        if self._is_quadratic(total):
            self.gaussian[name] = total
            return
        factor = FactorGraph(graph, len(self._origin), self.start, self._origin)
        seen: ProjectedFactor | PairFactor | None = projected_factor(factor)
        if seen is None and pairs:
            seen = pair_factor(factor)
        if seen is None:
            raise NotApplicable(self._not_projected(name, pairs))
        self.projected[name] = seen

    def _is_quadratic(self, f: Callable[[Tensor, Tensor], Tensor]) -> bool:
        held = [self.start, self.start + 0.37] if self.outside else [self.start]
        return all(is_quadratic(partial(_at, f, phi), len(self._origin), self._origin) for phi in held)

    def _record_factor(self, name: str) -> fx.GraphModule:
        try:
            return record(
                lambda z, phi: self.given.log_factor(name, z, phi), self.program.start[self.given.free], self.start
            )
        except NotRecordable as reason:
            raise NotApplicable(
                f"Expectation propagation could not read the factor of site {name!r}: {reason}. Use method='nuts'."
            ) from reason

    def _not_projected(self, name: str, pairs: bool) -> str:
        latents = ", ".join(k for k in self.program.latents if k not in self.outside)
        given = f", given {', '.join(self.outside)}" if self.outside else ""
        many = "one affine projection a·z + c, and found none" if not pairs else "one or two affine projections a·z + c"
        return (
            f"Expectation propagation needs each observation of site {name!r} to see the latents {latents} through "
            f"{many}{given}: the projection is not affine, or there are more. Use method='laplace' or 'nuts'."
        )

    def _check_proper(self, base: GaussianFactor) -> None:
        values, vectors = torch.linalg.eigh(base.precision)
        smallest = float(values[0] / values[-1].abs().clamp(min=1e-300))
        if smallest <= 1e-14:
            site = self.program.site_at(int(self.given.free[int(vectors[:, 0].abs().argmax())]))
            raise NotApplicable(
                f"Expectation propagation starts from the prior, and the prior is improper along {site!r}: its "
                f"smallest precision there is {smallest:.2g} of the largest. Give it a proper, perhaps wide, prior."
            )


def latents_outside(program: Program) -> tuple[str, ...]:
    """Return the latent sites that are not Gaussian given the others.

    Raises:
        NotApplicable: if none is Gaussian, or the others are not jointly Gaussian given these; it names the sites.
    """
    program.require_all_rows()
    program.require_continuous()
    real = [name for name, latent in program.latents.items() if latent.is_real()]
    prior = program.recorded(program.log_prior)
    if real and _is_quadratic_in(program, prior, real):
        return tuple(k for k in program.latents if k not in real)
    inside = [name for name in real if _latent_is_gaussian(program, name)]
    if not inside or not _is_quadratic_in(program, prior, inside):
        raise NotApplicable(_none_gaussian(program, [k for k in program.latents if k not in inside]))
    return tuple(k for k in program.latents if k not in inside)


def require_gaussian(program: Program) -> None:
    """Raise NotApplicable unless all latents are jointly Gaussian a priori; it names those that are not."""
    outside = latents_outside(program)
    if outside:
        raise NotApplicable(_none_gaussian(program, list(outside)))


def _none_gaussian(program: Program, wrong: list[str]) -> str:
    for name in wrong:
        latent = program.latents[name]
        if not latent.is_real():
            return (
                f"Expectation propagation needs Gaussian latents, but {name!r} has the support {latent.prior.support}. "
                "Use method='laplace' or 'nuts', or fix its value."
            )
    return (
        f"Expectation propagation needs latents that are jointly Gaussian a priori, but the prior of "
        f"{', '.join(map(repr, wrong))} is not Gaussian given the other latents. Use method='laplace' or 'nuts'."
    )


def _latent_is_gaussian(program: Program, name: str) -> bool:
    log_latent = program.recorded(lambda z: program.log_latent(name, z))
    return _is_quadratic_in(program, log_latent, [name])


def _is_quadratic_in(program: Program, f: Callable[[Tensor], Tensor], names: list[str]) -> bool:
    """Whether a density of the flat vector is quadratic in some of its sites, wherever the others are."""
    places = torch.cat([torch.arange(program.dim)[program.latents[k].place] for k in names]).to(program.device)
    held = [program.start] if len(places) == program.dim else [program.start, program.start + 0.37]
    return all(is_quadratic(partial(_with_entries, f, at, places), len(places), program.start[places]) for at in held)


def _at(f: Callable[[Tensor, Tensor], Tensor], phi: Tensor, z: Tensor) -> Tensor:
    return f(z, phi)


def _with_entries(f: Callable[[Tensor], Tensor], at: Tensor, places: Tensor, z: Tensor) -> Tensor:
    return f(at.index_copy(0, places, z))


def _summed(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph of the sum over observations."""
    nodes = fx.Graph()
    total = nodes.graph_copy(graph.graph, {})
    nodes.output(nodes.call_function(torch.ops.aten.sum.default, (total,)))
    return fx.GraphModule(graph, nodes)


def _with_second_input(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with an input that it does not read."""
    nodes = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = nodes.graph_copy(graph.graph, copies)
    with nodes.inserting_after([x for x in nodes.nodes if x.op == "placeholder"][-1]):
        nodes.placeholder("phi")
    nodes.output(result)
    return fx.GraphModule(graph, nodes)


def _rows(f: Callable[[Tensor, Tensor], Tensor], z: Tensor, phi: Tensor) -> Tensor:
    if isinstance(f, fx.GraphModule):
        return torch.vmap(lambda row: f(row, phi))(z)
    return torch.stack([f(row, phi) for row in z])
