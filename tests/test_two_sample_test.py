"""Tests by permutation: their level, their power, the Gram matrix they share, and what they refuse."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import probdl
from probdl.divergences import RBF, energy, mmd2, permutations, two_sample_test


def normals(n, d, seed, shift=0.0, device="cpu"):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


@pytest.mark.parametrize(("statistic", "divergence"), [("mmd2", mmd2), ("energy", energy)])
def test_the_statistic_is_the_estimate(statistic, divergence, device):
    x, y = normals(40, 3, 1, device=device), normals(70, 3, 2, 0.5, device=device)
    result = two_sample_test(x, y, statistic, permutations=19)
    assert result.statistic == pytest.approx(divergence(x, y).value, abs=1e-12)
    assert (result.name, result.n, result.permutations) == (statistic, 110, 19)


def test_every_permuted_value_is_the_estimate_of_the_relabelled_draws(monkeypatch):
    monkeypatch.setattr(permutations, "TILE", 7)
    pooled = normals(25, 2, 1)
    columns = permutations.labels(10, 25, 30, 3, pooled)
    values = permutations.u_statistics(RBF(1.5), pooled, columns)
    for value, column in zip(values, columns.T):
        again = mmd2(pooled[column == 1], pooled[column == 0], RBF(1.5)).value
        assert value.item() == pytest.approx(again, abs=1e-12)


def test_random_relabellings_give_the_p_value_of_all_of_them():
    x, y = normals(5, 1, 1), normals(5, 1, 2, 1.0)
    pooled = torch.cat([x, y])
    everyone = set(range(10))
    values = [energy(pooled[list(c)], pooled[list(everyone - set(c))]).value for c in combinations(range(10), 5)]
    exact = np.mean(np.array(values) >= energy(x, y).value - 1e-12)
    result = two_sample_test(x, y, "energy", permutations=20_000)
    assert abs(result.p_value - exact) < 4 * result.stderr + 1e-4  # false alarm 6e-5


@pytest.mark.parametrize("statistic", ["mmd2", "energy"])
def test_the_level_is_held(statistic):
    p = [two_sample_test(normals(12, 2, 2 * s), normals(9, 2, 2 * s + 1), statistic, 19).p_value for s in range(500)]
    # With 19 relabellings P(p ≤ .1) = .1 exactly; Binomial(500, .1) exceeds 78 with probability 4e-5, is below 24
    # with probability 3e-5
    assert 24 <= sum(v <= 0.1 + 1e-9 for v in p) <= 78


@pytest.mark.parametrize("statistic", ["mmd2", "energy", RBF(1.0)])
def test_a_difference_is_found_and_p_is_never_zero(statistic):
    result = two_sample_test(normals(100, 3, 1), normals(80, 3, 2, 1.5), statistic, permutations=199)
    assert result.p_value == pytest.approx(1 / 200)
    assert 0 < result.stderr < 0.01


def test_a_classifier_is_relabelled_on_the_half_that_did_not_train_it():
    result = two_sample_test(normals(101, 3, 1), normals(80, 3, 2, 1.5), "classifier", permutations=199)
    assert result.n == 50 + 40
    assert result.p_value == pytest.approx(1 / 200)
    assert "did not train it" in " ".join(result.notes)


def test_a_classifier_holds_the_level():
    x = [normals(40, 2, s) for s in range(81)]
    p = [two_sample_test(a, b, "classifier", 19).p_value for a, b in zip(x, x[1:])]
    # At the level .1, Binomial(80, .1) exceeds 19 with probability 1e-4
    assert sum(v <= 0.1 + 1e-9 for v in p) <= 19


def test_equal_constant_draws_give_one():
    assert two_sample_test(np.ones((5, 2)), np.ones((6, 2)), "energy", permutations=19).p_value == 1.0


def test_the_same_seed_gives_the_same_p_value_and_no_global_seed_moves():
    x, y = normals(30, 2, 1), normals(30, 2, 2)
    before = torch.get_rng_state()
    values = [two_sample_test(x, y, permutations=99, seed=s).p_value for s in (1, 1, 2, 3, 4)]
    assert torch.equal(before, torch.get_rng_state())
    assert values[0] == values[1]
    assert len(set(values)) > 1


def test_a_distribution_is_sampled_with_a_note():
    result = two_sample_test(Normal(0.0, 1.0), normals(300, 1, 2, 1.0)[:, 0], "energy", permutations=99)
    assert "1000 draws were taken from x" in " ".join(result.notes)
    assert result.p_value == 0.01


def test_of_too_many_draws_some_are_used_and_the_note_says_so(monkeypatch):
    monkeypatch.setattr(permutations, "MOST", 50)
    result = two_sample_test(normals(300, 1, 1), normals(30, 1, 2), permutations=19)
    assert result.n == 80
    assert "50 of the 300 draws of x" in " ".join(result.notes)


def test_it_reads_as_a_sentence():
    text = repr(two_sample_test(normals(20, 1, 1), normals(20, 1, 2), permutations=99))
    assert text.startswith("mmd2 ")
    assert "99 permutations, n=40" in text
    assert math.isfinite(float(text.split("p = ")[1].split(" ")[0]))


def test_what_cannot_be_relabelled_is_refused():
    x, y = normals(10, 2, 1), normals(10, 2, 2)
    with pytest.raises(ValueError, match="x has weights, and weighted draws cannot be relabelled"):
        two_sample_test(probdl.Draws(x, np.arange(1, 11)), y)
    with pytest.raises(ValueError, match="y must hold at least 2 draws; got 1"):
        two_sample_test(x, y[:1])
    with pytest.raises(ValueError, match="statistic must be .* got 'ks'"):
        two_sample_test(x, y, "ks")
    with pytest.raises(ValueError, match="needs at least 40 draws of each side; got 10 and 10"):
        two_sample_test(x, y, "classifier")
    with pytest.raises(ValueError, match="permutations must be an integer of at least 19; got 0"):
        two_sample_test(x, y, permutations=0)
    with pytest.raises(ValueError, match="same number of columns"):
        two_sample_test(x, y[:, :1])
    with pytest.raises(ValueError, match="x must be finite"):
        two_sample_test([math.nan, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="all draws are equal"):
        two_sample_test(np.ones(5), np.ones(5))
