"""Expectation propagation over groups: exact where all is Gaussian, near the truth elsewhere, on one process or two."""

import math
import subprocess
import sys

import group_models
import numpy as np
import pandas as pd
import pytest
import torch
from house import ROOT, clean_environment
from pyro_models import logistic, normal_regression
from scipy.stats import halfnorm, norm

from probdl import data
from probdl.errors import ConvergenceError
from probdl.inference import NUTS, GroupEP, Posterior, compare_posteriors, fit
from probdl.inference.groups.density import GroupDensity
from probdl.inference.groups.errors import standard_errors
from probdl.inference.groups.tilted import importance_draws
from probdl.inference.programs.program import Program

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def quiet(*args, **kwargs):
    return fit(*args, progress=False, **kwargs)


@pytest.mark.parametrize("groups", [2, 7, "labels"])
def test_a_linear_regression_in_groups_is_exact(groups):
    X, y = group_models.regression_data()
    labels = np.array(["a", "b", "c"])[np.arange(len(y)) % 3] if groups == "labels" else groups
    posterior = quiet(normal_regression, X, y, method=GroupEP(groups=labels))
    precision = X.T @ X / 0.25 + np.eye(4) / 4
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(posterior.mean("w"), covariance @ (X.T @ y) / 0.25, **EXACT)
    np.testing.assert_allclose(posterior.cov("w"), covariance, **EXACT)
    marginal = 0.25 * np.eye(len(y)) + 4 * X @ X.T
    log_det = np.linalg.slogdet(2 * math.pi * marginal)[1]
    evidence = -0.5 * (log_det + y @ np.linalg.solve(marginal, y))
    assert abs(float(posterior.log_evidence) - evidence) < 1e-8
    assert posterior.log_evidence.stderr < 1e-8
    assert posterior.summary()["mcse"].max() < 1e-8
    assert "the weights are nearly equal" in posterior.message


def test_own_latents_are_integrated_out_exactly_where_all_is_gaussian():
    y, level = group_models.levels_data()
    y, level = y[level != 5], level[level != 5]  # a level without data keeps its prior given mu
    posterior = quiet(group_models.one_way, y, level, 24, method=GroupEP(groups=level % 5))
    exact = quiet(group_models.one_way, y, level, 24, method="ep")
    torch.testing.assert_close(posterior.cov("mu", "theta"), exact.cov("mu", "theta"), **EXACT)
    torch.testing.assert_close(posterior.mean("theta"), exact.mean("theta"), **EXACT)
    assert abs(float(posterior.log_evidence) - float(exact.log_evidence)) < 1e-8
    assert "theta belong to single groups and were integrated out" in posterior.message


def test_levels_split_between_groups_are_shared_and_the_message_says_how_to_keep_them_together():
    y, level = group_models.levels_data(levels=6)
    posterior = quiet(group_models.one_way, y, level, 6, method=GroupEP(groups=np.arange(len(y)) % 2))
    exact = quiet(group_models.one_way, y, level, 6, method="ep")
    torch.testing.assert_close(posterior.cov("mu", "theta"), exact.cov("mu", "theta"), **EXACT)
    by_name = quiet(group_models.one_way, y, level, 6, method=GroupEP(groups="level"))
    torch.testing.assert_close(by_name.cov("mu", "theta"), exact.cov("mu", "theta"), **EXACT)
    assert "integrated out" in by_name.message


@pytest.fixture(scope="module")
def breast_cancer():
    X, y = data.breast_cancer(standardise=True)
    return X, y, quiet(logistic, X, y, method="ep")


@pytest.mark.parametrize("groups", [2, 8])
def test_a_logistic_regression_agrees_with_sites_of_single_rows(breast_cancer, groups):
    X, y, single = breast_cancer
    posterior = quiet(logistic, X, y, method=GroupEP(groups=groups))
    table = compare_posteriors(posterior, single)
    assert table["shift"].abs().max() < 5 * table["shift_error"].max()  # of 31, at a false-alarm rate of 2e-5
    assert table["shift_error"].max() < 0.02
    assert (table["ratio"] - 1).abs().max() < 0.05
    assert abs(float(posterior.log_evidence) - float(single.log_evidence)) < 0.2


def test_a_hierarchical_model_agrees_with_nuts():
    y, level = group_models.levels_data()
    posterior = quiet(group_models.hierarchical, y, level, 24, method=GroupEP(groups=level % 6))
    check = posterior.check()
    assert check.khat < 0.7
    assert abs(float(posterior.log_evidence) - float(check.log_evidence)) < 0.05
    corrected = check.table  # importance-corrected by the whole joint density, which no group has seen
    assert ((corrected["mean"] - corrected["corrected mean"]) / corrected["sd"]).abs().max() < 0.1
    assert (corrected["sd"] / corrected["corrected sd"] - 1).abs().max() < 0.12
    assert "has a site of its own" in posterior.message


def test_heavy_weights_get_wider_proposals_on_a_posterior_far_from_gaussian():
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    posterior = quiet(group_models.schools, y, error, method=GroupEP(groups=4))
    mu, log_tau = np.linspace(-30, 40, 701)[:, None], np.linspace(-12, 6, 901)
    tau = np.exp(log_tau)
    log_p = norm.logpdf(mu, 0, 5) + halfnorm.logpdf(tau, scale=5) + log_tau
    for yi, si in zip(y, error):
        log_p = log_p + norm.logpdf(yi, mu, np.hypot(si, tau))
    p = np.exp(log_p - log_p.max())
    evidence = np.log(p.sum() * (mu[1, 0] - mu[0, 0]) * (log_tau[1] - log_tau[0])) + log_p.max()
    p /= p.sum()
    mean, middle = (p * mu).sum(), (p * log_tau).sum()
    sd, spread = np.sqrt((p * (mu - mean) ** 2).sum()), np.sqrt((p * (log_tau - middle) ** 2).sum())
    assert posterior.history["khat"].max() > 0.7 > posterior.history["khat"].iloc[-1]
    assert abs(float(posterior.mean("mu")) - mean) / sd < 0.05
    assert abs(float(posterior.sd("mu")) / sd - 1) < 0.05
    free = posterior.approximation
    assert abs(float(free.free_mean[1]) - middle) / spread < 0.12  # log tau has a long tail to the left, which
    assert 0.65 < float(free.free_sd[1]) / spread < 1  # Gaussian sites of single groups cannot carry
    assert abs(float(posterior.log_evidence) - evidence) < 0.2


@pytest.mark.parametrize("wide", [False, True])
def test_draws_of_either_width_give_the_moments_of_a_gaussian_tilted_distribution(wide):
    X, y = group_models.regression_data(n=60)
    program = Program(normal_regression, (X, y))
    density = GroupDensity(program, ("w",), {}, ("y",))
    precision = torch.as_tensor(X.T @ X) / 0.25
    mean = torch.linalg.solve(precision, torch.as_tensor(X.T @ y) / 0.25)
    q = torch.linalg.cholesky(torch.linalg.inv(precision + torch.eye(4)))
    draws = importance_draws(density, mean + 0.2 * q.diagonal(), q, 4096, 1, wide)
    weights = torch.softmax(draws.log_ratio, 0)
    errors = standard_errors(weights, draws.z - weights @ draws.z, True, draws.exact)
    assert ((weights @ draws.z - mean).abs() / errors).max() < 4.5  # of 4, at a false-alarm rate of 3e-5
    apart = draws.z - mean
    covariance = (weights[:, None] * apart).T @ apart
    root = torch.linalg.cholesky(precision)
    assert (root.T @ covariance @ root - torch.eye(4)).abs().max() < 0.03
    assert draws.exact is not wide


@pytest.mark.slow
@pytest.mark.parametrize("moments", ["importance", "nuts"])
def test_both_kinds_of_moments_agree_with_nuts_on_the_whole(moments):
    y, level = group_models.levels_data()
    posterior = quiet(group_models.hierarchical, y, level, 24, method=GroupEP(groups=level % 6, moments=moments))
    whole = quiet(group_models.hierarchical, y, level, 24, method=NUTS(draws=500, warmup=200, chains=2))
    table = compare_posteriors(posterior, whole)
    assert (table["shift"] / table["shift_error"]).abs().max() < 4.5  # of 27, at a false-alarm rate of 2e-4
    assert (table["ratio"] - 1).abs().mean() < 0.08


def test_moments_by_nuts_meet_the_exact_answer_within_their_error():
    X, y = group_models.regression_data(n=60)
    sampler = NUTS(draws=160, warmup=50, chains=1)
    posterior = quiet(normal_regression, X, y, method=GroupEP(groups=2, moments="nuts", sampler=sampler))
    table = compare_posteriors(posterior, quiet(normal_regression, X, y, method="ep"))
    assert posterior.log_evidence is None
    assert (table["shift"] / table["shift_error"]).abs().max() < 6  # t with 7 degrees of freedom: 2e-3 for 4
    assert table["shift_error"].min() > 0.005


def test_a_latent_for_each_row_is_integrated_out():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 2))
    y = rng.poisson(np.exp(X @ [0.8, -0.5] + 0.5 * rng.normal(size=80))).astype(float)
    posterior = quiet(group_models.noisy_rows, y, X, method=GroupEP(groups=4))
    assert posterior.mean("e").shape == (80,)
    check = posterior.check()
    worst = ((check.table["mean"] - check.table["corrected mean"]) / check.table["sd"]).abs()
    assert worst.max() < 0.15
    assert abs(float(posterior.log_evidence) - float(check.log_evidence)) < 0.1


def test_two_processes_give_what_one_gives_bit_for_bit():
    y, level = group_models.levels_data()
    answers = [
        quiet(group_models.hierarchical, y, level, 24, method=GroupEP(groups=level % 6, processes=n)) for n in (1, 2)
    ]
    one, two = (a.approximation for a in answers)
    assert torch.equal(one.free_mean, two.free_mean)
    assert torch.equal(one.free_covariance, two.free_covariance)
    assert answers[0].log_evidence == answers[1].log_evidence
    pd.testing.assert_frame_equal(answers[0].history, answers[1].history)


@pytest.mark.slow
def test_a_model_defined_in_a_script_runs_in_other_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "from probdl.inference import GroupEP, fit\n"
        "def model(y):\n"
        "    mu = pyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        pyro.sample('y', dist.Normal(mu, 1.0), obs=y)\n"
        "if __name__ == '__main__':\n"
        "    posterior = fit(model, torch.tensor([1.0, 2.0, 3.0]), method=GroupEP(groups=3, processes=2))\n"
        "    print(round(float(posterior.mean('mu')), 9), round(float(posterior.sd('mu')), 9))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["1.5", "0.5"], done.stderr


def test_the_seed_makes_the_answer_and_nothing_global_changes(breast_cancer):
    X, y, _ = breast_cancer
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = (quiet(logistic, X, y, method=GroupEP(groups=4), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.mean("w"), b.mean("w"))
    assert not torch.equal(a.mean("w"), c.mean("w"))
    shift = (a.mean("w") - c.mean("w")) / a.sd("w")
    error = 2**0.5 * a.approximation.errors("w")[0] / a.sd("w")
    assert 0.3 < float((shift / error).square().mean().sqrt()) < 3  # the errors are those of other seeds


def test_groups_that_no_process_holds_together():
    X, y = group_models.regression_data()
    exact = quiet(normal_regression, X, y, method="ep")
    loaders = [group_models.Part(i, 4) for i in range(4)]
    posterior = quiet(normal_regression, loaders, method=GroupEP(groups="given", processes=2))
    torch.testing.assert_close(posterior.mean("w"), exact.mean("w"), **EXACT)
    assert abs(float(posterior.log_evidence) - float(exact.log_evidence)) < 1e-8
    mixed = [(X[:90], y[:90]), {"X": X[90:], "y": y[90:]}]
    torch.testing.assert_close(
        quiet(normal_regression, mixed, method=GroupEP(groups="given")).cov("w"), exact.cov("w"), **EXACT
    )
    with pytest.raises(ValueError, match="first of the 4 groups"):
        posterior.check()


def test_given_groups_may_have_levels_of_their_own():
    y, level = group_models.levels_data(levels=7)
    exact = quiet(group_models.one_way, y, level, 7, method="ep")
    groups = [(y[level < 3], level[level < 3]), (y[level >= 3], level[level >= 3] - 3)]
    posterior = quiet(group_models.own_levels, groups, method=GroupEP(groups="given"))
    torch.testing.assert_close(posterior.mean("mu"), exact.mean("mu"), **EXACT)
    assert posterior.names == ("mu",)
    equal = [(y[level < 3], level[level < 3]), (y[level > 3], level[level > 3] - 4)]
    kept = quiet(group_models.own_levels, equal, method=GroupEP(groups="given", local=("theta",)))
    exact = quiet(group_models.one_way, y[level != 3], level[level != 3], 7, method="ep")
    torch.testing.assert_close(kept.sd("mu"), exact.sd("mu"), **EXACT)


def test_the_posterior_can_be_saved(tmp_path, breast_cancer):
    X, y, _ = breast_cancer
    posterior = quiet(logistic, X, y, method=GroupEP(groups=4))
    posterior.save(tmp_path / "p.safetensors")
    again = Posterior.load(tmp_path / "p.safetensors", model=logistic, args=(X, y))
    pd.testing.assert_frame_equal(again.summary(), posterior.summary())


BAD = {
    "too many": ({"groups": 10**6}, "between 2 and the 200 rows"),
    "one": ({"groups": 1}, "between 2 and the 200 rows"),
    "length": ({"groups": [0, 1]}, "label for each of the 200 rows; got 2"),
    "one label": ({"groups": [3] * 200}, "at least 2 different labels"),
    "missing": ({"groups": [None, *range(199)]}, "1 are missing"),
    "name": ({"groups": "county"}, "names the argument 'county', but the model was given X, y"),
    "plate": ({"plate": "columns"}, "'columns' is not among"),
    "local": ({"local": ("w",)}, "stand in a plate; 'w' is not among"),
}


@pytest.mark.parametrize("case", BAD)
def test_groups_that_cannot_be_are_refused_with_what_to_do(case):
    settings, message = BAD[case]
    X, y = group_models.regression_data()
    with pytest.raises(ValueError, match=message):
        quiet(normal_regression, X, y, method=GroupEP(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"moments": "mcmc"}, "moments must be"), ({"draws": 10}, "draws must be at least 256"),
     ({"processes": 0}, "processes must be"), ({"local": "theta"}, "local must be a tuple")],
)  # fmt: skip
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        GroupEP(**settings)


def test_a_local_site_whose_rows_are_split_is_refused():
    y, level = group_models.levels_data(levels=4)
    with pytest.raises(ValueError, match="entry 1 are in the groups 0, 1"):
        quiet(group_models.one_way, y, level, 4, method=GroupEP(groups=[0] * 18 + [1] * 30, local=("theta",)))


def test_given_groups_are_checked():
    X, y = group_models.regression_data()
    with pytest.raises(TypeError, match="one iterable of groups"):
        quiet(normal_regression, X, y, method=GroupEP(groups="given"))
    with pytest.raises(ValueError, match="at least two groups"):
        quiet(normal_regression, [(X, y)], method=GroupEP(groups="given"))
    with pytest.raises(TypeError, match="Group 1 must be a tuple"):
        quiet(normal_regression, [(X, y), 3], method=GroupEP(groups="given"))
    with pytest.raises(ValueError, match="In group 1: "):
        quiet(normal_regression, [(X, y), (X, y[:5])], method=GroupEP(groups="given"))
    with pytest.raises(ValueError, match="one shape in all groups"):
        quiet(normal_regression, [(X, y), (X[:, :2], y)], method=GroupEP(groups="given"))


def test_no_fixed_point_is_an_error_that_says_what_to_try(breast_cancer):
    X, y, _ = breast_cancer
    with pytest.raises(ConvergenceError, match="did not reach a fixed point in 2 sweeps.*Raise draws"):
        quiet(logistic, X, y, method=GroupEP(groups=4, max_sweeps=2))


def test_a_posterior_without_a_mode_is_an_error():
    import pyro
    import pyro.distributions as dist

    def unbounded(y):
        mu, sigma = pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, sigma), obs=y)

    with pytest.raises(ConvergenceError, match="proper prior"):
        quiet(unbounded, torch.ones(4), method=GroupEP(groups=2))


def test_what_the_method_does_not_take_is_refused_by_name():
    import pyro
    import pyro.distributions as dist

    def only_own(y):
        with pyro.plate("rows", len(y)):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def discrete(y):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(k, 1.0), obs=y)

    with pytest.raises(ValueError, match="needs a latent that the groups share"):
        quiet(only_own, torch.ones(4), method=GroupEP(groups=2))
    with pytest.raises(ValueError, match="latent sites k are discrete"):
        quiet(discrete, torch.ones(4), method=GroupEP(groups=2))


def test_few_draws_do_not_make_the_evidence_too_low_on_average():
    """Draws that also set the sites bias it by −.009 at 256 of them; 24 fits see .004, five standard errors."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 4))
    y = (rng.random(40) < 1 / (1 + np.exp(-X @ [1.5, -1.0, 0.5, 0.0]))).astype(float)
    fine = fit(logistic, X, y, method=GroupEP(groups=4, draws=32_768)).log_evidence.value
    few = [fit(logistic, X, y, method=GroupEP(groups=4, draws=256), seed=s).log_evidence.value for s in range(24)]
    assert abs(np.mean(few) - fine) < 0.004
