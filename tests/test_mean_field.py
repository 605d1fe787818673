"""Deterministic mean-field and full-rank VI where the optimum is known: Gaussians, closed forms, and quadrature."""

import itertools
import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from pyro_models import logistic, normal_regression
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal, norm

import probdl
from probdl.inference import FullRank, MeanField, Posterior, fit
from probdl.inference.deterministic import expectations
from probdl.inference.deterministic.first_guess import ensure_start
from probdl.inference.deterministic.fixed_draws import standard_draws
from probdl.inference.programs.derivatives import hessian, recorded_gradient, value_and_gradient
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable
from probdl.inference.propagation.factors import NotApplicable

F64 = torch.float64


@pytest.fixture
def by_draws(monkeypatch):
    """Let no model have exact expectations."""

    def refuse(program):
        raise NotApplicable("by draws, please")

    monkeypatch.setattr(expectations, "split_factors", refuse)


def regression_data(n=40, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ (0.4 * np.eye(d) + 0.6)
    return X, X @ rng.normal(size=d) + 0.5 * rng.normal(size=n)


def labelled_data(n=60, d=3, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ (0.4 * np.eye(d) + 0.6)
    return X, (rng.random(n) < expit(1.5 * X @ rng.normal(size=d))).astype(float)


def gaussian_truth(X, y):
    """Mean, covariance and log evidence of ``normal_regression``: prior sd 2, noise sd 0.5."""
    precision = np.eye(X.shape[1]) / 4 + X.T @ X / 0.25
    covariance = np.linalg.inv(precision)
    evidence = multivariate_normal(np.zeros(len(y)), 0.25 * np.eye(len(y)) + 4 * X @ X.T).logpdf(y)
    return covariance @ X.T @ y / 0.25, covariance, precision, evidence


class LogisticBound:
    """The negative bound of ``logistic`` under N(m, LLᵀ), by 100 Gauss–Hermite nodes for each row; NumPy only."""

    def __init__(self, X, y):
        self.A, self.y, self.d = np.column_stack([np.ones(len(X)), X]), y, X.shape[1] + 1
        self.prior = np.array([0.01] + [0.25] * X.shape[1])
        self.nodes, weights = hermegauss(100)
        self.weights = weights / weights.sum()

    def value(self, m, L):
        sd = np.linalg.norm(self.A @ L, axis=1)
        eta = (self.A @ m)[:, None] + sd[:, None] * self.nodes
        likelihood = (self.y[:, None] * eta - np.logaddexp(0, eta)) @ self.weights
        second = m**2 + (L**2).sum(1)
        prior = 0.5 * (np.log(self.prior / (2 * np.pi)) - self.prior * second).sum()
        entropy = np.log(np.abs(np.diag(L))).sum() + 0.5 * self.d * np.log(2 * np.pi * np.e)
        return -(likelihood.sum() + prior + entropy)

    def mean_field(self):
        found = minimize(
            lambda x: self.value(x[: self.d], np.diag(np.exp(x[self.d :]))), np.zeros(2 * self.d), method="BFGS",
            options={"gtol": 1e-7, "maxiter": 2000},
        )  # fmt: skip
        return found.x[: self.d], np.exp(found.x[self.d :]), -found.fun

    def full_rank(self):
        rows, columns = np.tril_indices(self.d)

        def root(x):
            L = np.zeros((self.d, self.d))
            L[rows, columns] = x[self.d :]
            return L

        start = np.concatenate([np.zeros(self.d), np.eye(self.d)[rows, columns]])
        found = minimize(lambda x: self.value(x[: self.d], root(x)), start, method="BFGS", options={"gtol": 1e-7})
        L = root(found.x)
        return found.x[: self.d], L @ L.T, -found.fun


def stacked(posterior, column):
    return posterior.summary()[column].to_numpy()


@pytest.mark.parametrize("exact", [True, False])
def test_mean_field_of_a_gaussian_has_its_conditional_sds_and_linear_response_its_marginal_ones(exact, request):
    if not exact:
        request.getfixturevalue("by_draws")
    X, y = regression_data()
    mean, covariance, precision, evidence = gaussian_truth(X, y)
    posterior = fit(normal_regression, X, y, method="meanfield")
    assert np.allclose(posterior.mean("w"), mean, atol=1e-7)
    assert np.allclose(posterior.sd("w"), 1 / np.sqrt(np.diag(precision)), rtol=1e-7)
    assert np.allclose(stacked(posterior, "sd_lr"), np.sqrt(np.diag(covariance)), rtol=1e-7)
    gap = 0.5 * (np.linalg.slogdet(precision)[1] - np.log(np.diag(precision)).sum())  # KL(q‖p) of the two Gaussians
    assert abs(posterior.elbo.value - (evidence + gap)) < 1e-6
    assert "the linear-response sd is" in posterior.message
    assert posterior.converged


@pytest.mark.parametrize("exact", [True, False])
def test_full_rank_of_a_gaussian_is_the_posterior_and_its_bound_the_evidence(exact, request):
    if not exact:
        request.getfixturevalue("by_draws")
    X, y = regression_data()
    mean, covariance, _, evidence = gaussian_truth(X, y)
    posterior = fit(normal_regression, X, y, method="fullrank")
    assert np.allclose(posterior.mean("w"), mean, atol=1e-7)
    assert np.allclose(posterior.cov("w"), covariance, rtol=1e-6)
    assert np.allclose(stacked(posterior, "sd_lr"), np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert abs(posterior.elbo.value - evidence) < 1e-6
    assert "too narrow" not in posterior.message


def test_mean_field_of_a_logistic_regression_is_the_optimum_by_quadrature():
    X, y = labelled_data()
    mean, sd, elbo = LogisticBound(X, y).mean_field()
    posterior = fit(logistic, X, y, method="meanfield")
    assert np.abs((stacked(posterior, "mean") - mean) / sd).max() < 1e-4
    assert np.allclose(stacked(posterior, "sd"), sd, rtol=1e-4)
    assert abs(posterior.elbo.value - elbo) < 1e-6
    assert posterior.elbo.method == "quadrature"


def test_mean_field_by_draws_is_close_to_that_optimum(by_draws):
    X, y = labelled_data()
    mean, sd, elbo = LogisticBound(X, y).mean_field()
    posterior = fit(logistic, X, y, method="meanfield")
    assert np.abs((stacked(posterior, "mean") - mean) / stacked(posterior, "sd_lr")).max() < 0.03
    assert np.allclose(stacked(posterior, "sd"), sd, rtol=0.03)
    assert abs(posterior.elbo.value - elbo) < 5 * posterior.elbo.stderr + 0.01
    assert "fixed draws" in posterior.message


def test_full_rank_of_a_logistic_regression_is_the_optimum_by_quadrature():
    X, y = labelled_data(d=2)
    mean, covariance, elbo = LogisticBound(X, y).full_rank()
    posterior = fit(logistic, X, y, method="fullrank")
    assert np.abs((stacked(posterior, "mean") - mean) / np.sqrt(np.diag(covariance))).max() < 1e-4
    assert np.allclose(posterior.cov(), covariance, atol=1e-4)
    assert abs(posterior.elbo.value - elbo) < 1e-6


def test_full_rank_by_draws_is_close_to_that_optimum(by_draws):
    X, y = labelled_data(d=2)
    mean, covariance, _ = LogisticBound(X, y).full_rank()
    posterior = fit(logistic, X, y, method="fullrank")
    assert np.abs((stacked(posterior, "mean") - mean) / np.sqrt(np.diag(covariance))).max() < 0.03
    assert np.allclose(posterior.cov(), covariance, rtol=0.1, atol=0.01)


def gamma_poisson(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


@pytest.mark.parametrize("method", ["meanfield", "fullrank"])
def test_a_positive_latent_has_the_closed_form_of_its_log_normal(method):
    """Of Gamma(a, b) the closest log-normal has s² = 1/a and mean a/b, and linear response the exact sd √a/b."""
    a, b = 14, 4
    posterior = fit(gamma_poisson, torch.tensor([3.0, 5.0, 4.0]), method=method)
    assert abs(posterior.mean("rate").item() / (a / b) - 1) < 1e-3
    assert abs(posterior.quantile("rate", 0.5).item() / (a / b * math.exp(-0.5 / a)) - 1) < 1e-3
    assert abs(posterior.sd("rate").item() / (a / b * math.sqrt(math.expm1(1 / a))) - 1) < 5e-3
    assert abs(stacked(posterior, "sd_lr")[0] / (math.sqrt(a) / b) - 1) < 5e-3


def test_fixed_draws_have_the_moments_of_a_standard_normal():
    e = standard_draws(20, 7, seed=3, like=torch.zeros((), dtype=F64))
    assert torch.allclose(e.mean(0), torch.zeros(7, dtype=F64), atol=1e-12)
    assert torch.allclose(e.T @ e / 40, torch.eye(7, dtype=F64), atol=1e-12)
    assert torch.equal(e[:20], -e[20:])
    few = standard_draws(16, 40, seed=3, like=e)
    assert torch.allclose(few.square().mean(0), torch.ones(40, dtype=F64))


def test_the_reported_error_is_that_of_the_draws(by_draws):
    """Over 30 seeds, the root mean square error of the worst mean is half to twice the one that is reported."""
    X, y = labelled_data()
    mean, _, _ = LogisticBound(X, y).mean_field()
    errors, reported = [], []
    for seed in range(30):
        posterior = fit(logistic, X, y, method=MeanField(draws=16, draw_error=100.0), seed=seed)
        errors.append(np.abs((stacked(posterior, "mean") - mean) / stacked(posterior, "sd_lr")).max())
        reported.append(float(posterior.message.split("at most ")[1].split(" sd")[0]))
    ratio = np.sqrt(np.mean(np.square(errors)) / np.mean(np.square(reported)))
    assert 0.5 < ratio < 2


def test_draws_are_doubled_until_their_error_is_small(by_draws):
    X, y = labelled_data()
    rough = fit(logistic, X, y, method=MeanField(draws=8, draw_error=100.0))
    fine = fit(logistic, X, y, method=MeanField(draws=8, draw_error=0.0005))
    assert set(rough.history["draws"]) == {8}
    assert fine.history["draws"].iloc[-1] > 8
    assert list(fine.history.columns) == ["step", "elbo", "gradient", "draws"]
    assert list(fine.history["step"]) == list(range(len(fine.history)))


def test_same_seed_same_posterior_and_no_global_seed_is_changed():
    y = torch.tensor([3.0, 5.0, 4.0])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (fit(gamma_poisson, y, method="meanfield", seed=s).mean("rate") for s in (1, 1, 2))
    assert torch.rand(1) == expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_columns_of_the_summary():
    table = fit(gamma_poisson, torch.tensor([3.0]), method="meanfield").summary()
    assert list(table.columns) == ["mean", "sd", "5%", "50%", "95%", "sd_lr"]


def test_a_saved_posterior_keeps_its_linear_response(tmp_path):
    posterior = fit(gamma_poisson, torch.tensor([3.0, 4.0]), method="meanfield")
    posterior.save(tmp_path / "posterior.safetensors")
    loaded = Posterior.load(tmp_path / "posterior.safetensors")
    assert loaded.summary().equals(posterior.summary())


# Linear systems


def test_conjugate_gradients_give_the_dense_linear_response(monkeypatch):
    from probdl.inference.deterministic import linear_response

    X, y = labelled_data()
    dense = fit(logistic, X, y, method="meanfield")
    monkeypatch.setattr(linear_response, "_DENSE", 1)
    iterative = fit(logistic, X, y, method="meanfield")
    assert np.allclose(stacked(dense, "sd_lr"), stacked(iterative, "sd_lr"), rtol=1e-4)
    monkeypatch.setattr(linear_response, "_MOST_COLUMNS", 1)
    monkeypatch.setattr(linear_response, "_HUBS", 1)
    probed = fit(logistic, X, y, method="meanfield")
    assert np.allclose(stacked(dense, "sd_lr"), stacked(probed, "sd_lr"), rtol=0.2)
    assert any("random probes" in note for note in probed.notes)


def test_of_many_latents_the_linear_response_is_known_within_a_few_percent():
    """700 effects around a common mean, Gaussian throughout: the exact precision is an arrow."""

    def effects(y):
        common = pyro.sample("common", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            own = pyro.sample("own", dist.Normal(common, 1.0))
            pyro.sample("y", dist.Normal(own, 1.0), obs=y)

    y = torch.randn(700, generator=torch.Generator().manual_seed(0)) + 1
    precision = np.diag(np.r_[0.01 + 700, np.full(700, 2.0)])
    precision[0, 1:] = precision[1:, 0] = -1
    covariance = np.linalg.inv(precision)
    posterior = fit(effects, y, method="meanfield")
    assert np.allclose(stacked(posterior, "mean"), covariance @ np.r_[0, y], atol=1e-9)
    assert np.allclose(stacked(posterior, "sd"), 1 / np.sqrt(np.diag(precision)), rtol=1e-9)
    ratio = stacked(posterior, "sd_lr") / np.sqrt(np.diag(covariance))
    assert abs(ratio[0] - 1) < 1e-4  # the common mean, which is coupled to all, is solved for
    assert np.abs(ratio - 1).max() < 0.05
    assert any("random probes" in note for note in posterior.notes)


def test_a_program_that_cannot_be_recorded_gives_the_same():
    def plain(y):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Poisson(rate).expand([len(y)]).to_event(1), obs=y)

    def branching(y):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        assert rate > 0
        pyro.sample("y", dist.Poisson(rate).expand([len(y)]).to_event(1), obs=y)

    y = torch.tensor([3.0, 5.0])
    recorded, eager = (fit(m, y, method=MeanField(draws=8, draw_error=1.0)) for m in (plain, branching))
    assert torch.allclose(recorded.mean("rate"), eager.mean("rate"), rtol=1e-9)
    assert any("could not be recorded" in note for note in eager.notes)
    assert recorded.notes == ()


# Starts


def test_a_start_at_a_posterior_gives_the_same_optimum():
    X, y = labelled_data()
    cold = fit(logistic, X, y, method="meanfield")
    warm = fit(logistic, X, y, method=MeanField(start=cold))
    assert np.allclose(stacked(cold, "mean"), stacked(warm, "mean"), atol=1e-5)
    assert np.allclose(stacked(cold, "sd"), stacked(warm, "sd"), rtol=1e-5)
    assert "started at a posterior by meanfield" in warm.message
    with pytest.raises(ValueError, match=r"start must be a posterior of the same sites: expected \{'rate': \(\)\}"):
        fit(gamma_poisson, torch.tensor([3.0]), method=MeanField(start=cold))


def test_bad_settings_are_refused():
    for bad, match in (
        ({"draws": 7}, "draws must be an even number"),
        ({"draws": 0}, "draws must be an even number"),
        ({"draw_error": 0.0}, "draw_error must be positive"),
        ({"max_steps": 0}, "max_steps must be positive"),
    ):
        for method in (MeanField, FullRank):
            with pytest.raises(ValueError, match=match):
                method(**bad)


def test_full_rank_refuses_fewer_draws_than_directions(by_draws):
    X, y = labelled_data()
    with pytest.raises(ValueError, match="draws must be at least 8, twice the number of latents; got 6"):
        fit(logistic, X, y, method=FullRank(draws=6))


def test_stopping_too_early_is_said():
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
        s = pyro.sample("s", dist.HalfCauchy(3.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.StudentT(2.0, a, s), obs=y)

    with pytest.warns(probdl.ConvergenceWarning, match="did not reach the maximum"):
        posterior = fit(model, torch.tensor([0.0, 1.0, 9.0]), method=MeanField(max_steps=1))
    assert not posterior.converged


# Discrete latents


def mixture(x, log_scale=0.0):
    w = pyro.sample("w", dist.Dirichlet(torch.tensor([2.0, 3.0])))
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(w))
        pyro.sample("x", dist.Normal(mu[k], 0.7), obs=x)


def summed_mixture(x):
    w = pyro.sample("w", dist.Dirichlet(torch.tensor([2.0, 3.0])))
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, 0.7)), obs=x)


def chain(x):
    stay = pyro.sample("stay", dist.Beta(3.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    moves = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
    z = 0
    for t in pyro.markov(range(len(x))):
        z = pyro.sample(f"z{t}", dist.Categorical(moves[z]))
        pyro.sample(f"x{t}", dist.Normal(mu[z], 0.5), obs=x[t])


def test_a_mixture_is_summed_over_every_assignment():
    x = np.array([-1.3, 0.4, 2.2, 1.9])
    program = Program(mixture, (torch.tensor(x),))
    z = torch.tensor([0.3, -0.8, 1.7], dtype=F64)
    values = program.constrain(z)
    w, mu = values["w"].numpy(), values["mu"].numpy()
    likelihood = logsumexp(
        [
            sum(np.log(w[k]) + norm.logpdf(xi, mu[k], 0.7) for xi, k in zip(x, ks))
            for ks in itertools.product(range(2), repeat=4)
        ]
    )
    prior = dist.Dirichlet(torch.tensor([2.0, 3.0], dtype=F64)).log_prob(values["w"]).item()
    prior += norm.logpdf(mu, [-1, 2], 1).sum() + program._log_jacobian(z).item()
    assert abs(program.log_joint(z).item() - likelihood - prior) < 1e-10
    assert abs(program.recorded(program.log_joint)(z).item() - likelihood - prior) < 1e-10
    assert "the discrete sites k were summed out" in program.notes


def test_a_hidden_markov_chain_is_summed_over_every_path():
    x = np.array([-1.3, 0.4, 1.2])
    program = Program(chain, (torch.tensor(x),))
    z = torch.tensor([0.4, -0.8, 1.1], dtype=F64)
    values = program.constrain(z)
    stay, mu = values["stay"].item(), values["mu"].numpy()
    moves = np.log([[stay, 1 - stay], [1 - stay, stay]])
    likelihood = logsumexp(
        [
            sum(moves[a, b] + norm.logpdf(xi, mu[b], 0.5) for xi, a, b in zip(x, (0, *path), path))
            for path in itertools.product(range(2), repeat=3)
        ]
    )
    prior = dist.Beta(torch.tensor(3.0, dtype=F64), 1.0).log_prob(values["stay"]).item()
    prior += norm.logpdf(mu, [-1, 1], 1).sum() + program._log_jacobian(z).item()
    assert abs(program.log_joint(z).item() - likelihood - prior) < 1e-10


@pytest.mark.parametrize("method", ["laplace", "meanfield"])
def test_an_enumerated_mixture_is_the_one_summed_by_hand(method):
    x = torch.tensor([-1.3, 0.4, 2.2, 1.9, -0.7, 2.5])
    ours, by_hand = fit(mixture, x, method=method), fit(summed_mixture, x, method=method)
    assert ours.names == ("w", "mu")
    assert torch.allclose(ours.mean("mu"), by_hand.mean("mu"), atol=1e-4)
    assert torch.allclose(ours.sd("w"), by_hand.sd("w"), rtol=1e-3)
    assert "the discrete sites k were summed out" in ours.notes


def test_labels_that_can_switch_are_noted_and_others_are_not():
    def symmetric(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(mu[k], 1.0), obs=x)

    x = torch.tensor([-2.0, -2.2, -1.5, 2.0, 1.5, 2.4])
    posterior = fit(symmetric, x, method="meanfield")
    assert any("label switching" in note for note in posterior.notes)
    assert posterior.mean("mu").sort().values.tolist() == pytest.approx([-1.8, 1.87], abs=0.2)
    assert not any("label switching" in note for note in fit(mixture, x, method="meanfield").notes)


def unbounded_count(y):
    n = pyro.sample("n", dist.Poisson(3.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    pyro.sample("y", dist.Normal(n, s), obs=y)


def events_not_plates(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    k = pyro.sample("k", dist.Bernoulli(0.5).expand([len(x)]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu + k, 1.0), obs=x)


def does_not_broadcast(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(mu + k.reshape(len(x)), 1.0), obs=x)


def only_discrete(x):
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (unbounded_count, "latent site 'n' is discrete, and its distribution Poisson has no finite list"),
        (events_not_plates, "latent site 'k' is discrete, and its distribution Bernoulli has no finite list"),
        (does_not_broadcast, "discrete sites 'k' cannot be summed out"),
        (only_discrete, "latent sites k are discrete, and there is no other"),
    ],
)
def test_discrete_sites_that_cannot_be_summed_out_are_refused_by_name(model, match):
    x = torch.tensor(1.5) if model is unbounded_count else torch.tensor([0.3, 1.2, -0.4])
    for method in ("meanfield", "laplace"):
        with pytest.raises(ValueError, match=match):
            fit(model, x, method=method)


# Bad input


def test_sites_and_shapes_that_come_and_go_are_refused_by_name():
    def sometimes(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        if mu > 0.1:
            pyro.sample("extra", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def resized(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 2 if mu < 0.1 else 3):
            pyro.sample("effect", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(ValueError, match="'extra' appears only at some values of the latents"):
        fit(sometimes, torch.tensor(0.3), method="meanfield")
    with pytest.raises(ValueError, match=r"shape of site 'effect' changes .* from \(2,\) to \(3,\)"):
        fit(resized, torch.tensor(0.3), method="meanfield")


@pytest.mark.parametrize("y", [[0.3, 0.5], [28.0, 8, -3, 7, -1, 1, 18, 12]])
@pytest.mark.parametrize("method", ["meanfield", "fullrank"])
def test_an_improper_posterior_is_refused_by_name(method, y):
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("flat", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(a, 1.0).expand([len(y)]).to_event(1), obs=y)

    with pytest.raises(probdl.ConvergenceError, match="improper or unbounded there: give 'flat' a proper prior"):
        fit(model, torch.tensor(y), method=method)


def test_a_start_of_density_zero_is_left_for_a_draw_of_the_prior():
    """A Pareto scale above the data has density zero, and Gamma(5, 1) has its mean there; the posterior has not."""

    def model(y):
        scale = pyro.sample("scale", dist.Gamma(5.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Uniform(0.0, 3 * scale), obs=y)

    program = Program(model, (torch.tensor([20.0, 17.0]),))
    assert not torch.isfinite(program.log_joint(program.start))
    ensure_start(program)
    assert torch.isfinite(program.log_joint(program.start))

    def impossible(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0).mask(True), obs=y)
        pyro.sample("z", dist.Uniform(mu + 100.0, mu + 101.0), obs=y)

    with pytest.raises(probdl.ConvergenceError, match="nor at 50 draws from the prior: the factor of site z"):
        fit(impossible, torch.tensor(0.0), method="meanfield")


def test_a_density_that_is_cut_off_is_refused_by_name():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Uniform(mu - 1.0, mu + 1.0), obs=y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probdl.ConvergenceWarning)
        with pytest.raises(probdl.ConvergenceError, match="factor of site y is zero where the approximation has mass"):
            fit(model, torch.tensor([0.3, 0.5]), method="meanfield")


def test_an_overflow_on_the_way_is_turned_down():
    """Wide scales at the start make exp overflow at some draws: the start is narrowed until the bound is finite."""

    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 400.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(a + torch.exp(b * b).clamp(max=1e300) * 0, 1.0), obs=y)

    posterior = fit(model, torch.tensor([0.3, 0.5]), method=MeanField(draws=16))
    assert abs(posterior.mean("a").item() - 0.8 / 3) < 0.05


def test_data_of_the_wrong_length_are_refused_with_the_name_of_the_site():
    def model(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)

    with pytest.raises(
        ValueError, match=r"own data \(X \(5, 2\), y \(4,\)\) at site 'y' with ValueError: Shape mismatch"
    ):
        fit(model, torch.randn(5, 2), torch.ones(4), method="meanfield")


SCHOOLS = (torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18]), torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]))


def centred(sd, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


def non_centred(sd, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * raw, sd), obs=y)


def test_a_funnel_gets_the_advice_not_to_centre_it():
    advised = fit(centred, *SCHOOLS, method="meanfield")
    assert "'theta' is centred on a scale that is itself a latent" in advised.message
    assert "theta_raw ~ Normal(0, 1)" in advised.message
    assert "centred" not in fit(non_centred, *SCHOOLS, method="meanfield").message


def test_the_eight_schools_not_centred_are_near_their_posterior():
    """Mean and sd of mu 4.50 and 3.28, of tau 3.51 and 3.13: four NUTS chains of 1000 draws."""
    table = fit(non_centred, *SCHOOLS, method="meanfield").summary()
    assert abs(table["mean"]["mu"] - 4.50) < 0.1 * 3.28
    assert abs(table["sd_lr"]["mu"] / 3.28 - 1) < 0.05
    assert abs(table["mean"]["tau"] - 3.51) < 0.2 * 3.13


def test_a_recorded_gradient_is_the_gradient_and_has_its_derivatives():
    def f(z):
        return torch.nn.functional.softplus(z @ torch.arange(1.0, 4.0, dtype=z.dtype)) + (z**4).sum()

    z = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    graph = recorded_gradient(f, torch.zeros(3, dtype=torch.float64))
    value, gradient = graph(z)
    expected = value_and_gradient(f, z)
    assert torch.allclose(value, expected[0])
    assert torch.allclose(gradient, expected[1])
    x = z.clone().requires_grad_()
    rows = [torch.autograd.grad(g, x, retain_graph=True)[0] for g in graph(x)[1]]
    assert torch.allclose(torch.stack(rows), hessian(f, z))
    with pytest.raises(NotRecordable):
        recorded_gradient(lambda z: z.sum() if z[0] > 0.1 else z.prod(), torch.zeros(3))
