r"""A density of a few variables on a lattice around its mode.

In coordinates φ = φ̂ + B t, with B Bᵀ the inverse curvature at the mode, the log-density is followed outwards over the
lattice h·ℤᵏ until it has fallen by ten nats; between the nodes it is a cubic spline plus the Gaussian that it is near.
Beyond them it goes on as a quadratic, or the spline would ring. Sums over the lattice converge exponentially, as the
trapezoid rule does. Source: Rue, Martino & Chopin (2009), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from probdl.errors import ConvergenceError

_DROP = 10.0  # nats below the maximum where the lattice ends
_MOST = 2000  # nodes
_MARGIN = 3  # places around the nodes that continue the density
_CLIFF, _MASS = 15.0, -6.0  # nats: a drop between neighbours, and below the maximum
_FINE = {1: 12, 2: 8, 3: 5}  # cells of the interpolated density between two nodes, by dimension


@dataclass(frozen=True)
class Lattice:
    """The nodes that were visited.

    Attributes:
        centre: φ̂, (k,).
        root: B, (k, k).
        spacing: h.
        nodes: integer coordinates, (m, k).
        log_density: at the nodes, (m,).
    """

    centre: Tensor
    root: Tensor
    spacing: float
    nodes: Tensor
    log_density: Tensor

    def phi(self, t: Tensor) -> Tensor:
        """Return φ at coordinates t (..., k)."""
        return self.centre + t @ self.root.T

    def coordinates(self, phi: Tensor) -> Tensor:
        """Return t at φ (..., k)."""
        gap = (phi - self.centre)[..., None]
        return torch.linalg.solve_triangular(self.root, gap, upper=False)[..., 0]

    def has_cliffs(self) -> bool:
        """Whether the density falls by 15 nats from a node with mass to the next: it may go on between them."""
        _, known = _dense(self)
        drops = [np.abs(np.diff(known, axis=axis)) for axis in range(known.ndim)]
        tops = [np.maximum(*_neighbours(known, axis)) for axis in range(known.ndim)]
        return any(bool(((drop > _CLIFF) & (top > _MASS)).any()) for drop, top in zip(drops, tops))

    def log_integral(self) -> float:
        """Return the logarithm of the integral over φ."""
        log_cell = self.nodes.shape[1] * np.log(self.spacing) + float(self.root.diagonal().log().sum())
        return float(self.log_density.logsumexp(0)) + log_cell


def explore_lattice(
    log_density: Callable[[Tensor, int | None], float], centre: Tensor, root: Tensor, spacing: float
) -> Lattice:
    """Visit the nodes from the centre outwards, as long as the density is within ten nats of its largest value.

    Args:
        log_density: maps φ and the index of a visited neighbour (None at the centre) to the log-density.
        centre: where to start, near the mode, (k,).
        root: B, lower triangular, (k, k).
        spacing: h.

    Raises:
        ConvergenceError: if the density does not fall off within 2000 nodes.
    """
    k = len(centre)
    steps = [tuple(s * int(i == j) for j in range(k)) for i in range(k) for s in (1, -1)]
    seen: dict[tuple[int, ...], int] = {}
    values: list[float] = []
    queue: list[tuple[tuple[int, ...], int | None]] = [((0,) * k, None)]
    while queue:
        node, neighbour = queue.pop(0)
        if node in seen:
            continue
        at = torch.tensor(node, dtype=centre.dtype, device=centre.device) * spacing
        values.append(log_density(centre + root @ at, neighbour))
        seen[node] = len(values) - 1
        if values[-1] > max(values) - _DROP:
            queue += [(tuple(a + b for a, b in zip(node, step)), seen[node]) for step in steps]
        if len(values) > _MOST:
            raise ConvergenceError(
                f"The density of the latents that are held on a grid has not fallen off after {_MOST} nodes: they may "
                "have an improper or very heavy-tailed posterior. Give them proper priors, name them in optimise, or "
                "use method='nuts'."
            )
    nodes = torch.tensor(list(seen), device=centre.device)
    return Lattice(centre, root, spacing, nodes, torch.tensor(values, dtype=centre.dtype, device=centre.device))


@dataclass(frozen=True)
class Cells:
    """A density that is constant on small cells: the interpolated one of a lattice, normalised.

    Attributes:
        lattice: its coordinates.
        low: corner of the first cell in coordinates t, (k,).
        width: of a cell.
        log_probability: of each cell, an array of k dimensions.
    """

    lattice: Lattice
    low: Tensor
    width: float
    log_probability: Tensor

    @classmethod
    def of(cls, lattice: Lattice) -> Cells:
        """Interpolate a lattice."""
        from scipy.ndimage import map_coordinates

        h, per = lattice.spacing, _FINE[lattice.nodes.shape[1]]
        first, known = _dense(lattice)
        held = _continued(known)
        places = [h * x for x in np.meshgrid(*[np.arange(n) + f for n, f in zip(held.shape, first)], indexing="ij")]
        axes = [(np.arange((n + 1) * per) + 0.5) / per - 1.0 for n in held.shape]
        grid = np.meshgrid(*axes, indexing="ij")
        smooth = map_coordinates(held + 0.5 * sum(x**2 for x in places), grid, order=3, mode="nearest")
        logs = smooth - 0.5 * sum((h * (g + f)) ** 2 for g, f in zip(grid, first))
        logs = torch.as_tensor(np.minimum(logs, _highest_corner(known, per) + 1.0)).to(lattice.log_density)
        low = h * (torch.as_tensor(first).to(lattice.centre) - 1.0)
        return cls(lattice, low, h / per, logs - logs.reshape(-1).logsumexp(0))

    def error(self) -> float:
        """Return how far the moments in the cells are from the sums over the nodes: of means in sds, of log sds."""
        lattice = self.lattice
        of_nodes = _moments(lattice.nodes.to(self.low) * lattice.spacing, lattice.log_density.softmax(0))
        of_cells = _moments(self.centres(), self.log_probability.reshape(-1).exp())
        shift = (of_cells[0] - of_nodes[0]).abs() / of_nodes[1]
        return float(torch.maximum(shift, (of_cells[1] / of_nodes[1]).log().abs()).max())

    def centres(self) -> Tensor:
        """Return the middles of the cells in coordinates t, (cells, k)."""
        axes = [
            self.low[i] + self.width * (torch.arange(n, dtype=self.low.dtype, device=self.low.device) + 0.5)
            for i, n in enumerate(self.log_probability.shape)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    def log_density(self, t: Tensor) -> Tensor:
        """Return the log-density of φ at coordinates t (n, k); −∞ beyond the cells."""
        shape = torch.tensor(self.log_probability.shape, device=t.device)
        index = ((t - self.low) / self.width).floor().long()
        inside = ((index >= 0) & (index < shape)).all(-1)
        index = torch.minimum(index.clamp(min=0), shape - 1)
        log_p = self.log_probability[tuple(index.unbind(-1))]
        log_cell = len(shape) * np.log(self.width) + self.lattice.root.diagonal().log().sum()
        return torch.where(inside, log_p, -torch.inf) - log_cell

    @cached_property
    def _nearest(self) -> Tensor:
        """The index of the visited node nearest to each place of the lattice's box, of its shape."""
        from scipy.ndimage import distance_transform_edt

        nodes = self.lattice.nodes
        places = (nodes - nodes.amin(0)).cpu().numpy()
        index = np.full(places.max(0) + 1, -1)
        index[tuple(places.T)] = np.arange(len(places))
        nearest = distance_transform_edt(index < 0, return_distances=False, return_indices=True)
        return torch.as_tensor(index[tuple(nearest)]).to(nodes.device)

    def neighbours(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes around coordinates t (n, k), (n, 2ᵏ), and the values of their hat functions there."""
        nodes, k = self.lattice.nodes, t.shape[1]
        place = t / self.lattice.spacing
        base = place.floor()
        share = place - base
        most = nodes.amax(0) - nodes.amin(0)
        corners = torch.cartesian_prod(*[torch.arange(2, device=t.device)] * k).reshape(-1, k)
        at = base.long()[:, None] - nodes.amin(0) + corners
        found = self._nearest[tuple(torch.minimum(at.clamp(min=0), most).unbind(-1))]
        hats = torch.where(corners == 1, share[:, None], 1 - share[:, None]).prod(-1)
        return found, hats

    def draws(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n draws in coordinates t, (n, k)."""
        weights = self.log_probability.reshape(-1).exp().cpu()
        cells = torch.multinomial(weights, n, replacement=True, generator=generator).to(self.low.device)
        inside = torch.rand(n, len(self.low), generator=generator, dtype=self.low.dtype).to(self.low.device)
        return self.centres()[cells] + (inside - 0.5) * self.width


def _moments(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Means and sds of points (m, k) with probabilities (m,)."""
    mean = p @ x
    return mean, (p @ (x - mean) ** 2).sqrt()


def _dense(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """The first place, and an array of the log-densities around the nodes, 0 for the largest, NaN where not visited."""
    nodes = lattice.nodes.cpu().numpy()
    first = nodes.min(0) - _MARGIN
    known = np.full(nodes.max(0) + _MARGIN - first + 1, np.nan)
    known[tuple((nodes - first).T)] = (lattice.log_density - lattice.log_density.max()).cpu().double().numpy()
    return first.astype(float), known


def _continued(known: np.ndarray) -> np.ndarray:
    """Go on as quadratics of three nodes in a row, falling, for the margin; further out by the nearest node."""
    from scipy.ndimage import distance_transform_edt

    held = known.copy()
    for _ in range(_MARGIN):
        guesses = [
            g
            for axis in range(held.ndim)
            for g in (_guess(held, axis), np.flip(_guess(np.flip(held, axis), axis), axis))
        ]
        count = sum(~np.isnan(g) for g in guesses)
        mean = np.nansum(guesses, 0) / np.maximum(count, 1)
        held = np.where(np.isnan(held) & (count > 0), mean, held)
    away, nearest = distance_transform_edt(np.isnan(held), return_indices=True)
    return held[tuple(nearest)] - 0.5 * away**2


def _guess(held: np.ndarray, axis: int) -> np.ndarray:
    """The quadratic through the three places before each along an axis, there; never above the last. NaN without."""
    x = np.moveaxis(held, axis, 0)
    out = np.full_like(x, np.nan)
    out[3:] = np.minimum(3 * x[2:-1] - 3 * x[1:-2] + x[:-3], x[2:-1])
    return np.moveaxis(out, 0, axis)


def _highest_corner(known: np.ndarray, per: int) -> np.ndarray:
    """For each cell the largest log-density of the visited nodes around it; −∞ where there is none."""
    top = np.pad(np.nan_to_num(known, nan=-np.inf), 1, constant_values=-np.inf)
    for axis in range(known.ndim):
        top = np.repeat(np.maximum(*_neighbours(top, axis)), per, axis)
    return top


def _neighbours(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Each entry along an axis, and the next."""
    moved = np.moveaxis(x, axis, 0)
    return np.moveaxis(moved[:-1], 0, axis), np.moveaxis(moved[1:], 0, axis)
