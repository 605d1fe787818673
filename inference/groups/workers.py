"""Tasks for one group each, which joblib runs here or in other processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from probdl.inference.groups import tilted
from probdl.inference.groups.density import GroupDensity
from probdl.inference.groups.derivatives import derivatives
from probdl.inference.groups.loading import GroupModel
from probdl.inference.groups.needs import Needs, needed, observed_inside, plated_latents
from probdl.threads import one_thread

_KEPT = 400_000_000  # bytes of data whose recorded densities one process keeps
_densities: OrderedDict[tuple[str, str], tuple[GroupDensity, int]] = OrderedDict()


@dataclass(frozen=True)
class Found:
    """What a look at a group found.

    Attributes:
        needs: which entries of plated latents its observations need.
        plates: of the plated latents.
        shapes: of all latents.
        observed: entries of its observed sites.
    """

    needs: Needs
    plates: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    observed: int


@dataclass(frozen=True)
class Task:
    """One group, as any process can work on it.

    Attributes:
        key: of the fit, so that a process that keeps densities never takes one for another's.
        group: its model and data.
        shared: the latents that all groups share.
        needs: which entries of others are its own.
    """

    key: str
    group: GroupModel
    shared: tuple[str, ...]
    needs: Needs


def look(group: GroupModel) -> Found:
    """Return what a group's data need."""
    with one_thread():
        program = group.program()
        observed = observed_inside(program, group.plates)
        trace = program._trace(program._value_at(program.start))
        return Found(
            needed(program, observed),
            plated_latents(program),
            {name: tuple(x.shape) for name, x in program.latents.items()},
            sum(trace.nodes[name]["value"].numel() for name in observed),
        )


JOBS: dict[str, Callable[..., Any]] = {
    "derivatives": derivatives,
    "importance": tilted.importance_draws,
    "nuts": tilted.sampled_draws,
}


def work(task: Task, job: str, arguments: tuple) -> Any:
    """Do one job for one group; one thread gives the same bits in every process."""
    with one_thread():
        return JOBS[job](density_of(task), *arguments)


def density_of(task: Task) -> GroupDensity:
    """Return the recorded density of a group, kept from earlier tasks where it fits."""
    key = (task.key, task.group.label)
    if key not in _densities:
        program = task.group.program()
        density = GroupDensity(program, task.shared, task.needs, observed_inside(program, task.group.plates))
        tensors = [x for x in (*program.args, *program.kwargs.values()) if isinstance(x, torch.Tensor)]
        _densities[key] = density, sum(x.numel() * x.element_size() for x in tensors)
    _densities.move_to_end(key)
    while len(_densities) > 1 and (
        sum(size for _, size in _densities.values()) > _KEPT or next(iter(_densities))[0] != task.key
    ):
        _densities.popitem(last=False)
    return _densities[key][0]


def forget(key: str) -> None:
    """Let go of the densities of a fit that is done; other processes do so at their next task."""
    for kept in [k for k in _densities if k[0] == key]:
        del _densities[kept]
