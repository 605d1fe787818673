"""The ascent of one penalised score within a box, by SciPy's L-BFGS-B in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.graph import value_and_derivative
from probdl.viz.seeing.scores import Score

if TYPE_CHECKING:
    import numpy as np

SIZES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the noise from which an ascent may start


@dataclass(frozen=True)
class Ascent:
    """What is climbed.

    Attributes:
        model: takes (1, ...) to scores, and is in eval mode.
        score: S, from the model and its input.
        dtype: that in which the model takes its input.
        l2: the weight of the penalty.
        low, high: the bounds of each pixel.
    """

    model: nn.Module
    score: Score
    dtype: torch.dtype
    l2: float
    low: float
    high: float

    def objective(self, x: Tensor) -> tuple[float, Tensor]:
        """Return S(x) - l2 ‖x‖² and its derivative, in float64 whatever the dtype of the model."""
        score, slope = self.score_of(x)
        return score - self.l2 * float(x.square().sum()), slope - 2 * self.l2 * x

    def score_of(self, x: Tensor) -> tuple[float, Tensor]:
        """Return S(x) and its derivative for x in float64.

        Raises:
            ValueError: if the score is infinite or NaN.
        """
        values, slope = value_and_derivative(self.model, x.to(self.dtype), self.score)
        score = float(values.detach().double().sum())
        if not torch.isfinite(slope).all() or score != score or abs(score) == float("inf"):
            size = f"{float(x.min()):.3g} to {float(x.max()):.3g}"
            raise ValueError(
                f"the score must be finite; got {score} at x from {size}. Pass bounds=, or a larger l2=, "
                "if the model is finite at inputs of its own."
            )
        return score, slope.double()

    def free_slope(self, x: Tensor, slope: Tensor) -> float:
        """Return the largest absolute derivative over the pixels that may follow it."""
        blocked = ((x <= self.low) & (slope < 0)) | ((x >= self.high) & (slope > 0))
        return float(slope.masked_fill(blocked, 0).abs().max())


@dataclass(frozen=True)
class Summit:
    """Where one ascent ended: x without the batch, its score, the trace of the objective, and the slope left."""

    x: Tensor
    score: float
    trace: list[float]
    slope: float


def climbed(ascent: Ascent, start: Tensor, steps: int) -> Summit:
    """Climb for at most that many iterations; L-BFGS-B starts anew while that brings something."""
    x = start.double()
    trace = [ascent.objective(x)[0]]
    while len(trace) <= steps:
        before = trace[-1]
        x, values = _run(ascent, x, steps + 1 - len(trace))
        trace += values
        if not trace[-1] - before > 1e-9 * (1 + abs(before)):
            break
    score, slope = ascent.score_of(x)
    return Summit(x[0].to(ascent.dtype), score, trace, ascent.free_slope(x, slope - 2 * ascent.l2 * x))


def begun(ascent: Ascent, noise: Callable[[], Tensor]) -> Tensor:
    """Return noise within the bounds at which the score has a derivative: small, or else the first larger one.

    Raises:
        ValueError: if the score has none at any.
    """
    for trial in range(4 * len(SIZES)):
        x = (SIZES[trial // 4] * noise()).clamp(ascent.low, ascent.high)
        if bool(ascent.score_of(x)[1].any()):
            return x
    raise ValueError(
        f"the score must change with x where the ascent starts, but its derivative is zero at noise from {SIZES[0]:g} "
        f"to {SIZES[-1]:g} large: a dead unit, or a constant. Pass another unit, or another seed=."
    )


def _run(ascent: Ascent, start: Tensor, steps: int) -> tuple[Tensor, list[float]]:
    """Return where L-BFGS-B ends, and the objective after each of its iterations."""
    from scipy.optimize import Bounds, minimize

    values: list[float] = []

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = ascent.objective(torch.as_tensor(z, device=start.device).reshape(start.shape))
        return -value, -slope.flatten().cpu().numpy()

    def note(*, intermediate_result: Any) -> None:  # the name by which SciPy tells the kind of callback
        values.append(-float(intermediate_result.fun))

    found = minimize(
        loss,
        start.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(ascent.low, ascent.high),
        callback=note,
        options={"maxiter": steps, "maxfun": 20 * steps + 100, "ftol": 1e-12, "gtol": 1e-10},
    )
    return torch.as_tensor(found.x, device=start.device).reshape(start.shape), values
