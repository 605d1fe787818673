"""Transport plans have the marginals they must have, cost what the distance says, and match what is known."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import probdl
from probdl.divergences import transport_plan, wasserstein
from probdl.errors import ConvergenceError


def cloud(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def cost_of(plan, x, y, order):
    return (plan * torch.cdist(x, y) ** order).sum()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 3),
    order=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_exact_plan_has_the_marginals_and_costs_the_distance(n, m, d, order, weighted, seed):
    x, y = 100 + cloud(n, d, seed), 100 + 2 * cloud(m, d, seed + 1)
    v, w = (u.abs()[:, 0] / u.abs().sum() if weighted else None for u in (cloud(n, 1, 2), cloud(m, 1, 3)))
    p, q = probdl.Draws(x, v), probdl.Draws(y, w)
    plan = transport_plan(p, q, order)
    assert bool((plan >= 0).all())
    torch.testing.assert_close(plan.sum(1), equal(n) if v is None else v, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(0), equal(m) if w is None else w, rtol=0, atol=1e-12)
    assert float(cost_of(plan, x, y, order)) == pytest.approx(float(wasserstein(p, q, order)) ** order, rel=1e-10)


def test_on_the_line_the_smallest_goes_to_the_smallest():
    x, y = cloud(50, 1, 0)[:, 0], cloud(50, 1, 1)[:, 0]
    plan = transport_plan(x, y)
    assert torch.equal(plan[x.argsort()][:, y.argsort()], torch.eye(50, dtype=torch.float64) / 50)


@pytest.mark.parametrize("order", [1.5, 2])
def test_an_affine_map_with_a_positive_definite_matrix_is_the_optimal_matching(order):
    """Its graph is cyclically monotone under squares (Brenier); a shift is so under every convex cost."""
    x = cloud(60, 2, 0)
    matrix = torch.tensor([[2.0, 0.6], [0.6, 0.5]] if order == 2 else [[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    y = (x @ matrix + torch.tensor([3.0, -1.0]))[mixed]
    expected = torch.zeros(60, 60, dtype=torch.float64)
    expected[mixed, torch.arange(60)] = 1 / 60
    torch.testing.assert_close(transport_plan(x, y, order), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("order", "epsilon"), [(2, 1.0), (2, 0.2), (1, 0.3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_entropic_plan_is_that_of_pot(order, epsilon, weighted):
    x, y = cloud(30, 2, 0), 1 + cloud(20, 2, 1)
    v, w = (u.abs()[:, 0] / u.abs().sum() if weighted else None for u in (cloud(30, 1, 2), cloud(20, 1, 3)))
    plan = transport_plan(probdl.Draws(x, v), probdl.Draws(y, w), order, epsilon)
    a, b = (np.full(n, 1 / n) if u is None else u.numpy() for u, n in ((v, 30), (w, 20)))
    costs = ot.dist(x.numpy(), y.numpy(), metric="euclidean") ** order
    pot = ot.sinkhorn(a, b, costs, epsilon, method="sinkhorn_log", stopThr=1e-10, numItermax=100_000)
    np.testing.assert_allclose(plan, pot, atol=1e-5)
    assert float((plan.sum(1) - torch.as_tensor(a)).abs().sum()) <= 1e-5
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-12)


def test_between_gaussians_the_entropic_plan_is_the_joint_gaussian_of_the_closed_form():
    """Of N(0, 1) and N(0, 1) under squares the covariance is √(1 + ε²/16) − ε/4 (Janati et al., 2020)."""
    at = torch.linspace(-6, 6, 241, dtype=torch.float64)
    law = probdl.Draws(at, (-(at**2) / 2).exp())
    plan = transport_plan(law, law, epsilon=1.0)
    assert float(at @ plan @ at) == pytest.approx(math.sqrt(1 + 1 / 16) - 1 / 4, abs=1e-4)


def test_entropy_spreads_the_plan_and_its_cost_falls_to_the_exact_one():
    x, y = cloud(40, 2, 0), 2 + cloud(40, 2, 1)
    plans = [transport_plan(x, y, epsilon=e) for e in (0.02, 0.3, 3.0, 1000.0)]
    spread = [float(-(p * p.clamp_min(1e-300).log()).sum()) for p in plans]
    assert spread == sorted(spread)
    found = [float(cost_of(p, x, y, 2)) for p in [transport_plan(x, y), *plans]]
    assert found == sorted(found)
    assert found[1] == pytest.approx(found[0], rel=2e-3)
    torch.testing.assert_close(plans[-1], torch.full((40, 40), 1 / 1600).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("epsilon", [None, 0.5])
@pytest.mark.parametrize("d", [1, 2])
def test_draws_without_weight_send_and_get_nothing(epsilon, d):
    x, y = cloud(4, d, 0), cloud(3, d, 1)
    plan = transport_plan(probdl.Draws(x, [0, 1, 0, 3]), probdl.Draws(y, [2, 0, 2]), epsilon=epsilon)
    assert plan.shape == (4, 3)
    torch.testing.assert_close(plan.sum(1), torch.tensor([0, 0.25, 0, 0.75]).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(plan.sum(0), torch.tensor([0.5, 0, 0.5]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: transport_plan(cloud(3, 2, 0), cloud(3, 1, 0)), ValueError, "same number of columns"),
        (lambda: transport_plan([[0.0]], [[1.0]], order=0.5), ValueError, "order must be a number of at least 1"),
        (lambda: transport_plan([[0.0]], [[1.0]], epsilon=0), ValueError, "epsilon must be positive"),
        (lambda: transport_plan([[math.nan]], [[1.0]]), ValueError, "x must be finite"),
        (lambda: transport_plan([[1.0]], []), ValueError, "y is empty"),
        (lambda: transport_plan([["a"]], [[1.0]]), TypeError, "x must hold numbers"),
        (lambda: transport_plan(cloud(50, 2, 0), 9 + cloud(50, 2, 1), epsilon=1e-6), ConvergenceError, "larger"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
