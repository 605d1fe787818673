"""Several divergences in one table, each beside what draws of a single distribution would give."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.distributions import Distribution

from probdl.access import Draws
from probdl.divergences import f_divergences, metrics, neighbours
from probdl.divergences.comparison import PERMUTATIONS, SPLITS, Comparison, Row
from probdl.divergences.dispatch import Held, NotApplicable, draws_of, hold_pair
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.permutations import two_sample_test
from probdl.divergences.sliced import sliced_wasserstein

if TYPE_CHECKING:
    pass

Divergence = Callable[..., Estimate]
METRICS: tuple[Divergence, ...] = (metrics.wasserstein, metrics.mmd2, metrics.energy)
OF_DENSITIES: tuple[Divergence, ...] = (f_divergences.kl, f_divergences.js, f_divergences.tv, f_divergences.hellinger2)
TESTS = {"mmd2": "mmd2", "energy": "energy", "tv": "classifier", "js": "classifier", "hellinger2": "classifier"}


def compare(x: Any, y: Any, *, divergences: Sequence[Divergence] | None = None, seed: int = 0) -> Comparison:
    r"""Return several divergences between x and y, each with its uncertainty and a same-distribution reference.

    The reference answers "how large would this number be if x and y came from one distribution?": both samples are
    pooled and split at random into the same sizes, five times, as a permutation test does. So it has the same bias as
    the estimate, and a value that stands far above it, in units of ``reference_sd``, is a difference. Between two
    distributions that are known there is no sampling, and the reference is 0.

    Args:
        x: draws of shape (n, d) or (n,), DataFrame, ``probdl.Draws``, or a ``torch.distributions.Distribution``.
        y: as x.
        divergences: a list of functions of this package, or of ``functools.partial`` of them, such as
            ``partial(wasserstein, order=2)``. None means kl, js, tv, hellinger2, wasserstein, mmd2 and energy for two
            distributions; and where draws are held kl (up to 3 columns), tv, wasserstein, sliced_wasserstein (from 2
            columns), mmd2 and energy. Those of None that do not apply are listed without a value.
        seed: seeds whatever is drawn.

    Returns:
        A ``Comparison`` with ``.table``, ``.plot()`` and ``.estimates``.

    Raises:
        ValueError: for bad draws, or if a divergence that was named cannot be had from what is held.

    Example:
        >>> import torch
        >>> x = torch.linspace(0, 1, 50, dtype=torch.float64)
        >>> compare(x, x + 2, divergences=[metrics.wasserstein, metrics.energy]).table[
        ...     ["value", "p_value", "method"]].round(3)  # doctest: +NORMALIZE_WHITESPACE
                     value  p_value       method
        divergence
        wasserstein  2.000      NaN      sorting
        energy       3.306    0.005  u-statistic
    """
    p, q = hold_pair(x, y, ("x", "y"))
    known = isinstance(p, Distribution) and isinstance(q, Distribution)
    wanted = _wanted(divergences, known, next((h.dim for h in (p, q) if not isinstance(h, Distribution)), 0))
    splits = [] if known else _splits(*draws_of(p, q, ("x", "y"), seed)[:2], seed)
    strict = divergences is not None
    return Comparison({name: _row(divergence, p, q, splits, seed, strict) for name, divergence in wanted.items()})


def _wanted(divergences: Sequence[Divergence] | None, known: bool, columns: int) -> dict[str, Divergence]:
    if divergences is None:
        divergences = [*OF_DENSITIES, *METRICS] if known else _of_draws(columns)
    if callable(divergences) or isinstance(divergences, str):
        raise TypeError(f"divergences must be a list of functions; got {divergences!r}. Put it in brackets.")
    return {name_of(divergence): divergence for divergence in divergences}


def _of_draws(columns: int) -> list[Divergence]:
    """Return what takes seconds and says something at this number of columns."""
    first: list[Divergence] = [f_divergences.kl] if columns <= neighbours.FEW else []
    transport = [metrics.wasserstein, sliced_wasserstein] if columns > 1 else [metrics.wasserstein]
    return [*first, f_divergences.tv, *transport, metrics.mmd2, metrics.energy]


def name_of(divergence: Divergence) -> str:
    """Return the name of the function, with the arguments that a ``partial`` fixes."""
    if not callable(divergence):
        raise TypeError(
            f"divergences must be a list of functions such as probdl.divergences.energy; it holds {divergence!r}."
        )
    if isinstance(divergence, partial):
        fixed = ", ".join(f"{key}={value}" for key, value in divergence.keywords.items())
        return f"{name_of(divergence.func)}({fixed})"
    return getattr(divergence, "__name__", type(divergence).__name__)


def _row(divergence: Divergence, p: Held, q: Held, splits: list[tuple[Draws, Draws]], seed: int, strict: bool) -> Row:
    start = time.perf_counter()
    try:
        estimate = divergence(p, q, seed=seed)
    except NotApplicable as reason:
        if strict:
            raise
        return Row(None, str(reason), (), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if estimate.target == "lower bound" or not splits:
        references: tuple[float, ...] = (0.0,)
    else:
        references = tuple(float(divergence(a, b, seed=seed)) for a, b in splits)
    return Row(estimate, "", references, seconds, _p_value(divergence, p, q, seed) if splits else math.nan)


def _p_value(divergence: Divergence, p: Held, q: Held, seed: int) -> float:
    """Return the p-value of the permutation test that goes with a divergence, or NaN where there is none."""
    fixed = divergence.keywords if isinstance(divergence, partial) else {}
    plain = divergence.func if isinstance(divergence, partial) else divergence
    if getattr(plain, "__module__", "").split(".")[0] != "probdl" or plain.__name__ not in TESTS:
        return math.nan
    try:
        statistic = fixed.get("kernel") or TESTS[plain.__name__]
        return two_sample_test(p, q, statistic, permutations=PERMUTATIONS, seed=seed).p_value
    except NotApplicable:  # weights, or too few draws
        return math.nan


def _splits(x: Draws, y: Draws, seed: int) -> list[tuple[Draws, Draws]]:
    """Pool the draws and split them at random into the same sizes; weights go with their rows."""
    rows = torch.cat([x.x, y.x.to(x.x.device)])
    weighted = x.weights is not None or y.weights is not None
    weights = torch.cat([_weights(x) * x.n, _weights(y).to(rows.device) * y.n]) if weighted else None
    splits = []
    with seeded(seed):
        orders = [torch.randperm(len(rows)).to(rows.device) for _ in range(SPLITS)]
    for order in orders:
        parts = order[: x.n], order[x.n :]
        first, second = (Draws(rows[i], None if weights is None else weights[i]) for i in parts)
        splits.append((first, second))
    return splits


def _weights(draws: Draws) -> torch.Tensor:
    return torch.full_like(draws.x[:, 0], 1 / draws.n) if draws.weights is None else draws.weights
