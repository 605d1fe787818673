"""Pictures show what came in: the right array, the right scale, nothing hidden, nothing global changed."""

import inspect
import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from probdl import data, viz


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def drawn(ax, index=0):
    return np.asarray(ax.images[index].get_array())


def test_a_map_is_drawn_with_its_own_numbers():
    x = torch.rand(5, 7, dtype=torch.float64)
    np.testing.assert_array_equal(drawn(viz.show(x)), x)


def test_a_non_negative_map_has_a_sequential_scale_from_zero_with_a_colour_bar():
    ax = viz.show([[0.5, 2.0], [1.0, 3.0]])
    assert ax.images[0].get_cmap().name == "viridis"
    assert ax.images[0].get_clim() == (0.0, 3.0)
    assert ax.images[0].colorbar is not None


def test_a_signed_map_has_a_diverging_scale_symmetric_about_zero():
    ax = viz.show([[-0.5, 2.0], [1.0, -3.0]])
    assert ax.images[0].get_cmap().name == "RdBu_r"
    assert ax.images[0].get_clim() == (-3.0, 3.0)


def test_zero_is_white_on_a_signed_scale():
    image = viz.show([[-1.0, 0.0, 3.0]]).images[0]
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert min(red, green, blue) > 0.96


@pytest.mark.parametrize("signed", [None, False, True])
@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (2, 1, 4, 4)])
def test_an_all_zero_map_draws(signed, shape):
    ax = viz.show(torch.zeros(shape), signed=signed)
    ax.figure.canvas.draw()
    assert np.isfinite(ax.images[0].get_clim()).all()


def test_values_outside_a_given_scale_are_announced_on_the_colour_bar():
    bar = viz.show([[0.5, 2.0]], vmax=1.0).images[0].colorbar
    assert bar.extend == "max"
    assert viz.show([[0.5, 2.0]]).images[0].colorbar.extend == "neither"


def test_three_channels_within_the_unit_interval_are_drawn_as_they_are():
    x = torch.rand(3, 4, 5, dtype=torch.float64) / 2
    ax = viz.show(x)
    np.testing.assert_array_equal(drawn(ax), x.permute(1, 2, 0))
    assert ax.get_xlabel() == ""


def test_three_signed_channels_have_zero_at_middle_grey_and_name_their_range():
    x = torch.zeros(3, 2, 2)
    x[0, 0, 0] = -4.0
    ax = viz.show(x)
    np.testing.assert_allclose(drawn(ax)[1, 1], 0.5)
    np.testing.assert_allclose(drawn(ax)[0, 0], [0.0, 0.5, 0.5])
    assert ax.get_xlabel() == "dark to bright: -4 to 4"


def test_clipped_colours_are_counted_below_the_picture():
    ax = viz.show(torch.tensor([0.5, 2.0, 3.0]).reshape(3, 1, 1), vmin=0.0, vmax=1.0)
    assert ax.get_xlabel() == "dark to bright: 0 to 1; 2 of 3 values outside are clipped"


def test_several_maps_share_one_scale_and_stand_row_by_row():
    x = torch.arange(24, dtype=torch.float64).reshape(6, 1, 2, 2)
    ax = viz.sample_grid(x, columns=3)
    picture = drawn(ax)
    assert picture.shape == (5, 8)
    np.testing.assert_array_equal(picture[:2, 6:8], x[2, 0])
    np.testing.assert_array_equal(picture[3:, :2], x[3, 0])
    assert np.isnan(np.ma.filled(picture, np.nan)[2]).all()
    assert viz.show(x).images[0].get_clim() == (0.0, 23.0)


def test_a_map_over_an_image_is_translucent_and_the_image_opaque():
    image = data.digits().images[0]
    ax = viz.show(image - 0.5, image=image)
    np.testing.assert_array_equal(drawn(ax, 0), image[0])
    np.testing.assert_array_equal(drawn(ax, 1), image[0] - 0.5)
    assert ax.images[0].get_alpha() is None
    assert 0 < ax.images[1].get_alpha() < 1


def test_images_in_the_unit_interval_run_from_black_to_white_and_others_name_their_range():
    images = data.digits().images[:4] / 2
    assert viz.sample_grid(images).images[0].get_clim() == (0.0, 1.0)
    ax = viz.sample_grid(images * 20 - 1)
    assert ax.images[0].get_clim() == pytest.approx((-1.0, float((images * 20 - 1).max())))
    assert ax.get_xlabel().startswith("black to white: -1 to ")


def test_reconstructions_stand_below_their_data():
    x = data.digits().images[:3]
    ax = viz.reconstructions(x, 1 - x)
    picture = drawn(ax)
    np.testing.assert_array_equal(picture[:8, :8], x[0, 0])
    np.testing.assert_array_equal(picture[9:, 18:], 1 - x[2, 0])


def test_latent_plane_has_a_legend_entry_and_every_point_of_each_class():
    z, labels = torch.randn(60, 2), torch.arange(60) % 3
    ax = viz.latent_plane(z, labels)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), z[labels == 1], rtol=1e-6)
    assert ax.get_xlabel() == "z[0]"


def test_latent_plane_of_more_dimensions_says_so():
    assert viz.latent_plane(torch.randn(5, 7)).get_ylabel() == "z[1] (of 7 dimensions)"


def test_latent_plane_of_many_numbers_has_a_colour_bar():
    ax = viz.latent_plane(torch.randn(50, 2), torch.linspace(0, 1, 50))
    assert ax.collections[0].colorbar is not None
    assert ax.get_legend() is None


def test_latent_manifold_puts_large_codes_up_and_right():
    ax = viz.latent_manifold(lambda z: z[:, :, None].expand(-1, 2, 2), side=3)  # row 0: z[0], row 1: z[1]
    picture = drawn(ax)
    quantile = 0.967422  # of the standard normal at 5/6
    np.testing.assert_allclose(picture[0, [0, 3, 6]], [-quantile, 0, quantile], atol=1e-5)
    np.testing.assert_allclose(picture[[1, 4, 7], 0], [quantile, 0, -quantile], atol=1e-5)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["-0.97", "0.00", "0.97"]
    assert list(ax.get_yticks()) == [6.5, 3.5, 0.5]


def test_intervals_are_drawn_from_end_to_end_with_the_first_name_on_top():
    ax = viz.intervals(["a", "b"], [1.0, 2.0], [0.5, 1.0], [1.2, 4.0], label="ep")
    segments = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segments, [[[0.5, 0], [1.2, 0]], [[1.0, 1], [4.0, 1]]])
    assert ax.yaxis_inverted()


def test_an_estimate_without_interval_is_a_hollow_dot_with_a_word_in_the_legend():
    ax = viz.intervals(["a", "b"], torch.tensor([1.0, 2.0]), [None, 1.0], [math.nan, 3.0], label="ep")
    hollow = ax.lines[-2]
    assert list(hollow.get_xdata()) == [1.0]
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    assert "no interval" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_what_is_infinite_is_written_in_words():
    ax = viz.intervals(["kl", "w"], [math.inf, 1.0], [None, None], [None, None])
    assert [text.get_text() for text in ax.texts] == ["infinite"]


def test_a_second_method_gets_its_own_colour_and_the_same_lines():
    ax = viz.intervals(["a"], [1.0], [0.5], [1.5], label="ep", offset=-0.1)
    viz.intervals(["a"], [1.1], [0.6], [1.6], label="nuts", offset=0.1, ax=ax)
    colours = [container.lines[0].get_color() for container in ax.containers]
    assert len(set(colours)) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ep", "nuts"]


def test_marginals_have_a_panel_each_and_overlay_a_second_posterior():
    x = torch.linspace(-1, 1, 20)
    curves = {f"w[{i}]": (x, torch.full((20,), 0.5)) for i in range(5)}
    panels = viz.marginals(curves, label="ep")
    assert list(panels) == list(curves)
    assert len({id(ax) for ax in panels.values()}) == 5
    again = viz.marginals(curves, panels, label="nuts")
    assert all(len(ax.lines) == 2 for ax in again.values())
    assert [text.get_text() for text in panels["w[0]"].get_legend().get_texts()] == ["ep", "nuts"]


def test_marginals_on_one_axes_name_their_curves():
    x = torch.linspace(-1, 1, 20)
    ax = plt.figure().subplots()
    viz.marginals({"a": (x, x**2), "b": (x, x**4)}, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), x**4)


def test_history_leaves_out_what_was_not_recorded_and_marks_the_best_validation():
    frame = pd.DataFrame({"step": [10, 20, 30, 40], "loss": [4.0, 3.0, 2.0, 1.0], "validation": [math.nan, 3, 2, 2.5]})
    ax = viz.history(frame)
    assert list(ax.lines[1].get_xdata()) == [20, 30, 40]
    assert (list(ax.lines[2].get_xdata()), list(ax.lines[2].get_ydata())) == ([30], [2.0])


def test_history_without_a_loss_draws_every_term():
    ax = viz.history(pd.DataFrame({"step": [1, 2], "critic": [0.0, 1.0], "generator": [1.0, 0.0]}))
    assert [line.get_label() for line in ax.lines] == ["critic", "generator"]


def test_several_histories_have_a_colour_each_and_a_style_for_each_column():
    one = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "validation": [3.0, 2.0, 2.5]})
    two = pd.DataFrame({"step": [2, 4], "loss": [9.0, 8.0], "critic": [1.0, 2.0]})
    ax = viz.history({"vae": one, "gan": two})
    labelled = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(labelled) == ["vae: loss", "vae: validation", "gan: loss"]
    assert list(labelled["gan: loss"].get_xdata()) == [2, 4]
    assert labelled["vae: loss"].get_color() == labelled["vae: validation"].get_color()
    assert labelled["vae: loss"].get_color() != labelled["gan: loss"].get_color()
    assert labelled["vae: loss"].get_linestyle() == labelled["gan: loss"].get_linestyle()
    (best,) = (line for line in ax.lines if line.get_marker() == "o")
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [2.0])


def test_a_duel_is_drawn_by_its_terms():
    frame = pd.DataFrame({"step": [1, 2], "loss": [1.0, 1.0], "critic": [0.5, 0.4], "penalty": [math.nan, 0.1]})
    ax = viz.history(frame, columns=["critic", "penalty"])
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.5, 0.4], [0.1]]


BINS = pd.DataFrame({"n": [5, 5], "confidence": [0.4, 0.8], "accuracy": [0.6, 1.0], "lower": 0.2, "upper": 1.0})
NORMS = pd.DataFrame({"quantity": "hidden", "lag": [0, 1], "lower": 0.1, "median": [1.0, 0.2], "upper": [1.0, 0.3]})

FLAT = viz.tsne(data.digits().images[:40], perplexity=5, n_iter=10)

PICTURES = {
    "show": lambda ax: viz.show([[1.0, 2.0]], ax=ax),
    "sample_grid": lambda ax: viz.sample_grid(data.digits().images[:4], ax=ax),
    "reconstructions": lambda ax: viz.reconstructions(data.digits().images[:4], data.digits().images[:4], ax=ax),
    "latent_plane": lambda ax: viz.latent_plane([[0.0, 1.0], [1.0, 2.0]], ["a", "b"], ax=ax),
    "latent_manifold": lambda ax: viz.latent_manifold(lambda z: z[:, :, None], side=2, ax=ax),
    "filter_grid": lambda ax: viz.filter_grid(torch.ones(2, 4, 3, 3), ax=ax),
    "embedding": lambda ax: viz.embedding(FLAT, ax=ax),
    "layer_panel": lambda ax: viz.layer_panel({"a": FLAT}, ax=ax)["a"],
    "intervals": lambda ax: viz.intervals(["a"], [1.0], [0.0], [2.0], ax=ax, label="x"),
    "marginals": lambda ax: viz.marginals({"a": ([0.0, 1.0], [1.0, 1.0])}, ax)["a"],
    "forest": lambda ax: viz.forest(["a"], [[0.0], [1.0], [2.0], [3.0], [4.0]], ax=ax, label="x"),
    "convergence": lambda ax: viz.convergence(pd.DataFrame({"gap": [1.0, 0.1]}), ax=ax),
    "chains": lambda ax: viz.chains({"a": [[0.0, 1.0], [1.0, 0.0]]}, ax)["a"],
    "rank_histograms": lambda ax: viz.rank_histograms({"a": [0, 1, 2, 3]}, 9, ax)["a"],
    "alignment": lambda ax: viz.alignment([[0.2, 0.8]], "ab", "c", ax),
    "gradient_norms": lambda ax: viz.gradient_norms(NORMS, ax),
    "reliability": lambda ax: viz.reliability(BINS, ax),
    "pairs": lambda ax: viz.pairs({"a": torch.arange(20.0), "b": torch.arange(20.0) ** 2}, ax)["b", "a"],
    "density_contours": lambda ax: viz.density_contours(data.digits().images[:50].flatten(1)[:, [19, 20]], ax=ax),
    "transport_plan": lambda ax: viz.transport_plan([[0, 0]], [[1, 0], [1, 1]], [[0.5, 0.5]], ax),
    "interpolation": lambda ax: viz.interpolation(lambda z: z[:, :, None], [0.0, 1.0], [1.0, 0.0], ax=ax),
    "u_matrix": lambda ax: viz.u_matrix([[1.0, 2.0]], units=[0], labels=["a"], ax=ax),
    "history": lambda ax: viz.history(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]}), ax=ax),
}


def test_every_picture_is_on_the_checklist():
    """What takes ``ax`` draws; the rest of the room computes, and is tested by its own files."""
    draws = {name for name in viz.__all__ if "ax" in inspect.signature(getattr(viz, name)).parameters}
    assert set(PICTURES) == draws


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_draws_on_the_axes_it_is_given_or_makes_a_figure(name):
    ax = plt.figure().subplots()
    assert PICTURES[name](ax) is ax
    assert len(plt.get_fignums()) == 1
    assert PICTURES[name](None).figure is not ax.figure
    assert len(plt.get_fignums()) == 2


@pytest.mark.parametrize("name", PICTURES)
def test_no_picture_shows_itself_or_touches_the_settings(name, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show was called"))
    before = dict(matplotlib.rcParams)
    PICTURES[name](None).figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before


ONE = torch.ones(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: viz.show(torch.ones(2, 4, 4)),
            ValueError,
            r"maps must have shape .* 1 or 3 channels; got \(2, 4, 4\)\. Pass 2 maps as maps\[:, None\]",
        ),
        (lambda: viz.show([[math.nan]]), ValueError, "maps must be finite; got 1 NaN"),
        (lambda: viz.show([["a"]]), TypeError, "maps must hold numbers"),
        (lambda: viz.show([[-1.0, 1.0]], vmin=-1, vmax=2), ValueError, "symmetric about 0; got -1 to 2"),
        (lambda: viz.show([[1.0]], vmin=2, vmax=1), ValueError, "vmin must not be above vmax; got 2 and 1"),
        (lambda: viz.show(ONE, image=torch.ones(3, 3)), ValueError, r"image must have the height .*got \(1, 1, 3, 3\)"),
        (lambda: viz.show(torch.ones(3, 2, 2), image=ONE), ValueError, "maps over an image must have one channel"),
        (lambda: viz.show(ONE, ax="here"), TypeError, "ax must be a matplotlib Axes or None; got str"),
        (lambda: viz.sample_grid(torch.ones(4, 4)), ValueError, r"images must have shape .*got \(4, 4\)"),
        (lambda: viz.sample_grid(ONE, columns=0), ValueError, "columns must be a positive integer; got 0"),
        (lambda: viz.reconstructions(ONE, ONE[..., :1]), ValueError, r"y must have the shape of x, \(1, 1, 2, 2\)"),
        (
            lambda: viz.latent_plane([[1.0]]),
            ValueError,
            r"z must have shape \(n, d\) with d of 2 or more; got \(1, 1\)",
        ),
        (lambda: viz.latent_plane([[1.0, 2.0]], [1, 2]), ValueError, r"labels must have shape \(1,\)"),
        (lambda: viz.latent_plane(torch.rand(11, 2), list("abcdefghijk")), ValueError, "at most 10 values.*got 11"),
        (lambda: viz.latent_manifold(lambda z: z[:1, :, None], side=2), ValueError, "each of the 4 codes; got 1"),
        (lambda: viz.intervals([], [], [], []), ValueError, "at least 1; got"),
        (lambda: viz.intervals(["a"], [1.0, 2.0], [0.0], [2.0]), ValueError, "same length.*'values': 2"),
        (lambda: viz.intervals(["a"], [1.0], [1.5], [2.0]), ValueError, "interval of 'a' must hold its value 1"),
        (lambda: viz.marginals({}), ValueError, "curves must hold at least one name"),
        (lambda: viz.marginals({"a": ([0.0], [-1.0])}), ValueError, "density of a must not be negative"),
        (lambda: viz.marginals({"a": ([0.0], [1.0])}, {}), ValueError, "it has none for a"),
        (lambda: viz.reliability(BINS[["n"]]), ValueError, r"missing: \['confidence', 'accuracy', 'lower', 'upper'\]"),
        (lambda: viz.alignment([[1.0]], "ab", "c"), ValueError, r"of 1 target tokens, .* and 2 columns; got \(1, 1\)"),
        (lambda: viz.alignment([[2.0]], "a", "c"), ValueError, "between 0 and 1; got 2 to 2"),
        (lambda: viz.reliability(2 * BINS), ValueError, "shares between 0 and 1"),
        (lambda: viz.history({}), ValueError, "at least one history"),
        (lambda: viz.history({"a": [1, 2]}), TypeError, r"frame\['a'\] must be a DataFrame"),
        (lambda: viz.history([1, 2]), TypeError, "frame must be a DataFrame"),
        (lambda: viz.history(pd.DataFrame({"step": [], "loss": []})), ValueError, "got 0 rows"),
        (
            lambda: viz.history(pd.DataFrame({"loss": [1.0]}), columns=["kl"]),
            ValueError,
            r"columns \['kl'\]; got 1 rows",
        ),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
