"""Sites that repeat along a chain of discrete latents are joined into one site with a time dimension.

A program with ``pyro.markov`` has a site for each time. Where the same operations with the same constants lead to each
of them, they differ only in which member of the chain they see, and in their data; so one site stands for all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from probdl.inference.free_form.reading import Reading, Site, Values
from probdl.inference.propagation.factors import NotApplicable


class Members:
    """The sites that one site stands for; they compute the same, each from its member of the chain.

    Args:
        sites: in the order of time.
        sequence: the name of the joined latents.
        times: for each site, which of the joined latents it sees.
    """

    def __init__(self, sites: list[Site], sequence: str, times: list[int]) -> None:
        self.sites, self.sequence, self.times = sites, sequence, times

    def evaluate(self, reading: Reading, which: int, values: Values) -> Tensor:
        """Return a natural parameter of all members, time first."""
        joined = values[self.sequence]
        if bool((joined == joined[:1]).all()):  # all see the same value, and compute the same
            one = self._one(reading, which, values, 0)
            return one.expand(len(self.sites), *one.shape)
        return torch.stack([self._one(reading, which, values, i) for i in range(len(self.sites))])

    def _one(self, reading: Reading, which: int, values: Values, i: int) -> Tensor:
        own = dict(values)
        seen = reading.sequences[self.sequence][self.times[i]]
        own[seen] = values[self.sequence][self.times[i]]
        return reading.evaluate(self.sites[i], which, own)


def join_sequences(reading: Reading, chains: list[tuple[str, ...]]) -> None:
    """Join the latents of each chain into a sequence, and the sites that repeat along it into one."""
    for names in chains:
        sequence = f"{names[0]}…{names[-1]}"
        reading.sequences[sequence] = names
        reading.discrete[sequence] = None
        reading.forget_values()
        groups: list[list[Site]] = []
        for site in list(reading.sites.values()):
            if _time_seen(site, names) is None:
                _check_single(site, names)
                continue
            group = next((g for g in groups if _repeats(g[0], site, names)), None)
            if group is None:
                groups.append([site])
            else:
                group.append(site)
        for group in groups:
            _join(reading, group, names, sequence)


def _time_seen(site: Site, names: tuple[str, ...]) -> int | None:
    """Which member of a chain a site sees, or None where it sees none or several."""
    seen = [name for name in site.seen if name in names]
    return names.index(seen[0]) if len(seen) == 1 else None


def _check_single(site: Site, names: tuple[str, ...]) -> None:
    if any(name in names for name in site.seen):
        raise NotApplicable(
            f"Coordinate ascent: site {site.name!r} sees several latents of the chain {names[0]}, …, {names[-1]} at "
            "once; it takes sites that see one each. Use method='meanfield' or 'nuts', which sum them out."
        )


def _repeats(first: Site, site: Site, names: tuple[str, ...]) -> bool:
    """Whether two sites are the same but for the member of the chain and their data."""
    same = (
        first.kind == site.kind
        and first.batch == site.batch
        and (first.value is None) == (site.value is None)
        and (site.value is not None or site.name in names)
        and (first.weight is None) == (site.weight is None)
        and _roles(first, names) == _roles(site, names)
        and (first.form is None or first.form.base is None or first.kind == "poisson")
    )
    if not same or (first.value is not None and site.value is not None and first.value.shape != site.value.shape):
        return False
    for a, b in zip(first.parts, site.parts):
        (left, left_constants), (right, right_constants) = a.structure(), b.structure()
        if left != right or not all(
            x.shape == y.shape and torch.equal(x, y) for x, y in zip(left_constants, right_constants)
        ):
            return False
    return True


def _roles(site: Site, names: tuple[str, ...]) -> list[list[str]]:
    return [["" if name in names else name for name in parents] for parents in site.parents]


def _join(reading: Reading, group: list[Site], names: tuple[str, ...], sequence: str) -> None:
    """Put one site in the place of a group: a group of one keeps its time dimension, so that all are treated alike."""
    first = group[0]
    times = [t for site in group if (t := _time_seen(site, names)) is not None]
    joined = replace(
        first,
        name=f"{first.name}…{group[-1].name}" if len(group) > 1 else first.name,
        value=None if first.value is None else torch.stack([s.value for s in group if s.value is not None]),
        weight=None
        if first.weight is None
        else torch.stack([s.weight.expand(s.batch) for s in group if s.weight is not None]),
        batch=torch.Size((len(group), *first.batch)),
        parents=[tuple(sequence if name in names else name for name in parents) for parents in first.parents],
        members=Members(group, sequence, times),
    )
    kept = {}
    for name, site in reading.sites.items():
        if site is first:
            kept[joined.name] = joined
        elif not any(site is other for other in group):
            kept[name] = site
    reading.sites = kept
