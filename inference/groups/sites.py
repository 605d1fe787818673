r"""One Gaussian factor for each group, and the matching of moments on draws.

.. math:: q(z) \propto g_0(z) \prod_k g_k(z), \qquad
    \text{proj}\big(q/g_k \cdot f_k\big) = q \ \text{ for all } k \text{ at the fixed point}
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_smoothed
from probdl.errors import ConvergenceError
from probdl.inference.groups.errors import standard_errors
from probdl.inference.groups.tilted import TiltedDraws
from probdl.inference.propagation.extrapolation import AndersonMixing
from probdl.natural import GaussianFactor

STEP = 0.5
EQUAL = 0.95  # effective share of the draws above which weights count as equal
USABLE = 0.7  # above which an average of weights should not be used
NEAR = 0.2  # gap below which heavy weights are those of the tilted distribution, not of a start far off
GOOD = 0.5  # Pareto index below which the raw weights have a finite variance


@dataclass(frozen=True)
class Matched:
    """The tilted distribution of one group.

    Attributes:
        mean: (d,).
        covariance: (d, d).
        weights: of its draws, which sum to 1.
        khat: Pareto tail index of the weights.
        gap: largest difference to q: of means in sds, of log variances.
        log_mean_weight: log of the mean of the unnormalised weights.
    """

    mean: Tensor
    covariance: Tensor
    weights: Tensor
    khat: float
    gap: float
    log_mean_weight: float


@dataclass(frozen=True)
class Errors:
    """Monte Carlo errors of tilted moments, one row for each group.

    Attributes:
        mean: of means in sds, (K, d).
        variance: of log variances, (K, d).
        log_mean_weight: of log mean weights, (K,).
        bias: how much too low these are, as their draws also set the sites, (K,).
    """

    mean: Tensor
    variance: Tensor
    log_mean_weight: Tensor
    bias: Tensor

    def of_q(self) -> tuple[Tensor, Tensor]:
        """Return those of the means of q, in sds, and of its log variances: all groups' together."""
        return (self.mean**2).sum(0).sqrt(), (self.variance**2).sum(0).sqrt()


class Sites:
    """The state: the Gaussian part of the prior, and a factor exp(hᵀz − ½ zᵀPz) for each group.

    Args:
        base: the Gaussian prior; with zero precision where the prior is itself a group.
        shift: h, (K, d).
        precision: P, (K, d, d).
    """

    def __init__(self, base: GaussianFactor, shift: Tensor, precision: Tensor) -> None:
        self.base, self.shift, self.precision = base, shift, precision
        self.step, self.last_gap, self.mixing = STEP, float("inf"), AndersonMixing()
        self.heavy: set[int] = set()  # whose weights are smoothed
        self.wide: set[int] = set()  # whose proposals are widened
        self.matched: list[Matched] = []

    def total(self) -> GaussianFactor:
        """Return q, unnormalised."""
        return GaussianFactor(
            self.base.shift + self.shift.sum(0), self.base.precision + self.precision.sum(0), self.base.constant
        )

    def cavity(self, k: int) -> tuple[Tensor, Tensor]:
        """Return shift and precision of q without the site of group k."""
        total = self.total()
        return total.shift - self.shift[k], total.precision - self.precision[k]

    def match(self, draws: list[TiltedDraws]) -> float:
        """Find the moments of all tilted distributions under the present cavities; return the largest gap to q."""
        mean, covariance = self.total().moments()
        sd = covariance.diagonal().sqrt()
        found = [_moments(d, *self.cavity(k), mean, sd, k in self.heavy) for k, d in enumerate(draws)]
        self.heavy |= {k for k, m in enumerate(found) if m.khat > GOOD}
        self.wide |= {k for k, m in enumerate(found) if m.khat > USABLE and m.gap < NEAR and draws[k].normalised}
        self.matched = found
        return max(m.gap for m in self.matched)

    def move(self, gap: float) -> None:
        """Bring all sites towards those with the moments found: damped, with mixing to make up for it."""
        wanted = [self._wanted(k, m) for k, m in enumerate(self.matched)]
        shift, precision = (torch.stack(x) for x in zip(*wanted))
        if gap > 2 * self.last_gap:
            self.mixing.forget()
        self.last_gap = gap
        here, there = _flat(self.shift, self.precision), _flat(shift, precision)
        sd = self.total().moments()[1].diagonal().sqrt()
        scales = _flat(sd.expand_as(shift), torch.outer(sd, sd).expand_as(precision))
        step = STEP
        proposed = self.mixing.propose(here, there, scales, step)
        for _ in range(30):
            if self._take(proposed):
                self.step = step
                return
            self.mixing.forget()
            proposed, step = here + 0.5 * step * (there - here), 0.5 * step
        raise ConvergenceError(
            "Expectation propagation over groups: no step, however small, keeps the approximation and its cavities "
            "proper. Use fewer groups, so that each tells more, more draws, or give the latents tighter priors."
        )

    def _take(self, flat: Tensor) -> bool:
        """Take these sites if q and every cavity are then distributions."""
        k, d = self.shift.shape
        shift, precision = flat.split([k * d, k * d * d])
        if not self._is_proper(precision.reshape(k, d, d)):
            return False
        self.shift, self.precision = shift.reshape(k, d), precision.reshape(k, d, d)
        return True

    def _wanted(self, k: int, m: Matched) -> tuple[Tensor, Tensor]:
        """The site that gives q the tilted moments."""
        shift, precision = self.cavity(k)
        tilted = torch.cholesky_inverse(torch.linalg.cholesky(m.covariance))
        return tilted @ m.mean - shift, tilted - precision

    def _is_proper(self, precision: Tensor) -> bool:
        total = self.base.precision + precision.sum(0)
        _, info = torch.linalg.cholesky_ex(torch.cat([total[None], total - precision]))
        return not bool(info.any())

    def errors(self, draws: list[TiltedDraws]) -> Errors:
        """Return the Monte Carlo errors of the moments found last."""
        rows = [_errors(m, d) for m, d in zip(self.matched, draws)]
        dim = len(self.shift[0])
        whole = torch.stack(rows)
        return Errors(whole[:, :dim], whole[:, dim : 2 * dim], whole[:, -2], whole[:, -1])

    def gap_in_errors(self, errors: Errors, sweeps: int) -> float:
        """Return the root mean square of the gaps to q over their Monte Carlo errors, those of q among them."""
        mean, covariance = self.total().moments()
        variance, (of_mean, of_variance) = covariance.diagonal(), errors.of_q()
        ratios = []
        for m, mean_error, variance_error in zip(self.matched, errors.mean, errors.variance):
            shift, ratio = (m.mean - mean) / variance.sqrt(), (m.covariance.diagonal() / variance).log()
            ratios.append(shift / (mean_error**2 + of_mean**2 / sweeps).sqrt())
            ratios.append(ratio / (variance_error**2 + of_variance**2 / sweeps).sqrt())
        return float((torch.cat(ratios) ** 2).mean().sqrt())

    def evidence(self, how: str, errors: Errors) -> Estimate:
        """Return log ∫ of prior times likelihoods at the fixed point, where each site keeps its tilted normaliser.

        The sites are at a stationary point of it, so that its Monte Carlo error is that of the normalisers alone.
        """
        whole = float(self.total().log_integral())
        value = whole + sum(m.log_mean_weight + float(self.base.constant) - whole for m in self.matched)
        bias = float(errors.bias.sum())
        notes = (
            "stderr is the Monte Carlo error; that of expectation propagation itself is unknown",
            f"{bias:.2g} was added, since the draws that set the sites make the evidence too low, and half of it to "
            "the error",
        )
        stderr = (float((errors.log_mean_weight**2).sum()) + (0.5 * bias) ** 2) ** 0.5
        return Estimate(value + bias, stderr, how, target="approximation", notes=notes)


def _flat(shift: Tensor, precision: Tensor) -> Tensor:
    return torch.cat([shift.reshape(-1), precision.reshape(-1)])


def _moments(draws: TiltedDraws, shift: Tensor, precision: Tensor, mean: Tensor, sd: Tensor, heavy: bool) -> Matched:
    """The weighted moments of draws under a cavity, beside those of q.

    Only weights that were once heavy are smoothed: raw ones move smoothly with the cavity, so that there is a fixed
    point to the last digit.
    """
    z = draws.z
    log_weights = z @ shift - 0.5 * ((z @ precision) * z).sum(1) + draws.log_ratio
    smoothed, khat = _smoothed(log_weights)
    if not heavy and khat <= GOOD:
        smoothed = log_weights
    weights = torch.softmax(smoothed, 0).to(z)
    found = weights @ z
    apart = z - found
    found, covariance = _unbiased(draws, weights, found, (weights[:, None] * apart).T @ apart)
    variance = covariance.diagonal()
    gap = max(float(((found - mean) / sd).abs().max()), float((variance / sd**2).log().abs().max()))
    log_mean = float(torch.logsumexp(smoothed, 0)) - math.log(len(z))
    return Matched(found, covariance, weights, khat, gap, log_mean)


def _unbiased(draws: TiltedDraws, weights: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    r"""The moments whose inverse covariance and shift are right on average.

    The mean of an inverse covariance is too large. To second order in the errors of n weighted draws, whitened to
    x, the precision is too large by :math:`n^{-2}\sum (w_i-1)^2 |x_i|^2 x_i x_i^\top` and the shift by minus the same
    sum of :math:`x_i`; draws with exact moments err by w − 1 only, others by w. A sampler's bias is that of a Wishart
    matrix.
    """
    if not draws.normalised:
        n, dim = draws.effective, len(mean)
        return mean, covariance / max((n - dim - 2) / (n - 1), 0.1)
    root = torch.linalg.cholesky(covariance)
    x = torch.linalg.solve_triangular(root, (draws.z - mean).T, upper=False).T
    u = (weights - (1 / len(x) if draws.exact else 0.0)) ** 2 * (x**2).sum(1)
    excess, centre = (u[:, None] * x).T @ x, u @ x
    share = min(1.0, 0.3 / float(torch.linalg.matrix_norm(excess, 2).clamp(min=1e-300)))  # the expansion holds if small
    eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
    wider = root @ torch.linalg.inv(eye - share * excess)
    covariance = wider @ root.T
    return mean + share * wider @ centre, (covariance + covariance.T) / 2


def _errors(m: Matched, d: TiltedDraws) -> Tensor:
    """Errors of a group's means in sds, log variances and log mean weight, and the bias of this, (2d + 2,).

    Sites that follow the noise of the d(d + 3)/2 moments make the log mean weight too low, to second order by the
    variance of all of them, whitened.
    """
    sd = m.covariance.diagonal().sqrt()
    x = (d.z - m.weights @ d.z) / sd
    both = standard_errors(m.weights, torch.cat([x, x**2 - m.weights @ x**2], 1), d.normalised, d.exact)
    u = (m.weights - 1 / len(x)) ** 2
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(m.covariance), (d.z - m.mean).T, upper=False)
    bias = 0.5 * u @ ((white**2).sum(0) ** 2 + len(sd))
    return torch.cat([both, u.sum().sqrt()[None], bias[None]])


def _smoothed(log_weights: Tensor) -> tuple[Tensor, float]:
    """Smooth the weights; where they are nearly equal, their tail does not matter and has no index."""
    weights = torch.softmax(log_weights, 0)
    if 1 / float((weights**2).sum()) > EQUAL * len(weights):
        return log_weights, -float("inf")
    return pareto_smoothed(log_weights)
