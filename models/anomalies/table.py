"""Anomaly scores of several methods on one scale, that of conformal p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.models.anomalies.anomalies import Anomalies, Judged
from probdl.models.anomalies.conformal import allowed, p_values, p_values_among, threshold, threshold_among
from probdl.models.anomalies.plans import Plan, Pool, fold_plans, split_plan
from probdl.models.anomalies.scores import METHODS, Method, methods_of, scores_of
from probdl.models.arguments import count


def anomaly_table(
    x: Any,
    methods: Sequence[Any] | Mapping[str, Any] = METHODS,
    *,
    train: Any = None,
    labels: Any = None,
    rate: float = 0.05,
    calibration: float = 0.5,
    folds: int = 5,
    fdr: float | None = None,
    seed: int = 0,
) -> Anomalies:
    r"""Score rows by several methods, and flag the strange ones at a false-alarm rate that holds whatever the method.

    Models are fitted to some rows; others, which fitted nothing, calibrate: with their n scores c a row of score s has

    .. math:: p = \frac{1 + \#\{j : c_j \ge s\}}{n + 1}, \qquad \text{and is flagged if } p \le \text{rate}.

    With ``train``, rows known to be normal, these are split, and P(flag) ≤ rate for each row exchangeable with them:
    over the draw of the calibration rows too. Given these, the rate of all further rows is what it is, near or far: its
    Beta law stands in ``thresholds``.

    Without ``train`` each fold of ``x`` is scored by models of the other folds, so that no row judges itself, and all
    other rows calibrate. If no row is an anomaly these scores are exchangeable, and each row is flagged with
    probability at most the rate. (That is said of the rows of ``x``; for new rows such cross-conformal p-values
    guarantee only twice the rate.) A rate is then a share: the l = ⌊rate · n⌋ strangest rows are flagged, whatever they
    are. Each anomaly among them leaves one flag less for normal rows.

    Rows that methods of the package get are standardised by the rows that fit; columns of categories are zeros and
    ones. A model of yours gets the rows as they were passed.

    ====================  ==============================================================================================
    "kde"                 −log p(x) of a ``KDE``
    "mixture"             −log p(x) of a ``GaussianMixture`` of one to three components
    "pca"                 squared distance from the plane of a third of the components, at most ten (``PCA``); blind
                          to distances within it, which {"mine": PCA(k)} sees too, by its density
    "ae"                  the same of an ``Autoencoder`` with such a code and 32 hidden units
    "vae"                 −log p(x) of a ``VAE``, by importance weighting
    "isolation forest"    how few random cuts isolate the row (scikit-learn's ``IsolationForest``)
    ====================  ==============================================================================================

    569 rows of 30 columns take 4 seconds on one core with ``train``, 20 without, most of them for the mixtures.

    Args:
        x: the rows that are judged, array-like (n, ...) or a DataFrame; at least two rows a fold without ``train``.
        methods: names; models of your own as {name: model}, alone or in a list beside names. Copies of them are
            fitted anew, and asked for −log_prob, −log_likelihood, anomaly_score or −score_samples, the first that they
            have.
        train: rows known to be normal, like those of ``x``; none of them may be in ``x``.
        labels: (n,), True or 1 for anomalies; used for ROC alone.
        rate: the false-alarm rate, in (0, 1).
        calibration: the share of ``train`` that calibrates; the others fit.
        folds: without ``train``.
        fdr: a false discovery rate, in (0, 1), for the rule of Benjamini and Hochberg on all rows of ``x``; needs
            ``train``.
        seed: of the splits, the fits and all that is drawn.

    Returns:
        ``Anomalies`` with ``table``, ``thresholds``, ``agreement``, ``guarantee``, ``plot()``, and with labels ``auc``
        and ``roc``.

    Raises:
        ValueError, TypeError: for rows, labels or arguments that cannot be used, methods that there are not, too few
            rows to calibrate for the rate (it says how many are needed).

    Reference:
        Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Vovk (2012), Conditional validity of
        inductive conformal predictors; Bates et al. (2023), Testing for outliers with conformal p-values.

    Example:
        >>> import torch
        >>> noise = torch.Generator().manual_seed(0)
        >>> train, x = torch.randn(200, 2, generator=noise), torch.randn(100, 2, generator=noise)
        >>> found = anomaly_table(torch.cat([x, x[:3] + 9]), ["isolation forest"], train=train, rate=0.05)
        >>> found.table["isolation forest"].tail(3)[["p_value", "flagged"]].round(3)
             p_value  flagged
        100     0.01     True
        101     0.01     True
        102     0.01     True
        >>> found.thresholds[["asked", "lower", "upper"]].round(3)  # doctest: +NORMALIZE_WHITESPACE
                          asked  lower  upper
        method
        isolation forest   0.05  0.016  0.099
    """
    ways, rate = methods_of(methods), _share(rate, "rate")
    calibration, pool = _share(calibration, "calibration"), Pool.of(x, train)
    if fdr is not None and train is None and _share(fdr, "fdr"):
        raise ValueError("fdr must be None without train: rows of x then calibrate one another, by rank alone.")
    fdr = None if fdr is None else _share(fdr, "fdr")
    kinds = None if labels is None else _kinds(labels, len(pool.index))
    if train is None:
        plans = fold_plans(len(pool.index), count(folds, "folds", 2), seed)
    else:
        plans = [split_plan(pool.train, len(pool.index), calibration, seed)]
    allowed(len(pool.index) - 1 if train is None else len(plans[0].calibrate), rate)
    found, notes = _judged(pool, plans, ways, rate, seed)
    return Anomalies(found, pool.index, rate, train is None, fdr, kinds, _guarantee(rate, train is None), notes)


def _judged(
    pool: Pool, plans: list[Plan], ways: dict[str, Method], rate: float, seed: int
) -> tuple[dict[str, Judged], tuple[str, ...]]:
    """Return what each method says of the rows in their order, and notes."""
    numbers = [pool.numbers(plan) for plan in plans]
    notes = [*_copies(pool), *(note for _, left_out in numbers for note in left_out)]
    found, home = {}, torch.cat([plan.judge for plan in plans]).argsort()
    for name, method in ways.items():
        held, new = [], []
        for plan, (rows, _) in zip(plans, numbers):
            scores, warned = _scored(name, method, rows if method.model is None else pool, plan, seed)
            held.append(scores[: len(plan.calibrate)])
            new.append(scores[len(plan.calibrate) :])
            notes += warned
        found[name] = _calibrated(torch.cat(held), torch.cat(new)[home], rate)
    return found, tuple(dict.fromkeys(notes))


def _scored(name: str, method: Method, rows: Any, plan: Plan, seed: int) -> tuple[Tensor, list[str]]:
    """Return one method's scores of the rows that calibrate and then of those that are judged, and warnings."""
    part = rows.part if isinstance(rows, Pool) else lambda some: rows[some]
    # Scored in one call: the noise of a Monte Carlo score is then exchangeable too.
    return scores_of(name, method, part(plan.fit), part(torch.cat([plan.calibrate, plan.judge])), seed)


def _calibrated(held: Tensor, new: Tensor, rate: float) -> Judged:
    """Return p-values and threshold of new scores; without others that calibrate they calibrate one another."""
    if len(held):
        return Judged(new, p_values(held, new), threshold(held, rate), len(held))
    return Judged(new, p_values_among(new), threshold_among(new, rate), len(new) - 1)


def _copies(pool: Pool) -> list[str]:
    """Return a note on rows of x that are in train too."""
    if not pool.train:
        return []
    rows = pool.rows.reshape(len(pool.rows), -1)
    same = rows.unique(dim=0, return_inverse=True)[1]
    n = int(torch.isin(same[pool.train :], same[: pool.train]).sum())
    return (
        [f"{n} rows of x equal a row of train; if they are the same observations, nothing is guaranteed"] if n else []
    )


def _guarantee(rate: float, alone: bool) -> str:
    if alone:
        return (
            f"if the rows of x are exchangeable, each is flagged with probability at most {rate:g}, by a method; the "
            f"share {rate:g} is flagged whatever the rows are, and nothing is said of other rows"
        )
    return (
        f"a row exchangeable with those of train is flagged with probability at most {rate:g}, by a method, over the "
        f"draw of the calibration rows; given these the rate lies within thresholds' interval"
    )


def _share(value: float, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise ValueError(f"{name} must be a number between 0 and 1; got {value!r}.")
    return float(value)


def _kinds(labels: Any, n: int) -> Tensor:
    values = tensor(labels, "labels").cpu().reshape(-1)
    if len(values) != n:
        raise ValueError(f"labels must have an entry for each of {n} rows of x; got {len(values)}.")
    if not bool(((values == 0) | (values == 1)).all()):
        raise ValueError("labels must be True or 1 for anomalies and False or 0 for normal rows; got other numbers.")
    if int(values.sum()) in (0, n):
        raise ValueError(f"labels must hold both kinds of rows for a ROC curve; all {n} are {bool(values[0])}.")
    return values.bool()
