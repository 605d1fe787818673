"""One table of several divergences, beside what one distribution would give."""

import math
import subprocess
import sys
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Cauchy, Normal, Uniform

import probdl
from probdl.divergences import (
    RBF,
    Comparison,
    compare,
    energy,
    js,
    kl,
    mmd2,
    sliced_wasserstein,
    tv,
    two_sample_test,
    wasserstein,
)

COLUMNS = ["value", "stderr", "lower", "upper", "p_value", "method", "target", "seconds", "reference", "reference_sd"]
METRICS = [wasserstein, mmd2, energy]


def normals(n, d, seed, shift=0.0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x


def test_two_distributions_get_every_divergence():
    comparison = compare(Normal(0.0, 1.0), Normal(1.0, 1.0))
    table = comparison.table
    assert list(table.index) == ["kl", "js", "tv", "hellinger2", "wasserstein", "mmd2", "energy"]
    assert list(table.columns) == COLUMNS
    assert table.loc["kl", "value"] == pytest.approx(0.5)
    assert table.loc["tv", "value"] == pytest.approx(0.382925, abs=1e-6)
    assert (table["reference"] == 0).all()
    assert comparison.estimates["kl"].method == "closed form"


def test_draws_get_the_divergences_that_draws_allow():
    x, y = normals(150, 2, 1), normals(200, 2, 2, 1.0)
    table = compare(x, y).table
    assert list(table.index) == ["kl", "tv", "wasserstein", "sliced_wasserstein", "mmd2", "energy"]
    for divergence in (kl, tv, wasserstein, sliced_wasserstein, mmd2, energy):
        estimate = divergence(x, y)
        row = table.loc[divergence.__name__]
        assert row["value"] == estimate.value
        assert (row["lower"], row["upper"]) == pytest.approx(estimate.interval())
        assert row["method"] == estimate.method
        assert row["seconds"] > 0


def test_the_reference_is_near_the_value_under_equality_and_far_below_it_otherwise():
    same = compare(normals(80, 3, 1), normals(60, 3, 2), divergences=[wasserstein]).table.loc["wasserstein"]
    assert abs(same["value"] - same["reference"]) < 6 * same["reference_sd"]
    assert same["reference"] > 0.3, "the plug-in is biased upwards, and so is its reference"
    apart = compare(normals(80, 3, 1), normals(60, 3, 2, 2.0), divergences=[wasserstein]).table.loc["wasserstein"]
    assert apart["value"] > apart["reference"] + 6 * apart["reference_sd"]


def test_the_reference_of_an_unbiased_estimate_is_around_zero():
    rows = [compare(normals(40, 1, 2 * s), normals(50, 1, 2 * s + 1), divergences=[energy]).table for s in range(12)]
    references = pd.concat(rows)["reference"]
    assert abs(references.mean()) < 4 * references.std() / math.sqrt(12)  # false alarm below 3e-3: t with 11 df


def test_divergences_can_be_chosen_and_fixed():
    x, y = normals(30, 2, 1), normals(30, 2, 2, 1.0)
    table = compare(x, y, divergences=[energy, partial(wasserstein, order=2)]).table
    assert list(table.index) == ["energy", "wasserstein(order=2)"]
    assert table.loc["wasserstein(order=2)", "value"] == wasserstein(x, y, order=2).value


def test_what_does_not_apply_is_listed_with_its_reason_unless_it_was_asked_for():
    comparison = compare(Normal(0.0, 1.0), Cauchy(0.0, 1.0))
    assert math.isnan(comparison.table.loc["wasserstein", "value"])
    assert comparison.table.loc["wasserstein", "method"] == "none"
    assert "finite moment" in repr(comparison)
    assert "energy" not in comparison.estimates
    with pytest.raises(ValueError, match="finite moment"):
        compare(Normal(0.0, 1.0), Cauchy(0.0, 1.0), divergences=[js, wasserstein])
    with pytest.raises(ValueError, match="a classifier needs at least 20 draws"):
        compare(normals(10, 1, 1), normals(10, 1, 2), divergences=[js])


def test_where_there_is_a_test_there_is_a_p_value():
    x, y = normals(100, 2, 1), normals(100, 2, 2, 1.5)
    kernel = partial(mmd2, kernel=RBF(0.5))
    table = compare(x, y, divergences=[kl, tv, wasserstein, mmd2, kernel, energy]).table
    assert list(table.index[table["p_value"].isna()]) == ["kl", "wasserstein"]
    for row, statistic in [("tv", "classifier"), ("mmd2", "mmd2"), (table.index[4], RBF(0.5)), ("energy", "energy")]:
        assert table.loc[row, "p_value"] == two_sample_test(x, y, statistic, permutations=199).p_value == 0.005
    weighted = compare(probdl.Draws(x, np.arange(1, 101)), y, divergences=[energy])
    assert math.isnan(weighted.table.loc["energy", "p_value"])
    assert math.isnan(compare(Normal(0.0, 1.0), Normal(1.0, 1.0)).table.loc["energy", "p_value"])


def test_a_lower_bound_is_compared_with_zero():
    comparison = compare(normals(60, 2, 1), normals(60, 2, 2, 1.5), divergences=[tv])
    row = comparison.table.loc["tv"]
    assert (row["reference"], row["reference_sd"], row["target"]) == (0.0, 0.0, "lower bound")
    assert "held-out lower bound" in repr(comparison)
    assert comparison.plot() is not None


def test_draws_that_a_divergence_cannot_use_leave_a_gap_with_the_reason():
    comparison = compare(np.repeat([0.0, 1.0, 2.0], 5), np.repeat([1.0, 2.0, 4.0], 5))
    assert comparison.table["value"].isna().tolist() == [True, True, False, False, False]
    for words in ("tied with another draw", "at least 20 draws"):
        assert words in repr(comparison)


def test_a_withheld_interval_is_a_gap_in_the_table():
    row = compare(normals(50, 1, 1), normals(50, 1, 2), divergences=[energy]).table.loc["energy"]
    assert np.isnan([row["stderr"], row["lower"], row["upper"]]).all()
    assert not np.isnan(row["value"])


def test_an_infinite_value_stays_infinite():
    table = compare(Normal(0.0, 1.0), torch.distributions.Exponential(1.0), divergences=[kl, tv]).table
    assert table.loc["kl", "value"] == math.inf


def test_weights_and_frames_are_compared():
    x, y = pd.DataFrame(normals(30, 2, 1), columns=["a", "b"]), pd.DataFrame(normals(20, 2, 2), columns=["a", "b"])
    weighted = compare(probdl.Draws(x, np.arange(1, 31)), y, divergences=[wasserstein]).table
    assert weighted.loc["wasserstein", "reference"] > 0
    with pytest.raises(ValueError, match="x and y must have the same columns"):
        compare(x, y[["b", "a"]])


def test_a_distribution_against_draws_is_compared():
    table = compare(Normal(0.0, 1.0), normals(100, 1, 1, 1.0)).table
    assert list(table.index) == ["kl", "tv", "wasserstein", "mmd2", "energy"]
    assert table.loc["wasserstein", "value"] == pytest.approx(1.0, abs=0.5)


def test_the_same_seed_gives_the_same_table():
    x, y = normals(30, 2, 1), normals(30, 2, 2)
    tables = [compare(x, y, divergences=[kl, *METRICS], seed=s).table.drop(columns="seconds") for s in (3, 3, 4)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["reference"].equals(tables[2]["reference"])


def test_it_can_be_read_as_text_and_in_a_notebook():
    comparison = compare(normals(30, 1, 1), normals(30, 1, 2))
    text, html = repr(comparison), comparison._repr_html_()
    for words in ("wasserstein", "u-statistic", "permutation", "random splits"):
        assert words in text
        assert words in html
    assert "<table" in html
    assert "nan" not in text.lower()


def test_the_picture_shows_every_divergence_and_its_reference():
    comparison = compare(normals(150, 2, 1), normals(150, 2, 2, 1.0), divergences=METRICS)
    panels = comparison.plot().figure.axes
    shown = [[label.get_text() for label in panel.get_yticklabels()] for panel in panels]
    assert shown == [["wasserstein"], ["mmd2"], ["energy"]]
    ax = comparison.plot(plt.figure().add_subplot())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["wasserstein", "mmd2", "energy"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"estimate", "one distribution"}
    assert compare(Normal(0.0, 1.0), Cauchy(0.0, 1.0)).plot() is not ax
    assert isinstance(comparison, Comparison)


def test_the_legend_names_the_reference_also_where_the_first_row_has_none():
    comparison = compare(normals(60, 2, 1), normals(60, 2, 2, 1.0), divergences=[tv, energy])
    assert not comparison.table.loc["tv", "reference"] > 0
    panels = comparison.plot().figure.axes
    assert {text.get_text() for text in panels[0].get_legend().get_texts()} >= {"estimate", "one distribution"}
    assert panels[1].get_legend() is None


def test_something_that_is_not_a_divergence_is_refused():
    with pytest.raises(TypeError, match="divergences must be a list of functions such as probdl.divergences.energy"):
        compare(normals(5, 1, 1), normals(5, 1, 2), divergences=["kl"])
    with pytest.raises(TypeError, match="Put it in brackets"):
        compare(normals(5, 1, 1), normals(5, 1, 2), divergences=energy)


def test_importing_the_room_loads_nothing_heavy():
    code = "import sys, probdl.divergences; print([m for m in ('ot', 'scipy', 'pandas', 'matplotlib', 'pyro', 'sklearn') if m in sys.modules])"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_scale_shows_zero_the_reference_of_each_row_and_its_p_value():
    """Of a quadrature error of 1e-15 a scale of its own would show nothing but rounding."""
    known = compare(Normal(0.0, 1.0), Uniform(-1.0, 1.0))
    assert known.estimates["kl"].value == math.inf
    for panel in known.plot().figure.axes:
        panel.figure.canvas.draw()
        assert panel.get_xlim()[0] <= 0 <= panel.get_xlim()[1]
        assert panel.get_xlim()[1] - panel.get_xlim()[0] > 1e-3
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = compare(x[:100], x[100:] + 1)
    panels = dict(zip(drawn.table.index, drawn.plot().figure.axes))
    for name, row in drawn.table.iterrows():
        _, reference = panels[name].containers
        assert float(reference.lines[0].get_xdata(orig=False)[0]) == row.reference
        said = [text.get_text() for text in panels[name].texts]
        assert said == ([] if math.isnan(row.p_value) else [f"p = {row.p_value:.3g}"])
    assert drawn.table["p_value"].notna().sum() >= 2
