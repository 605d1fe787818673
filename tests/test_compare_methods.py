"""Several methods beside a reference: known errors are found, failures are rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pyro_models import logistic, normal_regression

from probdl import data
from probdl.errors import ConvergenceWarning
from probdl.inference import NUTS, CoordinateAscent, MeanField, compare_methods, compare_posteriors, fit


@pytest.fixture(scope="module")
def correlated():
    """A linear regression with two covariates of correlation 0.9, whose posterior is known."""
    rng = np.random.default_rng(2)
    x = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=50)
    y = x @ [1.0, 0.5] + 0.5 * rng.normal(size=50)
    return x, y


def test_an_exact_method_has_no_error_and_mean_field_the_known_one(correlated):
    result = compare_methods(normal_regression, correlated, ["laplace", "meanfield"], reference="ep", progress=False)
    X, _ = correlated
    precision = X.T @ X / 0.25 + np.eye(2) / 4
    ratio = (np.diag(precision) * np.diag(np.linalg.inv(precision))) ** -0.5
    table = result.table
    assert table.loc["laplace", "max_error"] < 1e-5
    assert abs(table.loc["laplace", "evidence_gap"]) < 1e-6
    np.testing.assert_allclose(table.loc["meanfield", "sd_ratio"], ratio.mean(), rtol=0.02)
    bound = 0.5 * (np.linalg.slogdet(precision)[1] - np.log(np.diag(precision)).sum())  # minus KL of the best product
    np.testing.assert_allclose(table.loc["meanfield", "evidence_gap"], bound, rtol=0.05)
    assert table.loc["ep", "mc_error"] == 0
    assert result.evidence.stderr == 0


def test_against_nuts_every_error_has_its_monte_carlo_error(correlated):
    sampler = NUTS(draws=300, warmup=100, chains=2)
    result = compare_methods(normal_regression, correlated, ["ep"], reference=sampler, progress=False)
    row, reference = result.table.loc["ep"], result.table.loc["nuts"]
    assert 0.01 < reference["mc_error"] < 0.2
    assert row["max_error"] < 5 * row["mc_error"]  # of 2 entries, at a false-alarm rate of 1e-6
    assert np.isnan(reference["log_evidence"])
    assert f"{reference['mc_error']:.2g} sd" in repr(result)
    columns = compare_posteriors(result.posteriors["ep"], result.posteriors["nuts"])
    assert row["mean_error"] == columns["shift"].abs().mean()


def test_a_method_that_does_not_fit_is_a_row_that_says_why():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    y = (rng.random(40) < 0.5).astype(float)
    result = compare_methods(logistic, (X, y), ["laplace", CoordinateAscent(conjugate_only=True)], "ep", progress=False)
    row = result.table.loc["CoordinateAscent"]
    assert row["note"].startswith("failed: ")
    assert np.isnan(row["mean_error"])
    assert "CoordinateAscent" not in result.entries
    assert "CoordinateAscent: failed" in repr(result)


def test_a_method_that_does_not_converge_is_a_row_too(correlated):
    result = compare_methods(
        logistic, _separated(), {"few steps": MeanField(max_steps=1), "laplace": "laplace"}, "ep", progress=False
    )
    note = result.table.loc["few steps", "note"]
    assert note
    assert result.table.loc["laplace", "note"] == ""


def _separated():
    X = np.linspace(-1, 1, 20)[:, None]
    return X, (X[:, 0] > 0).astype(float)


def test_the_evidence_gap_is_counted_from_importance_sampling():
    X, y = data.breast_cancer(standardise=True)
    result = compare_methods(logistic, (X, y), ["ep", "laplace", "meanfield"], "laplace", progress=False)
    gaps = result.table["evidence_gap"]
    assert abs(gaps["ep"]) < 0.15 < 0.5 < -gaps["laplace"]
    assert gaps["meanfield"] < gaps["laplace"]
    assert 0 < result.evidence.stderr < 0.03
    assert result.table.index.tolist() == ["ep", "laplace", "meanfield", "laplace (reference)"]


@pytest.mark.parametrize("form", ["dict", "pair"])
def test_data_may_be_passed_by_name(correlated, form):
    X, y = correlated
    given = {"X": X, "y": y} if form == "dict" else ((X,), {"y": y})
    result = compare_methods(normal_regression, given, ["laplace"], "ep", progress=False)
    assert result.table.loc["laplace", "max_error"] < 1e-5


def test_a_posterior_fitted_before_can_be_the_reference(correlated):
    before = fit(normal_regression, *correlated, method="ep")
    result = compare_methods(normal_regression, correlated, ["laplace", "laplace"], before, progress=False)
    assert result.table.index.tolist() == ["laplace", "laplace 2", "expectation propagation"]
    assert result.posteriors["expectation propagation"] is before


def test_bad_input_is_an_error_and_not_a_row(correlated):
    X, y = correlated
    with pytest.raises(ValueError, match="must be finite"):
        compare_methods(normal_regression, (X, np.where(y > 1, np.nan, y)), ["laplace"], "ep")
    with pytest.raises(ValueError, match="at least one method"):
        compare_methods(normal_regression, (X, y), [], "ep")
    with pytest.raises(TypeError, match="must be a list"):
        compare_methods(normal_regression, (X, y), "laplace", "ep")


def test_the_picture_shows_every_entry_of_every_method(correlated):
    result = compare_methods(normal_regression, correlated, ["laplace", "meanfield"], "ep", progress=False)
    axes = result.plot()
    assert [len(line.get_xdata()) for line in axes[0].lines[1:]] == [2, 2]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["laplace", "meanfield"]
    np.testing.assert_allclose(axes[1].lines[2].get_xdata(), result.entries["meanfield"]["ratio"])
    _, own = plt.subplots(1, 2)
    assert result.plot(ax=own) is own
    plt.close("all")


def test_warnings_of_a_method_stand_in_its_note(correlated):
    class Warns:
        def run(self, program, seed=0, progress=None):
            import warnings

            warnings.warn("imprecise", ConvergenceWarning, stacklevel=2)
            return MeanField().run(program, seed, progress)

    result = compare_methods(normal_regression, correlated, [Warns()], "ep", progress=False)
    assert result.table.loc["Warns", "note"] == "imprecise"
    assert torch.get_default_dtype() is torch.float32
