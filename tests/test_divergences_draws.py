"""Divergences from draws, against SciPy, POT and naive sums."""

import math

import numpy as np
import ot
import pytest
import scipy.stats
import torch

import probdl
from probdl import divergences
from probdl.divergences import RBF, energy, mmd2, transport, wasserstein
from probdl.errors import ConvergenceError


def normals(n, d, seed, shift=0.0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


def naive(kernel, x, y):
    """The U-statistic as it is written."""
    kxx, kyy, kxy = kernel(x, x), kernel(y, y), kernel(x, y)
    n, m = len(x), len(y)
    within = (kxx.sum() - kxx.trace()) / (n * (n - 1)) + (kyy.sum() - kyy.trace()) / (m * (m - 1))
    return (within - 2 * kxy.mean()).item()


def pairwise(x, y):
    return (x[:, None] - y[None]).square().sum(-1).sqrt()


def rbf(ell):
    return lambda x, y: torch.exp(-(x[:, None] - y[None]).square().sum(-1) / (2 * ell**2))


# --- Wasserstein on the line -----------------------------------------------------------------------------------------


def test_w1_on_the_line_is_scipys(device):
    x, y = normals(301, 1, 1, device=device), normals(200, 1, 2, 0.5, device=device)
    truth = scipy.stats.wasserstein_distance(x[:, 0].cpu(), y[:, 0].cpu())
    estimate = wasserstein(x, y)
    assert estimate.value == pytest.approx(truth, abs=1e-12)
    assert (estimate.method, estimate.target, estimate.n) == ("sorting", "expected estimate", 501)


def test_weighted_w1_on_the_line_is_scipys():
    x, y = normals(50, 1, 1)[:, 0], normals(70, 1, 2)[:, 0]
    v, w = np.random.default_rng(0).random(50), np.random.default_rng(1).random(70)
    w[:5] = 0
    truth = scipy.stats.wasserstein_distance(x, y, v, w)
    assert wasserstein(probdl.Draws(x, v), probdl.Draws(y, w)).value == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 2.5])
def test_sorting_solves_the_transport_problem_that_pot_solves(order):
    x, y = normals(40, 1, 3)[:, 0], normals(55, 1, 4, 0.3)[:, 0]
    v, w = (np.random.default_rng(s).random(n) for s, n in ((0, 40), (1, 55)))
    cost = np.abs(x.numpy()[:, None] - y.numpy()[None]) ** order
    truth = ot.emd2(v / v.sum(), w / w.sum(), cost) ** (1 / order)
    assert wasserstein(probdl.Draws(x, v), probdl.Draws(y, w), order=order).value == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_potentials_of_sorting_are_feasible_and_optimal(order):
    x, y = normals(30, 1, 3)[:, 0], normals(23, 1, 4, 0.4)[:, 0]
    v, w = torch.ones(30).double() / 30, torch.ones(23).double() / 23
    plan = transport.sorted_plan(x, y, v, w, order)
    cost = (x[:, None] - y[None]).abs() ** order
    u, z = plan.u, (cost - plan.u[:, None]).amin(0)  # the best feasible partner of u
    assert (u @ v + z @ w).item() == pytest.approx(plan.cost, abs=1e-10)
    z = plan.v
    assert ((cost - z[None]).amin(1) @ v + z @ w).item() == pytest.approx(plan.cost, abs=1e-10)


def test_a_single_draw_has_a_distance_and_no_error():
    estimate = wasserstein([1.0], [4.0])
    assert estimate.value == 3.0
    assert estimate.stderr is None


# --- Wasserstein in more dimensions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "order"), [(2, 1), (2, 2), (5, 2), (3, 1.5)])
def test_exact_transport_reaches_pots_optimum(d, order, device):
    x, y = normals(150, d, 1, device=device), normals(120, d, 2, 0.7, device=device)
    cost = ot.dist(x.cpu().numpy(), y.cpu().numpy(), metric="euclidean") ** order
    truth = ot.emd2([], [], cost, numItermax=10**8) ** (1 / order)
    estimate = wasserstein(x, y, order=order)
    assert estimate.value == pytest.approx(truth, abs=1e-11)
    assert estimate.method == "exact transport"
    assert estimate.target == "expected estimate"


def test_pot_stopped_early_is_an_error_and_not_a_number(monkeypatch):
    monkeypatch.setattr(transport, "PIVOTS", 10)
    with pytest.raises(ConvergenceError, match="numItermax"):
        wasserstein(normals(100, 2, 1), normals(100, 2, 2))


def test_float32_integers_and_weights_with_zeros_reach_the_same_optimum():
    x, y = torch.randint(0, 50, (60, 2), generator=torch.Generator().manual_seed(1)), normals(50, 2, 2).float()
    truth = wasserstein(x.double(), y.double()).value
    assert wasserstein(x, y).value == truth
    padded = torch.cat([y, torch.full((3, 2), 1e6)])
    weighted = probdl.Draws(padded, [1.0] * 50 + [0.0] * 3)
    assert wasserstein(x, weighted).value == pytest.approx(truth, abs=1e-9)


def test_weights_are_repetitions_of_rows():
    x, y = normals(30, 2, 1), normals(40, 2, 2)
    times = torch.randint(1, 4, (30,), generator=torch.Generator().manual_seed(0))
    weighted = wasserstein(probdl.Draws(x, times), y, order=2).value
    assert weighted == pytest.approx(wasserstein(x.repeat_interleave(times, 0), y, order=2).value, abs=1e-10)


@pytest.mark.parametrize("theta", [-1.5, 0.25, 3.0])
def test_parallel_lines_are_as_far_apart_as_their_offset(theta):
    u = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = torch.stack([torch.zeros(200), u], 1), torch.stack([torch.full((200,), theta), u.flip(0)], 1)
    for order in (1, 2, 4):
        assert wasserstein(x, y, order=order).value == pytest.approx(abs(theta), abs=1e-9)


def test_a_far_origin_does_not_matter():
    x, y = normals(100, 2, 1), normals(100, 2, 2, 1.0)
    for divergence in (wasserstein, energy, mmd2):
        assert divergence(x + 1e6, y + 1e6).value == pytest.approx(divergence(x, y).value, abs=1e-7)


def test_above_two_dimensions_the_notes_tell_the_bias():
    x, y = normals(200, 5, 1), normals(200, 5, 2)
    estimate = wasserstein(x, y, order=2)
    assert estimate.value > 1, "the plug-in is far above the truth, 0"
    notes = " ".join(estimate.notes)
    assert "draws of one distribution, 100 against 100" in notes
    assert "bracket" in notes
    low = float(notes.split("bracket for W_p^p: ")[1].split(" ")[0])
    assert low < 0.5, "half of the self-distances takes most of the bias away"


def test_a_cost_matrix_beyond_memory_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr(transport, "LARGEST", 50)
    with pytest.raises(ValueError, match="pass at most 50 draws"):
        wasserstein(normals(60, 2, 1), normals(40, 2, 2), method="exact transport")


@pytest.mark.parametrize(("d", "order"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_near_equality_the_interval_of_wasserstein_is_withheld_or_covers(d, order):
    withheld = 0
    for seed in range(10):
        estimate = wasserstein(normals(80, d, 2 * seed), normals(80, d, 2 * seed + 1), order=order)
        withheld += estimate.stderr is None
        assert estimate.stderr is not None or "normal interval fails" in " ".join(estimate.notes)
    assert withheld >= (8 if order == 1 else 0)


# --- MMD and energy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3, 40])
def test_tiled_sums_are_the_naive_ones(d, device, monkeypatch):
    monkeypatch.setattr(divergences.kernels, "TILE", 7)
    x, y = normals(50, d, 1, device=device), normals(33, d, 2, 0.5, device=device)
    assert mmd2(x, y, RBF(2.0)).value == pytest.approx(naive(rbf(2.0), x, y), abs=1e-12)
    assert energy(x, y).value == pytest.approx(naive(lambda a, b: -pairwise(a, b), x, y), abs=1e-12)
    several = (naive(rbf(1.0), x, y) + naive(rbf(3.0), x, y)) / 2
    assert mmd2(x, y, RBF((1.0, 3.0))).value == pytest.approx(several, abs=1e-12)


def test_energy_is_the_square_of_scipys_without_the_diagonal():
    # SciPy gives the root of the biased statistic, whose means over pairs count the zeros of the diagonal
    x, y = normals(60, 1, 1), normals(45, 1, 2, 0.5)
    biased = scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    within = [pairwise(z, z).sum().item() / len(z) ** 2 / (len(z) - 1) for z in (x, y)]
    assert energy(x, y).value == pytest.approx(biased - sum(within), abs=1e-12)


def test_the_default_bandwidth_is_the_pooled_median_distance():
    x, y = normals(30, 2, 1), normals(20, 2, 2)
    pooled = torch.cat([x, y])
    off = pairwise(pooled, pooled)[~torch.eye(50, dtype=torch.bool)]
    median = torch.sort(off).values[(len(off) - 1) // 2].item()
    estimate = mmd2(x, y)
    assert estimate.value == pytest.approx(mmd2(x, y, RBF(median)).value, abs=1e-12)
    assert f"bandwidth {median:.6g}" in " ".join(estimate.notes)


def test_a_kernel_of_the_user_is_used():
    x, y = normals(50, 2, 1), normals(60, 2, 2, 1.0)
    linear = mmd2(x, y, lambda a, b: a @ b.T)
    # under the linear kernel the squared MMD is |difference of means|² − tr S₁/n − tr S₂/m
    truth = (x.mean(0) - y.mean(0)).square().sum() - x.var(0).sum() / 50 - y.var(0).sum() / 60
    assert linear.value == pytest.approx(truth.item(), abs=1e-10)


def test_unbiased_estimates_are_negative_half_of_the_time_under_equality():
    values = [energy(normals(20, 2, 2 * s), normals(20, 2, 2 * s + 1)).value for s in range(60)]
    assert sum(v < 0 for v in values) > 15  # Binomial(60, ½) is below 16 with probability 1e-4
    # the mean over repeats is 0 within 4 of its errors: false alarm 6e-5
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(60)


def test_equality_withholds_the_interval_and_points_to_permutations():
    estimate = mmd2(normals(100, 2, 1), normals(100, 2, 2))
    assert estimate.stderr is None
    assert "permutation" in " ".join(estimate.notes)


def test_equal_weights_are_no_weights_and_scale_does_not_matter():
    x, y = normals(20, 2, 1), normals(30, 2, 2, 1.0)
    for divergence in (energy, mmd2, wasserstein):
        weighted = divergence(probdl.Draws(x, [5.0] * 20), y)
        assert weighted.value == pytest.approx(divergence(x, y).value, abs=1e-12)
        assert weighted.stderr == pytest.approx(divergence(x, y).stderr, abs=1e-12)


def test_importance_weights_correct_the_distribution():
    # draws from N(0,1) weighted to N(1,1), against draws from N(1,1)
    x, y = normals(4000, 1, 1), normals(1000, 1, 2, 1.0)
    weighted = energy(probdl.Draws(x, torch.exp(x[:, 0] - 0.5)), y)
    assert weighted.value < 0.02, "unweighted it is 0.47"
    assert energy(x, y).value > 0.4


@pytest.mark.parametrize(("divergence", "truth"), [(energy, 0.429821), (mmd2, None)])
def test_intervals_of_kernel_estimates_cover_the_population_value(divergence, truth):
    kernel = () if truth is not None else (RBF(1.5),)
    if truth is None:
        one = torch.distributions.Independent(torch.distributions.Normal(torch.tensor([1.0, 0.0]).double(), 1.0), 1)
        zero = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2).double(), 1.0), 1)
        truth = mmd2(zero, one, *kernel).value
    covered = 0
    for seed in range(200):
        low, high = divergence(normals(200, 2, 2 * seed), normals(250, 2, 2 * seed + 1, 1.0), *kernel).interval()
        covered += low <= truth <= high
    # Binomial(200, 0.95) falls below 176 with probability 2e-4 and on 200 with probability 4e-5
    assert 176 <= covered < 200


def test_the_interval_of_w1_covers_its_own_mean():
    estimates = [wasserstein(normals(80, 1, 2 * s)[:, 0], normals(80, 1, 2 * s + 1, 2.0)[:, 0]) for s in range(200)]
    mean = sum(e.value for e in estimates) / 200
    covered = sum(low <= mean <= high for low, high in (e.interval() for e in estimates))
    # as above; the mean of 200 moves the coverage by less than one repeat
    assert 176 <= covered < 200


def test_a_distribution_against_draws_is_sampled_and_the_note_says_so():
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(2.0, 1.0)
    y = normals(300, 1, 5, 2.0)[:, 0]
    for divergence in (wasserstein, energy):
        truth = divergence(p, q).value
        for estimate, name in ((divergence(p, y), "p"), (divergence(y, p), "q")):
            assert f"1000 draws were taken from {name}" in " ".join(estimate.notes)
            assert abs(estimate.value - truth) < 4 * estimate.stderr  # false alarm 6e-5


def test_five_thousand_draws_need_memory_for_tiles_only():
    """A Gram matrix would take 200 MB."""
    import subprocess
    import sys

    code = (
        "import resource, torch; from probdl.divergences import energy; torch.set_num_threads(1)\n"
        "g = torch.Generator().manual_seed(0)\n"
        "x = [torch.randn(5000, 3, generator=g, dtype=torch.float64) + s for s in (0, 0.2)]\n"
        "energy(x[0][:600], x[1][:600])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(energy(*x).value, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    value, extra = map(float, out.split())
    assert 0 < value < 0.1
    assert extra < 50, f"{extra:.0f} MB"
