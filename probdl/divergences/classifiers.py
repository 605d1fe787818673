"""Divergences from draws by a classifier that tells them apart: its held-out logit is a log-ratio of densities.

Their standard errors treat held-out draws as independent. The folds share training draws, which adds about a tenth to
the error at a hundred to a few hundred draws (benchmarks/interval_coverage.py; Bates, Hastie and Tibshirani 2024,
JASA 119).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences.dispatch import NotApplicable, at_most
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate
from probdl.divergences.kernels import equal_weights
from probdl.divergences.pareto import pareto_k
from probdl.divergences.variational import advantage, bounded_below, renyi_bound, weighted_mean

FOLDS = 5
LEAST, MOST = 20, 20_000  # draws of each side that a classifier needs, and that it uses
PRODUCTS = 20  # columns up to which all products of two are features; beyond, squares only


class LogRatios(NamedTuple):
    """Held-out estimates of log p/q at the draws of either side, the weights of the draws, and notes."""

    x: Tensor
    y: Tensor
    v: Tensor
    w: Tensor
    notes: tuple[str, ...]


def log_ratios(x: Draws, y: Draws, names: tuple[str, str], seed: int) -> LogRatios:
    """Return the logits of a classifier, each from a fit that has not seen the draw (5-fold cross-fitting)."""
    for name, draws in zip(names, (x, y)):
        if draws.n < LEAST:
            raise NotApplicable(f"a classifier needs at least {LEAST} draws of each side; got {draws.n} of {name}.")
    (x, some), (y, more) = (at_most(d, MOST, name, 2 * seed + i) for i, (d, name) in enumerate(zip((x, y), names)))
    sides = [_array(x), _array(y)]
    points = np.concatenate([points for points, _ in sides])
    labels = np.repeat([1, 0], [x.n, y.n])
    weights = np.concatenate([w * (x.n + y.n) / 2 for _, w in sides])  # both sides weigh the same
    logits, chosen = cross_fit(points, labels, weights, seed)
    tally = ", ".join(f"{name} in {count}" for name, count in Counter(chosen).most_common())
    note = f"classifier, by held-out log-loss in each of {FOLDS} folds: {tally}"
    fx, fy = torch.from_numpy(logits).to(x.x.device).split([x.n, y.n])
    v, w = equal_weights(x.x, x.weights), equal_weights(y.x, y.weights).to(fy.device)
    return LogRatios(fx, fy, v, w, (*some, *more, note))


def _array(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    return draws.x.cpu().numpy(), equal_weights(draws.x, draws.weights).cpu().numpy()


def cross_fit(points: np.ndarray, labels: np.ndarray, weights: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return held-out logits for all rows, and the classifier that was chosen in each fold."""
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    logits, chosen = np.empty(len(points)), []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # many small fits: threads would cost more than they give
        for train, test in folds.split(points, labels):
            name, model = best(points[train], labels[train], weights[train], seed)
            logits[test] = model.decision_function(points[test])
            chosen.append(name)
    return logits, chosen


def best(points: np.ndarray, labels: np.ndarray, weights: np.ndarray, seed: int) -> tuple[str, Any]:
    """Return the candidate with the least log-loss on a quarter of the rows, fitted to all of them."""
    from sklearn.model_selection import train_test_split

    rows, test = train_test_split(np.arange(len(points)), test_size=0.25, random_state=seed, stratify=labels)
    signs = 1 - 2 * labels[test]
    losses = {}
    for name, model in candidates(len(rows), points.shape[1], seed).items():
        fit(model, points[rows], labels[rows], weights[rows])
        losses[name] = weights[test] @ np.logaddexp(0, signs * model.decision_function(points[test]))
    name = min(losses, key=losses.__getitem__)
    return name, fit(candidates(len(points), points.shape[1], seed)[name], points, labels, weights)


def fit(model: Any, points: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Any:
    """Fit a classifier or a pipeline that ends in one, with weights."""
    if np.allclose(weights, 1, rtol=0, atol=1e-12):  # scikit-learn's trees take fifteen times as long with weights
        return model.fit(points, labels)
    step = f"{model.steps[-1][0]}__" if hasattr(model, "steps") else ""
    return model.fit(points, labels, **{f"{step}sample_weight": weights})


def held_out_logits(x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor, str]:
    """Fit a classifier to half of the draws of each side; return its logits at the others, and its name."""
    from threadpoolctl import threadpool_limits

    halves = []
    for i, points in enumerate((x, y)):
        with seeded(2 * seed + i):
            order = torch.randperm(len(points))
        halves.append([part.numpy() for part in points.cpu()[order].chunk(2)])
    rows = np.concatenate([train for train, _ in halves])
    sizes = [len(train) for train, _ in halves]
    with threadpool_limits(1):
        weights = np.repeat([sum(sizes) / 2 / size for size in sizes], sizes)
        name, model = best(rows, np.repeat([1, 0], sizes), weights, seed)
        fx, fy = (torch.from_numpy(model.decision_function(test)) for _, test in halves)
    return fx.to(x.device), fy.to(x.device), name


def candidates(rows: int, columns: int, seed: int) -> dict[str, Any]:
    """Return unfitted classifiers: smooth ones for Gaussian and for curved borders, and trees for jumps."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

    def logistic(*features: Any) -> Any:
        return make_pipeline(StandardScaler(), *features, LogisticRegression(max_iter=1000))

    squares = PolynomialFeatures(2, include_bias=False) if columns <= PRODUCTS else FunctionTransformer(with_squares)
    landmarks = Nystroem(gamma=0.5 / columns, n_components=min(100, rows // 2), random_state=seed)
    return {
        "linear logistic regression": logistic(),
        "quadratic logistic regression": logistic(squares, StandardScaler()),
        "logistic regression on RBF features": logistic(landmarks, StandardScaler()),
        "boosted trees": HistGradientBoostingClassifier(
            learning_rate=0.2, max_iter=50, max_leaf_nodes=8, early_stopping=True, random_state=seed
        ),
    }


def with_squares(points: np.ndarray) -> np.ndarray:
    """Return the columns and their squares."""
    return np.concatenate([points, points**2], axis=1)


def estimate(divergence: str, x: Draws, y: Draws, names: tuple[str, str], seed: int, *notes: str) -> Estimate:
    """Return a divergence by its variational bound at held-out log-ratios."""
    ratios = log_ratios(x, y, names, seed)
    notes = (*notes, *ratios.notes)
    if divergence == "kl":
        return _kl(ratios, notes)
    value, stderr = advantage(*ratios[:4]) if divergence == "tv" else bounded_below(divergence, *ratios[:4])
    return Estimate(value, stderr, "classifier", "lower bound", _size(ratios), notes)


def renyi(x: Draws, y: Draws, alpha: float, names: tuple[str, str], seed: int, *notes: str) -> Estimate:
    """Return the Rényi divergence by its variational bound at held-out log-ratios; heavy tails leave no error."""
    ratios = log_ratios(x, y, names, seed)
    value, stderr, k = renyi_bound(*ratios[:4], alpha)
    notes = (*notes, *ratios.notes)
    if k >= 0.5:
        notes += (f"the averaged powers of p/q have a heavy tail (Pareto k-hat {k:.2f}), so no error",)
        return Estimate(value, None, "classifier", "lower bound", _size(ratios), notes)
    return Estimate(value, stderr, "classifier", "lower bound", _size(ratios), notes)


def _size(ratios: LogRatios) -> int:
    return len(ratios.x) + len(ratios.y)


def _kl(ratios: LogRatios, notes: tuple[str, ...]) -> Estimate:
    """The bound E_p f − E_q e^f + 1 errs by the square of the classifier's error; without a variance, E_p f is left."""
    value, stderr = bounded_below("kl_nwj", *ratios[:4])
    k = pareto_k(ratios.y + ratios.w.log())
    if k < 0.5:
        return Estimate(value, stderr, "classifier", "lower bound", _size(ratios), notes)
    value = weighted_mean(ratios.x, ratios.v)
    notes += (
        f"p/q has a heavy tail under q (Pareto k-hat {k:.2f}): the mean log-ratio is given, which need not be a lower "
        "bound, and no error",
        *beyond(value, len(ratios.y)),
    )
    return Estimate(value, None, "classifier", "expected estimate", _size(ratios), notes)


def beyond(value: float, n: int) -> tuple[str, ...]:
    """Return a note if a divergence in nats is more than n draws can show."""
    if value <= math.log(n):
        return ()
    return (f"{value:.3g} is above log n = {math.log(n):.3g}: {n} draws of q cannot show so large a divergence",)
