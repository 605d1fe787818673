r"""Moments of tilted distributions, :math:`\hat p_i(\eta) \propto N(\eta; m_i, v_i)\, e^{\ell_i(\eta)}`, by quadrature.

The grid is centred on the tilted mass and not on the cavity: under a wide prior the cavity says little about where
the mass is, and Gauss–Hermite nodes placed by it miss it. On an interval that holds all but e⁻⁴⁰ of the mass the
trapezoid rule converges exponentially; every second point gives the rule of half the size, hence its error, for free.
"""

from __future__ import annotations

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
    """Log normaliser, mean and variance of each tilted distribution, with the error of the quadrature in logs."""

    log_normaliser: Tensor
    mean: Tensor
    variance: Tensor
    error: float


class TiltedQuadrature:
    """Tilted moments of all sites at once; remembers where their mass was.

    Args:
        log_likelihood: ℓ, maps η (k, n) to (k, n).
        points: the first number of nodes per site; doubled until the error is below ``tolerance``.
        tolerance: of the rule of half the size, on log normaliser, mean in sd units and log variance. The reported
            rule is better: its error is about the square, or a third where the integrand has a kink.
        most_points: where doubling stops.
    """

    def __init__(
        self,
        log_likelihood: Callable[[Tensor], Tensor],
        points: int = 65,
        tolerance: float = 1e-7,
        most_points: int = 4097,
    ) -> None:
        self.log_likelihood, self.tolerance, self.most_points = log_likelihood, tolerance, most_points
        self.points = self.fewest_points = points
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, cavity: NormalFactor) -> TiltedMoments:
        """Return the tilted moments under these cavities (positive precisions)."""
        if self._low is None:
            self._bracket(cavity)
        moments, fits = self._integrate(cavity)
        if not fits:
            self._bracket(cavity)
            moments, _ = self._integrate(cavity)
        tolerance = at_least(self.tolerance, cavity.shift.dtype)
        while moments.error > tolerance and self.points < self.most_points:
            self.points = 2 * self.points - 1
            moments, _ = self._integrate(cavity)
        if moments.error < 1e-3 * tolerance and self.points > self.fewest_points:
            self.points = (self.points + 1) // 2
        return moments

    def _log_integrand(self, eta: Tensor, cavity: NormalFactor) -> Tensor:
        """ℓ(η) + log of the cavity density, (k, n), in pieces that fit the budget."""
        rows = max(1, _BUDGET // eta.shape[1])
        log_likelihood = torch.cat([self.log_likelihood(part) for part in eta.split(rows)])
        gap = eta - cavity.mean
        return (
            log_likelihood
            - 0.5 * gap**2 * cavity.precision
            - NormalFactor(torch.zeros_like(cavity.shift), cavity.precision).log_integral()
        )

    def _integrate(self, cavity: NormalFactor) -> tuple[TiltedMoments, bool]:
        assert self._low is not None
        assert self._high is not None
        t = torch.linspace(0, 1, self.points, dtype=self._low.dtype, device=self._low.device)[:, None]
        eta = self._low + t * (self._high - self._low)
        logs = _without_overflow(self._log_integrand(eta, cavity))
        top = logs.max(0).values
        full = _moments(eta, logs, (self._high - self._low) / (self.points - 1))
        half = _moments(eta[::2], logs[::2], 2 * (self._high - self._low) / (self.points - 1))
        ends = torch.maximum(logs[0], logs[-1])
        wide = ((logs > top - _DROP).sum(0) * 3 > self.points).all()
        fits = bool((ends < top - 0.75 * _DROP).all()) and bool(wide)
        return TiltedMoments(*full, error=_gap(full, half)), fits

    def _bracket(self, cavity: NormalFactor) -> None:
        """Find where the integrand lies within 40 nats of its maximum, whatever the width of the cavity."""
        sd = cavity.variance.sqrt()
        wide = torch.linspace(-10, 10, 201, dtype=sd.dtype, device=sd.device)[:, None]
        eta = cavity.mean + sd * wide
        logs = _without_overflow(self._log_integrand(eta, cavity))
        mode, width = eta.gather(0, logs.argmax(0)[None])[0], sd / 10
        for _ in range(5):  # zoom in: 1/10 of the spacing each time
            zoom = mode + width * torch.linspace(-1, 1, 21, dtype=sd.dtype, device=sd.device)[:, None]
            mode = zoom.gather(0, _without_overflow(self._log_integrand(zoom, cavity)).argmax(0)[None])[0]
            width = width / 10
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
    return torch.where(torch.isnan(logs), -torch.inf, logs)


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


def _moments(eta: Tensor, logs: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Trapezoid sums; the ends carry no mass, so their halved weights do not matter."""
    log_sum = logs.logsumexp(0)
    weights = (logs - log_sum).exp()
    mean = (weights * eta).sum(0)
    return log_sum + spacing.log(), mean, (weights * (eta - mean) ** 2).sum(0)


def _gap(full: tuple[Tensor, Tensor, Tensor], half: tuple[Tensor, Tensor, Tensor]) -> float:
    """The difference of two rules; where convergence is exponential, the larger one errs by about its square."""
    log_z, mean, variance = (
        (full[0] - half[0]).abs().max(),
        ((full[1] - half[1]) / full[2].sqrt()).abs().max(),
        (full[2] / half[2]).log().abs().max(),
    )
    return float(torch.stack([log_z, mean, variance]).max())
