"""Moments of tilted distributions on a plane, by the trapezoid rule in coordinates that follow the tilted mass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.derivatives import at_least
from probdl.inference.propagation.tilted import errors_by_halving
from probdl.natural.planes import PlaneFactor

_DROP = 25.0  # nats below the maximum at which the integrand may be cut off
_BUDGET = 2_000_000  # values held at a time
_MOST_NODES = 4_000_000  # of all sites together


@dataclass(frozen=True)
class PlaneMoments:
    """Log normaliser (n,), mean (n, 2) and covariance (n, 2, 2) of each tilted distribution.

    ``error`` is that of the rule, ``coarse_error`` that of the rule of half the size.
    """

    log_normaliser: Tensor
    mean: Tensor
    covariance: Tensor
    error: float
    coarse_error: float


class TiltedPlane:
    """Tilted moments of all sites at once; remembers where their mass was, and how it lay.

    Args:
        log_likelihood: ℓ, maps u (k, n, 2) to (k, n).
        points: nodes along each axis, one more than a multiple of four; doubled until the error is below ``tolerance``,
            as long as all sites together have at most four million nodes.
        tolerance: of log normaliser, means in sd units and log variances.
    """

    def __init__(
        self,
        log_likelihood: Callable[[Tensor], Tensor],
        points: int = 33,
        tolerance: float = 1e-8,
    ) -> None:
        self.log_likelihood, self.tolerance = log_likelihood, tolerance
        self.points = self.fewest_points = points
        self._centre: Tensor | None = None
        self._root: Tensor
        self._low: Tensor
        self._high: Tensor

    def forget(self) -> None:
        """Look for the mass anew at the next call."""
        self._centre = None

    @property
    def place(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int] | None:
        """Where the mass was found and how it lay, for the quadrature of a problem nearby."""
        if self._centre is None:
            return None
        return self._centre, self._root, self._low.clone(), self._high.clone(), self.points

    @place.setter
    def place(self, place: tuple[Tensor, Tensor, Tensor, Tensor, int] | None) -> None:
        if place is not None:
            self._centre, self._root, low, high, self.points = place
            self._low, self._high = low.clone(), high.clone()

    def __call__(self, cavity: PlaneFactor, tolerance: float | None = None) -> PlaneMoments:
        """Return the tilted moments under these cavities."""
        tolerance = at_least(max(self.tolerance, tolerance or 0.0), cavity.shift.dtype, 1e4)
        most = 65 if tolerance > 1e-3 else self._most(len(cavity.shift))  # the first sweeps may be rough
        self.points = min(self.points, most)
        moments = self._on_all_mass(cavity)
        while moments.error > tolerance and self.points < most:
            self.points = 2 * self.points - 1
            moments = self._integrate(cavity)[0]
        if moments.coarse_error < 0.1 * tolerance and self.points > self.fewest_points:
            self.points = (self.points + 1) // 2
        return moments

    def _most(self, sites: int) -> int:
        """The largest number of nodes along an axis."""
        most = 65
        while sites * (2 * most) ** 2 < _MOST_NODES:
            most = 2 * most - 1
        return most

    def nodes(self, cavity: PlaneFactor) -> tuple[Tensor, Tensor]:
        """Return the nodes u (k, n, 2) and the tilted probabilities there (k, n)."""
        u = self._nodes()
        return u, torch.softmax(self._log_integrand(u, cavity), 0)

    def _start(self, cavity: PlaneFactor) -> None:
        self._centre, self._root = cavity.mean, torch.linalg.cholesky(cavity.covariance)
        self._low = torch.full_like(self._centre, -10.0)
        self._high = torch.full_like(self._centre, 10.0)

    def _on_all_mass(self, cavity: PlaneFactor) -> PlaneMoments:
        """Move the grid to the mass, and turn and stretch it, until it holds all of it at a sensible spacing."""
        if self._centre is None:
            self._start(cavity)
        for _ in range(60):
            moments, logs = self._integrate(cavity)
            if self._follows(moments, logs):
                return moments
        raise ConvergenceError(
            "Expectation propagation: the tilted distribution of a site with two projections has no region that holds "
            "its mass. The likelihood may grow without bound; give its scale a tighter prior, or use method='nuts'."
        )

    def _follows(self, moments: PlaneMoments, logs: Tensor) -> bool:
        """Whether the grid fits the mass; where it does not, put it where it will."""
        grid = logs.reshape(self.points, self.points, -1)
        top = logs.amax(0)
        if not bool(torch.isfinite(top).all()):
            raise ConvergenceError(
                "The likelihood of an observation is zero, or NaN, at every value of its two projections that the "
                "prior allows. Check the observation, and write the likelihood in a safe form."
            )
        inside = grid > top - _DROP
        edges = [(inside.any(1 - axis)[at]) for axis in (0, 1) for at in (0, -1)]
        seen = torch.softmax(logs, 0).square().sum(0) ** -0.5  # about the nodes that the mass covers, along an axis
        lost, open_ = seen < 1.5, edges[0] | edges[1] | edges[2] | edges[3]
        wide = (inside.any(1).sum(0) * 4 < self.points) | (inside.any(0).sum(0) * 4 < self.points)
        if not bool((lost | open_ | wide).any()):
            self._stretch(inside, edges, torch.ones_like(lost))  # tighter for the next call
            return True
        self._zoom(logs, lost)
        settled = ~lost & (open_ | wide)
        turned = self._turn(moments, settled & (seen > 3) & self._is_askew(moments))
        self._stretch(inside, edges, settled & ~turned)
        return False

    def _zoom(self, logs: Tensor, lost: Tensor) -> None:
        """Where one node holds all the mass: look between its neighbours."""
        assert self._centre is not None
        best = self._nodes().gather(0, logs.argmax(0)[None, :, None].expand(1, -1, 2))[0]
        spacing = (self._high - self._low) / (self.points - 1)
        shrink = torch.where(lost[:, None], 3 * spacing / 10, torch.ones_like(spacing))
        self._centre = torch.where(lost[:, None], best, self._centre)
        self._root = self._root * shrink[:, None, :]
        self._low = torch.where(lost[:, None], -10.0, self._low)
        self._high = torch.where(lost[:, None], 10.0, self._high)

    def _is_askew(self, moments: PlaneMoments) -> Tensor:
        """Whether the mass is off the centre of the coordinates, or far from round in them."""
        assert self._centre is not None
        off = torch.linalg.solve_triangular(self._root, (moments.mean - self._centre)[..., None], upper=False)
        half = torch.linalg.solve_triangular(self._root, moments.covariance, upper=False)
        shape = torch.linalg.solve_triangular(self._root, half.mT, upper=False)
        eye = torch.eye(2, dtype=shape.dtype, device=shape.device)
        return (off.abs().amax((1, 2)) > 0.5) | ((shape - eye).abs().amax((1, 2)) > 0.5)

    def _turn(self, moments: PlaneMoments, rows: Tensor) -> Tensor:
        """Take mean and root of the covariance of the mass seen as the new coordinates; return where that went."""
        assert self._centre is not None
        root, info = torch.linalg.cholesky_ex(moments.covariance)
        good = rows & (info == 0) & (root.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
        self._centre = torch.where(good[:, None], moments.mean, self._centre)
        self._root = torch.where(good[:, None, None], root, self._root)
        self._low = torch.where(good[:, None], -9.0, self._low)
        self._high = torch.where(good[:, None], 9.0, self._high)
        return good

    def _stretch(self, inside: Tensor, edges: list[Tensor], rows: Tensor) -> None:
        """Double the distance of an edge that has mass; draw in one that has none near."""
        for axis in (0, 1):
            along = inside.any(1 - axis)
            count = along.sum(0)
            first = along.int().argmax(0)
            last = self.points - 1 - along.flip(0).int().argmax(0)
            width = self._high[:, axis] - self._low[:, axis]
            step = width / (self.points - 1)
            low = torch.where(
                edges[2 * axis], self._low[:, axis] - 0.5 * width, self._low[:, axis] + (first - 2) * step
            )
            high = torch.where(
                edges[2 * axis + 1], self._high[:, axis] + 0.5 * width, self._low[:, axis] + (last + 2) * step
            )
            move = rows & (count > 0)
            self._low[:, axis] = torch.where(move, low, self._low[:, axis])
            self._high[:, axis] = torch.where(move, high, self._high[:, axis])

    def _square(self) -> Tensor:
        """The nodes on the square [−1, 1]², (points², 2)."""
        axis = torch.linspace(-1, 1, self.points, dtype=self._low.dtype, device=self._low.device)
        return torch.cartesian_prod(axis, axis)

    def _frame(self) -> tuple[Tensor, Tensor]:
        """The affine map from the square to each site's plane: its centre (n, 2) and its matrix (n, 2, 2)."""
        middle, half_width = (self._low + self._high) / 2, (self._high - self._low) / 2
        assert self._centre is not None
        return self._centre + (self._root @ middle[..., None])[..., 0], self._root * half_width[:, None, :]

    def _nodes(self) -> Tensor:
        """The grid in the sites' coordinates, (points², n, 2)."""
        centre, matrix = self._frame()
        return centre + torch.einsum("kj,nij->kni", self._square(), matrix)

    def _log_integrand(self, u: Tensor, cavity: PlaneFactor) -> Tensor:
        rows = max(1, _BUDGET // u.shape[1])
        log_likelihood = torch.cat([self.log_likelihood(part) for part in u.split(rows)])
        return torch.nan_to_num(log_likelihood, nan=-math.inf, posinf=math.inf, neginf=-math.inf) + cavity.log_prob(u)

    def _integrate(self, cavity: PlaneFactor) -> tuple[PlaneMoments, Tensor]:
        logs = self._log_integrand(self._nodes(), cavity)
        top = logs.amax(0)
        sums = _rules(self.points, self._square()) @ (logs - top).exp()
        centre, matrix = self._frame()
        log_cell = (torch.linalg.det(matrix).abs() * 4 / (self.points - 1) ** 2).log()
        rules = [_moments(sums[6 * i : 6 * i + 6], 4.0**i) for i in range(3)]
        log_sum, mean, covariance = rules[0]
        return PlaneMoments(
            top + log_cell + log_sum,
            centre + (matrix @ mean[..., None])[..., 0],
            matrix @ covariance @ matrix.mT,
            *_errors(rules),
        ), logs


def _rules(points: int, square: Tensor) -> Tensor:
    """The sums that the rules of full, half and quarter size need, (18, points²): of 1, s, t, s², st and t²."""
    s, t = square.unbind(1)
    powers = torch.stack([torch.ones_like(s), s, t, s * s, s * t, t * t])
    at = torch.arange(points, device=square.device)
    return torch.cat([powers * torch.cartesian_prod(at % k == 0, at % k == 0).all(-1) for k in (1, 2, 4)])


def _moments(sums: Tensor, spacing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log sum, mean and covariance on the square."""
    one, s, t, ss, st, tt = sums / sums[0]
    covariance = torch.stack([ss - s * s, st - s * t, st - s * t, tt - t * t], -1).reshape(-1, 2, 2)
    return (spacing * sums[0]).log(), torch.stack([s, t], -1), covariance


def _errors(rules: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, float]:
    variances = rules[0][2].diagonal(dim1=-2, dim2=-1)
    return errors_by_halving(_gaps(rules[0], rules[1], variances), _gaps(rules[1], rules[2], variances))


def _gaps(fine: tuple[Tensor, ...], coarse: tuple[Tensor, ...], variances: Tensor) -> Tensor:
    spread = (fine[2] - coarse[2]).diagonal(dim1=-2, dim2=-1) / variances
    shift = (fine[1] - coarse[1]) / variances.sqrt()
    return torch.cat([(fine[0] - coarse[0])[:, None], shift, spread], 1).abs()
