"""Do the intervals cover, and do the tests hold their level?

For every estimator whose target is "population": the share of 95 % intervals that hold the true divergence, over many
independent repeats, with its binomial standard error, and how often no interval was given. Where many are withheld the
share is one among those that were given, which are the larger estimates, and so it is not 95 %. Then the share of lower
bounds whose lower limit is not above the truth (97.5 %, or more where the bound is loose), and the share of permutation
tests that reject at 5 % where the distributions are equal.

Run ``python benchmarks/interval_coverage.py [--repeats 1000] [--only mmd2]``.
"""

import argparse
import math

import torch
from torch.distributions import Independent, Laplace, Normal, StudentT

from probdl import LogDensity, divergences
from probdl.divergences import RBF, two_sample_test

RATE = 0.05


def normals(n, dim, seed, shift=0.0, scale=1.0):
    x = scale * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x


def gaussian(dim, shift=0.0, scale=1.0):
    mean = torch.zeros(dim, dtype=torch.float64)
    mean[0] = shift
    return Independent(Normal(mean, scale * torch.ones_like(mean)), 1)


def monte_carlo(name, p, q, *args, draws=2000):
    """A divergence of two distributions by Monte Carlo against the same by closed form or quadrature."""
    divergence = getattr(divergences, name)
    truth = divergence(p, q, *args).value
    return lambda seed: divergence(p, q, *args, method="monte carlo", seed=seed, draws=draws), truth


def from_draws(name, dim, n, m, shift, scale=1.0, *args):
    """A divergence of Gaussian draws against its closed form."""
    divergence = getattr(divergences, name)
    truth = divergence(gaussian(dim), gaussian(dim, shift, scale), *args).value
    return lambda s: divergence(normals(n, dim, 2 * s), normals(m, dim, 2 * s + 1, shift, scale), *args), truth


def stein(n, shift, bandwidth=1.0):
    """KSD² of draws from N(shift, 1) against N(0, 1) known up to a constant."""
    density = LogDensity(lambda x: -(x[:, 0] ** 2) / 2, dim=1)
    truth = shift**2 * math.sqrt(bandwidth**2 / (bandwidth**2 + 2))
    return lambda s: divergences.ksd2(normals(n, 1, s, shift), density, RBF(bandwidth)), truth


def against_log_density():
    """KL of a law from a normalised log-density."""
    q = LogDensity(lambda x: -((x[:, 0] - 1) ** 2) / 2 - math.log(2 * math.pi) / 2, dim=1, normalised=True)
    return lambda s: divergences.kl(Normal(0.0, 1.0), q, seed=s, draws=1000), 0.5


N0, N1, WIDE = Normal(0.0, 1.0), Normal(1.0, 1.0), Normal(1.0, 2.0)
POPULATION = {
    "kl, N(0,1) from N(1,4), monte carlo": lambda: monte_carlo("kl", N0, WIDE),
    "kl, N(1,4) from N(0,1), monte carlo": lambda: monte_carlo("kl", WIDE, N0),
    "kl, shift 1 in 5 dimensions, monte carlo": lambda: monte_carlo("kl", gaussian(5), gaussian(5, 1.0)),
    "kl, Laplace from Student t(3), monte carlo": lambda: monte_carlo("kl", Laplace(0.0, 1.0), StudentT(3.0)),
    "kl, N(0,1) from a log-density": against_log_density,
    "js, shift 1, monte carlo": lambda: monte_carlo("js", N0, N1),
    "tv, shift 1, monte carlo": lambda: monte_carlo("tv", N0, N1),
    "tv, Student t(3) and N(0,1), monte carlo": lambda: monte_carlo("tv", StudentT(3.0), N0),
    "hellinger2, N(0,1) and N(1,4), monte carlo": lambda: monte_carlo("hellinger2", N0, WIDE),
    "chi2, shift .3, monte carlo": lambda: monte_carlo("chi2", Normal(0.3, 1.0), N0),
    "chi2, N(0,1) from N(1,4), monte carlo": lambda: monte_carlo("chi2", N0, WIDE),
    "renyi .7, N(0,1) from N(1,4), monte carlo": lambda: monte_carlo("renyi", N0, WIDE, 0.7),
    "mmd2, shift 1, n=100": lambda: from_draws("mmd2", 1, 100, 100, 1.0, 1.0, RBF(1.0)),
    "mmd2, shift 1, n=200": lambda: from_draws("mmd2", 1, 200, 200, 1.0, 1.0, RBF(1.0)),
    "mmd2, scale 2 in 2 dimensions, n=200, m=300": lambda: from_draws("mmd2", 2, 200, 300, 0.0, 2.0, RBF(1.0)),
    "mmd2, shift 1 in 10 dimensions, n=200": lambda: from_draws("mmd2", 10, 200, 200, 1.0, 1.0, RBF(3.0)),
    "energy, shift 1, n=100": lambda: from_draws("energy", 1, 100, 100, 1.0),
    "energy, shift 1, n=200": lambda: from_draws("energy", 1, 200, 200, 1.0),
    "energy, shift 1 in 10 dimensions, n=200, m=300": lambda: from_draws("energy", 10, 200, 300, 1.0),
    "mmd2, shift 1, monte carlo": lambda: monte_carlo("mmd2", N0, N1, RBF(1.0)),
    "energy, shift 1, monte carlo": lambda: monte_carlo("energy", N0, N1),
    "ksd2, shift 1, n=200": lambda: stein(200, 1.0),
}
LOWER_BOUNDS = {
    "js by classifier, shift 1, n=100": lambda: from_draws("js", 1, 100, 100, 1.0),
    "tv by classifier, shift 1, n=100": lambda: from_draws("tv", 1, 100, 100, 1.0),
    "hellinger2 by classifier, shift 1, n=100": lambda: from_draws("hellinger2", 1, 100, 100, 1.0),
}


def coverage(case, repeats):
    """Return the truth, the mean estimate, the shares of intervals that hold it and that reach below it, and gaps."""
    estimate, truth = case()
    found = [estimate(seed) for seed in range(repeats)]
    intervals = [e.interval() for e in found if e.stderr is not None]
    held = sum(low <= truth <= high for low, high in intervals)
    below = sum(low <= truth for low, _ in intervals)
    mean = sum(e.value for e in found) / repeats
    return {"truth": truth, "mean": mean, "held": held, "below": below, "given": len(intervals), "repeats": repeats}


def level(statistic, repeats, n=40, m=30):
    """Return how often a test at 5 % rejects draws of one distribution; 19 relabellings make the level exactly 5 %."""
    tests = (two_sample_test(normals(n, 2, 2 * s), normals(m, 2, 2 * s + 1), statistic, 19, s) for s in range(repeats))
    return sum(test.p_value <= RATE + 1e-9 for test in tests)


def share(count, of):
    """Write a share with its binomial standard error, in per cent."""
    p = count / of if of else math.nan
    return f"{100 * p:5.1f} ± {100 * math.sqrt(p * (1 - p) / of) if of else math.nan:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'95 % intervals':50} {'truth':>8} {'mean':>8} {'covered, %':>12} {'withheld':>9}")
    for name, case in POPULATION.items():
        if arguments.only in name:
            r = coverage(case, arguments.repeats)
            gaps = r["repeats"] - r["given"]
            print(
                f"{name:50} {r['truth']:8.4f} {r['mean']:8.4f} {share(r['held'], r['given']):>12} {gaps:9d}", flush=True
            )
    print(f"\n{'lower bounds':50} {'truth':>8} {'mean':>8} {'below, %':>12}")
    for name, case in LOWER_BOUNDS.items():
        if arguments.only in name:
            r = coverage(case, arguments.repeats // 5)
            print(f"{name:50} {r['truth']:8.4f} {r['mean']:8.4f} {share(r['below'], r['given']):>12}", flush=True)
    print(f"\n{'permutation tests at 5 %, equal distributions':50} {'rejected, %':>30}")
    for statistic in ("mmd2", "energy", "classifier"):
        if arguments.only in f"{statistic} level":
            repeats = arguments.repeats // (5 if statistic == "classifier" else 1)
            print(f"{statistic:50} {share(level(statistic, repeats, 60, 50), repeats):>30}", flush=True)


if __name__ == "__main__":
    main()
