"""The posterior answers the same questions for every method."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_models import logistic
from scipy import stats

from probdl.inference import NUTS, fit


def shapes(y):
    m = pyro.sample("m", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    share = pyro.sample("share", dist.Dirichlet(torch.tensor([5.0, 5.0, 5.0])))
    pyro.sample("y", dist.Normal(m.sum() + share[0], s).expand([len(y)]).to_event(1), obs=y)


@pytest.fixture(scope="module")
def laplace():
    return fit(shapes, torch.randn(15, generator=torch.Generator().manual_seed(0)), method="laplace")


@pytest.fixture(scope="module")
def nuts():
    y = torch.randn(15, generator=torch.Generator().manual_seed(0))
    return fit(shapes, y, method=NUTS(draws=300, warmup=150, chains=2))


def test_summary_has_a_row_for_each_entry(laplace, nuts):
    rows = ["m[0,0]", "m[0,1]", "m[1,0]", "m[1,1]", "s", "share[0]", "share[1]", "share[2]"]
    assert list(laplace.summary().index) == rows
    assert list(laplace.summary(0.5).columns) == ["mean", "sd", "25%", "50%", "75%"]
    assert list(nuts.summary().columns) == ["mean", "sd", "5%", "50%", "95%", "rhat", "ess"]
    assert isinstance(nuts.summary(), pd.DataFrame)


def test_moments_and_quantiles_are_those_of_the_draws(laplace, nuts):
    for posterior in (laplace, nuts):
        draws = posterior.draws()
        for name in posterior.names:
            assert draws[name].shape[1:] == posterior.mean(name).shape == posterior.sd(name).shape
            assert torch.allclose(draws[name].mean(0), posterior.mean(name), atol=0.08)
            assert torch.allclose(draws[name].std(0), posterior.sd(name), rtol=0.1)
            assert torch.allclose(draws[name].quantile(0.9, 0), posterior.quantile(name, 0.9), atol=0.12)
    assert torch.allclose(laplace.draws()["share"].sum(1), torch.ones(4000, dtype=torch.float64))


def test_covariances_stack_the_sites_in_the_order_given(laplace):
    assert laplace.cov("m").shape == (4, 4)
    assert laplace.cov("s", "m").shape == (5, 5)
    assert torch.allclose(laplace.cov("m").diagonal().sqrt(), laplace.sd("m").reshape(-1))


def test_log_prob_is_a_density(laplace):
    """E_q[1/q·target] = 1 where the target is a density: here q against a log-normal for s, by importance sampling."""
    posterior = fit(lambda y: _scale_only(y), torch.tensor([0.3, 1.0, -1.0]), method="laplace")
    draws = posterior.draws(20_000)
    log_q = posterior.log_prob(draws)
    log_p = torch.as_tensor(stats.lognorm(0.3).logpdf(draws["s"]))
    weights = (log_p - log_q).exp()
    assert abs(weights.mean().item() - 1) < 4 * weights.std().item() / 20_000**0.5


def _scale_only(y):
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    pyro.sample("y", dist.Normal(0.0, s).expand([len(y)]).to_event(1), obs=y)


def test_draws_are_deterministic_and_do_not_touch_the_global_seed(laplace):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again = laplace.draws(5, seed=3), laplace.draws(5, seed=3)
    assert torch.equal(first["m"], again["m"])
    assert torch.rand(1) == expected
    assert not torch.equal(first["m"], laplace.draws(5, seed=4)["m"])


def test_plots_show_a_density_for_each_entry(laplace, nuts):
    import matplotlib.pyplot as plt

    for posterior in (laplace, nuts):
        posterior.plot(names=["s", "m"])
        assert len(plt.gcf().axes) >= 5
        plt.close("all")
        _, ax = plt.subplots()
        posterior.plot(names=["s"], ax=ax)
        x, y = ax.lines[0].get_data()
        assert abs(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) - 1) < 0.05
        plt.close("all")


def test_wrong_questions_get_clear_answers(laplace, nuts):
    with pytest.raises(ValueError, match="no latent site 'q'; the sites are m, s, share"):
        laplace.mean("q")
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        laplace.summary(90)
    with pytest.raises(ValueError, match="q must be between 0 and 1"):
        laplace.quantile("s", 1.0)
    with pytest.raises(ValueError, match="n must be positive"):
        laplace.draws(0)
    with pytest.raises(ValueError, match="at most the 600 draws"):
        nuts.draws(601)
    with pytest.raises(ValueError, match="known by its draws"):
        nuts.log_prob(nuts.draws(1))
    with pytest.raises(ValueError, match="share are missing"):
        laplace.log_prob({"m": torch.zeros(2, 2), "s": torch.ones(())})


def test_repr_names_method_state_and_evidence():
    posterior = fit(logistic, torch.eye(3), torch.tensor([1, 0, 1]))
    assert repr(posterior).startswith("Posterior of b, w by expectation propagation (converged")
    assert "log evidence" in repr(posterior)
