r"""Moments of tilted distributions :math:`\hat p_i(u) \propto N(u; m_i, v_i)\,\ell_i(u)` that have a closed form.

- ``probit_moments``: :math:`\Phi(s_i u + c_i)`, for binary labels.
- ``laplace_moments``: Laplace noise, whose kink slows quadrature down.
- ``mixture_moments``: sums of exponentials of quadratics, such as mixtures of Normals and Normal noise.

The first two rest on ``positive_part``, the moments of a Normal given that it is positive. Textbook formulas for them
subtract numbers that agree in their leading digits far in the tail, where EP with a wide prior goes; those here do not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.propagation.tilted import TiltedMoments
from probdl.natural import NormalFactor

_TAIL = -5.0  # below it a continued fraction, above it the formula itself, lose fewer digits
_TERMS = 60  # of the continued fraction; at -5 the truncation is below 1e-16


def positive_part(z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance of t ~ N(z, 1) given t > 0, both to relative precision.

    .. math:: E[t] = z + r(z), \qquad \mathrm{Var}[t] = 1 - r(z)\,(z + r(z)), \qquad r(z) = \phi(z) / \Phi(z).

    In the lower tail with x = −z the continued fraction :math:`r = x + K_1`, :math:`K_k = k / (x + K_{k+1})` gives
    E[t] = K₁ and Var[t] = K₁(K₂ − K₁), where the direct formulas lose z² times the rounding error.

    Args:
        z: any shape.

    Source: Abramowitz & Stegun (1964), 26.2.14, for the continued fraction.

    Example:
        >>> import torch
        >>> mean, variance = positive_part(torch.tensor([0.0, -1e6], dtype=torch.float64))
        >>> mean[0], mean[1] * 1e6, variance[1] * 1e12  # half-normal, and an exponential of rate 10⁶
        (tensor(0.7979, dtype=torch.float64), tensor(1.0000, dtype=torch.float64), tensor(1.0000, dtype=torch.float64))
    """
    ratio = math.sqrt(2 / math.pi) / torch.special.erfcx(-z / math.sqrt(2))
    mean = z + ratio
    variance = 1 - ratio * mean
    tail = z < _TAIL
    if bool(tail.any()):
        mean[tail], variance[tail] = _tail(-z[tail])
    return mean, variance


def _tail(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same by the continued fraction, for large x = −z."""
    fraction = torch.zeros_like(x)
    for k in range(_TERMS, 3, -1):
        fraction = k / (x + fraction)
    k3 = 3 / (x + fraction)
    k2 = 2 / (x + k3)
    k1 = 1 / (x + k2)
    k2_less_k1 = (x + 2 * k2 - k3) / ((x + k3) * (x + k2))
    return k1, k1 * k2_less_k1


def probit_moments(cavity: NormalFactor, slope: Tensor, intercept: Tensor | float = 0.0) -> TiltedMoments:
    r"""Return the moments of :math:`N(u; m, v)\,\Phi(s u + c)`.

    .. math::
        \log Z = \log\Phi(z), \quad z = \frac{s m + c}{\sqrt{1 + s^2 v}}, \quad
        E[u] = \frac{m - v s c}{1 + s^2 v} + \frac{v s}{\sqrt{1 + s^2 v}}\, E[t], \quad
        \mathrm{Var}[u] = \frac{v}{1 + s^2 v} + \frac{v^2 s^2}{1 + s^2 v}\, \mathrm{Var}[t],

    with t ~ N(z, 1) given t > 0: the label says that s u + c + noise is positive.

    Args:
        cavity: N(m, v), positive precisions, (n,).
        slope: s, (n,); for labels −1 and 1 the label itself.
        intercept: c, (n,) or a number.

    Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 3.9.

    Example:
        >>> import torch
        >>> cavity = NormalFactor(torch.zeros(1), torch.ones(1))
        >>> moments = probit_moments(cavity, torch.ones(1))
        >>> moments.log_normaliser.exp(), moments.mean  # one half, and 1/√π
        (tensor([0.5000]), tensor([0.5642]))
    """
    mean, variance = cavity.mean, cavity.variance
    total = 1 + slope**2 * variance
    z = (slope * mean + intercept) / total.sqrt()
    positive_mean, positive_variance = positive_part(z)
    tilted_mean = (mean - variance * slope * intercept) / total + variance * slope / total.sqrt() * positive_mean
    tilted_variance = (variance + (variance * slope) ** 2 * positive_variance) / total
    return TiltedMoments(torch.special.log_ndtr(z), tilted_mean, tilted_variance, error=0.0)


def laplace_moments(cavity: NormalFactor, y: Tensor, scale: Tensor | float) -> TiltedMoments:
    r"""Return the moments of :math:`N(u; m, v)\,\frac{1}{2b}e^{-|y - u|/b}`, two truncated Normals side by side.

    Above y the product is a Normal with mean m − v/b, below it one with mean m + v/b, both with variance v. With
    :math:`z_\pm = \pm(m - y)/\sqrt v - \sqrt v/b` their log masses are
    :math:`\mp(m - y)/b + v/2b^2 + \log\Phi(z_\pm)`.

    Args:
        cavity: N(m, v), positive precisions, (n,).
        y: where the kink is, (n,).
        scale: b > 0, (n,) or a number.

    Example:
        >>> import torch
        >>> cavity = NormalFactor(torch.zeros(1), torch.full((1,), 1e-12))  # flat, so the Laplace distribution itself
        >>> laplace_moments(cavity, torch.ones(1), 2.0).variance  # 2b²
        tensor([8.0000])
    """
    scale = torch.as_tensor(scale, dtype=y.dtype, device=y.device)
    gap, sd = cavity.mean - y, cavity.variance.sqrt()
    above, below = gap / sd - sd / scale, -gap / sd - sd / scale
    log_masses = torch.stack([_log_half_mass(above, gap / sd), _log_half_mass(below, gap / sd)])
    log_normaliser = log_masses.logsumexp(0) - (2 * scale).log()
    weights = (log_masses - log_masses.logsumexp(0)).exp()
    (mean_above, variance_above), (mean_below, variance_below) = positive_part(above), positive_part(below)
    offset = weights[0] * mean_above - weights[1] * mean_below
    between = weights[0] * weights[1] * (mean_above + mean_below) ** 2
    variance = weights[0] * variance_above + weights[1] * variance_below + between
    return TiltedMoments(log_normaliser, y + sd * offset, sd**2 * variance, error=0.0)


def _log_half_mass(z: Tensor, gap: Tensor) -> Tensor:
    """½z² − ½gap² + log Φ(z); in the lower tail log Φ(z) takes ½z² away again, so erfcx, Φ without it, serves there."""
    lower = (torch.special.erfcx(-z.clamp(max=0) / math.sqrt(2)) / 2).log()
    upper = 0.5 * z**2 + torch.special.log_ndtr(z.clamp(min=0))
    return torch.where(z < 0, lower, upper) - 0.5 * gap**2


def mixture_moments(cavity: NormalFactor, constant: Tensor, linear: Tensor, quadratic: Tensor) -> TiltedMoments:
    r"""Return the moments of :math:`N(u; m, v) \sum_k e^{\alpha_k + \beta_k u - \frac12 \gamma_k u^2}`.

    Component k is a Normal with variance v/(1 + γₖv), mean (m + βₖv)/(1 + γₖv) and log mass
    :math:`\alpha_k - \tfrac12\log(1 + \gamma_k v) + (\beta_k m + \tfrac12\beta_k^2 v - \tfrac12\gamma_k m^2)
    / (1 + \gamma_k v)`.

    Args:
        cavity: N(m, v), positive precisions, (n,).
        constant: α, (n, K) or what broadcasts to it; −∞ for a component that an observation lacks.
        linear: β, likewise.
        quadratic: γ, likewise; may be negative as long as 1 + γv is positive.

    Raises:
        ConvergenceError: if 1 + γv is not positive, so that the product has no integral.

    Example:
        >>> import torch
        >>> cavity = NormalFactor(torch.zeros(1), torch.ones(1))
        >>> zero = torch.zeros(1, 2)
        >>> moments = mixture_moments(cavity, zero, torch.tensor([[-1.0, 1.0]]), zero)  # 2 cosh u
        >>> moments.mean, moments.variance
        (tensor([0.]), tensor([2.]))
    """
    mean, variance = cavity.mean[:, None], cavity.variance[:, None]
    total = 1 + quadratic * variance
    if bool((total <= 0).any()):
        raise ConvergenceError(
            "A likelihood grows faster than its cavity decays, so that their product has no integral: a quadratic "
            "coefficient must be larger than minus the precision of the cavity."
        )
    exponent = linear * mean + 0.5 * linear**2 * variance - 0.5 * quadratic * mean**2
    log_masses = constant - 0.5 * total.log() + exponent / total
    weights = log_masses.softmax(1)
    means, variances = (mean + linear * variance) / total, variance / total
    tilted_mean = (weights * means).sum(1)
    tilted_variance = (weights * (variances + (means - tilted_mean[:, None]) ** 2)).sum(1)
    return TiltedMoments(log_masses.logsumexp(1), tilted_mean, tilted_variance, error=0.0)
