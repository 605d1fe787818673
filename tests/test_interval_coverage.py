"""A small benchmarks/interval_coverage.py: intervals labelled "population" cover, lower bounds bound, tests hold."""

import importlib.util
from pathlib import Path

import pytest
import scipy.stats

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "interval_coverage.py"
spec = importlib.util.spec_from_file_location("coverage_of_intervals", PATH)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
REPEATS, ALARM = 200, 1e-4
# Withheld for most seeds, since a tail looks heavy or the value is near 0: what is left is a selection
SELECTED = [name for name in benchmark.POPULATION if name.endswith("n=100") or "chi2, N(0,1) from" in name]


@pytest.mark.parametrize("name", [name for name in benchmark.POPULATION if name not in SELECTED])
def test_intervals_labelled_population_cover_the_truth(name):
    case = benchmark.POPULATION[name]
    assert case()[0](0).target == "population"
    found = benchmark.coverage(case, REPEATS)
    assert found["given"] >= 0.9 * REPEATS
    # At 95 % the probability of fewer is below 1e-4, and that of all of 200 is 4e-5
    assert scipy.stats.binom.ppf(ALARM, found["given"], 0.95) <= found["held"] < REPEATS


@pytest.mark.parametrize("name", SELECTED)
def test_intervals_that_are_often_withheld_are_not_given_at_random(name):
    found = benchmark.coverage(benchmark.POPULATION[name], 40)
    assert found["given"] < 40


def test_lower_bounds_lie_below_the_truth():
    found = benchmark.coverage(benchmark.LOWER_BOUNDS["js by classifier, shift 1, n=100"], 20)
    # Binomial(20, .975) is below 16 with probability 1e-4
    assert found["below"] >= 16
    assert found["mean"] < found["truth"]


@pytest.mark.parametrize("statistic", ["mmd2", "energy"])
def test_permutation_tests_hold_their_level(statistic):
    rejected = benchmark.level(statistic, 400)
    # Binomial(400, .05) lies outside [6, 37] with probability 2e-4
    assert 6 <= rejected <= 37
