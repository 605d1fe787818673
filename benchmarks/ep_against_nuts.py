"""Expectation propagation against Pyro's NUTS on a logistic regression: 569 rows, 31 coefficients.

Each run is a process of its own; imports are not counted, everything from the call to the posterior is. The long
reference run is NUTS on the recorded density. Run: ``python benchmarks/ep_against_nuts.py [--pyro-runs 3]``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time


def model(X, y=None):
    import pyro
    import pyro.distributions as dist

    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


def run_probdl(method):
    from probdl import data
    from probdl.inference import NUTS, fit

    X, y = data.breast_cancer(standardise=True)
    started = time.perf_counter()
    posterior = fit(model, X, y, method=NUTS(draws=2000, warmup=300, chains=4) if method == "long" else method)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    if method != "long":
        fit(model, X, y, method=method)
    warm = time.perf_counter() - started
    table = posterior.summary()
    rhat = float(table["rhat"].max()) if "rhat" in table else None
    ess = float(table["ess"].min()) if "ess" in table else None
    return {
        "seconds": seconds, "warm": warm, "mean": table["mean"].tolist(), "sd": table["sd"].tolist(), "rhat": rhat,
        "ess": ess,
    }  # fmt: skip


def run_pyro():
    """Pyro's NUTS as its users call it: 500 steps of warm-up, 500 draws, one chain."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    from probdl import data

    X, y = data.breast_cancer(standardise=True)
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(0)
    started = time.perf_counter()
    sampler = MCMC(NUTS(model), num_samples=500, warmup_steps=500, disable_progbar=True)
    sampler.run(X, y)
    seconds = time.perf_counter() - started
    draws = sampler.get_samples()
    columns = torch.cat([draws["b"][:, None], draws["w"]], 1)
    return {"seconds": seconds, "mean": columns.mean(0).tolist(), "sd": columns.std(0).tolist()}


def fresh(side, threads):
    command = [sys.executable, __file__, "--side", side, "--threads", str(threads)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def against(result, reference):
    """Largest and mean absolute error of the means in sds, and the range of the sd ratio."""
    gaps = [abs(m - r) / s for m, r, s in zip(result["mean"], reference["mean"], reference["sd"])]
    ratios = [s / r for s, r in zip(result["sd"], reference["sd"])]
    return statistics.mean(gaps), max(gaps), statistics.mean(ratios), min(ratios), max(ratios)


def report(name, runs, reference):
    seconds = statistics.median(r["seconds"] for r in runs)
    gap, worst, ratio, low, high = against(runs[0], reference)
    print(
        f"{name:<28}{seconds:>9.2f} s  {gap:>9.4f}  {worst:>9.4f}  {ratio:>9.4f}   {low:.4f} to {high:.4f}", flush=True
    )
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["ep", "laplace", "long", "pyro"])
    parser.add_argument("--threads", type=int, default=1, help="torch threads, the same for both sides")
    parser.add_argument("--pyro-runs", type=int, default=3)
    parser.add_argument("--ep-runs", type=int, default=5)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(options.threads)
        print(json.dumps(run_pyro() if options.side == "pyro" else run_probdl(options.side)))
        return
    reference = fresh("long", options.threads)
    error = reference["ess"] ** -0.5
    print(f"Reference: NUTS, 4 × 2000 draws, R-hat {reference['rhat']:.4f}, smallest ESS {reference['ess']:.0f};")
    print(f"its own Monte Carlo error is {error:.3f} sd in means, {0.7 * error:.1%} in sds.\n")
    print(f"{'':<28}{'median':>11}  {'|Δm|/sd':>9}  {'largest':>9}  {'sd ratio':>9}   range")
    eps, pyros = [], []
    for i in range(max(options.ep_runs, options.pyro_runs)):  # interleaved, so that a drift meets both
        eps += [fresh("ep", options.threads)] if i < options.ep_runs else []
        pyros += [fresh("pyro", options.threads)] if i < options.pyro_runs else []
    ours = report("probdl, EP", eps, reference)
    print(f"{'  second call, same process':<28}{statistics.median(r['warm'] for r in eps):>9.2f} s")
    report("probdl, Laplace", [fresh("laplace", options.threads)], reference)
    theirs = report("Pyro, NUTS 500 + 500", pyros, reference)
    print(f"\nPyro ÷ EP: {theirs / ours:.0f} (medians of {len(pyros)} and {len(eps)} processes)")


if __name__ == "__main__":
    main()
