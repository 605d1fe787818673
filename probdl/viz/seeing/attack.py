"""Szegedy's attack on one input: L-BFGS within a box, the search for the weight of the length, and the ray.

Reference:
    Szegedy et al. (2014), Intriguing properties of neural networks. The paper asks for the smallest c > 0; with c in
    front of the length, as there, it is the largest that gives the smallest r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probdl.viz.seeing.classes import as_scores, wins
from probdl.viz.seeing.graph import value_and_derivative

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = (1e-6, 10.0)  # where c is sought, in units of the slope of the loss at x; above 1 r = 0 is a local minimum
POINTS = 33  # of a ray that are tried at once


@dataclass(frozen=True)
class Attack:
    """One input, the class that it is to be taken for, and what it may become.

    Attributes:
        model: takes (n, ...) to scores.
        x: the input, without the batch.
        target: the class.
        order: of the norm, 1 or 2.
        low, high: the bounds of each pixel.
    """

    model: nn.Module
    x: Tensor
    target: int
    order: int
    low: float
    high: float

    def point(self, r: Tensor) -> Tensor:
        """Return x + r in the dtype of the model, within the bounds whatever the rounding."""
        return (self.x.double() + r).to(self.x.dtype).clamp(self.low, self.high)

    def succeeds(self, points: Tensor) -> Tensor:
        """Say for each of several points whether it is taken for the target."""
        with torch.no_grad():
            return wins(as_scores(self.model(points.clone()), len(points)), self._targets(len(points)))

    def loss(self, r: Tensor) -> tuple[float, Tensor]:
        """Return the negative log-probability of the target at x + r and its derivative, in float64."""

        def score(model: nn.Module, x: Tensor) -> Tensor:
            scores = as_scores(model(x), 1).double()
            if scores.shape[1] == 1:  # two classes with the scores 0 and f
                scores = torch.cat([torch.zeros_like(scores), scores], 1)
            return F.cross_entropy(scores, self._targets(1), reduction="none")

        loss, slope = value_and_derivative(self.model, self.point(r)[None], score)
        return loss.item(), slope[0].double()

    def minimise(self, c: float, start: Tensor) -> Tensor:
        """Return the r of the smallest c‖r‖ + loss that L-BFGS-B finds from a start."""
        from scipy.optimize import minimize

        found = minimize(
            lambda z: self._objective(z, c),
            self._variables(start),
            jac=True,
            method="L-BFGS-B",
            bounds=self._box(),
            options={"maxiter": 100, "ftol": 1e-6, "gtol": 1e-6},
        )
        return self._change(found.x)

    def _objective(self, z: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        r = self._change(z)
        loss, slope = self.loss(r)
        if self.order == 1:
            return c * float(z.sum()) + loss, torch.cat([c + slope.flatten(), c - slope.flatten()]).cpu().numpy()
        length = float(r.norm())
        direction = r / length if length else r  # at zero the subgradient of least norm
        return c * length + loss, (c * direction + slope).flatten().cpu().numpy()

    def _change(self, z: np.ndarray) -> Tensor:
        r = torch.as_tensor(z, device=self.x.device)
        if self.order == 1:
            up, down = r.chunk(2)
            r = up - down
        return r.reshape(self.x.shape)

    def _variables(self, r: Tensor) -> Any:
        """Return what is minimised over: r, or its positive and negative part, in which ‖r‖₁ is linear."""
        flat = r.flatten()
        return (torch.cat([flat.clamp(min=0), (-flat).clamp(min=0)]) if self.order == 1 else flat).cpu().numpy()

    def _box(self) -> Any:
        from scipy.optimize import Bounds

        x = self.x.double().flatten().cpu()
        up, down = self.high - x, x - self.low
        if self.order == 1:
            return Bounds(0.0, torch.cat([up, down]).numpy())
        return Bounds((-down).numpy(), up.numpy())

    def _targets(self, n: int) -> Tensor:
        return torch.full((n,), self.target, device=self.x.device)


def largest_weight(attack: Attack, steps: int) -> tuple[float, Tensor]:
    """Return the largest weight c whose r succeeds, by bisection of log c, and that r; NaN and the last r if none does.

    The smallest c, next to none, is tried first: if it fails, so does the attack. Later minimisations start
    at the best r so far.
    """
    zero = torch.zeros_like(attack.x, dtype=torch.float64)
    slope = attack.loss(zero)[1]
    scale = float(slope.norm() if attack.order == 2 else slope.abs().max())  # the dual norm
    c, fails = (scale * weight for weight in WEIGHTS)
    r = attack.minimise(c, zero)
    if not bool(attack.succeeds(attack.point(r)[None])):
        return math.nan, r
    for _ in range(steps - 1):
        middle = math.sqrt(c * fails)
        attempt = attack.minimise(middle, r)
        if bool(attack.succeeds(attack.point(attempt)[None])):
            c, r = middle, attempt
        else:
            fails = middle
    return c, r


def shrunk(attack: Attack, r: Tensor) -> Tensor:
    """Return the point nearest to x on the ray to x + r down to which the attack succeeds.

    It stays a root of the machine's precision above the end, so that rounding, as in another batch, does not undo it.
    """
    fails, works = 0.0, 1.0
    for _ in range(8):  # to 32⁻⁸ of the ray
        t = torch.linspace(works, fails, POINTS, dtype=torch.float64)
        points = torch.stack([attack.point(r * float(each)) for each in t[1:-1]])
        bad = (~attack.succeeds(points)).nonzero()
        first = int(bad[0, 0]) + 1 if len(bad) else POINTS - 1
        works, fails = float(t[first - 1]), float(t[first])
    return attack.point(r * min(1.0, works * (1 + math.sqrt(torch.finfo(attack.x.dtype).eps))))
