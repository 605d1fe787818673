r"""Fixed standard normal draws that integrate low moments exactly: antithetic, with second moments set to one.

With fixed draws the evidence lower bound is an ordinary function. Its error is that of the draws: antithetic pairs
integrate every odd polynomial exactly; a second-moment matrix that is the identity makes the optimum exact for every
Gaussian target; scrambled Sobol points spread what remains.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_WHITENED = 1024  # dimensions up to which the whole second-moment matrix is set to the identity


def standard_draws(pairs: int, dim: int, seed: int, like: Tensor) -> Tensor:
    """Return antithetic standard normal draws, (2·pairs, dim); row i and row i + pairs are a pair.

    Args:
        pairs: how many independent draws.
        dim: their length.
        seed: of the scrambling.
        like: a tensor of the dtype and device to use.

    Returns:
        Draws with mean zero whose second-moment matrix is the identity where ``pairs >= dim``, and has a diagonal of
        ones otherwise.

    Source: Giordano, Ingram & Broderick (2023), *Black box variational inference with a deterministic objective*, for
    fixed draws; Owen (1998), *Scrambling Sobol' and Niederreiter–Xing points*.

    Example:
        >>> import torch
        >>> e = standard_draws(16, 3, seed=0, like=torch.zeros((), dtype=torch.float64))
        >>> torch.allclose(e.T @ e / 32, torch.eye(3, dtype=torch.float64))
        True
    """
    half = _normal_sobol(pairs, dim, seed)
    if is_whitened(pairs, dim):
        half = half @ _inverse_root(half.T @ half / pairs)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half]).to(like)


def is_whitened(pairs: int, dim: int) -> bool:
    """Whether so many pairs can have, and are given, the identity as their second-moment matrix."""
    return dim <= min(pairs, _MOST_WHITENED)


def _normal_sobol(n: int, dim: int, seed: int) -> Tensor:
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    uniform = engine.draw(n, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(1e-10, 1 - 1e-10))


def _inverse_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    if bool(values[0] <= 1e-10 * values[-1]):
        raise ValueError(f"{len(matrix)} dimensions need more independent draws than were given.")
    return (vectors / values.sqrt()) @ vectors.T
