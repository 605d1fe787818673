"""Whether a distribution stays where the densities of a family are positive; outside, KL(p‖q) is infinite."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from probdl.access import Draws
from probdl.divergences.distributions import bounds, draw
from probdl.divergences.support import tells_support
from probdl.natural.exponential import ExponentialFamily

LOOKS = 1000  # draws of a distribution, to see kinds of support that its ends do not tell


def support_of_family(family: ExponentialFamily) -> Any:
    """Return torch's constraint on the values; that of a Categorical depends on how many there are."""
    return constraints.nonnegative_integer if family.name == "Categorical" else family.kind.support


def is_lattice(family: ExponentialFamily) -> bool:
    """Whether the members have atoms."""
    return bool(support_of_family(family).is_discrete)


def check_draws(family: ExponentialFamily, p: Draws) -> Tensor:
    """Return the draws in the shape of the family's, (n, *event), if all lie inside its support.

    Raises:
        ValueError: if they have the wrong number of columns, or lie outside or on the border of the support.
    """
    z = _shaped(family, p)
    inside = support_of_family(family).check(z)
    finite = inside.new_ones(len(z))
    if bool(inside.all()):  # elsewhere statistics may not exist
        finite = torch.isfinite(family.statistics(z)).all(1)
    wrong = ~(inside & finite)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"p must lie inside the support of {family.name}, {support_of_family(family)}; {int(wrong.sum())} of "
            f"{len(z)} draws do not, the first is p[{first}] = {z[first].tolist()}. Choose a family with its support."
        )
    return z


def _shaped(family: ExponentialFamily, p: Draws) -> Tensor:
    if family.event == 0:
        if p.dim != 1:
            raise ValueError(
                f"{family.name} is a distribution of one number, but p has {p.dim} columns. Match each column, or use "
                "MultivariateNormal."
            )
        return p.x[:, 0]
    side = math.isqrt(p.dim)
    if family.event == 2 and side**2 != p.dim:
        raise ValueError(f"{family.name} needs draws of square matrices (n, d, d); got {p.dim} numbers a draw.")
    return p.x.reshape(p.n, side, side) if family.event == 2 else p.x


def check_distribution(family: ExponentialFamily, p: Distribution) -> None:
    """Raise a ValueError if p is a batch, has another event shape, or reaches beyond the support of the family."""
    if len(p.batch_shape) or len(p.event_shape) != family.event:
        raise ValueError(
            f"p must be one distribution with {family.event} event dimensions, as {family.name} has; got batch_shape "
            f"{tuple(p.batch_shape)} and event_shape {tuple(p.event_shape)}. Wrap a batch in Independent."
        )
    support = support_of_family(family)
    low, high = bounds(p)
    least, most = (float(getattr(support, end, beyond)) for end, beyond in _ENDS)
    if tells_support(p) and (bool((low < least).any()) or bool((high > most).any())):
        raise ValueError(
            f"p reaches beyond the support of {family.name}, {support}: KL(p‖q) is infinite for every member. Choose a "
            "family with the support of p."
        )
    if not isinstance(p, family.kind):
        check_draws(family, Draws(draw(p, LOOKS, 0)))


_ENDS = (("lower_bound", -math.inf), ("upper_bound", math.inf))
