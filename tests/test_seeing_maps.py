"""Maps on the input equal those of Captum where it is right, and of a network written out where it is not."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from probdl import viz
from probdl.viz.seeing import graph

SPELLINGS = ["module", "functional", "method", "in place", "module in place", "reused", "torch", "method in place"]


class Convolutions(nn.Module):
    """One network whose three ReLUs are written in one of the ways."""

    def __init__(self, spelling="module"):
        super().__init__()
        inplace = spelling == "module in place"
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.norm, self.pool = nn.BatchNorm2d(8), nn.MaxPool2d(3, stride=2)
        self.fc1, self.fc2 = nn.Linear(32, 10), nn.Linear(10, 4)
        self.relu1, self.relu2, self.relu3 = (nn.ReLU(inplace) for _ in range(3))
        self.spelling = spelling

    def relu(self, x, i):
        if self.spelling == "functional":
            return F.relu(x)
        if self.spelling == "in place":
            return F.relu(x, inplace=True)
        if self.spelling == "torch":
            return torch.relu(x)
        if self.spelling in ("method", "method in place"):
            return x.relu() if self.spelling == "method" else x.relu_()
        return self.relu1(x) if self.spelling == "reused" else getattr(self, f"relu{i}")(x)

    def forward(self, x):
        x = self.relu(self.conv1(x), 1)
        x = self.pool(self.relu(self.norm(self.conv2(x)), 2))
        return self.fc2(self.relu(self.fc1(F.adaptive_avg_pool2d(x, 2).flatten(1)), 3))


def seeded(build, seed=0):
    torch.manual_seed(seed)
    model = build().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def sequential():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 5),
    )  # fmt: skip


def images(channels=3, n=4, size=13):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def captums(name, model, x, target):
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kwargs = {"abs": False} if name == "Saliency" else {}
        return getattr(attr, name)(copy.deepcopy(model).eval()).attribute(x.clone().requires_grad_(), target, **kwargs)


def outputs(method, model, x, targets):
    """Return what a method says of the scores, one target for each row."""
    if method is viz.deconvnet:
        return viz.deconvnet(model, x, "output", targets)
    return method(model, x, targets) if method is not viz.saliency else viz.saliency(model, x, targets, reduce=None)


METHODS = {"Saliency": viz.saliency, "GuidedBackprop": viz.guided_backprop, "Deconvolution": viz.deconvnet}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", METHODS)
def test_maps_of_a_sequential_net_equal_captums(name, seed):
    model, x, targets = seeded(sequential, seed), images(1), torch.tensor([0, 4, 2, 2])
    found = outputs(METHODS[name], model, x, targets)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, captums(name, model, x, targets), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize("spelling", SPELLINGS[1:])
def test_it_does_not_matter_how_a_relu_is_written(method, spelling):
    model = seeded(Convolutions)
    other = Convolutions(spelling).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(outputs(method, model, images(), 1), outputs(method, other, images(), 1))


class Guided(torch.autograd.Function):
    """A ReLU with its backward pass written out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class Deconvolved(Guided):
    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0)


class Residual(nn.Module):
    """Blocks x + conv(relu(conv(relu(x)))): the ReLU stands before the branch, as in He et al. (2016, v2)."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)])
        self.head, self.rectify = nn.Linear(3, 4), F.relu

    def forward(self, x):
        for first, second in zip(self.convs[::2], self.convs[1::2]):
            x = x + second(self.rectify(first(self.rectify(x))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("method", "rule"), [(viz.guided_backprop, Guided), (viz.deconvnet, Deconvolved)])
def test_maps_of_a_preactivation_residual_net_equal_those_with_the_backward_pass_written_out(method, rule):
    model = seeded(Residual)
    found, plain = outputs(method, model, images(), 2), viz.saliency(model, images(), 2, reduce=None)
    model.rectify = rule.apply
    x = images().requires_grad_()
    expected = torch.autograd.grad(model(x)[:, 2].sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert (found - plain).norm() > 0.05 * plain.norm()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), widths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_maps_of_networks_of_any_width_are_products_of_matrices(seed, widths):
    """With the masks and positive parts of each layer by hand."""
    sizes = [3, *widths, 2]
    lines = seeded(lambda: nn.Sequential(*[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]), seed)
    model = nn.Sequential(*[part for line in lines for part in (line, nn.ReLU())][:-1])
    x = torch.randn(1, 3, dtype=torch.float64)
    inputs = viz.activations(model, x, [str(2 * i) for i in range(len(lines) - 1)])
    gradient = guided = deconvolved = lines[-1].weight[1]
    for line, u in zip(reversed(lines[:-1]), reversed(inputs.values())):
        gradient = (gradient * (u[0] > 0)) @ line.weight
        guided = (guided.clamp(min=0) * (u[0] > 0)) @ line.weight
        deconvolved = deconvolved.clamp(min=0) @ line.weight
    torch.testing.assert_close(viz.saliency(model, x, 1)[0], gradient.abs())
    torch.testing.assert_close(viz.guided_backprop(model, x, 1)[0], guided)
    torch.testing.assert_close(viz.deconvnet(model, x, "output", 1)[0], deconvolved)


def test_without_a_target_the_class_that_scores_most_is_explained():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)))
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    winners = model(x).argmax(1)
    assert len(winners.unique()) > 2
    assert torch.equal(viz.saliency(model, x), viz.saliency(model, x, winners))
    assert torch.equal(viz.guided_backprop(model, x), viz.guided_backprop(model, x, winners))


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_score_without_classes_is_explained_too(shape):
    model = nn.Sequential(nn.Linear(5, 1), nn.Flatten() if shape else nn.Flatten(0)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(viz.saliency(model, x, reduce=None), model[0].weight.expand(3, -1))


def test_saliency_is_the_largest_derivative_over_the_channels():
    x = images()
    raw = viz.saliency(seeded(Convolutions), x, 1, reduce=None)
    assert raw.shape == x.shape
    assert torch.equal(viz.saliency(seeded(Convolutions), x, 1), raw.abs().amax(1))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_saliency_of_a_recurrent_net_is_over_time(device):
    model = seeded(Reader).to(device)
    x = torch.randn(4, 7, 2, dtype=torch.float64)
    raw = viz.saliency(model, x, 1, reduce=None)
    assert torch.equal(viz.saliency(model, x, 1), raw.abs().amax(2))
    step = torch.zeros_like(x)
    step[:, 3, 1] = 1e-6
    with torch.no_grad():
        difference = (model((x + step).to(device)) - model((x - step).to(device)))[:, 1] / 2e-6
    torch.testing.assert_close(raw[:, 3, 1], difference, rtol=1e-5, atol=1e-9)


def test_units_of_a_layer_are_seen_before_a_later_relu_in_place_changes_them():
    plain, inplace = seeded(Convolutions), Convolutions("in place").double()
    inplace.load_state_dict(plain.state_dict())
    values = viz.activations(plain, images(), "conv2")["conv2"]
    units = torch.stack(torch.unravel_index(values.flatten(1).argmin(1), values.shape[1:]), 1)
    assert values.flatten(1).amin(1).max() < 0
    for method in (viz.deconvnet, viz.guided_backprop):
        expected = method(plain, images(), layer="conv2", unit=units)
        assert expected.abs().amax((1, 2, 3)).min() > 0
        assert torch.equal(method(inplace, images(), layer="conv2", unit=units), expected)


def test_a_relu_in_place_on_the_input_writes_on_nothing_of_the_users():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)).double(), torch.randn(3, 4, dtype=torch.float64)
    before = x.clone()
    torch.testing.assert_close(viz.saliency(model, x, 0, reduce=None), (x > 0) * model[1].weight[0])
    viz.activations(model, x, "0")
    assert torch.equal(x, before)


def test_each_row_may_ask_for_a_unit_of_its_own():
    model, x = seeded(Convolutions), images()
    units = torch.tensor([[0, 0, 0], [7, 5, 5], [3, 1, 2], [3, 4, 2]])
    together = viz.deconvnet(model, x, "relu2", units)
    for i, unit in enumerate(units):
        assert torch.allclose(together[i], viz.deconvnet(model, x[i : i + 1], "relu2", tuple(unit.tolist()))[0])


def test_indices_of_numpys_are_those_of_tensors():
    rows = torch.tensor([3, 0, 1, 2])
    for function in (viz.channel_gradient, viz.deconvnet):
        ours = function(MODEL, images(), "fc1", rows)
        assert torch.equal(function(MODEL, images(), "fc1", rows.numpy()), ours)
        assert torch.equal(function(MODEL, images(), "fc1", rows.numpy()[0]), function(MODEL, images(), "fc1", 3))


@pytest.mark.parametrize("layer", ["0", "1", "output"])
def test_one_number_for_each_row_is_one_unit(layer):
    model, x = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), torch.ones(4, 3)
    expected = model[0].weight.detach().expand(4, 3)
    torch.testing.assert_close(viz.channel_gradient(model, x, layer, 0), expected, rtol=0, atol=0)


def test_a_projection_of_a_unit_stays_in_its_receptive_field():
    """The unit (0, 0) after two convolutions, of stride 2 without and of stride 1 with padding, sees 5 by 5 pixels."""
    found = viz.deconvnet(seeded(Convolutions), images(), "norm", (3, 0, 0)) != 0
    assert found[:, :, 5:].sum() == found[:, :, :, 5:].sum() == 0
    assert found[:, :, 4].any()


def test_the_gradient_of_a_channel_is_the_mean_of_those_of_its_nodes():
    model, x = seeded(Convolutions), images(n=2)
    found = viz.channel_gradient(model, x, "conv2", 4)
    leaf = x.clone().requires_grad_()
    values = model.conv2(F.relu(model.conv1(leaf)))[:, 4].flatten(1)
    nodes = [torch.autograd.grad(values[:, j].sum(), leaf, retain_graph=True)[0] for j in range(values.shape[1])]
    torch.testing.assert_close(found, torch.stack(nodes).mean(0))
    linear = viz.channel_gradient(model, x, "fc1", torch.tensor([1, 3]))
    assert not torch.allclose(linear[1], viz.channel_gradient(model, x, "fc1", 1)[1])


# The model is left as it was.


class Watchful(Convolutions):
    """It counts its calls in a buffer, and may fail."""

    def __init__(self, fails=False):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", None)
        self.fails = fails

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().sum()
        scores = super().forward(x)
        if self.fails:
            raise RuntimeError("an error of the user's")
        return scores


CALLS = {
    "saliency": lambda model, x: viz.saliency(model, x),
    "guided_backprop": lambda model, x: viz.guided_backprop(model, x),
    "deconvnet": lambda model, x: viz.deconvnet(model, x, "conv2", (0, 1, 1)),
    "channel_gradient": lambda model, x: viz.channel_gradient(model, x, "conv2", 0),
    "layers": lambda model, x: viz.layers(model, x),
    "activations": lambda model, x: viz.activations(model, x, ["conv1"]),
}


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [len(getattr(module, kind)) for module in model.modules() for kind in kinds]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_is_left_as_it_was_also_after_an_exception(call, fails):
    model = seeded(lambda: Watchful(fails)).train()
    model.norm.eval()
    model.conv1.requires_grad_(False)
    model.fc1.weight.grad = torch.ones_like(model.fc1.weight)
    model.conv2.register_forward_hook(lambda *_: None)
    state, count, buffer = copy.deepcopy(model.state_dict()), hooks(model), model.calls
    x = images().requires_grad_()
    with torch.no_grad():
        if fails:
            with pytest.raises(RuntimeError, match="user's"):
                call(model, x)
        else:
            call(model, x)
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [module is not model.norm for module in model.modules()]
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.calls is buffer
    assert hooks(model) == count
    assert [p.requires_grad for p in model.parameters()] == ["conv1" not in n for n, _ in model.named_parameters()]
    assert torch.equal(model.fc1.weight.grad, torch.ones_like(model.fc1.weight))
    assert x.grad is None
    assert all(p.grad is None for n, p in model.named_parameters() if n != "fc1.weight")


def test_a_model_is_seen_in_eval_mode_and_under_inference_mode_too():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    expected = viz.saliency(model, x, 0)
    with torch.inference_mode():
        assert torch.equal(viz.saliency(model, x, 0), expected)
        assert torch.equal(viz.saliency(model, x.clone(), 0), expected)
    assert torch.equal(viz.saliency(model.eval(), x, 0), expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_in_half_precision_is_seen_in_single(call, half):
    model = seeded(Convolutions).to(half)
    found, expected = call(model, images()), call(copy.deepcopy(model).float(), images().float())
    if isinstance(found, torch.Tensor):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    assert str(found) == str(expected)
    assert {p.dtype for p in model.parameters()} == {half}


def test_derivatives_that_half_precision_would_lose_are_kept():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    nn.init.constant_(model[0].weight, 1e-5)
    nn.init.constant_(model[1].weight, 1e-5)
    assert viz.saliency(model.half(), torch.ones(1, 2), 0).min() > 1e-10


# What the graph hides is not passed over in silence.


class Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.below, self.above, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function

    def forward(self, x):
        return self.above(self.function(self.below(x)))


X = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)


def through(function):
    return seeded(lambda: Through(function))


def in_view(x):
    y = x * 1
    y[:, :3].relu_()
    return torch.relu(y)


HIDDEN = {
    "reentrant checkpoint": lambda x: checkpoint(torch.relu, x, use_reentrant=True),
    "compiled function": torch.compile(torch.relu, backend="aot_eager"),
    r"clamp\(min=0\)": lambda x: torch.relu(x).clamp(min=0),
    "write into a view": in_view,
    "custom function Guided": lambda x: Guided.apply(torch.relu(x)),
}


@pytest.mark.parametrize("method", [viz.guided_backprop, viz.deconvnet])
@pytest.mark.parametrize(("what", "function"), HIDDEN.items(), ids=HIDDEN)
def test_a_node_that_could_hide_a_relu_is_an_error(method, what, function):
    with pytest.raises(ValueError, match=f"must show its ReLUs, but it holds a?.*{what}|holds a {what}"):
        outputs(method, through(function), X, 0)


def test_a_relu_of_parameters_only_is_none_between_input_and_score():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    torch.nn.utils.parametrize.register_parametrization(model[0], "weight", nn.ReLU())
    with pytest.raises(ValueError, match="found none. Use saliency"):
        viz.guided_backprop(model, X, 0)


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, lambda x: x])
@pytest.mark.parametrize("method", [viz.guided_backprop, viz.deconvnet])
def test_a_net_without_a_relu_is_an_error_and_not_a_plain_gradient(method, function):
    with pytest.raises(ValueError, match="must have a ReLU between x and the score"):
        outputs(method, through(function), X, 0)


ALIKE = {"Gelu": F.gelu, "Silu": F.silu, "LeakyRelu": F.leaky_relu, "Hardtanh": F.relu6, "Elu": F.elu, "Mish": F.mish}
ALIKE |= {"Clamp": lambda x: x.clamp(0, 1), "Threshold": lambda x: F.threshold(x, 0.1, 0)}
ALIKE |= {"PreluKernel": lambda x: F.prelu(x, torch.full((1,), 0.2).double()), "Softplus": F.softplus}


@pytest.mark.parametrize(("name", "function"), ALIKE.items(), ids=ALIKE)
def test_activations_that_resemble_a_relu_are_warned_of(name, function):
    with pytest.warns(UserWarning, match=f"^{name} keep their own derivative") as record:
        viz.guided_backprop(through(lambda x: torch.relu(function(x))), X, 0)
    assert record[0].filename == __file__


def test_saliency_can_not_pass_a_reentrant_checkpoint_and_says_what_can():
    with pytest.raises(ValueError, match="reentrant checkpoint: use torch.utils.checkpoint with use_reentrant=False"):
        viz.saliency(through(HIDDEN["reentrant checkpoint"]), X, 0)


def test_a_checkpoint_that_is_not_reentrant_hides_nothing():
    plain, checkpointed = through(torch.relu), through(lambda x: checkpoint(torch.relu, x, use_reentrant=False))
    for method in METHODS.values():
        assert torch.equal(outputs(method, plain, X, 1), outputs(method, checkpointed, X, 1))


def test_backward_hooks_of_the_user_hide_nothing():
    plain, watched = through(nn.ReLU()), through(nn.ReLU())
    watched.below.register_full_backward_hook(lambda *_: None)
    assert torch.equal(viz.guided_backprop(plain, X, 1), viz.guided_backprop(watched, X, 1))


SEEING = {
    "guided_backprop": lambda model: viz.guided_backprop(model, X, 0),
    "layers": lambda model: viz.layers(model, X),
    "activations": lambda model: viz.activations(model, X, "above"),
    "channel_gradient": lambda model: viz.channel_gradient(model, X, "above", 0),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("call", SEEING.values(), ids=SEEING)
def test_compiled_and_scripted_models_are_errors_that_say_what_to_pass(call):
    with pytest.raises(ValueError, match="OptimizedModule is compiled: pass the model as it was before torch.compile"):
        call(torch.compile(through(torch.relu), backend="eager"))
    compiled, scripted = through(torch.relu), through(torch.relu)
    compiled.above.compile(backend="eager")
    with pytest.raises(ValueError, match="above is compiled: pass the model as it was"):
        call(compiled)
    scripted.below = torch.jit.script(scripted.below)
    with pytest.raises(ValueError, match="below is scripted: pass the model as it was before torch.jit"):
        call(scripted)


def test_saliency_needs_no_sight_of_the_inside():
    inner = through(torch.relu)
    found = viz.saliency(torch.compile(inner, backend="eager"), X, 0)
    torch.testing.assert_close(found, viz.saliency(inner, X, 0))


def test_the_names_of_the_nodes_are_those_that_are_looked_for():
    """Torch promises none of them."""
    x = torch.randn(2, 3, requires_grad=True)
    for function in (torch.relu, F.relu, nn.ReLU(), lambda x: (x * 1).relu_(), lambda x: F.relu(x * 1, inplace=True)):
        assert function(x).grad_fn.name().startswith(graph.RELU)
    assert in_view(x).grad_fn.next_functions[0][0].name().endswith("CopySlices")


# Bad input.

MODEL = seeded(Convolutions)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.saliency(torch.relu, X), TypeError, "model must be a torch.nn.Module; got"),
        (lambda: viz.saliency(MODEL, "x"), TypeError, "x must"),
        (lambda: viz.saliency(MODEL, images() * float("nan")), ValueError, "x must be finite"),
        (lambda: viz.saliency(MODEL, images()[:0]), ValueError, "x is empty"),
        (lambda: viz.saliency(MODEL, torch.ones(3)), ValueError, r"x must have shape \(n, ...\)"),
        (lambda: viz.saliency(MODEL, images(), reduce="sum"), ValueError, 'reduce must be "max" or None'),
        (lambda: viz.saliency(MODEL, images(), 4), ValueError, r"target must be in 0, ..., 3, one of 4 classes; got 4"),
        (lambda: viz.saliency(MODEL, images(), -1), ValueError, "target must be in 0"),
        (lambda: viz.saliency(MODEL, images(), torch.tensor([0, 1, 2, 9])), ValueError, "target must be in 0"),
        (lambda: viz.saliency(MODEL, images(), torch.tensor([0, 1])), ValueError, "one for each of 4 rows"),
        (lambda: viz.saliency(MODEL, images(), 1.0), TypeError, "target must be an integer"),
        (lambda: viz.saliency(MODEL, images(), True), TypeError, "target must be an integer"),
        (lambda: viz.saliency(MODEL, images(), torch.ones(4)), TypeError, "target must be an integer"),
        (lambda: viz.saliency(nn.Conv2d(3, 2, 3), images(), 0), ValueError, "model must return scores of shape"),
        (lambda: viz.saliency(nn.LSTM(2, 3), torch.ones(4, 3, 2), 0), TypeError, "got tuple"),
        (lambda: viz.saliency(through(torch.detach), X, 0), ValueError, "the score must depend on x"),
        (lambda: viz.guided_backprop(MODEL, images(), layer="conv1"), ValueError, "layer and unit must be given tog"),
        (lambda: viz.guided_backprop(MODEL, images(), unit=1), ValueError, "layer and unit must be given together"),
        (lambda: viz.guided_backprop(MODEL, images(), 1, "conv1", 1), ValueError, "target must be None"),
        (lambda: viz.deconvnet(MODEL, images(), "conv9", 1), ValueError, "must be one of 'conv1', 'relu1', 'conv2'"),
        (lambda: viz.deconvnet(MODEL, images(), 3, 1), TypeError, "layer must be a name"),
        (lambda: viz.deconvnet(MODEL, images(), "relu1", 1), ValueError, r"unit must be 3 integers within \(6, 6, 6\)"),
        (lambda: viz.deconvnet(MODEL, images(), "fc1", torch.tensor([0, 1])), ValueError, "for each of the 4 rows"),
        (lambda: viz.deconvnet(MODEL, images(), "fc1", torch.ones(4)), TypeError, "unit must hold integers"),
        (lambda: viz.deconvnet(MODEL, images(), "fc1", np.ones(4)), TypeError, "unit must hold integers"),
        (lambda: viz.deconvnet(MODEL, images(), "fc1", True), TypeError, "unit must be an integer"),
        (lambda: viz.deconvnet(MODEL, images(), "relu1", (6, 0, 0)), ValueError, r"below \(6, 6, 6\)"),
        (lambda: viz.deconvnet(MODEL, images(), "relu1", (0, 0, -1)), ValueError, r"below \(6, 6, 6\)"),
        (lambda: viz.deconvnet(MODEL, images(), "relu1", (0, 0, 0.5)), TypeError, "unit must be an integer"),
        (lambda: viz.channel_gradient(MODEL, images(), "relu1", 6), ValueError, r"channel must be from 0 to below \(6"),
        (lambda: viz.channel_gradient(MODEL, images(), "nothing", 0), ValueError, "layer must be one of"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
