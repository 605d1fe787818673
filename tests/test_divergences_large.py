"""MMD and energy with several kernels, of huge samples, and on the line by quadrature."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal, StudentT, Uniform

import probdl
from probdl.divergences import RBF, InverseMultiquadratic, blocks, energy, mmd2, wasserstein


def normals(n, d, seed, shift=0.0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


def t(value):
    return torch.tensor(value, dtype=torch.float64)


def paper(m, d, ell):
    """Squared MMD of N(0, I) and N(m·e₁, I) under an RBF kernel."""
    scale = (ell**2 / (ell**2 + 2)) ** (d / 2)
    return 2 * scale * (1 - math.exp(-(m**2) / (2 * (ell**2 + 2))))


def test_several_kernels_are_averaged():
    x, y = normals(60, 2, 1), normals(50, 2, 2, 1.0)
    for kind in (RBF, InverseMultiquadratic):
        parts = [mmd2(x, y, kind(b)).value for b in (0.5, 1.0, 4.0)]
        assert mmd2(x, y, kind((0.5, 1.0, 4.0))).value == pytest.approx(np.mean(parts), abs=1e-14)


def test_the_inverse_multiquadratic_is_what_it_is_called():
    x, y = normals(30, 3, 1), normals(20, 3, 2, 1.0)
    naive = lambda a, b: 1 / torch.sqrt(1 + (a[:, None] - b[None]).square().sum(-1) / 4)  # noqa: E731
    assert mmd2(x, y, InverseMultiquadratic(2.0)).value == pytest.approx(mmd2(x, y, naive).value, abs=1e-14)


@pytest.mark.parametrize("method", ["block", "linear time"])
@pytest.mark.parametrize("d", [1, 5])
def test_block_averages_meet_the_value_on_paper(method, d, device):
    x, y = normals(40_000, d, 1, device=device), normals(40_000, d, 2, 1.0, device=device)
    estimate = mmd2(x, y, RBF(2.0), method=method)
    assert abs(estimate.value - paper(1.0, d, 2.0)) < 4 * estimate.stderr  # false alarms: 1 in 15,000
    assert estimate.stderr < 0.2 * estimate.value
    assert (estimate.method, estimate.target, estimate.n) == (method, "population", 80_000)


def test_blocks_of_two_say_much_less_than_larger_blocks():
    x, y = normals(4000, 2, 1), normals(4000, 2, 2, 0.5)
    errors = [mmd2(x, y, RBF(1.0), method=m).stderr for m in ("u-statistic", "block", "linear time")]
    assert errors[1] < 1.5 * errors[0]
    assert errors[2] > 3 * errors[1]


@pytest.mark.parametrize("method", ["block", "linear time"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_of_block_averages_cover_the_population_value_also_under_equality(method, shift):
    truth = paper(shift, 2, 1.5)
    estimates = [
        mmd2(normals(900, 2, 2 * s), normals(900, 2, 2 * s + 1, shift), RBF(1.5), method=method) for s in range(300)
    ]
    covered = np.mean([e.interval()[0] < truth < e.interval()[1] for e in estimates])
    assert 0.9 < covered < 0.985  # 30 blocks: t quantiles would give .95, normal ones .94; false alarms below 1 in 200


@pytest.mark.parametrize("shift", [1.5, 2.5])
def test_intervals_of_all_pairs_cover_the_population_value(shift):
    truth = paper(shift, 2, 1.5)
    estimates = [mmd2(normals(120, 2, 2 * s), normals(100, 2, 2 * s + 1, shift), RBF(1.5)) for s in range(300)]
    with_error = [e for e in estimates if e.stderr is not None]
    assert len(with_error) > 290
    covered = np.mean([e.interval()[0] < truth < e.interval()[1] for e in with_error])
    assert 0.9 < covered < 0.985  # false alarms below 1 in 200


def test_energy_by_blocks():
    x, y = normals(40_000, 2, 1), normals(30_000, 2, 2, 1.0)
    for method in ("block", "linear time"):
        estimate = energy(x, y, method=method)
        assert abs(estimate.value - 0.429821) < 4 * estimate.stderr
    assert "draws of each were used" in " ".join(estimate.notes)


def test_blocks_are_random_and_not_the_order_of_the_rows():
    x, y = normals(10_000, 1, 1)[:, 0].sort().values, normals(10_000, 1, 2, 1.0)[:, 0].sort().values
    estimate = mmd2(x, y, RBF(2.0), method="linear time")
    assert abs(estimate.value - paper(1.0, 1, 2.0)) < 4 * estimate.stderr
    assert mmd2(x, y, RBF(2.0), method="block", seed=1).value != mmd2(x, y, RBF(2.0), method="block", seed=2).value


def test_a_kernel_of_ones_own_works_in_blocks():
    x, y = normals(2000, 2, 1), normals(2000, 2, 2, 1.0)
    own = lambda a, b: torch.exp(-torch.cdist(a, b).square() / 8)  # noqa: E731
    truth = mmd2(x, y, RBF(2.0), method="block")
    assert mmd2(x, y, own, method="block").value == pytest.approx(truth.value, abs=1e-12)


def test_too_many_pairs_go_to_blocks_and_the_error_says_so(monkeypatch):
    monkeypatch.setattr(blocks, "PAIRS", 1e5)
    x, y = normals(400, 2, 1), normals(400, 2, 2, 1.0)
    for divergence in (mmd2, energy):
        assert divergence(x, y).method == "block"
        with pytest.raises(ValueError, match="400 and 400 draws have 3.2e.05 pairs.*method='block' or 'linear time'"):
            divergence(x, y, method="u-statistic")
    assert energy(x[:, 0], y[:, 0]).method == "u-statistic", "on the line sorting needs no pairs"


@pytest.mark.slow
def test_ten_million_draws_are_compared_in_a_minute():
    x, y = (torch.randn(10**7, 2, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    for divergence in (mmd2, energy):
        estimate = divergence(x, y + 0.1, method="linear time")
        assert estimate.value > 5 * estimate.stderr


def test_bad_input_to_blocks_is_refused():
    x = normals(50, 2, 1)
    with pytest.raises(ValueError, match="'block' takes draws of equal weights; pass method='u-statistic'"):
        mmd2(probdl.Draws(x, np.arange(50)), x, method="block")
    with pytest.raises(ValueError, match="'linear time' needs at least 8 blocks of 2 draws.*got 12 and 50"):
        energy(x[:12], x, method="linear time")


# --- on the line by quadrature ---------------------------------------------------------------------------------------

KERNELS = [RBF(1.0), RBF((0.3, 3.0)), InverseMultiquadratic(0.5)]
LAWS = {
    "laplace student": (Laplace(t(0.0), t(1.0)), StudentT(t(8.0))),
    "uniform exponential": (Uniform(t(0.0), t(1.0)), Exponential(t(2.0))),
}


@pytest.mark.parametrize("kernel", [RBF(1.0), RBF(0.1), RBF((0.1, 3.0))], ids=str)
def test_quadrature_is_the_closed_form_of_normals(kernel):
    p, q = Normal(t(0.0), t(1.0)), Normal(t(1.0), t(2.0))
    closed, integrated = mmd2(p, q, kernel), mmd2(p, q, kernel, method="quadrature")
    assert abs(integrated.value - closed.value) <= integrated.stderr < 1e-11
    assert (closed.method, integrated.method) == ("closed form", "quadrature")


@pytest.mark.parametrize("laws", LAWS)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_quadrature_meets_monte_carlo(laws, kernel):
    p, q = LAWS[laws]
    integrated, drawn = mmd2(p, q, kernel), mmd2(p, q, kernel, method="monte carlo", draws=50_000)
    assert integrated.method == "quadrature"
    assert abs(integrated.value - drawn.value) < 4 * drawn.stderr  # false alarms: 1 in 15,000


def test_a_kernel_too_narrow_for_quadrature_is_left_to_monte_carlo():
    p, q = LAWS["laplace student"]
    with pytest.raises(ValueError, match="error bound of quadrature.*too large for this kernel"):
        mmd2(p, q, RBF(1e-4), method="quadrature")
    assert mmd2(p, q, RBF(1e-4), draws=1000).method == "monte carlo"


def test_w1_of_many_draws_in_the_plane_is_exact_transport_of_some_of_them():
    """Two unit Gaussians one apart: the plug-in of 5000 is within 5 % of 1, which a blurred plan is not."""
    x, y = normals(6000, 2, 1), normals(6000, 2, 2, 1.0)
    estimate = wasserstein(x, y)
    assert estimate.method == "exact transport"
    assert abs(float(estimate) - 1) < 0.05
    assert any("5000 of the 6000 draws" in note for note in estimate.notes)
