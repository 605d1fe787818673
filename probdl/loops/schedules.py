"""Learning rates as functions of the fraction of the steps that are done."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def cosine(rate: float, warm_up: float = 0.0) -> Schedule:
    r"""Return a learning rate that falls to zero along half a cosine, :math:`η\,(1 + \cos πt) / 2`, t from 0 to 1.

    Args:
        rate: η, the largest.
        warm_up: the fraction of the steps over which it first rises from zero to η in a line.

    Example:
        >>> cosine(0.1)(0.5)
        0.05
        >>> rate = cosine(0.1, warm_up=0.2)
        >>> [round(rate(done), 3) for done in (0.1, 0.2, 0.6, 1.0)]
        [0.05, 0.1, 0.05, 0.0]
    """

    def at(done: float) -> float:
        if done < warm_up:
            return rate * done / warm_up
        return 0.5 * rate * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))

    return at
