"""Adaptive quadrature in the plane, by a product of Gauss rules on boxes that are quartered where two rules differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import bounds, double, draw, is_discrete, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.gauss import legendre

LEVELS = torch.tensor([0.0005, 0.02, 0.2, 0.5, 0.8, 0.98, 0.9995], dtype=torch.float64)
REACH = 12  # the boxes reach 4^12 scales from the centre
FINE, ROUGH = 10, 7  # nodes along each side
TOLERANCE = 1e-9
MOST, TOGETHER = 60_000, 2000  # boxes in all, and at once
QUARTERINGS = 30

Function = Callable[[Tensor], Tensor]  # points (n, 2) to values (n, c)


class Boxes(NamedTuple):
    """Boxes given by their lower and upper corners (k, 2)."""

    low: Tensor
    high: Tensor

    def quartered(self) -> Boxes:
        """Return four boxes for each."""
        middle = (self.low + self.high) / 2
        corners = [torch.tensor(c, dtype=torch.bool) for c in ((0, 0), (0, 1), (1, 0), (1, 1))]
        low = torch.cat([torch.where(c, middle, self.low) for c in corners])
        return Boxes(low, torch.cat([torch.where(c, self.high, middle) for c in corners]))


class Sum(NamedTuple):
    """Integrals (k, c) over the final boxes, a bound (c,) on the error of their sum, and the boxes."""

    parts: Tensor
    bound: Tensor
    boxes: Boxes


def f_divergence(integrand: Callable[[Tensor, Tensor], Tensor], p: Distribution, q: Distribution) -> Estimate:
    """Integrate a divergence of two densities in the plane; both masses are integrated with it as a check."""
    if is_discrete(p) or is_discrete(q):
        raise NotApplicable("quadrature needs continuous distributions; a discrete one is given.")
    p, q = double(p, "cpu"), double(q, "cpu")

    def columns(x: Tensor) -> Tensor:
        log_p, log_q = log_density(p, x), log_density(q, x)
        return torch.stack([integrand(log_p, log_q), log_p.exp(), log_q.exp()], dim=1)

    edges = [_edges(p, q, axis) for axis in (0, 1)]
    return _finish(integrate(columns, _grid(*edges)))


def _edges(p: Distribution, q: Distribution, axis: int) -> Tensor:
    """Return edges at quantiles of draws and at centre ± scale·4^k, within the support, of both laws."""
    pieces = []
    for h in (p, q):
        quantiles = torch.quantile(draw(h, 4000, seed=0)[:, axis], LEVELS)
        steps = (quantiles[4] - quantiles[2]) * 4.0 ** torch.arange(1, REACH + 1, dtype=torch.float64)
        low, high = (end[axis] for end in bounds(h))
        edges = torch.cat([quantiles, quantiles[3] + steps, quantiles[3] - steps, low[None], high[None]])
        edges = edges.clamp(low, high)
        pieces.append(edges[torch.isfinite(edges)])
    return torch.cat(pieces).unique()


def _grid(first: Tensor, second: Tensor) -> Boxes:
    low, high = (torch.cartesian_prod(*sides) for sides in ((first[:-1], second[:-1]), (first[1:], second[1:])))
    return Boxes(low, high)


def integrate(f: Function, boxes: Boxes) -> Sum:
    """Integrate f over the boxes, quartering those where a rule of 10 × 10 and one of 7 × 7 points differ."""
    done, kept, count = [], [], 0
    bound: Tensor | float = 0.0
    for step in range(QUARTERINGS):
        fine, rough = (_rule(f, boxes, n) for n in (FINE, ROUGH))
        error = torch.nan_to_num((fine - rough).abs(), nan=0.0, posinf=0.0)
        apart = (error > TOLERANCE * (1 + fine.sum(0).abs().nan_to_num(posinf=0.0)) / len(fine)).any(1)
        count += len(fine)
        if step == QUARTERINGS - 1 or count + 4 * int(apart.sum()) > MOST:
            apart = torch.zeros_like(apart)
        done.append(fine[~apart])
        kept.append(Boxes(boxes.low[~apart], boxes.high[~apart]))
        bound = bound + error[~apart].sum(0)
        if not bool(apart.any()):
            break
        boxes = Boxes(boxes.low[apart], boxes.high[apart]).quartered()
    corners = Boxes(torch.cat([b.low for b in kept]), torch.cat([b.high for b in kept]))
    return Sum(torch.cat(done), torch.as_tensor(bound), corners)


def _rule(f: Function, boxes: Boxes, n: int) -> Tensor:
    """Return the integral over each box by n × n points, some boxes at a time."""
    nodes, weights = legendre(n)
    grid, weight = torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten()
    sums = []
    for low, high in zip(boxes.low.split(TOGETHER), boxes.high.split(TOGETHER)):
        half = (high - low) / 2
        x = (low + half)[:, None] + half[:, None] * grid
        values = f(x.reshape(-1, 2)).reshape(len(low), len(grid), -1)
        sums.append(torch.einsum("kmc,m->kc", values, weight) * half.prod(1, keepdim=True))
    return torch.cat(sums)


def _finish(result: Sum) -> Estimate:
    """Turn the integrals into an estimate, watching for lost mass and for what the outermost boxes hold."""
    value, *masses = result.parts.sum(0).tolist()
    missing = sum(abs(mass - 1) for mass in masses)
    if value != value or not missing <= 1e-6:
        raise NotApplicable(f"quadrature missed {missing:.2g} of the probability in the plane.")
    if value == torch.inf:
        return Estimate(torch.inf, 0.0, "quadrature", notes=("the integral diverges where q has next to no density",))
    reach = result.boxes.high.abs().maximum(result.boxes.low.abs()).amax(1)
    outermost = result.parts[reach > reach.max() / 4**6, 0].abs().sum().item() if reach.max() > 1e5 else 0.0
    error = result.bound[0].item() + (missing + 1e-15) * (1 + abs(value)) + 2 * outermost
    if error > 1e-5 + 1e-3 * abs(value):
        raise NotApplicable(f"the error bound of quadrature in the plane, {error:.2g}, is too large.")
    return Estimate(value, error, "quadrature", notes=("stderr is a bound on the quadrature error",))
