"""predict() draws data from the model with latents from the posterior."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from probdl.inference import NUTS, fit
from probdl.inference.posteriors.approximations import Approximation


def regression(X, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)


def counts(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def groups(group, x, y=None):
    with pyro.plate("groups", int(group.max()) + 1):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a[group] + x, 1.0), obs=y)


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 2)), RNG.normal(size=12)


@pytest.fixture(scope="module")
def exact():
    return fit(regression, X, Y, method="ep")


@pytest.mark.parametrize("new", [None, RNG.normal(size=(5, 2))])
def test_predictions_have_the_mean_and_covariance_of_the_exact_predictive(exact, new):
    """N(Xm, XVX' + σ²): 20,000 draws, means and covariances within 5 standard errors (false alarm below 1e-4)."""
    draws = 20_000
    y = (exact.predict(draws=draws) if new is None else exact.predict(new, draws=draws))["y"]
    at = torch.as_tensor(X if new is None else new)
    mean, cov = at @ exact.mean("w"), at @ exact.cov("w") @ at.T + 0.25 * torch.eye(len(at))
    var = cov.diagonal()
    assert y.shape == (draws, len(at))
    assert ((y.mean(0) - mean).abs() < 5 * (var / draws).sqrt()).all()
    assert ((torch.cov(y.T) - cov).abs() < 5 * ((var[:, None] * var + cov**2) / draws).sqrt()).all()


def test_counts_have_the_negative_binomial_predictive():
    """NUTS posterior Gamma(14, 4): predictive NB(14, 4/5), a chi-squared test at level 1e-4 on 1,600 thinned draws."""
    posterior = fit(counts, torch.tensor([3.0, 5.0, 4.0]), method=NUTS(draws=800, warmup=100, chains=2), seed=2)
    y = posterior.predict(draws=1600)["y"][:, 0]
    edges = range(8)
    expected = np.append(stats.nbinom.pmf(edges, 14, 4 / 5), stats.nbinom.sf(7, 14, 4 / 5)) * len(y)
    found = np.append([(y == k).sum() for k in edges], (y > 7).sum())
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4


def test_rows_of_data_are_drawn_independently_given_the_latents(exact):
    """Residuals of neighbouring rows and draws are uncorrelated: within 5/√n of 0."""
    draws = exact.draws(4000, seed=1)["w"]
    y = exact.predict(draws=4000, seed=1)["y"]
    residual = (y - draws @ torch.as_tensor(X).T) / 0.5
    assert abs((residual[1:, 0] * residual[:-1, 0]).mean().item()) < 5 / math.sqrt(4000)
    assert abs((residual[:, 0] * residual[:, 1]).mean().item()) < 5 / math.sqrt(4000)
    assert residual.std().item() == pytest.approx(1, abs=0.02)


def test_noise_of_the_data_is_not_that_of_the_latents(exact):
    """One seed for both would draw the same normal numbers twice."""
    z = exact.draws(4000, seed=0)["w"] - exact.mean("w")
    residual = exact.predict(draws=4000, seed=0)["y"] - exact.draws(4000, seed=0)["w"] @ torch.as_tensor(X).T
    correlation = torch.corrcoef(torch.cat([z, residual], 1).T)[:2, 2:]
    assert correlation.abs().max().item() < 5 / math.sqrt(4000)


@pytest.mark.parametrize("form", ["tensor", "numpy", "frame", "keyword", "integers"])
def test_new_data_come_in_the_forms_that_fit_takes(exact, form):
    new = np.array([[1, 0], [2, -1], [0, 3]])
    if form == "keyword":
        y = exact.predict(X=new.astype(float), y=None, draws=50)["y"]
    else:
        data = {
            "tensor": torch.tensor(new, dtype=torch.float32),
            "numpy": new.astype(float),
            "frame": pd.DataFrame(new.astype(float)),
            "integers": new,
        }[form]
        y = exact.predict(data, draws=50)["y"]
    assert torch.equal(y, exact.predict(torch.tensor(new, dtype=torch.float64), draws=50)["y"])


def test_observations_passed_with_new_data_are_not_copied_into_the_predictions(exact):
    assert exact.predict(X, Y, draws=20)["y"].std(0).min() > 0.1


def test_same_seed_same_predictions_and_no_global_seed_is_touched(exact):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (exact.predict(draws=20, seed=s)["y"] for s in (3, 3, 4))
    assert torch.rand(1) == expected
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


DISTRIBUTIONS = {
    "beta": lambda r: dist.Beta(r.exp(), 2.0),
    "binomial": lambda r: dist.Binomial(10, logits=r),
    "categorical": lambda r: dist.Categorical(logits=torch.stack([r, 0 * r, 1 + 0 * r], -1)),
    "gamma": lambda r: dist.Gamma(r.exp(), 2.0),
    "mixture": lambda r: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(torch.stack([r, 2 + r], -1), 1.0)
    ),
    "negative binomial": lambda r: dist.NegativeBinomial(5.0, logits=r - 1),
    "student": lambda r: dist.StudentT(8.0, r, 1.0),
    "zero inflated": lambda r: dist.ZeroInflatedPoisson(r.exp(), gate=torch.tensor(0.3)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_kind_of_observation_is_drawn_from_its_distribution(name):
    """r is all but known to be 0.4: 2,000 draws of 5 rows have its moments within 5 standard errors."""

    def model(n, y=None):
        r = pyro.sample("r", dist.Normal(0.4, 1e-9))
        with pyro.plate("rows", n):
            pyro.sample("y", DISTRIBUTIONS[name](r.expand(n)), obs=y)

    likely = DISTRIBUTIONS[name](torch.tensor(0.4, dtype=torch.float64))
    posterior = fit(model, 5, likely.sample((5,)), method="laplace")
    y = posterior.predict(draws=2000)["y"].double().reshape(-1)
    reference = likely.sample((200_000,)).double()
    error = reference.std().item() / math.sqrt(len(y))
    assert abs(y.mean().item() - reference.mean().item()) < 5 * 1.1 * error
    assert y.std().item() == pytest.approx(reference.std().item(), rel=0.1)


@pytest.mark.filterwarnings("ignore:NUTS has not mixed")
def test_a_model_that_no_batch_can_run_is_run_draw_by_draw():
    def branches(y=None):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m if float(m.detach()) > 0 else m - 100, 1.0), obs=y)

    posterior = fit(branches, y=torch.tensor(3.0), method=NUTS(draws=50, warmup=40, chains=1))
    m, y = posterior.draws(50)["m"], posterior.predict(draws=50)["y"]
    assert ((y < -50) == (m <= 0)).all()


@pytest.mark.filterwarnings("ignore:NUTS has not mixed")
def test_a_sampler_that_kept_fewer_draws_uses_them_several_times():
    posterior = fit(counts, torch.tensor([3.0, 5.0, 4.0]), method=NUTS(draws=20, warmup=40, chains=1), seed=1)
    assert posterior.predict(draws=50)["y"].shape == (50, 3)
    repeated = posterior.approximation.repeated_draws(50, 0)["rate"]
    assert torch.equal(repeated[:10], repeated[20:30])
    assert torch.equal(repeated[:20].sort().values, posterior.draws()["rate"].sort().values)


def mixture(x):
    means = pyro.sample("means", dist.Normal(torch.tensor([-5.0, 5.0]), 0.5).to_event(1))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(means[k], 0.5), obs=x)


def test_discrete_latents_that_were_summed_out_are_drawn_anew():
    posterior = fit(mixture, torch.tensor([-5.0, 5.0, 5.5]), method="laplace")
    x = posterior.predict(draws=2000)["x"]
    assert abs((x > 0).double().mean().item() - 0.7) < 5 * math.sqrt(0.21 / 6000)  # false alarm 6e-7


class Labelled(Approximation):
    """A posterior that knows the means, and of each row which component it is from."""

    mean = sd = quantile = density = None

    def __init__(self, labels):
        self.labels = labels
        self.latents = dict.fromkeys(["means", "k"])

    def draws(self, n, seed):
        return {"means": torch.tensor([-5.0, 5.0]).expand(n, 2), "k": self.labels.expand(n, -1)}


def test_labels_of_the_rows_are_kept_at_the_data_of_the_fit_and_drawn_anew_at_new_data():
    x = torch.tensor([-5.0, 5.0, 5.5])
    posterior = fit(mixture, x, method="laplace")
    posterior.approximation = Labelled(torch.tensor([0, 1, 0]))
    assert torch.equal(posterior.predict(draws=50)["x"] > 0, torch.tensor([False, True, False]).expand(50, 3))
    again = posterior.predict(x, draws=2000)["x"]
    assert abs((again > 0).double().mean().item() - 0.7) < 5 * math.sqrt(0.21 / 6000)
    assert posterior.predict(torch.zeros(7), draws=20)["x"].shape == (20, 7)


def test_labels_of_groups_are_kept_at_new_rows():
    def model(group, y=None):
        with pyro.plate("groups", 2):
            k = pyro.sample("k", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Normal(0.0, 0.1))
        with pyro.plate("rows", len(group)):
            pyro.sample("y", dist.Normal(m + 10 * k[group], 1.0), obs=y)

    posterior = fit(model, torch.tensor([0, 1]), torch.tensor([0.0, 10.0]), method="laplace")
    approximation = Labelled(torch.tensor([0.0, 1.0]))
    approximation.draws = lambda n, seed: {"m": torch.zeros(n), "k": torch.tensor([0.0, 1.0]).expand(n, 2)}
    posterior.approximation = approximation
    y = posterior.predict(torch.tensor([1, 0, 1]), draws=100)["y"]
    assert torch.equal(y > 5, torch.tensor([True, False, True]).expand(100, 3))


def test_deterministic_sites_come_with_the_predictions():
    def model(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        line = pyro.deterministic("line", slope * x)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(line, 1.0), obs=y)

    posterior = fit(model, torch.ones(3), torch.ones(3), method="laplace")
    drawn = posterior.predict(torch.tensor([2.0, 4.0]), draws=30)
    assert torch.allclose(drawn["line"][:, 1], 2 * drawn["line"][:, 0])


# What cannot be predicted


def test_a_latent_of_the_old_groups_does_not_fit_new_ones():
    posterior = fit(groups, torch.tensor([0, 1, 2, 1]), torch.zeros(4), torch.ones(4), method="laplace")
    assert posterior.predict(torch.tensor([2, 2, 1, 0, 1]), torch.ones(5), draws=10)["y"].shape == (10, 5)
    with pytest.raises(ValueError, match=r"Latent site 'a' has shape \(3,\) in this posterior, but \(4,\)"):
        posterior.predict(torch.tensor([0, 3]), torch.zeros(2))


def test_sites_that_the_fit_did_not_have_are_named():
    def model(x, y=None):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        if len(x) > 2:
            m = m + pyro.sample("late", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m * x, 1.0).to_event(1), obs=y)

    posterior = fit(model, torch.ones(2), torch.ones(2), method="laplace")
    with pytest.raises(ValueError, match="Site 'late' is not in this posterior"):
        posterior.predict(torch.ones(3))


def test_covariates_that_do_not_fit_and_sizes_taken_from_observations_are_explained(exact):
    with pytest.raises(ValueError, match=r"Latent site 'w' has shape \(2,\) in this posterior, but \(3,\)"):
        exact.predict(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"cannot run forwards on these data \(X \(3,\)\).*w \(2,\)"):
        exact.predict(np.ones(3))
    posterior = fit(counts, torch.tensor([3.0, 5.0]), method="laplace")
    with pytest.raises(ValueError, match=r"take sizes from covariates: len\(X\), not len\(y\)"):
        posterior.predict(None)
    with pytest.raises(TypeError, match="missing a required argument"):
        exact.predict(y=None)
    with pytest.raises(ValueError, match="draws must be positive"):
        exact.predict(draws=0)


def test_rows_drawn_at_random_are_refused():
    def model(y, size):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=size) as rows:
            pyro.sample("y", dist.Normal(m, 1.0), obs=y[rows])

    posterior = fit(model, torch.ones(4), 4, method="laplace")
    with pytest.raises(ValueError, match="plate 'rows' draws 2 of 4 rows at random"):
        posterior.predict(torch.ones(4), 2)
