"""What can be a table of distances, and what it takes to be one between points."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-5}  # share of negative eigenvalues that rounding can make
SLACK = 1e-6  # of the largest distance: what rounding can do to symmetry and to the diagonal
MOST = 1000  # rows up to which all triangles are looked at


def between(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances of rows (n, d) from rows (m, d), (n, m), as exact as their differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def check_distances(x: Tensor) -> Tensor:
    """Return a table of distances between n rows, exactly symmetric, or raise a ValueError."""
    if x.ndim != 2 or x.shape[0] != x.shape[1]:
        raise ValueError(f"x must be a table of distances (n, n), as precomputed=True says; got {tuple(x.shape)}.")
    if bool((x < 0).any()):
        raise ValueError(f"x must hold distances, none below 0; the least is {float(x.min()):.4g}.")
    size = float(x.max())
    if size == 0:
        raise ValueError("x must vary; all its distances are 0.")
    if (most := float(x.diagonal().max())) > SLACK * size:
        raise ValueError(f"x must have zeros on its diagonal, the distances of rows from themselves; got {most:.4g}.")
    gap = (x - x.T).abs()
    if float(gap.max()) > SLACK * size:
        i, j = divmod(int(gap.argmax()), len(x))
        raise ValueError(
            f"x must be symmetric; x[{i}, {j}] is {float(x[i, j]):.6g} and x[{j}, {i}] is {float(x[j, i]):.6g}. "
            "Pass (x + x.T) / 2, if that makes sense."
        )
    x = (x + x.T) / 2
    return x - torch.diag(x.diagonal())


def worst_detour(d: Tensor) -> float:
    """Return by how much a distance exceeds the way over a third row, at most, as a share of the largest distance."""
    worst = max(float((d - (row[:, None] + row)).max()) for row in d)
    return max(0.0, worst) / float(d.max())


def doubly_centred(d: Tensor) -> Tensor:
    r"""Return :math:`-\tfrac12 J D^2 J`, the inner products of centred points with distances D, (n, n)."""
    squares = d.square()
    return -(squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()) / 2


def notes_on(values: Tensor, d: Tensor) -> tuple[str, ...]:
    """Return what a careful reader should know of distances d, by the eigenvalues of their inner products."""
    share = float((-values.clamp(max=0)).sum() / values.abs().sum())
    if share < (least := ROUNDING.get(d.dtype, 1e-2)):
        return ()
    found = (f"no points have these distances exactly: negative eigenvalues hold {share:.3g} of the absolute sum",)
    if len(d) > MOST:
        return (*found, f"whether they are a metric was not looked at, for more than {MOST} rows")
    if (worst := worst_detour(d)) > least / 10:
        return (*found, f"they are not a metric: a detour is shorter by up to {worst:.2g} of the largest distance")
    return (*found, "they are a metric: no detour is shorter")
