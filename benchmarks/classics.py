"""Kernel density estimates against SciPy, scikit-learn and KDEpy: log-likelihood, digits, time and memory.

All sides get the same rows and the same bandwidth matrix h²·I, Silverman's of the rows' mean variance, and evaluate
the log-density at as many new rows. Every measurement is a process of its own with one thread, so that its peak of
memory is its own; the sides alternate. Seconds are medians over rounds, after a first call on few rows has imported
what is needed; memory is the rise of the resident set to its peak. scikit-learn sums by a tree, exactly at its default
tolerances; KDEpy's ``TreeKDE`` cuts the Gaussian off. Mixtures: ``classics_mixtures.py``. Needs the extra ``bench``.

Run: ``python benchmarks/classics.py [--rounds 5] [--largest 10000]``.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from results import add_flag, keep, ranged, save

SIDES = ("probdl", "scipy", "scikit-learn", "KDEpy")
CASES = [(1, 10_000), (2, 10_000), (5, 10_000), (2, 100_000)]
FEW = 10_000  # rows above which only our side is timed: the others take minutes


def rows(d, n):
    """Train and held-out rows of a mixture of two tilted normals."""
    noise = np.random.default_rng(d)
    tilt = np.tril(np.full((d, d), 0.4)) + 0.6 * np.eye(d)
    x = noise.normal(size=(2 * n, d)) @ tilt.T + 3 * (noise.random((2 * n, 1)) < 0.3)
    return x[:n], x[n:]


def bandwidth(x):
    n, d = x.shape
    return math.sqrt(x.var(0).mean()) * (n * (d + 2) / 4) ** (-1 / (d + 4))


def probdl(x, y, h):
    from probdl.models import KDE

    return KDE(h).fit(x, device="cpu").log_prob(y).numpy()


def scipy(x, y, h):
    from scipy.stats import gaussian_kde

    kde = gaussian_kde(x.T)
    kde.covariance, kde.cho_cov = h**2 * np.eye(x.shape[1]), h * np.eye(x.shape[1])
    kde.log_det = 2 * x.shape[1] * math.log(h * math.sqrt(2 * math.pi))
    return np.log(kde(y.T))


def scikit_learn(x, y, h):
    from sklearn.neighbors import KernelDensity

    return KernelDensity(bandwidth=h).fit(x).score_samples(y)


def kdepy(x, y, h):
    from KDEpy import TreeKDE

    order = np.lexsort(y.T[::-1])  # it takes sorted points only
    found = np.empty(len(y))
    found[order] = TreeKDE(kernel="gaussian", bw=h).fit(x).evaluate(np.ascontiguousarray(y[order]))
    return np.log(found)


RUN = dict(zip(SIDES, (probdl, scipy, scikit_learn, kdepy)))


def measure(side, d, n):
    """Run one side once, and return its numbers and its log-densities."""
    import torch

    torch.set_num_threads(1)
    x, y = rows(d, n)
    h = bandwidth(x)
    RUN[side](x[:50], y[:50], h)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    log = RUN[side](x, y, h)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"wall": wall, "cpu": cpu, "MB": memory, "log": log.tolist()}


def apart(side, d, n):
    """The same in a process of its own."""
    threads = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", side, str(d), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env=threads, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(d, n, rounds):
    """Print a table of one case."""
    sides = SIDES if n <= FEW else SIDES[:1]
    found = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side].append(apart(side, d, n))
    ours = np.array(found["probdl"][0]["log"])
    print(f"\n{n} rows at {n} rows, d = {d}, h = {bandwidth(rows(d, n)[0]):.4f}")
    print(
        f"{'':13}{'CPU s':>9}{'wall s':>9}{'CPU ratio':>11}{'MB':>8}{'held-out log-lik':>18}{'largest rel. diff':>19}"
    )
    for side in sides:
        log = np.array(found[side][0]["log"])
        cpu, wall, memory = (np.median([r[key] for r in found[side]]) for key in ("cpu", "wall", "MB"))
        ratio = np.median([r["cpu"] / o["cpu"] for r, o in zip(found[side], found["probdl"])])
        away = np.abs(np.expm1(log - ours)).max()
        print(f"{side:13}{cpu:9.3f}{wall:9.3f}{ratio:11.2f}{memory:8.0f}{log.mean():18.6f}{away:19.1e}")
        ratios = ranged(r["cpu"] / o["cpu"] for r, o in zip(found[side], found["probdl"]))
        cells = {
            "CPU s": ranged(r["cpu"] for r in found[side]), "its time ÷ ours": ratios, "MB": memory,
            "held-out log-likelihood": log.mean(), "largest relative difference": away,
        }  # fmt: skip
        keep(f"density at {n} rows from {n} rows, d = {d}", side=side, **cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "D", "N"), help="for the program itself")
    add_flag(parser)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.one:
        side, d, n = asked.one
        print(json.dumps(measure(side, int(d), int(n))))
        return
    for d, n in CASES:
        if n <= asked.largest:
            compared(d, n, asked.rounds)
    save(asked, __file__, ("KDEpy",))


if __name__ == "__main__":
    main()
