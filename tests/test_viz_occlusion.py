"""Occlusion: the drop of a score with a window covered, against a linear model by hand, and against Captum."""

import numpy as np
import pytest
import torch
from torch import nn

from probdl import viz


def linear(channels=2, side=7, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, classes)).double()


def cnn():
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 3)
    return nn.Sequential(*layers).double().eval()


def images(n=2, channels=2, side=8):
    return torch.rand(n, channels, side, side, dtype=torch.float64)


@pytest.mark.parametrize("baseline", [0.0, 0.3, torch.rand(2, 1, 1, dtype=torch.float64)])
def test_of_a_linear_model_it_is_the_window_sum_of_weight_times_distance_from_the_baseline(baseline):
    model, x = linear(), images(side=7)
    result = viz.occlusion(model, x, target=1, window=(3, 2), stride=(2, 1), baseline=baseline, batch_size=5)
    weight = model[1].weight[1].detach().reshape(2, 7, 7)
    parts = (weight * (x - baseline)).sum(1)
    torch.testing.assert_close(result.grid, parts.unfold(1, 3, 2).unfold(2, 2, 1).sum((-1, -2)), rtol=0, atol=1e-12)


def test_the_last_windows_are_clipped_at_the_border():
    model, x = linear(), images(side=7)
    grid = viz.occlusion(model, x, target=0, window=3, stride=3).grid
    parts = (model[1].weight[0].detach().reshape(2, 7, 7) * x).sum(1)
    assert grid.shape == (2, 3, 3)
    torch.testing.assert_close(grid[:, 2, 2], parts[:, 6, 6])
    torch.testing.assert_close(grid[:, 0, 2], parts[:, :3, 6].sum(1))


def test_each_pixel_is_the_mean_over_the_windows_that_cover_it():
    result = viz.occlusion(cnn(), images(), target=2, window=(3, 4), stride=(2, 3))
    for row, column in [(0, 0), (2, 3), (7, 7), (4, 5)]:
        over = [
            result.grid[:, i, j]
            for i in range(result.grid.shape[1])
            for j in range(result.grid.shape[2])
            if 2 * i <= row < 2 * i + 3 and 3 * j <= column < 3 * j + 4
        ]
        torch.testing.assert_close(result.map[:, row, column], torch.stack(over).mean(0))


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (3, 2), (3, 3), ((2, 5), (2, 3)), (8, 8)])
def test_it_equals_captum(window, stride):
    attr = pytest.importorskip("captum.attr")
    model, x, target = cnn(), images(3), torch.tensor([0, 2, 1])
    ours = viz.occlusion(model, x, target=target, window=window, stride=stride, baseline=0.2).map
    (a, b), (s, t) = (side if isinstance(side, tuple) else (side, side) for side in (window, stride))
    theirs = attr.Occlusion(model).attribute(x, (2, a, b), strides=(2, s, t), baselines=0.2, target=target)
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=0, atol=1e-6)  # Captum's is float32


def test_without_a_target_it_is_the_highest_class_of_each_image_before_it_is_covered():
    model, x = cnn(), 5 * torch.randn(8, 2, 8, 8, dtype=torch.float64)
    best = model(x).argmax(1)
    assert len(best.unique()) > 1
    torch.testing.assert_close(viz.occlusion(model, x).grid, viz.occlusion(model, x, target=best).grid)


@pytest.mark.parametrize("channel", [None, 0, 3])
def test_of_a_layer_it_is_the_drop_of_the_sum_of_the_feature_map(channel):
    model, x = cnn(), images()
    grid = viz.occlusion(model, x, layer="2", channel=channel, window=3, batch_size=7).grid

    def total(y):
        maps = model[:3](y)
        return (maps if channel is None else maps[:, channel]).flatten(1).sum(1)

    covered = x.clone()
    covered[:, :, 2:5, 4:7] = 0
    torch.testing.assert_close(grid[:, 2, 4], (total(x) - total(covered)).detach())


def test_the_batch_size_changes_nothing():
    model, x = cnn(), images(3)
    torch.testing.assert_close(viz.occlusion(model, x, batch_size=1).map, viz.occlusion(model, x, batch_size=1000).map)


def test_a_model_with_one_output_has_one_score():
    column = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).double()
    x = images(2, channels=1)
    parts = column[1].weight.detach().reshape(8, 8) * x[:, 0]
    for model in (column, nn.Sequential(column, nn.Flatten(0))):
        torch.testing.assert_close(viz.occlusion(model, x, window=1).map, parts)


def test_no_more_images_than_asked_for_are_covered_at_once():
    model, rows = cnn(), []
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    viz.occlusion(model, images(), batch_size=7)
    assert max(rows) == 7
    assert sum(rows) == 2 + 2 * 25


def test_a_channel_may_be_an_integer_of_numpys():
    model, x = cnn(), images()
    ours, theirs = (viz.occlusion(model, x, layer="2", channel=c).map for c in (1, np.int64(1)))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("channel", [None, 0])
def test_a_layer_with_one_number_for_each_row_has_one_channel(channel):
    model = nn.Sequential(cnn(), Head())
    x = images()
    score = viz.occlusion(model, x).map
    torch.testing.assert_close(viz.occlusion(model, x, layer="1", channel=channel).map, score, rtol=0, atol=0)


def test_a_unit_of_a_layer_without_maps_is_its_own_channel():
    model, x = cnn(), images()
    score = viz.occlusion(model, x, target=2).map
    torch.testing.assert_close(viz.occlusion(model, x, layer="5", channel=2).map, score, rtol=0, atol=0)


class Head(nn.Module):
    def forward(self, x):
        return x[:, 0]


class Doubled(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, x):
        return x.mul_(2) if self.in_place else x * 2


@pytest.mark.parametrize("arguments", [{}, {"layer": "1"}])
def test_a_model_that_writes_on_its_input_does_not_spoil_the_images(arguments):
    x, body = torch.randn(2, 2, 8, 8, dtype=torch.float64), cnn()
    plain, in_place = (viz.occlusion(nn.Sequential(Doubled(where), body), x, **arguments) for where in (False, True))
    torch.testing.assert_close(in_place.map, plain.map, rtol=0, atol=0)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_model_and_the_images_are_as_before_also_after_an_exception(breaks):
    model, x = cnn().train(), images()
    model[5].weight.requires_grad_(False)
    before, pixels = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    if breaks:
        with pytest.raises(ValueError, match="layer must be one of"):
            viz.occlusion(model, x, layer="nowhere")
    else:
        viz.occlusion(model, x, layer="2")
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model[5].parameters()] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(x, pixels, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": 3}, ValueError, r"target must be in 0, \.\.\., 2"),
        ({"target": -1}, ValueError, r"target must be in 0, \.\.\., 2"),
        ({"target": torch.tensor([0, 1, 2])}, ValueError, "one for each of 2 rows"),
        ({"target": 0.5}, TypeError, "target must be an integer"),
        ({"target": "zero"}, TypeError, "target must be an integer"),
        ({"layer": "conv"}, ValueError, "layer must be one of '0', '1'"),
        ({"layer": "2", "channel": -1}, ValueError, r"channel must be in 0, \.\.\., 3"),
        ({"layer": "2", "channel": True}, ValueError, r"channel must be in 0, \.\.\., 3"),
        ({"baseline": "mean"}, TypeError, "baseline must be a number, or a tensor"),
        ({"baseline": None}, TypeError, "baseline must be a number, or a tensor"),
        ({"layer": "2", "channel": 4}, ValueError, r"channel must be in 0, \.\.\., 3"),
        ({"layer": "2", "target": 1}, ValueError, "exclude each other"),
        ({"channel": 1}, ValueError, "pass layer="),
        ({"window": 9}, ValueError, "window must fit"),
        ({"window": 0}, ValueError, "window must be a positive integer"),
        ({"stride": 5}, ValueError, "stride must be at most the window"),
        ({"stride": (1, 2, 3)}, ValueError, "stride must be a positive integer or two"),
        ({"baseline": torch.zeros(3, 1, 1)}, ValueError, "baseline must be a number, or expand"),
        ({"baseline": float("nan")}, ValueError, "baseline must be finite"),
        ({"baseline": torch.tensor([0.5, torch.inf])[:, None, None]}, ValueError, "baseline must be finite"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        viz.occlusion(cnn(), images(), **arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 8, 8, dtype=torch.float64), r"x must be images of shape \(n, c, h, w\)"),
        (images() * float("nan"), "finite"),
        (images(0), "at least one row"),
    ],
)
def test_what_is_no_image_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        viz.occlusion(cnn(), x)


def test_a_model_that_does_not_return_scores_is_refused():
    with pytest.raises(ValueError, match=r"model must return scores of shape \(2, classes\)"):
        viz.occlusion(nn.Conv2d(2, 1, 1).double(), images())
