"""Conformal p-values and thresholds: they hold for any score, if the rows are exchangeable."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    r"""Return the conformal p-value of each score; small for strange rows.

    .. math:: p = \frac{1 + \#\{j : c_j \ge s\}}{n + 1}

    For a new row that is exchangeable with the calibration rows, :math:`P(p \le \alpha) \le \alpha` at every level.
    Scores that tie count as at least as large, which keeps this true.

    Args:
        calibration: scores c of n rows that did not fit the model, (n,); larger is stranger.
        scores: of the rows that are judged, (m,).

    Returns:
        (m,), float64, multiples of 1 / (n + 1).

    Reference:
        Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World.

    Example:
        >>> p_values(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 9.0]))
        tensor([1.0000, 0.8000, 0.2000], dtype=torch.float64)
    """
    n = len(calibration)
    below = torch.searchsorted(calibration.sort().values, scores.contiguous())
    return (1 + n - below).double() / (n + 1)


def p_values_among(scores: Tensor) -> Tensor:
    r"""Return the conformal p-value of each score with all others to calibrate: its rank from above, by n.

    Valid, :math:`P(p_i \le \alpha) \le \alpha`, if the scores are exchangeable: as those are that models give to rows
    which they did not see, by folds drawn at random. At most the share α of the rows has p ≤ α, whatever the rows are.

    Args:
        scores: (n,); larger is stranger.

    Returns:
        (n,), float64, multiples of 1 / n.

    Example:
        >>> p_values_among(torch.tensor([1.0, 3.0, 2.0, 2.0]))
        tensor([1.0000, 0.2500, 0.7500, 0.7500], dtype=torch.float64)
    """
    n = len(scores)
    return (n - torch.searchsorted(scores.sort().values, scores.contiguous())).double() / n


def allowed(n: int, rate: float) -> int:
    r"""Return l, the largest with l / (n + 1) ≤ rate: so many of the p-values that are possible are flagged.

    Raises:
        ValueError: if none is: too few rows calibrate.

    Example:
        >>> allowed(19, 0.05), allowed(100, 0.05)
        (1, 5)
    """
    most = math.floor(rate * (n + 1))
    most += ((most + 1) / (n + 1) <= rate) - (most / (n + 1) > rate)  # rounding: 0.29 · 100 is below 29
    if not most:
        raise ValueError(
            f"rate must be at least 1 / (calibration rows + 1): {needed(rate)} rows must calibrate for a rate of "
            f"{rate:g}; got {n}. Pass more rows, a larger share of them as calibration=, or a larger rate."
        )
    return most


def needed(rate: float) -> int:
    """Return how many rows must calibrate for a false-alarm rate.

    Example:
        >>> needed(0.05), needed(0.01)
        (19, 99)
    """
    n = max(1, math.ceil(1 / rate) - 1)
    return n - 1 if n > 1 and 1 / n <= rate else n


def threshold(calibration: Tensor, rate: float) -> float:
    """Return the l-th largest calibration score: a row with a larger score has p ≤ rate, and no other has.

    Example:
        >>> threshold(torch.arange(100.0), 0.05)
        95.0
    """
    return float(calibration.sort(descending=True).values[allowed(len(calibration), rate) - 1])


def threshold_among(scores: Tensor, rate: float) -> float:
    """Return the threshold that belongs to ``p_values_among``: the (l + 1)-th largest score, of n − 1 that calibrate.

    Example:
        >>> threshold_among(torch.arange(100.0), 0.05)
        94.0
    """
    return float(scores.sort(descending=True).values[allowed(len(scores) - 1, rate)])


def realised(n: int, rate: float, level: float = 0.95) -> tuple[float, float]:
    r"""Return the interval in which the false-alarm rate of a threshold lies, over the draw of the calibration rows.

    Given the calibration rows, the rate is no longer random over them: for continuous scores its law is
    :math:`\mathrm{Beta}(l, n + 1 - l)`, with mean l / (n + 1); the interval is from quantile to quantile, equal tails.

    Reference:
        Vovk (2012), Conditional validity of inductive conformal predictors, ACML.

    Example:
        >>> low, high = realised(200, 0.05)
        >>> round(low, 3), round(high, 3)
        (0.024, 0.084)
    """
    from scipy.stats import beta

    most = allowed(n, rate)
    low, high = beta.ppf([(1 - level) / 2, (1 + level) / 2], most, n + 1 - most)
    return float(low), float(high)


def discoveries(p: Tensor, fdr: float) -> Tensor:
    r"""Return which p-values the rule of Benjamini and Hochberg rejects, (m,): the k smallest, k the largest with

    .. math:: p_{(k)} \le \mathrm{fdr} \cdot k / m.

    The expected share of normal rows among those rejected is at most ``fdr``; also for conformal p-values that share
    one calibration set, which are positively dependent.

    Reference:
        Benjamini and Hochberg (1995), JRSS B 57; Bates, Candès, Lei, Romano and Sesia (2023), Testing for outliers with
        conformal p-values, Annals of Statistics 51.

    Example:
        >>> discoveries(torch.tensor([0.01, 0.9, 0.02, 0.04]), 0.05)
        tensor([ True, False,  True, False])
    """
    m, ordered = len(p), p.double().sort().values
    passes = ordered <= fdr * torch.arange(1, m + 1, dtype=torch.float64, device=p.device) / m
    if not bool(passes.any()):
        return torch.zeros_like(passes)
    return p.double() <= ordered[passes.nonzero().max()]
