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
    if dim <= min(pairs, _MOST_WHITENED):
        left, _, right = torch.linalg.svd(half, full_matrices=False)  # the nearest matrix with orthogonal columns
        half = pairs**0.5 * (left @ right)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half]).to(like)


def _normal_sobol(n: int, dim: int, seed: int) -> Tensor:
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    uniform = engine.draw(n, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(1e-10, 1 - 1e-10))
