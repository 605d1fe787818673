"""Conformal p-values, thresholds and ROC: what they promise for any score, and what other libraries say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from statsmodels.stats.multitest import multipletests

from probdl.models.anomalies.conformal import (
    allowed,
    discoveries,
    needed,
    p_values,
    p_values_among,
    realised,
    threshold,
    threshold_among,
)
from probdl.models.anomalies.roc import auc, average_precision, roc_of

D = torch.float64
FEW = st.lists(st.integers(0, 6), min_size=1, max_size=60)  # scores that tie
RATES = st.floats(0.02, 0.95)


def scores(n, seed=0, ties=False):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randperm(n, generator=g) < 0.3 * n
    values = torch.randn(n, generator=g, dtype=D) + labels
    return (values * 2).round() if ties else values, labels


@settings(deadline=None)
@given(FEW, FEW)
def test_p_values_count_the_calibration_scores_that_are_not_smaller(held, new):
    expected = [(1 + sum(c >= s for c in held)) / (len(held) + 1) for s in new]
    torch.testing.assert_close(p_values(torch.tensor(held), torch.tensor(new)), torch.tensor(expected, dtype=D))


@settings(deadline=None)
@given(FEW, FEW, RATES)
def test_a_score_is_above_the_threshold_exactly_if_its_p_value_is_at_most_the_rate(held, new, rate):
    held, new = torch.tensor(held, dtype=D), torch.tensor(new, dtype=D)
    if len(held) < needed(rate):
        with pytest.raises(ValueError, match=rf"{needed(rate)} rows must calibrate .* got {len(held)}"):
            threshold(held, rate)
    else:
        assert torch.equal(new > threshold(held, rate), p_values(held, new) <= rate)


@settings(deadline=None)
@given(FEW, RATES)
def test_among_one_another_scores_have_the_p_values_that_the_others_give_them(values, rate):
    scores = torch.tensor(values, dtype=D)
    others = [p_values(torch.cat([scores[:i], scores[i + 1 :]]), scores[i : i + 1])[0] for i in range(len(scores))]
    torch.testing.assert_close(p_values_among(scores), torch.stack(others))
    if len(values) > needed(rate):
        assert torch.equal(scores > threshold_among(scores, rate), p_values_among(scores) <= rate)
        assert (p_values_among(scores) <= rate).double().mean() <= rate


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), RATES)
def test_the_guarantee_is_exact_for_every_finite_population(values, rate):
    """Each of n + 1 exchangeable rows is as likely the new one: the share that would be flagged is at most the rate."""
    population = torch.tensor(values + [9], dtype=D)
    if len(values) >= needed(rate):
        flags = [
            bool(p_values(torch.cat([population[:i], population[i + 1 :]]), population[i : i + 1]) <= rate)
            for i in range(len(population))
        ]
        assert np.mean(flags) <= rate


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.1, 0.29, 1 / 3, 0.5, 0.9])
def test_needed_is_the_smallest_number_that_is_allowed(rate):
    n = needed(rate)
    assert allowed(n, rate) >= 1
    assert n == 1 or 1 / n > rate
    most = allowed(99, rate)
    assert most / 100 <= rate < (most + 1) / 100


def test_the_realised_rate_has_vovk_s_beta_law():
    g = torch.Generator().manual_seed(1)
    uniform = torch.rand(4000, 60, generator=g, dtype=D)
    rates = torch.tensor([1 - threshold(held, 0.1) for held in uniform])  # P(score > threshold), scores uniform
    assert stats.kstest(rates.numpy(), stats.beta(6, 55).cdf).pvalue > 0.01
    low, high = realised(60, 0.1)
    assert ((rates >= low) & (rates <= high)).double().mean() == pytest.approx(0.95, abs=0.011)  # 3 sd
    assert stats.beta(6, 55).cdf([low, high]) == pytest.approx([0.025, 0.975])
    assert stats.beta(6, 55).cdf(realised(60, 0.1, level=0.5)) == pytest.approx([0.25, 0.75])


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=50), st.floats(0.01, 0.6))
def test_discoveries_are_those_of_benjamini_and_hochberg(twohundredths, fdr):
    p = np.array(twohundredths) / 200
    theirs = multipletests(p, alpha=fdr, method="fdr_bh")[0]
    assert discoveries(torch.tensor(p), fdr).tolist() == theirs.tolist()


def test_the_false_discovery_rate_holds_for_p_values_with_one_calibration_set():
    """150 repeats of 45 normal rows and 5 anomalies; the false-alarm rate of the claim is below 1 in 1000."""
    g, share, power = torch.Generator().manual_seed(2), [], []
    for _ in range(150):
        held, new = torch.randn(500, generator=g, dtype=D), torch.randn(50, generator=g, dtype=D)
        new[:5] += 4
        found = discoveries(p_values(held, new), 0.2)
        share.append(float(found[5:].sum() / found.sum().clamp(min=1)))
        power.append(float(found[:5].double().mean()))
    assert np.mean(share) < 0.2 * 45 / 50 + 3 * np.std(share) / 150**0.5
    assert np.mean(share) > 0.1  # it is used up: nothing is rejected that need not be
    assert np.mean(power) > 0.8


@pytest.mark.parametrize("ties", [False, True])
def test_areas_curves_and_average_precision_are_those_of_scikit_learn(ties):
    values, labels = scores(200, ties=ties)
    roc = roc_of(values, labels)
    assert roc.auc.value == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    assert roc.average_precision.value == pytest.approx(average_precision_score(labels, values), abs=1e-12)
    x, y, _ = roc_curve(labels, values, drop_intermediate=False)
    np.testing.assert_allclose(roc.false_alarm, x, atol=1e-12)
    np.testing.assert_allclose(roc.detection, y, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("what", "sets"), [(auc, 400), (average_precision, 100)])
def test_standard_errors_are_the_scatter_over_new_data(what, sets, ties):
    """The sd of n numbers is known to 1/√(2n) of itself: three of these are allowed."""
    found = [what(*scores(150, seed, ties)) for seed in range(sets)]
    sd = np.std([e.value for e in found])
    assert np.mean([e.stderr for e in found]) == pytest.approx(sd, rel=3 / (2 * sets) ** 0.5)


def test_delong_s_variance_is_that_of_the_placements():
    values, labels = scores(80, ties=True)
    a, b = values[labels].numpy(), values[~labels].numpy()
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    variance = wins.mean(1).var(ddof=1) / len(a) + wins.mean(0).var(ddof=1) / len(b)
    assert roc_of(values, labels).auc.stderr == pytest.approx(variance**0.5, rel=1e-12)


def test_a_perfect_score_has_no_standard_error_rather_than_zero():
    roc = roc_of(torch.arange(20.0), torch.arange(20) >= 15)
    assert (roc.auc.value, roc.auc.stderr, roc.average_precision.value) == (1.0, None, 1.0)
    assert roc.average_precision.stderr is None
    assert "no row is on the wrong side" in roc.auc.notes[0]


def test_the_bootstrap_draws_by_its_seed_and_leaves_the_global_state():
    values, labels = scores(60)
    before = torch.get_rng_state()
    first, again, other = (average_precision(values, labels, seed).stderr for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
