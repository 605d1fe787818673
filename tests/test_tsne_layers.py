"""t-SNE of each layer is t-SNE of what the layer holds; what a layer does not tell apart shares a point."""

import copy
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from probdl import data, viz

HOW = {"perplexity": 10, "n_iter": 20, "device": "cpu"}
DIGITS = data.digits()
IMAGES, LABELS = DIGITS.images[:90], DIGITS.labels[:90]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(144, 12),
            nn.Tanh(),
            nn.Linear(12, 3),
        ).double()


def same(found, X, **how):
    expected = viz.tsne(X, **{**HOW, **how})
    assert torch.equal(found.Y, expected.Y)
    assert torch.equal(found.sigma, expected.sigma)
    assert torch.equal(found.kl_trace, expected.kl_trace)
    assert found.kl == expected.kl


def test_each_layer_s_picture_is_that_of_its_activations():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    found = viz.tsne_layers(model, IMAGES, **HOW)
    assert list(found) == ["input", "0", "1", "2", "5", "6", "7"]  # dropout, flattening and the output change nothing
    held = viz.activations(model, IMAGES, [name for name in found if name != "input"])
    for name, each in found.items():
        same(each, held[name] if name != "input" else IMAGES.double())
        assert each.notes == ()
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_layers_are_chosen_by_name_and_arguments_reach_t_sne():
    found = viz.tsne_layers(network(), IMAGES, ["7", "input"], dim=3, init="random", seed=3, **HOW)
    assert list(found) == ["7", "input"]
    same(found["input"], IMAGES.double(), dim=3, init="random", seed=3)
    assert list(viz.tsne_layers(network(), IMAGES, "output", **HOW)) == ["output"]


class Rounded(nn.Module):
    """Tells inputs apart by some of their numbers only."""

    def forward(self, x):
        return x.flatten(1)[:, :3].round()


def test_what_a_layer_does_not_tell_apart_shares_a_point():
    g = torch.Generator().manual_seed(0)
    X = torch.randn(60, 3, dtype=torch.float64, generator=g) * 50
    order = torch.randperm(90, generator=g)
    twice = torch.cat([X, X[:20] + 1e-6, X[:10] - 1e-6])[order]  # 20 copies once and 10 of them again
    found = viz.tsne_layers(nn.Sequential(Rounded()), twice, ["0", "input"], **HOW)
    assert found["0"].notes == ("30 of 90 rows repeat an earlier one and share its point",)
    assert found["input"].notes == ()
    rounded = twice.round()
    first = [i for i in range(90) if not (rounded[:i] == rounded[i]).all(1).any()]
    expected = viz.tsne(rounded[first], **HOW)
    assert torch.equal(found["0"].Y[first], expected.Y)
    assert found["0"].kl == expected.kl
    for i in range(90):
        (original,) = [j for j in first if torch.equal(rounded[i], rounded[j])]
        assert torch.equal(found["0"].Y[i], found["0"].Y[original])
        assert found["0"].sigma[i] == found["0"].sigma[original]


class Dead(nn.Module):
    def forward(self, x):
        return torch.relu(-1 - x.flatten(1).abs())


class Single(nn.Module):
    def forward(self, x):
        return x.flatten(1).sum(1, keepdim=True)


def test_layers_without_a_picture_are_left_out_with_a_warning_or_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ModuleDict({"dead": Dead()})["dead"]).double()
    with pytest.warns(UserWarning, match="Layer '1' is left out: 1 of 90 rows are distinct. X must have more than"):
        assert list(viz.tsne_layers(model, IMAGES, **HOW)) == ["input", "0"]
    with pytest.raises(ValueError, match="layer '1' has no picture: 1 of 90 rows are distinct"):
        viz.tsne_layers(model, IMAGES, ["1"], **HOW)
    with pytest.warns(UserWarning, match="'0' is left out: .* vary in 2 directions"):
        assert list(viz.tsne_layers(nn.Sequential(Single()), IMAGES, **HOW)) == ["input"]


def test_tokens_are_no_input_to_be_placed_and_layers_of_sequences_are():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.network = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True)

        def forward(self, x):
            return self.network(self.embedding(x))[1][0][-1]

    x = torch.randint(9, (60, 12), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = viz.tsne_layers(Read(), x, **HOW)
    assert list(found) == ["embedding", "network", "output"]


def test_a_model_in_half_precision_is_placed_in_single():
    x = IMAGES.half()
    found = viz.tsne_layers(network().half(), x, "7", **HOW)
    same(found["7"], viz.activations(network().half().float(), x.float(), "7")["7"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ["8"]}, "layer must be one of '0', .*; got '8'"),
        ({"layers": []}, "layers must hold a name; got none"),
        ({"perplexity": 30}, "more than 3 · perplexity = 90 rows; got 90"),
        ({"dim": 4}, "dim must be 2 or 3; got 4"),
        ({"init": "spectral"}, "init must be 'pca' or 'random'; got 'spectral'"),
        ({"init": torch.zeros(90, 2)}, "init must be 'pca' or 'random'"),
        ({"x": torch.full((90, 1, 8, 8), float("nan"))}, "x must be finite"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        viz.tsne_layers(**{"model": network(), "x": IMAGES, **HOW, **change})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_where_no_layer_has_a_picture_it_is_said():
    with pytest.raises(ValueError, match="layers must hold one that t-SNE has a picture for"):
        viz.tsne_layers(nn.Sequential(Dead()), torch.ones(90, 1, 8, 8), **HOW)


FLAT, DEEP = (viz.tsne(IMAGES, dim, **HOW) for dim in (2, 3))


def test_a_picture_in_the_plane_shows_all_points_without_ticks_and_what_is_lost():
    ax = viz.embedding(FLAT, LABELS)
    np.testing.assert_allclose(ax.collections[4].get_offsets(), FLAT.Y[LABELS == 4], rtol=1e-6)
    assert ax.get_title() == f"KL {FLAT.kl:.2f}"
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert len(ax.get_legend().get_texts()) == 10


def test_a_picture_in_space_shows_all_three_coordinates():
    ax = viz.embedding(DEEP, LABELS)
    assert ax.name == "3d"
    np.testing.assert_allclose(np.stack(ax.collections[4]._offsets3d, 1), DEEP.Y[LABELS == 4], rtol=1e-6)
    given = plt.figure().add_subplot(projection="3d")
    assert viz.embedding(DEEP, ax=given) is given
    given.figure.canvas.draw()


def test_codes_are_drawn_in_space_on_axes_of_three_dimensions():
    ax = plt.figure().add_subplot(projection="3d")
    viz.latent_plane(torch.rand(5, 4), ax=ax)
    assert ax.get_zlabel() == "z[2] (of 4 dimensions)"
    with pytest.raises(ValueError, match="z must have 3 dimensions or more for axes with three; got 2"):
        viz.latent_plane(torch.rand(5, 2), ax=ax)


@pytest.mark.parametrize(("found", "name"), [(FLAT, "rectilinear"), (DEEP, "3d")])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_layers_have_a_panel_each_and_one_legend(found, name, n):
    panels = viz.layer_panel({str(k): found for k in range(n)}, LABELS)
    assert list(panels) == [str(k) for k in range(n)]
    assert {ax.name for ax in panels.values()} == {name}
    assert len({id(ax.figure) for ax in panels.values()}) == 1
    assert len(panels["0"].figure.axes) == n
    assert sum(ax.get_legend() is not None for ax in panels.values()) == 1
    assert panels["0"].get_title() == f"0: KL {found.kl:.2f}"
    panels["0"].figure.canvas.draw()


def test_panels_can_be_given():
    figure, (left, right) = plt.subplots(1, 2)
    panels = viz.layer_panel({"a": FLAT, "b": FLAT}, ax={"a": right, "b": left, "c": None})
    assert panels == {"a": right, "b": left}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: viz.embedding(FLAT.Y), TypeError, "found must be what tsne returns; got Tensor"),
        (lambda: viz.embedding(DEEP, ax=plt.figure().subplots()), ValueError, "ax must have 3 dimensions"),
        (
            lambda: viz.embedding(FLAT, ax=plt.figure().add_subplot(projection="3d")),
            ValueError,
            "ax must have 2 dimensions",
        ),
        (lambda: viz.embedding(FLAT, LABELS[:5]), ValueError, r"labels must have shape \(90,\)"),
        (lambda: viz.layer_panel({}), ValueError, "found must hold at least one layer"),
        (lambda: viz.layer_panel(FLAT), TypeError, "found must be what tsne_layers returns"),
        (lambda: viz.layer_panel({"a": FLAT.Y}), TypeError, "found must be what tsne_layers returns"),
        (lambda: viz.layer_panel({"a": FLAT, "b": FLAT}, ax={"a": None}), ValueError, "axes; none for b"),
        (lambda: viz.layer_panel({"a": FLAT, "b": FLAT}, ax=plt.figure().subplots()), ValueError, "axes; none for b"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
