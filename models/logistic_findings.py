"""What a logistic regression's curvature says: standard errors, how near the maximum is, and where there is none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probdl.models.newton import DENSE, LogisticLoss, logits_of, newton_direction

DEPENDENT = 1e-13  # of the largest eigenvalue of the columns' second moments
VANISHING = 1e-9  # the information, relative to what the columns alone would give


def contrasts(b: Tensor) -> Tensor:
    """Return the coefficients of the log odds against the first class, (k − 1, p + 1)."""
    return b if len(b) == 1 else b[1:] - b[0]


def outward(b: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return coefficients (m, p + 1) of standardised columns in the columns' own units; the intercept is the last."""
    slopes = b[:, :-1].to(scale) / scale
    return torch.cat([slopes, b[:, -1:].to(scale) - (slopes @ shift)[:, None]], 1)


def information(loss: LogisticLoss, b: Tensor) -> Tensor:
    """Return the mean observed information of the contrasts, ((k − 1)(p + 1), (k − 1)(p + 1))."""
    h, q = loss.hessian(b), b.shape[1]
    return h if len(b) == 1 else h[q:, q:]


def outward_stderr(information: Tensor, n: int, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the standard errors of contrasts in the columns' own units, (k − 1, p + 1), from n rows."""
    q = len(shift) + 1
    cov = torch.linalg.inv(information).to(scale).reshape(-1, q, information.shape[0] // q, q) / n
    own = torch.diagonal(cov, dim1=0, dim2=2).permute(2, 0, 1)  # of each class, (k − 1, q, q)
    to = torch.diag(torch.cat([1 / scale, torch.ones_like(scale[:1])]))
    to[-1, :-1] = -shift / scale
    return (to @ own @ to.T).diagonal(dim1=1, dim2=2).sqrt()


def distance(loss: LogisticLoss, b: Tensor) -> float:
    r"""Return about how many standard errors the maximum is away, :math:`\sqrt{n\,g^\top H^{-1} g}`."""
    g = loss.gradient(b)
    return math.sqrt(len(loss.x) * max(0.0, (g * newton_direction(loss, b, g)).sum().item()))


def findings(loss: LogisticLoss, b: Tensor) -> tuple[str, ...]:
    """Return notes on what keeps the likelihood from having one maximum: dependent columns, or separated classes."""
    right = (logits_of(loss.x @ b.T).argmax(1) == loss.y).all()
    if right:  # then all multiples of these coefficients have a larger likelihood
        return (_SEPARATED.format("the classes are separated"),)
    if b.numel() > DENSE:
        return ()
    moments = torch.linalg.eigvalsh(loss.x.T @ loss.x / len(loss.x))
    rank = int((moments > DEPENDENT * moments[-1]).sum())
    if rank < len(moments):
        return (
            f"columns and intercept depend on each other (rank {rank} of {len(moments)}): probabilities are "
            "determined, coefficients only in combination; drop columns, or pass l2=",
        )
    if torch.linalg.eigvalsh(information(loss, b))[0] < VANISHING * moments[0]:
        return (_SEPARATED.format("some of the classes are separated along some columns"),)
    return ()


_SEPARATED = (
    "{}: the likelihood has no maximum, the coefficients are as large as the steps made them, and the probabilities "
    "surer than the data allow; pass l2= for a maximum"
)
