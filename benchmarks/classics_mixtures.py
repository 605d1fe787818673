"""The variational mixture against scikit-learn's ``BayesianGaussianMixture``: log-likelihood, time and memory.

Iris, wine and a simulated mixture of three tilted normals. Both sides try the same numbers of components, with five
starts each, and take the one with the highest bound of their own; scikit-learn's default, one component, stands
beside. Log-likelihoods are means over held-out rows, in nats and in the data's units. Splits of the same rows overlap,
so that their differences have the standard error of Nadeau and Bengio (2003), √(1/J + test/train) · sd, which counts
it; simulated rows are drawn anew each time, and have sd/√J. CPU seconds are medians; memory is the rise of the resident
set to its peak, in a process of its own.

Run: ``python benchmarks/classics_mixtures.py [--splits 20]``.
"""

import argparse
import math
import multiprocessing
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from results import add_flag, keep, ranged, save, uncertain
from sklearn.datasets import load_iris, load_wine
from sklearn.mixture import BayesianGaussianMixture

from probdl.models import GaussianMixture

NUMBERS = range(1, 6)
WEIGHTS, MEANS = [0.5, 0.3, 0.2], np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 4.0]])
ROOTS = np.array([[[2.0, 0.0], [1.5, 0.5]], [[0.5, 0.0], [-0.3, 1.0]], [[1.0, 0.0], [0.0, 0.4]]])
METHODS = ("probdl", "scikit-learn", "scikit-learn's default")


def simulated(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=WEIGHTS)
    return MEANS[labels] + np.einsum("nij,nj->ni", ROOTS[labels], rng.normal(size=(n, 2)))


def halves(name, seed):
    """Return training and held-out rows: four fifths and a fifth, or 320 and 1000 simulated ones."""
    if name == "simulated":
        return simulated(320, 2 * seed), simulated(1000, 2 * seed + 1)
    x = {"iris": load_iris, "wine": load_wine}[name]().data
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order[: len(x) * 4 // 5]], x[order[len(x) * 4 // 5 :]]


def fitted(method, x, seed):
    """Return the mean log-likelihood of rows as a function, and the number of components."""
    if method == "probdl":
        model = GaussianMixture(NUMBERS).fit(x, seed=seed)
        return lambda y: float(model.log_prob(y).mean()), len(model.weights)
    numbers = NUMBERS if method == "scikit-learn" else [1]
    tries = [BayesianGaussianMixture(n_components=k, n_init=5, max_iter=500, random_state=seed).fit(x) for k in numbers]
    best = max(tries, key=lambda one: one.lower_bound_)
    return best.score, best.n_components


def memory(method, name):
    """Return the MiB by which the resident set of this process rises at most in a fit (Linux)."""
    warnings.simplefilter("ignore")
    fitted(method, halves("simulated", 0)[0][:40], 0)  # loads what the fit needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = resident("VmRSS")
    fitted(method, halves(name, 0)[0], 0)
    return resident("VmHWM") - before


def resident(what):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def peak(method, name):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (method, name))


def runs(name, splits):
    """Return log-likelihoods, numbers of components and CPU seconds, (splits, methods) each."""
    found = np.zeros((3, splits, len(METHODS)))
    for i in range(splits):
        train, held = halves(name, i)
        for j, method in enumerate(METHODS):
            started = time.process_time()
            score, number = fitted(method, train, i)
            seconds = time.process_time() - started
            found[:, i, j] = score(held), number, seconds
    return found


def error_of(gaps, name):
    """Return the standard error of a mean of paired differences."""
    overlap = 0.0 if name == "simulated" else 0.25
    return gaps.std(ddof=1) * math.sqrt(1 / len(gaps) + overlap)


def mixtures(splits=20):
    """Return the table: a row for each data set and method."""
    rows = []
    for name in ("iris", "wine", "simulated"):
        scores, numbers, seconds = runs(name, splits)
        for j, method in enumerate(METHODS):
            gaps = scores[:, 0] - scores[:, j]
            rows.append({
                "data": name, "method": method, "log-likelihood": scores[:, j].mean(),
                "ours minus it": gaps.mean(), "± s.e.": error_of(gaps, name), "components": numbers[:, j].mean(),
                "CPU s": np.median(seconds[:, j]), "CPU s, longest": seconds[:, j].max(),
                "ours / its time": np.median(seconds[:, 0] / seconds[:, j]), "MiB": peak(method, name),
            })  # fmt: skip
            cells = {
                "log-likelihood": uncertain(scores[:, j].mean(), error_of(scores[:, j], name)),
                "ours minus its": uncertain(gaps.mean(), error_of(gaps, name)),
                "components": ranged(numbers[:, j]), "CPU s": ranged(seconds[:, j]),
                "its time ÷ ours": ranged(seconds[:, j] / seconds[:, 0]), "MiB": rows[-1]["MiB"],
            }  # fmt: skip
            keep(name, side=method, **cells)
    return pd.DataFrame(rows).set_index(["data", "method"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=20)
    add_flag(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(mixtures(options.splits).round(3).to_string())
    save(options, __file__)
