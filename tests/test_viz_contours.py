"""Regions of highest density hold the mass that is stated, whatever the density is known by."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from torch.distributions import (
    Bernoulli,
    Categorical,
    Cauchy,
    Dirichlet,
    Independent,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Uniform,
)

from probdl import Draws, LogDensity, viz
from probdl.viz.posteriors.regions import surface

DOUBLE = {"dtype": torch.float64}
MASSES = (0.5, 0.9)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def normal(n, seed):
    """Correlated, far from the origin, in columns of different units."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return z @ torch.tensor([[2.0, 0.0], [0.09, 0.01]], **DOUBLE).T + torch.tensor([300.0, -7.0], **DOUBLE)


def banana(n, seed):
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return torch.stack([2 * z[:, 0], 0.4 * z[:, 1] + z[:, 0] ** 2], 1)


def log_banana(x):
    return -((x[:, 0] / 2) ** 2) / 2 - ((x[:, 1] - (x[:, 0] / 2) ** 2) / 0.4) ** 2 / 2


def two_modes(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, **DOUBLE) + 8.0 * (torch.rand(n, 1, generator=generator) > 0.5)


def shares_inside(ax, x):
    """The share of points inside each drawn line, counted by matplotlib's own geometry; the last contour set drawn."""
    contours = [c for c in ax.collections if hasattr(c, "levels")][-1]
    inside = []
    for path in contours.get_paths():
        within = [Path(polygon).contains_points(x.numpy()) for polygon in path.to_polygons()]
        inside.append(np.logical_xor.reduce(within).mean())
    return sorted(inside)


@pytest.mark.parametrize("law", [normal, banana, two_modes])
def test_regions_of_draws_hold_the_stated_share_of_new_draws(law):
    """With 4000 draws the standard error of a share is .008 at .5 and .005 at .9: .03 is more than three of them."""
    ax = viz.density_contours(law(4000, 0), masses=MASSES)
    np.testing.assert_allclose(shares_inside(ax, law(20_000, 1)), MASSES, atol=0.03)


def test_of_few_draws_each_counts_for_the_others_only():
    """The mean of 40 shares at n = 100, whose standard error is .006; with its own kernel counted it is too small."""
    fresh = normal(4000, 99)
    shares = []
    for seed in range(40):
        shares += shares_inside(viz.density_contours(normal(100, seed), masses=(0.9,)), fresh)
        plt.close("all")
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)


P = MultivariateNormal(torch.tensor([300.0, -7.0], **DOUBLE), scale_tril=torch.tensor([[2, 0], [0.09, 0.01]], **DOUBLE))


@pytest.mark.parametrize(
    ("p", "fresh"),
    [
        (P, normal(50_000, 1)),
        (LogDensity(lambda x: P.log_prob(x) + 900, 2), normal(50_000, 1)),
        (LogDensity(log_banana, 2), banana(50_000, 1)),
        (Independent(Cauchy(torch.zeros(2, **DOUBLE), 1.0), 1), None),
        (Independent(LogNormal(torch.zeros(2, **DOUBLE), 1.0), 1), None),
        (Independent(Normal(torch.zeros(2), torch.ones(2)), 1), None),  # in float32
    ],
)
def test_regions_of_a_density_hold_the_stated_mass(p, fresh):
    if fresh is None:
        torch.manual_seed(0)
        fresh = p.sample((50_000,))
    np.testing.assert_allclose(shares_inside(viz.density_contours(p), fresh), MASSES, atol=0.01)


def test_the_levels_of_a_gaussian_are_those_of_the_closed_form():
    """The log-density of N(0, S) falls by −log(1 − m) from its mode to the edge of its region of mass m."""
    found = surface(P, (0.5, 0.9, 0.99))
    fall = -(found.levels / found.density.max()).log()
    np.testing.assert_allclose(fall, [-math.log(1 - m) for m in (0.5, 0.9, 0.99)], rtol=0.02)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    shift=st.tuples(*2 * [st.floats(-500, 500)]),
    log_scale=st.tuples(*2 * [st.floats(-4, 4)]),
    correlation=st.floats(-0.95, 0.95),
)
def test_a_log_density_is_found_wherever_it_is_and_however_wide(shift, log_scale, correlation):
    a, b = (math.exp(s) for s in log_scale)
    covariance = torch.tensor([[a * a, correlation * a * b], [correlation * a * b, b * b]], **DOUBLE)
    law = MultivariateNormal(torch.tensor(shift, **DOUBLE), covariance)
    low, high = surface(LogDensity(law.log_prob, 2), (0.9,)).box()
    reach = math.sqrt(-2 * math.log(0.1)) * covariance.diagonal().sqrt()
    assert bool(((low - law.mean + reach).abs() < 0.06 * reach).all())
    assert bool(((high - law.mean - reach).abs() < 0.06 * reach).all())


def test_weights_of_draws_count():
    """Draws of a wide Gaussian, weighted towards a narrow one, have the regions of the narrow one."""
    x = 2 * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0), **DOUBLE)
    weights = (-(x**2).sum(1) * (1 / 2 - 1 / 8)).exp()
    low, high = surface(Draws(x, weights), (0.9,)).box()
    np.testing.assert_allclose(torch.stack([-low, high]), math.sqrt(-2 * math.log(0.1)), atol=0.2)


def test_a_uniform_density_is_drawn_to_its_edge():
    ax = viz.density_contours(Independent(Uniform(torch.zeros(2, **DOUBLE), 1.0), 1))
    vertices = np.concatenate([path.vertices for c in ax.collections if hasattr(c, "levels") for path in c.get_paths()])
    np.testing.assert_allclose([vertices.min(), vertices.max()], [0, 1], atol=0.02)


def test_p_is_filled_and_the_others_are_lines_over_it_in_colours_of_their_own():
    mixture = MixtureSameFamily(
        Categorical(torch.ones(2, **DOUBLE)),
        MultivariateNormal(torch.tensor([[-2.0, 0.0], [2.0, 0.0]], **DOUBLE), torch.eye(2, **DOUBLE).expand(2, 2, 2)),
    )
    ax = viz.density_contours(mixture, {"covers": P, "seeks": normal(100, 0)}, masses=(0.5, 0.9), label="target")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["target", "covers", "seeks"]
    assert ax.get_legend().get_title().get_text() == "regions of 50 % and 90 %"
    contours = [c for c in ax.collections if hasattr(c, "levels")]
    assert [c.filled for c in contours] == [True, True, False, False, False]
    assert len({tuple(c.get_edgecolor()[0]) for c in contours[2:]}) == 3


def test_all_regions_are_within_the_limits_and_those_of_an_earlier_call_too():
    far = MultivariateNormal(torch.tensor([20.0, 0.0], **DOUBLE), torch.eye(2, **DOUBLE))
    near = MultivariateNormal(torch.zeros(2, **DOUBLE), torch.eye(2, **DOUBLE))
    ax = viz.density_contours(near, far)
    assert ax.get_xlim()[0] < -2.1
    assert ax.get_xlim()[1] > 22.1
    alone = viz.density_contours(near)
    assert alone.get_xlim()[1] < 3
    viz.density_contours(far, ax=alone)
    assert alone.get_xlim()[0] < -2.1
    assert alone.get_xlim()[1] > 22.1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: viz.density_contours(Normal(0.0, 1.0)), ValueError, "p must have two coordinates .*; got 1"),
        (
            lambda: viz.density_contours(Normal(torch.zeros(2), 1.0)),
            ValueError,
            "p must be one distribution; got a batch",
        ),
        (lambda: viz.density_contours(P, torch.zeros(20, 3)), ValueError, "q must have two coordinates .*; got 3"),
        (lambda: viz.density_contours(P, masses=(0.5, 1.0)), ValueError, r"between 0 and 1; got \[0.5, 1.0\]"),
        (lambda: viz.density_contours(P, masses=()), ValueError, "between 0 and 1"),
        (lambda: viz.density_contours(torch.zeros(9, 2)), ValueError, "at least 10 draws.*got 9"),
        (lambda: viz.density_contours(torch.ones(30, 2)), ValueError, "must vary in both coordinates"),
        (lambda: viz.density_contours(log_banana), TypeError, "p is a function; wrap it"),
        (
            lambda: viz.density_contours(Independent(Bernoulli(torch.ones(2) / 2), 1)),
            TypeError,
            "p must have a density",
        ),
        (lambda: viz.density_contours(Dirichlet(torch.ones(2))), ValueError, "Grids do not hold the mass 0.9 of p"),
        (lambda: viz.density_contours(LogDensity(lambda x: x[:, 0] * math.nan, 2)), ValueError, "somewhere positive"),
        (lambda: viz.density_contours(LogDensity(lambda x: x[:, 0] * 0, 2)), ValueError, "mass of p cannot be found"),
        (lambda: viz.density_contours(P, ax="here"), TypeError, "ax must be a matplotlib Axes"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
