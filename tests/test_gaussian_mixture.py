"""The variational mixture: its law is the posterior predictive, its number of components that of the best bound."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import digamma, gammaln
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture

import probdl
from probdl.models import GaussianMixture, evaluate
from probdl.models.clustering import mixture_program, number_of_components
from probdl.models.clustering.normal_predictive import scales_of

WEIGHTS, MEANS = np.array([0.5, 0.3, 0.2]), np.array([[0.0, 0.0], [40.0, 0.1], [0.0, 0.4]])
ROOTS = np.array([[[12.0, 0.0], [0.1, 0.03]], [[5.0, 0.0], [-0.02, 0.08]], [[9.0, 0.0], [0.0, 0.05]]])


def simulated(n=300, seed=0):
    """Rows of three unequal, tilted components whose columns have very different units, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=WEIGHTS)
    return MEANS[labels] + np.einsum("nij,nj->ni", ROOTS[labels], rng.normal(size=(n, 2))), labels


@pytest.fixture(scope="module")
def model():
    return GaussianMixture().fit(simulated()[0])


@pytest.fixture(scope="module")
def on_a_line():
    """Two components of numbers, with few rows, so that parameters are uncertain."""
    return GaussianMixture(2).fit(np.concatenate([stats.norm.ppf(np.arange(1, 10) / 10), [70.0, 72.0, 75.0, 81.0]]))


@pytest.fixture(scope="module")
def in_four():
    """One component of a dozen rows in four dimensions."""
    noise = torch.Generator().manual_seed(0)
    return GaussianMixture(1).fit(torch.randn(12, 4, dtype=torch.float64, generator=noise))


def by_draws(posterior, u, draws=4000):
    """The posterior predictive density of rows in standardised units: the mean over draws of all parameters."""
    q = {name: x.numpy() for name, x in posterior.draws(draws, seed=1).items() if name != "z"}
    total = 0.0
    for k in range(q["mu"].shape[1]):
        gap = u[:, None] - q["mu"][None, :, k]
        quadratic = np.einsum("nsi,sij,nsj->ns", gap, q["precision"][:, k], gap)
        log_det = np.linalg.slogdet(q["precision"][:, k])[1]
        total = total + q["weights"][:, k] * np.exp(0.5 * (log_det - quadratic - u.shape[1] * math.log(2 * math.pi)))
    return total.mean(1), total.std(1) / draws**0.5


@pytest.mark.parametrize("name", ["model", "on_a_line", "in_four"])
def test_the_density_is_the_mean_over_draws_of_the_posterior(name, request):
    """Six standard errors at 8 rows: false alarms below 1e-7."""
    fitted = request.getfixturevalue(name)
    x = fitted.sample(8, seed=2).reshape(8, -1)
    units = fitted.units
    expected, error = by_draws(fitted.posterior, ((x - units.shift) / units.scale).numpy())
    ours = fitted.log_prob(x[:, 0] if name == "on_a_line" else x).exp().numpy() * float(units.scale.prod())
    assert (abs(ours - expected) < 6 * error).all()
    assert (error < 0.1 * expected).all()


def test_the_density_integrates_to_one_in_the_units_of_the_data(on_a_line):
    density = lambda x: float(on_a_line.log_prob([x]).exp())  # noqa: E731
    total = sum(
        integrate.quad(density, a, b, limit=200)[0] for a, b in [(-400, -5), (-5, 5), (5, 60), (60, 90), (90, 500)]
    )
    assert total == pytest.approx(1, abs=2e-4)  # what is missing is in the tails


def test_the_distribution_says_the_same_and_has_its_tails(model, on_a_line):
    x = torch.as_tensor(simulated(50, 3)[0])
    torch.testing.assert_close(model.distribution.log_prob(x), model.log_prob(x), rtol=1e-10, atol=1e-10)
    assert model.distribution.event_shape == (2,)
    far = torch.tensor([500.0], dtype=torch.float64)
    torch.testing.assert_close(on_a_line.distribution.log_prob(far[:, None]), on_a_line.log_prob(far))


def test_samples_follow_the_distribution(model):
    """Kolmogorov–Smirnov of each column against the margins, which are mixtures of normals; false-alarm rate .002."""
    sample, law = model.sample(5000, seed=4).numpy(), model.distribution
    weights, parts = law.mixture_distribution.probs.numpy(), law.component_distribution
    for j in range(2):
        loc, sd = parts.loc[:, j].numpy(), parts.covariance_matrix[:, j, j].sqrt().numpy()
        cdf = lambda x, loc=loc, sd=sd: stats.norm.cdf((x[:, None] - loc) / sd) @ weights  # noqa: E731
        assert stats.kstest(sample[:, j], cdf).pvalue > 0.001
    correlation = np.corrcoef(*simulated(20000, 5)[0].T)[0, 1]
    assert np.corrcoef(*sample.T)[0, 1] == pytest.approx(correlation, abs=0.06)


def test_samples_without_noise_are_the_means_of_the_components(model):
    means = {tuple(row) for row in model.sample(50, mean=True).round(decimals=6).tolist()}
    assert means == {tuple(row) for row in model.means.round(decimals=6).tolist()}


def test_the_bound_finds_the_three_components_and_their_parameters(model):
    """The order is that of the weights, which are .5, .3, .2."""
    x, labels = simulated()
    assert len(model.weights) == 3
    assert model.bounds["bound"].idxmax() == 3
    assert model.bounds.index.tolist() == [1, 2, 3, 4, 5]  # two more have not raised it
    assert adjusted_rand_score(labels, model.predict(x)) > 0.85
    assert (abs(model.weights.numpy() - WEIGHTS) < 4 * model.weights_sd.numpy()).all()
    assert (abs(model.means.numpy() - MEANS) < 4 * model.means_sd.numpy()).all()
    truth = np.einsum("kij,kij->ki", ROOTS, ROOTS)
    assert (abs(np.einsum("kii->ki", model.covariances.numpy()) / truth - 1) < 0.4).all()


def test_standard_deviations_are_those_of_complete_data_where_components_are_apart():
    """Means: σ/√n; weights: √(π(1 − π)/(n + K + 1)) of a Dirichlet."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0, 2, 300), rng.normal(1000, 5, 100)])
    fitted = GaussianMixture(2).fit(x)
    expected = [x[:300].std() / 300**0.5, x[300:].std() / 100**0.5]
    np.testing.assert_allclose(fitted.means_sd, expected, rtol=0.03)  # the prior counts as three rows
    p = 301 / 402
    np.testing.assert_allclose(fitted.weights, [p, 1 - p], atol=1e-6)
    np.testing.assert_allclose(fitted.weights_sd, (p * (1 - p) / 403) ** 0.5, rtol=1e-6)


def test_covariances_are_the_means_over_draws_of_the_inverse_precisions(in_four):
    """Six standard errors of 16 entries: false alarms below 1e-7."""
    drawn = in_four.posterior.draws(4000, seed=1)["precision"][:, 0].inverse()
    outer = in_four.units.scale[:, None] * in_four.units.scale
    error = drawn.std(0) / 4000**0.5 * outer
    assert ((in_four.covariances[0] - drawn.mean(0) * outer).abs() < 6 * error).all()
    assert (error.diagonal() < 0.02 * in_four.covariances[0].diagonal()).all()


@pytest.mark.parametrize("seed", range(2))
def test_one_normal_is_one_component(seed):
    x = torch.randn(150, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fitted = GaussianMixture(range(1, 4)).fit(x)
    assert len(fitted.weights) == 1
    assert fitted.bounds.index.tolist() == [1, 2, 3]


def test_held_out_rows_are_likelier_than_under_scikit_learns_mixture():
    x, labels = load_iris(return_X_y=True)
    gaps = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(150)
        train, held = x[order[:120]], x[order[120:]]
        ours = GaussianMixture((2, 3)).fit(train)
        fits = [BayesianGaussianMixture(n_components=k, n_init=3, random_state=0).fit(train) for k in (2, 3)]
        gaps.append(float(ours.log_prob(held).mean()) - max(fit.score(held) for fit in fits))
    assert min(gaps) > 0
    assert adjusted_rand_score(labels, GaussianMixture(3).fit(x).predict(x)) > 0.88  # as EM finds on these rows: .90


def test_units_of_columns_do_not_matter(model):
    x = simulated()[0]
    other = GaussianMixture().fit(x * [1e3, 1e-2] + [5, -7])
    torch.testing.assert_close(
        other.log_prob(x * [1e3, 1e-2] + [5, -7]), model.log_prob(x) - math.log(10), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        other.responsibilities(x * [1e3, 1e-2] + [5, -7]), model.responsibilities(x), atol=1e-5, rtol=0
    )


def test_responsibilities_are_those_of_the_fit_and_of_bayes(model):
    x = simulated()[0]
    ours = model.responsibilities(x)
    torch.testing.assert_close(ours.sum(1), torch.ones(300, dtype=torch.float64))
    order = torch.argsort(model.posterior.mean("weights"), descending=True)
    assert (ours - model.posterior.probabilities("z")[:, order]).abs().max() < 0.1
    assert (ours - model.posterior.probabilities("z")[:, order]).abs().mean() < 0.005
    assert torch.equal(model.predict(x), ours.argmax(1))


def test_the_bound_counts_the_labellings_of_its_components(model):
    table = model.bounds
    counted = [gammaln(k + 1) - gammaln(k - occupied + 1) for k, occupied in table["occupied"].items()]
    np.testing.assert_allclose(table["bound"] - table["elbo"], counted, atol=1e-9)
    assert float(model.posterior.elbo) == pytest.approx(table["elbo"][3])
    assert table["converged"].all()


def test_empty_components_are_dropped_with_a_note():
    x = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fitted = GaussianMixture(9).fit(x)
    left = len(fitted.weights)
    assert left < 9
    assert f"{9 - left} with less than one row expected were dropped" in fitted.message
    assert float(fitted.weights.sum()) == pytest.approx(1)
    assert fitted.responsibilities(x).shape == (60, left)
    assert fitted.bounds["occupied"].tolist() == [left]
    labellings = gammaln(10) - gammaln(10 - left)  # 9! / (9 − left)!, for empty components are all alike
    np.testing.assert_allclose(fitted.bounds["bound"] - fitted.bounds["elbo"], labellings)


X = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ATOM = torch.cat([X[:30], X[:1].expand(30, 3)])


@pytest.mark.parametrize(
    ("x", "components"),
    [
        (torch.cat([X, X[:, :1]], 1), 1),
        (ATOM, 2),
        (torch.tensor([[0.0], [1.0]]).repeat(20, 1), 2),
        (X[:5, [0, 1, 2] * 2], 1),
    ],
    ids=["equal columns", "equal rows", "two points", "fewer rows than columns"],
)
def test_where_the_likelihood_is_unbounded_the_scale_is_held_and_the_message_says_so(x, components):
    fitted = GaussianMixture(components).fit(x)
    assert "the prior scale was held" in fitted.message
    assert fitted.log_prob(x).isfinite().all()
    assert fitted.posterior.names == ("weights", "mu", "precision", "z")
    assert fitted.log_prob(x).max() < 25


def test_rows_in_general_position_leave_the_scale_to_the_data(model):
    assert "held" not in model.message
    assert "scale" in model.posterior.names


def test_tables_keep_their_columns(tmp_path):
    table = pd.DataFrame(simulated()[0], columns=["length", "width"])
    fitted = GaussianMixture(3).fit(table)
    assert fitted.means.columns.tolist() == fitted.means_sd.columns.tolist() == ["length", "width"]
    assert fitted.means_sd["length"].between(0.2, 3).all()
    assert fitted.sample(4).columns.tolist() == ["length", "width"]
    mixed = GaussianMixture(2).fit(table.assign(kind=["a", "b", "b"] * 100))
    assert mixed.means["kind"].isin(["a", "b"]).all()
    assert mixed.means_sd.shape == (2, 4)
    assert any("not a probability of categories" in note for note in mixed.log_likelihood(table.assign(kind="a")).notes)
    fitted.save(tmp_path / "m.safetensors")
    again = GaussianMixture.load(tmp_path / "m.safetensors")
    pd.testing.assert_frame_equal(again.bounds, fitted.bounds)
    pd.testing.assert_frame_equal(again.means, fitted.means)
    assert again.posterior is None


def test_answers_come_in_the_dtype_asked_for(model):
    x = simulated()[0]
    fitted = GaussianMixture(3, dtype=torch.float32).fit(x)
    assert {a.dtype for a in (fitted.log_prob(x), fitted.weights, fitted.means, fitted.covariances)} == {torch.float32}
    torch.testing.assert_close(fitted.log_prob(x).double(), model.log_prob(x), atol=0.01, rtol=0)


@given(st.floats(2, 1000), st.integers(1, 30))
def test_the_nodes_integrate_over_the_gamma_law(df, d):
    """E s = 1; E log s = ψ(ν/2) − log(ν/2); and the t-density at zero, E s^(d/2), in closed form."""
    s, log_weights = scales_of(torch.tensor([df], dtype=torch.float64), d)
    mean = lambda f: float((log_weights.exp() * f).sum())  # noqa: E731
    a = df / 2
    assert mean(s) == pytest.approx(1, rel=1e-6)
    assert mean(s.log()) == pytest.approx(digamma(a) - math.log(a), abs=1e-6)
    expected = gammaln(a + d / 2) - gammaln(a) - d / 2 * math.log(a)
    assert math.log(mean(s ** (d / 2))) == pytest.approx(expected, abs=1e-5)


def test_the_error_of_the_quadrature_is_said_and_small(on_a_line):
    found = on_a_line.log_likelihood(np.linspace(-10, 100, 30))
    assert (found.method, found.target) == ("quadrature", "population")
    assert 0 < float(found.stderr.max()) < 1e-4


def test_divergences_and_evaluate_take_it(on_a_line):
    """KL(p‖q) of the law of a row and a normal: minus the entropy, by Simpson's rule, and the normal's closed form."""
    law, normal = on_a_line.distribution, torch.distributions.MultivariateNormal(
        torch.tensor([20.0], dtype=torch.float64), torch.tensor([[1000.0]], dtype=torch.float64)
    )  # fmt: skip
    x = np.linspace(-300, 500, 80001)
    p = on_a_line.log_prob(x).numpy()
    expected = integrate.simpson(np.exp(p) * (p - stats.norm.logpdf(x, 20, 1000**0.5)), x=x)
    assert float(probdl.divergences.kl(law, normal)) == pytest.approx(expected, abs=0.02)
    held = on_a_line.sample(40, seed=9)
    found = evaluate(on_a_line, held, measures=["log_likelihood"]).table.loc["log_likelihood"]
    assert found["value"] == pytest.approx(float(on_a_line.log_prob(held).mean()))


@pytest.mark.parametrize("bad", [0, 2.5, "many", [], [1, 0], True, None])
def test_numbers_of_components_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ValueError, match="components must be"):
        GaussianMixture(bad)


def test_more_components_than_distinct_rows_are_refused():
    with pytest.raises(ValueError, match="at least as many distinct rows as components, 3; got 2"):
        GaussianMixture([1, 3]).fit([[0.0], [1.0], [1.0], [0.0]])


def test_more_columns_than_memory_holds_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(number_of_components, "LARGEST", 500)
    with pytest.raises(ValueError, match="60 rows of 3 columns. Take fewer columns"):
        GaussianMixture().fit(X)


def test_an_ascent_that_has_not_converged_warns(monkeypatch):
    monkeypatch.setattr(mixture_program, "SWEEPS", 1)
    with pytest.warns(probdl.ConvergenceWarning, match="has not converged"):
        fitted = GaussianMixture(4).fit(X)
    assert "had not converged after 1 sweeps" in fitted.message
    assert not fitted.bounds["converged"].any()
