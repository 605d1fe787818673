"""The codes between two are where the path says, and each image stands in its place."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probdl import data, viz
from probdl.models import VAE, LinearAutoencoder
from probdl.viz.interpolation import codes_between


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def images_of(z):
    return z[:, :, None].repeat(1, 1, 3)


def test_images_stand_in_rows_from_start_to_end():
    ax = viz.interpolation(images_of, [[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.5]], steps=3)
    picture = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(picture[:2, ::4][:, :3], [[0, 0.5, 1], [1, 0.5, 0]])
    np.testing.assert_allclose(picture[3:, ::4][:, :3], [[1, 0.5, 0], [1, 0.75, 0.5]])
    assert list(ax.get_xticks()) == [1, 5, 9]
    assert ax.get_xlabel() == "t, on the straight path between the codes"


coordinates = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(start=coordinates, end=coordinates, steps=st.integers(2, 9))
def test_a_spherical_path_turns_evenly_in_the_plane_of_its_ends_and_keeps_equal_lengths(start, end, steps):
    a, b = torch.tensor([start, end], dtype=torch.float64)
    if a.norm() < 0.1 or b.norm() < 0.1 or torch.cosine_similarity(a, b, 0) < -0.99:
        return
    b = b * a.norm() / b.norm()
    z = codes_between(a, b, steps, "spherical")[0]
    torch.testing.assert_close(z[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(z.norm(dim=1), a.norm().expand(steps))
    turns = torch.cosine_similarity(z[1:], z[:-1], 1)
    torch.testing.assert_close(turns, turns[:1].expand_as(turns))


def test_a_quarter_turn_is_at_45_degrees_in_its_middle():
    middle = codes_between([1.0, 0.0], [0.0, 2.0], 3, "spherical")[0, 1]
    torch.testing.assert_close(middle, torch.tensor([1.0, 2.0], dtype=torch.float64) * math.sqrt(0.5))


def test_parallel_ends_have_a_straight_path():
    z = codes_between([[1.0, 1.0]], [[3.0, 3.0]], 3, "spherical")
    torch.testing.assert_close(z, codes_between([[1.0, 1.0]], [[3.0, 3.0]], 3, "straight"))


@pytest.mark.parametrize("make", [lambda: VAE(2, hidden=(8,)), lambda: LinearAutoencoder(2)])
@pytest.mark.filterwarnings("ignore::probdl.ConvergenceWarning")
def test_a_model_walks_from_reconstruction_to_reconstruction(make):
    images = data.digits().images[:40].float()
    model = make().fit(images, steps=3, progress=False)
    z = model.encode(images[:2])
    plane = np.asarray(viz.latent_manifold(model, side=1).images[0].get_array())
    np.testing.assert_allclose(plane, model.decode([[0.0, 0.0]])[0, 0], rtol=1e-4, atol=1e-5)
    drawn = np.asarray(viz.interpolation(model, z[0], z[1], steps=4).images[0].get_array())
    ends = model.reconstruct(images[:2])
    np.testing.assert_allclose(drawn[:, :8], ends[0, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn[:, -8:], ends[1, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: viz.interpolation(images_of, [0.0, 1.0], [1.0]), ValueError, r"same shape .*\(1, 2\) and \(1, 1\)"),
        (lambda: viz.interpolation(images_of, [0.0], [1.0], steps=1), ValueError, "at least 2; got 1"),
        (lambda: viz.interpolation(images_of, [0.0], [1.0], path="great"), ValueError, "'straight', 'spherical'; got"),
        (lambda: viz.interpolation(images_of, [0.0], [1.0], path="spherical"), ValueError, "not 0 and not opposite"),
        (lambda: viz.interpolation(images_of, [-1.0], [1.0], path="spherical"), ValueError, "not 0 and not opposite"),
        (lambda: viz.interpolation(images_of, [math.nan], [1.0]), ValueError, "start must be finite"),
        (lambda: viz.interpolation(images_of, ["a"], [1.0]), TypeError, "start must hold numbers"),
        (lambda: viz.latent_manifold(3), TypeError, "decode must be a function of codes.*got int"),
        (lambda: viz.interpolation(3, [0.0], [1.0]), TypeError, "decode must be a function of codes.*got int"),
        (lambda: viz.interpolation(lambda z: z, [0.0], [1.0]), ValueError, r"each of the 9 codes; got shape \(9, 1\)"),
        (lambda: viz.interpolation(lambda z: z[:2, None], [0.0], [1.0]), ValueError, "got shape \\(2, 1, 1\\)"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
