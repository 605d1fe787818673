r"""The χ² and the Rényi divergence of two densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.distributions import Distribution

from probdl.access import LogDensity
from probdl.divergences import classifiers, f_divergences, powers
from probdl.divergences.dispatch import Held, NotApplicable, choose, densities, draws_of, hold_single, noted
from probdl.divergences.estimate import Estimate


def chi2(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the χ² divergence of p from q.

    .. math:: \chi^2(p\|q) = \int \frac{p(x)^2}{q(x)}\,dx - 1 = E_q\Bigl(\frac{p}{q} - 1\Bigr)^2

    Args:
        p: a ``torch.distributions.Distribution``, or draws.
        q: another, over as many coordinates.
        method: "closed form" (Gaussians, uniform laws), "exact sum" (discrete), "quadrature" (on the line and in the
            plane), "monte carlo", "classifier" (draws), or "auto" for the first of these that applies.
        seed: seeds the draws of Monte Carlo.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate``, not negative; infinite, with the reason in ``notes``, where q has no density on a set that p
        charges or the tails of p are too heavy. Under quadrature ``stderr`` is a bound on the error. Under Monte Carlo
        it is None where the Pareto k-hat of the averaged terms is above 0.5. From draws it is a held-out lower bound.

    Raises:
        ValueError: if a LogDensity is passed, a discrete law meets a continuous one, sizes differ, the method is
            unknown, or under Monte Carlo k-hat is above 0.7.

    Source:
        Pearson (1900); Tsybakov (2009), Introduction to Nonparametric Estimation, section 2.4.

    Example:
        >>> from torch.distributions import Normal
        >>> chi2(Normal(1.0, 1.0), Normal(0.0, 1.0))  # e − 1
        1.71828 ± 0 (closed form)
        >>> chi2(Normal(0.0, 2.0), Normal(0.0, 1.0)).value
        inf
    """
    held = hold_single(p, q, draws)
    if not all(isinstance(h, Distribution) for h in held):
        of_order_2 = _from_draws("chi2", *held, 2, method, seed)
        value = _expm1(float(of_order_2))
        stderr = None if of_order_2.stderr is None else (1 + value) * float(of_order_2.stderr)
        return replace(of_order_2, value=value, stderr=stderr)
    p, q = densities(*held, "chi2")

    def closed_form() -> Estimate:
        of_order_2 = powers.closed_renyi(p, q, 2)
        return replace(of_order_2, value=_expm1(float(of_order_2)))

    excess = {"closed form": closed_form} | _by_excess(p, q, 2, draws, seed, _twice)
    return choose(excess, method, "chi2")


def renyi(p: Any, q: Any, alpha: float, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the Rényi divergence of order α.

    .. math:: D_\alpha(p\|q) = \frac{1}{\alpha - 1} \log \int p(x)^\alpha q(x)^{1 - \alpha}\,dx

    Args:
        p: a ``torch.distributions.Distribution``, or draws.
        q: another, over as many coordinates.
        alpha: the order, positive; at 1 it is the Kullback-Leibler divergence, and a note says so.
        method: as in :func:`chi2`.
        seed: seeds the draws of Monte Carlo.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` in nats, as :func:`chi2` does.

    Raises:
        ValueError: for an order that is not positive, and as :func:`chi2`.

    Source:
        van Erven and Harremoës (2014), IEEE Transactions on Information Theory 60(7).

    Example:
        >>> from torch.distributions import Normal
        >>> renyi(Normal(0.0, 1.0), Normal(1.0, 2.0), 0.7)
        0.38123 ± 0 (closed form)
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a positive number; got {alpha!r}.")
    if alpha == 1:
        estimate = f_divergences.kl(p, q, method=method, seed=seed, draws=draws)
        return noted(estimate, "at alpha = 1 the Rényi divergence is the Kullback-Leibler divergence")
    held = hold_single(p, q, draws)
    if not all(isinstance(h, Distribution) for h in held):
        return _from_draws("renyi", *held, alpha, method, seed)
    p, q = densities(*held, "renyi")
    methods: dict[str, Callable[[], Estimate]] = {"closed form": lambda: powers.closed_renyi(p, q, alpha)}
    methods |= _by_excess(p, q, alpha, draws, seed, lambda excess: _renyi_of(excess, alpha))
    return choose(methods, method, "renyi")


def _from_draws(divergence: str, p: Held, q: Held, alpha: float, method: str, seed: int) -> Estimate:
    """The Rényi divergence of order α from draws, as a lower bound by a classifier."""
    if isinstance(p, LogDensity) or isinstance(q, LogDensity):
        raise NotApplicable(f"{divergence} needs draws or distributions; a LogDensity gives no draws.")

    def by_classifier() -> Estimate:
        x, y, notes = draws_of(p, q, ("p", "q"), seed)
        return classifiers.renyi(x, y, alpha, ("p", "q"), seed, *notes)

    return choose({"classifier": by_classifier}, method, divergence)


def _by_excess(
    p: Distribution, q: Distribution, alpha: float, draws: int, seed: int, then: Callable[[Estimate], Estimate]
) -> dict[str, Callable[[], Estimate]]:
    return {
        "exact sum": lambda: then(powers.by_sum(p, q, alpha)),
        "quadrature": lambda: then(powers.by_quadrature(p, q, alpha)),
        "monte carlo": lambda: then(powers.by_draws(p, q, alpha, draws, seed)),
    }


def _twice(excess: Estimate) -> Estimate:
    """Return χ² = 2A₂."""
    stderr = None if excess.stderr is None else 2 * excess.stderr
    return replace(excess, value=2 * excess.value, stderr=stderr)


def _renyi_of(excess: Estimate, alpha: float) -> Estimate:
    """Return log(1 + α(α − 1)A)/(α − 1), with the error of the logarithm to first order."""
    if math.isinf(float(excess)):
        return excess
    power = 1 + alpha * (alpha - 1) * float(excess)
    error = None if excess.stderr is None else abs(alpha * (alpha - 1)) * float(excess.stderr)
    if power <= 0 or (error is not None and error > 0.1 * power):
        raise NotApplicable(
            f"the integral of p^α q^(1−α) is {power:.2g} and known to {error or math.nan:.2g}, too little for its "
            "logarithm: p and q hardly overlap."
        )
    value = math.log1p(alpha * (alpha - 1) * float(excess)) / (alpha - 1)
    stderr = None if error is None else error / power / abs(alpha - 1)
    return replace(excess, value=value, stderr=stderr)


def _expm1(x: float) -> float:
    """Return e^x − 1, infinite beyond the range of floats."""
    return math.expm1(x) if x < 700 else math.inf
