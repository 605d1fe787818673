"""Quadrature in the plane against closed forms, against sums over coordinates, and against Monte Carlo."""

import math

import pytest
import torch
from torch.distributions import (
    Beta,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from probdl.divergences import chi2, hellinger2, js, kl, renyi, tv


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(mean, covariance):
    return MultivariateNormal(tensor(mean), tensor(covariance))


def product(law, *parameters):
    return Independent(law(*map(tensor, parameters)), 1)


P = gaussian([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]])
Q = gaussian([1.0, 0.0], [[1.0, -0.3], [-0.3, 3.0]])
NARROW = gaussian([0.0, 0.3], [[1.0, 0.99], [0.99, 1.0]])


CLOSED = {"kl": kl, "hellinger2": hellinger2, "renyi": lambda p, q, **options: renyi(p, q, 0.7, **options)}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize(("p", "q"), [(P, Q), (Q, P), (NARROW, P), (P, P)], ids=["pq", "qp", "narrow", "equal"])
def test_gaussians_give_the_closed_form_within_the_bound(name, p, q):
    closed, integrated = CLOSED[name](p, q), CLOSED[name](p, q, method="quadrature")
    assert abs(integrated.value - closed.value) <= integrated.stderr < 1e-8
    assert (closed.method, integrated.method) == ("closed form", "quadrature")


def test_a_rotation_changes_nothing():
    turn = tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    turned = [MultivariateNormal(turn @ g.mean, turn @ g.covariance_matrix @ turn.T) for g in (P, Q)]
    for divergence in (js, tv):
        assert divergence(*turned).value == pytest.approx(divergence(P, Q).value, abs=1e-7)
        assert divergence(P, Q).method == "quadrature"


def test_kl_and_renyi_add_up_over_independent_coordinates():
    p, q = product(StudentT, [3.0, 5.0], [0.0, 1.0]), product(StudentT, [5.0, 5.0], [0.5, 0.0], [1.0, 2.0])
    for divergence in (kl, lambda a, b: renyi(a, b, 0.5)):
        parts = [divergence(StudentT(*a), StudentT(*b)).value for a, b in (
            (tensor([3.0, 0.0]), tensor([5.0, 0.5, 1.0])), (tensor([5.0, 1.0]), tensor([5.0, 0.0, 2.0])))]  # fmt: skip
        estimate = divergence(p, q)
        assert estimate.value == pytest.approx(sum(parts), abs=1e-7)
        assert estimate.method == "quadrature"


def test_kinks_and_edges_are_followed():
    p, q = product(Laplace, [0.0, 0.0], [1.0, 1.0]), product(Laplace, [1.0, 0.0], [1.0, 2.0])
    assert kl(p, q, method="quadrature").value == pytest.approx(kl(p, q).value, abs=1e-7)
    square, shifted = product(Uniform, [0.0, 0.0], [1.0, 1.0]), product(Uniform, [0.25, 0.0], [1.25, 1.0])
    assert tv(square, shifted).value == pytest.approx(0.25, abs=1e-12)
    assert js(square, shifted).value == pytest.approx(0.25 * math.log(2), abs=1e-12)
    assert chi2(square, product(Uniform, [0.0, 0.0], [2.0, 2.0])).value == pytest.approx(3.0, abs=1e-12)


@pytest.mark.parametrize("divergence", [kl, js, tv, hellinger2], ids=lambda f: f.__name__)
def test_a_mixture_meets_monte_carlo(divergence):
    means = tensor([[0.0, 0.0], [3.0, 1.0]])
    mixture = MixtureSameFamily(
        Categorical(tensor([0.3, 0.7])), MultivariateNormal(means, torch.eye(2).double().expand(2, 2, 2))
    )
    exact, drawn = divergence(mixture, P), divergence(mixture, P, method="monte carlo", seed=3)
    assert exact.method == "quadrature"
    assert abs(exact.value - drawn.value) < 4 * drawn.stderr  # false alarms: 1 in 15,000
    assert "stderr is a bound on the quadrature error" in exact.notes


def test_what_quadrature_cannot_bound_is_left_to_monte_carlo():
    p, q = product(Beta, [2.0, 0.5], [2.0, 3.0]), product(Beta, [1.0, 2.0], [2.0, 3.0])  # one density has a pole
    with pytest.raises(ValueError, match="quadrature missed .* of the probability in the plane"):
        js(p, q, method="quadrature")
    assert js(p, q).method == "monte carlo"


def test_a_support_that_reaches_beyond_is_infinite():
    p, q = product(Normal, [0.0, 0.0], [1.0, 1.0]), product(Uniform, [-1.0, -1.0], [1.0, 1.0])
    assert kl(p, q).value == chi2(p, q).value == math.inf
    assert kl(p, q, method="quadrature").value == math.inf
    assert tv(p, q).value < 1
