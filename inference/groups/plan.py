"""What is to be done: the tasks of the groups, the latents that they share, and the prior of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.inference.groups.density import GroupDensity, shared_places
from probdl.inference.groups.loading import GroupModel
from probdl.inference.groups.needs import Needs, log_density, observed_inside, places
from probdl.inference.groups.workers import Found, Task, look
from probdl.inference.programs.derivatives import value_and_gradient
from probdl.inference.programs.program import Program
from probdl.inference.propagation.factors import NotApplicable

Run = Callable[[Callable, list[tuple]], list[Any]]


@dataclass(frozen=True)
class Plan:
    """The work of one fit.

    Attributes:
        tasks: one for each group.
        shared: the latents that all groups share.
        own: the sites with entries that belong to one group each.
        observations: their number in each group.
        split: sites in plates that would be the groups' own, were the groups chosen by them.
    """

    tasks: list[Task]
    shared: tuple[str, ...]
    own: tuple[str, ...]
    observations: list[int]
    split: tuple[str, ...]


def make_plan(key: str, groups: list[GroupModel], local: tuple[str, ...] | None, run: Run, whole: bool) -> Plan:
    """Look at all groups and decide which latents they share.

    Args:
        key: of the fit.
        groups: model and data of each.
        local: sites to be integrated out in each group; None decides by what the data see.
        run: calls a function for each group, in whichever process.
        whole: whether the groups are parts of one program, whose sites have the same entries in all of them.

    Raises:
        ValueError: if the groups have different sites, or share none.
    """
    found = run(look, [(group,) for group in groups])
    _check_same_sites(groups, found)
    rows = tuple(p for g in groups[:1] for p in g.plates or ())
    own = tuple(k for k in found[0].plates if _is_own(k, found, rows, local))
    _check_local(groups, found, own, local, rows, whole)
    shared = tuple(k for k in found[0].shapes if k not in own)
    _check_shared(groups, found, shared)
    needs = [{k: f.needs[k] for k in own} for f in found]
    if whole:
        _claim_rest(needs, [k for k in own if not set(found[0].plates[k]) & set(rows)])
    tasks = [Task(key, group, shared, need) for group, need in zip(groups, needs)]
    split = tuple(k for k in found[0].plates if k in shared and not _seen_by_all(k, found))
    return Plan(tasks, shared, own, [f.observed for f in found], split)


def _is_own(name: str, found: list[Found], rows: tuple[str, ...], local: tuple[str, ...] | None) -> bool:
    if set(found[0].plates[name]) & set(rows) or len({f.shapes[name] for f in found}) > 1:
        return True
    if local is not None:
        return name in local
    return int(_readers(name, found).max()) <= 1


def _readers(name: str, found: list[Found]) -> Tensor:
    """How many groups need each entry of a site."""
    return torch.stack([f.needs[name] for f in found]).sum(0)


def _seen_by_all(name: str, found: list[Found]) -> bool:
    return int(_readers(name, found).min()) == len(found)


def _claim_rest(needs: list[Needs], names: list[str]) -> None:
    """Let the first group keep the entries that no data see, whose posterior is their prior."""
    for name in names:
        needs[0][name] = needs[0][name] | ~torch.stack([need[name] for need in needs]).any(0)


def _check_same_sites(groups: list[GroupModel], found: list[Found]) -> None:
    for group, f in zip(groups, found):
        if set(f.shapes) != set(found[0].shapes):
            raise ValueError(
                f"All groups must have the same latent sites; group {groups[0].label} has {', '.join(found[0].shapes)} "
                f"and group {group.label} {', '.join(f.shapes)}."
            )


def _check_local(
    groups: list[GroupModel],
    found: list[Found],
    own: tuple[str, ...],
    local: tuple[str, ...] | None,
    rows: tuple[str, ...],
    whole: bool,
) -> None:
    for name in local or ():
        if name not in found[0].plates:
            raise ValueError(
                f"local names sites whose entries belong to one group each, so they stand in a plate; {name!r} is not "
                f"among {', '.join(found[0].plates) or 'any: no latent is in a plate'}."
            )
        if whole and name in own and not set(found[0].plates[name]) & set(rows):
            _check_one_reader(name, groups, found)


def _check_one_reader(name: str, groups: list[GroupModel], found: list[Found]) -> None:
    several = (_readers(name, found) > 1).nonzero()[:, 0]
    if len(several):
        entry = int(several[0])
        who = ", ".join(g.label for g, f in zip(groups, found) if bool(f.needs[name][entry]))
        raise ValueError(
            f"Site {name!r} cannot be local: the rows of its entry {entry} are in the groups {who}. Pass groups= "
            "labels that keep the rows of an entry together, such as groups='county'."
        )


def _check_shared(groups: list[GroupModel], found: list[Found], shared: tuple[str, ...]) -> None:
    if not shared:
        raise NotApplicable(
            "Expectation propagation over groups needs a latent that the groups share; every one belongs to a single "
            "group. Fit the groups one by one."
        )
    for group, f in zip(groups, found):
        for name in shared:
            if f.shapes[name] != found[0].shapes[name]:
                raise ValueError(
                    f"Site {name!r} must have one shape in all groups; it has {found[0].shapes[name]} in group "
                    f"{groups[0].label} and {f.shapes[name]} in group {group.label}. Put it into a plate if its "
                    "entries belong to one group each."
                )


def prior_density(program: Program, plan: Plan) -> GroupDensity:
    """Return the log prior of the shared latents, with the observed sites that stand outside the rows.

    Raises:
        NotApplicable: if it depends on latents that belong to one group.
    """
    plates = plan.tasks[0].group.plates
    inside = observed_inside(program, plates)
    outside = tuple(k for k in program.observed if k not in inside)
    priors = {k: torch.ones(program.latents[k].prior.batch_shape.numel(), dtype=torch.bool) for k in plan.shared}
    u = program.start + 0.1
    gradient = value_and_gradient(lambda u: log_density(program, u, outside, priors), u)[1]
    for name in plan.own:
        if bool((gradient[program.latents[name].place] != 0).any()):
            raise NotApplicable(
                f"The latents {', '.join(plan.shared)} are shared by the groups, but their prior depends on {name!r}, "
                "whose entries belong to one group each. Pass groups= labels that keep together what depends on each "
                "other, or use method='nuts'."
            )
    return GroupDensity(program, plan.shared, {}, outside, priors)


def places_in_whole(program: Program, plan: Plan, rows: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return where the shared latents, and the own ones of each group, stand in the vector of the whole program."""
    plates = plan.tasks[0].group.plates or ()
    owns = []
    for task, which in zip(plan.tasks, rows):
        found = {k: _in_whole(program, k, plates, need, which) for k, need in task.needs.items()}
        owns.append(torch.cat([torch.zeros(0, dtype=torch.long), *found.values()]))
    return shared_places(program, plan.shared), owns


def _in_whole(program: Program, name: str, plates: tuple[str, ...], need: Tensor, rows: Tensor) -> Tensor:
    trace = program._trace(program._value_at(program.start))
    site, latent = trace.nodes[name], program.latents[name]
    frames = [f for f in site["cond_indep_stack"] if f.name in plates and f.vectorized]
    batch = latent.prior.batch_shape
    if not frames:
        return places(program, {name: need})
    entries = torch.arange(batch.numel()).reshape(batch).index_select(len(batch) + frames[0].dim, rows)
    place = torch.arange(latent.place.start, latent.place.stop).reshape(batch.numel(), -1)
    return place[entries.reshape(-1)].reshape(-1)
