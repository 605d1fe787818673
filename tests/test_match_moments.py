"""Moment matching: the identity of exponential families, the minimum of KL(p‖q), and members that come back."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributions as td
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from probdl import ConvergenceError, Draws, LogDensity
from probdl.natural import FAMILIES, family_named, match_moments


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


SPREAD = torch.tensor([[2.0, 0.6, 0.1], [0.6, 1.0, -0.3], [0.1, -0.3, 0.5]], dtype=torch.float64)
MEMBERS = {
    "Normal": td.Normal(t(1.5)[0], t(0.7)[0]),
    "MultivariateNormal": td.MultivariateNormal(t(1.0, -2.0, 0.5), SPREAD),
    "LogNormal": td.LogNormal(t(0.3)[0], t(0.6)[0]),
    "Gamma": td.Gamma(t(2.5)[0], t(4.0)[0]),
    "InverseGamma": td.InverseGamma(t(6.0)[0], t(3.0)[0]),
    "Exponential": td.Exponential(t(3.0)[0]),
    "Beta": td.Beta(t(2.0)[0], t(5.0)[0]),
    "Dirichlet": td.Dirichlet(t(2.0, 1.5, 4.0)),
    "Bernoulli": td.Bernoulli(t(0.3)[0]),
    "Categorical": td.Categorical(t(0.2, 0.5, 0.3)),
    "Poisson": td.Poisson(t(3.5)[0]),
    "Geometric": td.Geometric(t(0.4)[0]),
    "Wishart": td.Wishart(t(6.0)[0], SPREAD),
    "VonMises": td.VonMises(t(0.8)[0], t(2.5)[0]),
}
EVERY = pytest.mark.parametrize("name", list(MEMBERS))
CONTINUOUS = ("Normal", "LogNormal", "Gamma", "InverseGamma", "Exponential", "Beta", "VonMises")  # on the line


def sample(q, n, seed=0):
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Singular sample")  # torch's Wishart draws those again
        torch.manual_seed(seed)
        return q.sample((n,)).double()


def test_every_family_is_tested():
    assert set(MEMBERS) == set(FAMILIES)


@EVERY
def test_the_density_is_that_of_torch(name):
    family, q = FAMILIES[name], MEMBERS[name]
    z = sample(q, 50)
    torch.testing.assert_close(family.log_density(family.natural(q), z), q.log_prob(z), rtol=1e-7, atol=1e-7)


@EVERY
def test_the_gradient_of_minus_log_g_is_the_mean_of_the_statistics(name):
    """Over 200 000 draws; 5.5 standard errors of at most 9 statistics: a false alarm in 10⁶ runs."""
    family, q = FAMILIES[name], MEMBERS[name]
    u = family.statistics(sample(q, 200_000))
    error = (u.mean(0) - family.mean_statistics(family.natural(q))) / (u.std(0) / len(u) ** 0.5)
    assert error.abs().max() < 5.5


@EVERY
def test_a_member_comes_back_from_its_moments(name):
    family, q = FAMILIES[name], MEMBERS[name]
    match = match_moments(type(q), q)
    torch.testing.assert_close(match.natural, family.natural(q), rtol=1e-6, atol=1e-8)
    assert match.method == "closed form"
    assert not match.stderr.any()


@EVERY
def test_a_member_comes_back_from_its_draws_with_the_error_of_the_moments(name):
    """5.5 standard errors, as above; and the moments of the match are those of the draws."""
    family, q = FAMILIES[name], MEMBERS[name]
    match = match_moments(name, sample(q, 20_000, seed=1))
    truth = family.mean_statistics(family.natural(q))
    assert ((match.moments - truth) / match.stderr).abs().max() < 5.5
    torch.testing.assert_close(family.mean_statistics(match.natural), match.moments, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_member_comes_back_from_an_unnormalised_log_density(name):
    q = MEMBERS[name]
    match = match_moments(name, LogDensity(lambda z: q.log_prob(z[:, 0]) + 700.0, dim=1))
    torch.testing.assert_close(match.natural, FAMILIES[name].natural(q), rtol=1e-6, atol=1e-8)
    assert match.method == "quadrature"
    assert match.stderr.max() < 1e-7


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(MEMBERS)), st.integers(0, 2**31), st.floats(0.001, 0.05))
def test_any_other_natural_parameters_raise_the_divergence(name, seed, size):
    """KL(p‖q) is −E log q up to the entropy of p; p is a sample, so that it is exact."""
    family, generator = FAMILIES[name], torch.Generator().manual_seed(seed)
    z = sample(MEMBERS[name], 400, seed % 100)
    eta = match_moments(name, z).natural
    moved = eta + size * (0.1 + eta.abs()) * torch.randn(len(eta), generator=generator, dtype=torch.float64)
    best, other = (-family.log_density(e, z).mean() for e in (eta, moved))
    assert not other < best + 1e-12  # NaN where they leave the family


@pytest.mark.parametrize(
    ("name", "p", "fit"),
    [
        ("Gamma", stats.lognorm(0.5), lambda q: (q.concentration, 1 / q.rate)),
        ("Beta", stats.uniform(0.1, 0.5), lambda q: (q.concentration1, q.concentration0)),
    ],
)
def test_the_match_is_scipys_minimum_of_the_divergence(name, p, fit):
    torchs = {"Gamma": td.LogNormal(t(0.0)[0], t(0.5)[0]), "Beta": td.Uniform(t(0.1)[0], t(0.6)[0])}[name]
    law = {"Gamma": lambda a, b: stats.gamma(a, scale=b), "Beta": stats.beta}[name]
    x = p.ppf(np.linspace(0, 1, 20_001)[:-1] + 0.5 / 20_000)
    found = optimize.minimize(lambda v: -law(*np.exp(v)).logpdf(x).mean(), [1.0, 0.0], tol=1e-12)
    ours = [float(v) for v in fit(match_moments(name, torchs).distribution)]
    np.testing.assert_allclose(ours, np.exp(found.x), rtol=1e-3)


def test_gamma_of_draws_is_scipys_maximum_of_the_likelihood():
    z = sample(MEMBERS["Gamma"], 500)
    a, _, scale = stats.gamma.fit(z.numpy(), floc=0)
    q = match_moments("gamma", z).distribution
    assert (float(q.concentration), float(1 / q.rate)) == pytest.approx((a, scale), rel=1e-4)


def test_normal_on_a_mixture_and_on_a_grid_of_two_modes():
    mixture = td.MixtureSameFamily(td.Categorical(t(0.3, 0.7)), td.Normal(t(-2.0, 3.0), t(0.5, 1.0)))
    exact = match_moments("normal", mixture)
    by_density = match_moments("normal", LogDensity(lambda z: mixture.log_prob(z[:, 0]), dim=1))
    mean, variance = 0.3 * -2 + 0.7 * 3, 0.3 * (0.25 + 4) + 0.7 * (1 + 9) - 1.5**2
    for match in (exact, by_density):
        assert float(match.distribution.loc) == pytest.approx(mean, abs=1e-8)
        assert float(match.distribution.variance) == pytest.approx(variance, abs=1e-8)


@pytest.mark.parametrize(("loc", "scale"), [(1000.0, 0.01), (-3e6, 2e3), (0.0, 1e-8), (5.0, 1e9)])
def test_the_mass_of_a_log_density_is_found_far_away_narrow_or_wide(loc, scale):
    q = match_moments("normal", LogDensity(lambda z: -0.5 * ((z[:, 0] - loc) / scale) ** 2, dim=1)).distribution
    assert float(q.loc) == pytest.approx(loc, abs=1e-6 * scale)
    assert float(q.scale) == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize(
    "q",
    [
        td.Beta(t(0.05)[0], t(0.08)[0]),
        td.Gamma(t(0.1)[0], t(2.0)[0]),
        td.Gamma(t(1e5)[0], t(1e-3)[0]),
        td.InverseGamma(t(0.2)[0], t(1e3)[0]),
        td.Dirichlet(t(0.02, 30.0, 0.5, 0.1)),
        td.Wishart(t(2.1)[0], SPREAD[:2, :2]),
    ],
    ids=repr,
)
def test_members_near_the_border_come_back(q):
    """Newton's method must not leave the parameters of the family, where log |Γ| is finite too."""
    family = family_named(type(q))
    torch.testing.assert_close(match_moments(family, q).natural, family.natural(q), rtol=1e-5, atol=1e-6)


def test_a_log_density_that_decays_slowly_in_log_z_has_moments():
    q = td.Gamma(t(0.1)[0], t(2.0)[0])
    match = match_moments("gamma", LogDensity(lambda z: q.log_prob(z[:, 0]), dim=1))
    torch.testing.assert_close(match.natural, t(-0.9, -2.0), rtol=1e-6, atol=0.0)


def test_both_of_two_narrow_modes_far_apart_are_found():
    apart = td.MixtureSameFamily(td.Categorical(t(0.25, 0.75)), td.Normal(t(-1000.0, 3000.0), t(0.1, 0.02)))
    q = match_moments("normal", LogDensity(lambda z: apart.log_prob(z[:, 0]), dim=1)).distribution
    assert (float(q.loc), float(q.variance)) == pytest.approx((2000.0, 0.1875 * 4000**2), rel=1e-6)


def test_von_mises_of_a_wrapped_normal_has_its_mean_resultant():
    q = match_moments(td.VonMises, td.Normal(t(0.4)[0], t(0.8)[0])).distribution
    k = float(q.concentration)
    assert special.ive(1, k) / special.ive(0, k) == pytest.approx(math.exp(-0.32))
    assert float(q.loc) == pytest.approx(0.4)


def test_weighted_draws_count_as_often_as_they_weigh():
    z = sample(MEMBERS["Gamma"], 300)
    often = torch.arange(300) % 4
    weighted = match_moments("gamma", Draws(z, weights=often.double()))
    torch.testing.assert_close(weighted.natural, match_moments("gamma", z.repeat_interleave(often)).natural)


def test_frames_and_independent_distributions_become_gaussians():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)) @ [[1.0, 0.5], [0.0, 2.0]], columns=["a", "b"])
    q = match_moments("multivariate_normal", frame).distribution
    np.testing.assert_allclose(q.covariance_matrix, np.cov(frame.T, bias=True), rtol=1e-9)
    apart = td.Independent(td.Gamma(t(2.0, 3.0), t(1.0, 2.0)), 1)
    match = match_moments("MultivariateNormal", apart)
    torch.testing.assert_close(match.distribution.covariance_matrix, torch.diag(t(2.0, 0.75)))
    assert match.method == "closed form"


def test_distributions_without_formulas_are_drawn_from_with_their_error():
    """torch has no covariance of a mixture; 5.5 standard errors."""
    locs, scales = t(0.0, 2.0)[:, None].expand(2, 2), torch.ones(2, 2).double()
    p = td.MixtureSameFamily(td.Categorical(t(0.5, 0.5)), td.Independent(td.Normal(locs, scales), 1))
    match = match_moments("MultivariateNormal", p, draws=20_000, seed=3)
    assert match.method == "monte carlo"
    truth = t(1.0, 1.0, 3.0, 2.0, 3.0)  # of z and of the lower triangle of z zᵀ
    assert ((match.moments - truth) / match.stderr).abs().max() < 5.5


def test_a_discrete_distribution_with_few_values_is_summed():
    q = match_moments("categorical", td.Binomial(3, t(0.4)[0])).distribution
    np.testing.assert_allclose(q.probs, stats.binom(3, 0.4).pmf(range(4)), rtol=1e-9)


@pytest.mark.parametrize(
    ("family", "p", "message"),
    [
        ("cauchy", [1.0, 2.0], "family must be one of Normal"),
        (3, [1.0, 2.0], "family must be one of Normal"),
        ("normal", [], "p is empty"),
        ("normal", [1.0, float("nan")], "p must be finite; got 1 NaN"),
        ("normal", [1.0], "at least two draws"),
        ("normal", [2.0, 2.0, 2.0], "p must vary"),
        ("normal", [1e9, 1e9 + 1.0], "centre them first"),
        ("gamma", [0.3, 0.3, 0.3], "p must vary"),
        ("bernoulli", [1, 1, 1], "p must vary"),
        ("categorical", [0, 2, 2], "never take one of the values"),
        ("multivariate_normal", [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], "follow from one another"),
        ("gamma", [1.0, 2.0, -0.5], r"1 of 3 draws do not, the first is p\[2\] = -0.5"),
        ("gamma", [1.0, 0.0], "inside the support of Gamma"),
        ("beta", [0.5, 1.0], "inside the support of Beta"),
        ("poisson", [1.0, 2.5], "inside the support of Poisson"),
        ("dirichlet", [[0.5, 0.6], [0.1, 0.9]], "inside the support of Dirichlet"),
        ("normal", [[1.0, 2.0], [3.0, 4.0]], "p has 2 columns"),
        ("wishart", [[1.0, 2.0], [3.0, 4.0]], "square matrices"),
        ("gamma", td.Normal(5.0, 1.0), "reaches beyond the support of Gamma"),
        ("poisson", td.Gamma(2.0, 1.0), "inside the support of Poisson"),
        ("normal", td.Cauchy(0.0, 1.0), "no finite moments"),
        ("normal", td.StudentT(1.5), "no finite moments"),
        ("normal", td.Normal(torch.zeros(3), 1.0), "one distribution"),
        ("normal", td.Normal(torch.zeros(1), 1.0), "one distribution"),
        ("normal", LogDensity(lambda z: -torch.log1p(z[:, 0] ** 2), dim=1), "diverge"),
        ("normal", LogDensity(lambda z: z[:, 0] * 0, dim=1), "diverge"),
        ("normal", LogDensity(lambda z: z[:, 0] * float("nan"), dim=1), "must be finite or minus infinity"),
        ("gamma", LogDensity(lambda z: z[:, 0] - torch.inf, dim=1), "no mass"),
        ("poisson", LogDensity(lambda z: -z[:, 0], dim=1), "continuous family"),
        ("multivariate_normal", LogDensity(lambda z: -(z**2).sum(1), dim=2), "one dimension"),
    ],
)
def test_what_cannot_be_matched_says_why(family, p, message):
    with pytest.raises((ValueError, ConvergenceError), match=message):
        match_moments(family, p)


def test_text_and_functions_are_no_draws():
    with pytest.raises(TypeError, match="numbers"):
        match_moments("normal", ["a", "b"])
    with pytest.raises(TypeError, match="LogDensity"):
        match_moments("normal", lambda z: z)
    with pytest.raises(ValueError, match="draws must be an integer"):
        match_moments("normal", [1.0, 2.0], draws=1)


def test_families_are_found_by_class_name_and_object():
    assert {family_named(f).name for f in (td.Gamma, "gamma", "GAMMA", FAMILIES["Gamma"])} == {"Gamma"}
