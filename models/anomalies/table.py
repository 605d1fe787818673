"""Anomaly scores of several methods on one scale, that of conformal p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.models.anomalies.anomalies import Anomalies, Judged
from probdl.models.anomalies.conformal import allowed, p_values, threshold
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

    Without ``train`` each fold of ``x`` is judged by models and thresholds of the other folds, of which a part fits and
    a part calibrates. If no row is an anomaly, each is flagged with probability at most the rate; exactly so, where
    cross-conformal p-values, which calibrate by all other rows, guarantee only twice the rate. Anomalies among the
    rows that calibrate and score above a row only raise its p-value: fewer rows are flagged, not more.

    Rows that methods of the package get are standardised by the rows that fit; columns of categories are zeros and
    ones. A model of yours gets the rows as they were passed.

    ====================  ==============================================================================================
    "kde"                 −log p(x) of a ``KDE``
    "mixture"             −log p(x) of a ``GaussianMixture``
    "pca"                 squared distance from the plane of a third of the components, at most ten (``PCA``); blind
                          to distances within it, which {"mine": PCA(k)} sees too, by its density
    "ae"                  the same of an ``Autoencoder`` with such a code and 32 hidden units
    "vae"                 −log p(x) of a ``VAE``, by importance weighting
    "isolation forest"    how few random cuts isolate the row (scikit-learn's ``IsolationForest``)
    ====================  ==============================================================================================

    Args:
        x: the rows that are judged, array-like (n, ...) or a DataFrame; at least two rows a fold without ``train``.
        methods: names; models of your own as {name: model}, alone or in a list beside names. Copies of them are
            fitted anew, and asked for −log_prob, −log_likelihood, anomaly_score or −score_samples, the first that they
            have.
        train: rows known to be normal, like those of ``x``; none of them may be in ``x``.
        labels: (n,), True or 1 for anomalies; used for ROC alone.
        rate: the false-alarm rate, in (0, 1).
        calibration: the share of the rows not judged that calibrates; the others fit.
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
    if fdr is not None and (_share(fdr, "fdr"), train is None)[1]:
        raise ValueError("fdr must be None without train: rows of x then calibrate one another, and no proof holds.")
    kinds = None if labels is None else _kinds(labels, len(pool.index))
    if train is None:
        plans = fold_plans(len(pool.index), count(folds, "folds", 2), calibration, seed)
    else:
        plans = [split_plan(pool.train, len(pool.index), calibration, seed)]
    for plan in plans:
        allowed(len(plan.calibrate), rate)
    found, notes = _judged(pool, plans, ways, rate, seed)
    return Anomalies(found, pool.index, rate, fdr, kinds, _guarantee(rate, train is None), tuple(notes))


def _judged(
    pool: Pool, plans: list[Plan], ways: dict[str, Method], rate: float, seed: int
) -> tuple[dict[str, Judged], list[str]]:
    """Return what each method says of the rows in their order, and notes."""
    numbers = [pool.numbers(plan) for plan in plans]
    notes = [*_copies(pool), *(note for _, left_out in numbers for note in left_out)]
    found = {}
    for name, method in ways.items():
        parts = []
        for plan, (rows, _) in zip(plans, numbers):
            part, warned = _by(name, method, pool if method.model is not None else rows, plan, rate, seed)
            parts.append(part)
            notes += warned
        home = torch.cat([plan.judge for plan in plans]).argsort()
        scores, p = (torch.cat(each)[home] for each in zip(*((part.scores, part.p) for part in parts)))
        found[name] = Judged(scores, p, tuple(limit for part in parts for limit in part.limits))
    return found, list(dict.fromkeys(notes))


def _by(name: str, method: Method, rows: Any, plan: Plan, rate: float, seed: int) -> tuple[Judged, list[str]]:
    """Return what one method says of the rows that one plan judges."""
    part = rows.part if isinstance(rows, Pool) else lambda some: rows[some]
    # Scored in one call: the noise of a Monte Carlo score is then exchangeable too.
    scores, warned = scores_of(name, method, part(plan.fit), part(torch.cat([plan.calibrate, plan.judge])), seed)
    held, new = scores.tensor_split([len(plan.calibrate)])
    return Judged(new, p_values(held, new), ((threshold(held, rate), len(held)),)), warned


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
            f"if the rows of x are exchangeable, each is flagged with probability at most {rate:g}, by a method; "
            "anomalies among them that score higher make flags fewer"
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
