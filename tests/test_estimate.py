"""The result of every divergence."""

import math

import pytest
import torch

from probdl.divergences import Estimate


def test_it_reads_as_value_and_error_with_its_method():
    assert repr(Estimate(0.44312, 0.0021, "monte carlo", n=100_000)) == "0.4431 ± 0.0021 (monte carlo, n=100000)"
    assert repr(Estimate(12.3456, 1.2, "u-statistic", n=50)) == "12.3 ± 1.2 (u-statistic, n=50)"
    assert repr(Estimate(1234.5, 77.0, "monte carlo")) == "1234 ± 77 (monte carlo)"
    assert repr(Estimate(0.5, 0.0, "closed form")) == "0.5 ± 0 (closed form)"
    assert repr(Estimate(math.inf, 0.0, "closed form")) == "inf ± 0 (closed form)"
    assert repr(Estimate(0.1, None, "u-statistic", n=10)) == "0.1, error unknown (u-statistic, n=10)"


def test_it_is_a_number():
    assert float(Estimate(0.25, 0.1, "monte carlo")) == 0.25
    assert float(Estimate(torch.tensor([0.25]), 0.1, "monte carlo")) == 0.25
    with pytest.raises(TypeError, match="3 values, one per row"):
        float(Estimate(torch.zeros(3), torch.zeros(3), "closed form"))


def test_the_interval_is_the_normal_one():
    low, high = Estimate(1.0, 0.5, "monte carlo").interval()
    assert (low, high) == pytest.approx((1 - 1.959964 * 0.5, 1 + 1.959964 * 0.5), abs=1e-6)
    low, high = Estimate(1.0, 0.5, "monte carlo").interval(level=0.5)
    assert high - low == pytest.approx(2 * 0.674490 * 0.5, abs=1e-6)


def test_the_interval_of_rows_is_a_tensor():
    low, high = Estimate(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), "monte carlo").interval()
    assert low.tolist() == pytest.approx([-1.959964, 1.0], abs=1e-6)
    assert high.tolist() == pytest.approx([1.959964, 1.0], abs=1e-6)


def test_without_an_error_there_is_no_interval_and_the_reason_is_given():
    with pytest.raises(ValueError, match="near equality"):
        Estimate(0.1, None, "u-statistic", notes=("near equality",)).interval()


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5])
def test_a_level_outside_the_unit_interval_is_refused(level):
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        Estimate(0.1, 0.1, "monte carlo").interval(level)


def test_the_target_is_one_of_four():
    with pytest.raises(ValueError, match="target must be one of"):
        Estimate(0.1, 0.1, "monte carlo", target="truth")


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Estimate(0.1, 0.1, "monte carlo").value = 0.2
