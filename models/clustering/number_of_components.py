"""How many components: the bound of each number, and the number whose bound is highest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.inference import Posterior
from probdl.models.arguments import count
from probdl.models.clustering.mixture_program import Components, ascend, is_degenerate

Numbers = int | str | Sequence[int]
MOST = 15  # components that "auto" tries, and at most one for two distinct rows
LARGEST = 3 * 10**6  # products of two columns that a fit holds: about 4 GB
PATIENCE = 2  # numbers without a better bound until it stops


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mixture of some number of components.

    Attributes:
        components: K, empty ones included.
        posterior: of its program.
        known: what the posterior says of the components.
        held: whether the prior scale was held at its floor.
    """

    components: int
    posterior: Posterior
    known: Components
    held: bool

    @property
    def occupied(self) -> Tensor:
        """Which components expect at least one row, (K,)."""
        return self.known.counts >= 1

    @property
    def labellings(self) -> float:
        """The log number of labellings that give as many equal modes: K!, or K! / E! with E empty components."""
        empty = self.components - int(self.occupied.sum())
        return math.lgamma(self.components + 1) - math.lgamma(empty + 1)

    @property
    def bound(self) -> float:
        """The bound on the log evidence, of all modes together."""
        assert self.posterior.elbo is not None
        return float(self.posterior.elbo) + self.labellings

    @property
    def row(self) -> dict[str, float | int | bool]:
        """Its row of the table of bounds."""
        return {
            "components": self.components, "bound": self.bound, "elbo": self.bound - self.labellings,
            "occupied": int(self.occupied.sum()), "converged": self.posterior.converged,
            "seconds": self.posterior.seconds,
        }  # fmt: skip


def numbers_of(components: Numbers) -> int | str | tuple[int, ...]:
    """Return a checked number, numbers to choose from, or "auto".

    Raises:
        ValueError: for anything else.
    """
    if components == "auto":
        return components
    if isinstance(components, int):
        return count(components, "components")
    if isinstance(components, Iterable) and not isinstance(components, str) and (several := tuple(components)):
        return tuple(sorted({count(k, "each of components") for k in several}))
    raise ValueError(f"components must be a whole number, a list of whole numbers, or 'auto'; got {components!r}.")


def candidates(u: Tensor, components: Numbers, *, starts: int, seed: int) -> list[Candidate]:
    """Return the mixtures of each number that is tried, on rows (n, d) in standardised units.

    Raises:
        ValueError: if there are fewer distinct rows than components, or too many products of columns for memory.
    """
    if u.numel() * u.shape[1] > LARGEST:
        raise ValueError(
            f"x must have at most {LARGEST:.0e} rows × columns²; got {len(u)} rows of {u.shape[1]} columns. Take fewer "
            "columns, such as the first principal components, or a sample of the rows."
        )
    distinct, found = len(u.unique(dim=0)), list[Candidate]()
    degenerate = is_degenerate(u)
    for k in _wanted(components, distinct, found):
        posterior, held = ascend(u, k, starts=starts, seed=seed, degenerate=degenerate)
        found.append(Candidate(k, posterior, Components.of(posterior), held))
    return found


def _wanted(components: Numbers, distinct: int, found: list[Candidate]) -> Iterator[int]:
    """Yield the numbers to try, "auto" as long as the bound of those found before rises."""
    if components == "auto":
        for k in range(1, max(1, min(MOST, distinct // 2)) + 1):
            if len(found) - 1 - _best(found) >= PATIENCE:
                return
            yield k
    else:
        several = (components,) if isinstance(components, int) else tuple(int(k) for k in components)
        if max(several) > distinct:
            raise ValueError(
                f"x must have at least as many distinct rows as components, {max(several)}; got {distinct}."
            )
        yield from several


def _best(found: list[Candidate]) -> int:
    """Return the place of the highest bound, −1 of none."""
    return max(range(len(found)), key=lambda i: found[i].bound, default=-1)


def best_of(found: list[Candidate]) -> Candidate:
    """Return the candidate with the highest bound."""
    return found[_best(found)]


def in_order(candidate: Candidate) -> Components:
    """Return the occupied components, the heaviest first."""
    kept = candidate.known.kept(candidate.occupied)
    return kept.kept(torch.argsort(kept.weights, descending=True))
