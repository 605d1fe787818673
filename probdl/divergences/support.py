"""Where one distribution can be and another cannot, and whether its moments are finite."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Distribution, Independent, MixtureSameFamily, TransformedDistribution

from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import bounds, dimension, is_discrete, support_of


def tells_support(p: Distribution) -> bool:
    """Whether the ends that are known of the support of ``p`` are its true ends."""
    if isinstance(p, MixtureSameFamily):
        return tells_support(p.component_distribution)
    if isinstance(p, Independent):
        return tells_support(p.base_dist)
    if isinstance(p, TransformedDistribution):
        return dimension(p) == 1 and tells_support(p.base_dist)
    return support_of(p) is not None


def outside(p: Distribution, q: Distribution) -> str:
    """Say where ``p`` reaches beyond the support of ``q``; empty where that is not known."""
    (p_low, p_high), (q_low, q_high) = bounds(p), bounds(q)
    for i in range(dimension(p) if tells_support(p) else 0):
        if p_low[i] < q_low[i] or p_high[i] > q_high[i]:
            reach = f"[{p_low[i]:g}, {p_high[i]:g}] and q only over [{q_low[i]:g}, {q_high[i]:g}]"
            return f"p reaches over {reach}" + (f" in coordinate {i}" if dimension(p) > 1 else "")
    return ""


def disjoint(p: Distribution, q: Distribution) -> bool:
    """Whether the supports are known not to overlap; ends that touch share an atom if the laws are discrete."""
    (p_low, p_high), (q_low, q_high) = bounds(p), bounds(q)
    touching = torch.maximum(p_low, q_low) == torch.minimum(p_high, q_high)
    beyond = torch.maximum(p_low, q_low) > torch.minimum(p_high, q_high)
    return bool((beyond | (touching & (not is_discrete(p)))).any())


def require_moment(p: Distribution, order: float, name: str, divergence: str) -> None:
    """Raise unless E|X|^order is finite, as far as torch's formulas for the moments tell."""
    if is_discrete(p):  # torch has no discrete law with infinite moments, and gives NaN as the mean of a Categorical
        return
    base = p.base_dist if isinstance(p, Independent) else p
    limit = getattr(base, {"StudentT": "df", "Pareto": "alpha"}.get(type(base).__name__, ""), None)
    infinite = limit is not None and bool((limit <= order).any())
    for power, moment in ((1, "mean"), (2, "variance")):
        if order >= power and not infinite:
            infinite = not _finite(p, moment)
    if infinite:
        raise NotApplicable(
            f"{divergence} needs a finite moment of order {order:g}, which {name} ({type(base).__name__}) lacks. "
            "Use js, tv, hellinger2, or mmd2 with a bounded kernel."
        )


def require_moments(p: Any, q: Any, order: float, divergence: str) -> None:
    """Raise unless each of the two that is a distribution has a finite moment of the order."""
    for name, h in (("p", p), ("q", q)):
        if isinstance(h, Distribution):
            require_moment(h, order, name, divergence)


def _finite(p: Distribution, moment: str) -> bool:
    try:
        return bool(torch.isfinite(getattr(p, moment)).all())
    except NotImplementedError:  # torch does not tell
        return True
