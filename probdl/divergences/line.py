"""Distributions on the line through their distribution functions: Wasserstein distances and the energy distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.distributions import log_density
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import Kernel, across
from probdl.divergences.quadrature import FINE, ROUGH, check_mass, edges_of, finish, integrate, legendre, line

HALVINGS, PIECES, FAINT = 8, 300, 1e-10  # for a kernel narrower than the densities


@lru_cache
def _primitive() -> Tensor:
    """Return the matrix from values at the Gauss nodes to Legendre coefficients of the integral from −1."""
    nodes, weights = (t.numpy() for t in legendre(FINE))
    degrees = np.arange(FINE)
    vandermonde = np.polynomial.legendre.legvander(nodes, FINE - 1)
    coefficients = (degrees[:, None] + 0.5) * vandermonde.T * weights
    return torch.from_numpy(np.polynomial.legendre.legint(coefficients, lbnd=-1))


def _evaluate(coefficients: Tensor, t: Tensor) -> Tensor:
    """Evaluate one Legendre series (m, degree + 1) at each point t (m,) in [-1, 1]."""
    before, now = torch.ones_like(t), t
    total = coefficients[:, 0] + coefficients[:, 1] * t
    for n in range(2, coefficients.shape[1]):
        before, now = now, ((2 * n - 1) * t * now - (n - 1) * before) / n
        total = total + coefficients[:, n] * now
    return total


class DistributionFunction:
    """The distribution function of a density on the line, and its inverse, accurate in both tails.

    On each piece the density is a polynomial through its Gauss nodes; sums run from the nearer end.
    """

    def __init__(self, p: Distribution, edges: Tensor) -> None:
        nodes, _ = legendre(FINE)
        self.edges, self.half = edges, torch.diff(edges) / 2
        x = (edges[:-1] + self.half)[:, None] + self.half[:, None] * nodes
        density = log_density(p, x.reshape(-1, 1)).exp().reshape(x.shape)
        self.series = self.half[:, None] * (density @ _primitive().T)
        mass = self.mass = self.series.sum(1)  # every Legendre polynomial is 1 at the right end
        zero = torch.zeros(1, dtype=torch.float64)
        self.below = torch.cat([zero, mass.cumsum(0)])
        self.above = torch.cat([mass.flip(0).cumsum(0).flip(0), zero])
        charged = mass.nonzero().flatten()
        self.first, self.last = int(charged[0]), int(charged[-1])

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities below and above each point."""
        k = (torch.searchsorted(self.edges, x, right=True) - 1).clamp(0, len(self.half) - 1)
        t = ((x - self.edges[k]) / self.half[k] - 1).clamp(-1, 1)
        part = _evaluate(self.series[k], t)
        part = torch.minimum(part.clamp_min(0), self.mass[k])  # a polynomial may overshoot where the density vanishes
        return self.below[k] + part, self.above[k + 1] + self.mass[k] - part

    def quantile(self, below: Tensor, above: Tensor) -> Tensor:
        """Return the points with the given probabilities below and above them, of which the smaller is used."""
        left = below <= above
        k = torch.where(left, torch.searchsorted(self.below, below), self._from_above(above)) - 1
        k = k.clamp(self.first, self.last)
        wanted = torch.where(left, below - self.below[k], self.above[k] - above)
        series, low, high = self.series[k], -torch.ones_like(wanted), torch.ones_like(wanted)
        for _ in range(52):
            middle = (low + high) / 2
            short = _evaluate(series, middle) < wanted
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return self.edges[k] + self.half[k] * (1 + (low + high) / 2)

    def _from_above(self, above: Tensor) -> Tensor:
        return len(self.edges) - torch.searchsorted(self.above.flip(0), above)


def _refined(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution, Tensor, float]:
    """Return both laws, pieces on which both densities are smooth, and the probability that the pieces miss."""
    p, q = line(p, q)

    def densities(x: Tensor) -> Tensor:
        return torch.stack([log_density(h, x[:, None]).exp() for h in (p, q)], dim=1)

    # A heavy tail carries a tiny probability far away, so probabilities must be right in proportion in both tails.
    result = integrate(densities, edges_of(p, q), relative=1e-6)
    missing = (result.pieces.sum(0) - 1).abs().sum().item()
    check_mass(missing)
    return p, q, result.edges, missing


def wasserstein(p: Distribution, q: Distribution, order: float) -> Estimate:
    r"""Return :math:`W_p` on the line: :math:`\int|F - G|` for order 1, else the monotone coupling's cost."""
    p, q, edges, missing = _refined(p, q)
    f, g = DistributionFunction(p, edges), DistributionFunction(q, edges)
    if order == 1:
        return _integral(lambda x: _difference(f, g, x).abs(), edges, missing)
    total = _integral(lambda x: _cost(p, f, g, x, order), edges, missing)
    cost, bound = float(total), float(total.stderr or 0.0)
    value = cost ** (1 / order)
    slope = order * max(cost, bound) ** (1 - 1 / order)  # near 0 the root magnifies the error
    return replace(total, value=value, stderr=bound / slope if bound else 0.0)


def energy(p: Distribution, q: Distribution) -> Estimate:
    r"""Return the energy distance on the line, :math:`2\int (F - G)^2`."""
    p, q, edges, missing = _refined(p, q)
    f, g = DistributionFunction(p, edges), DistributionFunction(q, edges)
    return _integral(lambda x: 2 * _difference(f, g, x).square(), edges, missing)


def mmd2(p: Distribution, q: Distribution, kernel: Kernel) -> Estimate:
    r"""Return the squared MMD on the line, :math:`\int\!\!\int k(x, y)(p - q)(x)(p - q)(y)\,dx\,dy`.

    The pieces resolve both densities; those that hold some probability are halved until they resolve the kernel too.
    """
    p, q, edges, missing = _refined(p, q)
    low, high = edges[:-1], edges[1:]
    for _ in range(HALVINGS):
        value, mass, largest = _double_integral(p, q, kernel, low, high, FINE)
        error = abs(value - _double_integral(p, q, kernel, low, high, ROUGH)[0])
        if error <= 1e-12 * largest or 2 * int((mass > FAINT).sum()) > PIECES:
            break
        low, high = _halved(low, high, mass)
    error += (2 * missing + 1e-15) * largest
    if error > 1e-7 * largest:
        raise NotApplicable(f"the error bound of quadrature, {error:.2g}, is too large for this kernel.")
    return Estimate(value, error, "quadrature", notes=("stderr is a bound on the quadrature error",))


def _double_integral(
    p: Distribution, q: Distribution, kernel: Kernel, low: Tensor, high: Tensor, n: int
) -> tuple[float, Tensor, float]:
    """Return the double integral by a rule of n nodes, the probability on each piece, and the largest |k(x, x)|."""
    nodes, weights = legendre(n)
    half = (high - low) / 2
    x = ((low + half)[:, None] + half[:, None] * nodes).reshape(-1, 1)
    w = (half[:, None] * weights).flatten()
    v, z = (log_density(h, x).exp() * w for h in (p, q))
    some = v + z > 1e-18
    x, difference = x[some], (v - z)[some]
    rows, _ = across(kernel, x, x, difference, difference)
    largest = max(kernel(a, a).diagonal().abs().max().item() for a in x.split(512))
    return (rows @ difference).item(), (v + z).reshape(len(low), n).sum(1), largest


def _halved(low: Tensor, high: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Halve the pieces that hold some probability and leave out those that hold none."""
    some, little = mass > FAINT, (mass > 0) & (mass <= FAINT)
    middle = (low[some] + high[some]) / 2
    return torch.cat([low[some], middle, low[little]]), torch.cat([middle, high[some], high[little]])


def _integral(integrand: Callable[[Tensor], Tensor], edges: Tensor, missing: float) -> Estimate:
    return finish(integrate(lambda x: integrand(x)[:, None], edges), edges, missing)


def _difference(f: DistributionFunction, g: DistributionFunction, x: Tensor) -> Tensor:
    """Return F − G, from the side on which less is subtracted from less."""
    (f_below, f_above), (g_below, g_above) = f(x), g(x)
    return torch.where(f_below + g_below < f_above + g_above, f_below - g_below, g_above - f_above)


def _cost(p: Distribution, f: DistributionFunction, g: DistributionFunction, x: Tensor, order: float) -> Tensor:
    """Return |x − T(x)|^order·p(x) for the monotone map T that carries p to q; 0 where p vanishes."""
    density = log_density(p, x[:, None]).exp()
    moved = (x - g.quantile(*f(x))).abs()
    return torch.where(density > 0, moved**order * density, 0.0)
