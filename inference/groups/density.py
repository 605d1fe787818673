"""The log-likelihood of one group, over the latents that all groups share and those of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from probdl.inference.groups.needs import Needs, log_density, places
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record

_NUMBERS_AT_ONCE = 4_000_000  # of the largest intermediate tensor times draws: 32 MB each


class GroupDensity:
    r"""Log of :math:`p(l_k \mid z)\, p(y_k \mid z, l_k)` on unconstrained space, at many points at once.

    Args:
        program: the model with the group's data.
        shared: the latent sites that all groups share, z.
        needs: which entries of the other sites are the group's own, l.
        observed: its observed sites.
        priors: sites whose prior densities count too, with all their entries.

    Attributes:
        dim: length of z.
        own: length of l.
        start: where the program starts, (dim,) and (own,).
    """

    def __init__(
        self,
        program: Program,
        shared: tuple[str, ...],
        needs: Needs,
        observed: tuple[str, ...],
        priors: Needs | None = None,
    ) -> None:
        self.program, self.counted, self.observed = program, needs | (priors or {}), observed
        places_shared = shared_places(program, shared)
        self.places_own = places(program, needs)
        taken = torch.cat([places_shared, self.places_own])
        self.rest = torch.tensor([i for i in range(program.dim) if i not in set(taken.tolist())], dtype=torch.long)
        self.order = torch.argsort(torch.cat([taken, self.rest])).to(program.device)
        self.dim, self.own = len(places_shared), len(self.places_own)
        self.start = program.start[places_shared], program.start[self.places_own]
        self.graph = self._recorded()
        self.numbers = _largest(self.graph, self.start) if isinstance(self.graph, fx.GraphModule) else 1

    def at(self, z: Tensor, own: Tensor) -> Tensor:
        """Return the log-density at one point, by a run of the program."""
        u = torch.cat([z, own, self.program.start[self.rest]]).index_select(0, self.order)
        return log_density(self.program, u, self.observed, self.counted)

    def _recorded(self) -> Callable[[Tensor, Tensor], Tensor]:
        try:
            return record(self.at, *self.start)
        except NotRecordable:
            return self.at

    def many(self, z: Tensor, own: Tensor) -> Tensor:
        """Return the log-densities at rows of z (B, dim) and own (B, own), (B,); differentiable."""
        if isinstance(self.graph, fx.GraphModule):
            return torch.vmap(self.graph)(z, own)
        return torch.stack([self.graph(*point) for point in zip(z, own)])

    def chunk(self, times: int = 1) -> int:
        """Return how many points fit into memory at once, where each needs ``times`` the numbers of one run."""
        return max(1, _NUMBERS_AT_ONCE // max(1, self.numbers * times))

    def values(self, z: Tensor, own: Tensor) -> Tensor:
        """Return the log-densities at many rows, some at a time, without gradients."""
        size = self.chunk()
        with torch.no_grad():
            return torch.cat([self.many(a, b) for a, b in zip(z.split(size), own.split(size))])


def shared_places(program: Program, shared: tuple[str, ...]) -> Tensor:
    """Return where the shared sites stand in the flat vector."""
    found = [torch.arange(program.latents[k].place.start, program.latents[k].place.stop) for k in shared]
    return torch.cat(found)


def _largest(graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> int:
    """The size of the largest tensor that one run computes."""
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.run(*inputs)
    made = [x for node, x in interpreter.env.items() if node.op == "call_function" and isinstance(x, Tensor)]
    return max([x.numel() for x in made], default=1)
