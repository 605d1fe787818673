"""Sums of kernels by tiles: every digit that a sum over all pairs has, near and far, and fewer pairs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import gaussian_kde

from probdl.models.density import sums
from probdl.models.density.tiles import Tiles, closest, least


def made(seed, n, d, tail=0.0, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    u = torch.rand(n, 1, generator=g, dtype=torch.float64)
    return x * u.pow(-tail) + shift, torch.rand(n, generator=g, dtype=torch.float64)


def direct(x, y, w, power):
    """The sum over all pairs by NumPy's and SciPy's functions; ``power`` of a point's own term is minus infinity."""
    squares = ((y.numpy()[:, None] - x.numpy()) ** 2).sum(2)
    return logsumexp(-squares / 2 + power, b=w.numpy(), axis=1)


@given(
    st.integers(0, 99),
    st.integers(1, 700),
    st.integers(1, 400),
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0.0, 1e4, -1e6]),
    st.sampled_from([1.0, 0.1, 20.0]),
)
@settings(max_examples=60, deadline=None)
def test_gaussian_sums_have_the_digits_of_a_sum_over_all_pairs(seed, n, m, d, tail, shift, scale):
    (x, w), (y, _) = made(seed, n, d, tail, shift), made(seed + 1, m, d, tail, shift)
    x, y = x * scale, y * scale
    x[: n // 3] = x[0].clone()  # duplicates
    found = sums.gaussian(Tiles.of(x, w), Tiles.of(y))
    expected = torch.from_numpy(direct(x, y, w, 0.0))
    assert found.shape == (m,)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("tail", [0.0, 2.0])
def test_a_point_is_left_out_of_its_own_sum(d, tail):
    x, w = made(3, 900, d, tail)
    x[10] = x[11]
    own = np.zeros((900, 900))
    np.fill_diagonal(own, -np.inf)
    found = sums.gaussian(Tiles.of(3 * x, w))
    assert torch.allclose(found, torch.from_numpy(direct(3 * x, 3 * x, w, own)), rtol=1e-12, atol=1e-12)


def test_the_density_is_scipys_to_ten_digits_also_relative_to_itself():
    (x, w), (y, _) = made(5, 3000, 2), made(6, 2000, 2)
    y[:50] *= 6  # the tails
    kde = gaussian_kde(x.numpy().T, weights=w.numpy())
    whiten = torch.linalg.inv(torch.from_numpy(np.linalg.cholesky(kde.covariance))).T
    log = sums.gaussian(Tiles.of(x @ whiten, w), Tiles.of(y @ whiten)) - w.sum().log()
    log = log - math.log(2 * math.pi) + torch.linalg.slogdet(whiten)[1]
    expected = torch.from_numpy(kde(y.numpy().T))
    away = (log.exp() - expected).abs()
    assert float(away.max()) < 1e-12
    assert float((away / expected)[expected > 1e-290].max()) < 1e-10


def test_sixty_deviations_out_the_log_density_is_finite_and_right():
    x = Tiles.of(torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64))
    found = float(sums.gaussian(x, Tiles.of(torch.tensor([[60.0]], dtype=torch.float64))))
    assert found == pytest.approx(math.log(0.75) - 59**2 / 2 + math.log1p(math.exp(-59.5) / 3), rel=1e-14)


@given(st.integers(0, 99), st.integers(1, 700), st.integers(1, 3), st.sampled_from([0.3, 1.0, 4.0]))
@settings(max_examples=40, deadline=None)
def test_compact_kernels_sum_over_what_is_near(seed, n, d, scale):
    (x, w), (y, _) = made(seed, n, d), made(seed + 1, 300, d)
    away = (scale * (y[:, None] - x)).numpy() ** 2
    ball = np.clip(1 - away.sum(2), 0, None) @ w.numpy()
    block = np.clip(1 - away, 0, None).prod(2) @ w.numpy()
    tiles = Tiles.of(scale * x, w), Tiles.of(scale * y)
    np.testing.assert_allclose(sums.epanechnikov(*tiles).exp(), ball, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(sums.epanechnikov_product(*tiles).exp(), block, rtol=1e-11, atol=1e-14)


def test_compact_kernels_leave_a_point_out_of_its_own_sum():
    x, w = made(2, 500, 2)
    away = (2 * (x[:, None] - x)).numpy() ** 2
    ball, block = np.clip(1 - away.sum(2), 0, None), np.clip(1 - away, 0, None).prod(2)
    for kernel, of in ((ball, sums.epanechnikov), (block, sums.epanechnikov_product)):
        np.fill_diagonal(kernel, 0)
        np.testing.assert_allclose(of(Tiles.of(2 * x, w)).exp(), kernel @ w.numpy(), rtol=1e-11, atol=1e-14)


@given(st.integers(0, 99), st.integers(1, 3000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_tiles_hold_each_point_once_and_are_of_near_points(seed, n, d):
    x, w = made(seed, n, d)
    tiles = Tiles.of(x, w)
    assert torch.equal(tiles.as_before(tiles.points.flatten(0, 1)[:, 0].contiguous()), x[:, 0])
    assert torch.equal(tiles.as_before(tiles.weights.flatten()), w)
    assert float(tiles.weights.sum()) == pytest.approx(float(w.sum()), rel=1e-12)
    assert tiles.points.shape[1] <= 128


def test_the_bounds_of_a_tile_hold_at_every_point_of_a_box():
    (x, w), (y, _) = made(1, 1000, 2), made(9, 600, 2)
    data, boxes = Tiles.of(x, w), Tiles.of(3 * y)
    low, sure = closest(boxes.low, boxes.high, data), least(boxes.low, boxes.high, data)
    for q in range(len(boxes.points)):
        for t in range(len(data.points)):
            squares = (boxes.points[q][:, None] - data.points[t]).square().sum(2)
            assert float(squares.min()) >= float(low[q, t]) - 1e-12
            log = (data.weights[t].log() - squares / 2).logsumexp(1)
            assert float(log.min()) >= float(sure[q, t]) - 1e-12


def test_far_tiles_are_skipped():
    x, _ = made(1, 20_000, 2)
    tiles = Tiles.of(100 * x)
    keep = sums._relevant(tiles, tiles.low, tiles.high, None)
    assert float(keep.double().mean()) < 0.15


def test_what_matters_in_the_ninth_digit_is_not_skipped():
    away = math.sqrt(2 * math.log(1e9))
    x = torch.cat([torch.zeros(128, 1), torch.full((128, 1), away)]).double()
    found = sums.gaussian(Tiles.of(x), Tiles.of(torch.zeros(1, 1).double()))
    assert float(found) - math.log(128) == pytest.approx(1e-9, rel=1e-4)


def test_a_point_left_out_makes_nothing_skipped():
    x, w = torch.zeros(256, 1).double(), torch.zeros(256).double()
    x[128:], w[0], w[128:] = 10, 1, 1
    found = sums.gaussian(Tiles.of(x, w))
    assert float(found[0]) == pytest.approx(math.log(128) - 50, rel=1e-12)


def test_the_least_of_a_tile_counts_its_scatter():
    x = torch.linspace(-1, 1, 101).double()[:, None]
    tile, at = Tiles.of(x), torch.zeros(1, 1).double()
    sure, truth = float(least(at, at, tile)), float((-x.square() / 2).logsumexp(0))
    assert truth - 0.03 < sure < truth
