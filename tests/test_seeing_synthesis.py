"""Synthesised inputs maximise what they say: closed forms for linear models, all data beaten on a network."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_seeing_maps import Convolutions
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from probdl import ConvergenceWarning, data, viz
from probdl.nn.seeding import seeded


def linear(d=6, classes=3, seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(d, classes)).double()


class Bumps(nn.Module):
    """Scores with maxima that are known: -‖x - m_c‖², smooth, so that (m_c) / (1 + λ) is the penalised one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("m", torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64))

    def forward(self, x):
        return -(x[:, None] - self.m).square().sum(2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    l2=st.floats(1e-4, 10.0),
    bounds=st.one_of(st.none(), st.tuples(st.floats(-2, 0.4), st.floats(0.5, 2))),
)
def test_of_a_linear_model_the_maximiser_is_its_weights_over_twice_lambda_clipped_to_the_bounds(seed, l2, bounds):
    model, target = linear(seed=seed), seed % 3
    found = viz.synthesize(model, (6,), target, l2=l2, bounds=bounds, seed=seed)
    expected = model[1].weight[target].detach() / (2 * l2)
    expected = expected if bounds is None else expected.clamp(*bounds)
    torch.testing.assert_close(found.x, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.score, model(found.x[None])[0, target].detach())
    assert found.slope < 1e-7
    torch.testing.assert_close(found.trace[-1], found.score - l2 * found.x.square().sum())


def test_of_a_linear_model_in_float32_too():
    model = linear(64).float()
    found = viz.synthesize(model, (1, 8, 8), 1)
    assert found.x.dtype == torch.float32
    expected = model[1].weight[1].detach().reshape(1, 8, 8) / 0.02
    torch.testing.assert_close(found.x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("l2", [0.25, 1.0])
def test_of_a_quadratic_score_the_maximiser_is_the_shrunken_centre(l2):
    model = Bumps()
    found = viz.synthesize(model, (3,), [1, 0], l2=l2)
    torch.testing.assert_close(found.x, model.m[[1, 0]] / (1 + l2), rtol=0, atol=1e-6)
    assert found.slope.max() < 1e-5


def small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def test_the_trace_of_an_input_that_is_found_earlier_keeps_its_last_value():
    class Uneven(nn.Module):
        """A linear score, and one that takes longer."""

        def forward(self, x):
            return torch.stack([x.sum(1), x.sin().prod(1) - x.square().square().sum(1)], 1)

    found = viz.synthesize(Uneven(), (3,), [0, 1], l2=0.5)
    alone = [viz.synthesize(Uneven(), (3,), target, l2=0.5).trace for target in (0, 1)]
    assert len(alone[0]) < len(alone[1]) == found.trace.shape[1]
    assert torch.equal(found.trace[1], alone[1])
    assert torch.equal(found.trace[0, : len(alone[0])], alone[0])
    assert (found.trace[0, len(alone[0]) :] == alone[0][-1]).all()


def digits_network(build=small):
    """Return a network of digits after two hundred steps, and its data."""
    images, labels = data.digits().images.double(), data.digits().labels
    generator = torch.Generator().manual_seed(0)
    with seeded(0):
        net = build().double()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        i = torch.randint(len(images), (64,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(net(images[i]), labels[i]).backward()
        optimiser.step()
    return net.eval(), images


@pytest.fixture(scope="module")
def digits():
    return digits_network()


@pytest.mark.filterwarnings("ignore:The last")
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_images_of_a_trained_network_score_above_all_data_and_win_their_class(digits, bounds):
    net, images = digits
    found = viz.synthesize(net, (1, 8, 8), range(10), bounds=bounds, steps=200 if bounds is None else 60)
    with torch.no_grad():
        scores, best = net(found.x), net(images).amax(0)
    assert torch.equal(scores.argmax(1), torch.arange(10))
    torch.testing.assert_close(found.score, scores.diagonal())
    assert (found.score > (2 if bounds is None else 1) * best).all()
    assert (found.trace.diff(dim=1) >= 0).all()
    assert found.trace.shape[1] <= 201
    assert bounds is None or (found.x.min() >= 0 and found.x.max() <= 1)


def test_the_ascent_reaches_what_a_long_descent_by_adam_reaches(digits):
    net, _ = digits
    found = viz.synthesize(net, (1, 8, 8), 3)
    x = found.x.new_zeros(1, 1, 8, 8).normal_(0, 0.01, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([x], 0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)
    for _ in range(1000):
        optimiser.zero_grad()
        objective = net(x)[0, 3] - 0.01 * x.square().sum()
        (-objective).backward()
        optimiser.step()
        schedule.step()
    assert found.trace[-1] > 0.98 * objective.detach()


@pytest.mark.filterwarnings("ignore:The last")
@pytest.mark.parametrize("spelling", ["functional", "in place", "reused"])
def test_it_does_not_matter_how_a_relu_is_written(spelling):
    with seeded(0):
        model, other = Convolutions().double(), Convolutions(spelling).double()
    other.load_state_dict(model.state_dict())
    first, second = (viz.synthesize(each, (3, 13, 13), 2, l2=1e-3, steps=20) for each in (model, other))
    assert first.x.abs().max() > 0.1
    assert torch.equal(first.x, second.x)


def test_a_larger_penalty_gives_a_smaller_image(digits):
    norms = [float(viz.synthesize(digits[0], (1, 8, 8), 0, l2=l2).x.norm()) for l2 in (0.01, 0.1, 1.0)]
    assert norms[0] > 5 * norms[1] > 25 * norms[2] > 0


def test_a_unit_of_a_layer_is_maximised_and_only_its_receptive_field_is_written_on(digits):
    net, images = digits
    units = torch.tensor([[3, 1, 2], [5, 0, 0]])
    found = viz.synthesize(net, (1, 8, 8), layer="2", unit=units)
    assert found.x.shape == (2, 1, 8, 8)
    for x, score, (channel, row, column) in zip(found.x, found.score, units):
        values = viz.activations(net, x[None], "2")["2"][0]
        torch.testing.assert_close(values[channel, row, column], score)
        assert score > viz.activations(net, images, "2")["2"][:, channel, row, column].max()
        field = torch.zeros(8, 8, dtype=torch.bool)
        field[max(0, 2 * row - 1) : 2 * row + 2, max(0, 2 * column - 1) : 2 * column + 2] = True
        torch.testing.assert_close(x[0][~field], torch.zeros_like(x[0][~field]), rtol=0, atol=1e-6)
        assert x[0][field].abs().min() > 1e-3
    assert torch.equal(viz.synthesize(net, (1, 8, 8), layer="2", unit=(3, 1, 2)).x, found.x[0])


def test_a_unit_that_is_dead_near_zero_is_woken_by_larger_noise():
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU()).double()
    model[0].weight.data[:] = torch.tensor([[2.0, -1.0, 0.5]])
    model[0].bias.data[:] = -3.0
    found = viz.synthesize(model, (3,), layer="1", unit=0, l2=0.1)
    torch.testing.assert_close(found.x, model[0].weight.detach()[0] / 0.2, rtol=0, atol=1e-6)
    with torch.no_grad():
        model[0].bias[:] = -1e9
    with pytest.raises(ValueError, match="the score must change with x where the ascent starts"):
        viz.synthesize(model, (3,), layer="1", unit=0)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_sequences_and_one_score_without_a_target(device):
    with seeded(0):
        model = Reader().double()
    expected = viz.synthesize(model, (5, 2), 1).x
    found = viz.synthesize(model.to(device), (5, 2), 1)
    model, found = model.cpu(), viz.Synthesis(*(part.cpu() for part in vars(found).values()))
    torch.testing.assert_close(found.x, expected, rtol=1e-4, atol=1e-4)
    assert found.x.shape == (5, 2)
    assert found.score > model(torch.zeros(1, 5, 2).double())[0, 1]
    single = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    found = viz.synthesize(single, (4,))
    torch.testing.assert_close(found.x, single[0].weight.detach()[0] / 0.02, rtol=0, atol=1e-6)


def test_the_seed_decides_where_a_network_ends(digits):
    first, again, other = (viz.synthesize(digits[0], (1, 8, 8), 5, seed=seed).x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


def test_no_global_generator_is_drawn_from():
    state = torch.random.get_rng_state()
    viz.synthesize(linear(), (6,), 1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_in_half_precision_is_seen_in_float32():
    model = linear().half()
    found = viz.synthesize(model, (6,), 1)
    assert found.x.dtype == torch.float32
    assert model[1].weight.dtype == torch.float16
    torch.testing.assert_close(found.x, model[1].weight[1].detach().float() / 0.02, rtol=1e-6, atol=1e-6)


class Watchful(nn.Module):
    """Batch norm and dropout, which tell eval from training; a count in a buffer; it may fail at a call."""

    def __init__(self, fails=0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.9))
        self.head, self.fails = nn.Linear(8, 3), fails
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        if self.fails and self.calls >= self.fails:
            raise RuntimeError("an error of the user's")
        return self.head(self.body(x))


@pytest.mark.parametrize("fails", [0, 1, 4])
@pytest.mark.parametrize("asked", [{"target": 1}, {"layer": "body.2", "unit": 3}])
def test_a_model_is_left_as_it_was_also_after_an_exception(fails, asked):
    with seeded(1):
        model = Watchful(fails).double().train()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    state, buffer = copy.deepcopy(model.state_dict()), model.calls
    if fails:
        with pytest.raises(RuntimeError, match="^an error of the user's$"):
            viz.synthesize(model, (5,), **asked)
    else:
        assert viz.synthesize(model, (5,), **asked).x.abs().max() > 0.1
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.calls is buffer
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert not model.head.weight.requires_grad
    assert model.body[0].weight.requires_grad
    assert torch.equal(model.head.bias.grad, torch.ones_like(model.head.bias))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "head.bias")


def test_a_compiled_model_has_scores_as_any_other():
    model = linear()
    found = viz.synthesize(torch.compile(model, backend="eager"), (6,), 1)
    torch.testing.assert_close(found.x, model[1].weight[1].detach() / 0.02)


def test_too_few_steps_are_warned_of(digits):
    with pytest.warns(ConvergenceWarning, match=r"The last 1 of 3 steps still brought \d+\.\d% of the rise") as record:
        found = viz.synthesize(digits[0], (1, 8, 8), 3, steps=3)
    assert record[0].filename == __file__
    assert found.trace.shape == (4,)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


MODEL = linear()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.synthesize(torch.relu, (6,), 1), TypeError, "model must be a torch.nn.Module"),
        (lambda: viz.synthesize(MODEL, 6, 1), ValueError, "shape must be that of one input.*got 6"),
        (lambda: viz.synthesize(MODEL, (), 1), ValueError, "shape must be that of one input"),
        (lambda: viz.synthesize(MODEL, (6, 0), 1), ValueError, "shape must be that of one input"),
        (lambda: viz.synthesize(MODEL, (6,)), ValueError, "target must be given, one of 3 classes"),
        (lambda: viz.synthesize(MODEL, (6,), 3), ValueError, r"target must be in 0, ..., 2, one of 3 classes; got 3"),
        (lambda: viz.synthesize(MODEL, (6,), [0, -1]), ValueError, "target must be in 0"),
        (lambda: viz.synthesize(MODEL, (6,), []), ValueError, "target must hold at least one"),
        (lambda: viz.synthesize(MODEL, (6,), 1.5), TypeError, "target must be an integer"),
        (lambda: viz.synthesize(MODEL, (6,), 1, layer="1", unit=0), ValueError, "target must be None where a unit"),
        (lambda: viz.synthesize(MODEL, (6,), layer="1"), ValueError, "layer and unit must be given together"),
        (lambda: viz.synthesize(MODEL, (6,), layer="no", unit=0), ValueError, "layer must be one of '0', '1', 'output"),
        (lambda: viz.synthesize(MODEL, (6,), layer="1", unit=3), ValueError, r"unit must be from 0 to below \(3,\)"),
        (lambda: viz.synthesize(MODEL, (6,), 1, l2=-1.0), ValueError, "l2 must be a finite number, 0 or more; got -1"),
        (lambda: viz.synthesize(MODEL, (6,), 1, l2=float("nan")), ValueError, "l2 must be a finite number"),
        (lambda: viz.synthesize(MODEL, (6,), 1, l2=0.0), ValueError, "the maximum is infinite. Pass bounds="),
        (
            lambda: viz.synthesize(MODEL, (6,), 1, l2=0, bounds=(0, float("inf"))),
            ValueError,
            "bounds are not finite.*the maximum is infinite",
        ),
        (lambda: viz.synthesize(MODEL, (6,), 1, steps=0), ValueError, "steps must be a positive integer; got 0"),
        (lambda: viz.synthesize(MODEL, (6,), 1, bounds=(1, 0)), ValueError, "bounds must be the smallest"),
        (lambda: viz.synthesize(MODEL, (6,), 1, bounds=3), ValueError, "bounds must be the smallest"),
        (lambda: viz.synthesize(MODEL, (6,), 1, seed="a"), TypeError, "seed must be an integer"),
        (lambda: viz.synthesize(Of(lambda x: x * float("nan")), (6,), 1), ValueError, "got NaN in 1 of 1 rows"),
        (lambda: viz.synthesize(Of(lambda x: x.exp()), (2,), 1), ValueError, "the score must be finite"),
        (lambda: viz.synthesize(Of(lambda x: x.detach()), (6,), 1), ValueError, "the score must depend on x"),
        (lambda: viz.synthesize(Of(lambda x: 0 * x), (6,), 1), ValueError, "its derivative is zero at noise"),
        (
            lambda: viz.synthesize(torch.compile(MODEL, backend="eager"), (6,), layer="1", unit=0),
            ValueError,
            "is compiled: pass the model as it was",
        ),
        (
            lambda: viz.synthesize(Of(lambda x: checkpoint(MODEL, x, use_reentrant=True)), (6,), 1),
            ValueError,
            "reentrant checkpoint: use torch.utils.checkpoint with use_reentrant=False",
        ),
        (lambda: viz.synthesize(nn.Conv2d(1, 2, 3), (1, 5, 5), 1), ValueError, "model must return scores of shape"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
