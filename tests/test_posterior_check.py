"""What check() says is what exact posteriors, and other programs for the same numbers, say."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import torch
from pyro_models import clutter, clutter_data, clutter_exact, logistic, normal_regression
from scipy import stats

from probdl.inference import NUTS, Posterior, StochasticVI, fit
from probdl.inference.posteriors.diagnostics import _advice
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.posteriors.sampled import SampledApproximation
from probdl.inference.programs.densities import log_joint_of_draws, log_likelihood_of_draws
from probdl.inference.programs.program import Program


def gamma_poisson(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


COUNTS = torch.tensor([3.0, 5.0, 4.0])  # posterior Gamma(14, 4)
LOG_EVIDENCE = math.lgamma(14) - 14 * math.log(4) - math.lgamma(2) - sum(math.lgamma(k + 1) for k in (3, 5, 4))


def every_support(y):
    m = pyro.sample("m", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    s = pyro.sample("s", dist.Gamma(3.0, 2.0))
    u = pyro.sample("u", dist.Uniform(-1.0, 3.0))
    share = pyro.sample("share", dist.Dirichlet(torch.tensor([5.0, 4.0, 3.0])))
    root = pyro.sample("root", dist.LKJCholesky(3, 2.0))
    with pyro.plate("groups", 2):
        effect = pyro.sample("effect", dist.Normal(u, s))
    location = m.sum() + share[0] + root[1, 0] + effect.sum()
    pyro.sample("y", dist.Normal(location, s).expand([len(y)]).to_event(1), obs=y)


def test_an_exact_posterior_has_no_tail_and_gives_the_evidence_without_error():
    rng = np.random.default_rng(0)
    posterior = fit(normal_regression, rng.normal(size=(12, 2)), rng.normal(size=12), method="ep")
    check = posterior.check(500)
    assert (check.khat, check.draws) == (-math.inf, 500)
    assert check.ess == pytest.approx(500)
    assert check.log_evidence.value == pytest.approx(posterior.log_evidence.value, abs=1e-9)
    assert check.log_evidence.stderr < 1e-8  # rounding: √(1/ESS − 1/n)
    assert "close enough" in check.advice


def test_corrected_evidence_covers_the_exact_one():
    """Laplace on Gamma(14, 4), k-hat 0.4: fewer than 31 of 40 intervals at 95 % cover with probability 1e-4 if right.

    The mean z-score over the seeds is within 4/√40 of 0 (false alarm 6e-5).
    """
    posterior = fit(gamma_poisson, COUNTS, method="laplace")
    z = []
    for seed in range(40):
        evidence = posterior.check(4000, seed=seed).log_evidence
        z.append((evidence.value - LOG_EVIDENCE) / evidence.stderr)
    assert sum(abs(x) < 1.96 for x in z) >= 31
    assert abs(np.mean(z)) < 4 / math.sqrt(40)


def test_corrected_moments_are_those_of_the_exact_posterior():
    """Within 4.5 standard errors (false alarm 1e-5); Laplace's own mean is 16 of these errors off."""
    posterior = fit(gamma_poisson, COUNTS, method="laplace")
    row = posterior.check(20_000).table.loc["rate"]
    assert abs(row["corrected mean"] - 3.5) < 4.5 * row["error"]
    assert abs(row["mean"] - 3.5) > 4.5 * row["error"]
    assert row["corrected sd"] == pytest.approx(math.sqrt(14) / 4, rel=0.02)
    assert row["sd"] == pytest.approx(posterior.sd("rate").item())


def test_corrected_evidence_of_the_clutter_problem_is_that_of_the_grid():
    x = clutter_data(3)
    exact, mean, _ = clutter_exact(x)
    check = fit(clutter, x, method="laplace").check(10_000)
    assert check.khat < 0.7
    assert abs(check.log_evidence.value - exact) < 4.5 * check.log_evidence.stderr
    assert abs(check.table.loc["theta", "corrected mean"] - mean) < 4.5 * check.table.loc["theta", "error"]


def test_corrected_evidence_on_a_simplex_is_the_ratio_of_beta_functions():
    """Dirichlet(3, 4, 5) and counts 1, 2, 3: log B(4, 6, 8) − log B(3, 4, 5), within 4.5 errors."""

    def model(y):
        share = pyro.sample("share", dist.Dirichlet(torch.tensor([3.0, 4.0, 5.0])))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Categorical(share), obs=y)

    def log_beta(*a):
        return sum(map(math.lgamma, a)) - math.lgamma(sum(a))

    check = fit(model, torch.tensor([0, 1, 1, 2, 2, 2]), method="laplace").check()
    exact = log_beta(4, 6, 8) - log_beta(3, 4, 5)
    assert abs(check.log_evidence.value - exact) < 4.5 * check.log_evidence.stderr
    assert (check.table["corrected mean"] - np.array([4, 6, 8]) / 18).abs().max() < 4.5 * check.table["error"].max()


def test_corrected_evidence_of_a_precision_matrix_is_the_ratio_of_wishart_normalisers():
    """Precision Wishart(6, I/6), 12 rows N(0, Λ⁻¹) in two dimensions, within 4.5 errors."""

    def model(y):
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(6.0), torch.eye(2) / 6))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision), obs=y)

    y = np.random.default_rng(0).normal(size=(12, 2)) @ [[1.0, 0.5], [0.0, 0.7]]

    def log_normaliser(df, inverse_scale):  # of the Wishart density, ∫ |Λ|^((ν − p − 1)/2) exp(−tr(SΛ)/2) dΛ
        return df * math.log(2) - df / 2 * np.linalg.slogdet(inverse_scale)[1] + scipy.special.multigammaln(df / 2, 2)

    exact = log_normaliser(18, 6 * np.eye(2) + y.T @ y) - log_normaliser(6, 6 * np.eye(2)) - 12 * math.log(2 * math.pi)
    check = fit(model, y, method="laplace").check()
    assert check.khat < 0.7
    assert abs(check.log_evidence.value - exact) < 4.5 * check.log_evidence.stderr


def test_smoothed_weights_and_khat_are_those_of_arviz():
    arviz = pytest.importorskip("arviz", exc_type=ImportError)
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ keeps psislw elsewhere")
    posterior = fit(gamma_poisson, COUNTS, method="laplace")
    values, log_q = posterior.approximation.draws_and_log_prob(3000, seed=5)
    log_weights = (log_joint_of_draws(posterior.program, values) - log_q).numpy()
    smoothed, khat = arviz.psislw(log_weights.copy())
    check = posterior.check(3000, seed=5)
    assert check.khat == pytest.approx(float(khat), abs=1e-8)
    assert check.ess == pytest.approx(1 / np.exp(2 * smoothed).sum(), rel=1e-8)
    assert check.table.loc["rate", "corrected mean"] == pytest.approx(np.exp(smoothed) @ values["rate"].numpy())


def narrowed(posterior, factor):
    """The same Gaussian with its standard deviations times a factor."""
    q = posterior.approximation
    covariance = q.free_covariance * factor**2
    return Posterior(
        "meanfield", GaussianApproximation(q.latents, q.free_mean, covariance), True, "", 0.0, pd.DataFrame(),
        program=posterior.program,
    )  # fmt: skip


@pytest.mark.parametrize(("factor", "low", "high"), [(0.3, 0.7, 2.0), (0.75, 0.2, 0.7), (1.2, -2.0, 0.2)])
def test_khat_finds_how_much_too_narrow_a_normal_is(factor, low, high):
    """Weights N(0, 1)/N(0, f²) under N(0, f²) have the tail index 1 − f²: .91, .44, and a bounded tail above 1."""
    rng = np.random.default_rng(0)
    exact = fit(normal_regression, rng.normal(size=(12, 1)), rng.normal(size=12), method="ep")
    assert low < narrowed(exact, factor).check(20_000).khat < high


def test_the_error_of_the_evidence_says_when_it_is_itself_uncertain():
    """A normal 0.63 times too narrow has the tail index 0.6: between 0.5 and 0.7 weights have no finite variance."""
    rng = np.random.default_rng(0)
    exact = fit(normal_regression, rng.normal(size=(12, 1)), rng.normal(size=12), method="ep")
    evidence = narrowed(exact, 0.63).check(20_000).log_evidence
    assert "above 0.5: the error is itself uncertain" in evidence.notes[0]
    assert evidence.value == pytest.approx(exact.log_evidence.value, abs=10 * evidence.stderr)
    assert narrowed(exact, 0.9).check(20_000).log_evidence.notes == ()


def test_what_importance_sampling_cannot_correct_is_withheld_and_says_what_to_try():
    rng = np.random.default_rng(0)
    posterior = narrowed(fit(normal_regression, rng.normal(size=(12, 3)), rng.normal(size=12), method="ep"), 0.3)
    check = posterior.check()
    assert check.table[["corrected mean", "corrected sd", "error"]].isna().all(axis=None)
    assert check.table[["mean", "sd"]].notna().all(axis=None)
    assert check.log_evidence.stderr is None
    assert check.log_evidence.target == "lower bound"
    assert "k-hat is" in check.log_evidence.notes[0]
    for remedy in ("FullRank()", "non-centred", "method='nuts'"):
        assert remedy in check.advice
    assert repr(check).startswith(f"k-hat {check.khat:.2f}, ESS ")


def test_heavy_tails_of_nearly_equal_weights_are_told_apart_from_a_missed_bulk():
    narrow = _advice(0.9, 0.4, fit(gamma_poisson, COUNTS, method="laplace"))
    far = _advice(0.9, 0.99, fit(gamma_poisson, COUNTS, method="laplace"))
    assert "misses part of the posterior" in narrow
    assert "fits the bulk of the posterior" in far


def test_khat_is_kept_for_the_summary_and_costs_nothing_before():
    posterior = fit(gamma_poisson, COUNTS, method="laplace")
    assert posterior.summary().attrs == {"method": "laplace", "khat": None}
    khat = posterior.check(1000).khat
    assert posterior.summary().attrs["khat"] == khat
    assert f"k-hat {khat:.2f}" in repr(posterior)


def test_densities_of_draws_are_those_of_the_program_at_each_draw_on_every_support():
    y = torch.randn(4, generator=torch.Generator().manual_seed(0))
    program = Program(every_support, (y,))
    noise = torch.randn(7, program.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = program.start + 0.3 * noise
    q = GaussianApproximation(program.latents, program.start, 0.1 * torch.eye(program.dim, dtype=torch.float64))
    values = program.constrain(z)
    stacked = log_joint_of_draws(program, values) - q.log_prob(values)
    log_q = torch.distributions.MultivariateNormal(q.free_mean, q.free_covariance).log_prob(z)
    expected = torch.stack([program.log_joint(row) for row in z]) - log_q
    assert torch.allclose(stacked, expected, atol=1e-9)


def test_draws_come_with_their_log_density():
    y = torch.randn(4, generator=torch.Generator().manual_seed(0))
    program = Program(every_support, (y,))
    q = GaussianApproximation(program.latents, program.start, 0.1 * torch.eye(program.dim, dtype=torch.float64))
    values, log_q = q.draws_and_log_prob(50, seed=2)
    assert torch.allclose(log_q, q.log_prob(values), atol=1e-8)
    assert all(torch.equal(values[name], x) for name, x in q.draws(50, 2).items())


def test_a_program_that_no_batch_can_run_is_run_draw_by_draw():
    def with_branch(y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m if float(m) > 0 else 2 * m, 1.0), obs=y)

    program = Program(with_branch, (torch.tensor(0.5),))
    m = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
    expected = stats.norm.logpdf(m) + stats.norm.logpdf(0.5, np.where(m > 0, m, 2 * m))
    assert np.allclose(log_joint_of_draws(program, {"m": m}), expected)


def test_a_program_that_a_batch_would_run_wrongly_is_run_draw_by_draw():
    """``scale`` is chosen by the number of dimensions that a tensor seems to have, which differs inside vmap."""

    def peeks(y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        scale = 1.0 if torch._C._functorch.maybe_get_level(m) == -1 else 2.0
        pyro.sample("y", dist.Normal(m, scale), obs=y)

    program = Program(peeks, (torch.tensor(0.5),))
    m = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
    expected = stats.norm.logpdf(m) + stats.norm.logpdf(0.5, m, 1)
    assert np.allclose(log_joint_of_draws(program, {"m": m}), expected)


def mixture(x):
    means = pyro.sample("means", dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(means[k], 0.5), obs=x)


def test_discrete_latents_count_where_they_are_given_and_are_summed_out_where_not():
    x = torch.tensor([-0.8, 1.5, 2.2])
    program = Program(mixture, (x,))
    means = torch.tensor([[-1.2, 1.7], [0.4, 2.5]], dtype=torch.float64)
    k = torch.tensor([[0, 1, 1], [1, 1, 0]])
    log_prior = stats.norm.logpdf(means, [-1, 2]).sum(1)
    each = stats.norm.logpdf(x[None, :, None], means[:, None, :], 0.5)  # draw, row, component
    log_share = np.log([0.3, 0.7])
    given = log_prior + np.take_along_axis(each + log_share, k.numpy()[..., None], 2)[..., 0].sum(1)
    assert np.allclose(log_joint_of_draws(program, {"means": means, "k": k}), given)
    summed = log_prior + np.logaddexp(*np.moveaxis(each + log_share, 2, 0)).sum(1)
    assert np.allclose(log_joint_of_draws(program, {"means": means}), summed)


class Factored(GaussianApproximation):
    """q(means) Normal, and q(k) right at those means: what mean field would hold of the mixture."""

    def __init__(self, normal, share):
        super().__init__(normal.latents, normal.free_mean, normal.free_covariance)
        self.normal, self.labels = normal, torch.distributions.Categorical(share)
        self.latents = {**normal.latents, "k": None}
        self.tabled_sites = tuple(normal.latents)

    tabled = property(lambda self: self.tabled_sites)

    def draws(self, n, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return {**self.normal.draws(n, seed), "k": self.labels.sample((n,))}

    def log_prob(self, values):
        return self.normal.log_prob({"means": values["means"]}) + self.labels.log_prob(values["k"]).sum(-1)

    def draws_and_log_prob(self, n, seed):
        values = self.draws(n, seed)
        return values, self.log_prob(values)

    def without(self, names):
        return self.normal if names == ("k",) else None


def test_labels_that_factor_off_are_summed_out_before_importance_sampling():
    """With them, 60 labels that q draws without regard to the means make the weights heavy."""
    x = torch.cat(
        [torch.randn(30, generator=torch.Generator().manual_seed(s)) * 0.5 + m for s, m in ((0, -1.0), (1, 1.0))]
    )
    posterior = fit(mixture, x, method="laplace")
    expected = posterior.check()
    means = posterior.mean("means")
    share = torch.softmax(log_component_densities(x, means), -1)
    posterior.approximation = Factored(posterior.approximation, share)
    found = posterior.check()
    assert found.khat == expected.khat < 0.5
    assert found.log_evidence == expected.log_evidence
    assert found.table.equals(expected.table)
    posterior.approximation.without = lambda names: None
    assert posterior.check().khat > found.khat + 0.1


def log_component_densities(x, means):
    return torch.tensor([0.3, 0.7]).log() + torch.distributions.Normal(means, 0.5).log_prob(x[:, None])


def test_log_likelihoods_have_one_entry_for_each_observation():
    y = torch.randn(4, generator=torch.Generator().manual_seed(0))
    program = Program(logistic, (torch.eye(4)[:, :2], (y > 0).double()))
    values = {"b": torch.tensor([0.2, 1.0], dtype=torch.float64), "w": torch.ones(2, 2, dtype=torch.float64)}
    found = log_likelihood_of_draws(program, values)["y"]
    eta = values["b"][:, None] + torch.tensor([1.0, 1.0, 0.0, 0.0])
    expected = stats.bernoulli.logpmf((y > 0).int(), torch.sigmoid(eta))
    assert np.allclose(found, expected)


@pytest.mark.parametrize("rows", [4, 5, 12])
def test_a_plate_that_draws_rows_at_random_is_passed_over_as_a_whole(rows):
    def subsampled(y, size=rows):
        s = pyro.sample("s", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=size) as chosen:
            pyro.sample("y", dist.Normal(0.0, s), obs=y[chosen])

    y = torch.randn(12, generator=torch.Generator().manual_seed(0))
    s = torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64)
    expected = stats.gamma.logpdf(s, 2) + stats.norm.logpdf(y[:, None], 0, s).sum(0)
    assert np.allclose(log_joint_of_draws(Program(subsampled, (y,)), {"s": s}), expected, rtol=1e-6)


def test_log_densities_that_no_pass_over_the_rows_gives_are_refused():
    def local(y):
        with pyro.plate("rows", len(y), subsample_size=2) as rows:
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(m, 1.0), obs=y[rows])

    program, m = Program(local, (torch.zeros(5),)), {"m": torch.zeros(3, 2, dtype=torch.float64)}
    with pytest.raises(
        ValueError, match="plate 'rows' draws 2 of 5 rows.*loaded with a model whose plates hold all rows"
    ):
        log_joint_of_draws(program, m)
    with pytest.raises(ValueError, match="plate 'rows' draws 2 of 5 rows"):
        log_likelihood_of_draws(program, m)


def test_data_that_came_in_batches_are_not_taken_for_their_first_batch():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 2)), rng.normal(size=600)
    batches = [(X[i : i + 150], y[i : i + 150]) for i in range(0, 600, 150)]
    posterior = fit(normal_regression, batches, method=StochasticVI(size=600))
    with pytest.raises(ValueError, match="plate 'rows' draws 150 of 600 rows"):
        posterior.check()
    with pytest.raises(ValueError, match="predict needs arguments: the data came in batches"):
        posterior.predict()
    assert posterior.predict(X[:3], None, draws=5)["y"].shape == (5, 3)


# Samplers


def sampled(x, history=None):
    """A posterior that holds the chains x, (chains, n), of the rate."""
    latents = Program(gamma_poisson, (COUNTS,)).latents
    history = pd.DataFrame() if history is None else history
    return Posterior("nuts", SampledApproximation(latents, {"rate": x}), True, "", 0.0, history)


def independent(chains=4, n=500, shift=0.0):
    x = torch.randn(chains, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x + shift * torch.arange(chains)[:, None]


def test_chains_that_agree_pass_and_chains_that_do_not_are_told():
    good, bad = sampled(independent()).check(), sampled(independent(shift=1.0)).check()
    assert good.rhat < 1.01
    assert good.advice == "The chains agree, and there are enough effective draws."
    assert bad.rhat > 1.3
    assert "The chains disagree" in bad.advice
    assert (good.khat, good.log_evidence, good.divergences) == (None, None, None)


def test_few_effective_draws_one_chain_and_divergences_are_told():
    walk = independent(n=500).cumsum(1)
    assert "fewer than 100 effective draws" in sampled(walk).check().advice
    assert "One chain cannot show" in sampled(independent(chains=1)).check().advice
    history = pd.DataFrame({"chain": range(4), "divergences": [0, 2, 0, 1]})
    check = sampled(independent(), history).check()
    assert check.divergences == 3
    assert "non-centred" in check.advice
    assert "3 divergences" in repr(check)


def autoregressive(rho, n=2000):
    noise = independent(n=n) * math.sqrt(1 - rho**2)
    x = noise.clone()
    for t in range(1, n):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


def test_rhat_and_ess_are_those_of_arviz():
    """ESS within 2 %: ArviZ splits each chain first and sums the autocorrelations by the same rule."""
    arviz = pytest.importorskip("arviz", exc_type=ImportError)
    x = autoregressive(0.6)
    row = sampled(x).check().table.loc["rate"]
    assert row["rhat"] == pytest.approx(float(arviz.rhat(x.numpy(), method="split")), abs=1e-4)
    assert row["ess"] == pytest.approx(float(arviz.ess(x.numpy(), method="mean")), rel=0.02)


def test_monte_carlo_errors_of_mean_and_sd_are_those_of_an_autoregression():
    """8000 draws of an AR(1) with ρ = 0.6: x has the ESS 8000·(1 − ρ)/(1 + ρ), x² that with ρ² in place of ρ."""
    mean_error, sd_error = sampled(autoregressive(0.6)).approximation.errors("rate")
    assert mean_error.item() == pytest.approx(1 / math.sqrt(8000 * 0.4 / 1.6), rel=0.1)
    assert sd_error.item() == pytest.approx(1 / math.sqrt(2 * 8000 * 0.64 / 1.36), rel=0.1)


def test_nuts_counts_divergences_for_each_chain():
    """Beyond m = 1 stands a wall 10⁶ high: whoever steps into it has lost energy conservation."""

    def walled(y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m + 1e4 * torch.relu(m - 1), 1.0), obs=y)

    posterior = fit(walled, torch.tensor(0.0), method=NUTS(draws=60, warmup=30, chains=2), seed=1)
    assert list(posterior.history.columns) == ["chain", "draws", "divergences"]
    assert posterior.check().divergences == posterior.history["divergences"].sum() > 0
    assert "transitions diverged" in posterior.message
    smooth = fit(gamma_poisson, COUNTS, method=NUTS(draws=60, warmup=60, chains=1))
    assert smooth.check().divergences == 0


def test_questions_that_cannot_be_answered_say_why():
    with pytest.raises(ValueError, match="draws must be at least 25"):
        fit(gamma_poisson, COUNTS, method="laplace").check(10)
    posterior = fit(gamma_poisson, COUNTS, method="laplace")
    posterior.program = None
    with pytest.raises(ValueError, match="check needs the model with its data"):
        posterior.check()
