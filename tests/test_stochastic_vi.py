"""Stochastic VI finds the mean-field optimum that a full-data computation finds, from batches, however they come."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz import rhat as arviz_rhat
from pyro_models import logistic, normal_regression
from torch import nn
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference import StochasticVI, fit
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.averaging import Iterates, error_of_mean, predicted_change, split_rhat
from probdl.inference.stochastic.batch_density import BatchDensity
from probdl.inference.stochastic.minibatches import RowsOfArguments, RowsOfPlates
from probdl.inference.stochastic.stochastic_steps import whole

F64 = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def regression(n=6000, d=5, seed=0):
    g = generator(seed)
    X = torch.randn(n, d, generator=g, **F64) @ torch.randn(d, d, generator=g, **F64)
    return X, X @ torch.randn(d, generator=g, **F64) + 0.5 * torch.randn(n, generator=g, **F64)


def regression_optimum(X, y):
    """Closed form: the mean-field mean is the exact one, the precision the diagonal of the exact precision."""
    precision = X.T @ X / 0.25 + torch.eye(X.shape[1]) / 4
    mean, sd = torch.linalg.solve(precision, X.T @ y / 0.25), precision.diagonal() ** -0.5
    residual, d = y - X @ mean, len(mean)
    fit_ = -0.5 * (residual @ residual + (X.square() @ sd.square()).sum()) / 0.25 - len(y) * math.log(0.5)
    prior = -0.5 * (mean @ mean + sd @ sd) / 4 - d * math.log(2)
    entropy = sd.log().sum() + d / 2 * math.log(2 * math.pi * math.e)
    bound = fit_ + prior + entropy - (len(y) + d) / 2 * math.log(2 * math.pi)
    return mean, sd, torch.linalg.inv(precision).diagonal().sqrt(), float(bound)


def assert_at(posterior, mean, sd, name="w", tolerance=0.03):
    error = (posterior.mean(name) - mean) / sd
    assert float(error.square().mean().sqrt()) < tolerance
    assert float((posterior.sd(name) / sd).log().square().mean().sqrt()) < tolerance


def subsampling_regression(X, y):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X), subsample_size=256) as rows:
        pyro.sample("y", dist.Normal(X[rows] @ w, 0.5), obs=y[rows])


@pytest.mark.parametrize("batch_size", [100, 257, 6000])
def test_batches_find_the_closed_form_optimum_of_a_normal_regression(batch_size):
    X, y = regression()
    mean, sd, exact_sd, bound = regression_optimum(X, y)
    posterior = fit(normal_regression, X, y, method=StochasticVI(batch_size=batch_size))
    assert posterior.converged
    assert_at(posterior, mean, sd)
    sd_lr = torch.tensor(posterior.summary()["sd_lr"].to_numpy())
    torch.testing.assert_close(sd_lr, exact_sd, rtol=1e-6, atol=0.0)
    # 4.5 standard errors from 32 pairs: a false alarm in about 1e-4 of the seeds.
    assert abs(posterior.elbo.value - bound) < 4.5 * posterior.elbo.stderr + 1e-3 * len(mean)


def test_a_subsampling_plate_of_the_user_finds_the_same_optimum():
    X, y = regression()
    mean, sd, _, _ = regression_optimum(X, y)
    posterior = fit(subsampling_regression, X, y, method="svi")
    assert posterior.converged
    assert "256 of 6000 rows" in posterior.message
    assert posterior.notes == () or "recorded" not in " ".join(posterior.notes)
    assert_at(posterior, mean, sd)


def logistic_optimum(X, y, start_mean, start_log_sd):
    """The mean-field optimum by 20-point Gauss–Hermite on each row's projection, and L-BFGS in whitened coordinates."""
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(20))
    X1, prior = torch.cat([torch.ones(len(X), 1), X], 1), torch.tensor([100.0] + [4.0] * X.shape[1], **F64)
    p = torch.sigmoid(X1 @ start_mean)
    root = torch.linalg.inv(torch.linalg.cholesky((X1 * (p * (1 - p))[:, None]).T @ X1 + torch.diag(1 / prior))).T

    def parameters(u):
        return start_mean + root @ u[: len(prior)], start_log_sd + u[len(prior) :] / 2**0.5

    def loss(u):
        mean, log_sd = parameters(u)
        centre, spread = X1 @ mean, (X1.square() @ (2 * log_sd).exp()).sqrt()
        expected = sum(
            w * torch.nn.functional.softplus(-(2 * y - 1) * (centre + spread * t)).sum() for t, w in zip(nodes, weights)
        )
        return expected / weights.sum() + 0.5 * ((mean**2 + (2 * log_sd).exp()) / prior).sum() - log_sd.sum()

    u = torch.zeros(2 * len(prior), requires_grad=True, **F64)
    optimiser = torch.optim.LBFGS([u], max_iter=60, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def closure():
        optimiser.zero_grad()
        value = loss(u)
        value.backward()
        return value

    optimiser.step(closure)
    mean, log_sd = parameters(u.detach())
    constants = -0.5 * prior.log().sum() + 0.5 * len(prior)
    return mean, log_sd.exp(), float(-loss(u.detach()) + constants)


def test_logistic_regression_on_100_000_rows_is_at_the_optimum_of_full_data_quadrature():
    g, n, d = generator(1), 100_000, 6
    X = torch.randn(n, d, generator=g, **F64)
    X[:, 1] += X[:, 0]
    y = (torch.rand(n, generator=g, **F64) < torch.sigmoid(X @ torch.linspace(-1, 1, d, **F64) - 0.5)).double()
    posterior = fit(logistic, X, y, method=StochasticVI(batch_size=256))
    ours = torch.cat([posterior.mean("b")[None], posterior.mean("w")])
    ours_sd = torch.cat([posterior.sd("b")[None], posterior.sd("w")])
    mean, sd, bound = logistic_optimum(X, y, ours, ours_sd.log())
    assert float(((ours - mean) / sd).abs().max()) < 0.03
    assert float((ours_sd / sd - 1).abs().max()) < 0.05
    assert abs(posterior.elbo.value - bound) < 4.5 * posterior.elbo.stderr + 0.01
    assert posterior.history["step"].iloc[-1] < 5000


@pytest.mark.parametrize("subsampling", [False, True])
@pytest.mark.parametrize("size", [64, 256, 999])
def test_the_factors_of_a_pass_over_batches_add_up_to_the_whole(subsampling, size):
    X, y = regression(n=1000)
    full = Program(normal_regression, (X, y))
    if subsampling:

        def model(X, y):
            w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
            with pyro.plate("rows", len(X), subsample_size=size) as rows:
                pyro.sample("y", dist.Normal(X[rows] @ w, 0.5), obs=y[rows])

        program = Program(model, (X, y))
        source = RowsOfPlates(program, program.subsampled)
    else:
        source = RowsOfArguments(full, "rows", 1000, size)
    z = torch.linspace(-1, 1, 5, **F64)
    value, gradient = whole(BatchDensity(source), z[None])
    exact = full.log_joint(z.requires_grad_())
    torch.testing.assert_close(value[0], exact.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[0], torch.autograd.grad(exact, z)[0], rtol=1e-9, atol=1e-9)


def test_scaled_batches_are_unbiased_for_the_log_density():
    """Over a permutation cut into equal batches the scaled log-densities average to the whole, to rounding."""
    X, y = regression(n=1000)
    program = Program(normal_regression, (X, y))
    source, z = RowsOfArguments(program, "rows", 1000, 100), torch.linspace(-1, 1, 5, **F64)
    batches, density = source.batches(generator()), BatchDensity(source)
    parts = [next(batches) for _ in range(10)]
    values = [density.value(z, density.weights(1.0, b.factor), *b.inputs) for b in parts]
    torch.testing.assert_close(torch.stack(values).mean(), program.log_joint(z), rtol=1e-12, atol=0)


def batches_of(X, y, size):
    return [(X[i : i + size], y[i : i + size]) for i in range(0, len(X), size)]


@pytest.mark.parametrize("kind", ["list", "loader", "factory", "dicts"])
def test_an_iterable_of_batches_finds_the_optimum_of_all_rows(kind):
    X, y = regression()
    mean, sd, _, bound = regression_optimum(X, y)
    parts = batches_of(X, y, 250 if kind != "list" else 256)  # 6000 is no multiple of 256
    given = {
        "list": parts,
        "loader": DataLoader(TensorDataset(X, y), batch_size=250),
        "factory": lambda: iter(parts),
        "dicts": [{"X": X.numpy(), "y": y.numpy()} for X, y in parts],
    }[kind]
    posterior = fit(normal_regression, given, method=StochasticVI(size=6000))
    assert posterior.converged
    assert_at(posterior, mean, sd)
    assert abs(posterior.elbo.value - bound) < 4.5 * posterior.elbo.stderr + 1e-3 * len(mean)


def test_a_generator_that_can_be_read_once_gives_nearly_the_optimum_and_says_that_its_error_is_unknown():
    X, y = regression(n=30_000)
    mean, sd, exact_sd, _ = regression_optimum(X, y)
    posterior = fit(normal_regression, iter(batches_of(X, y, 100)), method=StochasticVI(size=30_000))
    assert posterior.converged
    assert "error of its result is not known" in posterior.message
    assert float(((posterior.mean("w") - mean) / exact_sd).square().mean().sqrt()) < 0.3
    torch.testing.assert_close(posterior.sd("w"), sd, rtol=0.05, atol=0)


def test_a_generator_that_ends_early_keeps_what_was_learned_with_a_warning():
    X, y = regression(n=6000)
    with pytest.warns(ConvergenceWarning, match="ended after 3000 of 6000 rows"):
        posterior = fit(normal_regression, iter(batches_of(X[:3000], y[:3000], 100)), method=StochasticVI(size=6000))
    assert not posterior.converged
    exact = regression_optimum(X[:3000], y[:3000])
    assert float(((posterior.mean("w") - exact[0]) / exact[2]).abs().max()) < 1.5


def counts(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def test_a_positive_latent_is_fitted_on_its_log():
    """The optimal log-normal of a Gamma(a, b) posterior has log-mean log(a/b) − 1/(2a) and log-variance 1/a."""
    y = torch.poisson(torch.full((8000,), 3.0, **F64), generator=generator())
    a, b = 2 + float(y.sum()), 1.0 + len(y)
    posterior = fit(counts, y, method=StochasticVI(batch_size=128))
    gaussian = posterior.approximation
    assert abs(float(gaussian.free_mean[0]) - (math.log(a / b) - 0.5 / a)) < 0.03 / a**0.5
    assert abs(float(gaussian.free_sd[0]) * a**0.5 - 1) < 0.03


def test_without_batches_all_rows_are_used():
    X, y = regression(n=300)
    mean, sd, _, bound = regression_optimum(X, y)
    posterior = fit(normal_regression, X, y, method="svi")
    assert "on all rows" in posterior.message
    assert_at(posterior, mean, sd)
    assert posterior.elbo.value == pytest.approx(bound, abs=0.01)


def crossed(y):
    """Both rows and columns of a table are drawn."""
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    rows = pyro.plate("rows", y.shape[0], subsample_size=40, dim=-2)
    columns = pyro.plate("columns", y.shape[1], subsample_size=20, dim=-1)
    with rows as i, columns as j:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[i][:, j])


def test_two_subsampling_plates_scale_by_both_sizes():
    y = torch.randn(80, 60, generator=generator(), **F64) + 2
    precision = y.numel() + 0.01
    posterior = fit(crossed, y, method=StochasticVI(tolerance=0.1))
    assert float((posterior.mean("mu") - y.sum() / precision).abs()) * precision**0.5 < 0.3
    assert float(posterior.sd("mu")) * precision**0.5 == pytest.approx(1, abs=0.1)


def indicator_mixture(y):
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(mu[k], 1.0), obs=y)


def marginal_mixture(y):
    mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        which = dist.Categorical(torch.tensor([0.3, 0.7]))
        pyro.sample("y", dist.MixtureSameFamily(which, dist.Normal(mu, 1.0)), obs=y)


def test_discrete_latents_of_rows_are_summed_out_of_a_batch():
    g = generator()
    y = torch.where(torch.rand(6000, generator=g) < 0.3, -2.0, 2.0) + torch.randn(6000, generator=g)
    summed, written = (fit(m, y, method=StochasticVI(batch_size=200)) for m in (indicator_mixture, marginal_mixture))
    torch.testing.assert_close(summed.mean("mu"), written.mean("mu"), rtol=1e-6, atol=0)
    torch.testing.assert_close(summed.sd("mu"), written.sd("mu"), rtol=1e-6, atol=0)


def test_same_seed_same_result_and_nothing_global_changes():
    X, y = regression()
    before = torch.get_rng_state()
    a, b, c = (fit(normal_regression, X, y, method=StochasticVI(batch_size=200), seed=s) for s in (0, 0, 1))
    assert torch.equal(a.mean("w"), b.mean("w"))
    assert torch.equal(a.sd("w"), b.sd("w"))
    assert not torch.equal(a.sd("w"), c.sd("w"))
    assert torch.equal(torch.get_rng_state(), before)


def numpy_reader(X, y):
    """Reads its data past torch, so that a recording would keep the first batch's numbers."""
    centre = float(np.mean(X.numpy()) * 0)
    w = pyro.sample("w", dist.Normal(centre, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Normal(torch.as_tensor(X.numpy()) @ w, 0.5), obs=y)


def test_a_model_that_reads_its_data_by_numpy_runs_as_it_is():
    X, y = regression()
    mean, sd, _, _ = regression_optimum(X, y)
    posterior = fit(numpy_reader, X, y, method=StochasticVI(batch_size=500, tolerance=0.05))
    assert any("could not be recorded" in note for note in posterior.notes)
    assert_at(posterior, mean, sd, tolerance=0.06)


def test_a_posterior_of_other_data_is_a_start():
    X, y = regression(n=8000)
    mean, sd, _, _ = regression_optimum(X, y)
    earlier = fit(normal_regression, X[:2000], y[:2000], method="laplace")
    posterior = fit(normal_regression, X, y, method=StochasticVI(batch_size=200, start=earlier))
    assert "started at a posterior by laplace" in posterior.message
    assert_at(posterior, mean, sd)
    with pytest.raises(ValueError, match="start must be a posterior of the same sites"):
        fit(counts, torch.ones(50), method=StochasticVI(batch_size=10, start=earlier))


def test_the_error_that_it_claims_is_its_error():
    """Six seeds of ten coordinates: the pooled error is within a factor of two of the claim (chance below 1e-4)."""
    g = generator(5)
    X = torch.randn(4000, 4, generator=g, **F64)
    y = (torch.rand(4000, generator=g, **F64) < torch.sigmoid(X @ torch.linspace(-1, 1, 4, **F64))).double()
    claims, errors, exact = [], [], None
    for seed in range(6):
        posterior = fit(logistic, X, y, method=StochasticVI(batch_size=48), seed=seed)
        ours = torch.cat([posterior.mean("b")[None], posterior.mean("w")])
        sd = torch.cat([posterior.sd("b")[None], posterior.sd("w")])
        exact = exact or logistic_optimum(X, y, ours, sd.log())
        errors.append(torch.cat([(ours - exact[0]) / exact[1], 2**0.5 * (sd / exact[1]).log()]))
        claims.append(posterior.history["error"].iloc[-1])
    ratio = float(torch.stack(errors).square().mean().sqrt()) / float(np.sqrt(np.mean(np.square(claims))))
    assert 0.5 < ratio < 2.0, ratio


# Latents of every row.

LOADINGS = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]], **F64)


def factors(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ LOADINGS, 0.5).to_event(1), obs=x)


def subsampling_factors(x):
    with pyro.plate("rows", len(x), subsample_size=100) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ LOADINGS, 0.5).to_event(1), obs=x[rows])


def factor_data(n=1500):
    g = generator(2)
    return torch.randn(n, 2, generator=g, **F64) @ LOADINGS + 0.5 * torch.randn(n, 3, generator=g, **F64)


def factor_optimum(x):
    """Every row's posterior is normal: its mean, mean-field sds, and the bound, evidence less KL."""
    precision = torch.eye(2) + LOADINGS @ LOADINGS.T / 0.25
    mean = x @ torch.linalg.solve(precision, LOADINGS / 0.25).T
    law = torch.distributions.MultivariateNormal(torch.zeros(3, **F64), LOADINGS.T @ LOADINGS + 0.25 * torch.eye(3))
    kl = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    return mean, precision.diagonal() ** -0.5, float(law.log_prob(x).sum() - len(x) * kl)


def network(inputs, outputs, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs).double()


@pytest.mark.parametrize("model", [factors, subsampling_factors])
def test_a_network_learns_the_posterior_of_every_row(model):
    x = factor_data()
    mean, sd, bound = factor_optimum(x)
    posterior = fit(model, x, method=StochasticVI(guide=network(3, 4)))
    assert posterior.converged
    assert posterior.mean("z").shape == (1500, 2)
    assert float(((posterior.mean("z") - mean) / sd).abs().max()) < 0.06
    torch.testing.assert_close(posterior.sd("z"), sd.expand(1500, 2), rtol=0.03, atol=0)
    assert abs(posterior.elbo.value - bound) < 5.5 * posterior.elbo.stderr  # 8 passes, t with 7 df: about 1e-3


def test_a_network_encodes_new_rows_where_the_data_came_as_an_iterable():
    x = factor_data()
    mean, sd, _ = factor_optimum(x)
    posterior = fit(factors, list(x.split(100)), method=StochasticVI(guide=network(3, 4), size=1500))
    ours, ours_sd = posterior.approximation.encode(x)["z"]
    assert float(((ours - mean) / sd).abs().max()) < 0.06
    torch.testing.assert_close(ours_sd, sd.expand(1500, 2), rtol=0.03, atol=0)
    with pytest.raises(ValueError, match=r"rows of an iterable are not kept.*encode"):
        posterior.mean("z")


def test_a_pyro_guide_learns_the_posterior_of_every_row_and_leaves_no_parameter_behind():
    def guide(x):
        weights = pyro.param("weights", lambda: torch.zeros(3, 2))
        sd = pyro.param("sd", lambda: torch.ones(2), constraint=constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x @ weights, sd).to_event(1))

    x = factor_data()
    mean, sd, _ = factor_optimum(x)
    posterior = fit(factors, x, method=StochasticVI(guide=guide, batch_size=150))
    gap = (posterior.mean("z") - mean) / sd
    assert float(gap.square().mean().sqrt()) < 0.06  # of which 0.03 is the noise of 1000 draws
    assert float((posterior.sd("z") / sd).log().abs().mean()) < 0.04
    assert list(pyro.get_param_store().keys()) == []


def test_shared_latents_and_a_models_parameters_are_learned_along():
    """The marginal of x is N(mu, W Wᵀ + s² I); two factors and s fit any covariance of three columns."""
    x = factor_data() + 2.0
    decoder = network(2, 3, seed=1)

    def model(x):
        learned = pyro.module("decoder", decoder)
        s = pyro.param("s", lambda: torch.tensor(1.0), constraint=constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pyro.sample("x", dist.Normal(mu + learned(z), s).to_event(1), obs=x)

    posterior = fit(model, x, method=StochasticVI(guide={"z": network(3, 4)}))
    best = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(x).sum()
    # At most the saturated likelihood, and within 0.015 nats a row of it; the prior of mu alone costs about 6 nats.
    assert best - 22 < posterior.elbo.value < best + 1
    assert posterior.mean("z").shape == (1500, 2)
    assert posterior.mean("mu").shape == ()
    assert list(pyro.get_param_store().keys()) == []


def test_a_parameter_of_a_model_without_local_latents_is_learned():
    y = torch.randn(2000, generator=generator(), **F64) * 3 + 1

    def model(y):
        s = pyro.param("s", lambda: torch.tensor(1.0), constraint=constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, s), obs=y)

    posterior = fit(model, y, method=StochasticVI(batch_size=200))
    learned = posterior.program.scope.state["params"]["s"].exp()
    assert float(learned.detach()) == pytest.approx(float(y.std()), rel=0.02)
    assert float(posterior.mean("mu")) == pytest.approx(float(y.mean()), abs=0.02)


# Bad input.


def refused(match, model, *args, error=ValueError, **settings):
    with pytest.raises(error, match=match):
        fit(model, *args, method=StochasticVI(**settings))


def test_a_batch_larger_than_the_data_is_refused():
    refused("batch_size must be between 1 and the 50 rows of plate 'rows'", counts, torch.ones(50), batch_size=51)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"size": -1}, {"max_steps": 0}, {"batch_size": 2.5}])
def test_counts_must_be_positive_integers(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be a positive integer"):
        StochasticVI(**settings)


def test_other_settings_are_checked():
    with pytest.raises(ValueError, match="tolerance must be between 0 and 1"):
        StochasticVI(tolerance=0.0)
    with pytest.raises(ValueError, match="leave batch_size out"):
        StochasticVI(size=10, batch_size=2)


def test_an_iterable_needs_its_size():
    refused(r"say how many rows.*size=n", counts, iter([torch.ones(5)]))


def test_an_empty_iterable_is_refused():
    refused("is empty", counts, [], size=10)
    refused("is empty", counts, lambda: iter(()), size=10)


def test_an_iterable_of_another_size_is_refused():
    y = torch.ones(100)
    refused("one pass have 100 rows", counts, list(y.split(20)), size=90)


def test_an_observation_outside_its_support_is_found_in_whichever_batch_it_is():
    parts = list(torch.ones(500).split(20))
    parts[22] = torch.full((20,), -3.0)
    refused(r"In batch 23 of the iterable: obs of site 'y' must lie in the support of Poisson", counts, parts, size=500,
            error=ConvergenceError)  # fmt: skip


def test_batches_of_data_in_memory_are_no_iterable():
    refused("one iterable of batches", counts, torch.ones(5), size=5, error=TypeError)


def test_a_batch_size_beside_the_users_own_is_refused():
    X, y = regression(n=1000)
    refused("Leave batch_size out", subsampling_regression, X, y, batch_size=10)


def closed_over(scale):
    y = torch.linspace(-1, 1, 50)
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 50):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


def test_data_that_are_no_argument_cannot_be_cut():
    refused(r"found none.*as\s+arguments", closed_over, 1.0, batch_size=10)


def standardising(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=(y - y.mean()) / y.std())


def empirical(y):
    mu = pyro.sample("mu", dist.Normal(y.mean(), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_rows_that_read_each_other_cannot_be_cut():
    y = torch.randn(500, generator=generator())
    refused(r"add up to .* but that of all rows is", standardising, y, batch_size=50)
    refused("Factors outside plate 'rows' change with the rows", empirical, y, batch_size=50)


def test_unsafe_rows_are_all_used_by_default_with_a_note():
    y = torch.randn(6000, generator=generator())
    posterior = fit(empirical, y, method="svi")
    assert "on all rows" in posterior.message
    assert any("all rows are used" in note for note in posterior.notes)


def test_a_latent_of_every_row_needs_a_guide():
    refused(r"'z' has a value for each row.*guide=network", factors, factor_data(), batch_size=100)
    refused(r"'z' has a value for each row", subsampling_factors, factor_data())


def test_networks_must_fit_their_sites():
    x = factor_data()
    refused(r"shape \(\d+, 4\); got \(\d+, 3\)", factors, x, guide=network(3, 3))
    refused("is torch.float32, but the data are torch.float64", factors, x, guide=nn.Linear(3, 4))
    refused("one network for each site with a value for each row, z", factors, x, guide={"other": network(3, 4)})
    refused("must be a network", factors, x, guide=3, error=TypeError)


def test_a_guide_must_give_every_latent_a_reparameterised_value():
    def empty(x):
        pass

    def discrete(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Poisson(1.0).expand([2]).to_event(1))

    refused("gives no value to the latent site 'z'", factors, factor_data(), guide=empty)
    refused("'z' has a .*cannot be reparameterised", factors, factor_data(), guide=discrete)


def spoiled():
    """Three hundred batches of 20 rows, of which the 251st holds NaN; the pilot takes 100 of them."""
    X, y = regression(n=6000)
    parts = batches_of(X, y, 20)
    parts[250] = (torch.full_like(parts[250][0], math.nan), parts[250][1])
    return X, y, parts


def test_nan_in_a_batch_is_named_with_its_site_before_anything_is_learned():
    _, _, parts = spoiled()
    refused("in batch 251, the factor of site y is not finite.*holds NaN", normal_regression, parts, size=6000,
            error=ConvergenceError)  # fmt: skip
    refused("At the start the factor of site y is not finite", normal_regression, parts[200:], size=2000,
            error=ConvergenceError)  # fmt: skip


def test_nan_in_a_batch_that_comes_once_keeps_what_was_learned():
    X, y, parts = spoiled()
    with pytest.warns(ConvergenceWarning, match="At step 151 the factor of site y is not finite.*holds NaN"):
        posterior = fit(normal_regression, iter(parts), method=StochasticVI(size=6000))
    mean, _, sd, _ = regression_optimum(X[:5000], y[:5000])
    assert not posterior.converged
    assert float(((posterior.mean("w") - mean) / sd).abs().max()) < 1.5


def test_nan_that_appears_in_a_later_pass_keeps_what_was_learned():
    X, y, parts = spoiled()
    clean = batches_of(X, y, 20)
    passes = iter([*[clean] * 8, *[parts] * 100])
    with pytest.warns(ConvergenceWarning, match="the factor of site y is not finite.*holds NaN"):
        posterior = fit(normal_regression, lambda: iter(next(passes)), method=StochasticVI(size=6000, tolerance=1e-3))
    mean, _, sd, _ = regression_optimum(X, y)
    assert not posterior.converged
    assert math.isfinite(posterior.elbo.value)
    assert float(((posterior.mean("w") - mean) / sd).abs().max()) < 0.5


def test_nan_in_a_batch_of_a_network_names_site_and_step_and_keeps_the_network():
    x = factor_data()
    parts = list(x.split(50))
    spoilt = [p.clone() for p in parts]
    spoilt[20][3] = math.nan
    passes = iter([*[parts] * 12, *[spoilt] * 100])  # the loader goes wrong after a while
    with pytest.warns(ConvergenceWarning, match=r"At step \d+ the batch itself holds NaN.*site z, x"):
        posterior = fit(factors, lambda: iter(next(passes)), method=StochasticVI(guide=network(3, 4), size=1500))
    ours, _ = posterior.approximation.encode(x)["z"]
    assert bool(torch.isfinite(ours).all())
    assert not posterior.converged


def test_ctrl_c_keeps_what_was_learned():
    X, y = regression()
    mean, _, sd, _ = regression_optimum(X, y)
    calls = {"n": 0}

    def batches():
        for part in batches_of(X, y, 50):
            calls["n"] += 1
            if calls["n"] == 900:
                raise KeyboardInterrupt
            yield part

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        posterior = fit(normal_regression, batches, method=StochasticVI(size=6000, tolerance=0.001))
    assert not posterior.converged
    assert float(((posterior.mean("w") - mean) / sd).abs().max()) < 0.5


def test_too_few_steps_are_said():
    X, y = regression()
    with pytest.warns(ConvergenceWarning, match="300 steps allowed"):
        posterior = fit(normal_regression, X, y, method=StochasticVI(batch_size=50, tolerance=1e-4, max_steps=300))
    assert not posterior.converged


def test_a_check_of_a_posterior_from_an_iterable_is_refused():
    """Its program holds one batch only, and a check against that would be wrong."""
    X, y = regression(n=2000)
    posterior = fit(normal_regression, batches_of(X, y, 100), method=StochasticVI(size=2000))
    with pytest.raises(ValueError, match="rows"):
        posterior.check()


# The parts of the stopping rule.


def autoregression(n, k, seed, rho=0.8):
    noise = np.random.default_rng(seed).normal(size=(n, k))
    x = np.zeros((n, k))
    for i in range(1, n):
        x[i] = rho * x[i - 1] + noise[i]
    return torch.tensor(x)


def test_split_rhat_is_that_of_arviz():
    x = autoregression(400, 5, seed=3) + torch.linspace(0, 2, 400)[:, None]
    expected = [float(arviz_rhat(x[:, i].reshape(2, 200).numpy(), method="identity")) for i in range(5)]
    np.testing.assert_allclose(split_rhat(x).numpy(), expected, rtol=1e-12)


def test_the_error_of_a_mean_is_that_of_many_sequences():
    """Exact: sd of the mean of 2000 AR(1) steps; 300 sequences determine their mean error to about 2 percent."""
    x = autoregression(2000, 300, seed=4)
    exact = 1 / (1 - 0.8) / 2000**0.5
    assert float(error_of_mean(x).square().mean().sqrt()) == pytest.approx(exact, rel=0.1)


def test_the_predicted_change_is_the_rest_of_a_geometric_series():
    assert predicted_change([0.4], [0.0]) == pytest.approx(0.4)
    assert predicted_change([0.8, 0.4], [0.0, 0.0]) == pytest.approx(0.4)
    assert predicted_change([0.9, 0.3], [0.0, 0.0]) == pytest.approx(0.15)
    assert predicted_change([0.1], [0.2]) == 0.0
    assert math.isinf(predicted_change([], []))


def test_iterates_keep_exact_means_when_they_are_thinned():
    x = torch.randn(5000, 3, generator=generator(), **F64)
    kept = Iterates(3, x)
    for row in x:
        kept.add(row)
    assert kept.each == 4
    torch.testing.assert_close(kept.rows(), x.reshape(-1, 4, 3).mean(1))
