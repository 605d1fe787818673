"""The bundled data are scikit-learn's, and the toy laws have the truths they claim."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits

from probdl import data


def test_digits_are_scikit_learns_pixels_over_sixteen():
    images, labels = data.digits()
    bunch = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype is torch.float64
    np.testing.assert_array_equal(16 * images[:, 0].numpy(), bunch.images)
    np.testing.assert_array_equal(labels.numpy(), bunch.target)
    assert labels.dtype is torch.int64


def test_digits_unpack_and_have_names():
    digits = data.digits()
    images, labels = digits
    assert images is digits.images
    assert labels is digits.labels


def test_breast_cancer_is_scikit_learns_with_one_for_benign():
    X, y = data.breast_cancer()
    bunch = load_breast_cancer()
    np.testing.assert_array_equal(X.numpy(), bunch.data)
    assert list(bunch.target_names[y.long().numpy()]) == list(bunch.target_names[bunch.target])
    assert bunch.target_names[1] == "benign"
    assert y.dtype is torch.float64


@pytest.mark.parametrize("as_frame", [False, True])
def test_standardised_columns_have_mean_zero_and_sd_one_with_divisor_n(as_frame):
    X = np.asarray(data.breast_cancer(standardise=True, as_frame=as_frame).X)
    np.testing.assert_allclose(X.mean(0), 0, atol=1e-13)
    np.testing.assert_allclose(X.std(0, ddof=0), 1, rtol=1e-12)


def test_breast_cancer_as_a_frame_keeps_the_names():
    X, y = data.breast_cancer(as_frame=True)
    assert isinstance(X, pd.DataFrame)
    assert isinstance(y, pd.Series)
    assert list(X.columns) == list(load_breast_cancer().feature_names)
    assert y.name == "benign"
    np.testing.assert_array_equal(X.to_numpy(), data.breast_cancer().X.numpy())


@pytest.mark.parametrize("law", [data.ring(), data.grid(), data.grid(side=2, spacing=0.5, sigma=0.2)])
def test_densities_of_the_toy_laws_integrate_to_one(law):
    means, sigma = law.component_distribution.mean, float(law.component_distribution.stddev[0, 0])
    low, high = float(means.min()) - 8 * sigma, float(means.max()) + 8 * sigma
    axis = torch.linspace(low, high, int((high - low) / sigma * 2) + 1, dtype=torch.float64)
    density = law.log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert float(density.sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_the_ring_has_its_means_on_the_circle_at_equal_distances():
    means = data.ring(modes=8, radius=2.0).component_distribution.mean
    torch.testing.assert_close(means.norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))
    neighbours = (means - means.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(neighbours, torch.full((8,), 4 * math.sin(math.pi / 8), dtype=torch.float64))


def test_the_grid_has_its_means_at_even_integers():
    means = {tuple(m) for m in data.grid().component_distribution.mean.tolist()}
    assert means == {(float(a), float(b)) for a in range(-4, 5, 2) for b in range(-4, 5, 2)}


def test_draws_repeat_with_the_seed_and_leave_the_global_state():
    before = torch.random.get_rng_state()
    first, again, other = (data.draws(data.ring(), 100, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.dtype is torch.float64


def test_draws_of_a_law_follow_it(device):
    law = torch.distributions.Gamma(torch.tensor(2.0, device=device), torch.tensor(3.0, device=device))
    x = data.draws(law, 2000, seed=5)
    assert x.device.type == device.type
    assert stats.kstest(x.cpu(), stats.gamma(2.0, scale=1 / 3).cdf).pvalue > 1e-4  # the false-alarm rate


@pytest.mark.parametrize(("law", "modes"), [(data.ring(), 8), (data.grid(), 25)])
def test_draws_of_the_law_itself_reach_every_mode_and_are_good_as_often_as_theory_says(law, modes):
    found = data.mode_coverage(data.draws(law, 2500), law)
    assert (found.reached, found.populated, found.modes) == (modes, modes, modes)
    good = 1 - math.exp(-4.5)  # P(Rayleigh ≤ 3)
    assert abs(found.good.value - good) < 4 * math.sqrt(good * (1 - good) / 2500)  # false alarms: 6e-5
    # 2n·KL of the frequencies from the truth is about chi-squared with modes − 1 degrees of freedom
    assert stats.chi2(modes - 1).sf(2 * 2500 * found.reverse_kl.value) > 1e-4


def test_a_mode_counts_with_one_good_draw_and_is_populated_with_a_fifth_of_its_share():
    law = data.ring(modes=4)
    means = law.component_distribution.mean
    x = torch.cat([means[0].expand(75, 2), means[1].expand(20, 2), means[2].expand(4, 2), means[3][None] + 0.05])
    found = data.mode_coverage(x, law)  # a fifth of the share of 25 draws is 5: the third mode has but 4
    assert (found.reached, found.populated) == (3, 2)
    assert found.good.value == 0.99
    assert found.good.stderr == pytest.approx(math.sqrt(0.99 * 0.01 / 100))
    assert found.table["good"].tolist() == [75, 20, 4, 0]
    p = np.array([75, 20, 4, 1]) / 100
    assert found.reverse_kl.value == pytest.approx(stats.entropy(p, [0.25] * 4))


def test_a_draw_is_good_up_to_three_standard_deviations():
    law = data.grid(side=1, sigma=0.5)
    inside, outside = [[1.49, 0.0]], [[1.51, 0.0]]
    assert data.mode_coverage(inside, law).reached == 1
    assert data.mode_coverage(outside, law).reached == 0
    assert data.mode_coverage(outside, law, radius=3.1).reached == 1


def test_the_error_of_the_reverse_kl_covers_it():
    law = data.ring(modes=3)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    truth = float((p * (3 * p).log()).sum())
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(200):
        mode = torch.multinomial(p, 1000, replacement=True, generator=generator)
        low, high = data.mode_coverage(law.component_distribution.mean[mode], law).reverse_kl.interval(0.9)
        inside += low <= truth <= high
    assert stats.binomtest(inside, 200, 0.9).pvalue > 1e-4  # the false-alarm rate


@pytest.mark.parametrize("theta", [-0.7, 0.3, 2.0])
def test_apart_the_lines_differ_by_theta_and_every_f_divergence_is_at_its_largest(theta):
    lines = data.parallel_lines(theta)
    assert lines.wasserstein == abs(theta)
    assert (lines.js, lines.tv, lines.kl, lines.hellinger2) == (math.log(2), 1.0, math.inf, 1.0)


def test_on_top_of_each_other_the_lines_do_not_differ():
    lines = data.parallel_lines(0.0)
    assert (lines.wasserstein, lines.js, lines.tv, lines.kl, lines.hellinger2) == (0.0,) * 5


def test_exact_transport_between_draws_of_the_lines_approaches_theta():
    import ot

    x, y = data.parallel_lines(1.5).draws(400)
    assert x.shape == y.shape == (400, 2)
    assert x.dtype is torch.float64
    cost = ot.emd2([], [], torch.cdist(x, y).numpy())
    assert cost >= 1.5  # no pair is nearer than the lines
    assert cost == pytest.approx(1.5, abs=0.01)  # the excess is of the order of the squared 1-D transport, 1/(n θ)


def test_draws_of_the_lines_are_uniform_independent_and_repeat_with_the_seed():
    x, y = data.parallel_lines(0.3).draws(2000, seed=1)
    again, _ = data.parallel_lines(0.3).draws(2000, seed=1)
    assert torch.equal(x, again)
    assert set(x[:, 0].tolist()) == {0.0}
    assert set(y[:, 0].tolist()) == {0.3}
    for u in (x[:, 1], y[:, 1]):
        assert stats.kstest(u, "uniform").pvalue > 1e-4  # the false-alarm rate
    assert stats.pearsonr(x[:, 1], y[:, 1]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: data.ring(modes=0), ValueError, "modes must be a positive integer; got 0"),
        (lambda: data.ring(radius=math.nan), ValueError, "radius must be a positive number; got nan"),
        (lambda: data.grid(sigma=-1.0), ValueError, "sigma must be a positive number; got -1.0"),
        (lambda: data.grid(side=2.5), ValueError, "side must be a positive integer; got 2.5"),
        (lambda: data.parallel_lines(math.inf), ValueError, "theta must be a finite number; got inf"),
        (lambda: data.parallel_lines(1.0).draws(0), ValueError, "n must be a positive integer; got 0"),
        (lambda: data.draws("normal", 3), TypeError, "law must be a torch.distributions.Distribution; got str"),
        (lambda: data.mode_coverage([[0.0, 1.0]], "ring"), TypeError, "law must be a MixtureSameFamily"),
        (lambda: data.mode_coverage([[0.0]], data.ring()), ValueError, r"x must have shape \(n, 2\).*got \(1, 1\)"),
        (lambda: data.mode_coverage([[0.0, math.nan]], data.ring()), ValueError, "x must be finite; got 1 NaN"),
        (lambda: data.mode_coverage([["a", "b"]], data.ring()), TypeError, "x must hold numbers"),
        (lambda: data.mode_coverage([[0.0, 1.0]], data.ring(), share=0.0), ValueError, "share must be a positive"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
