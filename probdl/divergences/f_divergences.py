r"""Divergences of two densities, :math:`\int f(p, q)`: Kullback-Leibler, Jensen-Shannon, total variation, Hellinger.

Where densities are held they are used; from draws, neighbours or a classifier stand in for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import Distribution, kl_divergence

from probdl.access import Draws, LogDensity
from probdl.divergences import classifiers, closed, density, neighbours, quadrature, unnormalised
from probdl.divergences.dispatch import (
    Held,
    NotApplicable,
    choose,
    densities,
    draws_of,
    hold_pair,
    hold_single,
    is_batch,
)
from probdl.divergences.distributions import is_discrete
from probdl.divergences.estimate import Estimate
from probdl.divergences.gaussian import along_one_direction


def kl(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the Kullback-Leibler divergence of p from q.

    .. math:: KL(p\|q) = \int p(x) \log\frac{p(x)}{q(x)}\,dx

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another, over as many coordinates; or a ``probdl.LogDensity``.
        method: for two distributions "closed form", "exact sum" (discrete), "quadrature" (on the line) or "monte
            carlo"; with draws "nearest neighbours" (first up to 3 columns) or "classifier" (first above, and for
            weighted draws); "auto" takes the first that applies.
        seed: seeds whatever is drawn and fitted; torch's own generators are left as they were.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` in nats; infinite, with the reason in ``notes``, where q has no density on a set that p
        charges. Under quadrature ``stderr`` is a bound on the error. Monte Carlo draws half from p and half from q, so
        that ratios to their mixture are bounded; its ``stderr`` is None where log p/q has a heavy tail. A batch of
        distributions with a closed form gives one value for each.

        From draws, the interval of nearest neighbours leaves out their bias (target "expected estimate"), which
        ``notes`` show by half of the draws; a density that is known is used as it is. The classifier gives a held-out
        lower bound, or, where p/q has no variance under q, the mean log-ratio without an error. Either may be
        negative. Against a ``LogDensity`` that is not normalised the value is KL − log Z, target "approximation".

    Raises:
        ValueError: for bad or tied draws, a discrete law against a continuous one, sizes that differ, unknown methods.

    Source:
        Kullback and Leibler (1951), Annals of Mathematical Statistics 22(1); Wang, Kulkarni and Verdú (2009), IEEE
        Transactions on Information Theory 55(5); Nguyen, Wainwright and Jordan (2010), the same, 56(11).

    Example:
        >>> from torch.distributions import Normal
        >>> kl(Normal(0.0, 1.0), Normal(1.0, 2.0))
        0.443147 ± 0 (closed form)
    """
    if is_batch(p, q):
        return _batch(p, q, method)
    return _between("kl", p, q, method, seed, draws)


def js(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the Jensen-Shannon divergence.

    .. math:: JS(p, q) = \tfrac12 KL(p\|m) + \tfrac12 KL(q\|m), \quad m = \tfrac12(p + q)

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another, over as many coordinates.
        method: as in :func:`kl`; with draws "classifier".
        seed: seeds whatever is drawn and fitted.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` in nats, between 0 and log 2. From draws: log 2 less the held-out log-loss of a classifier, as
        at the optimum of a GAN's discriminator: target "lower bound", and it may be negative.

    Raises:
        ValueError: as :func:`kl`.

    Source:
        Lin (1991), IEEE Transactions on Information Theory 37(1).

    Example:
        >>> from torch.distributions import Uniform
        >>> js(Uniform(0.0, 1.0), Uniform(2.0, 3.0))
        0.693147 ± 0 (closed form)
    """
    return _between("js", p, q, method, seed, draws)


def tv(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the total variation distance.

    .. math:: TV(P, Q) = \sup_A |P(A) - Q(A)| = \tfrac12 \int |p(x) - q(x)|\,dx

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another, over as many coordinates.
        method: as in :func:`kl`; with draws "classifier".
        seed: seeds whatever is drawn and fitted.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` between 0 and 1. From draws: 2·accuracy − 1 of a classifier on held-out draws, the sides
        weighing the same, with a binomial error: target "lower bound", and it may be negative.

    Raises:
        ValueError: as :func:`kl`.

    Source:
        Levin, Peres and Wilmer (2009), Markov Chains and Mixing Times, chapter 4.

    Example:
        >>> from torch.distributions import Normal
        >>> tv(Normal(0.0, 1.0), Normal(1.0, 1.0))
        0.382925 ± 0 (closed form)
    """
    return _between("tv", p, q, method, seed, draws)


def hellinger2(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the squared Hellinger distance.

    .. math:: H^2(p, q) = 1 - \int \sqrt{p(x)\,q(x)}\,dx

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another, over as many coordinates.
        method: as in :func:`kl`; with draws "classifier".
        seed: seeds whatever is drawn and fitted.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` between 0 and 1. From draws: a lower bound at a classifier's held-out logits f,
        :math:`1 - \tfrac12 E_p e^{-f/2} - \tfrac12 E_q e^{f/2}`, which may be negative.

    Raises:
        ValueError: as :func:`kl`.

    Source:
        van der Vaart (1998), Asymptotic Statistics, section 14.5 (whose H² is twice this).

    Example:
        >>> from torch.distributions import Normal
        >>> hellinger2(Normal(0.0, 1.0), Normal(1.0, 2.0))
        0.149195 ± 0 (closed form)
    """
    return _between("hellinger2", p, q, method, seed, draws)


def _between(divergence: str, p: Any, q: Any, method: str, seed: int, draws: int) -> Estimate:
    held = hold_single(p, q, draws)
    if not all(isinstance(h, Distribution) for h in held):
        return _from_draws(divergence, *held, method, seed, draws)
    p, q = densities(*held, divergence)

    def by_quadrature() -> Estimate:
        return quadrature.f_divergence(density.INTEGRANDS[divergence], *along_one_direction(p, q))

    methods = {
        "closed form": lambda: closed.f_divergence(divergence, p, q),
        "exact sum": lambda: density.exact_sum(divergence, p, q),
        "quadrature": by_quadrature,
        "monte carlo": lambda: density.over_mixture(divergence, p, q, draws, seed),
    }
    return choose(methods, method, divergence)


def _from_draws(divergence: str, p: Held, q: Held, method: str, seed: int, draws: int) -> Estimate:
    """Draws of one side at least, or a log-density; "auto" takes the first method and lets its errors stand."""
    _check_log_densities(divergence, p, q)
    assert not isinstance(p, LogDensity)
    methods: dict[str, Callable[[], Estimate]] = {}
    if divergence == "kl":
        methods["nearest neighbours"] = lambda: neighbours.kl(p, q, seed)
    if not isinstance(q, LogDensity):
        methods["classifier"] = lambda: _by_classifier(divergence, p, q, seed)
    if isinstance(p, Distribution) and isinstance(q, LogDensity):
        methods = {"monte carlo": lambda: unnormalised.kl(p, q, draws, seed)}
    first = next(iter(methods)) if _suits_neighbours(p, q) else list(methods)[-1]
    return choose(methods, first if method == "auto" else method, divergence)


def _suits_neighbours(p: Held, q: Held) -> bool:
    """Whether there are few columns, no weights and no discrete law."""
    discrete = any(isinstance(h, Distribution) and is_discrete(h) for h in (p, q))
    weighted = any(isinstance(h, Draws) and h.weights is not None for h in (p, q))
    few = all(h.dim <= neighbours.FEW for h in (p, q) if not isinstance(h, Distribution))
    return few and not discrete and not weighted


def _check_log_densities(divergence: str, p: Held, q: Held) -> None:
    if isinstance(p, LogDensity) or (isinstance(q, LogDensity) and divergence != "kl"):
        name = "p" if isinstance(p, LogDensity) else "q"
        raise NotApplicable(
            f"{name} is a LogDensity, which gives no draws, and {divergence} needs draws of it or a distribution. "
            "kl(p, q) takes a LogDensity for q; ksd2(draws, log_density) compares draws with one."
        )


def _by_classifier(divergence: str, p: Held, q: Held, seed: int) -> Estimate:
    x, y, notes = draws_of(p, q, ("p", "q"), seed)
    return classifiers.estimate(divergence, x, y, ("p", "q"), seed, *notes)


def _batch(p: Any, q: Any, method: str) -> Estimate:
    """Return one closed form for each distribution of a batch."""
    p, q = hold_pair(p, q)

    def by_registry() -> Estimate:
        try:
            value = kl_divergence(p, q)
        except NotImplementedError:
            shapes = f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
            raise ValueError(
                f"KL of a batch needs a closed form, and torch has none for {type(p).__name__} and {type(q).__name__} "
                f"(batches {shapes}). Pass one distribution at a time, or torch.distributions.Independent(p, 1)."
            ) from None
        return Estimate(value, torch.zeros_like(value), "closed form", notes=(f"a batch {tuple(value.shape)}",))

    return choose({"closed form": by_registry}, method, "kl")
