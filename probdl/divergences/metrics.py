r"""Distances that see how far apart points are: Wasserstein, maximum mean discrepancy, energy.

They need no density, so they take draws as well as distributions, and a discrete law against a continuous one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import Distribution

from probdl.access import Draws
from probdl.divergences import blocks, closed, debiased, kernels, laws, line, transport
from probdl.divergences.dispatch import choose, draws_of, hold_single, noted
from probdl.divergences.distributions import dimension
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import RBF, Kernel, negative_distance
from probdl.divergences.support import require_moments

NAMES = ("p", "q")


def wasserstein(
    p: Any, q: Any, order: float = 1, *, method: str = "auto", seed: int = 0, draws: int = 100_000
) -> Estimate:
    r"""Return the Wasserstein distance under the Euclidean cost.

    .. math:: W_p(P, Q) = \Bigl(\inf_{\pi \in \Pi(P, Q)} E_\pi |X - Y|^p\Bigr)^{1/p}

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another.
        order: p ≥ 1.
        method: for two distributions "closed form", "exact sum" (discrete), "quadrature" (on the line) or
            "monte carlo"; with draws "sorting" (on the line), "exact transport" or "sinkhorn" (debiased, ε at 0.05 of
            the mean cost, below order 2 at 0.01); "auto" takes the first that applies; above 5000 draws "sinkhorn", or
            below order 2 "exact transport" of 5000 of them.
        seed: seeds whatever is drawn.
        draws: draws of each distribution under Monte Carlo; at most 2000 are used in more than one dimension.

    Returns:
        An ``Estimate`` in the unit of the data: W_p itself, not its p-th power. From draws its target is "expected
        estimate": the interval covers the mean of the plug-in, which exceeds the distance, and above two dimensions
        ``notes`` tell by how much. By "sinkhorn" it is the p-th root of a debiased Sinkhorn divergence, with ε in the
        notes and "approximation" as its target. No interval where W_p^p is within 3 standard errors of 0.

    Raises:
        ValueError: for an order below 1, a moment that is infinite, bad draws, sizes that differ, unknown methods.
        ConvergenceError: if the solver stops before the optimum.

    Source:
        Peyré and Cuturi (2019), Computational Optimal Transport; the standard error is that of del Barrio and
        Loubes (2019), Annals of Probability 47(2).

    Example:
        >>> from torch.distributions import Normal
        >>> wasserstein(Normal(0.0, 1.0), Normal(3.0, 1.0))
        3 ± 0 (closed form)
        >>> wasserstein([0.0, 1.0, 2.0, 4.0], [3.0, 5.0]).value
        2.25
    """
    transport.check_order(order)
    p, q = hold_single(p, q, draws)
    require_moments(p, q, order, "wasserstein")
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        methods: dict[str, Callable[[], Estimate]] = {
            "closed form": lambda: closed.wasserstein(p, q, order),
            "exact sum": lambda: laws.wasserstein_of_atoms(p, q, order),
            "quadrature": lambda: line.wasserstein(p, q, order),
            "monte carlo": lambda: laws.wasserstein_by_draws(p, q, order, draws, seed),
        }
        return choose(methods, method, "wasserstein")
    x, y, notes = draws_of(p, q, NAMES, seed)
    return choose(_transports(x, y, order, seed, method, notes), method, "wasserstein")


def _transports(
    x: Draws, y: Draws, order: float, seed: int, method: str, notes: tuple[str, ...]
) -> dict[str, Callable[[], Estimate]]:
    if x.dim == 1:
        return {"sorting": lambda: transport.wasserstein(x, y, order, "sorting", seed, *notes)}
    few = max(x.n, y.n) <= transport.MOST
    thin = method == "auto" and order < 2  # the kink of the cost makes a blurred plan of all draws worse than that

    def by_plan() -> Estimate:
        (a, some), (b, more) = (
            (transport.subsample(d, transport.MOST, 2 * seed + i, name, "exact transport") if thin else (d, ()))
            for i, (d, name) in enumerate(zip((x, y), NAMES))
        )
        return transport.wasserstein(a, b, order, "exact transport", seed, *notes, *some, *more)

    exact: dict[str, Callable[[], Estimate]] = {"exact transport": by_plan}
    entropic = {"sinkhorn": lambda: debiased.wasserstein(x, y, order, seed, method == "auto", *notes)}
    return exact | entropic if few or order < 2 else entropic | exact


def mmd2(
    p: Any, q: Any, kernel: Kernel | None = None, *, method: str = "auto", seed: int = 0, draws: int = 100_000
) -> Estimate:
    r"""Return the squared maximum mean discrepancy.

    .. math:: MMD^2 = E\,k(X, X') + E\,k(Y, Y') - 2E\,k(X, Y) = \sup_{\|f\|_H \le 1} (E f(X) - E f(Y))^2

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another.
        kernel: a function of points (n, d) and (m, d) that gives the Gram matrix (n, m), such as ``RBF(bandwidth)``,
            ``RBF((1.0, 2.0))``, the mean of several, or ``InverseMultiquadratic(bandwidth)``; None takes an RBF whose
            bandwidth is the median distance of the pooled draws.
        method: for two distributions "closed form" (Gaussians and RBF), "exact sum" (discrete), "quadrature" (on the
            line) or "monte carlo" (the mean over blocks of draws); with draws "u-statistic" (all pairs), "block" (the
            mean over random blocks of √n draws, at most 500) or "linear time" (blocks of 2); "auto" takes the first
            that applies, and "block" for more than about 150,000 draws of each.
        seed: seeds whatever is drawn.
        draws: draws of each distribution under Monte Carlo.

    Returns:
        An ``Estimate``. From draws it is unbiased, so it may be negative, and weights count as importance weights, not
        as repeated rows; no interval where the value is below 3 standard errors.

    Raises:
        ValueError: for fewer than 2 draws, bad draws, sizes that differ, a bandwidth that is not positive.

    Source:
        Gretton et al. (2012), JMLR 13; the standard error is that of Sutherland et al. (2017), ICLR.

    Example:
        >>> from torch.distributions import Normal
        >>> mmd2(Normal(0.0, 1.0), Normal(1.0, 1.0), RBF(1.0))
        0.177268 ± 0 (closed form)
    """
    p, q = hold_single(p, q, draws)
    if kernel is not None:
        _check_kernel(kernel, dimension(p) if isinstance(p, Distribution) else p.dim)
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        k, notes = _kernel(kernel, *draws_of(p, q, NAMES, seed)[:2], seed)
        methods: dict[str, Callable[[], Estimate]] = {
            "closed form": lambda: closed.mmd2(p, q, k),
            "exact sum": lambda: laws.mmd2_of_atoms(p, q, k),
            "quadrature": lambda: line.mmd2(p, q, k),
            "monte carlo": lambda: laws.mmd2_by_draws(p, q, k, draws, seed),
        }
        return noted(choose(methods, method, "mmd2"), *notes)
    x, y, drawn = draws_of(p, q, NAMES, seed)
    k, notes = _kernel(kernel, x, y, seed)
    return choose(_from_draws(k, x, y, seed, *drawn, *notes), method, "mmd2")


def _from_draws(k: Kernel, x: Draws, y: Draws, seed: int, *notes: str) -> dict[str, Callable[[], Estimate]]:
    """Return the estimators of a squared MMD, of which "auto" takes the first unless there are too many pairs."""

    def over_all_pairs() -> Estimate:
        if k is not negative_distance or x.dim > 1:  # the energy on the line is sorted
            blocks.check_pairs(x, y)
        return kernels.discrepancy(k, x, y, NAMES, *notes)

    return {
        "u-statistic": over_all_pairs,
        "block": lambda: blocks.estimate(k, x, y, None, "block", seed, *notes),
        "linear time": lambda: blocks.estimate(k, x, y, 2, "linear time", seed, *notes),
    }


def energy(p: Any, q: Any, *, method: str = "auto", seed: int = 0, draws: int = 100_000) -> Estimate:
    r"""Return the energy distance.

    .. math:: 2E|X - Y| - E|X - X'| - E|Y - Y'|, \text{ on the line } 2\int (F - G)^2

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another.
        method: for two distributions "closed form", "exact sum" (discrete), "quadrature" (on the line, and Gaussians)
            or "monte carlo" (the mean over blocks of draws); with draws "u-statistic", "block" or "linear time", as in
            :func:`mmd2`; "auto" takes the first that applies.
        seed: seeds whatever is drawn.
        draws: draws of each distribution under Monte Carlo.

    Returns:
        An ``Estimate`` in the unit of the data; SciPy's ``energy_distance`` is its square root. From draws it is
        unbiased, so it may be negative; no interval where the value is below 3 standard errors.

    Raises:
        ValueError: for a law without a mean, fewer than 2 draws, bad draws, sizes that differ, unknown methods.

    Source:
        Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143(8).

    Example:
        >>> from torch.distributions import Normal
        >>> energy(Normal(0.0, 1.0), Normal(1.0, 2.0))
        0.534105 ± 0 (closed form)
    """
    p, q = hold_single(p, q, draws)
    require_moments(p, q, 1, "energy")
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        methods: dict[str, Callable[[], Estimate]] = {
            "closed form": lambda: closed.energy(p, q),
            "exact sum": lambda: laws.mmd2_of_atoms(p, q, negative_distance),
            "quadrature": lambda: laws.energy_by_quadrature(p, q),
            "monte carlo": lambda: laws.mmd2_by_draws(p, q, negative_distance, draws, seed),
        }
        return choose(methods, method, "energy")
    x, y, notes = draws_of(p, q, NAMES, seed)
    return choose(_from_draws(negative_distance, x, y, seed, *notes), method, "energy")


def _kernel(kernel: Kernel | None, x: Draws, y: Draws, seed: int) -> tuple[Kernel, tuple[str, ...]]:
    if kernel is not None:
        return kernel, ()
    bandwidth = kernels.median_bandwidth(x.x, y.x.to(x.x.device), seed)
    return RBF(bandwidth), (f"RBF kernel of bandwidth {bandwidth:.6g}, the median distance of pooled draws",)


def _check_kernel(kernel: Kernel, dim: int) -> None:
    if not callable(kernel):
        raise TypeError(f"kernel must be a function of points (n, d) and (m, d), such as RBF(1.0); got {kernel!r}.")
    x = torch.zeros(3, dim, dtype=torch.float64)
    gram = kernel(x, x[:2])
    if not isinstance(gram, torch.Tensor) or gram.shape != (3, 2):
        got = tuple(gram.shape) if isinstance(gram, torch.Tensor) else type(gram).__name__
        raise ValueError(f"kernel must give the Gram matrix (n, m), here (3, 2); got {got}.")
