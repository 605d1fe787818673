"""k-means: scikit-learn's answer in the data's units, nearest centres, and refusals."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as Lloyd
from sklearn.metrics import adjusted_rand_score

from probdl.models import KMeans

rng = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [60, 30, 10])
X = rng.normal(size=(100, 2)) * [1.0, 100.0] + np.array([[0, 0], [9, 0], [0, 900]])[LABELS]


def in_order(centres):
    return centres[np.lexsort(centres.T)]


@pytest.mark.parametrize("standardise", ["none", "column", "shared"])
def test_centres_and_inertia_are_scikit_learns(standardise):
    ours = KMeans(3, standardise=standardise).fit(X, seed=1)
    shift, scale = {"none": (0, 1), "column": (X.mean(0), X.std(0)), "shared": (X.mean(), X.std())}[standardise]
    theirs = Lloyd(3, n_init=10, random_state=1).fit((X - shift) / scale)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_ * scale + shift, rtol=1e-8)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-10)
    assert adjusted_rand_score(theirs.labels_, ours.predict(X)) == 1


def test_clusters_of_columns_in_unlike_units_are_found_when_each_is_standardised():
    assert adjusted_rand_score(LABELS, KMeans(3).fit(X).predict(X)) > 0.95
    assert adjusted_rand_score(LABELS, KMeans(3, standardise="none").fit(X).predict(X)) < 0.7


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_few_points_on_a_line_reach_a_fixed_point_not_below_the_best_of_all_partitions(seed):
    """Clusters of least squares on a line are intervals, of which all are tried; Lloyd's ends are local."""
    x = np.sort(np.random.default_rng(seed).normal(size=9))
    cuts = itertools.combinations(range(1, 9), 2)
    best = min(sum(len(p) * p.var() for p in np.split(x, cut)) for cut in cuts)
    model = KMeans(3, starts=20, standardise="none").fit(x)
    assert best * (1 - 1e-9) <= model.inertia < 2 * best
    of, centres = model.predict(x).numpy(), model.centres.flatten().numpy()
    np.testing.assert_allclose([x[of == j].mean() for j in range(3)], centres, atol=1e-12)
    assert (np.diff(centres[of]) >= 0).all()


def test_each_row_goes_to_the_centre_that_is_nearest_in_standardised_units():
    model = KMeans(4).fit(X)
    gaps = ((X[:, None] - model.centres.numpy()) / X.std(0)) ** 2
    assert model.predict(X).tolist() == gaps.sum(2).argmin(1).tolist()
    assert gaps.sum(2).min(1).sum() == pytest.approx(model.inertia)


def test_centres_of_a_table_have_its_columns_and_the_most_frequent_category():
    table = pd.DataFrame(X, columns=["a", "b"]).assign(kind=np.where(LABELS == 1, "u", "v"), count=LABELS)
    model = KMeans(3).fit(table)
    assert model.centres.columns.tolist() == ["a", "b", "kind", "count"]
    of = model.predict(table).numpy()
    for j in range(3):
        assert model.centres["kind"][j] == table["kind"][of == j].mode()[0]
        np.testing.assert_allclose(
            model.centres[["a", "b", "count"]].iloc[j], table[["a", "b", "count"]][of == j].mean(), atol=1e-9
        )


def test_equal_rows_do_not_leave_a_cluster_empty():
    x = np.repeat([[0.0], [1.0], [5.0], [5.1]], [50, 50, 1, 1], axis=0)
    model = KMeans(4).fit(x)
    assert sorted(model.predict(x).bincount().tolist()) == [1, 1, 50, 50]
    assert model.inertia == pytest.approx(0, abs=1e-20)
    np.testing.assert_allclose(in_order(model.centres.numpy())[:, 0], [0, 1, 5, 5.1], atol=1e-12)


def test_more_clusters_than_distinct_rows_are_refused():
    with pytest.raises(ValueError, match="at least as many distinct rows as clusters, 3; got 2"):
        KMeans(3).fit([[0.0], [1.0], [1.0], [0.0]])


def test_one_cluster_is_the_mean():
    model = KMeans(1).fit(X)
    np.testing.assert_allclose(model.centres[0], X.mean(0))
    assert model.inertia == pytest.approx(X.size)


def test_single_precision_and_images_work():
    images = torch.rand(30, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    model = KMeans(2, dtype=torch.float32).fit(images)
    assert (model.centres.shape, model.centres.dtype) == ((2, 1, 3, 3), torch.float32)


@pytest.mark.parametrize("bad", [0, 2.5, True, "3"])
def test_numbers_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ValueError, match="clusters must be a whole number"):
        KMeans(bad)
    with pytest.raises(ValueError, match="starts must be a whole number"):
        KMeans(3, starts=bad)
