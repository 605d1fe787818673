r"""Expectation propagation in function space: f ~ N(m, K) and one site on each entry of f.

Gaussian processes, and any model whose likelihood sees each entry of a jointly Gaussian vector alone. All moments
come from ``ConditionedGaussian``, so that K may be singular; the sites move in parallel, with adaptive damping, and
``AndersonMixing`` takes the slow directions that strong prior correlation makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.derivatives import at_least
from probdl.inference.propagation.conditioned import ConditionedGaussian
from probdl.inference.propagation.extrapolation import AndersonMixing
from probdl.inference.propagation.tilted import TiltedMoments
from probdl.loops.iterate import Iteration, iterate
from probdl.natural import NormalFactor
from probdl.threads import one_thread

Tilted = Callable[[NormalFactor], TiltedMoments]
_SMALL = 1000  # entries up to which one thread is as fast as several


@dataclass(frozen=True)
class FunctionSpaceFit:
    """A fixed point of expectation propagation: the sites and what follows from them.

    Attributes:
        gaussian: the approximate posterior of f; ``mean``, ``variance``, ``covariance()``, ``conditional_moments``.
        site: the Normal factors that stand for the likelihoods.
        cavity: the marginals without their own site (to the power of the fit).
        log_scales: log of the constants of the sites, (n,); at ``gaussian.informed`` entries their heights instead.
        power: of power expectation propagation.
        history: the sweeps.
    """

    gaussian: ConditionedGaussian
    site: NormalFactor
    cavity: NormalFactor
    log_scales: Tensor
    power: float = 1.0
    history: Iteration = field(default_factory=Iteration, repr=False)

    @property
    def log_evidence(self) -> Tensor:
        r"""The log integral of prior and sites, :math:`\log\int N(f; m, K)\prod_i s_i e^{h_i f_i - S_i f_i^2/2}df`."""
        return self.gaussian.log_integral_at_unit_heights() + self.log_scales.sum()

    def covariance_gradient(self) -> Tensor:
        r"""Return :math:`\partial\log Z/\partial K = \tfrac12(w w^\top - W)`, (n, n); the sites stay, to first order.

        Source: Seeger (2005), *Expectation propagation for exponential families*.
        """
        weights = self.gaussian.weights
        gradient = self.gaussian.gain().neg_()
        gradient.addr_(weights, weights)
        return gradient.mul_(0.5)

    def mean_gradient(self) -> Tensor:
        r"""Return :math:`\partial\log Z/\partial m = w = K^{-1}(\mu - m)`, (n,)."""
        return self.gaussian.weights


class FunctionSpacePropagation:
    r"""Expectation propagation for f ~ N(m, K) with one likelihood factor on each entry.

    Args:
        mean: m, (n,).
        covariance: K, (n, n), positive semidefinite.
        tilted: moments of cavity × likelihood (raised to ``power``): ``TiltedQuadrature``, or a closed form.
        power: 1 is expectation propagation; towards 0 it becomes Gaussian variational inference.

    Raises:
        ValueError: if the shapes do not fit or K is not finite.

    Source: Rasmussen & Williams (2006), section 3.6; Minka (2004), *Power EP*.

    Example:
        >>> import torch
        >>> from probdl.inference.propagation.closed_forms import probit_moments
        >>> x, sign = torch.tensor([[-1.0], [0.5], [1.0]]).double(), torch.tensor([-1.0, 1.0, 1.0]).double()
        >>> K = torch.exp(-0.5 * torch.cdist(x, x) ** 2)
        >>> fit = FunctionSpacePropagation(torch.zeros_like(sign), K, lambda cavity: probit_moments(cavity, sign)).run()
        >>> fit.gaussian.mean
        tensor([-0.4143,  0.6820,  0.7966], dtype=torch.float64)
        >>> fit.log_evidence
        tensor(-1.9459, dtype=torch.float64)
    """

    def __init__(self, mean: Tensor, covariance: Tensor, tilted: Tilted, power: float = 1.0) -> None:
        _check(mean, covariance, power)
        self.mean, self.covariance, self.tilted, self.power = mean, covariance, tilted, power

    def run(
        self,
        tolerance: float = 1e-7,
        max_sweeps: int = 500,
        start: NormalFactor | None = None,
        progress: bool | None = False,
    ) -> FunctionSpaceFit:
        """Iterate to a fixed point.

        Args:
            tolerance: largest difference at the fixed point between the moments of the tilted distributions and of
                the approximation (means in sd units, log variances).
            max_sweeps: where it gives up.
            start: sites to start from, such as those of a fit with a K nearby.
            progress: show a bar; None shows one when the error stream is a terminal.

        Raises:
            ConvergenceError: if there is no fixed point within ``max_sweeps``, or no step keeps all cavities proper.
        """
        with torch.no_grad(), one_thread(len(self.mean) <= _SMALL):
            state = _Iteration(self, start)
            tolerance = at_least(tolerance, self.mean.dtype)
            history = iterate(state.sweep, tolerance=tolerance, max_steps=max_sweeps, progress=progress)
            if not history.converged:
                raise ConvergenceError(_not_converged(max_sweeps, history.last, tolerance))
            return state.result(history)

    def conditioned(self, site: NormalFactor) -> ConditionedGaussian | None:
        """Return the prior times these sites, or None where that, or a cavity, is not a distribution."""
        gaussian = ConditionedGaussian(self.mean, self.covariance, site)
        is_valid = gaussian.proper and bool((1 - self.power + self.power * gaussian.leftover > 0).all())
        return gaussian if is_valid else None


class _Iteration:
    """The sites, the Gaussian that they make, and how far to step."""

    def __init__(self, problem: FunctionSpacePropagation, start: NormalFactor | None) -> None:
        self.problem, self.mixing = problem, AndersonMixing()
        self.step, self.last_gap, self.pending = 1.0, float("inf"), False
        self.site, self.gaussian = self._first(start)

    def _first(self, start: NormalFactor | None) -> tuple[NormalFactor, ConditionedGaussian]:
        zero = torch.zeros_like(self.problem.mean)
        none = NormalFactor(zero, zero)
        for site in (start, none):
            if site is not None and (gaussian := self.problem.conditioned(site)) is not None:
                return site, gaussian
        raise ValueError("covariance must be positive semidefinite with a positive entry on its diagonal.")

    def sweep(self) -> dict[str, float]:
        """Move to the proposal of the last sweep, match all moments, and propose the next sites."""
        self._match()
        if self.gap > 1.5 * self.last_gap:
            self.step = max(0.5 * self.step, 0.02)
            self.mixing.forget()
        else:
            self.step = min(1.0, 1.25 * self.step)
        row = {"gap": self.gap, "step": self.step}
        self.last_gap = self.gap
        return row

    def _match(self) -> None:
        """Find the sites that match moments under the present cavities, and how far the present ones are from it."""
        if self.pending:
            self._move()
        power = self.problem.power
        self.cavity = self.gaussian.cavity(power)
        self.moments = self.problem.tilted(self.cavity)
        matched = NormalFactor.from_moments(self.moments.mean, self.moments.variance) / self.cavity
        self.target = NormalFactor(matched.shift / power, matched.precision / power)
        mean_gap = (self.moments.mean - self.gaussian.mean).abs() / self.gaussian.variance.sqrt()
        log_variance_gap = (self.moments.variance / self.gaussian.variance).log().abs()
        self.gap = float(torch.maximum(mean_gap, log_variance_gap).max())
        if self.gap != self.gap:
            raise ConvergenceError(_not_finite(self.moments))
        self.pending = True

    def _move(self) -> None:
        """Take the extrapolated step or, where that leaves the proper region, damped ones towards the target."""
        for site in self._proposals():
            gaussian = self.problem.conditioned(site)
            if gaussian is not None:
                self.site, self.gaussian = site, gaussian
                return
            self.mixing.forget()
        raise ConvergenceError(
            "Expectation propagation: no step, however small, keeps the posterior and its cavities proper. Use "
            "another start or power=0.5, or a likelihood with lighter tails."
        )

    def _proposals(self) -> Iterator[NormalFactor]:
        sd = self.gaussian.variance.sqrt()
        here, there = _flat(self.site), _flat(self.target)
        yield _unflat(self.mixing.propose(here, there, torch.cat([sd, sd**2]), self.step))
        for _ in range(30):
            yield self.site.towards(self.target, self.step)
            self.step /= 2

    def result(self, history: Iteration) -> FunctionSpaceFit:
        """The fixed point, whose cavities and normalisers are those of the last sweep."""
        power, cavity = self.problem.power, self.cavity
        under_cavity = self._log_sites_under(cavity, power)
        log_scales = (self.moments.log_normaliser - under_cavity) / power
        return FunctionSpaceFit(self.gaussian, self.site, cavity, log_scales, power, history)

    def _log_sites_under(self, cavity: NormalFactor, power: float) -> Tensor:
        """log E of (site / height)^power under the cavity, by its moments: large natural parameters cancel badly."""
        mean, variance = cavity.mean, cavity.variance
        shift, precision = power * self.site.shift, power * self.site.precision
        total = 1 + precision * variance
        away = -0.5 * precision * (mean - self.site.mean) ** 2
        plain = shift * mean - 0.5 * precision * mean**2 + 0.5 * shift**2 * variance
        return torch.where(self.gaussian.informed, away, plain) / total - 0.5 * total.log()


def _flat(site: NormalFactor) -> Tensor:
    return torch.cat([site.shift, site.precision])


def _unflat(x: Tensor) -> NormalFactor:
    return NormalFactor(*x.chunk(2))


def _check(mean: Tensor, covariance: Tensor, power: float) -> None:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"covariance must be square with a row for each entry of mean; got mean {tuple(mean.shape)} and "
            f"covariance {tuple(covariance.shape)}."
        )
    if not (bool(torch.isfinite(mean).all()) and bool(torch.isfinite(covariance).all())):
        raise ValueError("mean and covariance must be finite; got NaN or infinite entries.")
    if not 0 < power <= 1:
        raise ValueError(f"power must be above 0 and at most 1; got {power}.")


def _not_converged(sweeps: int, gap: float, tolerance: float) -> str:
    return (
        f"Expectation propagation in function space did not reach a fixed point in {sweeps} sweeps: the moments still "
        f"differ by {gap:.2g} (tolerance {tolerance:.2g}). Raise max_sweeps, use power=0.5, or a prior less wide."
    )


def _not_finite(moments: TiltedMoments) -> str:
    bad = torch.nonzero(~(torch.isfinite(moments.mean) & torch.isfinite(moments.variance)))[:, 0].tolist()
    return (
        f"The tilted moments of the observations {bad[:5]} are not finite: their likelihood may be zero or NaN "
        "wherever the prior has mass."
    )
