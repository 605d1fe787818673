"""The page on what each divergence sees is made by the code, and its numbers are those of SciPy and of closed forms."""

import importlib.util
import math

import numpy as np
import pandas as pd
import pytest
from house import ROOT
from scipy import integrate, stats
from test_docs import markdown

PAGE = ROOT / "docs" / "which_divergence.md"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("which_divergence", PAGE.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values(tables):
    return tables.values()


@pytest.mark.parametrize("table", ["seen", "apart", "held"])
def test_the_tables_of_the_page_are_those_of_the_code(tables, table):
    made = getattr(tables, table)()
    assert made.size > 10
    assert markdown(made) in PAGE.read_text(encoding="utf-8")


def mixture(of=stats.norm, weight=0.5, shift=0.0, scale=1.0, sd=0.7):
    """Return the log-density, which stays finite where the density is 0 in float64."""
    parts = (of(shift - 2 * scale, scale * sd), of(shift + 2 * scale, scale * sd))
    return lambda x: np.logaddexp(math.log(1 - weight) + parts[0].logpdf(x), math.log(weight) + parts[1].logpdf(x))


LAWS = {
    "shifted by 0.4": mixture(shift=0.4),
    "widened by 15 %": mixture(scale=1.15),
    "a mode weakened": mixture(weight=0.35),
    "heavy tails": mixture(lambda at, scale: stats.t(2.5, at, scale), sd=0.6),
}
ORIGINAL = mixture()
INTEGRANDS = {  # of the log-densities a and b
    "kl": lambda a, b: math.exp(a) * (a - b),
    "tv": lambda a, b: abs(math.exp(a) - math.exp(b)) / 2,
    "js": lambda a, b: (math.log(2) * (math.exp(a) + math.exp(b)) + math.exp(a) * (a - np.logaddexp(a, b))
                        + math.exp(b) * (b - np.logaddexp(a, b))) / 2,
    "hellinger2": lambda a, b: (math.exp(a / 2) - math.exp(b / 2)) ** 2 / 2,
}  # fmt: skip


@pytest.mark.parametrize("change", LAWS)
@pytest.mark.parametrize("kind", INTEGRANDS)
def test_the_values_are_scipy_s(values, change, kind):
    f = lambda x: INTEGRANDS[kind](LAWS[change](x), ORIGINAL(x))  # noqa: E731
    cuts = [-math.inf, *range(-8, 9, 2), math.inf]  # a heavy tail needs the whole line, and |p - q| has corners
    truth = sum(integrate.quad(f, *piece, limit=200, epsabs=1e-9, epsrel=1e-8)[0] for piece in zip(cuts, cuts[1:]))
    assert values.loc[f"`{kind}`", change] == pytest.approx(truth, rel=1e-5)


def test_the_values_that_are_known_in_closed_form(values):
    wasserstein, renyi, hellinger2 = (values.loc[f"`{kind}`"] for kind in ("wasserstein", "renyi", "hellinger2"))
    assert wasserstein["shifted by 0.4"] == pytest.approx(0.4, rel=1e-9)  # all mass goes .4
    assert wasserstein["a mode weakened"] == pytest.approx(0.15 * 4, rel=1e-3)  # 15 % of the mass goes 4
    pd.testing.assert_series_equal(renyi, -2 * (1 - hellinger2).map(math.log), check_names=False, rtol=1e-8)
    assert values.loc["`chi2`", "heavy tails"] == math.inf  # a Student t against a Normal


def test_what_the_page_says_of_the_changes_holds(values):
    most = values.idxmax(axis=1)
    assert set(most[["`kl`", "`chi2`"]]) == {"heavy tails"}
    assert set(most[["`js`", "`tv`", "`hellinger2`"]]) == {"shifted by 0.4"}
    assert set(most[["`wasserstein`", "`energy`", "`mmd2`"]]) == {"a mode weakened"}
    assert (values["heavy tails"] / values.max(axis=1))[["`energy`", "`mmd2`"]].max() < 0.05  # hardly anything
