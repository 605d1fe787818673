"""Adaptive quadrature on the line, on pieces that follow the centre, the scale and the ends of each distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from probdl.divergences import plane
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import dimension, double, draw, ends, is_discrete, log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.gauss import legendre

LEVELS = torch.tensor([0.001, 0.01, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99, 0.999], dtype=torch.float64)
REACH = 100  # the pieces reach 4^100 scales from the centre, so that algebraic tails are followed to their end
FINE, ROUGH = 21, 10  # nodes of the two Gauss rules whose difference bounds the error
TOLERANCE, TINY = 1e-11, 1e-250
HALVINGS, CROWD = 60, 3000  # where so many pieces stay apart, rounding is the reason and halving does not help


class Integral(NamedTuple):
    """The integral of c functions: over each given piece (k, c), a bound (c,) on the error of the sum, final edges."""

    pieces: Tensor
    bound: Tensor
    edges: Tensor


def integrate(f: Callable[[Tensor], Tensor], edges: Tensor, relative: float = math.inf) -> Integral:
    """Integrate f, which maps (m,) points to (m, c) values, over the pieces between the sorted edges.

    Each piece is halved until a 10-point and a 21-point Gauss rule agree to 1e-11 of the whole, and, where
    ``relative`` is finite, to that part of the piece itself, however little it holds.
    """
    low, high, origin = edges[:-1], edges[1:], torch.arange(len(edges) - 1)
    pieces = torch.zeros(len(origin), f(edges[:1]).shape[1], dtype=torch.float64)
    bound = torch.zeros_like(pieces[0])
    for step in range(HALVINGS):
        fine, rough = _rule(f, low, high, FINE), _rule(f, low, high, ROUGH)
        error = torch.nan_to_num((fine - rough).abs(), nan=0.0, posinf=0.0)  # an infinite piece needs no halving
        middle = (low + high) / 2
        allowed = TOLERANCE * (1 + pieces.sum(0).abs().nan_to_num(posinf=0.0)) / len(pieces)
        apart = (error > allowed) | (error > relative * fine.abs().clamp_min(TINY))
        halve = apart.any(1) & (low < middle) & (middle < high)
        if step == HALVINGS - 1 or halve.sum() > CROWD:
            halve = torch.zeros_like(halve)
        pieces.index_add_(0, origin[~halve], fine[~halve])
        bound += error[~halve].sum(0)
        if not bool(halve.any()):
            break
        edges = torch.cat([edges, middle[halve]])
        low, high = torch.cat([low[halve], middle[halve]]), torch.cat([middle[halve], high[halve]])
        origin = origin[halve].repeat(2)
    return Integral(pieces, bound, edges.sort().values)


def _rule(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, n: int) -> Tensor:
    nodes, weights = legendre(n)
    half = (high - low) / 2
    x = (low + half)[:, None] + half[:, None] * nodes
    values = f(x.flatten()).reshape(*x.shape, -1)
    return torch.einsum("kmc,m,k->kc", values, weights, half)


def edges_of(*laws: Distribution) -> Tensor:
    """Return sorted edges of pieces that resolve every one of the distributions on the line."""
    edges = torch.cat([_edges(p) for p in laws]).unique()
    apart = torch.diff(edges) > 4e-16 * edges[1:].abs()
    return edges[torch.cat([torch.ones(1, dtype=torch.bool), apart])]


def _edges(p: Distribution) -> Tensor:
    """Edges at quantiles, at centre ± scale·4^k, and closing in on finite ends of the support."""
    if isinstance(p, MixtureSameFamily):
        return _edges(p.component_distribution)  # a batch: each component brings its own edges
    quantiles = _quantiles(p)
    centre, scale = quantiles[6], (quantiles[8] - quantiles[4]) / 2
    steps = scale * 4.0 ** torch.arange(-2, REACH + 1, dtype=torch.float64)[:, None]
    low, high = (end.reshape(-1) for end in ends(p))
    closing = scale * 4.0 ** torch.arange(0, -250, -1, dtype=torch.float64)[:, None]
    edges = torch.cat([quantiles, centre + steps, centre - steps, low + closing, high - closing, low[None], high[None]])
    edges = torch.minimum(torch.maximum(edges, low), high).flatten()
    return edges[torch.isfinite(edges)]


def _quantiles(p: Distribution) -> Tensor:
    """Return quantiles (levels, batch) for placing pieces: exact where torch has them, else of draws."""
    batch = max(1, p.batch_shape.numel())
    try:
        levels = LEVELS.reshape(-1, *[1] * (len(p.batch_shape) + len(p.event_shape)))
        exact = p.icdf(levels.expand((-1, *p.batch_shape, *p.event_shape))).reshape(len(LEVELS), batch)
        if bool(torch.isfinite(exact).all()):
            return exact.double()
    except NotImplementedError:
        pass  # many distributions have no quantile function
    return torch.quantile(draw(p, 4000, seed=0).reshape(4000, batch), LEVELS, dim=0)


Integrand = Callable[[Tensor, Tensor], Tensor]  # of log p and log q, at the same points


def line(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Return both distributions on the CPU if they are continuous and on the line."""
    if dimension(p) != 1:
        raise NotApplicable(
            f"quadrature needs distributions on the line or in the plane; these have {dimension(p)} coordinates."
        )
    if is_discrete(p) or is_discrete(q):
        raise NotApplicable("quadrature needs continuous distributions; a discrete one is given.")
    return double(p, "cpu"), double(q, "cpu")


def f_divergence(integrand: Integrand, p: Distribution, q: Distribution) -> Estimate:
    """Integrate a divergence of two densities on the line or in the plane, and both masses with it as a check."""
    if dimension(p) == 2:
        return plane.f_divergence(integrand, p, q)
    p, q = line(p, q)

    def columns(x: Tensor) -> Tensor:
        log_p, log_q = log_density(p, x[:, None]), log_density(q, x[:, None])
        return torch.stack([integrand(log_p, log_q), log_p.exp(), log_q.exp()], dim=1)

    edges = edges_of(p, q)
    result = integrate(columns, edges)
    missing = (result.pieces[:, 1:].sum(0) - 1).abs().sum().item()
    return finish(result, edges, missing)


def finish(result: Integral, edges: Tensor, missing: float) -> Estimate:
    """Turn the first integral over pieces into an estimate, watching for lost mass and for tails that diverge."""
    pieces, bound = result.pieces[:, 0], result.bound[0].item()
    value = pieces.sum().item()
    if np.isnan(value):
        raise NotApplicable("the densities are NaN on a part of the line.")
    check_mass(missing)
    outer, outermost = _tails(edges, pieces)
    if value == torch.inf or (outermost > 1e-9 * abs(value) and outermost > 0.9 * outer):
        return Estimate(torch.inf, 0.0, "quadrature", notes=("the integral diverges: " + _where(value),))
    if outermost > 1e-9 * abs(value):
        bound += 2 * outermost
    error = bound + (missing + 1e-15) * (1 + abs(value))
    if error > 1e-5 + 1e-3 * abs(value):
        raise NotApplicable(f"the error bound of quadrature, {error:.2g}, is too large.")
    return Estimate(value, error, "quadrature", notes=("stderr is a bound on the quadrature error",))


def check_mass(missing: float) -> None:
    """Raise unless both densities integrate to 1 over the pieces."""
    if not missing <= 1e-6:
        raise NotApplicable(f"quadrature missed {missing:.2g} of the probability.")


def _where(value: float) -> str:
    return "q has no density on a set that p charges" if value == torch.inf else "the tails contribute without end"


def _tails(edges: Tensor, pieces: Tensor) -> tuple[float, float]:
    """Return what the two outermost bands of an unbounded line, each of 30 factors of four, contribute."""
    reach = edges.abs().max()
    if reach < 1e30:  # the supports are bounded
        return 0.0, 0.0
    distance = torch.minimum(edges[:-1].abs(), edges[1:].abs())
    beyond, further = distance > reach * 4.0**-61, distance > reach * 4.0**-30
    return pieces[beyond & ~further].sum().item(), pieces[further].sum().item()
