"""How well a score tells labelled anomalies from normal rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate

RESAMPLES = 200  # of the bootstrap of average precision


@dataclass(frozen=True, eq=False)
class Roc:
    """The receiver operating characteristic of a score: what is detected against what is raised falsely.

    Attributes:
        false_alarm: the share of normal rows above each threshold, ascending from 0 to 1.
        detection: the share of anomalies above it.
        auc: the area below the curve, P(an anomaly scores higher than a normal row) + P(equal) / 2.
        average_precision: the mean over anomalies of the precision at their score; a score that says nothing has the
            share of anomalies.

    Example:
        >>> roc = roc_of(torch.tensor([0.1, 0.2, 0.9, 0.8]), torch.tensor([False, True, True, False]))
        >>> roc.auc.value, roc.detection
        (0.75, tensor([0.0000, 0.5000, 0.5000, 1.0000, 1.0000], dtype=torch.float64))
    """

    false_alarm: Tensor
    detection: Tensor
    auc: Estimate
    average_precision: Estimate


def roc_of(scores: Tensor, labels: Tensor, seed: int = 0) -> Roc:
    """Return the ROC of scores, larger for anomalies.

    Args:
        scores: (n,).
        labels: (n,), True for anomalies; both kinds must be there.
        seed: of the bootstrap.
    """
    values, at = scores.unique(return_inverse=True)
    hits = torch.zeros(len(values), 2, dtype=torch.float64).index_add_(0, at, _kinds(labels))
    shares = torch.cat([torch.zeros(1, 2, dtype=torch.float64), hits.flip(0).cumsum(0)]) / hits.sum(0)
    return Roc(shares[:, 0], shares[:, 1], auc(scores, labels), average_precision(scores, labels, seed))


def auc(scores: Tensor, labels: Tensor) -> Estimate:
    r"""Return the area below the ROC curve, with DeLong's standard error.

    With :math:`V_i` the share of normal rows that anomaly i exceeds (ties half), and :math:`W_j` the share of anomalies
    that exceed normal row j, the area is the mean of either, and its variance :math:`s_V^2 / m + s_W^2 / n`.

    Reference:
        DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44.
    """
    strange, normal = scores[labels], scores[~labels]
    v, w = _above(strange, normal), 1 - _above(normal, strange)
    variance = _variance(v) / len(v) + _variance(w) / len(w)
    notes = ("the standard error is for the fitted scores: it counts the judged rows, not the fit",)
    if not variance > 0:
        why = "no row is on the wrong side, or a kind has one row: these rows give no standard error"
        return Estimate(float(v.mean()), None, "DeLong", n=len(scores), notes=(why,))
    return Estimate(float(v.mean()), math.sqrt(variance), "DeLong", n=len(scores), notes=notes)


def average_precision(scores: Tensor, labels: Tensor, seed: int = 0) -> Estimate:
    """Return the average precision; its standard error is that of 200 resamples of anomalies and of normal rows."""
    noise, kinds = torch.Generator().manual_seed(seed), [labels.nonzero()[:, 0], (~labels).nonzero()[:, 0]]
    found = []
    for _ in range(RESAMPLES):
        rows = torch.cat([k[torch.randint(len(k), (len(k),), generator=noise)] for k in kinds])
        found.append(_precision(scores[rows], labels[rows]))
    spread = float(torch.tensor(found, dtype=torch.float64).std())
    return Estimate(_precision(scores, labels), spread or None, "bootstrap", n=len(scores))


def _precision(scores: Tensor, labels: Tensor) -> float:
    """Return the sum over thresholds of precision times the gain in detection; rows that tie have one threshold."""
    order = scores.argsort(descending=True)
    ordered, hits = scores[order], labels[order].double().cumsum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])
    hits, seen = hits[last], last.nonzero()[:, 0] + 1.0
    return float((hits / seen * hits.diff(prepend=hits.new_zeros(1))).sum() / hits[-1])


def _kinds(labels: Tensor) -> Tensor:
    return torch.stack([~labels, labels], 1).double()


def _above(a: Tensor, b: Tensor) -> Tensor:
    """Return for each of ``a`` the share of ``b`` below it, ties half."""
    ordered = b.sort().values
    a = a.contiguous()
    return (torch.searchsorted(ordered, a) + torch.searchsorted(ordered, a, right=True)).double() / (2 * len(b))


def _variance(v: Tensor) -> float:
    return float(v.var()) if len(v) > 1 else 0.0
