"""Adversarial examples: the smallest change of an input with which a classifier takes it for another class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.attack import Attack, largest_weight, shrunk
from probdl.viz.seeing.classes import as_classes, as_scores, wins
from probdl.viz.seeing.unchanged import as_input, unchanged


@dataclass(frozen=True)
class Adversarial:
    """Inputs that a model takes for another class.

    Attributes:
        x: (n, ...), what the model takes for the target where ``success``; the last attempt elsewhere.
        r: (n, ...), the change, ``x`` less the original.
        norm: (n,), the Euclidean length of ``r``, whatever norm was minimised.
        success: (n,), whether the target's score is above all others (with one output: has the right sign).
        c: (n,), the largest weight of the norm that succeeded: infinite where r is zero, NaN where none did.
    """

    x: Tensor
    r: Tensor
    norm: Tensor
    success: Tensor
    c: Tensor


def adversarial(
    model: nn.Module,
    x: Tensor,
    target: Any,
    order: int = 2,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    steps: int = 12,
) -> Adversarial:
    r"""Find the smallest change r with which a classifier takes each x for the class y, by box-constrained L-BFGS.

    For a weight c of the length,

    .. math:: \min_r \; c \, \|r\| - \log p(y \mid x + r) \quad \text{with } x + r \text{ within the bounds},

    is solved by SciPy's L-BFGS-B in float64, and the largest c for which x + r is taken for y is found by bisection: a
    smaller one pays in length for more certainty than was asked. That r is then shrunk along its ray while it still
    succeeds. For two classes, a linear model and no bounds its length is the distance to the plane between them,
    |f| / ‖w‖; with more classes it is somewhat above the shortest, as cross-entropy weighs all of them (a tenth with
    five random linear scores).

    Args:
        model: any torch module that returns scores (logits) of shape (n, classes), or (n,) or (n, 1) for two classes.
            Of one that returns probabilities pass the part before the softmax: where they are 0 and 1 to the last
            digit there is no slope to follow, and the search fails.
        x: inputs of shape (n, ...), in the units in which the model takes them, converted to its dtype.
        target: the class y, an integer or one for each row; 0 or 1 where the model has one output.
        order: 2 minimises the Euclidean length; 1 the sum of absolute values, which changes few pixels by much.
        bounds: smallest and largest value of a pixel, in the units of ``x``; None: any value. A few roundings by which
            ``x`` exceeds them are cut off.
        steps: the number of weights c that are tried for a row.

    Returns:
        Adversarial. A row that no c takes to its target has ``success`` False. The search is local: for a network a
        shorter r may exist, and a failure is no proof that there is none. Success is judged in the dtype of the model,
        for one in half precision in a float32 copy; the length is within 2e-8 of the end of its ray in float64, 3e-4
        in float32.

    Raises:
        TypeError: if ``model`` is no module, ``x`` holds no numbers, or ``target`` no integers.
        ValueError: if ``x`` is empty, not finite or outside the bounds, there is no such class, the model returns no
            scores, or ``order``, ``bounds`` or ``steps`` is invalid, or the scores have no derivative in ``x``.

    Reference:
        Szegedy et al. (2014), Intriguing properties of neural networks.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1).double()
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0]])), model.bias.data.fill_(-10.0)
        >>> found = adversarial(model, torch.zeros(1, 2), target=1, bounds=None)
        >>> [round(value, 6) for value in (float(found.norm), *found.r[0].tolist())]
        [2.0, 1.2, 1.6]
    """
    low, high = _checked(order, bounds, steps)
    with unchanged(model) as seen:
        start = as_input(seen, x)
        low, high = (float(start.new_tensor(bound)) for bound in (low, high))  # as the dtype has them
        start = _inside(start, low, high)
        with torch.no_grad():
            classes = max(2, as_scores(seen(start.clone()), len(start)).shape[1])
        wanted = as_classes(target, len(start), classes).to(start.device)
        rows = [
            _smallest(Attack(seen, row, int(y), order, low, high), steps) for row, y in zip(start, wanted, strict=True)
        ]
        found = torch.stack([point for point, _ in rows])
        with torch.no_grad():
            success = wins(as_scores(seen(found.clone()), len(found)), wanted)
    c = torch.tensor([c for _, c in rows], dtype=found.dtype, device=found.device)
    r = found - start
    return Adversarial(found, r, r.flatten(1).norm(dim=1), success, torch.where(success, c, torch.nan))


def _smallest(attack: Attack, steps: int) -> tuple[Tensor, float]:
    """Return the point that was found for one row, and its weight of the length, NaN if it failed."""
    if bool(attack.succeeds(attack.x[None])):
        return attack.x, math.inf
    c, r = largest_weight(attack, steps)
    return (attack.point(r) if math.isnan(c) else shrunk(attack, r)), c


def _checked(order: int, bounds: tuple[float, float] | None, steps: int) -> tuple[float, float]:
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, the norm that is minimised; got {order!r}.")
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer; got {steps!r}.")
    if bounds is None:
        return -math.inf, math.inf
    two = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(isinstance(bound, Real) for bound in bounds)
    if not two or not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be the smallest and the largest value of a pixel, or None; got {bounds!r}.")
    return float(bounds[0]), float(bounds[1])


def _inside(x: Tensor, low: float, high: float) -> Tensor:
    """Return x within the bounds, moved by a few roundings at most, as (pixel - mean) / sd has them."""
    least, most = float(x.min()), float(x.max())
    few = 4 * torch.finfo(x.dtype).eps
    if least < low - few * abs(low) or most > high + few * abs(high):
        raise ValueError(
            f"x must be within bounds, {low:g} to {high:g}; it reaches from {least:.6g} to {most:.6g}. "
            "Pass bounds= in the units of x, or bounds=None."
        )
    return x.clamp(low, high)
