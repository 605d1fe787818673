"""The sliced Wasserstein distance against POT, against the line, and against what Gaussians give on paper."""

import math

import numpy as np
import ot
import pytest
import torch
from torch.distributions import Cauchy, Independent, MultivariateNormal, Normal

import probdl
from probdl.divergences import sliced_wasserstein, sliced_wasserstein_loss, wasserstein
from probdl.divergences.sliced import random_directions


def normals(n, d, seed, shift=0.0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


def uniforms(n, seed):
    return np.random.default_rng(seed).random(n)


@pytest.mark.parametrize("order", [1, 2, 2.5])
@pytest.mark.parametrize("sizes", [(60, 60), (60, 45)])
def test_on_the_line_sliced_is_wasserstein(order, sizes, device):
    x, y = normals(sizes[0], 1, 1, device=device), normals(sizes[1], 1, 2, 1.0, device=device)
    weighted = probdl.Draws(x, uniforms(len(x), 0)), probdl.Draws(y, uniforms(len(y), 1))
    for p, q in ((x, y), weighted):
        sliced, exact = sliced_wasserstein(p, q, order), wasserstein(p, q, order)
        assert sliced.value == pytest.approx(exact.value, abs=1e-12)
        assert sliced.stderr == pytest.approx(exact.stderr, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_along_the_same_directions_it_is_pots(order, weighted):
    x, y = normals(80, 4, 1), normals(70, 4, 2, 0.5)
    v, w = (uniforms(n, n) if weighted else np.ones(n) for n in (80, 70))
    v, w = v / v.sum(), w / w.sum()
    theta = random_directions(4, 25, seed=3).numpy().T
    truth = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), v, w, p=order, projections=theta)
    p, q = (probdl.Draws(x, v), probdl.Draws(y, w)) if weighted else (x, y)
    assert sliced_wasserstein(p, q, order, directions=25, seed=3).value == pytest.approx(truth, abs=1e-12)


def test_equal_weights_and_no_weights_are_the_same():
    x, y = normals(30, 3, 1), normals(40, 3, 2, 1.0)
    plain, weighted = sliced_wasserstein(x, y), sliced_wasserstein(probdl.Draws(x, np.ones(30)), y)
    assert weighted.value == pytest.approx(plain.value, abs=1e-12)
    assert weighted.stderr == pytest.approx(plain.stderr, abs=1e-12)


def gaussian(mean, scale=1.0):
    return Independent(Normal(torch.tensor(mean, dtype=torch.float64), scale), 1)


def test_of_gaussians_one_apart_it_is_one_over_the_root_of_the_dimension():
    estimate = sliced_wasserstein(gaussian([0.0] * 10), gaussian([1.0] + [0.0] * 9))
    assert estimate.value == pytest.approx(math.sqrt(0.1), abs=1e-12)  # W_2 is 1
    assert (estimate.method, estimate.stderr) == ("closed form", 0.0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_monte_carlo_meets_the_closed_form(order):
    p, q = gaussian([0.0, 0.0, 0.0]), gaussian([2.0, 0.0, 1.0])
    truth = sliced_wasserstein(p, q, order).value
    estimate = sliced_wasserstein(p, q, order, method="monte carlo", draws=5000)
    assert abs(estimate.value - truth) < 4 * estimate.stderr  # false alarms: 1 in 15,000
    assert estimate.stderr < 0.1 * truth


def test_scales_in_two_dimensions():
    p, q = gaussian([0.0, 0.0]), gaussian([0.0, 0.0], 3.0)
    estimate = sliced_wasserstein(p, q, draws=20_000)
    assert estimate.value == pytest.approx(
        2.0, abs=0.05
    )  # every projection is N(0,1) against N(0,9); 5 standard errors
    assert estimate.method == "monte carlo"


@pytest.mark.parametrize(("d", "order"), [(2, 2), (10, 2), (3, 1)])
def test_the_interval_covers_the_mean_of_the_estimate(d, order):
    estimates = [
        sliced_wasserstein(normals(150, d, 2 * s), normals(100, d, 2 * s + 1, 3.0), order, 60, seed=s)
        for s in range(300)
    ]
    mean = np.mean([e.value for e in estimates])
    covered = np.mean([e.interval()[0] < mean < e.interval()[1] for e in estimates])
    assert 0.91 < covered < 0.985  # if the truth is .95: false alarms below 1 in 200


def test_few_directions_show_in_the_error():
    x, y = normals(2000, 5, 1), normals(2000, 5, 2, 2.0)
    few, many = (sliced_wasserstein(x, y, directions=k).stderr for k in (4, 400))
    assert few > 3 * many


def test_equal_draws_have_no_interval_and_are_no_distance_apart(device):
    x = normals(50, 3, 1, device=device)
    estimate = sliced_wasserstein(x, x.flip(0))
    assert estimate.value == pytest.approx(0.0, abs=1e-12)
    assert estimate.stderr is None


def test_a_distribution_meets_draws():
    law = MultivariateNormal(torch.zeros(2), torch.eye(2))
    estimate = sliced_wasserstein(law, normals(2000, 2, 1, 3.0))
    assert estimate.value == pytest.approx(3 / math.sqrt(2), abs=0.3)
    assert "draws were taken from p" in " ".join(estimate.notes)


def test_the_loss_is_the_estimate(device):
    for m in (40, 55):
        x, y = normals(40, 3, 1, device=device), normals(m, 3, 2, 1.0, device=device)
        for order in (1, 2, 3):
            loss = sliced_wasserstein_loss(x, y, order, 20, seed=5)
            assert loss.item() == pytest.approx(sliced_wasserstein(x, y, order, 20, seed=5).value, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 1.5])
@pytest.mark.parametrize("m", [5, 4])
def test_gradients_of_the_loss_are_those_of_finite_differences(order, m):
    x, y = normals(5, 3, 1).requires_grad_(), normals(m, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: sliced_wasserstein_loss(a, b, order, 7, seed=1), (x, y))


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_gradients_of_the_loss_are_finite_at_identical_draws(order, dtype, device):
    for draws in (normals(6, 2, 1), torch.ones(6, 2)):
        x = draws.to(device, dtype).requires_grad_()
        y = x.detach().clone().requires_grad_()
        loss = sliced_wasserstein_loss(x, y, order)
        loss.backward()
        assert (loss.item(), loss.dtype, loss.device, loss.shape) == (0.0, dtype, x.device, ())
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(y.grad).all()


def test_the_loss_takes_new_directions_at_each_call_unless_they_are_fixed():
    x, y = normals(20, 3, 1), normals(20, 3, 2, 1.0)
    assert sliced_wasserstein_loss(x, y, directions=3) != sliced_wasserstein_loss(x, y, directions=3)
    assert sliced_wasserstein_loss(x, y, seed=1) == sliced_wasserstein_loss(x, y, seed=1)


@pytest.mark.parametrize("order", [0.5, -1, math.nan, math.inf, "2", True])
def test_an_order_below_one_is_refused(order):
    x = normals(5, 2, 1)
    for f in (sliced_wasserstein, sliced_wasserstein_loss):
        with pytest.raises(ValueError, match="order must be a number of at least 1"):
            f(x, x, order)


def test_bad_input_is_refused():
    x = normals(5, 2, 1)
    for count in (0, 1, -3, 2.5):
        with pytest.raises(ValueError, match="directions must be an integer of at least 2"):
            sliced_wasserstein(x, x, directions=count)
    with pytest.raises(ValueError, match="directions must be an integer of at least 1"):
        sliced_wasserstein_loss(x, x, directions=0)
    with pytest.raises(ValueError, match="finite moment of order 2, which p"):
        sliced_wasserstein(Cauchy(0.0, 1.0), x[:, 0])
    with pytest.raises(ValueError, match="q must be finite; got 1 NaN"):
        sliced_wasserstein(x, [[math.nan, 0.0]])
    with pytest.raises(ValueError, match="method of sliced_wasserstein must be one of 'auto', 'sorting'"):
        sliced_wasserstein(x, x, method="exact transport")
    with pytest.raises(ValueError, match="same number of columns"):
        sliced_wasserstein(x, normals(5, 3, 1))


def test_float32_draws_far_from_the_origin_keep_their_distance():
    x, y = normals(500, 3, 1), normals(500, 3, 2, 1.0)
    near = sliced_wasserstein(x, y).value
    assert sliced_wasserstein((x + 1000).float(), (y + 1000).float()).value == pytest.approx(near, abs=1e-4)
