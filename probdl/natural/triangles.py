"""Symmetric matrices as their lower triangles."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def vech(x: Tensor) -> Tensor:
    """Return the lower triangle of symmetric matrices (..., d, d), column by column, (..., d(d + 1)/2)."""
    i, j = _triangle(x.shape[-1], x.device)
    return x[..., i, j]


def unvech(v: Tensor) -> Tensor:
    """Return symmetric matrices from their lower triangles."""
    d = round((math.sqrt(8 * v.shape[-1] + 1) - 1) / 2)
    i, j = _triangle(d, v.device)
    place = torch.zeros(d, d, dtype=torch.long, device=v.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=v.device)
    return v[..., place]


def _triangle(d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    j, i = torch.triu_indices(d, d, device=device)
    return i, j


def doubled(d: int, like: Tensor) -> Tensor:
    """How often each entry of the lower triangle stands in the matrix: once on the diagonal, else twice."""
    return 2 - vech(torch.eye(d, dtype=like.dtype, device=like.device))
