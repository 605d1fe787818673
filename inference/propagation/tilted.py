r"""Moments of tilted distributions, :math:`\hat p_i(\eta) \propto N(\eta; m_i, v_i)\, e^{\ell_i(\eta)}`, by quadrature.

The grid is centred on the tilted mass and not on the cavity: under a wide prior the cavity says little about where
the mass is, and Gauss–Hermite nodes placed by it miss it. On an interval that holds all but e⁻⁴⁰ of the mass the
trapezoid rule converges exponentially; every second and every fourth point give the rules of half and a quarter of
the size, hence the rate of convergence and the error, for free.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.derivatives import at_least
from probdl.natural import NormalFactor

_DROP = 40.0  # nats below the maximum at which the integrand is cut off
_BUDGET = 4_000_000  # values held at a time


@dataclass(frozen=True)
class TiltedMoments:
    """Log normaliser, mean and variance of each tilted distribution.

    ``error`` is that of the quadrature, in logs; ``coarse_error`` that of the rule of half the size.
    """

    log_normaliser: Tensor
    mean: Tensor
    variance: Tensor
    error: float
    coarse_error: float = 0.0


class TiltedQuadrature:
    """Tilted moments of all sites at once; remembers where their mass was.

    Args:
        log_likelihood: ℓ, maps η (k, n) to (k, n).
        points: the first number of nodes per site, one more than a multiple of four; doubled until the error is below
            ``tolerance``.
        tolerance: of log normaliser, mean in sd units and log variance, as the rules of half and a quarter of the size
            tell it.
        most_points: where doubling stops.
    """

    def __init__(
        self,
        log_likelihood: Callable[[Tensor], Tensor],
        points: int = 33,
        tolerance: float = 1e-8,
        most_points: int = 4097,
    ) -> None:
        self.log_likelihood, self.tolerance, self.most_points = log_likelihood, tolerance, most_points
        self.points = self.fewest_points = points
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def forget(self) -> None:
        """Look for the mass anew at the next call."""
        self._low = None

    @property
    def place(self) -> tuple[Tensor | None, Tensor | None, int]:
        """Where the mass was found, for the quadrature of a problem nearby."""
        return self._low, self._high, self.points

    @place.setter
    def place(self, place: tuple[Tensor | None, Tensor | None, int]) -> None:
        self._low, self._high, self.points = place

    def __call__(self, cavity: NormalFactor, tolerance: float | None = None) -> TiltedMoments:
        """Return the tilted moments under these cavities (positive precisions); ``tolerance`` may be looser."""
        tolerance = at_least(max(self.tolerance, tolerance or 0.0), cavity.shift.dtype)
        moments = self._on_all_mass(cavity, min(0.75 * _DROP, 5 - math.log(tolerance)))
        while moments.error > tolerance and self.points < self.most_points:
            self.points = 2 * self.points - 1
            moments, _, _ = self._integrate(cavity)
        if moments.coarse_error < 0.1 * tolerance and self.points > self.fewest_points:
            self.points = (self.points + 1) // 2
        return moments

    def nodes(self, cavity: NormalFactor) -> tuple[Tensor, Tensor]:
        """Return the nodes η and the tilted probabilities there, (k, n) each; the last call found the mass."""
        eta = self._nodes()
        return eta, torch.softmax(_without_overflow(self._log_integrand(eta, cavity)), 0)

    def _on_all_mass(self, cavity: NormalFactor, drop: float) -> TiltedMoments:
        """Integrate where the integrand falls by ``drop`` nats towards both ends, moving the ends where it does not."""
        if self._low is None:
            self._bracket(cavity)
        for _ in range(6):
            moments, eta, logs = self._integrate(cavity)
            full = (logs > logs.amax(0) - _DROP).sum(0).min() / len(eta)
            fits = full > 1 / 3 and bool((torch.maximum(logs[0], logs[-1]) < logs.amax(0) - drop).all())
            if not fits or full < 0.7:
                self._move_ends(eta, logs)
            if fits:
                return moments
        self._bracket(cavity)
        return self._integrate(cavity)[0]

    def _log_integrand(self, eta: Tensor, cavity: NormalFactor) -> Tensor:
        """ℓ(η) + log of the cavity density, (k, n), in pieces that fit the budget."""
        rows = max(1, _BUDGET // eta.shape[1])
        pieces = [self.log_likelihood(part) for part in eta.split(rows)] if rows < len(eta) else None
        log_likelihood = self.log_likelihood(eta) if pieces is None else torch.cat(pieces)
        log_top = 0.5 * (cavity.precision / (2 * math.pi)).log()
        return log_likelihood + ((eta - cavity.mean).square_().mul_(-0.5 * cavity.precision) + log_top)

    def _nodes(self) -> Tensor:
        assert self._low is not None
        assert self._high is not None
        t = torch.linspace(0, 1, self.points, dtype=self._low.dtype, device=self._low.device)[:, None]
        return self._low + t * (self._high - self._low)

    def _integrate(self, cavity: NormalFactor) -> tuple[TiltedMoments, Tensor, Tensor]:
        assert self._low is not None
        assert self._high is not None
        eta = self._nodes()
        logs = _without_overflow(self._log_integrand(eta, cavity))
        top = logs.amax(0)
        sums = _rules(self.points, logs) @ (logs - top).exp()
        middle, half_width = (self._high + self._low) / 2, (self._high - self._low) / 2
        full, half, quarter = (_moments(sums[i : i + 3], 2.0 ** (i // 3)) for i in (0, 3, 6))
        step = 2 * half_width / (self.points - 1)
        log_z, mean, variance = top + step.log() + full[0], middle + half_width * full[1], half_width**2 * full[2]
        return TiltedMoments(log_z, mean, variance, *_errors(full, half, quarter)), eta, logs

    def _move_ends(self, eta: Tensor, logs: Tensor) -> None:
        """Put each end at the first node without mass; where an end has mass, twice as far away."""
        assert self._low is not None
        assert self._high is not None
        inside = logs > logs.amax(0) - _DROP
        width, last = self._high - self._low, len(eta) - 1
        first_in, last_in = inside.int().argmax(0), last - inside.flip(0).int().argmax(0)
        low = eta.gather(0, (first_in - 1).clamp(min=0)[None])[0]
        high = eta.gather(0, (last_in + 1).clamp(max=last)[None])[0]
        near = logs.amax(0) - 0.75 * _DROP
        self._low = torch.where(logs[0] > near, self._low - width, low)
        self._high = torch.where(logs[-1] > near, self._high + width, high)

    def _bracket(self, cavity: NormalFactor) -> None:
        """Find where the integrand lies within 40 nats of its maximum, whatever the width of the cavity."""
        sd = cavity.variance.sqrt()
        wide = torch.linspace(-10, 10, 65, dtype=sd.dtype, device=sd.device)[:, None]
        eta = cavity.mean + sd * wide
        logs = _without_overflow(self._log_integrand(eta, cavity))
        mode, width = eta.gather(0, logs.argmax(0)[None])[0], sd * (20 / 64)
        for _ in range(5):  # zoom in: 1/8 of the spacing each time
            zoom = mode + width * torch.linspace(-1, 1, 17, dtype=sd.dtype, device=sd.device)[:, None]
            mode = zoom.gather(0, _without_overflow(self._log_integrand(zoom, cavity)).argmax(0)[None])[0]
            width = width / 8
        steps = 10 * sd * 0.5 ** torch.arange(0, 36, dtype=sd.dtype, device=sd.device)[:, None]
        eta = torch.cat([eta, mode - steps, mode[None], mode + steps]).sort(0).values
        raw = self._log_integrand(eta, cavity)
        logs = _without_overflow(raw)
        _check_integrand(raw, logs)
        inside = logs > logs.max(0).values - _DROP
        last = len(eta) - 1
        first_in = (inside.int().argmax(0) - 1).clamp(min=0)
        last_in = (last - inside.flip(0).int().argmax(0) + 1).clamp(max=last)
        self._low, self._high = eta.gather(0, first_in[None])[0], eta.gather(0, last_in[None])[0]


def _without_overflow(logs: Tensor) -> Tensor:
    """NaN as −∞: exp(η) overflows where η is large, and y·log ∞ − ∞ is NaN. ``_check_integrand`` justifies it."""
    return torch.nan_to_num(logs, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _check_integrand(raw: Tensor, logs: Tensor) -> None:
    """Raise unless there is mass, and what borders on NaN, along the sorted grid, has none."""
    top = logs.max(0).values
    if not bool(torch.isfinite(top).all()):
        raise ConvergenceError(
            "The likelihood of an observation is zero, or NaN, at every value of its linear predictor that the prior "
            "allows. Check the observation, and write the likelihood in a safe form, such as logits= for probs=."
        )
    bad = torch.isnan(raw)
    borders = torch.zeros_like(bad)
    borders[1:] |= bad[:-1]
    borders[:-1] |= bad[1:]
    if bool((borders & ~bad & (logs > top - _DROP)).any()):
        raise ConvergenceError(
            "The log-likelihood of an observation is NaN at values of its linear predictor that have posterior mass. "
            "Write it in a numerically safe form, such as logits= in place of probs=."
        )


def _rules(points: int, like: Tensor) -> Tensor:
    """The sums that the rules of full, half and quarter size need, (9, points): of 1, t and t² on [−1, 1].

    The ends carry no mass, so that their halved weights do not matter.
    """
    t = torch.linspace(-1, 1, points, dtype=like.dtype, device=like.device)
    powers = torch.stack([torch.ones_like(t), t, t**2])
    at = torch.arange(points, device=like.device)
    return torch.cat([powers * (at % every == 0) for every in (1, 2, 4)])


def _moments(sums: Tensor, spacing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log sum, mean and variance in units of the half width."""
    mean = sums[1] / sums[0]
    return (spacing * sums[0]).log(), mean, sums[2] / sums[0] - mean**2


def _errors(full: tuple[Tensor, ...], half: tuple[Tensor, ...], quarter: tuple[Tensor, ...]) -> tuple[float, float]:
    sd = full[2].sqrt()
    return errors_by_halving(_gaps(full, half, sd), _gaps(half, quarter, sd))


def errors_by_halving(last: Tensor, before: Tensor) -> tuple[float, float]:
    """Return the errors of a rule and of the rule of half its size, from the differences that two halvings made.

    Args:
        last: between the rules of full and of half size.
        before: between those of half and a quarter; the next halving shrinks the difference as much as this one did.
    """
    ratio = (last / before).nan_to_num(0.5).clamp(max=0.5)
    return float((last * ratio / (1 - ratio)).nan_to_num(0.0).max()), float(last.nan_to_num(math.inf).max())


def _gaps(fine: tuple[Tensor, ...], coarse: tuple[Tensor, ...], sd: Tensor) -> Tensor:
    return torch.stack(
        [
            (fine[0] - coarse[0]).abs(),
            (fine[1] - coarse[1]).abs() / sd,
            (fine[2] / coarse[2].clamp(min=1e-300)).log().abs(),
        ]
    )
