"""The sanity check: an edge detector survives any randomisation, the gradient of a linear model survives none."""

import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from test_seeing_synthesis import Watchful, digits_network
from torch import nn

from probdl import viz
from probdl.nn.seeding import seeded
from probdl.viz.seeing.randomization import Randomization


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(model, x):
    return viz.saliency(model, x, 0, reduce=None)


def edges(model, x):
    return x.diff(dim=-1).abs()


def convolutional():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        ).double()  # fmt: skip


def test_an_edge_detector_survives_exactly_at_each_layer_from_the_top_down():
    found = viz.randomization_check(edges, convolutional(), rows(40, 1, 9, 11))
    assert dict(found) == {"7": 1.0, "3": 1.0, "1": 1.0, "0": 1.0}
    assert list(found) == ["7", "3", "1", "0"]
    untouched = viz.randomization_check(lambda model, x: x, convolutional(), rows(40, 1, 8, 8))
    assert all(bool((each == 1).all()) for each in untouched.rows.values())  # without rounding
    assert set(found.stderr.values()) == {0.0}


def test_of_a_linear_model_the_correlation_has_mean_zero_and_the_variance_of_ranks():
    """The saliency is a row of weights, the same for all x; 400 draws, false alarms below 1 in 1000 for both."""
    d, draws = 50, 400
    with seeded(3):
        model = nn.Linear(d, 1).double()
    found = viz.randomization_check(lambda model, x: viz.saliency(model, x, 0), model, rows(1, d), draws=draws)
    each = found.rows["output"][:, 0]
    assert abs(each.mean()) < 3.3 / math.sqrt(draws * (d - 1))
    assert abs(each.std() * math.sqrt(d - 1) - 1) < 3.3 / math.sqrt(2 * draws)
    assert math.isnan(found.stderr["output"])


def test_the_standard_error_covers_draws_of_the_weights_and_rows():
    """All rows of a linear model share one map, so that only draws scatter; a map of x alone scatters in neither."""
    with seeded(3):
        model = nn.Linear(50, 1).double()
    found = viz.randomization_check(lambda model, x: viz.saliency(model, x, 0), model, rows(6, 50), draws=20)
    means = found.rows["output"].mean(1)
    assert found.stderr["output"] == pytest.approx(float(means.std()) / math.sqrt(20))
    crossed = Randomization({"a": torch.tensor([[0.0, 0.2], [0.4, 0.8]])}, ())
    assert crossed["a"] == pytest.approx(0.35)
    assert crossed.stderr["a"] == pytest.approx(math.sqrt((0.125 + 0.045) / 2))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([None, 3]))
def test_the_correlation_is_scipys_of_absolute_values_with_ties_or_without(seed, levels):
    with seeded(seed):
        model = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    x, seen = rows(3, 9, seed=seed), []

    def method(model, x):
        maps = gradient(model, x) if levels is None else (gradient(model, x) * levels).round()
        seen.append(maps)
        return maps

    maps_vary = (gradient(model, x) * 3).round().abs().std(1).min() > 0
    if levels and not maps_vary:
        return
    found = viz.randomization_check(method, model, x, draws=1, seed=seed)
    for name, maps in zip(found, seen[1:]):
        for ours, before, after in zip(found.rows[name][0], seen[0].abs(), maps.abs()):
            theirs = spearmanr(before.numpy(), after.numpy()).statistic if after.std() > 0 else 0.0
            assert float(ours) == pytest.approx(theirs, abs=1e-12)


def test_layers_are_randomised_one_after_another_from_the_top_and_stay_so():
    model, seen = convolutional(), []

    def method(model, x):
        seen.append(copy.deepcopy(model.state_dict()))
        return x

    viz.randomization_check(method, model, rows(2, 1, 8, 8), draws=1)
    weights = ["7.weight", "3.weight", "0.weight"]
    changed = [[not torch.equal(state[name], model.state_dict()[name]) for name in weights] for state in seen]
    assert changed == [[False] * 3, [True, False, False], [True, True, False], [True, True, False], [True] * 3]
    assert torch.equal(seen[1]["7.weight"], seen[-1]["7.weight"])


def test_each_method_meets_the_same_random_weights_and_each_seed_others():
    model, x = convolutional(), rows(3, 1, 8, 8)
    first, again = (viz.randomization_check(gradient, model, x) for _ in range(2))
    assert first == again
    assert first != viz.randomization_check(gradient, model, x, seed=1)
    assert not torch.equal(first.rows["7"][0], first.rows["7"][1])
    drawing = viz.randomization_check(lambda m, x: gradient(m, x) + 0 * torch.rand(1), model, x)
    assert drawing == first


def plain():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def test_a_method_that_writes_on_its_model_changes_no_later_map():
    def unruly(model, x):
        maps = gradient(model, x)
        for parameter in model.parameters():
            parameter.data.fill_(0.3)
        return maps

    model, x = convolutional(), rows(3, 1, 8, 8)
    assert viz.randomization_check(unruly, model, x) == viz.randomization_check(gradient, model, x)


def test_guided_backpropagation_survives_what_saliency_does_not():
    model, images = digits_network(plain)
    x = images[:60]
    with torch.no_grad():
        y = model(x).argmax(1)
    gradient = viz.randomization_check(lambda model, x: viz.saliency(model, x, y), model, x)
    guided = viz.randomization_check(lambda model, x: viz.guided_backprop(model, x, y), model, x)
    bottom = list(gradient)[-1]
    assert bottom == list(guided)[-1] == "0"
    for name in gradient:
        assert guided[name] - gradient[name] > 4 * math.hypot(guided.stderr[name], gradient.stderr[name])
    assert abs(gradient[bottom]) < 0.25


class Scaled(nn.Module):
    """Parameters of its own, without reset_parameters, beside a layer that is never called by itself."""

    def __init__(self):
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.arange(1.0, 10.0)), nn.Linear(9, 2)

    def forward(self, x):
        return nn.functional.linear(x * self.scale, self.inner.weight)


def test_parameters_without_an_initialisation_are_permuted_and_silent_layers_go_with_the_one_above():
    model, seen = Scaled().double(), []

    def method(model, x):
        seen.append((model.scale.detach().clone(), model.inner.weight.detach().clone()))
        return gradient(model, x)

    found = viz.randomization_check(method, model, rows(2, 9), draws=1)
    assert list(found) == ["inner", "output"]
    scale, weight = seen[-1]
    assert not torch.equal(scale, model.scale)
    assert torch.equal(scale.sort().values, model.scale)
    assert not torch.equal(weight, model.inner.weight)
    assert found.notes[1] == "Entries of parameters permuted, as there is no reset_parameters: output."


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)),
        lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 1, 8), nn.Flatten()),
        lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Linear(6, 6)),
    ],
    ids=["weight norm", "layer norm", "attention", "PReLU"],
)
def test_at_the_bottom_no_weight_is_what_it_was(build):
    with seeded(5):
        model = build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    last = []

    def method(model, x):
        last[:] = [copy.deepcopy(model.state_dict())]
        return x

    viz.randomization_check(method, model, rows(2, 6))
    same = [n for n, v in model.state_dict().items() if v.numel() > 1 and torch.equal(last[0][n], v)]
    assert same == []


def test_reused_layers_stand_where_they_finish_last():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(self.b(self.a(x)))

    assert list(viz.randomization_check(lambda model, x: x, Reused(), torch.rand(2, 4))) == ["a", "b"]


def test_a_recurrent_net_and_sequences(device):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    with seeded(0):
        model = Reader().double().to(device)
    found = viz.randomization_check(lambda model, x: viz.saliency(model, x, 0), model, rows(4, 7, 2))
    assert list(found) == ["head", "lstm"]
    assert all(-1 <= value < 1 for value in found.values())


def test_a_map_that_dies_orders_nothing():
    first = []

    def method(model, x):
        first.append(0)
        return x if len(first) == 1 else 0 * x

    found = viz.randomization_check(method, convolutional(), rows(2, 1, 8, 8))
    assert set(found.values()) == {0.0}
    assert found.notes[1].startswith("40 of the maps after randomising order nothing")


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_model_is_left_as_it_was_also_after_an_exception(fails):
    with seeded(1):
        model = Watchful().double().train()
    model.head.weight.requires_grad_(False)
    state, buffer, calls = copy.deepcopy(model.state_dict()), model.calls, []

    def method(model, x):
        calls.append(model)
        model(x)
        nn.init.zeros_(model.head.bias)  # an unruly method writes on a copy
        if fails and len(calls) >= fails:
            raise RuntimeError("an error of the user's")
        return x

    random, x = torch.random.get_rng_state(), rows(3, 5)
    if fails:
        with pytest.raises(RuntimeError, match="^an error of the user's$"):
            viz.randomization_check(method, model, x)
    else:
        viz.randomization_check(method, model, x)
    assert model not in calls
    assert not any(each.training for each in calls)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.calls is buffer
    assert not any(m._forward_hooks for m in model.modules())
    assert [p.requires_grad for n, p in model.named_parameters() if n == "head.weight"] == [False]


def test_the_table_and_the_picture_hold_the_numbers():
    model, x = convolutional(), rows(3, 1, 8, 8)
    found = viz.randomization_check(gradient, model, x)
    assert found.table.columns.tolist() == ["layer", "correlation", "stderr"]
    assert found.table["correlation"].tolist() == list(found.values())
    assert found.table["stderr"].tolist() == list(found.stderr.values())
    ax = found.plot(label="gradient")
    assert viz.randomization_check(edges, model, x).plot(ax, label="edges") is ax
    first, second = ax.containers
    np.testing.assert_allclose(first.lines[0].get_ydata(), list(found.values()))
    segments = np.array([segment[:, 1] for segment in first.lines[2][0].get_segments()])
    np.testing.assert_allclose(np.ptp(segments, axis=1) / 4, list(found.stderr.values()), atol=1e-12)
    assert [text.get_text() for text in ax.get_xticklabels()] == list(found)
    assert first.lines[0].get_color() != second.lines[0].get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["gradient", "edges"]
    alone = viz.randomization_check(gradient, model, x[:1]).plot()
    np.testing.assert_allclose(np.ptp(alone.containers[0].lines[2][0].get_segments(), axis=1)[:, 1], 0)
    assert {label.get_rotation() for label in alone.get_xticklabels()} == {0}
    many = Randomization({f"blocks.{i}.linear": torch.rand(2, 3) for i in range(12)}, ()).plot()
    assert {label.get_rotation() for label in many.get_xticklabels()} == {90}
    plt.close("all")


def test_a_model_in_half_precision_is_seen_in_float32():
    found = viz.randomization_check(edges, convolutional().half(), rows(2, 1, 8, 8))
    assert set(found.values()) == {1.0}


MODEL = convolutional()
X = rows(3, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.randomization_check("saliency", MODEL, X), TypeError, "method must be a function .* got str"),
        (lambda: viz.randomization_check(edges, torch.relu, X), TypeError, "model must be a torch.nn.Module"),
        (lambda: viz.randomization_check(edges, nn.ReLU(), X), ValueError, "model must have layers with parameters"),
        (lambda: viz.randomization_check(edges, MODEL, X * math.nan), ValueError, "x must be finite"),
        (lambda: viz.randomization_check(edges, MODEL, X[:0]), ValueError, "x is empty"),
        (lambda: viz.randomization_check(lambda m, x: x[:2], MODEL, X), ValueError, "for each of the 3 rows of x"),
        (lambda: viz.randomization_check(lambda m, x: x[:, 0, 0, 0], MODEL, X), ValueError, "2 elements or more"),
        (lambda: viz.randomization_check(lambda m, x: x / 0, MODEL, X), ValueError, "method's maps must be finite"),
        (lambda: viz.randomization_check(lambda m, x: "map", MODEL, X), TypeError, "method's maps must be array-like"),
        (lambda: viz.randomization_check(lambda m, x: 0 * x, MODEL, X), ValueError, r"constant in rows \[0, 1, 2\]"),
        (lambda: viz.randomization_check(edges, MODEL, X, draws=0), ValueError, "draws must be a positive integer"),
        (lambda: viz.randomization_check(edges, MODEL, X, seed=0.5), TypeError, "seed must be an integer"),
        (
            lambda: viz.randomization_check(edges, torch.compile(MODEL, backend="eager"), X),
            ValueError,
            "is compiled: pass the model as it was",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
