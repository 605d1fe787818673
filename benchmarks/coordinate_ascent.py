"""Coordinate ascent against BayesPy: the bound of each iteration, and the time of one, in one process.

The models are those of BayesPy's paper (Luttinen 2016, JMLR 17): Gaussian mixtures with full precisions, and principal
components with automatic relevance; and a hierarchical normal of 200 groups × 50. Both sides start from the same
factors and update them in the same order, so that their bounds agree iteration by iteration. Timed are blocks of
iterations in turn, bound included; the ratio is the median over pairs. ``call`` is the time of ``fit`` from the call to
the Posterior, derivation, recording and check included, after ``iterations`` sweeps.

Run: ``python benchmarks/coordinate_ascent.py [--threads 1] [--pairs 5]``.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from results import add_flag, keep, ranged, save
from threadpoolctl import threadpool_limits

from probdl.inference import CoordinateAscent, fit
from probdl.inference.free_form.derive import derive
from probdl.inference.free_form.starts import start_from
from probdl.inference.programs.program import Program
from probdl.threads import one_thread


def mixture(x, k):
    d = x.shape[1]
    weights = pyro.sample("weights", dist.Dirichlet(1e-5 * torch.ones(k)))
    with pyro.plate("components", k):
        mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(d), precision_matrix=1e-5 * torch.eye(d)))
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(float(d)), precision_matrix=1e-5 * torch.eye(d)))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=precision[z]), obs=x)


def components(x, k):
    n, d = x.shape
    alpha = pyro.sample("alpha", dist.Gamma(1e-3 * torch.ones(k), 1e-3).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(1e-3, 1e-3))
    with pyro.plate("variables", d):
        w = pyro.sample("w", dist.Normal(0.0, alpha**-0.5).to_event(1))
    with pyro.plate("rows", n):
        z = pyro.sample("z", dist.Normal(torch.zeros(k), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ w.T, tau**-0.5).to_event(1), obs=x)


def hierarchical(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    between = pyro.sample("between", dist.Gamma(1.0, 1.0))
    within = pyro.sample("within", dist.Gamma(1.0, 1.0))
    with pyro.plate("groups", y.shape[1], dim=-1):
        theta = pyro.sample("theta", dist.Normal(mu, between.rsqrt()))
        with pyro.plate("rows", y.shape[0], dim=-2):
            pyro.sample("y", dist.Normal(theta, within.rsqrt()), obs=y)


def mixture_case(k, n, d):
    import bayespy.nodes as nodes
    from bayespy.inference import VB

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) + 5 * rng.normal(size=(k, d))[rng.integers(0, k, n)]
    r = rng.dirichlet(np.ones(k), n)
    weights = nodes.Dirichlet(1e-5 * np.ones(k))
    z = nodes.Categorical(weights, plates=(n,))
    mu = nodes.Gaussian(np.zeros(d), 1e-5 * np.eye(d), plates=(k,))
    precision = nodes.Wishart(d, 1e-5 * np.eye(d), plates=(k,))
    y = nodes.Mixture(z, nodes.Gaussian, mu, precision)
    y.observe(x)
    z.initialize_from_parameters(r)
    return (mixture, (x, k), {"z": r}), VB(y, weights, mu, precision, z)


def components_case(k, n, d):
    import bayespy.nodes as nodes
    from bayespy.inference import VB

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, k // 2)) @ rng.normal(size=(k // 2, d)) + 0.3 * rng.normal(size=(n, d))
    start = rng.normal(size=(n, k))
    alpha = nodes.Gamma(1e-3, 1e-3, plates=(k,))
    w = nodes.GaussianARD(0, alpha, plates=(d, 1), shape=(k,))
    z = nodes.GaussianARD(0, 1, plates=(1, n), shape=(k,))
    tau = nodes.Gamma(1e-3, 1e-3)
    y = nodes.GaussianARD(nodes.SumMultiply("i,i", w, z), tau)
    y.observe(x.T)
    z.initialize_from_parameters(start[None], 100.0)
    return (components, (x, k), {"z": start}), VB(y, alpha, tau, w, z)


def hierarchical_case(groups, rows):
    """Here the bounds differ: the package holds mu and theta in one joint Gaussian, BayesPy in two factors."""
    import bayespy.nodes as nodes
    from bayespy.inference import VB

    rng = np.random.default_rng(0)
    y = rng.normal(1, 2, groups) + rng.normal(size=(rows, groups))
    mu, between, within = nodes.GaussianARD(0, 1e-2), nodes.Gamma(1, 1), nodes.Gamma(1, 1)
    theta = nodes.GaussianARD(mu, between, plates=(groups,))
    observed = nodes.GaussianARD(theta, within, plates=(rows, groups))
    observed.observe(y)
    return (hierarchical, (y,), {}), VB(observed, mu, theta, between, within)


CASES = [
    ("mixture (10, 200, 2)", lambda: mixture_case(10, 200, 2), 50),
    ("mixture (40, 2000, 10)", lambda: mixture_case(40, 2000, 10), 4),
    ("mixture (3, 6000, 2)", lambda: mixture_case(3, 6000, 2), 20),
    ("components (10, 500, 20)", lambda: components_case(10, 500, 20), 50),
    ("components (40, 2000, 100)", lambda: components_case(40, 2000, 100), 4),
    ("hierarchical (200, 50)", lambda: hierarchical_case(200, 50), 100),
]


def blocks_of_iterations(field, peer, iterations, pairs):
    """Bounds of both sides, and seconds of an iteration, a block of iterations in turn."""
    bounds, seconds = ([], []), ([], [])
    for _ in range(pairs + 1):  # the first block warms both sides up, and records ours
        started = time.perf_counter()
        with one_thread(field.is_small()):  # as fit does
            for _ in range(iterations):
                field.sweep()
                bounds[0].append(float(field.elbo()))
        middle = time.perf_counter()
        for _ in range(iterations):
            peer.update(repeat=1, tol=0, verbose=False)
            bounds[1].append(peer.L[peer.iter - 1])
        seconds[0].append((middle - started) / iterations)
        seconds[1].append((time.perf_counter() - middle) / iterations)
    return bounds, [s[1:] for s in seconds]


def run(name, make, iterations, pairs):
    (model, args, start), peer = make()
    called = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(model, *args, method=CoordinateAscent(start=start, max_sweeps=iterations))
    called = time.perf_counter() - called
    field = derive(Program(model, args))
    start_from(field, start)
    (ours, theirs), (mine, peers) = blocks_of_iterations(field, peer, iterations, pairs)
    gap = np.abs(np.array(ours) / np.array(theirs) - 1).max()
    ratio = statistics.median(b / a for a, b in zip(mine, peers))
    low, high = min(b / a for a, b in zip(mine, peers)), max(b / a for a, b in zip(mine, peers))
    print(
        f"{name:<28}{1e3 * statistics.median(mine):>9.2f}{1e3 * statistics.median(peers):>10.2f}"
        f"{ratio:>8.2f} ({low:.2f} to {high:.2f}){called:>8.2f}{gap:>11.1e}",
        flush=True,
    )
    cells = {
        "ms an iteration": ranged(1e3 * s for s in mine), "BayesPy, ms": ranged(1e3 * s for s in peers),
        "BayesPy ÷ ours": ranged(b / a for a, b in zip(mine, peers)), "a call of fit, s": called,
        "bounds, largest relative difference": gap,
    }  # fmt: skip
    keep("an iteration of coordinate ascent, its bound included", model=name, **cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of BLAS")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--case", help="run only the cases whose names hold this")
    add_flag(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'':<28}{'ours, ms':>9}{'BayesPy':>10}{'BayesPy ÷ ours':>22}{'call, s':>9}{'bounds':>11}")
    with threadpool_limits(options.threads):
        for name, make, iterations in CASES:
            if not options.case or options.case in name:
                run(name, make, iterations, options.pairs)
    print("\nbounds: the largest relative difference of the two bounds over all iterations.")
    save(options, __file__, ("pyro-ppl", "bayespy"))


if __name__ == "__main__":
    main()
