"""t-SNE keeps the probabilities that it says, descends the divergence that it reports, and names what it cannot do."""

import importlib
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import pdist, squareform
from scipy.special import rel_entr
from scipy.stats import entropy
from torch.distributions import Categorical

from probdl import data, divergences, viz
from probdl.viz.embeddings.affinities import Neighbourhoods, affinities
from probdl.viz.embeddings.similarity import Divergence
from probdl.viz.embeddings.tsne import _descend, _start


def rows(n, d=5, seed=0):
    """Return rows around three centres, of different spread."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 3
    centre = 4 * torch.randn(3, d, dtype=torch.float64, generator=g)
    return centre[label] + (1.0 + label)[:, None] * torch.randn(n, d, dtype=torch.float64, generator=g)


def conditional(X, sigma):
    """Return p(j|i) in NumPy, by the formula."""
    square = squareform(pdist(X)) ** 2
    np.fill_diagonal(square, np.inf)
    p = np.exp(-(square - square.min(1, keepdims=True)) / (2 * np.asarray(sigma)[:, None] ** 2))
    return p / p.sum(1, keepdims=True)


def similarity(Y):
    w = 1 / (1 + pdist(np.asarray(Y)) ** 2)
    return squareform(w) / (2 * w.sum())


def joint(n, seed=0):
    """Return any symmetric P with sum 1 and zeros on its diagonal."""
    p = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p = (p + p.T).fill_diagonal_(0)
    return p / p.sum()


def exact_divergence(P, Y, exaggeration=1.0):
    """Return Σ (e·p) log p − (e·p) log w + log Σw, whose gradient is the course's with e·p in the place of p."""
    n = len(P)
    off = ~torch.eye(n, dtype=torch.bool)
    w = 1 / (1 + (Y[:, None] - Y[None]).square().sum(-1))
    return (torch.xlogy(P, P)[off].sum() - exaggeration * (P * w.log())[off].sum()) + w[off].sum().log()


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 40.0])
def test_the_scale_of_every_row_gives_the_wanted_perplexity(perplexity):
    X = rows(300)
    P, sigma = affinities(X, perplexity)
    p = conditional(X, sigma)
    np.testing.assert_allclose(np.exp(entropy(p, axis=1)), perplexity, rtol=1e-8)
    np.testing.assert_allclose(P, (p + p.T) / 600, rtol=1e-9, atol=1e-15)


def test_the_scales_are_those_of_a_root_finder():
    X = rows(40).numpy()
    square = squareform(pdist(X)) ** 2

    def excess(sigma, i):
        p = np.exp(-np.delete(square[i], i) / (2 * sigma**2))
        return entropy(p / p.sum()) - math.log(7)

    expected = [brentq(excess, 0.3, 50, args=(i,), xtol=1e-13) for i in range(40)]
    np.testing.assert_allclose(affinities(torch.tensor(X), 7)[1], expected, rtol=1e-8)


def test_probabilities_of_the_digits_are_those_of_scikit_learn():
    """Its distances are float32 and its entropies right to 1e-5, so that entries agree to about 1e-5 of themselves."""
    from sklearn.manifold._t_sne import _joint_probabilities

    X = data.digits().images.flatten(1).double()
    expected = squareform(_joint_probabilities(squareform(pdist(X) ** 2), 30.0, 0))
    P = affinities(X, 30)[0].numpy()
    assert abs(P - expected).max() < 1e-5 * P.max()
    assert abs(P - expected).sum() < 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-600, 600), perplexity=st.floats(1.1, 20))
def test_probabilities_do_not_know_units_origin_and_rotation_and_scales_have_the_units(seed, power, perplexity):
    X = rows(61, seed=seed)
    turn = torch.linalg.qr(rows(5, seed=seed + 1))[0]
    P, sigma = affinities(X, perplexity)
    moved, scaled = affinities((X @ turn + 3) * 2.0**power, perplexity)
    torch.testing.assert_close(moved, P, rtol=1e-7, atol=1e-14)
    torch.testing.assert_close(scaled, sigma * 2.0**power, rtol=1e-7, atol=0)
    assert float(P.sum()) == pytest.approx(1)
    assert torch.equal(P, P.T)
    assert not P.diagonal().any()


@pytest.mark.parametrize("n", [7, 300])
def test_the_divergence_is_that_of_the_room_of_divergences(n):
    P, Y = joint(n), rows(n, 2, seed=1)
    of_pairs = [Categorical(t.flatten()) for t in (P, torch.tensor(similarity(Y)))]
    assert float(Divergence(P)(Y)) == pytest.approx(divergences.kl(*of_pairs).value, abs=1e-10)


@pytest.mark.parametrize("exaggeration", [1.0, 12.0])
@pytest.mark.parametrize(("n", "dim"), [(7, 2), (300, 2), (300, 3), (600, 2)])  # one tile, several, with ragged ends
def test_the_gradient_is_that_of_autograd(n, dim, exaggeration):
    P = joint(n)
    Y = rows(n, dim, seed=1).requires_grad_()
    (expected,) = torch.autograd.grad(exact_divergence(P, Y, exaggeration), Y)
    found = Divergence(P).gradient(Y.detach(), exaggeration)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("n", "width"), [(7, 1.0), (7, 1e4), (300, 1.0), (300, 1e-4)])
def test_the_divergence_is_that_of_scipy(n, width):
    P, Y = joint(n), width * rows(n, 2, seed=1)
    assert float(Divergence(P)(Y)) == pytest.approx(rel_entr(P.numpy(), similarity(Y)).sum(), rel=1e-10)


def descent_by_the_book(P, Y, n_iter):
    """Van der Maaten's loop in NumPy; the gradient is autograd's."""
    update, gain = np.zeros_like(Y), np.ones_like(Y)
    for k in range(n_iter):
        early = k < n_iter // 4
        y = torch.tensor(Y, requires_grad=True)
        (g,) = torch.autograd.grad(exact_divergence(P, y, 12.0 if early else 1.0), y)
        grows = np.sign(g.numpy()) * np.sign(update) < 0
        gain = np.maximum((gain + 0.2) * grows + (gain * 0.8) * ~grows, 0.01)
        update = (0.5 if early else 0.8) * update - len(Y) * (1 / 48 if early else 1 / 12) * gain * g.numpy()
        Y = Y + update
        Y = Y - Y.mean(0)
    return Y


def test_the_descent_is_that_of_the_paper():
    P, Y = affinities(rows(60), 10)[0], rows(60, 2, seed=3)
    found, _ = _descend(Divergence(P), Y, 60)
    np.testing.assert_allclose(found, descent_by_the_book(P, Y.numpy(), 60), rtol=1e-8, atol=1e-10)


def test_the_early_phase_ends_after_250_iterations():
    class Recorded(Divergence):
        seen = []

        def gradient(self, Y, exaggeration=1.0):
            self.seen.append(exaggeration)
            return super().gradient(Y, exaggeration)

    _descend(Recorded(joint(6)), rows(6, 2), 1100)
    assert Recorded.seen == [12.0] * 250 + [1.0] * 850


def test_a_picture_that_loses_nothing_is_found_again():
    """P := Q(Y) of twelve points: the divergence and its gradient are 0 there, and the descent comes back to Y."""
    Y = rows(12, 2)
    divergence = Divergence(torch.tensor(similarity(Y)))
    assert float(divergence(Y)) == pytest.approx(0, abs=1e-13)
    assert float(divergence.gradient(Y).abs().max()) < 1e-13
    found, trace = _descend(divergence, Y, 2000)
    assert float(trace.max()) > 0.01  # it was driven away in the early phase
    assert float(divergence(found)) < 1e-10
    np.testing.assert_allclose(pdist(found), pdist(Y), atol=1e-3)


def test_the_trace_starts_at_the_start_and_ends_at_the_end():
    X = rows(60)
    found, start = viz.tsne(X, perplexity=10, n_iter=105), _start(X, 2, 0, "pca")
    P = affinities(X, 10)[0].numpy()
    assert found.kl_trace.shape == (11,)
    assert float(found.kl_trace[0]) == pytest.approx(rel_entr(P, similarity(start)).sum())
    assert found.kl == pytest.approx(rel_entr(P, similarity(found.Y)).sum())
    shorter = viz.tsne(X, perplexity=10, n_iter=100)
    assert float(shorter.kl_trace[-1]) == shorter.kl
    torch.testing.assert_close(found.sigma, affinities(X, 10)[1])


@pytest.mark.parametrize("dim", [2, 3])
def test_a_picture_is_at_a_minimum_and_centred(dim):
    X = rows(60)
    found = viz.tsne(X, dim, perplexity=10, n_iter=1500)
    assert found.Y.shape == (60, dim)
    assert found.kl < found.kl_trace[:-1].min() + 1e-9
    assert float(found.Y.mean(0).abs().max()) < 1e-10
    assert float(Divergence(affinities(X, 10)[0]).gradient(found.Y).abs().max()) < 2e-5


def test_a_third_dimension_lowers_the_divergence():
    X = rows(90, 10)
    flat, deep = (viz.tsne(X, dim, perplexity=15, n_iter=500).kl for dim in (2, 3))
    assert deep < 0.9 * flat


def test_no_worse_than_scikit_learn_s_exact_method():
    from sklearn.manifold import TSNE, trustworthiness

    X = data.digits().images[:250].flatten(1).double()
    other = TSNE(perplexity=30, method="exact", max_iter=500).fit_transform(X.numpy())
    found = viz.tsne(X, n_iter=500)
    P = affinities(X, 30)[0].numpy()
    assert found.kl < 1.01 * rel_entr(P, similarity(other)).sum()
    ours, theirs = (trustworthiness(X.numpy(), np.asarray(y), n_neighbors=12) for y in (found.Y, other))
    assert ours > theirs - 0.003


@pytest.mark.slow
def test_the_digits_are_shown_with_little_loss():
    from sklearn.manifold import trustworthiness

    X = data.digits().images.flatten(1).double()
    found = viz.tsne(X)
    assert found.kl <= 0.69
    assert trustworthiness(X.numpy(), found.Y.numpy(), n_neighbors=12) >= 0.990


def test_the_start_is_the_principal_components_with_the_largest_score_positive():
    from sklearn.decomposition import PCA

    for X in (rows(60), rows(20, 50)):
        scores = PCA(2).fit_transform(X.numpy())
        start = _start(X, 2, 0, "pca").numpy()
        assert start[:, 0].std(ddof=1) == pytest.approx(1e-4)
        expected = 1e-4 * scores / scores[:, 0].std(ddof=1)
        expected *= np.sign(expected[abs(expected).argmax(0), [0, 1]])
        np.testing.assert_allclose(start, expected, atol=1e-12)


def test_the_same_call_gives_the_same_picture_and_leaves_the_global_seed():
    X, before = rows(60), torch.get_rng_state()
    for init in ("pca", "random"):
        one, two = (viz.tsne(X, perplexity=10, n_iter=30, init=init) for _ in range(2))
        assert torch.equal(one.Y, two.Y)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_thread_computes_and_the_number_of_threads_is_restored(monkeypatch):
    seen, before, gradient = set(), torch.get_num_threads(), Divergence.gradient

    def recorded(self, *args):
        seen.add(torch.get_num_threads())
        return gradient(self, *args)

    monkeypatch.setattr(Divergence, "gradient", recorded)
    torch.set_num_threads(2)
    try:
        viz.tsne(rows(60), perplexity=10, n_iter=5, device="cpu")
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_random_start_is_small_and_follows_the_seed():
    X = rows(3000, 2)
    start = _start(X, 2, 1, "random")
    assert float(start.std()) == pytest.approx(1e-4, rel=0.05)  # 5 standard errors: a false alarm in 10⁶
    assert not torch.equal(start, _start(X, 2, 2, "random"))


def test_a_given_start_is_taken():
    X, Y = rows(60), rows(60, 2, seed=9)
    found = viz.tsne(X, perplexity=10, n_iter=20, init=Y.numpy())
    expected, trace = _descend(Divergence(affinities(X, 10)[0]), Y, 20)
    assert torch.equal(found.Y, expected)
    assert torch.equal(found.kl_trace, trace)


def test_images_are_flattened_and_float32_is_computed_in_float64(device):
    X = data.digits().images[:100]
    found = viz.tsne(X, perplexity=10, n_iter=20, device=device)
    assert found.Y.dtype == found.sigma.dtype == torch.float64
    assert found.Y.device.type == device.type
    other = viz.tsne(X.flatten(1).double(), perplexity=10, n_iter=20, device="cpu")
    torch.testing.assert_close(found.Y.cpu(), other.Y)


@pytest.fixture
def many(monkeypatch):
    """Make 100 rows so many that their pairs are not held."""
    module = importlib.import_module("probdl.viz.embeddings.tsne")
    monkeypatch.setattr(module, "MANY", 100)


@pytest.mark.parametrize("n", [7, 520])
def test_probabilities_in_tiles_are_those_of_the_table(n):
    X = 1e-3 * rows(n)
    P, sigma = affinities(X, 5)
    near = Neighbourhoods.of(X, 5)
    torch.testing.assert_close(near[0:n, 0:n], P, rtol=1e-12, atol=0)
    torch.testing.assert_close(near[3:n, 0:3], P[3:, :3], rtol=1e-12, atol=0)
    torch.testing.assert_close(near.sigma, sigma, rtol=1e-12, atol=0)
    Y = rows(n, 2, seed=1)
    assert float(Divergence(near)(Y)) == pytest.approx(float(Divergence(P)(Y)), rel=1e-12)
    torch.testing.assert_close(Divergence(near).gradient(Y), Divergence(P).gradient(Y), rtol=1e-10, atol=1e-15)


def test_tiles_that_are_computed_anew_are_never_held():
    n, held, tile = 700, [], Neighbourhoods.__getitem__

    class Watched(Neighbourhoods):
        def __getitem__(self, place):
            found = tile(self, place)
            held.append(weakref.ref(found))
            assert sum(each() is not None for each in held) <= 2
            return found

    Divergence(Watched.of(rows(n), 20))(rows(n, 2, seed=1))
    assert len(held) == 2 * 6


@pytest.mark.parametrize(("dim", "method"), [(2, "interpolated (openTSNE)"), (3, "Barnes-Hut (openTSNE)")])
def test_above_the_limit_opentsne_moves_the_points_and_the_divergence_is_exact(many, dim, method):
    pytest.importorskip("openTSNE")
    X = data.digits().images[:300].flatten(1).double()
    found = viz.tsne(X, dim, perplexity=20, n_iter=237)
    P, sigma = affinities(X, 20)
    assert found.method == method
    assert found.Y.shape == (300, dim)
    assert found.kl == pytest.approx(rel_entr(P.numpy(), similarity(found.Y)).sum(), rel=1e-10)
    torch.testing.assert_close(found.sigma, sigma)
    assert found.kl_trace.shape == (24,)
    assert bool(found.kl_trace[0].isnan())
    assert float(found.kl_trace[-1]) == pytest.approx(found.kl, rel=0.25)  # openTSNE's P is sparse
    exact = viz.tsne(X[:100], dim, perplexity=20, n_iter=10)
    assert exact.method == "exact"


def test_opentsne_s_picture_is_the_same_at_each_call(many):
    pytest.importorskip("openTSNE")
    one, two = (viz.tsne(rows(120), perplexity=10, n_iter=50).Y for _ in range(2))
    assert torch.equal(one, two)
    shifted = viz.tsne(rows(120), perplexity=10, n_iter=50, init=1e-4 * rows(120, 2, seed=4)).Y
    assert not torch.allclose(one, shifted)


def test_where_opentsne_is_missing_the_error_says_what_to_do(many, monkeypatch):
    monkeypatch.setattr("probdl.viz.embeddings.many_rows.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'more than 100 rows .* got 101 rows. Run pip install "probdl\[tsne\]", or'):
        viz.tsne(rows(101), perplexity=10)


X = rows(60)
TWICE = torch.cat([X, X[:2], X[:1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perplexity": 20}, r"more than 3 · perplexity = 60 rows; got 60.*below 20"),
        ({"perplexity": 1}, "perplexity must be a number of neighbours above 1; got 1"),
        ({"perplexity": math.nan}, "perplexity must be a number"),
        ({"X": TWICE}, "distinct rows; 3 of 63 repeat an earlier one, the most frequent 3 times"),
        ({"X": torch.full((60, 2), math.nan)}, "X must be finite"),
        ({"X": torch.eye(60)}, "perplexity must exceed .* got 10, and 59 rows are equally near to row 0"),
        ({"dim": 1}, "dim must be 2 or 3; got 1"),
        ({"dim": 2.0}, "dim must be 2 or 3; got 2.0"),
        ({"n_iter": 0}, "n_iter must be a positive integer; got 0"),
        ({"n_iter": 10.0}, "n_iter must be a positive integer; got 10.0"),
        ({"init": "spectral"}, "init must be 'pca', 'random' or an array .* got 'spectral'"),
        ({"init": X}, r"init must have shape \(60, 2\), .* got \(60, 5\)"),
        ({"X": X[:, 0]}, "vary in 2 directions or more. Pass init='random'"),
        ({"X": X[:, :1] * torch.ones(3)}, "vary in 2 directions or more. Pass init='random'"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        viz.tsne(**{"X": X, "perplexity": 10, "n_iter": 10, **change})


def test_perplexity_must_exceed_the_number_of_rows_that_are_equally_near():
    tied = torch.cat([torch.eye(12, dtype=torch.float64), 50 + rows(48, 12)])  # 11 rows nearest to each of the first 12
    with pytest.raises(ValueError, match="got 11, and 11 rows are equally near to row 0"):
        affinities(tied, 11)
    _, sigma = affinities(tied, 11.1)
    assert bool((sigma > 0).all())


def test_words_are_no_rows():
    with pytest.raises(TypeError, match="X must hold numbers"):
        viz.tsne([["a", "b"]] * 60, perplexity=10)


def test_one_column_and_nearest_neighbours_at_equal_distance_are_no_trouble():
    line = viz.tsne(torch.arange(60.0), perplexity=10, n_iter=300, init="random")  # two rows nearest to each
    assert line.kl < 0.5 * line.kl_trace[0]
    np.testing.assert_allclose(line.sigma, line.sigma.flip(0), rtol=1e-7)


def test_points_that_run_away_are_reported():
    from probdl import ConvergenceError

    far = 1e200 * rows(60, 2)
    with pytest.raises(ConvergenceError, match="ran away"):
        viz.tsne(X, perplexity=10, n_iter=10, init=far)
