"""Likelihoods whose tilted moments have a closed form, recognised by their values: no rule for how they are written.

``Bernoulli(ndtr(f))``, ``Bernoulli(logits=log Φ(f) − log Φ(−f))`` and a factor of log Φ are all the same function, a
probit; so are all ways to write a Laplace density.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.propagation.closed_forms import laplace_moments, probit_moments
from probdl.inference.propagation.tilted import TiltedMoments, TiltedQuadrature
from probdl.natural import NormalFactor

LogLikelihood = Callable[[Tensor], Tensor]  # (k, n) → (k, n)
Moments = Callable[[NormalFactor], TiltedMoments]
_CLOSE = 1e-9


class ClosedForm:
    """Tilted moments by a formula, with the interface of ``TiltedQuadrature``, which it keeps for its nodes."""

    def __init__(self, moments: Moments, quadrature: TiltedQuadrature) -> None:
        self._moments, self._quadrature = moments, quadrature

    def __call__(self, cavity: NormalFactor, tolerance: float | None = None) -> TiltedMoments:
        """Return the tilted moments under these cavities."""
        return self._moments(cavity)

    def forget(self) -> None:
        """Look for the mass anew when nodes are asked for."""
        self._quadrature.forget()

    @property
    def place(self) -> tuple[Tensor | None, Tensor | None, int]:
        """Where the mass was found, for the quadrature of a problem nearby."""
        return self._quadrature.place

    @place.setter
    def place(self, place: tuple[Tensor | None, Tensor | None, int]) -> None:
        self._quadrature.place = place

    def nodes(self, cavity: NormalFactor) -> tuple[Tensor, Tensor]:
        """Return nodes η and the tilted probabilities there, (k, n) each."""
        self._quadrature(cavity, tolerance=1e-5)  # nodes serve gradients, for which a kink need not be resolved
        return self._quadrature.nodes(cavity)


def recognised(log_likelihood: LogLikelihood, like: Tensor) -> Moments | None:
    """Return the tilted moments of a probit or Laplace likelihood; None if it is neither.

    Args:
        log_likelihood: ℓ, maps u (k, n) to (k, n).
        like: a vector (n,) of the dtype and device.
    """
    if like.dtype != torch.float64 or len(like) == 0:  # the comparison needs the digits
        return None
    return _probit(log_likelihood, like) or _laplace(log_likelihood, like)


def _probit(log_likelihood: LogLikelihood, like: Tensor) -> Moments | None:
    """Log Φ(s u + c): the normal quantile of exp ℓ is affine in u."""
    u = torch.linspace(-4, 4, 33, dtype=like.dtype, device=like.device)[:, None].expand(-1, len(like))
    logs = log_likelihood(u)
    middle = (logs > -12) & (logs < -1e-6)
    if not bool((middle.sum(0) >= 3).all()):
        return None
    z = torch.special.ndtri(logs.exp().clamp(1e-15, 1 - 1e-15))
    weights = middle.to(like.dtype) / middle.sum(0)
    u_mean, z_mean = (weights * u).sum(0), (weights * torch.where(middle, z, 0.0)).sum(0)
    gap = u - u_mean
    slope = (weights * gap * torch.where(middle, z, 0.0)).sum(0) / (weights * gap**2).sum(0)
    intercept = z_mean - slope * u_mean
    ours = torch.special.log_ndtr(slope * u + intercept)
    seen = ours > -20  # probabilities that are clamped are wrong beyond
    if not _agree(ours[seen], logs[seen]):
        return None
    return lambda cavity: probit_moments(cavity, slope, intercept)


def _laplace(log_likelihood: LogLikelihood, like: Tensor) -> Moments | None:
    """−|y − u|/b − log 2b: two lines that meet at y."""
    ends = torch.tensor([-2e4, -1e4, 1e4, 2e4], dtype=like.dtype, device=like.device)[:, None].expand(-1, len(like))
    logs = log_likelihood(ends)
    left, right = (logs[1] - logs[0]) / 1e4, (logs[3] - logs[2]) / 1e4
    if not bool(((left > 0) & torch.isfinite(left)).all()) or not _agree(left, -right):
        return None
    scale = 1 / left
    y = (logs[2] - logs[1]) * scale / 2
    u = torch.linspace(-3, 3, 13, dtype=like.dtype, device=like.device)[:, None] * scale + y
    if not _agree(-(u - y).abs() / scale - (2 * scale).log(), log_likelihood(u)):
        return None
    return lambda cavity: laplace_moments(cavity, y, scale)


def _agree(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=_CLOSE, atol=_CLOSE)
