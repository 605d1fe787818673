"""Which method answers: what is held is checked here, and the first method that applies is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.distributions import Distribution

from probdl.access import Draws, LogDensity, check_same_columns, hold
from probdl.divergences.distributions import dimension, double, draw, is_discrete, seeded
from probdl.divergences.estimate import Estimate

Held = Distribution | Draws | LogDensity
FROM_DRAWS = "wasserstein, mmd2 and energy"


class NotApplicable(ValueError):
    """A divergence or a method cannot be had from what is held; the message says why and what to do."""


def choose(methods: dict[str, Callable[[], Estimate]], method: str, divergence: str) -> Estimate:
    """Return the estimate of the named method, or with "auto" of the first that applies."""
    if method != "auto" and method not in methods:
        known = ", ".join(repr(m) for m in ["auto", *methods])
        raise ValueError(f"method of {divergence} must be one of {known} for what is held here; got {method!r}.")
    if method != "auto":
        return methods[method]()
    reasons = []
    for name, run in methods.items():
        try:
            return run()
        except NotApplicable as reason:
            reasons.append(f"{name}: {reason}")
    raise NotApplicable(f"No method gives {divergence} here. " + " ".join(reasons))


def hold_pair(p: Any, q: Any, names: tuple[str, str] = ("p", "q")) -> tuple[Held, Held]:
    """Return what is held of both, checked against each other; distributions as float64 copies."""
    held = [hold(p, names[0]), hold(q, names[1])]
    held = [double(h) if isinstance(h, Distribution) else h for h in held]
    if isinstance(held[0], Draws) and isinstance(held[1], Draws):
        check_same_columns(held[0], held[1], names)
    sizes = [dimension(h) if isinstance(h, Distribution) else h.dim for h in held]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of coordinates; "
            f"got {sizes[0]} for {names[0]} and {sizes[1]} for {names[1]}."
        )
    return held[0], held[1]


def hold_single(p: Any, q: Any, draws: int, names: tuple[str, str] = ("p", "q")) -> tuple[Any, Any]:
    """Return what is held of both, of which distributions are single; ``draws`` are those of Monte Carlo."""
    positive_integer(draws, "draws", least=100)
    held = hold_pair(p, q, names)
    for name, h in zip(names, held):
        if isinstance(h, Distribution):
            single(h, name)
    return held


def is_batch(p: Any, q: Any) -> bool:
    """Whether both are distributions and one of them is a batch of several."""
    both = isinstance(p, Distribution) and isinstance(q, Distribution)
    return both and max(p.batch_shape.numel(), q.batch_shape.numel()) > 1


def single(p: Distribution, name: str) -> None:
    """Raise a ValueError if ``p`` is a batch of distributions and not one."""
    if p.batch_shape.numel() != 1:
        raise ValueError(
            f"{name} must be one distribution; got a batch of shape {tuple(p.batch_shape)}. For the joint law of "
            f"independent coordinates pass torch.distributions.Independent({name}, {len(p.batch_shape)})."
        )


def densities(p: Any, q: Any, divergence: str) -> tuple[Distribution, Distribution]:
    """Return two single distributions that have densities against a common measure."""
    held = hold_pair(p, q)
    first, second = (_density(h, name, divergence) for name, h in zip("pq", held))
    if is_discrete(first) != is_discrete(second):
        kinds = ["discrete" if is_discrete(h) else "continuous" for h in (first, second)]
        raise NotApplicable(
            f"{divergence} compares densities, but p is {kinds[0]} and q is {kinds[1]}: no measure is common to both. "
            "Use wasserstein, mmd2 or energy, which need none."
        )
    return first, second


def _density(h: Held, name: str, divergence: str) -> Distribution:
    if not isinstance(h, Distribution):
        got = f"draws of shape ({h.n}, {h.dim})" if isinstance(h, Draws) else "a LogDensity"
        raise NotApplicable(
            f"{divergence} needs two torch distributions; got {got} for {name}. "
            f"From draws there are {FROM_DRAWS}; or fit a distribution to the draws first."
        )
    single(h, name)
    return h


def draws_of(p: Held, q: Held, names: tuple[str, str], seed: int) -> tuple[Draws, Draws, tuple[str, ...]]:
    """Return draws of both; a distribution held against draws is sampled, between 1000 and 5000 times."""
    sides = zip(names, (p, q), (q, p))
    x, y = (_drawn(h, other, name, 2 * seed + side) for side, (name, h, other) in enumerate(sides))
    taken = [(name, d.n) for name, h, d in zip(names, (p, q), (x, y)) if isinstance(h, Distribution)]
    notes = tuple(f"{n} draws were taken from {name} with seed {seed}" for name, n in taken)
    return x, y, (*notes, *x.notes, *y.notes)


def _drawn(h: Held, other: Held, name: str, seed: int) -> Draws:
    if isinstance(h, LogDensity):
        raise NotApplicable(f"{name} is a LogDensity, which gives no draws: pass draws or a distribution.")
    if isinstance(h, Draws):
        return h
    single(h, name)
    n = min(max(other.n, 1000), 5000) if isinstance(other, Draws) else 5000
    return Draws(draw(h, n, seed), name=name)


def at_most(x: Draws, most: int, name: str, seed: int) -> tuple[Draws, tuple[str, ...]]:
    """Return at most ``most`` random rows, weights with them, and a note where some were left out."""
    if x.n <= most:
        return x, ()
    with seeded(seed):
        rows = torch.randperm(x.n)[:most].to(x.x.device)
    part = Draws(x.x[rows], None if x.weights is None else x.weights[rows], name=name)
    return part, (f"{most} of the {x.n} draws of {name} were used, at random",)


def noted(estimate: Estimate, *notes: str) -> Estimate:
    """Return the estimate with further notes."""
    return replace(estimate, notes=(*notes, *estimate.notes))


def positive_integer(value: Any, name: str, least: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    return value
