r"""Divergences of two densities, :math:`\int f(p, q)`: Kullback-Leibler, Jensen-Shannon, total variation, Hellinger."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import kl_divergence

from probdl.divergences import closed, density, quadrature
from probdl.divergences.dispatch import choose, densities, hold_pair, is_batch, positive_integer
from probdl.divergences.estimate import Estimate
from probdl.divergences.gaussian import along_one_direction


def kl(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the Kullback-Leibler divergence of p from q.

    .. math:: KL(p\|q) = \int p(x) \log\frac{p(x)}{q(x)}\,dx

    Args:
        p: a ``torch.distributions.Distribution``.
        q: another, over as many coordinates.
        method: "closed form", "exact sum" (discrete), "quadrature" (on the line), "monte carlo", or "auto" for the
            first of these that applies.
        seed: seeds the draws of Monte Carlo; torch's own generators are left as they were.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` in nats, not negative; infinite, with the reason in ``notes``, where q has no density on a
        set that p charges. Under quadrature ``stderr`` is a bound on the error. Monte Carlo draws half from p and half
        from q, so that ratios to their mixture are bounded; its ``stderr`` is None where log p/q has a heavy tail.
        A batch of distributions with a closed form gives one value for each.

    Raises:
        ValueError: if draws are passed, a discrete law meets a continuous one, sizes differ, or the method is unknown.

    Source:
        Kullback and Leibler (1951), Annals of Mathematical Statistics 22(1).

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
        p: a ``torch.distributions.Distribution``.
        q: another, over as many coordinates.
        method: as in :func:`kl`.
        seed: seeds the draws of Monte Carlo.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` in nats, between 0 and log 2.

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
        p: a ``torch.distributions.Distribution``.
        q: another, over as many coordinates.
        method: as in :func:`kl`.
        seed: seeds the draws of Monte Carlo.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` between 0 and 1.

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
        p: a ``torch.distributions.Distribution``.
        q: another, over as many coordinates.
        method: as in :func:`kl`.
        seed: seeds the draws of Monte Carlo.
        draws: the number of draws of Monte Carlo, half from each side.

    Returns:
        An ``Estimate`` between 0 and 1.

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
    p, q = densities(p, q, divergence)
    positive_integer(draws, "draws", least=100)

    def by_quadrature() -> Estimate:
        return quadrature.f_divergence(density.INTEGRANDS[divergence], *along_one_direction(p, q))

    methods = {
        "closed form": lambda: closed.f_divergence(divergence, p, q),
        "exact sum": lambda: density.exact_sum(divergence, p, q),
        "quadrature": by_quadrature,
        "monte carlo": lambda: density.over_mixture(divergence, p, q, draws, seed),
    }
    return choose(methods, method, divergence)


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
