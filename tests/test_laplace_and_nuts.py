"""Laplace's method where it is exact, NUTS within its Monte Carlo error, and the choice of "auto"."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_models import logistic, normal_regression
from scipy import stats

import probdl
from probdl.inference import NUTS, Laplace, fit


def gamma_poisson(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def test_laplace_is_exact_where_the_posterior_is_gaussian(device):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    laplace, exact = (fit(normal_regression, X, y, method=m, device=device) for m in ("laplace", "ep"))
    assert torch.allclose(laplace.mean("w"), exact.mean("w"), atol=1e-8)
    assert torch.allclose(laplace.cov("w"), exact.cov("w"), atol=1e-8)
    assert abs(laplace.log_evidence.value - exact.log_evidence.value) < 1e-8


def test_laplace_on_a_positive_latent_is_its_closed_form():
    """Posterior Gamma(a, b): on u = log rate the mode is log(a/b) and the curvature a; rate is log-normal under q."""
    y = torch.tensor([3.0, 5.0, 4.0])
    a, b = 2 + 12, 1 + 3
    posterior = fit(gamma_poisson, y, method="laplace")
    assert abs(posterior.quantile("rate", 0.5).item() - a / b) < 1e-6
    assert abs(posterior.mean("rate").item() - a / b * math.exp(0.5 / a)) < 1e-6
    assert abs(posterior.sd("rate").item() - a / b * math.exp(0.5 / a) * math.sqrt(math.expm1(1 / a))) < 1e-6
    log_p = a * math.log(a / b) - a - math.lgamma(2) - sum(math.lgamma(k + 1) for k in (3, 5, 4))
    assert abs(posterior.log_evidence.value - (log_p + 0.5 * math.log(2 * math.pi / a))) < 1e-6
    quantiles = stats.lognorm(1 / math.sqrt(a), scale=a / b).ppf([0.05, 0.95])
    assert np.allclose(posterior.summary()[["5%", "95%"]].to_numpy()[0], quantiles, rtol=1e-6)


def test_a_flat_direction_is_named():
    def model(X, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        flat = pyro.sample("flat", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(w + 0 * flat, 1.0).expand([len(y)]).to_event(1), obs=y)

    with pytest.raises(probdl.ConvergenceError, match="flat or has no maximum along 'flat'"):
        fit(model, torch.ones(2), torch.ones(2), method=Laplace())


def test_nuts_meets_the_exact_posterior_within_its_error():
    """Means and sds of Gamma(14, 4) within 4 standard errors (false alarm below 1 in 5,000 each)."""
    y = torch.tensor([3.0, 5.0, 4.0])
    posterior = fit(gamma_poisson, y, method=NUTS(draws=500, warmup=200, chains=2), seed=3)
    ess = posterior.summary()["ess"].iloc[0]
    sd = math.sqrt(14) / 4
    assert abs(posterior.mean("rate").item() - 14 / 4) < 4 * sd / math.sqrt(ess)
    assert abs(posterior.sd("rate").item() / sd - 1) < 4 * 0.8 / math.sqrt(ess)
    assert posterior.converged
    assert posterior.summary()["rhat"].iloc[0] < 1.05


def test_ep_is_close_to_nuts_on_logistic_regression():
    """Four coefficients, 80 rows: EP within 0.05 sd of NUTS plus 4 Monte Carlo errors."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(80, 3))
    y = (rng.random(80) < 1 / (1 + np.exp(-X @ [1.0, -2.0, 0.5]))).astype(int)
    ep, nuts = fit(logistic, X, y, method="ep"), fit(logistic, X, y, method=NUTS(draws=600, warmup=150, chains=2))
    table = nuts.summary()
    gap = (ep.summary()["mean"] - table["mean"]).abs() / table["sd"]
    assert bool((gap < 0.05 + 4 / np.sqrt(table["ess"])).all())
    assert bool(((ep.summary()["sd"] / table["sd"] - 1).abs() < 0.05 + 3.2 / np.sqrt(table["ess"])).all())


def test_same_seed_same_draws_and_another_seed_others():
    short = NUTS(draws=40, warmup=20, chains=1)
    y = torch.tensor([3.0, 5.0, 4.0])
    first, again, other = (fit(gamma_poisson, y, method=short, seed=s).draws()["rate"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nuts_without_a_mode_starts_from_the_prior_and_says_so(monkeypatch):
    """In plain coordinates it still meets Gamma(14, 4), within 4 standard errors (false alarm below 1 in 5,000)."""
    from probdl.inference import nuts

    def no_mode(program):
        raise probdl.ConvergenceError("no mode here")

    monkeypatch.setattr(nuts, "find_mode", no_mode)
    posterior = fit(gamma_poisson, torch.tensor([3.0, 5.0, 4.0]), method=NUTS(draws=300, warmup=200, chains=2))
    assert "started at the prior means, since Laplace's method failed (no mode here)" in posterior.message
    ess = posterior.summary()["ess"].iloc[0]
    assert abs(posterior.mean("rate").item() - 14 / 4) < 4 * math.sqrt(14) / 4 / math.sqrt(ess)


def test_a_funnel_too_steep_for_newton_raises_and_says_what_to_do():
    """Its curvature runs over hundreds of orders of magnitude; older SciPy would never return."""

    def funnel(y):
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
        with pyro.plate("three", 3):
            pyro.sample("x", dist.Normal(0.0, torch.exp(-20 * v)))
        pyro.sample("y", dist.Normal(v, 1.0), obs=y)

    with pytest.raises(probdl.ConvergenceError, match="use method='nuts'"):
        fit(funnel, torch.tensor(0.0), method="laplace")


def test_an_interrupt_keeps_the_draws_made_so_far(monkeypatch):
    from probdl.inference import nuts

    class Interrupting(nuts.PyroNUTS):
        steps = 0

        def sample(self, params):
            Interrupting.steps += 1
            if Interrupting.steps > 90:
                raise KeyboardInterrupt
            return super().sample(params)

    monkeypatch.setattr(nuts, "PyroNUTS", Interrupting)
    with pytest.warns(probdl.ConvergenceWarning, match="interrupted"):
        posterior = fit(gamma_poisson, torch.tensor([3.0, 5.0]), method=NUTS(draws=500, warmup=30, chains=2))
    assert posterior.draws()["rate"].shape == (60,)
    assert not posterior.converged
    assert posterior.message.startswith("Interrupted")


def test_auto_says_what_it_chose_and_why():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2))
    assert fit(logistic, X, rng.integers(0, 2, 20)).method == "expectation propagation"
    other = fit(gamma_poisson, torch.tensor([3.0, 5.0]))
    assert other.method == "coordinate ascent"
    assert "'rate' has the support" in other.message


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="draws must be at least 8; got 0"):
        NUTS(draws=0)


def test_a_density_too_large_to_tell_points_apart_still_gives_the_mode():
    """Values near 1e10 have 2e-6 as their last digit: no step shows an improvement within a thousandth of a sd."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2000, 5)), (rng.random(2000) < 0.5).astype(float)

    def model(X, y, constant):
        w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([5]).to_event(1))
        pyro.factor("constant", torch.tensor(-constant, dtype=torch.float64))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)

    plain, shifted = (fit(model, X, y, constant, method="laplace") for constant in (0.0, 1e10))
    assert float(((shifted.mean("w") - plain.mean("w")) / plain.sd("w")).abs().max()) < 0.01
