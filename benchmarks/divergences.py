"""Divergences against POT, GeomLoss, hyppo and SciPy: seconds, extra memory, value and truth, in one run.

Every measurement is a process of its own, so that its peak of memory is its own; the two sides of a pair alternate, on
the same inputs (float64, Gaussian draws whose divergence is known) and the same number of threads. Seconds are of the
second call in the process, after a first on small inputs has imported what is needed; the ratio is the median over
pairs. Needs the extra ``bench``: ``python benchmarks/divergences.py [--pairs 5] [--only sliced]``.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np
from results import add_flag, keep, ranged, save


def normals(n, dim, shift=1.0, seed=0):
    """Two samples from N(0, I) and N(shift·e₁, I), as tensors."""
    import torch

    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, dim, generator=g, dtype=torch.float64)
    y[:, 0] += shift
    return x, y


def naive_mmd2(x, y):
    """The textbook formula with whole Gram matrices, as users write it."""
    import torch

    def gram(a, b):
        return torch.exp(-(torch.cdist(a, b) ** 2) / (2 * x.shape[1]))

    n, m = len(x), len(y)
    kx, ky = gram(x, x), gram(y, y)
    return ((kx.sum() - n) / (n * (n - 1)) + (ky.sum() - m) / (m * (m - 1)) - 2 * gram(x, y).mean()).item()


def rbf_truth(dim, shift=1.0):
    """MMD² of the two normals under an RBF kernel of bandwidth √dim."""
    same = (dim / (dim + 2)) ** (dim / 2)
    return 2 * same * (1 - math.exp(-(shift**2) / (2 * (dim + 2))))


def ours(name, *args, **kwargs):
    from probdl import divergences

    return float(getattr(divergences, name)(*args, **kwargs))


def ours_mmd2(x, y):
    from probdl.divergences import RBF, mmd2

    return float(mmd2(x, y, kernel=RBF(math.sqrt(x.shape[1]))))


def geomloss(x, y, loss, scale, **options):
    from geomloss import SamplesLoss

    return scale * SamplesLoss(loss, backend="tensorized", **options)(x, y).item()


def pot_sliced(x, y):
    import ot

    return float(ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=100, seed=0))


def pot_exact(x, y):
    import ot

    cost = ot.dist(x.numpy(), y.numpy())
    return math.sqrt(ot.emd2([], [], cost, numItermax=10**9))


def hyppo_test(x, y, permutations):
    from hyppo.ksample import MMD

    return float(MMD().test(x.numpy(), y.numpy(), reps=permutations, workers=1)[1])


def scipy_line(x, y, what):
    import scipy.stats

    value = getattr(scipy.stats, f"{what}_distance")(x.numpy()[:, 0], y.numpy()[:, 0])
    return value**2 if what == "energy" else value


# name: (size, dimension, shift), ours, {peer: function}, truth, and what a peer's seconds must be multiplied with
CASES = {
    "sliced W2, 100 directions": (
        (100_000, 10, 1.0),
        lambda x, y: ours("sliced_wasserstein", x, y, order=2, directions=100),
        {"POT": pot_sliced},
        math.sqrt(1 / 10),
    ),
    "energy": (
        (10_000, 10, 1.0),
        lambda x, y: ours("energy", x, y),
        {"GeomLoss": lambda x, y: geomloss(x, y, "energy", 2.0)},
        0.215863,
    ),
    "MMD²": ((10_000, 10, 1.0), ours_mmd2, {"naive torch": naive_mmd2}, rbf_truth(10)),
    "MMD², 10⁵ rows": ((100_000, 10, 1.0), ours_mmd2, {}, rbf_truth(10)),
    "exact W2": (
        (3000, 2, 1.0),
        lambda x, y: ours("wasserstein", x, y, order=2, method="exact transport"),
        {"POT": pot_exact},
        1.0,
    ),
    "Sinkhorn, squared cost": (
        (2000, 2, 1.0),
        lambda x, y: ours("sinkhorn", x, y, order=2, epsilon=0.5),
        {"GeomLoss": lambda x, y: geomloss(x, y, "sinkhorn", 2.0, p=2, blur=0.5, scaling=0.9)},
        1.0,
    ),
    "W1 on the line": (
        (1_000_000, 1, 1.0),
        lambda x, y: ours("wasserstein", x, y),
        {"SciPy": lambda x, y: scipy_line(x, y, "wasserstein")},
        1.0,
    ),
    "energy on the line": (
        (20_000, 1, 1.0),
        lambda x, y: ours("energy", x, y),
        {"SciPy (biased)": lambda x, y: scipy_line(x, y, "energy")},
        2 * (2 * math.exp(-0.25) / math.sqrt(math.pi) + math.erf(0.5)) - 4 / math.sqrt(math.pi),
    ),
    "permutation test, 999": (
        (500, 10, 0.0),
        lambda x, y: _test(x, y),
        {"hyppo, from 19": lambda x, y: hyppo_test(x, y, 19)},
        None,
    ),
}
EXTRAPOLATE = {"hyppo, from 19": 999 / 19}


def _test(x, y):
    from probdl.divergences import two_sample_test

    return two_sample_test(x, y, statistic="mmd2", permutations=999).p_value


def measure(case, side, threads):
    """Run one side once small, once in full; return seconds, extra megabytes at the peak, and the value."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    (n, dim, shift), function, peers, _ = CASES[case]
    function = function if side == "probdl" else peers[side]
    function(*normals(64, dim, shift, seed=1))
    x, y = normals(n, dim, shift)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    value = function(x, y)
    seconds = (time.perf_counter() - started) * EXTRAPOLATE.get(side, 1.0)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "megabytes": megabytes, "value": value}


def fresh(case, side, threads):
    command = [sys.executable, __file__, "--case", case, "--side", side, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def row(case, side, runs, truth, ratios):
    seconds = statistics.median(r["seconds"] for r in runs)
    megabytes = statistics.median(r["megabytes"] for r in runs)
    known = "" if truth is None else f"{truth:.4f}"
    ratio = "" if not ratios else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    print(
        f"{case:<27}{side:<16}{seconds:>9.3f} {megabytes:>9.0f} {runs[0]['value']:>10.4f} {known:>8}  {ratio}",
        flush=True,
    )
    cells = {
        "seconds": ranged(r["seconds"] for r in runs), "extra MB": megabytes, "value": runs[0]["value"],
        "truth": known, "its time ÷ ours": ranged(ratios) if ratios else "1",
    }  # fmt: skip
    keep("divergences", case=case, side=side, **cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--side")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, the same for both sides")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", default="", help="run only the cases whose name holds this")
    add_flag(parser)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.side, options.threads)))
        return
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {options.threads} thread(s)")
    print(
        f"{'':<27}{'':<16}{'seconds':>9} {'extra MB':>9} {'value':>10} {'truth':>8}  peer ÷ probdl (range over pairs)"
    )
    for case in [c for c in CASES if options.only.lower() in c.lower()]:
        truth = CASES[case][3]
        pairs = [
            [fresh(case, side, options.threads) for side in ("probdl", *CASES[case][2])] for _ in range(options.pairs)
        ]
        for i, side in enumerate(("probdl", *CASES[case][2])):
            runs, errors = [p[i][0] for p in pairs if p[i][0]], [p[i][1] for p in pairs if p[i][1]]
            if errors:
                print(f"{case:<27}{side:<16} failed: {errors[0]}")
                continue
            ours_first = [p[0][0]["seconds"] for p in pairs if p[0][0]]
            row(case, side, runs, truth, [r["seconds"] / o for r, o in zip(runs, ours_first)] if i else [])
    save(options, __file__, ("pot", "geomloss", "hyppo"))


if __name__ == "__main__":
    main()
