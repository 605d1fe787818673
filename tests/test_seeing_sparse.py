"""Sparse coding finds the dictionary that patches were made of."""

import numpy as np
import pytest
import torch

from probdl import ConvergenceWarning, data, viz
from probdl.viz.seeing.sparse import patches, whitened

SIDE, N = 6, 3000


def codes(n_atoms, seed=0):
    """Draw codes of which one in seven is not zero."""
    generator = np.random.default_rng(seed)
    return generator.laplace(size=(N, n_atoms)) * (generator.random((N, n_atoms)) < 0.15)


def unit(atoms):
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def found_again(filters, atoms):
    """Return for each true atom the largest |cosine| with a filter."""
    return np.abs(filters.flatten(1).numpy() @ atoms.T).max(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dictionary_without_order_is_found_again(channels):
    generator = np.random.default_rng(1)
    atoms = generator.standard_normal((16, channels * SIDE**2))
    atoms = unit(atoms - atoms.mean(1, keepdims=True))
    x = codes(16) @ atoms + 0.01 * generator.standard_normal((N, channels * SIDE**2))
    images = x.reshape(N, channels, SIDE, SIDE)
    filters = viz.sparse_filters(images, n_filters=16, window=SIDE, n_patches=N, whiten=False)
    cosines = found_again(filters, atoms)
    assert (cosines > 0.95).mean() >= 0.9
    assert np.median(cosines) > 0.99
    strangers = unit(generator.standard_normal((16, channels * SIDE**2)))
    assert found_again(filters, strangers).max() < 0.8
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(16, dtype=torch.float64))


def test_whitening_takes_correlations_away_before_the_dictionary_is_sought():
    """Orthonormal atoms Q, coloured by a matrix B, symmetric and positive: the filters are Q and not BQ."""
    generator = np.random.default_rng(2)
    d = SIDE**2
    basis = np.linalg.qr(np.column_stack([np.ones(d), generator.standard_normal((d, d - 1))]))[0][:, 1:]  # of mean zero
    turn = np.linalg.qr(generator.standard_normal((d - 1, d - 1)))[0]
    colour = basis @ turn @ np.diag(np.geomspace(0.15, 1, d - 1)) @ turn.T @ basis.T
    x = codes(d - 1) @ (colour @ basis).T
    images = x.reshape(N, SIDE, SIDE)
    filters = viz.sparse_filters(images, n_filters=d - 1, window=SIDE, n_patches=2 * N)
    assert np.median(found_again(filters, basis.T)) > 0.98
    assert np.median(found_again(filters, unit((colour @ basis).T))) < 0.9


def test_whitened_patches_have_no_correlation_where_there_is_more_than_noise():
    generator = np.random.default_rng(3)
    x = generator.standard_normal((5000, 8)) @ generator.standard_normal((8, 8))
    before, after = np.linalg.eigvalsh(np.cov(x.T)), np.cov(whitened(x).T)
    expected = np.sort(before / (before + 0.01 * before.mean()))
    np.testing.assert_allclose(np.linalg.eigvalsh(after), expected, rtol=1e-3)
    assert (np.sum(whitened(x) * x, axis=0) > 0).all()  # not turned away from the pixels


def test_patches_are_windows_of_the_images_less_their_means():
    stack = np.arange(2 * 3 * 5 * 7, dtype=float).reshape(2, 3, 5, 7) ** 2
    found = patches(stack, (2, 4), 500, np.random.default_rng(0))
    windows = [stack[i, :, r : r + 2, c : c + 4].ravel() for i in range(2) for r in range(4) for c in range(4)]
    gaps = np.abs(found[:, None] - np.array([window - window.mean() for window in windows])).max(2)
    assert gaps.min(1).max() < 1e-9
    assert set(gaps.argmin(1)) == set(range(len(windows)))


def test_the_same_seed_gives_the_same_filters_and_no_global_generator_moves():
    images = data.digits().images[:200]
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = [viz.sparse_filters(images, 8, (5, 4), n_patches=300, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    assert found[0].shape == (8, 1, 5, 4)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)


def test_codes_that_are_not_found_to_the_end_are_a_warning():
    with pytest.warns(ConvergenceWarning, match="codes of some patches were not found to the end") as record:
        viz.sparse_filters(data.digits().images, 60, window=5, n_patches=1000, penalty=0.05)
    assert [warning.filename for warning in record] == [__file__]


IMAGES = data.digits().images[:9]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.sparse_filters([["x"]]), TypeError, "images must hold numbers"),
        (lambda: viz.sparse_filters(torch.ones(4, 4)), ValueError, r"images must have shape .*got \(4, 4\)"),
        (lambda: viz.sparse_filters(IMAGES * torch.nan), ValueError, "images must be finite"),
        (lambda: viz.sparse_filters(IMAGES[:0]), ValueError, "images is empty"),
        (lambda: viz.sparse_filters(torch.ones(9, 8, 8)), ValueError, "images must vary within a window"),
        (lambda: viz.sparse_filters(IMAGES, window=9), ValueError, r"fit into images of \(8, 8\); got 9"),
        (lambda: viz.sparse_filters(IMAGES, window=1), ValueError, "window must be of two pixels or more"),
        (lambda: viz.sparse_filters(IMAGES, window=(2, 3, 4)), ValueError, "window must be of two pixels"),
        (lambda: viz.sparse_filters(IMAGES, window=2.5), ValueError, "window must be a positive integer; got 2.5"),
        (lambda: viz.sparse_filters(IMAGES, n_filters=0), ValueError, "n_filters must be a positive integer; got 0"),
        (lambda: viz.sparse_filters(IMAGES, n_patches=True), ValueError, "n_patches must be a positive integer"),
        (lambda: viz.sparse_filters(IMAGES, 50, n_patches=20), ValueError, "n_patches must be at least n_filters, 50"),
        (lambda: viz.sparse_filters(IMAGES, penalty=0.0), ValueError, "penalty must be positive and finite; got 0.0"),
        (lambda: viz.sparse_filters(IMAGES, penalty=50.0), ValueError, "let some patch .* 50.0 is too large"),
        (lambda: viz.sparse_filters(IMAGES, penalty=float("nan")), ValueError, "penalty must be positive"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
