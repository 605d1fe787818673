"""Input that a divergence cannot use: the error names the argument, what was expected and what came."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Bernoulli, Cauchy, Independent, Laplace, Normal, Pareto, Poisson, StudentT

import probdl
from probdl.divergences import RBF, energy, hellinger2, js, kl, mmd2, tv, wasserstein

P = Normal(0.0, 1.0)
X = np.arange(20.0).reshape(10, 2)
DENSITIES = [kl, js, tv, hellinger2]
METRICS = [wasserstein, mmd2, energy]
ids = {"ids": lambda f: f.__name__}


@pytest.mark.parametrize("divergence", METRICS, **ids)
def test_bad_draws_are_refused_on_either_side(divergence):
    for bad, error, message in [
        ([[math.nan, 1.0]], ValueError, "must be finite"),
        ([[math.inf, 1.0]], ValueError, "must be finite"),
        (np.zeros((0, 2)), ValueError, "is empty"),
        (np.array([["a", "b"]]), TypeError, "must hold numbers"),
        (np.array([[1, None]], dtype=object), TypeError, "must hold numbers"),
    ]:
        with pytest.raises(error, match=f"p {message}"):
            divergence(bad, X)
        with pytest.raises(error, match=f"q {message}"):
            divergence(X, bad)


@pytest.mark.parametrize("divergence", METRICS, **ids)
def test_columns_must_match(divergence):
    with pytest.raises(ValueError, match=r"same number of columns; got p: \(10, 2\) and q: \(4, 3\)"):
        divergence(X, np.zeros((4, 3)))
    a, b = pd.DataFrame(X, columns=["u", "v"]), pd.DataFrame(X, columns=["v", "u"])
    with pytest.raises(ValueError, match="same columns in the same order"):
        divergence(a, b)
    with pytest.raises(ValueError, match="same number of coordinates; got 2 for p and 1 for q"):
        divergence(X, P)


def test_dimensions_of_distributions_must_match():
    plane = Independent(Normal(torch.zeros(2), 1.0), 1)
    for divergence in DENSITIES + METRICS:
        with pytest.raises(ValueError, match="same number of coordinates; got 1 for p and 2 for q"):
            divergence(P, plane)


@pytest.mark.parametrize("divergence", [mmd2, energy], **ids)
def test_one_draw_is_too_few_for_an_unbiased_estimate(divergence):
    kernel = (RBF(1.0),) if divergence is mmd2 else ()
    with pytest.raises(ValueError, match="p must hold at least 2 draws of positive weight; got 1"):
        divergence(X[:1], X, *kernel)
    with pytest.raises(ValueError, match="q must hold at least 2 draws of positive weight"):
        divergence(X, probdl.Draws(X[:2], weights=[1.0, 0.0]), *kernel)


@pytest.mark.parametrize("divergence", DENSITIES, **ids)
def test_discrete_against_continuous_is_sent_to_wasserstein_or_mmd(divergence):
    with pytest.raises(ValueError, match="p is discrete and q is continuous.*Use wasserstein, mmd2"):
        divergence(Poisson(3.0), P)
    with pytest.raises(ValueError, match="p is continuous and q is discrete"):
        divergence(P, Bernoulli(0.5))


@pytest.mark.parametrize("divergence", DENSITIES + METRICS, **ids)
def test_an_unknown_method_lists_the_known_ones(divergence):
    with pytest.raises(ValueError, match="must be one of 'auto', 'closed form', .*'monte carlo'.*; got 'magic'"):
        divergence(P, P, method="magic")


def test_a_method_that_does_not_apply_says_why():
    with pytest.raises(ValueError, match="no closed form of KL is known for Normal and StudentT"):
        kl(P, StudentT(3.0), method="closed form")
    with pytest.raises(ValueError, match="needs two discrete distributions"):
        tv(P, P, method="exact sum")
    space = Independent(Laplace(torch.zeros(3), 1.0), 1)
    with pytest.raises(ValueError, match="on the line or in the plane; these have 3 coordinates"):
        hellinger2(space, space, method="quadrature")
    with pytest.raises(ValueError, match="method of wasserstein must be one of 'auto', 'sorting'"):
        wasserstein(X[:, 0], X[:, 1], method="exact transport")


@pytest.mark.parametrize("divergence", [js, tv, hellinger2, *METRICS], **ids)
def test_a_batch_is_not_one_distribution(divergence):
    with pytest.raises(
        ValueError, match=r"p must be one distribution; got a batch of shape \(3,\).*Independent\(p, 1\)"
    ):
        divergence(Normal(torch.zeros(3), 1.0), P)


def test_a_batch_without_a_closed_form_of_kl_says_what_to_do():
    with pytest.raises(ValueError, match="Pass one distribution at a time"):
        kl(StudentT(3 * torch.ones(3)), P)


@pytest.mark.parametrize("order", [0.5, 0, -1, math.inf, math.nan, "2", None, True])
def test_an_order_below_one_is_refused(order):
    with pytest.raises(ValueError, match="order must be a number of at least 1"):
        wasserstein(P, P, order=order)


@pytest.mark.parametrize(
    ("law", "order"), [(Cauchy(0.0, 1.0), 1), (StudentT(2.0), 2), (StudentT(2.5), 2.5), (Pareto(1.0, 1.0), 1)]
)
def test_a_law_without_the_moment_is_refused(law, order):
    for q in (P, X[:, 0]):
        with pytest.raises(ValueError, match=f"finite moment of order {order}, which p"):
            wasserstein(law, q, order=order)
    if order == 1:
        with pytest.raises(ValueError, match="energy needs a finite moment of order 1, which q"):
            energy(P, law)
    assert mmd2(law, Normal(3.0, 1.0), RBF(1.0), draws=200).value > 0, "a bounded kernel needs no moment"


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf, (), (1.0, -1.0)])
def test_a_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be positive and finite; got"):
        RBF(bandwidth)


def test_a_kernel_must_give_a_gram_matrix():
    with pytest.raises(TypeError, match="kernel must be a function"):
        mmd2(X, X, 1.0)
    with pytest.raises(ValueError, match=r"kernel must give the Gram matrix \(n, m\), here \(3, 2\); got \(3,\)"):
        mmd2(X, X, lambda a, b: a.sum(1))


def test_equal_draws_have_no_median_bandwidth():
    with pytest.raises(ValueError, match="all draws are equal.*pass kernel=RBF"):
        mmd2(np.ones((5, 2)), np.ones((4, 2)))
    estimate = mmd2(np.ones((5, 2)), np.ones((4, 2)), RBF(1.0))
    assert (estimate.value, estimate.stderr) == (0.0, None)


@pytest.mark.parametrize("draws", [0, 99, -5, 1e5, True])
def test_too_few_draws_for_monte_carlo(draws):
    for divergence in (kl, mmd2):
        with pytest.raises(ValueError, match="draws must be an integer of at least 100; got"):
            divergence(P, P, draws=draws)


def test_a_log_density_gives_no_draws():
    f = probdl.LogDensity(lambda x: -(x**2).sum(1), dim=2)
    with pytest.raises(ValueError, match="p is a LogDensity, which gives no draws"):
        energy(f, X)
    with pytest.raises(ValueError, match="q is a LogDensity, which gives no draws"):
        js(Independent(Normal(torch.zeros(2), 1.0), 1), f)
