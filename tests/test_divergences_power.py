"""χ² and Rényi against values on paper, by every method, and infinite where they are."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Exponential,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    Uniform,
)

from probdl.divergences import chi2, hellinger2, kl, renyi


def t(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def normal(mean, sd):
    return Normal(t(mean), t(sd))


def uniform(low, high):
    return Uniform(t(low), t(high))


METHODS = ["closed form", "quadrature"]
STANDARD = normal(0.0, 1.0)


def chi2_of_scale(s):
    return 1 / (s * math.sqrt(2 - s**2)) - 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("m", [0.0, 0.01, 1.0, -2.0])
def test_chi2_of_a_shifted_normal(method, m):
    assert chi2(normal(m, 1.0), STANDARD, method=method).value == pytest.approx(math.expm1(m**2), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("s", [0.3, 0.9, 1.2, 1.4])
def test_chi2_of_a_scaled_normal(method, s):
    assert chi2(normal(0.0, s), STANDARD, method=method).value == pytest.approx(chi2_of_scale(s), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("s", [1.4143, 1.5, 3.0])
def test_chi2_is_infinite_from_twice_the_variance_on(method, s):
    estimate = chi2(normal(0.0, s), STANDARD, method=method)
    assert (estimate.value, estimate.stderr) == (math.inf, 0.0)
    assert len(estimate.notes) == 1


@pytest.mark.parametrize("method", METHODS)
def test_renyi_of_the_notes(method):
    assert renyi(STANDARD, normal(1.0, 2.0), 0.7, method=method).value == pytest.approx(0.381230, abs=5e-7)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.999, 1.001, 1.3, 2])
def test_renyi_by_quadrature_is_the_closed_form(alpha):
    p, q = normal(0.3, 1.0), normal(0.0, 1.3)
    closed = renyi(p, q, alpha, method="closed form").value
    assert renyi(p, q, alpha, method="quadrature").value == pytest.approx(closed, abs=1e-9)


def test_renyi_of_gaussian_vectors_adds_up_over_independent_coordinates():
    p, q = Independent(Normal(t(0.0, 1.0), t(1.0, 0.5)), 1), Independent(Normal(t(1.0, 0.0), t(1.5, 1.0)), 1)
    for alpha in (0.5, 2):
        parts = [renyi(normal(*a), normal(*b), alpha).value for a, b in (((0, 1), (1, 1.5)), ((1, 0.5), (0, 1)))]
        assert renyi(p, q, alpha).value == pytest.approx(sum(parts), abs=1e-12)


def test_orders_that_have_another_name():
    p, q = Laplace(t(0.0), t(1.0)), normal(0.5, 1.0)
    half, whole, two = (renyi(p, q, alpha).value for alpha in (0.5, 1, 2))
    assert half == pytest.approx(-2 * math.log1p(-hellinger2(p, q).value), abs=1e-9)
    assert whole == kl(p, q).value
    assert two == math.inf
    assert renyi(q, p, 2).value == pytest.approx(math.log1p(chi2(q, p).value), abs=1e-9)
    assert "at alpha = 1 the Rényi divergence is the Kullback-Leibler" in renyi(p, q, 1).notes[0]


def test_renyi_increases_with_its_order_through_kullback_leibler():
    p, q = StudentT(t(5.0)), Laplace(t(0.5), t(1.5))
    with torch.no_grad():
        values = [renyi(p, q, a, method="monte carlo" if a == 3 else "auto").value for a in (0.1, 0.5, 0.99)]
    assert values == sorted(values)
    q = StudentT(t(3.0), t(0.5))
    values = [renyi(p, q, a).value for a in (0.3, 0.9, 1, 1.1, 2, 4)]
    assert values == sorted(values)
    assert values[2] == pytest.approx((values[1] + values[3]) / 2, abs=1e-3)


def test_discrete_laws_are_summed():
    assert chi2(Poisson(t(3.0)), Poisson(t(2.0))).value == pytest.approx(math.expm1(0.5), abs=1e-12)
    p, q = t(0.3), t(0.6)
    truth = math.log(0.3**2 / 0.6 + 0.7**2 / 0.4)
    estimate = renyi(Bernoulli(p), Bernoulli(q), 2)
    assert estimate.value == pytest.approx(truth, abs=1e-12)
    assert (estimate.method, estimate.stderr) == ("exact sum", 0.0)
    assert chi2(Poisson(t(1.0)), Bernoulli(p)).value == math.inf


def test_uniform_laws():
    assert chi2(uniform(0.0, 1.0), uniform(0.0, 2.0)).value == pytest.approx(1.0, abs=1e-12)
    assert renyi(uniform(0.0, 1.0), uniform(0.0, 2.0), 3).value == pytest.approx(math.log(2), abs=1e-12)
    for alpha in (0.5, 0.9):
        p, q = uniform(0.0, 1.0), uniform(0.5, 2.0)
        exact = renyi(p, q, alpha)
        assert exact.value == pytest.approx(renyi(p, q, alpha, method="quadrature").value, abs=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 2])
def test_disjoint_supports_are_infinitely_far(alpha):
    estimate = renyi(uniform(0.0, 1.0), uniform(2.0, 3.0), alpha)
    assert (estimate.value, estimate.stderr) == (math.inf, 0.0)


def test_a_support_that_reaches_beyond_costs_infinitely_from_order_one_on():
    p, q = uniform(0.0, 2.0), uniform(0.0, 1.0)
    assert chi2(p, q).value == math.inf
    assert "q has no density where p has some" in chi2(p, q).notes[0]
    assert renyi(p, q, 0.5).value == pytest.approx(math.log(2), abs=1e-12)
    assert chi2(normal(0.0, 1.0), Exponential(t(1.0))).value == math.inf


@pytest.mark.parametrize("q", [StudentT(t(5.0)), Laplace(t(0.0), t(1.5))], ids=["student", "laplace"])
def test_monte_carlo_meets_quadrature(q):
    p = normal(0.3, 0.8)
    for divergence in (chi2, lambda a, b, **k: renyi(a, b, 0.5, **k), lambda a, b, **k: renyi(a, b, 1.5, **k)):
        exact, drawn = divergence(p, q), divergence(p, q, method="monte carlo")
        assert exact.method == "quadrature"
        assert abs(exact.value - drawn.value) < 4 * drawn.stderr  # false alarms: 1 in 15,000


@pytest.mark.parametrize(
    ("divergence", "truth"),
    [
        (lambda s: chi2(normal(0.0, 1.1), STANDARD, method="monte carlo", seed=s, draws=20_000), chi2_of_scale(1.1)),
        (lambda s: renyi(STANDARD, normal(1.0, 2.0), 0.7, method="monte carlo", seed=s, draws=1000), 0.381230),
        (lambda s: renyi(normal(1.0, 1.0), normal(0.0, 2.0), 3, method="monte carlo", seed=s, draws=1000), None),
    ],
    ids=["chi2", "renyi .7", "renyi 3"],
)
def test_monte_carlo_intervals_cover_the_population_value(divergence, truth):
    truth = truth or renyi(normal(1.0, 1.0), normal(0.0, 2.0), 3).value
    with_error = [e for e in map(divergence, range(300)) if e.stderr is not None]
    assert len(with_error) > 150
    covered = np.mean([e.interval()[0] < truth < e.interval()[1] for e in with_error])
    assert 0.9 < covered < 0.99  # if the truth is .95: false alarms below 1 in 100


def test_heavy_ratios_lose_their_error_and_then_their_mean():
    doubtful = chi2(normal(0.0, 1.25), STANDARD, method="monte carlo")
    assert doubtful.stderr is None
    assert "Pareto k-hat" in doubtful.notes[0]
    for s in (1.4, 1.5, 2.0):
        with pytest.raises(ValueError, match="decide their mean .Pareto k-hat .* above 0.7"):
            chi2(normal(0.0, s), STANDARD, method="monte carlo")


def test_in_many_dimensions_monte_carlo_takes_over():
    p = Independent(Laplace(torch.zeros(4, dtype=torch.float64), 1.0), 1)
    q = Independent(Laplace(torch.zeros(4, dtype=torch.float64), 1.2), 1)
    one = chi2(Laplace(t(0.0), t(1.0)), Laplace(t(0.0), t(1.2))).value
    estimate = chi2(p, q)
    assert estimate.method == "monte carlo"
    assert abs(estimate.value - ((1 + one) ** 4 - 1)) < 4 * estimate.stderr


@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf, "2", True, None])
def test_an_order_must_be_positive(alpha):
    with pytest.raises(ValueError, match="alpha must be a positive number; got"):
        renyi(STANDARD, STANDARD, alpha)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="a classifier needs at least 20 draws of each side; got 5 of p"):
        chi2(np.zeros((5, 1)), STANDARD)
    with pytest.raises(ValueError, match="p is discrete and q is continuous"):
        renyi(Poisson(t(1.0)), STANDARD, 2)
    with pytest.raises(ValueError, match="draws must be an integer of at least 100; got 5"):
        chi2(STANDARD, STANDARD, draws=5)
    with pytest.raises(ValueError, match="method of renyi must be one of"):
        renyi(STANDARD, STANDARD, 2, method="sorting")
    plane = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="same number of coordinates"):
        chi2(STANDARD, plane)


def test_equal_laws_are_no_distance_apart():
    for p in (STANDARD, Laplace(t(1.0), t(2.0)), Poisson(t(4.0)), uniform(0.0, 3.0)):
        assert chi2(p, p).value == pytest.approx(0.0, abs=1e-12)
        assert renyi(p, p, 0.5).value == pytest.approx(0.0, abs=1e-12)
