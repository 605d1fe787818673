"""A Pyro program read once: each site's natural parameters as functions of the values of the latent sites.

All of them are recorded in one graph, from which the part of one site is cut; so the program runs only twice, and which
latents a site sees is what its part of the graph reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.exponential import Form, form_of, gaussian_parts
from probdl.inference.free_form.indexing import IndexByTensors
from probdl.inference.free_form.parts import Part
from probdl.inference.programs.bijections import PositiveDefiniteBijection
from probdl.inference.programs.checks import innermost
from probdl.inference.programs.latents import typical_value
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.propagation.factors import NotApplicable

Values = dict[str, Tensor]


@dataclass
class Site:
    """A sample statement: its family, its data or latent values, and what it sees.

    Attributes:
        name: of the site.
        fn: its elementary distribution at the first run, inside ``to_event``, ``expand`` and ``mask``.
        kind: "gaussian", the name of an exponential family, or "density" for any other distribution.
        form: the exponential family, where it is one.
        value: the observation, or None for a latent site.
        weight: masks and scales of its entries, or None for ones; broadcasts to ``batch``.
        batch: the shape of its entries.
        parents: for each natural parameter, the latent sites that it reads, in the program's order.
    """

    name: str
    fn: Any
    kind: str
    form: Form | None
    value: Tensor | None
    weight: Tensor | None
    batch: torch.Size
    parents: list[tuple[str, ...]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    members: Any = None  # of a site that joins the sites of a sequence

    @property
    def seen(self) -> tuple[str, ...]:
        """All latents that the site's parameters read, in the program's order."""
        return tuple(dict.fromkeys(name for parents in self.parents for name in parents))


class Reading:
    """The sites of a program with their recorded parameters.

    Args:
        program: the program.
        grids: latents whose own factor is taken as a density, since they will be on a grid.

    Raises:
        ValueError: if the program's control flow, or a mask or scale, depends on latent values.
    """

    def __init__(self, program: Program, grids: frozenset[str] = frozenset()) -> None:
        self.program = program
        self._supports: dict[str, Tensor] = {}
        self._random: dict[tuple[int, float], Values] = {}
        trace = _trace(program, typical_values(program))
        names = {*program.latents, *program.discrete, *program.observed}
        nodes = {k: s for k, s in trace.nodes.items() if k in names and not s["infer"].get("_deterministic")}
        self.sites = {name: _site(name, node, program, name in grids) for name, node in nodes.items()}
        self.latents = tuple(name for name, site in self.sites.items() if site.value is None)
        self.discrete = dict.fromkeys(program.discrete)  # and the sequences that join several of them
        self.sequences: dict[str, tuple[str, ...]] = {}
        self._record()

    @property
    def gaussian_latents(self) -> tuple[str, ...]:
        """The latent sites whose own factor is Gaussian."""
        return tuple(n for n in self.latents if n in self.sites and self.sites[n].kind == "gaussian")

    def shape(self, name: str) -> torch.Size:
        """The shape of a latent site's value."""
        if name in self.sequences:
            names = self.sequences[name]
            return torch.Size((len(names), *self.shape(names[0])))
        latent = self.program.latents.get(name)
        return latent.shape if latent is not None else self.program.discrete[name].shape()

    def support(self, name: str) -> Tensor:
        """The values of a discrete latent site, (K,)."""
        if name in self.sequences:
            return self.support(self.sequences[name][0])
        if name not in self._supports:
            fn = innermost(self.program.discrete[name])
            if not fn.has_enumerate_support:
                raise NotApplicable(
                    f"Coordinate ascent: the discrete latent {name!r} has no finite list of values "
                    f"({type(fn).__name__}). Bound it, or integrate it out by hand, as a Poisson of a Gamma is a "
                    "negative binomial."
                )
            values = fn.enumerate_support(expand=False)
            self._supports[name] = values.reshape(len(values), -1)[:, 0]
        return self._supports[name]

    def forget_values(self) -> None:
        """Forget random values, after latents were joined."""
        self._random.clear()

    def random_values(self, seed: int, scale: float = 1.0) -> Values:
        """Latent values all over their spaces, with a local seed."""
        if (seed, scale) not in self._random:
            self._random[seed, scale] = self._draw(seed, scale)
        return dict(self._random[seed, scale])

    def _draw(self, seed: int, scale: float) -> Values:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(self.program.dim, generator=generator, dtype=self.program.dtype).to(self.program.device)
        for latent in self.program.latents.values():
            if isinstance(latent.transform, PositiveDefiniteBijection):
                z[latent.place] *= 0.3 / scale  # well-conditioned matrices only
        values = self.program.constrain(scale * z)
        for name in self.discrete:
            support = self.support(name)
            index = torch.randint(len(support), self.shape(name), generator=generator).to(support.device)
            values[name] = support[index]
        return values

    def _record(self) -> None:
        first, again = (self.random_values(seed) for seed in (1, 2))

        def parameters(*values: Tensor) -> tuple[Tensor, ...]:
            at = dict(zip(self.latents, values))
            trace = _trace(self.program, at)
            with self.program._running():
                return tuple(
                    p for site in self.sites.values() for p in self._parameters(site, trace.nodes[site.name], at)
                )

        order = [first[name] for name in self.latents]
        try:
            graph = record(parameters, *order, again=tuple(again[name] for name in self.latents))
        except NotRecordable as reason:
            raise NotApplicable(
                f"Coordinate ascent reads the program as a fixed graph, but {reason}. Write the model without Python "
                "control flow on latent values, and a hidden Markov model by pyro.markov in place of DiscreteHMM, or "
                "use method='meanfield' or 'nuts'."
            ) from reason
        counts = [len(self._parameters(site, None, first)) for site in self.sites.values()]
        outputs: Any = graph.graph.output_node().args[0]
        places = {node: i for i, node in enumerate(graph.graph.nodes)}
        start = 0
        for site, count in zip(self.sites.values(), counts):
            for node in outputs[start : start + count]:
                site.parts.append(Part(graph, node, self.latents, places))
                site.parents.append(site.parts[-1].parents)
            start += count

    def _parameters(self, site: Site, node: Any, at: Values) -> list[Tensor]:
        """The natural parameters of a site; with no node, those of its first run, to count them."""
        fn = site.fn if node is None else _unwrap(node["fn"])[0]
        if site.kind == "gaussian":
            return gaussian_parts(fn) or []
        if site.form is not None:
            return [*site.form.natural(fn)]
        value = at[site.name] if site.value is None else site.value
        return [fn.log_prob(value)]

    def evaluate(self, site: Site, which: int, values: Values) -> Tensor:
        """Return one natural parameter of a site at latent values; of the site's batch shape and its event."""
        if site.members is not None:
            return site.members.evaluate(self, which, values)
        out = site.parts[which](*(values[name] for name in site.parents[which]))
        event = out.ndim - len(site.batch) if out.shape[: len(site.batch)] == site.batch else None
        if event is not None:
            return out
        trailing = _event_dims(site, which)
        return out.expand(*site.batch, *out.shape[out.ndim - trailing :])


def _trace(program: Program, values: Values) -> Any:
    with IndexByTensors():
        return program._trace(lambda msg: values[msg["name"]])


def typical_values(program: Program) -> Values:
    """Return the prior means of the latents, or values like them, in their own spaces."""
    discrete = {name: typical_value({"fn": fn}) for name, fn in program.discrete.items()}
    return {**program.constrain(program.start), **discrete}


def _event_dims(site: Site, which: int) -> int:
    if site.kind == "gaussian":
        return (1, 2, 0)[which]
    if site.form is None or which == 0:
        return 0
    if site.kind == "wishart":
        return (0, 0, 2)[which]
    return site.form.event


def _site(name: str, node: Any, program: Program, density: bool) -> Site:
    fn, mask = _unwrap(node["fn"])
    gaussian = gaussian_parts(fn) is not None and not density
    form = None if gaussian or density else form_of(fn)
    if name in program.discrete and form is not None and form.kind not in ("categorical", "bernoulli"):
        form = None  # its values are summed over in its own density
    kind = "gaussian" if gaussian else form.kind if form else "density"
    value = node["value"] if name in program.observed else None
    return Site(name, fn, kind, form, value, _weight(node, mask, fn, program), fn.batch_shape)


def _unwrap(fn: Any) -> tuple[Any, Tensor | bool | None]:
    """The elementary distribution inside, and the product of the masks around it."""
    mask: Any = None
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "MaskedDistribution",
        "ExpandedDistribution",
    ):
        if type(fn).__name__ == "MaskedDistribution":
            own = torch.as_tensor(fn._mask)
            mask = own if mask is None else own & mask
        elif type(fn).__name__ == "Independent" and mask is not None:
            mask = mask[(..., *(None,) * fn.reinterpreted_batch_ndims)]
        fn = fn.base_dist
    return fn, mask


def _weight(node: Any, mask: Any, fn: Any, program: Program) -> Tensor | None:
    """Scale times masks of the entries; the handlers' masks lack the dimensions that ``to_event`` took."""
    weight = None
    inner = len(fn.batch_shape) - len(node["fn"].batch_shape)
    for factor in (mask, node["mask"], node["scale"]):
        if factor is None or (isinstance(factor, (int, float)) and not isinstance(factor, bool) and factor == 1.0):
            continue
        factor = torch.as_tensor(factor, device=program.device).to(program.dtype)
        if factor.ndim and factor is not mask:
            factor = factor[(..., *(None,) * inner)]
        weight = factor if weight is None else weight * factor
    return weight
