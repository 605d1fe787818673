r"""Expected natural parameters :math:`E_q \varphi` as multilinear functions of the blocks' expected statistics.

:math:`E \varphi_f = \sum_{m_1, m_2, \dots} C_{f, m_1 m_2 \dots} \prod_p \bar u_p[b_p(f), m_p]`, where the statistics of
each parent p start with the constant 1, and b_p(f) is the one unit of it that entry f sees. C is solved for at a few
values and checked at others, all over the space: the check is the certificate of conjugacy.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from probdl.inference.free_form.additive import AdditiveStatistics
from probdl.inference.free_form.blocks import CategoricalBlock, DirichletBlock, ExponentialBlock, WishartBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.probing import NotConjugate, Parameter, close, flat_index
from probdl.inference.free_form.reading import Values

Moments = dict[str, Any]
MOST_ADDED = 200  # units of a parent whose statistics a parameter may add up


class Expected(Protocol):
    """The expectation of a natural parameter under the mean field."""

    def __call__(self, moments: Moments) -> Tensor:
        """Return it at the blocks' moments, by site name."""


class Constant:
    """A parameter that sees no latent but discrete ones."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, moments: Moments) -> Tensor:
        """Return the value."""
        return self.value


class StatisticLinear:
    """A parameter that is linear in the statistics of each of its parents, one unit of each for an entry.

    Args:
        parameter: what to take the expectation of.
        blocks: of the latents, by name.

    Raises:
        NotConjugate: if an entry sees several units of a latent, or not through its statistics.
    """

    def __init__(self, parameter: Parameter, blocks: dict[str, ExponentialBlock]) -> None:
        self.parameter = parameter
        self.parents = [blocks[name] for name in parameter.parents]
        self.units = [self._units(block) for block in self.parents]
        self.compile()

    def compile(self) -> None:
        """Solve for the coefficients; again after a grid has moved."""
        structured = [b for b in self.parents if isinstance(b, (DirichletBlock, WishartBlock))]
        self.selected: Tensor | None = None
        if structured:
            self._select(structured[0])
        else:
            self._solve()
        self._certify()

    def _units(self, block: ExponentialBlock) -> Tensor:
        index = units_seen(self.parameter, block)
        if index is None:
            raise NotConjugate(self.parameter.site.name, block.name, "sees several entries at once of the latent")
        return index

    def _select(self, block: ExponentialBlock) -> None:
        """Each entry is one entry of the statistics of a structured parent, such as a log-probability."""
        if len(self.parents) > 1:
            raise NotConjugate(self.parameter.site.name, block.name, "sees another latent in a product with")
        values = self.parameter.reading.random_values(14)
        one = values[block.name].reshape(-1, *block.shape[len(block.unit_shape) :])[:1]
        phi = self.parameter({**values, block.name: _same_in_all(block, values[block.name])})
        statistics = block.statistics(one)[0]
        flat = phi.reshape(-1)
        order = statistics.argsort()
        near = torch.searchsorted(statistics[order].contiguous(), flat.contiguous()).clamp(1, len(order) - 1)
        left, right = order[near - 1], order[near]
        nearer = (flat - statistics[left]).abs() <= (flat - statistics[right]).abs()
        self.selected = torch.where(nearer, left, right).reshape(phi.shape)

    def _solve(self) -> None:
        """Evaluate where all units of a parent share a value, for all combinations, and solve along each parent."""
        values = self.parameter.reading.random_values(15)
        knots = [block.knot_values() for block in self.parents]
        grid = self._on_knots(values, knots, 0)
        for axis, block in enumerate(self.parents):
            if not isinstance(block, GridBlock):
                first = grid.movedim(axis, 0)
                solved = torch.linalg.solve(_basis(block, knots[axis]).to(grid), first.reshape(len(first), -1))
                grid = solved.reshape(first.shape).movedim(0, axis)
        coefficients = grid.movedim(tuple(range(len(self.parents))), tuple(range(-len(self.parents), 0)))
        if not any(isinstance(b, GridBlock) for b in self.parents):  # what solving left of zeros
            rounding = 1e-12 * coefficients.abs().amax()
            coefficients = torch.where(coefficients.abs() < rounding, torch.zeros_like(coefficients), coefficients)
        for dim in range(coefficients.ndim - len(self.parents)):
            first = coefficients.narrow(dim, 0, 1)
            if bool(close(coefficients, first, 1e-11).all()):
                coefficients = first
        self.coefficients = coefficients
        self._lone = None if any(isinstance(b, GridBlock) for b in self.parents) else self._lone_statistic()

    def _on_knots(self, values: Values, knots: list[list[Tensor]], axis: int) -> Tensor:
        if axis == len(self.parents):
            return self.parameter(values)
        name = self.parents[axis].name
        return torch.stack([self._on_knots({**values, name: x}, knots, axis + 1) for x in knots[axis]])

    def _certify(self) -> None:
        """Compare with the parameter itself at random values of all latents, near and far."""
        for seed, scale in ((16, 1.0), (17, 2.5), (18, 0.3)):
            values = self.parameter.reading.random_values(seed, scale)
            statistics = {}
            for block in self.parents:
                if isinstance(block, GridBlock):
                    values[block.name], statistics[block.name] = _random_point(block, seed)
                else:
                    x = values[block.name].reshape(-1, *block.shape[len(block.unit_shape) :])
                    statistics[block.name] = (block.statistics(x),)
            expected, exact = self(statistics), self.parameter(values)
            scale_of = exact.abs().amax().clamp(min=1.0)
            if not bool(
                (close(expected.expand(exact.shape), exact, 1e-6) | ((expected - exact).abs() < 1e-8 * scale_of)).all()
            ):
                name = self.parents[0].name
                raise NotConjugate(self.parameter.site.name, name, "is not linear in the statistics of")

    def __call__(self, moments: Moments) -> Tensor:
        """Return the expectation."""
        if self.selected is not None:
            (u,) = moments[self.parents[0].name]
            return u.reshape(-1)[self.units[0] * u.shape[1] + self.selected]
        out = self.coefficients
        for axis in reversed(range(len(self.parents))):
            out = self._contract(out, moments[self.parents[axis].name][0], axis)
        return out

    def _contract(self, coefficients: Tensor, u: Tensor, axis: int) -> Tensor:
        """Sum the last axis of the coefficients against the statistics of one parent."""
        units = self.units[axis]
        entries = units.shape if len(u) > 1 else (1,) * units.ndim
        u = u[units] if len(u) > 1 else u[0]
        u = u.reshape((*entries, *(1,) * (coefficients.ndim - units.ndim - 1), u.shape[-1]))
        if isinstance(self.parents[axis], (GridBlock, CategoricalBlock)):
            return (coefficients * u).sum(-1)
        if axis == len(self.parents) - 1 and self._lone is not None:
            which, factor = self._lone
            return u[..., which] if factor == 1.0 else u[..., which] * factor
        return coefficients[..., 0] + (coefficients[..., 1:] * u).sum(-1)

    def _lone_statistic(self) -> tuple[int, float] | None:
        """The one statistic of an only parent that the parameter is a multiple of, and the factor, where it is one."""
        flat = self.coefficients.reshape(-1, self.coefficients.shape[-1])
        used = flat.abs().sum(0).nonzero()[:, 0].tolist()
        if len(self.parents) != 1 or len(used) != 1 or used[0] == 0 or len(flat.unique(dim=0)) > 1:
            return None
        value = float(flat[0, used[0]])
        return used[0] - 1, 1.0 if abs(value - 1) < 1e-12 else value


def units_seen(parameter: Parameter, block: ExponentialBlock) -> Tensor | None:
    """Return the one unit of a block that each entry of a parameter sees, or None if some see several."""
    low, high = (_values_of(block, parameter, seed) for seed in (11, 12))
    return flat_index(parameter, parameter.reading.random_values(13), block.name, low, high, len(block.unit_shape))


def expected_of(parameter: Parameter, blocks: dict[str, ExponentialBlock]) -> Expected:
    """Return the expectation of a parameter in the form that it has.

    Raises:
        NotConjugate: if it has none of them.
    """
    if not parameter.parents:
        return Constant(parameter(parameter.reading.random_values(23)))
    if len(parameter.parents) == 1:
        block = blocks[parameter.parents[0]]
        few = block.knots and block.natural.shape[0] <= MOST_ADDED
        if few and units_seen(parameter, block) is None:
            return AdditiveStatistics(parameter, block)
    return StatisticLinear(parameter, blocks)


def _values_of(block: ExponentialBlock, parameter: Parameter, seed: int) -> Tensor:
    """One value for all units; a grid's own points, where it is not on one."""
    if isinstance(block, GridBlock):
        return block.points[:, len(block.points[0]) // (2 + seed % 2) + seed % 5].reshape(block.shape)
    return _same_in_all(block, parameter.reading.random_values(seed)[block.name])


def _same_in_all(block: ExponentialBlock, x: Tensor) -> Tensor:
    """The first unit's value, for all units."""
    event = block.shape[len(block.unit_shape) :]
    return x.reshape(-1, *event)[0].reshape((1,) * len(block.unit_shape) + event).expand(block.shape)


def _basis(block: ExponentialBlock, knots: list[Tensor]) -> Tensor:
    x = torch.stack([k.reshape(-1)[0] for k in knots])
    return torch.nn.functional.pad(block.statistics(x), (1, 0), value=1.0)


def _random_point(block: GridBlock, seed: int) -> tuple[Tensor, tuple[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    units, size = block.points.shape
    index = torch.randint(size, (units,), generator=generator).to(block.points.device)
    chosen = block.points[torch.arange(units, device=index.device), index].reshape(block.shape)
    return chosen, (torch.nn.functional.one_hot(index, size).to(block.points),)
