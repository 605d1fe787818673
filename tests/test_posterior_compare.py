"""Two posteriors side by side, methods on data simulated from the model, and pictures of both."""

import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import probdl
from probdl.inference import (
    NUTS,
    ExpectationPropagation,
    MeanField,
    compare_posteriors,
    fit,
    simulation_based_calibration,
)
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.posteriors.ranks import judge


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def counts(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def regression(X, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)


COUNTS = torch.tensor([3.0, 5.0, 4.0])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
X[:, 1] += X[:, 0]
Y = RNG.normal(size=12)


# compare_posteriors


def test_the_shift_is_in_sds_of_the_second_and_the_ratio_is_of_the_first_to_the_second():
    a, b = (fit(regression, X, Y + shift, method="ep") for shift in (0.0, 1.0))
    b.approximation = GaussianApproximation(
        b.approximation.latents, b.approximation.free_mean, 4 * b.approximation.free_covariance
    )
    table = compare_posteriors(a, b)
    assert list(table.index) == ["w[0]", "w[1]"]
    assert np.allclose(table["shift"], (a.mean("w") - b.mean("w")) / b.sd("w"))
    assert np.allclose(table["ratio"], 0.5)
    assert (table[["shift_error", "ratio_error"]] == 0).all(axis=None)
    assert table.attrs["methods"] == ("expectation propagation", "expectation propagation")


def test_monte_carlo_errors_cover_the_exact_posterior():
    """NUTS against Gamma(14, 4): within 4.5 errors, which are 1/√ESS and about 1/√(2 ESS)."""
    nuts = fit(counts, COUNTS, method=NUTS(draws=400, warmup=150, chains=2), seed=5)
    exact = fit(counts, COUNTS, method="laplace")
    exact.approximation.mean = lambda name: torch.tensor(3.5, dtype=torch.float64)
    exact.approximation.sd = lambda name: torch.tensor(math.sqrt(14) / 4, dtype=torch.float64)
    row = compare_posteriors(nuts, exact).loc["rate"]
    ess = nuts.summary()["ess"].iloc[0]
    assert row["shift_error"] == pytest.approx(1 / math.sqrt(ess), rel=0.1)
    assert 0.5 / math.sqrt(2 * ess) < row["ratio_error"] < 2 / math.sqrt(2 * ess)
    assert abs(row["shift"]) < 4.5 * row["shift_error"]
    assert abs(row["ratio"] - 1) < 4.5 * row["ratio_error"]


def test_moments_by_fixed_draws_have_an_error_too():
    def model(y):
        share = pyro.sample("share", dist.Dirichlet(torch.tensor([3.0, 4.0, 5.0])))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Categorical(share), obs=y)

    posterior = fit(model, torch.tensor([0, 1, 1, 2, 2, 2]), method="laplace")
    table = compare_posteriors(posterior, posterior)
    assert np.allclose(table["shift_error"], math.sqrt(2 / 20_000))
    assert np.allclose(table["ratio_error"], 1 / math.sqrt(20_000), rtol=0.2)  # √2 · 1/√(2 · 20,000) if Normal


def test_only_shared_sites_are_compared_and_shapes_must_agree():
    def more(X, y):
        regression(X, y)
        pyro.sample("alone", dist.Normal(0.0, 1.0))

    table = compare_posteriors(fit(more, X, Y, method="laplace"), fit(regression, X, Y))
    assert list(table.index) == ["w[0]", "w[1]"]
    assert table.attrs["left_out"] == ["alone"]
    with pytest.raises(ValueError, match="must share a site; a has w and b rate"):
        compare_posteriors(fit(regression, X, Y), fit(counts, COUNTS, method="laplace"))
    with pytest.raises(ValueError, match=r"Site 'w' must have one shape; it has \(2,\) in a and \(1,\) in b"):
        compare_posteriors(fit(regression, X, Y), fit(regression, X[:, :1], Y))


# Simulation-based calibration


@dataclasses.dataclass(frozen=True)
class Spoiled:
    """Exact inference whose sds are multiplied and whose means are moved by some of them."""

    factor: float = 1.0
    shift: float = 0.0

    def run(self, program, seed=0, progress=None):
        posterior = ExpectationPropagation().run(program, seed, progress)
        q = posterior.approximation
        mean = q.free_mean + self.shift * q.free_sd
        posterior.approximation = GaussianApproximation(q.latents, mean, self.factor**2 * q.free_covariance)
        return posterior


def test_an_exact_method_is_calibrated():
    """False alarm 0.01 by construction; the z of each mean rank is within 4 (6e-5), the spread within 4/√(1.25·200)."""
    found = simulation_based_calibration(regression, X, method="ep", simulations=200, observed=("y",), seed=1)
    assert found.calibrated
    assert found.false_alarms == 0.01
    assert found.ranks.shape == (200, 2)
    assert found.ranks.to_numpy().min() >= 0
    assert found.ranks.to_numpy().max() <= 99
    assert found.table["z"].abs().max() < 4
    assert (found.table["spread"] - 1).abs().max() < 4 / math.sqrt(1.25 * 200)
    assert "could be uniform" in repr(found)
    assert found.failures == 0


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Spoiled(factor=0.5), "too narrow"),
        (Spoiled(factor=2.0), "too wide"),
        (Spoiled(shift=-0.8), "too low"),
        (Spoiled(shift=0.8), "too high"),
    ],
    ids=str,
)
def test_a_wrong_posterior_is_found_and_the_error_named(method, said):
    found = simulation_based_calibration(regression, X, method=method, simulations=100, observed=("y",))
    assert not found.calibrated
    assert said in found.message
    assert "w[" in found.message


def test_values_that_are_only_written_down_are_not_held_fixed():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
        line = pyro.deterministic("line", w * x)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(line, 0.5), obs=y)

    found = simulation_based_calibration(model, torch.ones(5), torch.zeros(5), method="laplace", simulations=40)
    assert found.calibrated
    assert list(found.ranks) == ["w"]


def test_factors_cannot_be_simulated():
    def model(y):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
        pyro.factor("penalty", -w.abs())
        pyro.sample("y", dist.Normal(w, 0.5), obs=y)

    with pytest.raises(ValueError, match="Site 'penalty' is a pyro.factor"):
        simulation_based_calibration(model, torch.tensor(0.0), method="laplace")
    posterior = fit(model, torch.tensor(1.0), method="laplace")
    assert posterior.predict(draws=5).keys() == {"y"}
    assert posterior.check(200).khat < 0.7


def test_mean_field_on_correlated_latents_is_too_narrow():
    steep = np.array([[1.0, 1.0], [1.0, 1.2], [1.0, 0.8], [0.9, 1.0]])
    found = simulation_based_calibration(regression, steep, np.zeros(4), method=MeanField(), simulations=60)
    assert not found.calibrated
    assert (found.table["spread"] > 1.1).all()


def test_a_sampler_is_calibrated():
    """25 fits: the mean rank is within 4 standard errors of its middle (6e-5)."""
    method = NUTS(draws=150, warmup=60, chains=1)
    found = simulation_based_calibration(counts, torch.zeros(4), method=method, simulations=25, draws=29)
    assert abs(found.table.loc["rate", "z"]) < 4
    assert found.table.loc["rate", "spread"] == pytest.approx(1, abs=0.45)


def test_the_uniformity_test_has_the_level_it_states():
    """Uniform ranks of 3 entries, 400 times at level 0.01: more than 14 alarms have probability 3e-5."""
    generator = torch.Generator().manual_seed(0)
    alarms = sum(
        not judge(torch.randint(0, 100, (100, 3), generator=generator), list("abc"), 99, 0, 0).calibrated
        for _ in range(400)
    )
    assert alarms <= 14


def test_simulations_are_deterministic_and_touch_no_global_seed():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (
        simulation_based_calibration(regression, X, Y, method="ep", simulations=10, seed=s).ranks for s in (0, 0, 1)
    )
    assert torch.rand(1) == expected
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_simulations_that_cannot_be_made_or_fitted_say_why():
    with pytest.raises(ValueError, match="simulations must be at least 10 and draws 9"):
        simulation_based_calibration(regression, X, Y, simulations=5)
    with pytest.raises(ValueError, match="observed must name sites of the model; z is none of"):
        simulation_based_calibration(regression, X, observed=("z",))
    with pytest.raises(ValueError, match=r"Or pass observed=\('y',\)"):
        simulation_based_calibration(regression, X)

    class Fails:
        def run(self, program, seed=0, progress=None):
            raise probdl.ConvergenceError("it never converges.")

    with pytest.raises(probdl.ConvergenceError, match="failed on 5 of 5 simulated data sets.*it never converges"):
        simulation_based_calibration(regression, X, Y, method=Fails())


def test_failures_are_counted_and_left_out():
    class FailsOnSome:
        def run(self, program, seed=0, progress=None):
            if seed % 4 == 0:
                raise probdl.ConvergenceError("it does not converge.")
            return ExpectationPropagation().run(program, seed, progress)

    found = simulation_based_calibration(regression, X, Y, method=FailsOnSome(), simulations=30)
    assert 0 < found.failures == 30 - len(found.ranks)
    assert f"{found.failures} more failed and are left out" in found.message


# Pictures


@pytest.fixture(scope="module")
def posteriors():
    nuts = fit(counts, COUNTS, method=NUTS(draws=60, warmup=60, chains=2))
    return {
        "laplace": fit(counts, COUNTS, method="laplace"),
        "nuts": nuts,
        "ep": fit(regression, X, Y > 0, method="ep"),
    }


def test_a_forest_shows_the_median_and_two_intervals_of_each_entry_and_another_below(posteriors):
    laplace, nuts = posteriors["laplace"], posteriors["nuts"]
    ax = laplace.plot(kind="forest")
    assert nuts.plot(kind="forest", ax=ax, label="reference") is ax
    (first, *_), (second, *_) = (c.lines for c in ax.containers)
    assert first.get_xdata()[0] == pytest.approx(laplace.quantile("rate", 0.5).item())
    assert second.get_ydata()[0] > first.get_ydata()[0]
    outer, inner = ax.containers[0].lines[2][0].get_segments()[0][:, 0], ax.collections[1].get_segments()[0][:, 0]
    assert np.allclose(outer, [laplace.quantile("rate", q).item() for q in (0.05, 0.95)])
    assert np.allclose(inner, [laplace.quantile("rate", q).item() for q in (0.25, 0.75)])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["laplace", "reference"]


def test_a_trace_shows_what_the_method_drives_to_zero_or_up_or_the_chains(posteriors):
    def probit(X, y):
        w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Bernoulli(torch.special.ndtr(X @ w)), obs=y)

    ep = fit(probit, X, Y > 0, method="ep")
    ax = ep.plot(kind="trace")
    assert (ax.get_ylabel(), ax.get_xlabel(), ax.get_yscale()) == ("gap", "sweep", "log")
    assert np.array_equal(ax.lines[0].get_ydata(), ep.history["gap"])
    ep.history = ep.history.assign(elbo=-1.0 / ep.history["sweep"])
    assert ep.plot(kind="trace").get_ylabel() == "elbo"
    panels = posteriors["nuts"].plot(kind="trace")
    assert np.array_equal(panels["rate"].lines[1].get_ydata(), posteriors["nuts"].approximation.chains["rate"][1])


def test_kinds_and_traces_that_do_not_exist_are_named(posteriors):
    with pytest.raises(ValueError, match="kind must be one of 'marginals', 'forest', 'pairs', 'trace'; got 'pair'"):
        posteriors["laplace"].plot(kind="pair")
    with pytest.raises(ValueError, match="There is no trace to draw"):
        posteriors["laplace"].plot(kind="trace")
    with pytest.raises(ValueError, match="no latent site 'q'"):
        posteriors["laplace"].plot(["q"], kind="forest")


def test_ranks_are_drawn_over_the_band_of_uniform_ones():
    found = simulation_based_calibration(regression, X, Y, method="ep", simulations=50)
    panels = found.plot()
    assert set(panels) == {"w[0]", "w[1]"}
    bars = [b for c in panels["w[0]"].containers for b in c]
    counts = [b.get_height() for b in panels["w[0]"].containers[1]]
    assert sum(counts) == 50
    low, high = bars[0].get_y(), bars[0].get_y() + bars[0].get_height()
    assert (low, high) == tuple(stats.binom.ppf([0.005, 0.995], 50, 0.2))
    assert set(found.plot(["w[1]"])) == {"w[1]"}


def test_what_is_no_posterior_cannot_be_compared():
    with pytest.raises(TypeError, match="a must be a Posterior, as fit returns; got int"):
        compare_posteriors(3, 4)
