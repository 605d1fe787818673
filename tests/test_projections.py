"""Principal components and multidimensional scaling: what scikit-learn and algebra find, with errors that cover."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import multivariate_normal
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA as Components
from sklearn.manifold import MDS as Smacof

from probdl import ConvergenceWarning, data
from probdl.models import MDS, PCA, evaluate
from probdl.models.projections.spectrum import signed

WINE = load_wine().data
G = torch.Generator().manual_seed(0)
X = torch.randn(200, 5, generator=G, dtype=torch.float64) @ torch.randn(5, 5, generator=G, dtype=torch.float64) + 3
CITIES = squareform(pdist(X[:30].numpy(), "cityblock"))


def close(ours, theirs, atol=1e-10):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-9, atol=atol)


@pytest.mark.parametrize("whiten", [False, True])
def test_components_codes_and_the_way_back_are_those_of_scikit_learn(whiten):
    ours, theirs = PCA(3, standardise="none", whiten=whiten).fit(X), Components(3, whiten=whiten).fit(X.numpy())
    signs = np.sign((ours.components.numpy() * theirs.components_).sum(1))
    close(ours.components, theirs.components_ * signs[:, None])
    close(ours.encode(X), theirs.transform(X.numpy()) * signs)
    close(ours.reconstruct(X), theirs.inverse_transform(theirs.transform(X.numpy())))
    close(ours.explained_variance.value, theirs.explained_variance_)
    close(ours.explained_variance_ratio.value, theirs.explained_variance_ratio_)
    close(ours.noise_variance, theirs.noise_variance_)
    largest = ours.components.abs().argmax(1)
    assert bool((ours.components[torch.arange(3), largest] > 0).all())


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_log_likelihood_is_that_of_scikit_learn(k):
    ours, theirs = PCA(k, standardise="none").fit(X), Components(k).fit(X.numpy())
    close(ours.log_likelihood(X).value, theirs.score_samples(X.numpy()))
    assert ours.log_likelihood(X).stderr == 0.0


@pytest.mark.parametrize("standardise", ["column", "shared"])
def test_the_log_likelihood_is_a_density_in_the_units_of_the_data(standardise):
    x = torch.as_tensor(WINE[:, :5])
    model = PCA(2, standardise=standardise).fit(x)
    u = model.units.inward(x).numpy()
    w, noise = model.components.numpy(), model.noise_variance
    cov = w.T @ np.diag(model.explained_variance.value.numpy() - noise) @ w + noise * np.eye(5)
    scale = np.broadcast_to(model.units.scale.numpy(), 5)
    law = multivariate_normal(x.numpy().mean(0), cov * np.outer(scale, scale))
    close(model.log_likelihood(x).value, law.logpdf(x.numpy()))
    assert u.std() == pytest.approx(1, abs=0.01)


def test_samples_have_the_covariance_of_the_model_and_means_lie_in_the_plane():
    model = PCA(2, standardise="none").fit(X)
    drawn = model.sample(40000, seed=1)
    w, noise = model.components, model.noise_variance
    cov = w.T @ torch.diag(model.explained_variance.value - noise) @ w + noise * torch.eye(5)
    assert float((torch.cov(drawn.T) - cov).abs().max() / cov.abs().max()) < 0.04
    close(drawn.mean(0), X.mean(0), atol=0.1)
    assert float(model.anomaly_score(model.sample(50, mean=True)).max()) < 1e-18
    assert torch.equal(model.sample(5, seed=3), model.sample(5, seed=3))
    assert not torch.equal(model.sample(5, seed=3), model.sample(5, seed=4))


def test_the_anomaly_score_is_the_squared_error_and_its_mean_the_discarded_eigenvalues():
    model = PCA(2).fit(X)
    u, back = (model.units.inward(rows) for rows in (X, model.reconstruct(X)))
    close(model.anomaly_score(X), (u - back).square().sum(1))
    discarded = torch.linalg.eigvalsh(torch.corrcoef(X.T))[:3].sum()
    close(model.anomaly_score(X).mean(), discarded)


@pytest.mark.parametrize(("standardise", "name"), [("none", "covariance"), ("column", "correlation matrix")])
def test_standard_errors_are_the_spread_over_normal_samples(standardise, name):
    g = torch.Generator().manual_seed(5)
    root = torch.tensor([[2.0, 0, 0, 0], [1.0, 1.2, 0, 0], [0.5, -0.6, 0.8, 0], [0.3, 0.2, 0.4, 0.5]]).double()
    fits = [
        PCA(3, standardise=standardise).fit(torch.randn(400, 4, generator=g, dtype=torch.float64) @ root.T)
        for _ in range(400)
    ]
    for quantity in ("explained_variance", "explained_variance_ratio"):
        found = [getattr(model, quantity) for model in fits]
        spread = torch.stack([e.value for e in found]).std(0)
        said = torch.stack([e.stderr for e in found]).mean(0)
        assert name in found[0].method
        assert found[0].n == 400
        close(said / spread, np.ones(3), atol=0.15)  # the sd of 400 draws is known to 3.5 %: four of these


def test_minkas_choice_is_that_of_scikit_learn_and_survives_a_file(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=g, dtype=torch.float64) @ torch.randn(3, 8, generator=g, dtype=torch.float64)
    x = x + 0.1 * torch.randn(300, 8, generator=g, dtype=torch.float64)
    model = PCA(mle=True, standardise="none").fit(x)
    assert model.latent_dim == Components("mle").fit(x.numpy()).n_components_ == 3
    model.save(tmp_path / "m.safetensors")
    again = PCA.load(tmp_path / "m.safetensors")
    assert (again.latent_dim, again.mle) == (3, True)
    assert again.fit(WINE).latent_dim == 12


def test_images_are_rows_and_components_have_their_shape():
    images = data.digits().images[:200]
    model = PCA(5).fit(images)
    assert model.components.shape == (5, 1, 8, 8)
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(3).shape == (3, 1, 8, 8)
    assert "covariance" in model.explained_variance.method
    assert bool(model.log_likelihood(images).value.isfinite().all())


def test_fewer_rows_than_dimensions_have_a_density_as_long_as_noise_is_left():
    x = X[:4].repeat(1, 3) + torch.arange(15) * torch.randn(4, 1, generator=G, dtype=torch.float64)
    model = PCA(2, standardise="shared").fit(x)
    assert model.log_likelihood(x).value.shape == (4,)
    total = torch.cov(model.units.inward(x).T).trace()
    close(model.noise_variance * 13 + model.explained_variance.value.sum(), total)
    with pytest.raises(ValueError, match="latent_dim must be at most 3, since 4 rows of 15 entries"):
        PCA(4).fit(x)
    with pytest.raises(ValueError, match="log_likelihood has no value"):
        PCA(3, standardise="shared").fit(x).log_likelihood(x)
    with pytest.raises(ValueError, match="mle needs at least as many rows as a row has entries, 15; got 4"):
        PCA(mle=True).fit(x)


def test_repeated_columns_have_components_but_no_density():
    x = X[:, [0, 0, 1]]
    model = PCA(2).fit(x)
    close(model.reconstruct(x), x)
    with pytest.raises(ValueError, match="Pass a smaller latent_dim"):
        model.log_likelihood(x)
    with pytest.raises(ValueError, match="Pass a smaller latent_dim"):
        PCA(3).fit(x).log_likelihood(x)
    with pytest.raises(ValueError, match="whiten must be False"):
        PCA(3, whiten=True).fit(x)
    with pytest.raises(ValueError, match="latent_dim must be a whole number of at least 1; got 0"):
        PCA(0)


def test_duplicates_are_rows_like_others():
    close(PCA(2).fit(torch.cat([X, X])).reconstruct(X), PCA(2).fit(X).reconstruct(X))


def test_a_table_comes_back_with_its_columns_and_says_that_categories_are_numbers():
    table = pd.DataFrame(X[:, :3].numpy(), columns=list("abc")).assign(d=["u", "v", "w", "u"] * 50)
    model = PCA(2).fit(table)
    assert list(model.sample(4).columns) == list("abcd")
    assert set(model.sample(20).d) <= {"u", "v", "w"}
    assert "numbers 0 and 1" in model.log_likelihood(table).notes[0]


def test_evaluate_judges_it_like_any_generative_model():
    table = evaluate(PCA(4, standardise="none").fit(X[:150]), X[150:], measures=["energy", "log_likelihood"]).table
    theirs = Components(4).fit(X[:150].numpy()).score(X[150:].numpy())
    assert table.loc["log_likelihood", "value"] == pytest.approx(theirs)


def test_classical_scaling_of_rows_gives_the_principal_scores():
    for standardise in ("none", "column"):
        points = MDS(3, standardise=standardise).fit(WINE).Y
        scores = PCA(3, standardise=standardise).fit(WINE).encode(WINE)
        signs = (points * scores).sum(0).sign()
        assert float((points - scores * signs).abs().max() / scores.abs().max()) < 1e-8


def test_classical_scaling_is_that_of_scikit_learn():
    manifold = pytest.importorskip("sklearn.manifold")
    if not hasattr(manifold, "ClassicalMDS"):
        pytest.skip("scikit-learn before 1.8 has no classical scaling")
    theirs = manifold.ClassicalMDS(2, metric="precomputed").fit_transform(CITIES)
    ours = MDS(2, precomputed=True).fit(CITIES).Y.numpy()
    close(ours, theirs * np.sign((ours * theirs).sum(0)), atol=1e-8)


def test_the_configuration_of_euclidean_distances_comes_back():
    model = MDS(5, precomputed=True).fit(squareform(pdist(X[:30].numpy())))
    close(squareform(pdist(model.Y.numpy())), squareform(pdist(X[:30].numpy())), atol=1e-8)
    assert (model.goodness, model.notes) == (pytest.approx(1), ())
    assert model.stress.value < 1e-7
    assert model.raw_stress < 1e-12


def test_axes_have_their_largest_entry_positive():
    assert signed(torch.tensor([[1.0, -2.0], [0.5, 0.25]])).tolist() == [[-1.0, 2.0], [0.5, 0.25]]
    for rows in (X, -X):
        points = MDS(3).fit(rows).Y
        assert bool((points.max(0).values == points.abs().max(0).values).all())


def test_new_rows_are_placed_by_gowers_formula():
    model = MDS(5, standardise="none").fit(X[:50])
    close(model.encode(X[:50]), model.Y, atol=1e-9)
    both = torch.cat([model.Y, model.encode(X[50:80])])
    close(squareform(pdist(both.numpy())), squareform(pdist(X[:80].numpy())), atol=1e-8)
    given_ = MDS(5, precomputed=True).fit(squareform(pdist(X[:50].numpy())))
    close(given_.encode(cdist(X[50:80].numpy(), X[:50].numpy())), model.encode(X[50:80]), atol=1e-8)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 50\)"):
        given_.encode(X[:2])
    with pytest.raises(ValueError, match="none below 0; the least is -1"):
        given_.encode(-torch.ones(1, 50))


@pytest.mark.filterwarnings("ignore::FutureWarning:sklearn")
def test_metric_scaling_descends_as_far_as_scikit_learn_from_the_same_start_and_below_the_classical():
    classical = MDS(2, precomputed=True).fit(CITIES)
    ours = MDS(2, precomputed=True, method="metric").fit(CITIES)
    kind = {"metric": "precomputed"} if "metric_mds" in Smacof().get_params() else {"dissimilarity": "precomputed"}
    theirs = Smacof(2, n_init=1, max_iter=1000, eps=1e-9, random_state=0, normalized_stress=False, **kind)
    reached = theirs.fit_transform(CITIES, init=classical.Y.numpy())
    assert ours.raw_stress == pytest.approx(theirs.stress_, rel=1e-4)
    assert procrustes(ours.Y.numpy(), reached)[2] < 1e-5
    assert ours.raw_stress < 0.9 * classical.raw_stress
    assert ours.stress.value < classical.stress.value
    close(ours.stress.value, np.sqrt(ours.raw_stress / (CITIES**2).sum() * 2), atol=1e-5)  # the scaling is the best
    with pytest.raises(NotImplementedError, match="fitted points are Y"):
        ours.encode(CITIES)
    with pytest.warns(ConvergenceWarning, match="larger iterations"):
        few = MDS(2, precomputed=True, method="metric", iterations=3).fit(CITIES)
    assert ours.raw_stress < few.raw_stress < classical.raw_stress  # it starts there and descends


def test_raw_stress_and_stress_are_the_sums_over_pairs():
    model = MDS(1, precomputed=True).fit(CITIES)
    given_, drawn = squareform(CITIES), pdist(model.Y.numpy())
    assert model.raw_stress == pytest.approx(((given_ - drawn) ** 2).sum())
    b = (given_ * drawn).sum() / (drawn**2).sum()
    assert model.stress.value == pytest.approx(np.sqrt(((given_ - b * drawn) ** 2).sum() / (given_**2).sum()))


def test_distances_that_no_points_have_are_said_with_the_share_of_negative_eigenvalues():
    four = np.array([[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]], dtype=float)  # a star: a metric
    model = MDS(2, precomputed=True).fit(four)
    values = np.linalg.eigvalsh(-0.5 * (np.eye(4) - 0.25) @ four**2 @ (np.eye(4) - 0.25))
    share = -values[values < -1e-12].sum() / np.abs(values).sum()
    assert f"negative eigenvalues hold {share:.3g} of the absolute sum" in model.notes[0]
    assert model.notes[1] == "they are a metric: no detour is shorter"
    assert model.notes[0] in model.message
    close(model.goodness, values[-2:].sum() / np.abs(values).sum())
    four[1, 2] = four[2, 1] = 4.0  # longer than over 0, by 2 of 4
    notes = MDS(2, precomputed=True).fit(four).notes
    assert notes[1] == "they are not a metric: a detour is shorter by up to 0.5 of the largest distance"


def test_single_precision_finds_the_same_and_takes_no_rounding_for_a_finding():
    for make in (lambda **how: PCA(2, **how), lambda **how: MDS(2, **how)):
        double, single = make().fit(X).encode(X), make(dtype=torch.float32).fit(X.float()).encode(X.float())
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single, double, atol=1e-4)
    model = PCA(2, dtype=torch.float32).fit(X.float())
    np.testing.assert_allclose(model.log_likelihood(X).value, PCA(2).fit(X).log_likelihood(X).value, atol=1e-3)
    table = torch.cdist(X, X).float()
    assert MDS(2, precomputed=True, dtype=torch.float32).fit((table + table.T) / 2).notes == ()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_euclidean_distances_never_bring_a_note(seed, n):
    rows = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model = MDS(1, precomputed=True).fit(torch.cdist(rows, rows))
    assert model.notes == ()
    assert 0 < model.goodness <= 1 + 1e-12


def changed(i, j, value):
    table = CITIES.copy()
    table[i, j] = value
    return table


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (CITIES[:, :7], r"x must be a table of distances \(n, n\).*got \(30, 7\)"),
        (CITIES[0], r"x must be a table of distances \(n, n\).*got \(30,\)"),
        (changed(1, 2, 99.0), r"x must be symmetric; x\[1, 2\] is 99 and x\[2, 1\] is"),
        (-CITIES, "none below 0"),
        (changed(3, 3, 1.0), "zeros on its diagonal.*got 1"),
        (0 * CITIES, "must vary"),
        (changed(1, 2, np.nan), "finite"),
    ],
)
def test_what_is_no_table_of_distances_is_an_error(table, says):
    with pytest.raises(ValueError, match=says):
        MDS(2, precomputed=True).fit(table)


def test_too_many_dimensions_are_an_error():
    with pytest.raises(ValueError, match="latent_dim must be at most the number of positive eigenvalues, 5; got 6"):
        MDS(6).fit(X)
    with pytest.raises(ValueError, match="method must be one of 'classical', 'metric'; got 'ordinal'"):
        MDS(2, method="ordinal")
    with pytest.raises(ValueError, match="iterations must be a whole number"):
        MDS(2, iterations=0)
