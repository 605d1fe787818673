"""Expectation propagation in figures: against NUTS, the MLE, GPy's EP, Laplace, a grid and importance sampling.

Timed runs are processes of their own and take turns; imports are not counted, everything from the call to the posterior
is, compilation too. NumPyro, GPy and statsmodels are needed by the sections that name them.

- ``logistic``: 569 rows, 31 coefficients; NumPyro's NUTS with 500 + 2000 draws, and a long run of it as the reference.
- ``gp``: classification with a Gaussian process, RBF kernel with variance 4 and length 5, nothing optimised.
- ``clutter``: Minka's problem over seeds, against a grid.
- ``probit``: two regressions against importance sampling around the fit, whose effective sample size is printed.
- ``rows``: a logistic regression with 50 coefficients on more and more rows; ``--plot`` draws it.

Run: ``python benchmarks/ep.py [--only logistic gp] [--repetitions 5] [--seeds 100] [--plot rows.png]``.
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
from functools import partial
from pathlib import Path

from results import add_flag, keep, ranged, save, uncertain

SECTIONS = ("logistic", "gp", "clutter", "probit", "rows")
PROGRAMS = Path(__file__).resolve().parent.parent / "tests"
LONG = {"num_warmup": 1000, "num_samples": 5000, "num_chains": 4, "chain_method": "sequential"}
SHORT = {"num_warmup": 500, "num_samples": 2000}
KERNEL = {"variance": 4.0, "length": 5.0}


def programs():
    """The Pyro programs that the tests fit."""
    sys.path.insert(0, str(PROGRAMS))
    import pyro_models

    return pyro_models


def cancer():
    from probdl import data

    return tuple(a.numpy() for a in data.breast_cancer(standardise=True))


def timed(call):
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def simulated(rows, columns=50):
    import torch

    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    w = torch.randn(columns, generator=generator, dtype=torch.float64) / columns**0.5
    return X, torch.bernoulli(torch.sigmoid(X @ w), generator=generator)


def side_ep():
    import pandas  # noqa: F401
    import scipy.optimize  # noqa: F401
    import tqdm.auto  # noqa: F401

    from probdl.inference import fit

    model, (X, y) = programs().logistic, cancer()
    posterior, seconds = timed(lambda: fit(model, X, y, method="ep"))
    warm = statistics.median(timed(lambda: fit(model, X, y, method="ep"))[1] for _ in range(3))
    table = posterior.summary()
    return {"seconds": seconds, "warm": warm, "mean": table["mean"].tolist(), "sd": table["sd"].tolist()}


def side_nuts(options=SHORT):
    import jax
    import numpy as np
    import numpyro
    import numpyro.distributions as dist
    import tqdm.auto  # noqa: F401
    from numpyro.diagnostics import summary
    from numpyro.infer import MCMC, NUTS

    numpyro.enable_x64()
    X, y = cancer()

    def model(X, y):
        b = numpyro.sample("b", dist.Normal(0.0, 10.0))
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)

    sampler = MCMC(NUTS(model), progress_bar=False, **options)

    def run(seed):
        sampler.run(jax.random.PRNGKey(seed), X, y)
        draws = sampler.get_samples(group_by_chain=True)
        return np.concatenate([np.asarray(draws["b"])[..., None], np.asarray(draws["w"])], -1)

    draws, seconds = timed(lambda: run(0))
    warm = timed(lambda: run(1))[1] if options is SHORT else None
    ess = float(summary({"all": draws})["all"]["n_eff"].min())
    mean, sd = draws.mean((0, 1)).tolist(), draws.std((0, 1)).tolist()
    return {"seconds": seconds, "warm": warm, "mean": mean, "sd": sd, "ess": ess}


def side_long():
    return side_nuts(LONG)


def side_mle():
    """Newton's method, statsmodels' default; where it fails, as without a finite optimum, where BFGS stops."""
    import statsmodels.api as sm

    X, y = cancer()
    likelihood, newton = sm.Logit(y, sm.add_constant(X)), "converges"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says what they say
        try:
            result, seconds = timed(lambda: likelihood.fit(disp=False))
        except Exception as error:  # noqa: BLE001 - its text is printed
            newton = f"fails ({type(error).__name__}: {error})"
            result, seconds = timed(lambda: likelihood.fit(disp=False, method="bfgs", maxiter=500))
        found = {"mean": result.params.tolist(), "sd": result.bse.tolist(), "loglik": float(result.llf)}
    return found | {"seconds": seconds, "newton": newton, "converged": bool(result.mle_retvals["converged"])}


def side_rows(rows):
    import pandas  # noqa: F401
    import scipy.optimize  # noqa: F401
    import tqdm.auto  # noqa: F401

    from probdl.inference import fit

    model, (X, y) = programs().logistic, simulated(int(rows))
    before = peak()
    posterior, seconds = timed(lambda: fit(model, X, y, method="ep"))
    return {"seconds": seconds, "before": before, "peak": peak(), "sweeps": len(posterior.history)}


def peak():
    """Largest resident memory of this process so far, in MB; Linux counts in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def side_gp_probit(link="probit"):
    import scipy.optimize  # noqa: F401

    from probdl.models import GaussianProcessClassifier
    from probdl.models.kernels import RBF

    X, y = cancer()
    gp = GaussianProcessClassifier(RBF(**KERNEL), link=link, optimise=False)
    _, seconds = timed(lambda: gp.fit(X, y))
    return {"seconds": seconds, "warm": timed(lambda: gp.fit(X, y))[1], "evidence": gp.log_evidence.value}


def side_gp_logit():
    return side_gp_probit("logit")


def side_gp_gpy():
    import GPy
    from GPy.inference.latent_function_inference.expectation_propagation import EP

    X, y = cancer()

    def run():
        kernel = GPy.kern.RBF(X.shape[1], KERNEL["variance"], KERNEL["length"])
        likelihood = GPy.likelihoods.Bernoulli()
        return GPy.core.GP(X, y[:, None], kernel, likelihood, inference_method=EP()).log_likelihood()

    evidence, seconds = timed(run)
    return {"seconds": seconds, "warm": timed(run)[1], "evidence": float(evidence)}


def side_gp_sklearn():
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    X, y = cancer()
    gp = GaussianProcessClassifier(ConstantKernel(KERNEL["variance"]) * RBF(KERNEL["length"]), optimizer=None)
    _, seconds = timed(lambda: gp.fit(X, y))
    return {"seconds": seconds, "warm": timed(lambda: gp.fit(X, y))[1], "evidence": gp.log_marginal_likelihood_value_}


def fresh(side, *arguments, threads):
    """Run a side in a new process, with the reason in view if it fails."""
    command = [sys.executable, __file__, "--side", side, "--arguments", *map(str, arguments), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": last}
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(sides, options):
    """By side, its runs; the sides take turns, so that a drift meets all. A side that failed once is left."""
    runs = {side: [] for side in sides}
    for _ in range(options.repetitions):
        for side in sides:
            if not any("failed" in run for run in runs[side]):
                runs[side].append(fresh(side, threads=options.threads))
    return runs


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def timings(runs):
    """Seconds of the first call in a process and of later ones, to be kept."""
    warm = [run["warm"] for run in runs if run.get("warm") is not None]
    return {"first call, s": ranged(run["seconds"] for run in runs), "later, s": ranged(warm) if warm else ""}


def gaps(result, reference):
    """Errors of the means in sds, mean and largest; the ratio of the sds, mean, least and largest."""
    shifts = [abs(m - r) / s for m, r, s in zip(result["mean"], reference["mean"], reference["sd"])]
    ratios = [s / r for s, r in zip(result["sd"], reference["sd"])]
    return statistics.mean(shifts), max(shifts), statistics.mean(ratios), min(ratios), max(ratios)


def failed(name, runs):
    """Print why a side failed, if it did."""
    for run in runs:
        if "failed" in run:
            print(f"{name:<26} failed: {run['failed'][:200]}")
            return True
    return False


def logistic(options):
    runs = in_turns(("ep", "nuts"), options)
    runs["mle"] = [fresh("mle", threads=options.threads)]
    reference = fresh("long", threads=options.threads)
    if failed("the reference", [reference]):
        return
    error = reference["ess"] ** -0.5
    print(
        f"Reference: NumPyro NUTS, 4 × 5000 draws, smallest ESS {reference['ess']:.0f}: its own error is {error:.3f} sd"
    )
    print(f"in means and {0.7 * error:.1%} in sds.\n")
    print(f"{'':<26}{'first':>9}{'warm':>9}  {'|Δm|/sd':>8}{'largest':>10}  {'sd ratio':>9}  range")
    names = {"ep": "probdl, EP", "nuts": "NumPyro NUTS 500 + 2000", "mle": "statsmodels Logit (MLE)"}
    for side, name in names.items():
        if not failed(name, runs[side]):
            first, mean = runs[side][0], gaps(runs[side][0], reference)
            warm = f"{median(runs[side], 'warm'):>7.3f} s" if "warm" in first else f"{'':>9}"
            numbers = f"{mean[0]:>8.3g}{mean[1]:>10.3g}  {mean[2]:>9.4g}  {mean[3]:.4g} to {mean[4]:.4g}"
            print(f"{name:<26}{median(runs[side], 'seconds'):>7.3f} s{warm}  {numbers}")
            cells = {"mean |Δm|/sd": mean[0], "largest |Δm|/sd": mean[1], "sd ratio, least": mean[3]}
            keep(
                "logistic regression, 31 coefficients", side=name, **timings(runs[side]), **cells,
                **{"sd ratio, largest": mean[4]},
            )  # fmt: skip
    mle = runs["mle"][0]
    if "loglik" in mle:
        print(
            f"A plane separates the classes, so that the MLE does not exist. Newton's method {mle['newton']}; the row\n"
            f"is where the search stopped: log-likelihood {mle['loglik']:.2g}, converged: {mle['converged']}, "
            f"coefficients up to {max(map(abs, mle['mean'])):.3g}."
        )
    if not any("failed" in run for side in ("ep", "nuts") for run in runs[side]):
        cold, warm = (median(runs["nuts"], key) / median(runs["ep"], key) for key in ("seconds", "warm"))
        print(f"NUTS ÷ EP: {cold:.1f} at the first call, {warm:.1f} warm (medians of {len(runs['ep'])} processes)")


def gp(options):
    names = {
        "gp_probit": "probdl, EP, probit", "gp_gpy": "GPy, EP, probit",
        "gp_logit": "probdl, EP, logit", "gp_sklearn": "scikit-learn, Laplace, logit",
    }  # fmt: skip
    runs = in_turns(tuple(names), options)
    print(f"{'':<30}{'first':>9}{'warm':>9}{'log evidence':>15}")
    for side, name in names.items():
        if not failed(name, runs[side]):
            times = f"{median(runs[side], 'seconds'):>7.2f} s{median(runs[side], 'warm'):>7.2f} s"
            print(f"{name:<30}{times}{runs[side][0]['evidence']:>15.4f}")
            title, evidence = "Gaussian process classification, 569 rows", {"log evidence": runs[side][0]["evidence"]}
            keep(title, side=name, **timings(runs[side]), **evidence)


def clutter(options):
    from probdl import ConvergenceError
    from probdl.inference import fit

    models, rows, errors = programs(), [], []
    started = time.perf_counter()
    for seed in range(options.seeds):
        x = models.clutter_data(seed)
        evidence, mean, sd = models.clutter_exact(x)
        try:
            q = fit(models.clutter, x, method="ep")
        except ConvergenceError:
            errors.append(seed)
            continue
        ratio = float(q.sd("theta")) / sd
        rows.append((abs(q.log_evidence.value - evidence), abs(float(q.mean("theta")) - mean) / sd, ratio))
    print(f"Seeds 0 to {options.seeds - 1}, {time.perf_counter() - started:.1f} s with the grids")
    for name, values in zip(("|Δ log evidence|", "|Δ mean| / sd", "sd ratio"), zip(*rows)):
        print(f"{name:<18} median {statistics.median(values):.5f}, {min(values):.5f} to {max(values):.5f}")
        keep(f"clutter, {len(rows)} of {options.seeds} data sets", error=name, **{"over data sets": ranged(values)})
    print(f"ConvergenceErrors: {len(errors)} {errors or ''}")


def spector():
    from statsmodels.datasets import spector as data

    frame = data.load_pandas()
    X = (frame.exog - frame.exog.mean()) / frame.exog.std(ddof=0)
    return X.to_numpy(float), frame.endog.to_numpy(float)


def importance(q, X, y, draws, df=8.0, chunk=20_000):
    """Log evidence with its error, means, sds and ESS: draws from a t distribution around q, weighted by the joint."""
    import torch
    from torch.distributions import Chi2, Normal

    X, sign = torch.tensor(X), 2 * torch.tensor(y) - 1
    mean = torch.cat([q.mean("b").reshape(1), q.mean("w")])
    root, d = torch.linalg.cholesky(q.cov("b", "w")), len(mean)
    priors = Normal(0.0, torch.cat([torch.tensor([20.0]), torch.full((d - 1,), 5.0)]).double())
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(draws, d, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scale = (df / Chi2(torch.tensor(df, dtype=torch.float64)).sample((draws, 1))).sqrt()
    steps = normals * scale
    z = mean + steps @ root.T
    log_q = torch.lgamma(torch.tensor((df + d) / 2)) - torch.lgamma(torch.tensor(df / 2))
    log_q = log_q - d / 2 * math.log(df * math.pi) - root.diagonal().log().sum()
    log_q = log_q - (df + d) / 2 * torch.log1p((steps**2).sum(1) / df)
    joint = [priors.log_prob(c).sum(1) + likelihood(c, X, sign) for c in z.split(chunk)]
    log_w = torch.cat(joint) - log_q
    w = torch.softmax(log_w, 0)
    center = w @ z
    ess = float(1 / (w**2).sum())
    evidence = float(log_w.logsumexp(0)) - math.log(draws)
    return evidence, (1 / ess - 1 / draws) ** 0.5, center.tolist(), (w @ (z - center) ** 2).sqrt().tolist(), ess


def likelihood(z, X, sign):
    import torch

    return torch.special.log_ndtr((z[:, 1:] @ X.T + z[:, :1]) * sign).sum(1)


def probit(options):
    from probdl.inference import fit

    print(
        f"{'':<15}{'seconds':>9}{'log evidence':>14}{'importance':>20}{'ESS':>8}  "
        f"{'|Δm|/sd':>8}{'largest':>9}  {'sd ratio':>9}  range"
    )
    model = programs().probit
    for name, load in (("spector", spector), ("breast cancer", cancer)):
        X, y = load()
        q, seconds = timed(partial(fit, model, X, y, method="ep"))
        evidence, error, mean, sd, ess = importance(q, X, y, options.draws)
        table = q.summary()
        gap = gaps({"mean": table["mean"], "sd": table["sd"]}, {"mean": mean, "sd": sd})
        exact = f"{evidence:.4f} ± {error:.4f}"
        print(
            f"{name:<15}{seconds:>7.3f} s{q.log_evidence.value:>14.4f}{exact:>20}{ess:>8.0f}  "
            f"{gap[0]:>8.4f}{gap[1]:>9.4f}  {gap[2]:>9.4f}  {gap[3]:.4f} to {gap[4]:.4f}"
        )
        cells = {
            "seconds": seconds, "log evidence": q.log_evidence.value,
            "by importance sampling": uncertain(evidence, error), "ESS": ess, "mean |Δm|/sd": gap[0],
            "largest |Δm|/sd": gap[1], "sd ratio, least": gap[3], "sd ratio, largest": gap[4],
        }  # fmt: skip
        keep("probit regressions", data=name, **cells)
    print("An error of the importance draws of about 1/√ESS sds stands behind each mean.")


def rows(options):
    print(f"{'rows':>9}{'seconds':>10}{'sweeps':>8}{'peak memory':>14}{'of which the fit':>19}")
    found = []
    for n in options.sizes:
        runs = [fresh("rows", n, threads=options.threads) for _ in range(options.repetitions)]
        if not failed(f"{n} rows", runs):
            seconds, high = median(runs, "seconds"), median(runs, "peak")
            found.append((n, seconds, high, high - median(runs, "before")))
            print(f"{n:>9}{seconds:>8.2f} s{runs[0]['sweeps']:>8}{high:>11.0f} MB{found[-1][3]:>16.0f} MB", flush=True)
            cells = {"seconds": ranged(run["seconds"] for run in runs), "MB of the fit": found[-1][3]}
            keep("logistic regression with 50 coefficients", rows=n, sweeps=runs[0]["sweeps"], **cells)
    if options.plot and found:
        draw(found, options.plot)


def draw(found, path):
    """Seconds and memory of the fit by rows, on logarithmic scales, each beside a line through the first point."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    n, seconds, _, memory = zip(*found)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for ax, values, label in zip(axes, (seconds, memory), ("seconds", "memory of the fit (MB)")):
        ax.loglog(n, values, "o-")
        ax.loglog(n, [values[0] * k / n[0] for k in n], ":", color="grey", label="proportional to rows")
        ax.set(xlabel="rows, with 50 coefficients", ylabel=label)
        ax.legend(frameon=False)
    figure.suptitle("Expectation propagation, logistic regression")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def run_side(options):
    import numpyro  # noqa: F401
    import pyro  # noqa: F401
    import torch

    torch.set_num_threads(options.threads)
    print(json.dumps(globals()[f"side_{options.side}"](*options.arguments)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--repetitions", type=int, default=5, help="processes of each side, of which medians are taken")
    parser.add_argument("--seeds", type=int, default=100, help="data sets of clutter")
    parser.add_argument("--draws", type=int, default=200_000, help="importance draws for the probit regressions")
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000], help="rows of the last section"
    )
    parser.add_argument("--threads", type=int, default=2, help="torch's; the others take what the machine has")
    parser.add_argument("--plot", help="a file for the picture of the last section")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", nargs="*", default=[], help=argparse.SUPPRESS)
    add_flag(parser)
    options = parser.parse_args()
    if options.side:
        run_side(options)
        return
    for section in options.only:
        print(f"\n== {section} ==", flush=True)
        globals()[section](options)
    save(options, __file__, ("pyro-ppl", "numpyro", "GPy", "statsmodels"))


if __name__ == "__main__":
    main()
