"""A natural parameter that adds up the statistics of many units of a latent, as the weights of a broken stick do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import ExponentialBlock
from probdl.inference.free_form.probing import NotConjugate, Parameter


class AdditiveStatistics:
    """A parameter that is a sum over many units of one parent, each through its statistics, as a broken stick is.

    Args:
        parameter: what to take the expectation of.
        block: its one parent, of scalars.

    Raises:
        NotConjugate: if it is no such sum.
    """

    def __init__(self, parameter: Parameter, block: ExponentialBlock) -> None:
        self.parameter, self.parents = parameter, [block]
        values = parameter.reading.random_values(15)
        knots = block.knot_values()

        def at(x: Tensor) -> Tensor:
            return parameter({**values, block.name: x})

        steps = torch.stack(
            [(block.statistics(k.reshape(-1)[:1]) - block.statistics(knots[0].reshape(-1)[:1]))[0] for k in knots[1:]]
        )
        base, columns = at(knots[0]), []
        for unit in range(block.natural.shape[0]):
            moved = []
            for knot in knots[1:]:
                x = knots[0].clone().reshape(-1)
                x[unit] = knot.reshape(-1)[unit]
                moved.append(at(x.reshape(block.shape)) - base)
            columns.append(torch.linalg.solve(steps, torch.stack(moved).reshape(len(moved), -1)).T)
        self.coefficients = torch.stack(columns, 1).reshape(*base.shape, -1)
        start = block.statistics(knots[0].reshape(-1)).reshape(-1)
        self.constant = base - self.coefficients @ start
        self._certify(block)

    def _certify(self, block: ExponentialBlock) -> None:
        for seed, scale in ((16, 1.0), (17, 2.5), (18, 0.3)):
            values = self.parameter.reading.random_values(seed, scale)
            expected = self({block.name: (block.statistics(values[block.name].reshape(-1)),)})
            exact = self.parameter(values)
            if not bool(((expected - exact).abs() <= 1e-7 * exact.abs().amax().clamp(min=1.0)).all()):
                reason = "sees several entries at once, and not through a sum of their statistics, of the latent"
                raise NotConjugate(self.parameter.site.name, block.name, reason)

    def __call__(self, moments: dict[str, Any]) -> Tensor:
        """Return the expectation."""
        return self.constant + self.coefficients @ moments[self.parents[0].name][0].reshape(-1)
