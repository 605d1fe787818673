"""Deterministic mean field against stochastic VI on three logistic regressions: time, loss, distance from the optimum.

Each run is a process of its own, and the sides take turns; imports are not counted, everything from the call to the
result is (compilation too, unless the row says so). The loss of every side is the same exact negative bound: for a
logistic regression each factor's expectation under independent normals is a one-dimensional integral, here by 200
Gauss–Hermite nodes in NumPy. The true mean-field optimum is the minimum of that function, by SciPy's L-BFGS. The
posterior standard deviations are those of a long run of NUTS.

Run: ``python benchmarks/mean_field.py [--runs 3] [--threads 1] [--data spector]``. It needs numpyro, pymc and
statsmodels for the sides and data that use them; a side that is not installed is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from results import add_flag, keep, ranged, save

STEPS = 5000
DATA = ("spector", "breast cancer", "simulated")
SIDES = ("probdl", "pyro", "numpyro", "pymc")


def load(name):
    import numpy as np

    if name == "breast cancer":
        from probdl import data

        return tuple(np.asarray(a, float) for a in data.breast_cancer(standardise=True))
    if name == "spector":
        from statsmodels.datasets import spector

        frame = spector.load_pandas()
        X, y = frame.exog.to_numpy(float), frame.endog.to_numpy(float)
        return (X - X.mean(0)) / X.std(0), y
    rng = np.random.default_rng(8)
    X = rng.normal(size=(768, 8)) @ np.linalg.cholesky(0.5 * np.eye(8) + 0.5).T
    w = rng.normal(size=8)
    return X, (rng.random(768) < 1 / (1 + np.exp(-X @ w - 0.5))).astype(float)


def model(X, y=None):
    import pyro
    import pyro.distributions as dist

    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


class ExactBound:
    """The negative mean-field bound and its gradient in (m, log s), for b ~ N(0, 10²), w ~ N(0, 2²)."""

    def __init__(self, X, y, nodes=200):
        import numpy as np
        from numpy.polynomial.hermite_e import hermegauss

        self.A = np.column_stack([np.ones(len(X)), X])
        self.y, self.d = np.asarray(y, float), self.A.shape[1]
        self.prior = np.array([10.0] + [2.0] * X.shape[1]) ** -2
        self.t, weights = hermegauss(nodes)
        self.weights = weights / weights.sum()

    def __call__(self, phi):
        import numpy as np
        from scipy.special import expit

        m, s = phi[: self.d], np.exp(phi[self.d :])
        sd = np.sqrt(self.A**2 @ s**2)
        eta = (self.A @ m)[:, None] + sd[:, None] * self.t
        log_lik = (self.y[:, None] * eta - np.logaddexp(0, eta)) @ self.weights
        slope = self.y[:, None] - expit(eta)
        by_mean = slope @ self.weights
        by_variance = 0.5 * (slope * self.t) @ self.weights / sd
        log_prior = 0.5 * (np.log(self.prior / (2 * np.pi)) - self.prior * (m**2 + s**2)).sum()
        entropy = np.log(s).sum() + 0.5 * self.d * np.log(2 * np.pi * np.e)
        gradient_m = self.A.T @ by_mean - self.prior * m
        gradient_s = 2 * s**2 * (self.A.T**2 @ by_variance) - self.prior * s**2 + 1
        return -(log_lik.sum() + log_prior + entropy), -np.concatenate([gradient_m, gradient_s])

    def optimum(self):
        import numpy as np
        from scipy.optimize import minimize

        start = np.concatenate([np.zeros(self.d), -np.ones(self.d)])
        options = {"maxiter": 20_000, "maxfun": 100_000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 50}
        phi = minimize(self, start, jac=True, method="L-BFGS-B", options=options).x
        return phi[: self.d], np.exp(phi[self.d :])


def run_probdl(X, y):
    import pandas  # noqa: F401  imports are not counted, those at first use neither
    import scipy.optimize
    import scipy.special  # noqa: F401

    from probdl.inference import fit

    seconds = []
    for _ in range(4):  # the first call in a process pays for more than later ones
        started = time.perf_counter()
        posterior = fit(model, X, y, method="meanfield")
        seconds.append(time.perf_counter() - started)
    table = posterior.summary()
    columns = {name: table[name].tolist() for name in ("mean", "sd", "sd_lr")}
    return {"seconds": seconds[0], "again": statistics.median(seconds[1:]), "message": posterior.message} | columns


def run_nuts(X, y):
    from probdl.inference import NUTS, fit

    table = fit(model, X, y, method=NUTS(draws=4000, warmup=500, chains=4)).summary()
    return {"sd": table["sd"].tolist(), "rhat": float(table["rhat"].max()), "ess": float(table["ess"].min())}


def run_pyro(X, y):
    """AutoNormal and Adam as in Pyro's tutorials, in float64."""
    import pyro
    import torch
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormal

    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(0)
    X, y = torch.as_tensor(X), torch.as_tensor(y, dtype=torch.float64)
    started = time.perf_counter()
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(STEPS):
        svi.step(X, y)
    seconds = time.perf_counter() - started
    places, scales = guide.locs, guide.scales
    mean = [float(places.b), *places.w.tolist()]
    return {"seconds": seconds, "mean": mean, "sd": [float(scales.b), *scales.w.tolist()]}


def run_numpyro(X, y):
    """The same in NumPyro: ``SVI.run`` with its compilation, then the compiled steps alone."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    jax.config.update("jax_enable_x64", True)

    def model(X, y):
        b = numpyro.sample("b", dist.Normal(0.0, 10.0))
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)

    X, y = jax.numpy.asarray(X), jax.numpy.asarray(y)
    started = time.perf_counter()
    svi = SVI(model, AutoNormal(model), numpyro.optim.Adam(0.01), Trace_ELBO())
    result = svi.run(jax.random.PRNGKey(0), STEPS, X, y, progress_bar=False)
    params = jax.device_get(result.params)
    seconds = time.perf_counter() - started
    state = svi.init(jax.random.PRNGKey(0), X, y)
    steps = jax.jit(lambda state: jax.lax.scan(lambda s, _: svi.update(s, X, y), state, None, length=STEPS))
    compiled = steps.lower(state).compile()
    started = time.perf_counter()
    jax.block_until_ready(compiled(state))
    alone = time.perf_counter() - started
    mean = [float(params["b_auto_loc"]), *params["w_auto_loc"].tolist()]
    sd = [float(params["b_auto_scale"]), *params["w_auto_scale"].tolist()]
    return {"seconds": seconds, "alone": alone, "mean": mean, "sd": sd}


def run_pymc(X, y):
    """ADVI as ``pm.fit`` runs it by default, 10,000 steps."""
    import numpy as np
    import pymc as pm

    started = time.perf_counter()
    with pm.Model():
        b = pm.Normal("b", 0.0, 10.0)
        w = pm.Normal("w", 0.0, 2.0, shape=X.shape[1])
        pm.Bernoulli("y", logit_p=X @ w + b, observed=np.asarray(y))
        fitted = pm.fit(method="advi", progressbar=False, random_seed=0)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "mean": fitted.mean.eval().tolist(), "sd": fitted.std.eval().tolist()}


def run_inner(X, y, draws=30):
    """Value and gradient of the bound on fixed draws: by recorded graph, one Pyro trace for all draws, one for each."""
    import torch

    from probdl.inference.deterministic.expectations import DrawnExpectation
    from probdl.inference.deterministic.fixed_draws import standard_draws
    from probdl.inference.deterministic.gaussian_families import MeanFieldFamily
    from probdl.inference.programs.derivatives import recorded_gradient
    from probdl.inference.programs.program import Program

    program = Program(model, (X, y))
    noise = standard_draws(draws // 2, program.dim, 0, program.start)
    scale = torch.full_like(program.start, 0.1)
    family = MeanFieldFamily(program.start, torch.diag(scale), scale)

    class OneTrace(DrawnExpectation):
        def at(self, z):
            return torch.vmap(self.log_joint)(z)

    ways = {
        "recorded": DrawnExpectation(program.recorded(program.log_joint), noise, 0),
        "one trace": OneTrace(program.log_joint, noise, 0),
        "a trace for each draw": DrawnExpectation(program.log_joint, noise, 0),
    }
    seconds = {name: _per_evaluation(family, expectation) for name, expectation in ways.items()}

    def bound(phi):
        return ways["recorded"](family, phi) + family.entropy(phi)

    flat = recorded_gradient(bound, family.zero())  # what the optimiser uses in long runs
    return {"gradient recorded too": _median(lambda: flat(family.zero()))} | seconds


def _per_evaluation(family, expectation):
    import torch

    def once():
        phi = family.zero().requires_grad_()
        torch.autograd.grad(expectation(family, phi) + family.entropy(phi), phi)

    return _median(once)


def _median(call):
    times = []
    for _ in range(15):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def fresh(side, name, threads):
    """Run one side on one data set in a process of its own; None where it is not installed."""
    flags = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    limits = {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")}
    command = [sys.executable, __file__, "--side", side, "--data", name, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | limits | {"XLA_FLAGS": flags})
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"{side} failed on {name}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def row(label, runs, result, bound, optimum, sd, data):
    import numpy as np

    loss = bound(np.concatenate([result["mean"], np.log(result["sd"])]))[0]
    gaps = np.abs(np.array(result["mean"]) - optimum[0]) / sd
    seconds = statistics.median(runs)
    narrow = np.abs(np.array(result["sd"]) / optimum[1] - 1)
    print(f"  {label:<34}{seconds:>9.3f} s {loss:>11.4f} {gaps.mean():>9.4f} {gaps.max():>9.4f} {narrow.max():>10.1%}")
    cells = {
        "seconds": ranged(runs), "loss": loss, "mean |Δm|/sd": gaps.mean(), "largest |Δm|/sd": gaps.max(),
        "largest error of an sd": narrow.max(),
    }  # fmt: skip
    keep(data, side=label.strip(), **cells)


def compare(name, options):
    """Run all sides on one data set and print its table."""
    import numpy as np

    X, y = load(name)
    bound = ExactBound(X, y)
    optimum = bound.optimum()
    nuts = fresh("nuts", name, options.threads)
    sd = np.array(nuts["sd"])
    runs = {side: [] for side in SIDES}
    for i in range(options.runs):
        for side in SIDES:
            if i == 0 or side == "probdl" or (runs[side][0] is not None and side != "pymc"):
                runs[side].append(fresh(side, name, options.threads))
    best = bound(np.concatenate([optimum[0], np.log(optimum[1])]))[0]
    print(f"\n{name}: {len(y)} × {X.shape[1] + 1}; NUTS R-hat {nuts['rhat']:.4f}, smallest ESS {nuts['ess']:.0f}")
    print(f"  {'':<34}{'median':>11} {'loss':>11} {'|Δm|/sd':>9} {'largest':>9} {'sd, worst':>10}")
    print(f"  {'true mean-field optimum':<34}{'':>11} {best:>11.4f}")
    keep(name, side="true mean-field optimum", seconds="", loss=best)
    median = {k: statistics.median(r["seconds"] for r in v) for k, v in runs.items() if v[0] is not None}
    labels = {"probdl": "probdl, MeanField()", "pyro": "Pyro, 5000 steps", "numpyro": "NumPyro, 5000 steps",
              "pymc": "PyMC, ADVI, 10,000 steps"}  # fmt: skip
    for side in median:
        row(labels[side], [r["seconds"] for r in runs[side]], runs[side][0], bound, optimum, sd, name)
        if side == "probdl":
            again = [r["again"] for r in runs[side]]
            row("  later calls, same process", again, runs[side][0], bound, optimum, sd, name)
        if side == "numpyro":
            compiled = [r["alone"] for r in runs[side]]
            alone = statistics.median(compiled)
            row("  compiled steps alone", compiled, runs[side][0], bound, optimum, sd, name)
    ratio = np.array(runs["probdl"][0]["sd_lr"]) / sd
    own = np.array(runs["probdl"][0]["sd"]) / sd
    print(f"  sd_lr ÷ NUTS sd {ratio.min():.4f} to {ratio.max():.4f} (sd ÷ NUTS sd {own.min():.2f} to {own.max():.2f})")
    times = [f"{k} {v / median['probdl']:.0f}" for k, v in median.items() if k != "probdl"]
    times += [f"compiled steps {alone / median['probdl']:.1f}"] if "numpyro" in median else []
    print(f"  times as long as probdl: {', '.join(times)}")
    inner = fresh("inner", name, options.threads)
    print(
        "  value and gradient on 30 fixed draws: "
        + ", ".join(f"{k} {1e3 * v:.2f} ms ({v / inner['gradient recorded too']:.1f})" for k, v in inner.items()),
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=[*SIDES, "nuts", "inner"], help="run one side only and print JSON")
    parser.add_argument("--data", choices=DATA)
    parser.add_argument("--threads", type=int, default=1, help="the same for all sides")
    parser.add_argument("--runs", type=int, default=3, help="processes for each side; PyMC has one")
    add_flag(parser)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(options.threads)
        X, y = load(options.data)
        print(json.dumps(globals()[f"run_{options.side}"](X, y)))
        return
    for name in [options.data] if options.data else DATA:
        compare(name, options)
    save(options, __file__, ("pyro-ppl", "numpyro", "pymc"))


if __name__ == "__main__":
    main()
