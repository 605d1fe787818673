"""What an embedding keeps is measured as scikit-learn measures it, with errors over rows; own models join in."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist
from sklearn.datasets import load_iris
from sklearn.manifold import trustworthiness as theirs
from sklearn.neighbors import NearestNeighbors

from probdl.models import PCA, Autoencoder, KMeans, embed_compare
from probdl.models.projections import quality
from probdl.models.projections.quality import agreement, continuity, stress, trustworthiness

G = torch.Generator().manual_seed(0)
X = torch.randn(90, 6, generator=G, dtype=torch.float64)
Y = X[:, :2] + 0.3 * torch.randn(90, 2, generator=G, dtype=torch.float64)
IRIS = load_iris()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14))
def test_trustworthiness_is_that_of_scikit_learn_and_continuity_the_same_exchanged(seed, k):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(31, 4, generator=g, dtype=torch.float64), torch.randn(31, 2, generator=g, dtype=torch.float64)
    assert trustworthiness(x, y, k).value == pytest.approx(theirs(x, y, n_neighbors=k), abs=1e-12)
    assert continuity(x, y, k).value == pytest.approx(theirs(y, x, n_neighbors=k), abs=1e-12)


def test_the_measures_do_not_depend_on_the_tiles(monkeypatch):
    labels = (X[:, 0] > 0).long()
    before = [trustworthiness(X, Y), continuity(X, Y), stress(X, Y), agreement(Y, labels)]
    monkeypatch.setattr(quality, "TILE", 7)
    after = [trustworthiness(X, Y), continuity(X, Y), stress(X, Y), agreement(Y, labels)]
    assert [e.value for e in after] == pytest.approx([e.value for e in before], abs=1e-12)
    assert [e.stderr for e in after] == pytest.approx([e.stderr for e in before], abs=1e-12)


def test_the_standard_error_is_that_of_the_rows_losses():
    n, k = len(X), 5
    ranks = torch.cdist(X, X).argsort(1).argsort(1).numpy()
    near = NearestNeighbors(n_neighbors=k).fit(Y.numpy()).kneighbors(return_distance=False)
    rows = [1 - 2 / (k * (2 * n - 3 * k - 1)) * np.maximum(0, ranks[i, near[i]] - k).sum() for i in range(n)]
    found = trustworthiness(X, Y, k)
    assert found.value == pytest.approx(np.mean(rows))
    assert found.stderr == pytest.approx(np.std(rows, ddof=1) / math.sqrt(n))
    assert "not over other samples" in found.notes[0]


def test_stress_is_that_of_the_best_scaling():
    given_, drawn = pdist(X.numpy()), pdist(Y.numpy())
    best = minimize_scalar(lambda b: ((given_ - b * drawn) ** 2).sum() / (given_**2).sum())
    assert stress(X, Y).value == pytest.approx(math.sqrt(best.fun))
    assert stress(X, 7 * Y).value == pytest.approx(math.sqrt(best.fun))
    assert stress(X, 3 * X + 1).value == pytest.approx(0, abs=1e-7)
    alone = stress(X, 0 * Y)
    assert (alone.value, alone.stderr, alone.notes) == (1.0, None, ("all points coincide",))


def test_the_standard_error_of_stress_is_its_spread_over_samples():
    g = torch.Generator().manual_seed(1)
    found = []
    for _ in range(300):
        x = torch.randn(80, 4, generator=g, dtype=torch.float64)
        found.append(stress(x, x[:, :2]))
    said = np.mean([e.stderr for e in found])
    assert said / np.std([e.value for e in found]) == pytest.approx(1, abs=0.2)  # known to 4 %, and linearised


def test_agreement_is_the_share_of_neighbours_with_the_same_label():
    labels = (X[:, 0] > 0).long()
    near = NearestNeighbors(n_neighbors=4).fit(Y.numpy()).kneighbors(return_distance=False)
    shares = (labels.numpy()[near] == labels.numpy()[:, None]).mean(1)
    found = agreement(Y, labels, 4)
    assert found.value == pytest.approx(shares.mean())
    assert found.stderr == pytest.approx(shares.std(ddof=1) / math.sqrt(90))


def test_every_method_is_measured_on_iris():
    found = embed_compare(IRIS.data, labels=IRIS.target_names[IRIS.target], steps=20)
    table = found.table
    assert list(table.index) == ["pca", "mds", "som", "ae", "vae", "tsne"]
    measures = ["trustworthiness", "continuity", "stress", "agreement"]
    assert list(table.columns) == [*sum(([m, f"{m} se"] for m in measures), []), "seconds"]
    assert all(y.shape == (150, 2) for y in found.embeddings.values())
    assert table.notna().all(axis=None)
    u = (IRIS.data - IRIS.data.mean(0)) / IRIS.data.std(0)
    for name, y in found.embeddings.items():
        if name != "som":  # whose points coincide
            assert table.trustworthiness[name] == pytest.approx(theirs(u, y, n_neighbors=12), abs=2e-3), name
            near = NearestNeighbors(n_neighbors=12).fit(y.numpy()).kneighbors(return_distance=False)
            same = (IRIS.target[near] == IRIS.target[:, None]).mean()
            assert table.agreement[name] == pytest.approx(same, abs=2e-3), name
    assert table.trustworthiness.drop(["ae", "vae"]).min() > 0.95
    assert table.stress.idxmin() == "mds"
    assert table.trustworthiness["tsne"] > table.trustworthiness["pca"]
    torch.testing.assert_close(found.embeddings["pca"], PCA(2).fit(IRIS.data).encode(IRIS.data))
    assert "not over other samples" in repr(found)


def test_the_same_seed_gives_the_same_points_and_ties_do_not_follow_the_order_of_the_rows():
    first, again = (embed_compare(X, ["vae", "som"], steps=5, seed=2, neighbours=5) for _ in range(2))
    assert all(torch.equal(first.embeddings[name], again.embeddings[name]) for name in ("vae", "som"))
    assert first.table.drop(columns="seconds").equals(again.table.drop(columns="seconds"))

    class Two:
        def encode(self, x):
            return torch.zeros(len(x), 2) + torch.tensor([1.0, 0.0]) * (torch.arange(len(x)) % 2)[:, None]

    labels = torch.arange(400) // 300  # sorted: the next in the table nearly all agree; of all, 0.75² + 0.25² do
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    assert embed_compare(noise, [Two()], labels).table.agreement.iloc[0] == pytest.approx(0.625, abs=0.03)
    assert agreement(Two().encode(noise).double(), labels).value > 0.9


def test_models_of_ones_own_join_in_fitted_or_not():
    fitted, new = PCA(2).fit(X), Autoencoder(2, hidden=(4,))
    before = fitted.components
    found = embed_compare(X, ["pca", {"mine": fitted}, PCA(2, whiten=True), PCA(2), fitted], neighbours=5)
    assert list(found.embeddings) == ["pca", "mine", "PCA", "PCA 2", "PCA 3"]
    assert torch.equal(found.embeddings["pca"], found.embeddings["mine"])
    assert torch.equal(found.embeddings["pca"], found.embeddings["PCA 2"])
    assert fitted.components is before or torch.equal(fitted.components, before)
    found = embed_compare(X, {"net": new, "line": "pca"}, neighbours=5)
    assert list(found.table.index) == ["net", "line"]
    assert new.fitted


def test_tables_images_duplicates_and_few_rows_are_taken():
    table = pd.DataFrame(X.numpy(), columns=list("abcdef")).assign(g=["u", "v", "w"] * 30)
    images = torch.rand(40, 1, 4, 4, generator=G, dtype=torch.float64)
    copies = torch.cat([X[:15], X[:15]])
    for x in (table, images, copies):
        found = embed_compare(x, ["pca", "mds", "som", "tsne"], neighbours=5)
        assert found.table.notna().all(axis=None)
    assert found.table.trustworthiness["tsne"] > 0.8


def test_numbers_with_fractions_colour_and_no_more():
    t = torch.linspace(0, 1, 90)
    found = embed_compare(X, ["pca"], t, neighbours=5)
    assert "agreement" not in found.table.columns
    panel = found.plot()["pca"]
    assert panel.collections[0].colorbar is not None


def test_each_embedding_has_a_panel_with_what_it_keeps_and_coinciding_points_are_drawn_apart():
    found = embed_compare(IRIS.data, ["pca", "som"], IRIS.target)
    panels = found.plot()
    figure = panels["pca"].figure
    assert list(panels) == ["pca", "som"]
    row = found.table.loc["pca"]
    assert panels["pca"].get_title() == f"pca: T {row.trustworthiness:.3f}, C {row.continuity:.3f}"
    assert sum(panel.get_legend() is not None for panel in panels.values()) == 1
    drawn = np.concatenate([c.get_offsets() for c in panels["pca"].collections])
    np.testing.assert_allclose(drawn, torch.cat([found.embeddings["pca"][IRIS.target == k] for k in range(3)]))
    apart = np.concatenate([c.get_offsets() for c in panels["som"].collections])
    places = torch.cat([found.embeddings["som"][IRIS.target == k] for k in range(3)]).numpy()
    assert len(np.unique(apart, axis=0)) == 150
    assert 0 < np.abs(apart - places).max() < 0.5
    own = plt.figure().subplots(1, 2)
    given_ = found.plot(dict(zip(["pca", "som"], own)))
    assert given_["som"] is own[1]
    assert figure is not own[0].figure
    with pytest.raises(ValueError, match="none for som"):
        found.plot(own[0])


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"methods": "pca"}, ValueError, "methods must be a list of names and models; got 'pca'"),
        ({"methods": []}, ValueError, "at least one name or model"),
        ({"methods": ["umap"]}, ValueError, "one of pca, mds, som, ae, vae, tsne or a model; got 'umap'"),
        ({"methods": [KMeans(3)]}, TypeError, "a model with encode; got KMeans"),
        ({"methods": [PCA(3)]}, ValueError, r"in 2 dimensions; 'PCA' gave \(90, 3\)"),
        ({"neighbours": 45}, ValueError, "neighbours must be below half the rows, 45; got 45"),
        ({"neighbours": 0}, ValueError, "neighbours must be a whole number of at least 1"),
        ({"labels": [1, 2]}, ValueError, r"labels must have shape \(90,\).*got \(2,\)"),
        ({"labels": [math.nan] * 90}, ValueError, "labels must be finite"),
    ],
)
def test_bad_arguments_are_named(how, error, says):
    with pytest.raises(error, match=says):
        embed_compare(X, **{"methods": ["pca"], **how})


def test_bad_rows_are_named():
    for bad, says in ((X[:0], "empty"), (X * 0, "must vary"), (X.masked_fill(X > 2, math.nan), "finite")):
        with pytest.raises(ValueError, match=says):
            embed_compare(bad, ["pca"])
    with pytest.raises(ValueError, match="neighbours must be at least 1 and below half the rows, 45; got 60"):
        trustworthiness(X, Y, 60)
