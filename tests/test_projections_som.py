"""Self-organising maps: k-means where no unit has neighbours, weighted means where they have, in order on the sheet."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, load_wine

from probdl import ConvergenceWarning, viz
from probdl.models import SOM
from probdl.models.projections.grids import neighbours, positions
from probdl.models.projections.som import batch_pass

G = torch.Generator().manual_seed(0)
X = torch.randn(300, 3, generator=G, dtype=torch.float64)
IRIS, WINE = (torch.as_tensor(load().data) for load in (load_iris, load_wine))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def squares(shape, grid="hexagonal"):
    places = positions(shape, grid)
    return torch.cdist(places, places).square()


def kernel_mean(model, x, radius):
    """The batch equation, in NumPy and row by row."""
    u = model.units.inward(x).numpy()
    apart = ((u[:, None] - model.nodes.numpy()) ** 2).sum(2)
    places = model.places.numpy()[apart.argmin(1)]
    h = np.exp(-((model.places.numpy()[:, None] - places) ** 2).sum(2) / (2 * radius**2))
    return (h @ u) / h.sum(1, keepdims=True)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_with_radius_zero_a_pass_is_a_step_of_lloyds_k_means():
    start = X[:12]
    for _ in range(3):
        ours = batch_pass(X, start, squares((3, 4)), 0.0)
        theirs = KMeans(12, init=start.numpy(), n_init=1, max_iter=1, algorithm="lloyd").fit(X.numpy())
        np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-10)
        start = ours


def test_without_neighbours_the_map_ends_where_k_means_ends_from_the_same_start():
    start = SOM((3, 3), radius=(0, 0), passes=1, standardise="none").fit(X).nodes
    model = KMeans(9, init=start.numpy(), n_init=1, tol=0, algorithm="lloyd").fit(X.numpy())
    np.testing.assert_allclose(start, model.cluster_centers_, atol=1e-10)


@pytest.mark.parametrize("grid", ["hexagonal", "square"])
@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_at_the_end_each_unit_is_the_weighted_mean_of_the_rows(grid, radius):
    model = SOM((4, 5), grid=grid, radius=(radius, radius)).fit(IRIS)
    np.testing.assert_allclose(model.nodes, kernel_mean(model, IRIS, radius), atol=1e-8)
    assert float(model.nodes.std(0).min()) > 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 5), st.sampled_from(["hexagonal", "square"]))
def test_a_pass_stays_within_the_rows_and_moves_with_them(seed, radius, grid):
    g = torch.Generator().manual_seed(seed)
    rows, nodes = (torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (30, 12))
    found = batch_pass(rows, nodes, squares((3, 4), grid), radius)
    assert bool(found.isfinite().all())
    assert bool(((found >= rows.min(0).values - 1e-9) & (found <= rows.max(0).values + 1e-9)).all())
    moved = batch_pass(3 * rows + 1, 3 * nodes + 1, squares((3, 4), grid), radius)
    torch.testing.assert_close(moved, 3 * found + 1)


def test_a_unit_without_rows_takes_the_mean_of_the_nearest_that_have_some():
    rows, nodes = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.4], [50.0], [9.0]])
    for radius in (0.0, 1e-3):
        found = batch_pass(rows, nodes, squares((1, 3)).float(), radius)
        torch.testing.assert_close(found, torch.tensor([[0.5], [10 / 3], [9.0]]))


def test_a_chain_of_units_is_in_order_on_a_line():
    x = torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = SOM((1, 10)).fit(x[torch.randperm(400, generator=torch.Generator().manual_seed(2))])
    steps = model.codebook.diff()
    assert bool((steps > 0.04).all())
    np.testing.assert_allclose(model.codebook, np.arange(0.05, 1, 0.1), atol=0.035)


@pytest.mark.parametrize("x", [IRIS, WINE], ids=["iris", "wine"])
def test_the_errors_of_a_map_are_what_they_say_by_brute_force(x):
    model = SOM((6, 8)).fit(x)
    u = model.units.inward(x).numpy()
    apart = np.sqrt(((u[:, None] - model.nodes.numpy()) ** 2).sum(2))
    best = apart.argsort(1)[:, :2]
    places = model.places.numpy()
    far = np.linalg.norm(places[best[:, 0]] - places[best[:, 1]], axis=1) > 1.01
    q, t = model.quantisation_error(x), model.topographic_error(x)
    assert q.value == pytest.approx(apart.min(1).mean())
    assert q.stderr == pytest.approx(apart.min(1).std(ddof=1) / math.sqrt(len(x)))
    assert t.value == pytest.approx(far.mean())
    assert t.stderr == pytest.approx(far.std(ddof=1) / math.sqrt(len(x)))
    np.testing.assert_array_equal(model.predict(x), best[:, 0])
    np.testing.assert_array_equal(model.encode(x), places[best[:, 0]])
    assert model.hits(x).shape == (6, 8)
    np.testing.assert_array_equal(model.hits(x).flatten(), np.bincount(best[:, 0], minlength=48))


def test_iris_keeps_its_topology():
    model = SOM((6, 8)).fit(IRIS)
    assert model.topographic_error(IRIS).value < 0.1
    assert model.quantisation_error(IRIS).value < 0.35  # from 1.5 of a single unit


def test_neighbours_are_six_or_eight_and_places_a_step_apart():
    for grid, inner, corner in (("hexagonal", 6, 2), ("square", 8, 3)):
        touch = neighbours(positions((5, 5), grid), grid)
        assert int(touch[12].sum()) == inner
        assert int(touch[0].sum()) == corner
        apart = torch.cdist(*[positions((5, 5), grid)] * 2)
        assert float(apart[apart > 0].min()) == pytest.approx(1)


def test_the_u_matrix_is_the_mean_distance_to_neighbours_and_parts_two_clouds():
    x = torch.cat([X, X + 20])
    model = SOM((3, 9), grid="square").fit(x)
    nodes = model.nodes.reshape(3, 9, -1).numpy()
    found = model.u_matrix()
    around = [(i, j) for i in range(3) for j in range(3, 6) if (i, j) != (1, 4)]
    assert found[1, 4].item() == pytest.approx(np.mean([np.linalg.norm(nodes[1, 4] - nodes[i, j]) for i, j in around]))
    assert int(found.mean(0).argmax()) in (3, 4, 5)
    assert float(found.max()) > 4 * float(found[:, [0, -1]].max())


def test_the_way_back_is_the_row_of_the_unit():
    model = SOM((4, 4)).fit(IRIS)
    torch.testing.assert_close(model.reconstruct(IRIS), model.codebook[model.predict(IRIS)])
    torch.testing.assert_close(model.decode(model.places), model.codebook)
    torch.testing.assert_close(model.decode(model.places + 0.2), model.codebook)


def test_duplicates_and_more_units_than_rows_are_no_obstacle():
    model = SOM((5, 5)).fit(torch.cat([IRIS[::30]] * 3))
    assert bool(model.nodes.isfinite().all())
    assert model.quantisation_error(IRIS[::30]).value < 0.6


def test_a_map_that_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr("probdl.models.projections.som.SETTLE", 1)
    with pytest.warns(ConvergenceWarning, match="still changes by"):
        SOM((6, 6), radius=(0.5, 0.5), passes=1).fit(WINE)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"shape": 8}, "shape must be two whole numbers"),
        ({"shape": (0, 3)}, "each side of shape must be a whole number of at least 1; got 0"),
        ({"shape": (1, 1)}, "at least 2 units"),
        ({"grid": "round"}, "grid must be one of 'hexagonal', 'square'; got 'round'"),
        ({"radius": 1.0}, "radius must be two numbers"),
        ({"radius": (2.0, -1.0)}, "each of radius must be a number of at least 0; got -1.0"),
        ({"radius": (1.0, 2.0)}, "radius must not grow; got 1.0 to 2.0"),
        ({"passes": 0}, "passes must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_named(how, says):
    with pytest.raises(ValueError, match=says):
        SOM(**how)
    with pytest.raises(ValueError, match="labels need the rows"):
        SOM((2, 2)).fit(X).plot(labels=[1])


@pytest.mark.parametrize(("grid", "corners"), [("hexagonal", 6), ("square", 4)])
def test_units_are_drawn_with_their_corners_where_they_stand(grid, corners):
    model = SOM((3, 4), grid=grid).fit(X)
    ax = model.plot()
    cells = ax.collections[0]
    shapes = [path.vertices[:-1] for path in cells.get_paths()]
    assert all(len(shape) == corners for shape in shapes)
    np.testing.assert_allclose([shape.mean(0) for shape in shapes], model.places, atol=1e-12)
    np.testing.assert_allclose(cells.get_array(), model.u_matrix().flatten())
    if grid == "hexagonal":  # they tile: the corners that two cells share are the same
        assert len({tuple(np.round(v, 6)) for shape in shapes for v in shape}) < 12 * corners / 1.6


def test_dots_have_the_area_of_their_number_and_the_colour_of_the_commonest_label():
    ax = viz.u_matrix(torch.ones(2, 2), units=[0, 0, 0, 0, 3], labels=["b", "a", "a", "a", "b"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    many, one = ax.collections[1:3]
    widths = [np.ptp(dots.get_paths()[0].vertices[:, 0]) for dots in (many, one)]
    assert widths[0] / widths[1] == pytest.approx(2)
    assert to_hex(many.get_facecolor()[0]) == viz.style.LINES[0].lower()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: viz.u_matrix([1.0]), r"values must have shape \(rows, columns\)"),
        (lambda: viz.u_matrix([[-1.0]]), "none below 0"),
        (lambda: viz.u_matrix([[1.0]], grid="round"), "grid must be one of"),
        (lambda: viz.u_matrix([[1.0]], labels=["a"]), "labels need units"),
        (lambda: viz.u_matrix([[1.0]], units=[1]), "whole numbers from 0 to 0"),
        (lambda: viz.u_matrix([[1.0]], units=[0], labels=["a", "b"]), r"labels must have shape \(1,\)"),
        (lambda: viz.u_matrix([[1.0]], units=[0] * 11, labels=range(11)), "at most 10 values.*got 11"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
