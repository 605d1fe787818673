"""Pairs of entries: each joint density where it belongs, several posteriors overlaid, and drawn by a posterior."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.path import Path
from torch.distributions import MultivariateNormal

from probdl import viz
from probdl.inference import NUTS, fit
from probdl.viz.posteriors.regions import surface


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def three(n, seed=0):
    """Three entries of different units, of which b follows the square of a."""
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"a": z[:, 0], "b": 10 * (0.5 * z[:, 1] + z[:, 0] ** 2), "c": 100 + 0.01 * z[:, 2]}


def outlines(panel):
    return [artist for artist in panel.collections if hasattr(artist, "levels")]


def share_inside(path, x, y):
    points = torch.stack([x, y], 1).numpy()
    return np.logical_xor.reduce([Path(polygon).contains_points(points) for polygon in path.to_polygons()]).mean()


def test_each_panel_holds_the_stated_share_of_new_draws_of_its_column_and_row():
    panels, fresh = viz.pairs(three(4000)), three(20_000, seed=1)
    assert list(panels) == [("a", "a"), ("b", "a"), ("b", "b"), ("c", "a"), ("c", "b"), ("c", "c")]
    for row, column in [("b", "a"), ("c", "a"), ("c", "b")]:
        outer, inner = outlines(panels[row, column])[0].get_paths()
        assert share_inside(outer, fresh[column], fresh[row]) == pytest.approx(0.9, abs=0.03)
        assert share_inside(inner, fresh[column], fresh[row]) == pytest.approx(0.5, abs=0.03)


def test_the_diagonal_is_a_density_of_its_entry():
    panels = viz.pairs(three(4000))
    x, density = panels["a", "a"].lines[0].get_data()
    np.testing.assert_allclose(density, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), atol=0.03)
    assert all(np.trapezoid(panels[e, e].lines[0].get_ydata(), panels[e, e].lines[0].get_xdata()) > 0.99 for e in "abc")


def test_panels_of_one_column_have_its_range_and_name_and_those_above_the_diagonal_are_gone():
    panels = viz.pairs(three(500))
    assert panels["b", "a"].get_xlim() == panels["c", "a"].get_xlim() == panels["a", "a"].get_xlim()
    assert panels["c", "a"].get_ylim() == panels["c", "b"].get_ylim() == panels["c", "c"].get_xlim()
    assert [panels["c", e].get_xlabel() for e in "abc"] == ["a", "b", "c"]
    assert panels["b", "a"].get_ylabel() == "b"
    assert sum(ax.get_visible() for ax in panels["a", "a"].figure.axes) == 6


def test_a_second_posterior_gets_its_own_colour_and_line_and_both_are_within_the_limits():
    first, second = three(500), {name: 3 * x for name, x in three(500, seed=1).items()}
    panels = viz.pairs(first, label="ep")
    again = viz.pairs(second, panels, label="nuts")
    assert again == panels
    pair = outlines(again["b", "a"])
    assert len({tuple(c.get_edgecolor()[0]) for c in pair}) == len({str(c.get_linestyle()) for c in pair}) == 2
    assert [t.get_text() for t in again["a", "a"].get_legend().get_texts()] == ["ep", "nuts"]
    assert again["a", "a"].get_legend().get_title().get_text() == "regions of 50 % and 90 %"
    for entry in "abc":
        low, high = again[entry, entry].get_xlim()
        assert low < min(first[entry].quantile(0.01), second[entry].quantile(0.01))
        assert high > max(first[entry].quantile(0.99), second[entry].quantile(0.99))


def test_the_taller_of_two_densities_is_within_its_panel_in_whichever_order_they_are_drawn():
    x = torch.linspace(-3, 3, 50)
    wide, tall = (x, torch.exp(-(x**2) / 2) / 2.5), (x, torch.exp(-8 * x**2) * 1.6)
    for order in ((wide, tall), (tall, wide)):
        panels = viz.marginals({"a": order[0]}, label="first")
        panels = viz.marginals({"a": order[1]}, panels, label="second")
        assert panels["a"].get_ylim()[0] == 0
        assert 1.6 < panels["a"].get_ylim()[1] < 1.8


def test_draws_are_dots_at_their_place_and_not_too_many():
    x = three(1001)
    dots = viz.pairs(x)["c", "b"].collections[0].get_offsets()
    assert len(dots) == 400
    np.testing.assert_allclose(dots[[0, -1]], [[x["b"][i], x["c"][i]] for i in (0, 1000)])
    assert len(viz.pairs(x, points=False)["c", "b"].collections) == 1


def test_truths_are_lines_in_the_column_and_in_the_row():
    panels = viz.pairs(three(100), truth={"b": 7.0})
    assert list(panels["b", "b"].lines[-1].get_xdata()) == [7.0, 7.0]
    assert list(panels["c", "b"].lines[-1].get_xdata()) == [7.0, 7.0]
    assert list(panels["b", "a"].lines[-1].get_ydata()) == [7.0, 7.0]
    assert len(panels["c", "a"].lines) == 0


def test_what_is_known_better_than_from_draws_is_drawn_as_it_is():
    law = MultivariateNormal(torch.tensor([5.0, -5.0]), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    panels = viz.pairs(
        {"a": three(50)["a"], "c": three(50)["c"]},
        curves={"a": ([0.0, 1.0], [0.5, 0.25])},
        joints={("c", "a"): law},
    )
    assert list(panels["a", "a"].lines[0].get_ydata()) == [0.5, 0.25]
    np.testing.assert_allclose(outlines(panels["c", "a"])[0].levels, surface(law, (0.9, 0.5)).levels, rtol=1e-6)


def test_one_axes_takes_the_joint_density_of_two():
    ax = plt.figure().subplots()
    panels = viz.pairs({"a": three(99)["a"], "b": three(99)["b"]}, ax, label="ep")
    assert panels == {("b", "a"): ax}
    assert viz.pairs({"a": three(99, 1)["a"], "b": three(99, 1)["b"]}, panels, label="nuts") == panels
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["ep", "nuts"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def regression(x, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
    s = pyro.sample("s", dist.Gamma(2.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b, s), obs=y)


@pytest.fixture(scope="module")
def rows():
    z = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z[:, :3] + 1, z[:, 0] + 2 + z[:, 3]


def test_a_posterior_draws_its_pairs_and_a_gaussian_one_its_ellipses(rows):
    posterior = fit(regression, *rows, method="laplace")
    panels = posterior.plot(["w[2]", "b", "s"], kind="pairs", label="laplace")
    assert [key for key in panels if key[0] != key[1]] == [("b", "w[2]"), ("s", "w[2]"), ("s", "b")]
    covariance, at = posterior.cov("w", "b"), [2, 3]
    mean = torch.stack([posterior.mean("w")[2], posterior.mean("b")])
    outer, _ = outlines(panels["b", "w[2]"])[0].get_paths()
    ring = torch.as_tensor(outer.vertices) - mean
    squares = (ring @ torch.linalg.inv(covariance[at][:, at]) * ring).sum(1)
    np.testing.assert_allclose(squares, -2 * math.log(0.1), rtol=0.02)
    assert len(panels["b", "w[2]"].collections) == 1  # without dots: nothing was sampled


def test_a_sampler_lies_over_an_approximation(rows):
    panels = fit(regression, *rows, method="laplace").plot(["b", "w[0]"], kind="pairs", label="laplace")
    nuts = fit(regression, *rows, method=NUTS(draws=60, warmup=60, chains=1))
    panels = nuts.plot(["b", "w[0]"], kind="pairs", ax=panels)
    assert [t.get_text() for t in panels["b", "b"].get_legend().get_texts()] == ["laplace", "nuts"]
    assert len(outlines(panels["w[0]", "b"])) == 2
    assert len(panels["w[0]", "b"].collections) == 3  # two outlines and the dots of the draws


@pytest.mark.parametrize("kind", ["marginals", "forest"])
def test_other_pictures_of_a_posterior_take_single_entries_too(rows, kind):
    drawn = fit(regression, *rows, method="laplace").plot(["w[1]", "b"], kind=kind)
    names = list(drawn) if kind == "marginals" else [t.get_text() for t in drawn.get_yticklabels()]
    assert names == ["w[1]", "b"]


def wide(y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([12]).to_event(1))
    pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)


def test_too_many_entries_are_refused_with_a_choice():
    posterior = fit(wide, torch.tensor(1.0), method="laplace")
    with pytest.raises(ValueError, match=r"2 to 8 different entries; got 12. Choose .* names=\['w\[0\]', 'w\[1\]'"):
        posterior.plot(kind="pairs")
    with pytest.raises(ValueError, match="no latent site 'w\\[12\\]'"):
        posterior.plot(["w[12]", "w[0]"], kind="pairs")
    with pytest.raises(ValueError, match="kind must be one of 'marginals', 'forest', 'pairs', 'trace'"):
        posterior.plot(kind="pair")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: viz.pairs({"a": three(20)["a"]}), ValueError, "2 to 8 different entries; got 1. Add another"),
        (lambda: viz.pairs(three(20), names=["a", "a"]), ValueError, "got 1"),
        (lambda: viz.pairs(three(20), names=["a", "z"]), ValueError, "among those of draws, a, b, c; not there: z"),
        (lambda: viz.pairs(three(9)), ValueError, r"draws of \(a, b\) must hold at least 10 draws.*got 9"),
        (lambda: viz.pairs(three(20) | {"b": torch.ones(20)}), ValueError, r"draws of \(a, b\) must vary"),
        (lambda: viz.pairs(three(20) | {"b": torch.ones(21)}), ValueError, r"same number .*'b': \(21,\)"),
        (lambda: viz.pairs({"a": torch.ones(20, 2), "b": torch.ones(20, 2)}), ValueError, r"\(n,\); got .*\(20, 2\)"),
        (lambda: viz.pairs(three(20) | {"b": [math.nan] * 20}), ValueError, "draws of b must be finite"),
        (lambda: viz.pairs(three(20) | {"b": ["x"] * 20}), TypeError, "draws of b must hold numbers"),
        (lambda: viz.pairs(three(20), masses=(0.5, 90)), ValueError, r"between 0 and 1; got \[0.5, 90\]"),
        (lambda: viz.pairs(three(20), {}), ValueError, "it has none for"),
        (lambda: viz.pairs(three(20), plt.figure().subplots()), ValueError, "one Axes takes 2 entries, not 3"),
        (lambda: viz.pairs(three(20), "here"), TypeError, "ax must be None, Axes, or a mapping"),
        (lambda: viz.pairs(torch.ones(20, 2)), TypeError, "draws must be a mapping"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
