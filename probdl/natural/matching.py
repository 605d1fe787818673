r"""Moment matching: the member of an exponential family that is closest to a distribution in KL(p‖q)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from probdl.access import hold
from probdl.natural.expectations import expected_statistics
from probdl.natural.exponential import ExponentialFamily
from probdl.natural.naming import family_named

SPREAD = 1e-12  # relative to E[z²]; below it, rounding is a part of the spread that shows


@dataclass(frozen=True, eq=False)
class MomentMatch:
    r"""The closest member q of an exponential family.

    Attributes:
        distribution: q, of torch.
        natural: its natural parameters η, (k,).
        moments: :math:`E_p[u] = E_q[u]`, the expected sufficient statistics, (k,).
        stderr: of the moments, (k,): zero where they are exact, for quadrature a bound on its error.
        method: how the moments were found: "draws", "closed form", "quadrature" or "monte carlo".
    """

    distribution: Distribution
    natural: Tensor
    moments: Tensor
    stderr: Tensor
    method: str


def match_moments(family: Any, p: Any, *, draws: int = 100_000, seed: int = 0) -> MomentMatch:
    r"""Return the member of an exponential family that is closest to p.

    .. math:: q^* = \arg\min_q \mathrm{KL}(p \,\|\, q), \quad q(z) = h(z)\, g(\eta) \exp(\eta^\top u(z))
        \quad\Longleftrightarrow\quad -\partial_\eta \log g(\eta) = E_q[u] = E_p[u].

    The divergence is convex in η, so the member is the only one. The statistics u are (z, z²) for Normal, z and the
    lower triangle of z zᵀ for MultivariateNormal, the same of log z for LogNormal, (log z, z) for Gamma, (log z, 1/z)
    for InverseGamma, (log z, log(1 − z)) for Beta, log z for Dirichlet, (log det z, lower triangle of z) for Wishart,
    (cos z, sin z) for VonMises, z for Exponential, Bernoulli, Poisson and Geometric, and all but the last indicator
    for Categorical.

    Args:
        family: a distribution of torch, such as ``torch.distributions.Gamma``, or its name.
        p: array-like draws (n,), (n, d) or (n, d, d); ``probdl.Draws``, perhaps with weights; a torch
            ``Distribution``, whose moments are taken from formulas, else on the line by quadrature, else from draws; or
            a ``probdl.LogDensity`` with dim 1, perhaps not normalised, which is integrated over the family's support
            around up to 20 modes that a scan finds; a spike that the slopes around it do not announce is missed.
        draws: how many, where a distribution's moments have neither a formula nor one dimension.
        seed: of those draws.

    Returns:
        A ``MomentMatch``.

    Raises:
        ValueError: for an unknown family; p empty, not finite, outside the support of the family or in another
            dimension; a single draw; and p without spread where every member of the family has some.
        TypeError: if p is none of the four kinds.
        ConvergenceError: if p is so close to the border of the family that its parameters are not found.

    Source: Bishop (2006), *Pattern Recognition and Machine Learning*, sections 2.4 and 10.7.

    Example:
        >>> import torch
        >>> from torch.distributions import Beta, LogNormal
        >>> match = match_moments("gamma", LogNormal(0.0, 0.5))  # of E[log z] and E[z]
        >>> match.distribution.concentration, match.method
        (tensor(4.1594, dtype=torch.float64), 'quadrature')
        >>> match_moments(Beta, [0.2, 0.5, 0.6]).distribution.mean
        tensor(0.4288, dtype=torch.float64)
    """
    chosen = family_named(family)
    if not isinstance(draws, int) or draws < 2:
        raise ValueError(f"draws must be an integer of at least 2; got {draws!r}.")
    found = expected_statistics(chosen, hold(p, "p"), draws, seed)
    _check_spread(chosen, found.mean)
    kind: Any = chosen.kind
    q = kind(**chosen.from_mean(found.mean))
    return MomentMatch(q, chosen.natural(q).detach(), found.mean, found.stderr, found.method)


def _check_spread(family: ExponentialFamily, mean: Tensor) -> None:
    if family.spread is not None and not float(family.spread(mean)) > SPREAD:
        raise ValueError(
            f"p must vary, but its expected statistics {mean.tolist()} lie on the border of what {family.name} can "
            "have: its draws are constant, follow from one another, or never take one of the values, so that no member "
            "with finite natural parameters is closest; or they lie a million standard deviations from zero: centre "
            "them first."
        )
