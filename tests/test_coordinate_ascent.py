"""Coordinate ascent against updates derived by hand, exact posteriors, and quadrature."""

import conjugate_models as models
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import gammaln, logsumexp

import probdl
from probdl.inference import CoordinateAscent, fit
from probdl.inference.free_form import acceleration
from probdl.inference.posterior import Posterior

EXACTLY = {"tolerance": 1e-12, "max_sweeps": 3000}
rng = np.random.default_rng(0)


def close(a, b, tolerance=1e-8):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance)


def block_of(posterior, name):
    return next(b for b in posterior.approximation.blocks if name in b.names)


def same_components(found, by_hand):
    """The order of a mixture's components that brings them to those found by hand."""
    found, by_hand = np.asarray(found), np.asarray(by_hand)
    return np.abs(found[:, None] - by_hand).reshape(len(found), len(found), -1).sum(-1).argmin(0)


def test_normal_with_unknown_mean_and_precision():
    y = rng.normal(3, 2, 50)
    posterior = fit(models.normal, y, method=CoordinateAscent(**EXACTLY))
    m, v, a, b = models.normal_by_hand(y)
    assert close(posterior.mean("mu"), m)
    assert close(posterior.sd("mu"), v**0.5)
    assert close(posterior.mean("tau"), a / b)
    assert close(posterior.quantile("tau", 0.1), stats.gamma(a, scale=1 / b).ppf(0.1))


def test_hierarchical_normal_has_one_joint_gaussian():
    y = rng.normal(size=(7, 30)) + rng.normal(1, 2, 30)
    posterior = fit(models.hierarchical, y, method=CoordinateAscent(**EXACTLY))
    mean, covariance, (a_b, b_b), (a_w, b_w) = models.hierarchical_by_hand(y)
    assert close(posterior.mean("theta"), mean[:-1])
    assert close(posterior.mean("mu"), mean[-1])
    assert close(posterior.cov("theta", "mu"), covariance)
    assert close(posterior.mean("between"), a_b / b_b)
    assert close(posterior.mean("within"), a_w / b_w)


def test_linear_regression_with_unknown_noise():
    X = rng.normal(size=(40, 3))
    y = X @ [1.0, -2.0, 0.5] + 0.7 + 0.4 * rng.normal(size=40)
    posterior = fit(models.regression, X, y, method=CoordinateAscent(**EXACTLY))
    mean, covariance, a, b = models.regression_by_hand(X, y)
    assert close(posterior.mean("b"), mean[0])
    assert close(posterior.mean("w"), mean[1:])
    assert close(posterior.cov("b", "w"), covariance)
    assert close(posterior.mean("variance"), b / (a - 1))


@pytest.mark.parametrize(
    "scale",
    [
        lambda t: t**-0.5,
        lambda t: t.rsqrt(),
        lambda t: (1 / t).sqrt(),
        lambda t: 1 / t.sqrt(),
        lambda t: torch.exp(-0.5 * torch.log(t)),
    ],
    ids=["power", "rsqrt", "sqrt of inverse", "inverse of sqrt", "exp of log"],
)
def test_an_inverse_scale_is_found_however_it_is_written(scale):
    y = np.random.default_rng(1).normal(3, 2, 20)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(1.0, 3.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, scale(tau)), obs=y)

    posterior = fit(model, y, method=CoordinateAscent(conjugate_only=True, **EXACTLY))
    m, v, a, b = models.normal_by_hand(y)
    assert close([posterior.mean("mu"), posterior.mean("tau")], [m, a / b])


def two_clusters(n=60):
    generator = np.random.default_rng(2)
    return np.concatenate([generator.normal(size=(n, 2)), generator.normal([4, 3], [1, 0.5], size=(n, 2))])


def test_gaussian_mixture_with_diagonal_precisions():
    x = two_clusters()
    posterior = fit(models.mixture, x, 2, method=CoordinateAscent(**EXACTLY))
    start = np.repeat(np.eye(2), 60, axis=0) * 0.9 + 0.05
    alpha, m, v, a, b, r = models.mixture_by_hand(x, start)
    order = same_components(posterior.mean("mu"), m)
    assert close(posterior.mean("mu")[order], m)
    assert close(posterior.sd("mu")[order], v**0.5)
    assert close(posterior.mean("tau")[order], a / b)
    assert close(posterior.mean("weights")[order], alpha / alpha.sum())
    assert close(posterior.probabilities("z")[:, order], r)


def test_gaussian_mixture_with_full_precisions():
    x = two_clusters()
    posterior = fit(models.full_mixture, x, 2, method=CoordinateAscent(**EXACTLY))
    start = np.repeat(np.eye(2), 60, axis=0) * 0.9 + 0.05
    alpha, m, v, df, scale, r = models.full_mixture_by_hand(x, start)
    order = same_components(posterior.mean("mu"), m)
    assert close(posterior.mean("mu")[order], m)
    assert close(block_of(posterior, "mu").covariances()[order], v)
    assert close(posterior.mean("precision")[order], df[:, None, None] * scale)
    assert close(posterior.mean("weights")[order], alpha / alpha.sum())
    assert close(posterior.probabilities("z")[:, order], r)


def test_factor_analysis_follows_the_sweeps_by_hand():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(60, 2)) @ generator.normal(size=(2, 8)) + 0.3 * generator.normal(size=(60, 8))
    z = generator.normal(size=(60, 2))
    with pytest.warns(probdl.ConvergenceWarning, match="has not converged after 25 sweeps"):
        posterior = fit(models.factor_analysis, x, 2, method=CoordinateAscent(max_sweeps=25, start={"z": z}))
    a, b, w, v_w, z, v_z = models.factor_analysis_by_hand(x, z, 25)
    assert close(posterior.mean("tau"), a / b)
    assert close(posterior.mean("w"), w)
    assert close(posterior.mean("z"), z)
    assert close(block_of(posterior, "w").covariances()[3], v_w)
    assert close(block_of(posterior, "z").covariances()[5], v_z)


def test_long_ascents_are_extrapolated_to_the_same_optimum(monkeypatch):
    """Factor analysis creeps along rotations; the optimum is the same, in a fraction of the sweeps."""
    generator = np.random.default_rng(15)
    x = generator.normal(size=(80, 2)) @ generator.normal(size=(2, 6)) + 0.3 * generator.normal(size=(80, 6))
    fast = fit(models.factor_analysis, x, 2, method=CoordinateAscent(max_sweeps=5000))
    monkeypatch.setattr(acceleration, "PLAIN", 10**9)
    slow = fit(models.factor_analysis, x, 2, method=CoordinateAscent(max_sweeps=5000))
    assert len(fast.history) < 0.5 * len(slow.history)
    assert abs(fast.elbo.value - slow.elbo.value) < 1e-3
    assert fast.history["elbo"].diff().dropna().min() > -1e-8


def test_topics_follow_the_sweeps_by_hand():
    generator = np.random.default_rng(4)
    words = generator.integers(0, 12, (6, 15))
    r = generator.dirichlet(np.ones(3), (6, 15))
    with pytest.warns(probdl.ConvergenceWarning):
        posterior = fit(models.topics, words, 3, 12, method=CoordinateAscent(max_sweeps=30, start={"z": r}))
    beta, gamma, r = models.topics_by_hand(words, r, 12, 30)
    assert close(posterior.mean("phi"), beta / beta.sum(1, keepdims=True))
    assert close(posterior.mean("theta")[:, 0], gamma / gamma.sum(1, keepdims=True))
    assert close(posterior.probabilities("z"), r)


def test_hidden_markov_model_is_a_chain_by_forward_and_backward_sums():
    generator = np.random.default_rng(5)
    states = [0]
    for _ in range(24):
        states.append(states[-1] if generator.random() < 0.85 else 1 - states[-1])
    x = np.array([0.0, 3.0])[states] + generator.normal(size=25)
    posterior = fit(models.hidden_markov, x, 2, method=CoordinateAscent(restarts=1, **EXACTLY))
    alpha, m, v, r = models.hidden_markov_by_hand(x, np.array([0.0, 3.0]))
    order = same_components(posterior.mean("mu"), m)
    assert close(posterior.mean("mu")[order], m)
    assert close(posterior.sd("mu")[order], v**0.5)
    assert close(posterior.mean("rows")[order][:, order], alpha / alpha.sum(1, keepdims=True))
    found = np.stack([posterior.probabilities(f"z_{t}") for t in range(25)])
    assert close(found[:, order], r)


def test_padded_sequences_in_a_plate_are_those_of_their_own_lengths():
    """Masked times say nothing: a plate of padded sequences gives what a chain for each sequence gives."""
    generator = np.random.default_rng(14)
    lengths = np.array([6, 4, 5])
    x = generator.normal(size=(3, 6)) + np.array([-2, -2, -2, 2, 2, 2])

    def priors():
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2) + torch.eye(2)).to_event(1))
        return rows, pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))

    def padded(x, lengths):
        rows, mu = priors()
        with pyro.plate("sequences", len(x)):
            z = torch.zeros(len(x), dtype=torch.long)
            for t in pyro.markov(range(x.shape[1])):
                with pyro.poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
                    pyro.sample(f"x_{t}", dist.Normal(mu[z], 1.0), obs=x[:, t])

    def apart(x):
        rows, mu = priors()
        for i, n in enumerate(lengths):
            z = torch.tensor(0)
            for t in pyro.markov(range(n)):
                z = pyro.sample(f"z_{i}_{t}", dist.Categorical(rows[z]))
                pyro.sample(f"x_{i}_{t}", dist.Normal(mu[z], 1.0), obs=x[i, t])

    one = fit(padded, x, lengths, method=CoordinateAscent(restarts=2, **EXACTLY))
    other = fit(apart, x, method=CoordinateAscent(restarts=2, **EXACTLY))
    assert close(one.mean("mu"), other.mean("mu"))
    assert close(one.mean("rows"), other.mean("rows"))
    masked = 3 * 6 - lengths.sum()
    assert abs(one.elbo.value - other.elbo.value - masked * np.log(2)) < 1e-8


def poisson(y, group):
    rate = pyro.sample("rate", dist.Gamma(2.0, 0.5).expand([3]).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(2.0 * rate[group]), obs=y)


def test_poisson_rates_have_their_exact_posterior_and_evidence():
    y, group = np.array([3, 1, 4, 1, 5, 9, 2]), np.array([0, 1, 2, 0, 1, 2, 0])
    posterior = fit(poisson, y, group, method="cavi")
    exact = 0.0
    for g in range(3):
        own = y[group == g]
        a, b = 2 + own.sum(), 0.5 + 2 * len(own)
        assert close(posterior.mean("rate")[g], a / b)
        assert close(posterior.sd("rate")[g], a**0.5 / b)
        exact += (
            2 * np.log(0.5) - gammaln(2) + gammaln(a) - a * np.log(b) + own.sum() * np.log(2) - gammaln(own + 1).sum()
        )
    assert abs(posterior.elbo.value - exact) < 1e-9


def test_dirichlet_multinomial_has_its_exact_evidence():
    counts = np.random.default_rng(6).multinomial(20, [0.1, 0.2, 0.3, 0.4], size=5).astype(float)

    def model(counts):
        with pyro.plate("rows", len(counts)):
            p = pyro.sample("p", dist.Dirichlet(torch.ones(4)))
            pyro.sample("counts", dist.Multinomial(20, probs=p), obs=counts)

    posterior = fit(model, counts, method="cavi")
    assert close(posterior.mean("p"), (1 + counts) / 24)
    exact = stats.dirichlet_multinomial(np.ones(4), 20).logpmf(counts.astype(int)).sum()
    assert abs(posterior.elbo.value - exact) < 1e-9


def test_beta_binomial_and_exponential_rates_are_exact():
    def model(k, waits):
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        rate = pyro.sample("rate", dist.Exponential(0.5))
        with pyro.plate("rows", len(k)):
            pyro.sample("k", dist.Binomial(10, p), obs=k)
            pyro.sample("wait", dist.Exponential(rate), obs=waits)

    k, waits = np.array([3.0, 5.0, 4.0]), np.array([0.2, 1.5, 0.7])
    posterior = fit(model, k, waits, method="cavi")
    assert close(posterior.mean("p"), 14 / 35)
    assert close(posterior.quantile("p", 0.9), stats.beta(14, 21).ppf(0.9))
    assert close(posterior.mean("rate"), 4 / (0.5 + waits.sum()))


def test_a_broken_stick_adds_up_the_statistics_of_its_pieces():
    """Weights b₁, (1−b₁)b₂, (1−b₁)(1−b₂): each piece has a Beta posterior, and the evidence is a product of Betas."""

    def model(x):
        b = pyro.sample("b", dist.Beta(torch.ones(2), 3.0).to_event(1))
        weights = torch.cat([b, torch.ones(1)]) * torch.cat([torch.ones(1), torch.cumprod(1 - b, -1)])
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Categorical(weights), obs=x)

    x = np.array([0, 0, 1, 2, 2, 2, 1])
    posterior = fit(model, x, method="cavi")
    a, b = np.array([1 + 2, 1 + 2]), np.array([3 + 5, 3 + 3])
    assert close(posterior.mean("b"), a / (a + b))
    exact = (gammaln(a) + gammaln(b) - gammaln(a + b) + np.log(3)).sum()
    assert abs(posterior.elbo.value - exact) < 1e-9


def test_crossed_groups_are_leaves_and_core_of_one_gaussian():
    """Many groups and a few that cross them, exactly the joint Gaussian of all."""
    generator = np.random.default_rng(13)
    many, few = np.repeat(np.arange(12), 4), np.tile(np.arange(3), 16)
    y = generator.normal(size=48) + 0.5 * few

    def model(many, few, y):
        with pyro.plate("many", 12):
            u = pyro.sample("u", dist.Normal(0.0, 0.7))
        with pyro.plate("few", 3):
            v = pyro.sample("v", dist.Normal(0.5, 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(u[many] + v[few], 0.8), obs=y)

    posterior = fit(model, many, few, y, method="cavi")
    assert "12 units around a core of 3" in posterior.message
    Z = np.column_stack([np.eye(12)[many], np.eye(3)[few]])
    prior = np.diag(np.append(np.full(12, 1 / 0.49), np.full(3, 0.25)))
    covariance = np.linalg.inv(prior + Z.T @ Z / 0.64)
    mean = covariance @ (Z.T @ y / 0.64 + prior @ np.append(np.zeros(12), np.full(3, 0.5)))
    assert close(torch.cat([posterior.mean("u"), posterior.mean("v")]), mean)
    assert close(posterior.cov("u", "v"), covariance)
    marginal = Z @ np.linalg.inv(prior) @ Z.T + 0.64 * np.eye(48)
    exact = stats.multivariate_normal(Z @ np.append(np.zeros(12), np.full(3, 0.5)), marginal).logpdf(y)
    assert abs(posterior.elbo.value - exact) < 1e-8


def test_ten_thousand_groups_need_no_dense_matrix():
    """A joint Gaussian of 10,001 means, whose covariance would hold 10⁸ numbers: its draws and density go by group."""
    generator = np.random.default_rng(16)
    y = generator.normal(size=(5, 10_000)) + generator.normal(1, 2, 10_000)
    posterior = fit(models.hierarchical, y, method="cavi")
    assert "10000 units around a core of 1" in posterior.message
    between, within = posterior.mean("between"), posterior.mean("within")
    shrunk = (within * y.sum(0) + between * posterior.mean("mu").item()) / (5 * within + between).item()
    assert np.abs(posterior.mean("theta").numpy() - shrunk.numpy()).max() < 1e-4
    draws = posterior.draws(50)
    assert torch.isfinite(posterior.log_prob(draws)).all()
    assert abs(((draws["theta"] - posterior.mean("theta")) / posterior.sd("theta")).std() - 1) < 0.01


def test_a_bound_rises_at_every_sweep_and_the_history_shows_it():
    posterior = fit(models.full_mixture, two_clusters(), 2, method=CoordinateAscent(restarts=1))
    assert posterior.history["elbo"].diff().dropna().min() > -1e-8
    assert posterior.history["elbo"].iloc[-1] == posterior.elbo.value


@pytest.mark.parametrize("prior", [dist.HalfCauchy(1.0), dist.HalfNormal(2.0), dist.LogNormal(0.0, 1.0)])
def test_a_scale_outside_the_families_is_free_form_on_a_grid(prior):
    """With mu known, the posterior of the scale is one-dimensional: the grid must agree with quadrature."""
    y = np.random.default_rng(7).normal(0, 1.5, 12)

    def model(y):
        s = pyro.sample("s", prior)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(0.3, s), obs=y)

    posterior = fit(model, y, method="cavi")
    grid = np.exp(np.linspace(-3, 4, 40_001))
    log_p = prior.log_prob(torch.tensor(grid)).numpy() + stats.norm(0.3, grid[:, None]).logpdf(y).sum(1) + np.log(grid)
    log_z = logsumexp(log_p) + np.log(7 / 40_000)
    p = np.exp(log_p - logsumexp(log_p))
    mean = p @ grid
    assert "free-form on a grid" in posterior.message
    assert abs(posterior.elbo.value - log_z) < 1e-7
    assert abs(posterior.mean("s") - mean) < 1e-6
    assert abs(posterior.sd("s") - (p @ (grid - mean) ** 2) ** 0.5) < 1e-6


def test_a_logistic_likelihood_is_followed_by_natural_gradients_to_the_full_gaussian_optimum():
    generator = np.random.default_rng(8)
    X = generator.normal(size=(80, 2))
    y = (generator.random(80) < 1 / (1 + np.exp(-X @ [1.5, -1.0]))).astype(float)

    def model(X, y):
        tau = pyro.sample("tau", dist.Gamma(3.0, 3.0))
        w = pyro.sample("w", dist.Normal(0.0, tau**-0.5).expand([2]).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)

    posterior = fit(model, X, y, method=CoordinateAscent(tolerance=1e-8))
    assert "natural gradients" in posterior.message
    m, S, e_tau = np.zeros(2), np.eye(2), 1.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    for _ in range(400):  # the same optimum by damped fixed-point iteration in NumPy
        eta = X @ m + np.sqrt(np.einsum("ni,ij,nj->n", X, S, X)) * nodes[:, None]
        p = 1 / (1 + np.exp(-eta))
        precision = e_tau * np.eye(2) + X.T @ (X * (weights @ (p * (1 - p)))[:, None])
        gradient = X.T @ (y - weights @ p) - e_tau * m
        S = np.linalg.inv(0.5 * np.linalg.inv(S) + 0.5 * precision)
        m = m + 0.5 * S @ gradient
        e_tau = (3 + 1) / (3 + 0.5 * (m @ m + np.trace(S)))
    assert close(posterior.mean("w"), m, 1e-5)
    assert close(posterior.cov("w"), S, 1e-5)
    assert close(posterior.mean("tau"), e_tau, 1e-5)


@pytest.mark.parametrize("name", ["probs", "ordered", "categorical"])
def test_likelihoods_that_write_in_place_are_followed_too(name):
    """Their graphs cannot be recorded under autograd; the optimum is that of FullRank, found by other means."""
    likelihoods = {
        "probs": (lambda a: dist.Bernoulli(probs=torch.sigmoid(a)), np.array([1.0, 1.0, 0.0, 1.0])),
        "ordered": (lambda a: dist.OrderedLogistic(a, torch.tensor([-1.0, 1.0])), np.array([0, 2, 2, 1])),
        "categorical": (lambda a: dist.Categorical(torch.softmax(torch.stack([a, -a]), -1)), np.array([0, 0, 1, 0])),
    }
    likelihood, y = likelihoods[name]

    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", likelihood(a), obs=y)

    ours, other = fit(model, y, method="cavi"), fit(model, y, method="fullrank")
    assert abs(ours.mean("a") - other.mean("a")) < 1e-3
    assert abs(ours.elbo.value - other.elbo.value) < 1e-3


def test_linear_response_is_exact_where_the_posterior_is_gaussian():
    """Two connected latents are one joint factor, so the mean field is exact, and linear response adds nothing."""

    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a + b, 0.5), obs=y)

    posterior = fit(model, torch.tensor(1.0), method="cavi")
    assert "2 jointly" in posterior.message
    exact = np.linalg.inv(np.eye(2) + 4 * np.ones((2, 2)))
    assert close(posterior.cov("a", "b"), exact)
    assert close(posterior.summary()["sd_lr"], exact.diagonal() ** 0.5, 1e-6)


def test_a_variance_that_has_no_variance_of_its_own_has_no_linear_response_either():
    """Three observations leave InverseGamma(1.5, ·): its mean exists, its variance does not."""

    def model(y):
        v = pyro.sample("v", dist.InverseGamma(1e-3, 1e-3))
        m = pyro.sample("m", dist.Normal(0.0, 100.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(m, v.sqrt()), obs=y)

    table = fit(model, np.array([0.3, -0.5, 1.1]), method="cavi").summary()
    assert np.isinf(table.loc["v", "sd"])
    assert np.isnan(table.loc["v", "sd_lr"])
    assert 0 < table.loc["m", "sd_lr"] < np.inf


def test_a_factor_that_is_much_too_narrow_is_named():
    """The mean of noisy group means, with one row a group: both precisions are hard to tell apart."""
    y = np.random.default_rng(3).normal(size=(2, 3))
    posterior = fit(models.hierarchical, y, method="cavi")
    table = posterior.summary()
    assert (table["sd_lr"] / table["sd"]).max() > 1.2
    assert any("mean field is too narrow here" in note for note in posterior.notes)


def test_linear_response_corrects_a_precision_that_depends_on_the_mean():
    """Normal with 20 rows: the exact marginal sd of tau by quadrature in two dimensions."""
    y = np.random.default_rng(9).normal(0, 1, 20)
    posterior = fit(models.normal, y, method=CoordinateAscent(tolerance=1e-9))
    mu, log_tau = np.meshgrid(np.linspace(-4, 5, 801), np.linspace(-4, 3, 801), indexing="ij")
    tau = np.exp(log_tau)
    log_p = stats.norm(1, 3).logpdf(mu) + stats.gamma(2, scale=1 / 1.5).logpdf(tau) + log_tau
    log_p += (0.5 * log_tau[..., None] - 0.5 * tau[..., None] * (y - mu[..., None]) ** 2).sum(-1)
    p = np.exp(log_p - logsumexp(log_p))
    sd = np.sqrt((p * (tau - (p * tau).sum()) ** 2).sum())
    row = posterior.summary().loc["tau"]
    assert row["sd"] / sd < 0.985
    assert abs(row["sd_lr"] / sd - 1) < 0.004


def test_answers_of_the_posterior_agree_with_its_draws():
    """Each within 5 standard errors: a false alarm once in about 50,000 runs of other seeds."""
    posterior = fit(models.full_mixture, two_clusters(), 2, method="cavi")
    draws = posterior.draws(4000, seed=3)
    for name in posterior.names:
        x = draws[name].double()
        gap = (x.mean(0) - posterior.mean(name)).abs()
        assert bool((gap <= 5 * posterior.sd(name) / 4000**0.5 + 1e-12).all()), name
    check = posterior.check()
    assert check.log_evidence.value >= posterior.elbo.value - 4 * (check.log_evidence.stderr or 0.1)


def test_discrete_latents_are_in_draws_and_probabilities_and_not_in_tables():
    posterior = fit(models.mixture, two_clusters(10), 2, method="cavi")
    assert set(posterior.draws(5)) == {"weights", "mu", "tau", "z"}
    assert posterior.probabilities("z").sum(-1).allclose(torch.ones(20, dtype=torch.float64))
    assert not any(label.startswith("z") for label in posterior.summary().index)
    with pytest.raises(ValueError, match="'mu' is continuous"):
        posterior.probabilities("mu")
    assert any("labels of z" in note for note in posterior.notes)


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (models.full_mixture, (two_clusters(10), 2)),
        (models.hierarchical, (np.random.default_rng(1).normal(size=(4, 5)),)),
        (models.hidden_markov, (np.array([0.0, 0.1, 3.0, 3.2]), 2)),
    ],
    ids=["mixture", "arrow", "chain"],
)
def test_a_saved_posterior_answers_as_before(model, args, tmp_path):
    posterior = fit(model, *args, method=CoordinateAscent(restarts=1))
    posterior.save(tmp_path / "posterior.safetensors")
    loaded = Posterior.load(tmp_path / "posterior.safetensors")
    for name in posterior.names:
        assert torch.equal(loaded.mean(name), posterior.mean(name))
        assert torch.equal(loaded.draws(3, seed=1)[name], posterior.draws(3, seed=1)[name])
    assert torch.equal(loaded.log_prob(loaded.draws(3)), posterior.log_prob(posterior.draws(3)))


def test_a_warm_start_continues_where_another_posterior_stopped():
    x = two_clusters()
    first = fit(models.mixture, x, 2, method="cavi")
    again = fit(models.mixture, x, 2, method=CoordinateAscent(start=first))
    assert len(again.history) <= 3
    assert abs(again.elbo.value - first.elbo.value) < 1e-4


def test_restarts_find_a_better_optimum_and_the_seed_decides():
    """Topics have no data to cluster, so they start at random; here the first start of this seed is a poor one."""
    words = np.random.default_rng(10).integers(0, 12, (8, 15))
    one, many, again = (
        fit(models.topics, words, 3, 12, method=CoordinateAscent(restarts=r), seed=1) for r in (1, 4, 4)
    )
    assert many.elbo.value > one.elbo.value + 0.05
    assert "the best of 4 starts" in many.message
    assert torch.equal(many.mean("phi"), again.mean("phi"))


def test_components_that_the_prior_tells_apart_are_not_left_with_their_numbers_exchanged():
    x = np.concatenate([rng.normal(-2, 0.5, 20), rng.normal(3, 0.5, 20)])

    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.tensor([3.0, -2.0]), 0.5).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(mu[z], 0.5), obs=x)

    posterior = fit(model, x, method="cavi")
    assert posterior.mean("mu")[0] > 2 > posterior.mean("mu")[1]


def test_factors_that_fit_no_form_are_refused_by_name():
    def product(y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("y", dist.Normal(w[0] * w[1], 1.0), obs=y)

    def control_flow(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0 if mu > 0 else 2.0), obs=y)

    def correlations(y):
        root = pyro.sample("root", dist.LKJCholesky(2, 1.0))
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), scale_tril=root), obs=y)

    def unbounded(y):
        n = pyro.sample("n", dist.Poisson(3.0))
        pyro.sample("y", dist.Normal(n, 1.0), obs=y)

    def one_site(x):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        emission = dist.Normal(torch.tensor([0.0, 2.0]), 1.0)
        pyro.sample("x", dist.DiscreteHMM(torch.zeros(2), rows.log(), emission, duration=len(x)), obs=x)

    with pytest.raises(ValueError, match="pyro.markov in place of DiscreteHMM"):
        fit(one_site, torch.tensor([0.0, 0.1, 2.0, 1.9]), method="cavi")
    with pytest.raises(ValueError, match="discrete latent 'n' has no finite list of values"):
        fit(unbounded, torch.tensor(1.0), method="cavi")
    with pytest.raises(ValueError, match=r"site 'y' has a location that is not affine in the latent 'w'.*meanfield"):
        fit(product, torch.tensor(1.0), method="cavi")
    with pytest.raises(ValueError, match="control flow"):
        fit(control_flow, torch.tensor(1.0), method="cavi")
    with pytest.raises(ValueError, match="'root'"):
        fit(correlations, torch.zeros(2), method="cavi")


def test_a_huber_loss_is_not_taken_for_a_conjugate_factor():
    """It is quadratic near its centre, so it agrees with a Normal at nearby values."""

    class Huber(dist.TorchDistribution):
        arg_constraints = {}
        support = dist.constraints.real

        def __init__(self, loc):
            self.loc = loc
            super().__init__(loc.shape)

        def log_prob(self, x):
            return -torch.nn.functional.huber_loss(x + 0 * self.loc, self.loc + 0 * x, reduction="none", delta=50.0)

        def expand(self, shape, _instance=None):
            return Huber(self.loc.expand(shape))

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", Huber(mu), obs=y)

    with pytest.raises(ValueError, match="no conjugate family|Gaussian latent"):
        fit(model, torch.tensor([1.0, 2.0]), method=CoordinateAscent(conjugate_only=True))


def test_improper_priors_and_bad_starts_are_named():
    def improper(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0).mask(False))
        nu = pyro.sample("nu", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(mu + nu, 1.0), obs=y)

    with pytest.raises(probdl.ConvergenceError, match="factor of .*nu.* is improper"):
        fit(improper, torch.tensor(1.0), method="cavi")
    x = two_clusters(5)
    with pytest.raises(ValueError, match="start names 'q'"):
        fit(models.mixture, x, 2, method=CoordinateAscent(start={"q": 1.0}))
    with pytest.raises(ValueError, match=r"start of 'z' must hold probabilities of shape \(10, 2\)"):
        fit(models.mixture, x, 2, method=CoordinateAscent(start={"z": np.ones((10, 2))}))
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        CoordinateAscent(restarts=0)


def test_masks_and_scales_reach_the_factors():
    y = np.array([1.0, 2.0, 4.0, 100.0])

    def model(y, keep):
        mu = pyro.sample("mu", dist.Normal(1.0, 3.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.5))
        with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=keep), pyro.poutine.scale(scale=2.0):
            pyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)

    posterior = fit(model, y, np.array([True, True, True, False]), method=CoordinateAscent(**EXACTLY))
    m, v, a, b = models.normal_by_hand(np.repeat(y[:3], 2))
    assert close([posterior.mean("mu"), posterior.mean("tau")], [m, a / b])


def test_float32_gives_the_same_to_its_own_precision():
    y = np.random.default_rng(11).normal(3, 2, 30)
    double, single = (fit(models.normal, y, method="cavi", dtype=t) for t in (torch.float64, torch.float32))
    assert single.mean("mu").dtype is torch.float32
    assert abs(double.mean("mu") - single.mean("mu")) < 1e-3


def test_auto_says_what_it_chose_and_why():
    y = np.random.default_rng(12).normal(size=(5, 6))
    conjugate = fit(models.hierarchical, y)
    assert conjugate.message.startswith("Chose coordinate ascent, since every factor is conjugate.")
    assert "(method='ep') would hold 'between', 'within' on a grid outside" in conjugate.message

    def robust(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        s = pyro.sample("s", dist.HalfCauchy(1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.StudentT(4.0, mu, s), obs=y)

    held = fit(robust, y[:, 0])
    assert held.message.startswith("Chose expectation propagation, since every factor sees one or two affine")
    assert "given s" in held.message

    def positive(y):
        rate = pyro.sample("rate", dist.HalfCauchy(1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Poisson(rate), obs=y)

    other = fit(positive, torch.tensor([2.0, 0.0, 1.0]))
    assert other.message.startswith("Chose meanfield, which takes any latents.")
    assert "Coordinate ascent:" in other.message
