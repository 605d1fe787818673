"""Synthesis: the input that a network would most like to see for a class, or for a unit of a layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probdl.errors import ConvergenceWarning
from probdl.viz.seeing.ascent import Ascent, begun, climbed
from probdl.viz.seeing.classes import as_scores
from probdl.viz.seeing.scores import Score, of_class, of_unit
from probdl.viz.seeing.unchanged import as_input, unchanged


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Inputs that maximise a penalised score; for several classes or units with a first dimension k.

    Attributes:
        x: (*shape) or (k, *shape), the maximiser that was found.
        score: () or (k,), the score S(x) without the penalty.
        trace: (iterations + 1,) or (k, iterations + 1), the objective at the start and after each iteration; it never
            falls. Where one of several stopped earlier its last value is repeated.
        slope: () or (k,), the largest absolute derivative of the objective over the pixels that the bounds leave free:
            0 at a maximum where the score is smooth. At a kink of a network of ReLUs it need not vanish.
    """

    x: Tensor
    score: Tensor
    trace: Tensor
    slope: Tensor


def synthesize(
    model: nn.Module,
    shape: Sequence[int],
    target: Any = None,
    layer: str | None = None,
    unit: Any = None,
    l2: float = 1e-2,
    steps: int = 200,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> Synthesis:
    r"""Find the input that maximises a score less a penalty of its length, by ascent from a little noise.

    .. math:: \max_x \; S(x) - \lambda \, \|x\|_2^2 \quad \text{with } x \text{ within the bounds},

    where S is the score (logit) of a class or the value of a unit. SciPy's L-BFGS-B climbs; no learning rate is asked
    for. For a linear score with weights w the maximiser is w / (2 λ), clipped to the bounds. For a network the maximum
    is a local one, and depends on the seed.

    Args:
        model: any torch module; it runs in eval mode and is left as it was.
        shape: of one input, without the batch, as (1, 28, 28).
        target: the class, or a sequence of classes for one input each; None where the model has one score.
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them, to maximise a unit of it instead.
        unit: its index in the layer without the batch: an integer, or several as (channel, row, column); or a tensor
            (k, dims) of k such indices for one input each.
        l2: the weight λ of the penalty. At 0 only bounds keep the input finite.
        steps: the largest number of iterations.
        bounds: smallest and largest value of a pixel; None: any value.
        seed: of the noise from which the ascent starts: normal with standard deviation 0.01, moved into the bounds. It
            is drawn again, and up to 100, where the score has no derivative at all: all ReLUs on the way were dead.

    Returns:
        Synthesis, in the dtype of the model, for one in half precision in float32. ``show(found.x)`` draws it.

    Raises:
        TypeError: if ``model`` is no module, or ``target`` or ``unit`` hold no integers.
        ValueError: for invalid ``shape``, ``l2``, ``steps`` or ``bounds``; a class, layer or unit that does not exist;
            ``target`` together with ``layer``; ``l2=0`` without bounds; a score that becomes infinite or NaN; and one
            that does not depend on x.

    Warns:
        ConvergenceWarning: if the steps ran out, and the last tenth of them still brought more than a hundredth of
            the rise.

    Reference:
        Simonyan, Vedaldi & Zisserman (2014), Deep inside convolutional networks.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2).double()
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [3.0, -4.0]]))
        >>> synthesize(model, (2,), target=1, l2=0.5).x.round(decimals=6)
        tensor([ 3., -4.], dtype=torch.float64)
    """
    size = _checked(shape, l2, steps)
    low, high = _ends(bounds, l2)
    scores, several = _wanted(target, layer, unit)
    with unchanged(model) as seen:
        like = as_input(seen, torch.zeros(1, *size, dtype=torch.float64))
        ascents = [Ascent(seen, score, like.dtype, float(l2), low, high) for score in scores]
        found = [climbed(ascent, begun(ascent, _noise(like, seed)), steps) for ascent in ascents]
    _warn_of_climbing([one.trace for one in found], steps)
    longest = max(len(one.trace) for one in found)
    traces = [one.trace + one.trace[-1:] * (longest - len(one.trace)) for one in found]
    numbers = [[one.score for one in found], traces, [one.slope for one in found]]
    parts = [torch.stack([one.x for one in found]), *(like.new_tensor(each) for each in numbers)]
    return Synthesis(*(parts if several else [part[0] for part in parts]))


def _wanted(target: Any, layer: str | None, unit: Any) -> tuple[list[Score], bool]:
    """Return what is maximised, one score for each input, and whether several were asked for."""
    if (layer is None) != (unit is None):
        raise ValueError(f"layer and unit must be given together; got layer={layer!r} and unit={unit!r}.")
    if layer is not None:
        if target is not None:
            raise ValueError(f"target must be None where a unit of a layer is maximised; got {target!r}.")
        several = isinstance(unit, Tensor) and unit.ndim == 2
        return [of_unit(layer, one) for one in _listed(unit, several, "unit")], several
    if target is None:
        return [_only_score], False
    several = isinstance(target, (list, tuple, range)) or getattr(target, "ndim", 0) == 1
    return [of_class(one) for one in _listed(target, several, "target")], several


def _listed(wanted: Any, several: bool, name: str) -> list[Any]:
    items = list(wanted) if several else [wanted]
    if not items:
        raise ValueError(f"{name} must hold at least one; got none.")
    return items


def _only_score(model: nn.Module, x: Tensor) -> Tensor:
    scores = as_scores(model(x), len(x))
    if scores.shape[1] > 1:
        raise ValueError(f"target must be given, one of {scores.shape[1]} classes; or layer and unit.")
    return scores[:, 0]


def _noise(like: Tensor, seed: int) -> Callable[[], Tensor]:
    """Return what draws standard normal noise in float64, on the device of ``like`` and the same on each."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an integer; got {seed!r}.")
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)


def _checked(shape: Any, l2: float, steps: int) -> tuple[int, ...]:
    size = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if not size or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise ValueError(f"shape must be that of one input, positive integers without the batch; got {shape!r}.")
    if isinstance(l2, bool) or not isinstance(l2, (int, float)) or not 0 <= l2 < math.inf:
        raise ValueError(f"l2 must be a finite number, 0 or more; got {l2!r}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer; got {steps!r}.")
    return size


def _ends(bounds: Any, l2: float) -> tuple[float, float]:
    if bounds is None:
        if l2 == 0:
            raise ValueError("l2 must be positive where there are no bounds: the maximum is infinite. Pass bounds=.")
        return -math.inf, math.inf
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be the smallest and the largest value of a pixel, or None; got {bounds!r}.")
    low, high = float(bounds[0]), float(bounds[1])
    if l2 == 0 and not math.isfinite(low) * math.isfinite(high):
        raise ValueError(f"l2 must be positive where the bounds are not finite, {bounds!r}: the maximum is infinite.")
    return low, high


def _warn_of_climbing(traces: list[list[float]], steps: int) -> None:
    """Warn where the steps ran out and the last tenth of them still brought more than a hundredth of the rise."""
    last = max(1, steps // 10)
    risen = [(t[-1] - t[-1 - last]) / (t[-1] - t[0]) for t in traces if len(t) > steps and t[-1] > t[0]]
    if risen and max(risen) > 0.01:
        warnings.warn(
            f"The last {last} of {steps} steps still brought {max(risen):.1%} of the rise of the objective: the input "
            "is short of its maximum. Pass more steps.",
            ConvergenceWarning,
            stacklevel=3,
        )
