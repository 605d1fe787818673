r"""The sliced Wasserstein distance: the draws are projected on random directions, where transport is sorting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import Draws
from probdl.divergences import closed, gaussian, laws
from probdl.divergences.dispatch import choose, draws_of, hold_single, positive_integer
from probdl.divergences.distributions import dimension, seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import centred, spread
from probdl.divergences.losses import batches
from probdl.divergences.sorting import ascending, even_merge, sorted_plan
from probdl.divergences.support import require_moments
from probdl.divergences.transport import charged, check_order, root

NAMES = ("p", "q")


def sliced_wasserstein(
    p: Any,
    q: Any,
    order: float = 2,
    directions: int = 200,
    *,
    method: str = "auto",
    seed: int = 0,
    draws: int = 100_000,
) -> Estimate:
    r"""Return the sliced Wasserstein distance, the mean over directions of the distance between projections.

    .. math:: SW_p(P, Q) = \Bigl(E_\theta\,W_p^p(\theta^\top X, \theta^\top Y)\Bigr)^{1/p},
              \quad \theta \text{ uniform on the unit sphere}

    Args:
        p: a ``torch.distributions.Distribution``, or draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        q: another.
        order: p ≥ 1.
        directions: the number of random directions, at least 2.
        method: for two distributions "closed form" (Gaussians of equal covariance) or "monte carlo"; with draws
            "sorting"; "auto" takes the first that applies.
        seed: seeds the directions and whatever is drawn.
        draws: draws of each distribution under Monte Carlo.

    Returns:
        An ``Estimate`` in the unit of the data. It is not the Wasserstein distance: of two Gaussians of equal
        covariance, SW_2 is W_2/√d. From draws its target is "expected estimate", the mean of the plug-in; the standard
        error counts both the draws and the directions. No interval where SW_p^p is within 3 standard errors of 0.

    Raises:
        ValueError: for an order below 1, fewer than 2 directions, an infinite moment, bad draws, sizes that differ.

    Source:
        Bonneel, Rabin, Peyré and Pfister (2015), Journal of Mathematical Imaging and Vision 51; Manole, Balakrishnan
        and Wasserman (2022), Electronic Journal of Statistics 16, for the error.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> p, q = (Independent(Normal(m, 1.0), 1) for m in (torch.zeros(4), torch.ones(4)))
        >>> sliced_wasserstein(p, q)  # W_2 is 2
        1 ± 0 (closed form)
        >>> sliced_wasserstein([[0.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [1.0, 3.0]]).value > 2
        True
    """
    check_order(order)
    positive_integer(directions, "directions", least=2)
    p, q = hold_single(p, q, draws)
    require_moments(p, q, order, "sliced_wasserstein")
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        methods: dict[str, Callable[[], Estimate]] = {
            "closed form": lambda: _of_gaussians(p, q, order),
            "monte carlo": lambda: _between(*laws.drawn(p, q, draws, seed), order, directions, "monte carlo", seed),
        }
        return choose(methods, method, "sliced_wasserstein")
    x, y, notes = draws_of(p, q, NAMES, seed)
    return choose(
        {"sorting": lambda: _between(x, y, order, directions, "sorting", seed, *notes)}, method, "sliced_wasserstein"
    )


def _of_gaussians(p: Distribution, q: Distribution, order: float) -> Estimate:
    """Return |Δ|·(E|θ₁|^p)^(1/p) for Gaussians of equal covariance, whose projections differ by a shift θᵀΔ."""
    pair = closed.pair(p, q)
    if pair is None or not gaussian.same_covariance(*pair):
        raise closed.no_closed_form("sliced_wasserstein", p, q)
    d = dimension(p)
    logs = [math.lgamma(a) for a in (d / 2, (order + 1) / 2, (d + order) / 2, 0.5)]
    moment = math.exp(logs[0] + logs[1] - logs[2] - logs[3])
    return closed.exact((pair[0].mean - pair[1].mean).norm().item() * moment ** (1 / order))


def random_directions(d: int, count: int, seed: int | None) -> Tensor:
    """Return unit vectors (count, d); on the line there is one. No seed takes torch's own generator."""
    if d == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if seed is None:
        return torch.nn.functional.normalize(torch.randn(count, d, dtype=torch.float64))
    with seeded(seed):
        return random_directions(d, count, None)


def _between(x: Draws, y: Draws, order: float, directions: int, method: str, seed: int, *notes: str) -> Estimate:
    """Average the cost over directions; one direction at a time, so that memory is a few columns."""
    (a, v), (b, w) = charged(x), charged(y)
    b, w = b.to(a.device), w.to(a.device)
    a, b = centred(a, b)
    even = x.weights is None and y.weights is None
    met = even_merge(len(a), len(b), a) if even else None
    theta = random_directions(x.dim, directions, seed).to(a.device)
    costs, u, z = torch.zeros(len(theta), dtype=a.dtype), torch.zeros_like(v), torch.zeros_like(w)
    for k, direction in enumerate(theta):
        solved = sorted_plan(a @ direction, b @ direction, v, w, order, met)
        costs[k] = solved.cost
        u += solved.u - solved.u.mean()
        z += solved.v - solved.v.mean()
    cost = costs.mean().item()
    variance = spread(u / len(theta), v) + spread(z / len(theta), w) if min(len(a), len(b)) > 1 else math.nan
    if len(theta) > 1:
        variance += costs.var().item() / len(theta)
        notes += (f"{directions} random directions",)
    stderr, why = _stderr(cost, variance, order)
    return Estimate(root(cost, order), stderr, method, "expected estimate", n=x.n + y.n, notes=(*notes, *why))


def _stderr(cost: float, variance: float, order: float) -> tuple[float | None, tuple[str, ...]]:
    """Return SE(SW_p) = SE(SW_p^p)/(p·SW_p^(p−1)), or None and the reason."""
    if math.isnan(variance):
        return None, ("a standard error needs at least 2 draws of each",)
    stderr = math.sqrt(variance)
    if cost <= 3 * stderr:
        return None, (f"SW_p^p is within 3 standard errors ({stderr:.2g}) of 0, where the normal interval fails",)
    return stderr / (order * root(cost, order) ** (order - 1)), ()


def sliced_wasserstein_loss(
    x: Tensor, y: Tensor, order: float = 2, directions: int = 200, *, seed: int | None = None
) -> Tensor:
    r"""Return the sliced Wasserstein distance of two batches as a tensor with gradients.

    .. math:: SW_p(x, y) = \Bigl(\frac1L\sum_l W_p^p(\theta_l^\top x, \theta_l^\top y)\Bigr)^{1/p}

    Args:
        x: draws of shape (n, d) or (n, ...), n ≥ 2; trailing dimensions are flattened.
        y: draws of shape (m, d) or (m, ...), m ≥ 2.
        order: p ≥ 1.
        directions: the number of random directions L.
        seed: fixes the directions; None takes new ones at each call from torch's generator.

    Returns:
        A scalar in the dtype and on the device of ``x``. Where the batches are equal its gradient is 0, the least of
        its subgradients.

    Raises:
        ValueError: if the batches have fewer than 2 rows or sizes that differ, or for an order below 1.

    Source:
        Deshpande, Zhang and Schwing (2018), Generative modeling using the sliced Wasserstein distance, CVPR.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], requires_grad=True)
        >>> loss = sliced_wasserstein_loss(x, torch.tensor([[2.0], [3.0]]))
        >>> loss.backward()
        >>> loss.item(), x.grad.flatten().tolist()
        (2.0, [-0.5, -0.5])
    """
    check_order(order)
    positive_integer(directions, "directions")
    x, y = batches(x, y)
    theta = random_directions(x.shape[1], directions, seed).to(x)
    met = even_merge(len(x), len(y), x)
    a, b = (_ascending(theta @ z.T) for z in (x, y))
    mass = met.mass.to(x) if isinstance(met.mass, Tensor) else met.mass
    cost = ((a[:, met.at_x] - b[:, met.at_y]).abs() ** order * mass).sum(1).mean()
    return cost ** (1 / order) if cost > 0 else cost  # the root has no slope at 0


def _ascending(x: Tensor) -> Tensor:
    return x.gather(-1, ascending(x))
