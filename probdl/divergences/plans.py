"""Transport plans: how much mass goes from each draw of one sample to each of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.access import Draws, check_same_columns
from probdl.divergences.debiased import check_epsilon
from probdl.divergences.entropic import Cloud, Problem, costs, potentials
from probdl.divergences.kernels import centred
from probdl.divergences.sorting import ascending, even_merge, merge
from probdl.divergences.transport import charged, check_order, simplex


def transport_plan(x: Any, y: Any, order: float = 2, epsilon: float | None = None) -> Tensor:
    r"""Return the plan of optimal transport between draws, exact or with an entropy.

    .. math:: \pi^* = \arg\min_{\pi \in \Pi(P, Q)} E_\pi |X - Y|^p + \varepsilon\,KL(\pi \| P \otimes Q)

    Args:
        x: draws of shape (n, d) or (n,), weighted as ``probdl.Draws``.
        y: draws of shape (m, d) or (m,).
        order: the power p ≥ 1 of the cost; for p > 1 and n = m without weights the plan is a matching.
        epsilon: in units of the cost; None is 0, the exact plan, by sorting on the line and by POT's network simplex
            elsewhere. A positive one spreads the mass, the more the larger it is.

    Returns:
        (n, m) in float64: entry (i, j) is the mass that goes from xᵢ to yⱼ. Rows sum to the weights of x and columns to
        those of y: to rounding if it is exact, to a total of 1e-5 with an entropy. The exact plan is not unique where
        two have the same cost.

    Raises:
        TypeError: if the draws are not numbers.
        ValueError: for an order below 1, an epsilon that is not positive, bad draws, or numbers of columns that differ.
        ConvergenceError: if the iteration does not reach the marginals, as with a very small epsilon.

    Reference: G. Peyré and M. Cuturi (2019), Computational optimal transport, chapters 2 and 4.

    Example:
        >>> transport_plan([0.0, 1.0], [5.0, 2.0])
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]], dtype=torch.float64)
    """
    check_order(order)
    check_epsilon(epsilon)
    p, q = (h if isinstance(h, Draws) else Draws(h, name=name) for name, h in (("x", x), ("y", y)))
    check_same_columns(p, q)
    (a, v), (b, w) = charged(p), charged(q)
    a, b = centred(a, b.to(a.device))
    w = w.to(a.device)
    if epsilon is not None:
        inner = _entropic(a, b, v, w, order, epsilon)
    elif p.dim == 1:
        inner = _sorted(a[:, 0], b[:, 0], v, w, even=p.weights is None and q.weights is None)
    else:
        inner = torch.as_tensor(simplex(a, b, v, w, order)[0]).to(a)
    return _with_all_rows(inner, p, q)


def _sorted(x: Tensor, y: Tensor, v: Tensor, w: Tensor, even: bool) -> Tensor:
    """Return the monotone coupling, which is optimal on the line for every convex cost."""
    i, j = ascending(x), ascending(y)
    met = even_merge(len(x), len(y), x) if even else merge(v[i].cumsum(0), w[j].cumsum(0))
    at = i[met.at_x], j[met.at_y]
    mass = torch.as_tensor(met.mass, dtype=x.dtype, device=x.device).expand(len(at[0]))
    return x.new_zeros(len(x), len(y)).index_put_(at, mass, accumulate=True)


def _entropic(x: Tensor, y: Tensor, v: Tensor, w: Tensor, order: float, epsilon: float) -> Tensor:
    """Return vᵢ wⱼ exp((fᵢ + gⱼ − |xᵢ − yⱼ|^p)/ε) with the dual potentials f and g."""
    f, g = potentials(Problem(Cloud(x, v.log()), Cloud(y, w.log()), order, epsilon))
    return torch.outer(v, w) * ((f[:, None] + g - costs(x, y, order)) / epsilon).exp()


def _with_all_rows(inner: Tensor, x: Draws, y: Draws) -> Tensor:
    """Return the plan with zeros for the draws that have no weight."""
    for dim, draws in enumerate((x, y)):
        if draws.weights is not None:
            size = [draws.n if dim == i else inner.shape[i] for i in (0, 1)]
            at = draws.weights.nonzero()[:, 0].to(inner.device)
            inner = inner.new_zeros(size).index_copy_(dim, at, inner)
    return inner
