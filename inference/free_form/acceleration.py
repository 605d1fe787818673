r"""Long ascents take longer steps: an extrapolation of three sweeps, kept only where the bound rises.

With θ₀, θ₁, θ₂ the natural parameters after successive sweeps, r = θ₁ − θ₀ and v = θ₂ − 2θ₁ + θ₀, the point
:math:`\theta_0 - 2\alpha r + \alpha^2 v`, :math:`\alpha = -\|r\| / \|v\|`, goes as far along a slow direction as many
sweeps would. One more sweep makes it a proper state, and a bound that fell takes it back.

Source: Varadhan & Roland (2008), *Simple and globally convergent methods for accelerating the convergence of any EM
algorithm*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.free_form.ascent import FreeForm

State = list[tuple[Tensor, ...]]
PLAIN = 30  # sweeps before the first extrapolation; most models have converged by then


class Acceleration:
    """Remembers the last states of an ascent, and extrapolates them every third sweep.

    Args:
        field: the mean field; one with grids is left to plain sweeps, as its parameters change their meaning.
    """

    def __init__(self, field: FreeForm) -> None:
        self.field, self.sweeps = field, 0
        self._states: list[State] = []

    def sweep(self) -> None:
        """Sweep once; where three states are known, go on from their extrapolation if the bound is higher there."""
        self.sweeps += 1
        if self.sweeps > PLAIN and not self.field.has_grids():
            self._states.append(self.field.state())
            if len(self._states) == 3:
                self._leap()
                self._states.clear()
        self.field.sweep()

    def _leap(self) -> None:
        field, bound, last = self.field, self.field.elbo(), self._states[2]
        target = _extrapolated(*self._states)
        if target is None:
            return
        try:
            field.restore(target)
            field.sweep()
            rises = bool(field.elbo() > bound)
        except ConvergenceError:  # the extrapolation is improper
            rises = False
        if not rises:
            field.restore(last)


def _extrapolated(first: State, second: State, third: State) -> State | None:
    """The extrapolation of three states, or None where it is not finite or goes no further than the last."""
    one, two, three = (torch.cat([x.reshape(-1) for block in s for x in block]) for s in (first, second, third))
    r, v = two - one, three - 2 * two + one
    alpha = -float(r.norm()) / max(float(v.norm()), 1e-300)
    flat = one - 2 * alpha * r + alpha**2 * v
    if not alpha < -1 or not bool(torch.isfinite(flat).all()):
        return None
    pieces = iter(flat.split([x.numel() for block in first for x in block]))
    return [tuple(next(pieces).reshape(x.shape) for x in block) for block in first]
