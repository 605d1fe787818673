"""Precision, recall, density, coverage and the check of memory: formulas, exact references, errors that hold."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probdl.models.judging import balls, memory
from probdl.models.judging.halves import half_sample_variance, share_variance


def normals(n, d, seed, scale=1.0, shift=0.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def by_the_papers(x, y, k):
    """The four measures as they are written, ball by ball: Kynkäänniemi et al., eq. 1-2; Naeem et al., eq. 2-4."""

    def reach(points):
        return [
            sorted(np.linalg.norm(p - q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]

    x, y = x.numpy(), y.numpy()
    real, fake = reach(x), reach(y)
    in_real = [[np.linalg.norm(b - a) <= r for a, r in zip(x, real)] for b in y]
    in_fake = [[np.linalg.norm(a - b) <= r for b, r in zip(y, fake)] for a in x]
    precision = np.mean([any(row) for row in in_real])
    recall = np.mean([any(row) for row in in_fake])
    density = np.sum(in_real) / (k * len(y))
    coverage = np.mean([any(row[i] for row in in_real) for i in range(len(x))])
    return [precision, recall, density, coverage]


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 30, 2, 5), (25, 40, 3, 1), (40, 22, 20, 3)])
def test_the_four_measures_are_those_of_the_papers(n, m, d, k):
    x, y = normals(n, d, 1), normals(m, d, 2, 0.8, 0.4)
    assert balls.shares(x, y, k).tolist() == pytest.approx(by_the_papers(x, y, k), abs=1e-12)


def test_they_are_the_same_however_the_rows_are_tiled(monkeypatch):
    x, y = normals(50, 4, 1), normals(70, 4, 2, 1.3)
    whole = balls.shares(x, y, 4)
    monkeypatch.setattr(balls, "TILE", 16)
    assert balls.shares(x, y, 4).tolist() == whole.tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(3, 4), m=st.integers(2, 3), k=st.integers(1, 2), d=st.integers(1, 3))
def test_over_all_relabellings_density_is_1_and_coverage_the_hypergeometric_share(seed, n, m, k, d):
    """The exact references hold for any rows without ties, not only on average over draws of a law."""
    pooled = normals(n + m, d, seed)
    k = min(k, n - 1, m - 1)
    found = []
    for chosen in itertools.combinations(range(n + m), n):
        rest = [i for i in range(n + m) if i not in chosen]
        found.append(balls.shares(pooled[list(chosen)], pooled[rest], k))
    mean = torch.stack(found).mean(0)
    assert mean[2].item() == pytest.approx(1.0, abs=1e-12)
    assert mean[3].item() == pytest.approx(1 - math.comb(n - 1, k) / math.comb(n + m - 1, k), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_for_one_law_density_goes_to_1_and_coverage_to_1_minus_2_to_the_minus_k(k):
    found = balls.measures(normals(400, 3, 5), normals(400, 3, 6), k, seed=0)
    assert found["density"].reference == 1.0
    assert found["coverage"].reference == pytest.approx(1 - 2.0**-k, abs=2e-3 * k)
    for name in balls.NAMES:
        m = found[name]
        # Normal at such sizes: outside of 4.5 sd (of which 10 splits tell 24 %) with probability below 1e-3
        assert abs(m.estimate.value - m.reference) < 4.5 * max(m.reference_sd, 0.002)


def test_they_tell_fidelity_from_diversity():
    x = torch.cat([normals(150, 2, 1), normals(150, 2, 2, shift=10.0)])
    collapsed = balls.measures(x, normals(300, 2, 3), 5, 0)
    assert collapsed["precision"].estimate.value > 0.95
    assert collapsed["recall"].estimate.value < 0.6
    assert collapsed["coverage"].estimate.value < 0.6
    blurred = balls.measures(x, 4 * normals(300, 2, 4) + 5, 5, 0)
    assert blurred["precision"].estimate.value < 0.5
    assert blurred["density"].interval[1] < 1


def test_rows_that_repeat_lie_in_each_others_balls():
    """Tables of categories tie; a ball of radius 0 holds its equals."""
    x = torch.eye(3, dtype=torch.float64).repeat(10, 1)
    assert balls.shares(x, x[:21], 5).tolist() == pytest.approx([1, 1, 10 / 5, 1])
    assert balls.shares(x, 2 + x, 5).tolist() == [0, 0, 0, 0]
    wide = 1 / 3 + normals(3, 40, 1).repeat(10, 1)  # where distances are had by products, and cancel
    assert balls.shares(wide[:15], wide[15:] * 1.0, 3).tolist() == pytest.approx([1, 1, 5 / 3, 1])


def test_the_halves_give_the_variance_of_a_mean():
    x, y = normals(200, 1, 1), normals(100, 1, 2, 3.0)
    variance = half_sample_variance(lambda a, b: torch.stack([a.mean(), (a.mean() - b.mean())]), x, y, seed=3)
    truth = torch.stack([x.var() / 200, x.var() / 200 + y.var() / 100])
    # 39/χ² of 39 degrees of freedom: outside of (.45, 2.1) with probability below 1e-3
    ratio = variance / truth
    assert ((ratio > 0.45) & (ratio < 2.1)).all()


def test_a_share_of_nothing_has_an_error():
    assert share_variance(torch.tensor(0.0), 100) > 0
    none = balls.measures(normals(40, 2, 1), normals(40, 2, 2, shift=50.0), 5, 0)
    assert none["precision"].estimate.value == 0
    assert 0 < none["precision"].interval[1] < 0.1
    assert none["precision"].interval[0] == 0


def test_the_intervals_hold_the_mean_of_the_measures():
    """Shifted normals; stderr is at most a half larger than the true deviation, and intervals hold."""
    pairs = [(normals(60, 2, 2 * s), normals(60, 2, 2 * s + 1, shift=1.0)) for s in range(400)]
    values = torch.stack([balls.shares(x, y, 5) for x, y in pairs])
    truth, deviation = values.mean(0), values.std(0)
    found = [balls.measures(x, y, 5, s) for s, (x, y) in enumerate(pairs[:100])]
    for i, name in enumerate(balls.NAMES):
        held = sum(m[name].interval[0] <= truth[i] <= m[name].interval[1] for m in found)
        # At 95 % the probability of fewer than 86 of 100 is below 1e-3
        assert held >= 86, name
        typical = math.sqrt(sum(m[name].estimate.stderr ** 2 for m in found) / len(found))
        assert 0.85 < typical / deviation[i] < 1.5, name


def test_large_samples_are_cut_with_a_note(monkeypatch):
    monkeypatch.setattr(balls, "MOST", 50)
    found = balls.measures(normals(80, 2, 1), normals(40, 2, 2), 5, 0)
    assert found["recall"].estimate.n == 90
    assert any("50 of the 80 draws of x_heldout" in note for note in found["recall"].estimate.notes)


def nearest_pairs(kind, n=150, seed=0):
    train, x, y = normals(200, 3, seed), normals(n, 3, seed + 1), normals(n, 3, seed + 2)
    if kind == "copies":
        y = train[torch.randperm(200, generator=torch.Generator().manual_seed(seed))[:n]]
    if kind == "some copies":
        y[: n // 10] = train[: n // 10]
    return x, y, train


def test_distances_to_the_nearest_training_row_are_those_of_scipy(monkeypatch):
    x, _, train = nearest_pairs("new")
    monkeypatch.setattr(memory, "TILE", 32)
    expected = scipy.spatial.cKDTree(train.numpy()).query(x.numpy())[0]
    assert memory.nearest(x, train).numpy() == pytest.approx(expected)
    wide = normals(30, 40, 1)
    assert (memory.nearest(wide, wide) == 0).all()


def test_a_sampler_that_returns_training_rows_is_found():
    found = memory.measures(*nearest_pairs("copies"), seed=0)
    assert found["memorisation"].estimate.value == 1
    assert 0.95 < found["memorisation"].interval[0] < 0.99  # an error also where no row says otherwise
    assert found["memorisation"].p_value < 1e-10
    assert found["near_copies"].estimate.value == 1
    assert any("150 of 150 samples equal a training row" in note for note in found["memorisation"].estimate.notes)


def test_a_tenth_of_copies_is_found_by_the_near_copies():
    m = memory.measures(*nearest_pairs("some copies"), seed=0)["near_copies"]
    assert m.estimate.value - m.reference > 2 * m.reference_sd
    assert m.interval[0] > m.reference


def test_new_rows_are_no_copies_and_rows_far_out_are_below_a_half():
    found = memory.measures(*nearest_pairs("new"), seed=0)
    for m in found.values():
        assert abs(m.estimate.value - m.reference) < 3.3 * m.reference_sd  # probability 1e-3
    x, y, train = nearest_pairs("new")
    assert memory.measures(x, 3 * y, train, seed=0)["memorisation"].interval[1] < 0.5


def test_memorisation_is_the_rank_statistic_with_the_error_of_delong():
    a, b = normals(30, 1, 1).abs()[:, 0], normals(40, 1, 2, 0.7).abs()[:, 0].round(decimals=1)
    a = a.round(decimals=1)  # ties
    m = memory.memorisation(a, b)
    test = scipy.stats.mannwhitneyu(a.numpy(), b.numpy(), alternative="greater")
    assert m.estimate.value == pytest.approx(test.statistic / (30 * 40))
    assert m.p_value == pytest.approx(test.pvalue)
    wins = np.array([[(u > v) + (u == v) / 2 for v in b.tolist()] for u in a.tolist()])
    variance = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 40
    assert m.estimate.stderr == pytest.approx(math.sqrt(variance))


def test_the_references_of_memory_are_exact_over_all_relabellings(monkeypatch):
    monkeypatch.setattr(memory, "NEAR", 0.3)
    pooled, n = normals(10, 1, 4).abs()[:, 0], 6
    found = []
    for chosen in itertools.combinations(range(10), n):
        rest = [i for i in range(10) if i not in chosen]
        a, b = pooled[list(chosen)], pooled[rest]
        found.append([memory._shares_above(a, b).mean(), memory._below(a, b)])
    values = torch.tensor(found)
    one, other = memory.memorisation(pooled[:n], pooled[n:]), memory.near_copies(pooled[:n], pooled[n:], 0)
    assert other.reference == pytest.approx(2 / 7)
    assert values.mean(0).tolist() == pytest.approx([one.reference, other.reference])
    assert values.std(0, correction=0).tolist() == pytest.approx([one.reference_sd, other.reference_sd])


def test_where_held_out_rows_repeat_training_rows_near_copies_say_so():
    train = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    m = memory.measures(train[:30], train[:20], train, seed=0)["near_copies"]
    assert m.estimate.value == 0
    assert "it tells nothing" in m.estimate.notes[0]
