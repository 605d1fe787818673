"""A shape that a module refuses is an error that names it; a ReLU that the graph hides is never taken for none."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from probdl import viz
from probdl.viz.seeing import graph, refusal


class Of(nn.Module):
    """A function of the module and its input."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(self, x)


IMAGES, ROWS, SERIES = torch.zeros(4, 3, 5, 5), torch.zeros(4, 6), torch.zeros(4, 5, 3)
REFUSED = {
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), IMAGES, r"its module '1', Linear, was given \(4, 75\)"),
    "linear alone": (nn.Linear(3, 2), ROWS, "Linear could not run. Torch says: mat1 and mat2"),
    "channels": (nn.Sequential(nn.Conv2d(1, 2, 3)), IMAGES, "'0', Conv2d.* to have 1 channels, but got 3"),
    "groups": (nn.Conv2d(4, 4, 3, groups=2), IMAGES, "Conv2d could not run. Torch says: Given groups=2"),
    "no images": (nn.Conv2d(3, 2, 3), ROWS, "Conv2d could not run"),
    "small images": (nn.Conv2d(3, 2, 7), IMAGES, "Kernel size can't be greater"),
    "pool": (nn.MaxPool2d(9), IMAGES, "MaxPool2d could not run"),
    "LSTM": (nn.LSTM(2, 3, batch_first=True), SERIES, "LSTM could not run. Torch says: input.size"),
    "LSTM of images": (nn.LSTM(3, 3), IMAGES, "LSTM could not run"),
    "GRU cell": (nn.GRUCell(2, 3), ROWS, "GRUCell could not run"),
    "batch norm": (nn.BatchNorm2d(7), IMAGES, "BatchNorm2d could not run.* running_mean"),
    "batch norm of rows": (nn.BatchNorm2d(3), ROWS, "BatchNorm2d could not run.* expected 4D input"),
    "layer norm": (nn.LayerNorm(7), ROWS, "LayerNorm could not run"),
    "attention": (nn.TransformerEncoderLayer(8, 2), SERIES, "'self_attn', MultiheadAttention, was given"),
    "broadcast": (Of(lambda m, x: x + torch.ones(7)), ROWS, "Of could not run.* must match the size"),
    "product": (Of(lambda m, x: x @ torch.ones(7, 2)), ROWS, "Of could not run"),
    "view": (Of(lambda m, x: x.view(-1, 7)), ROWS, r"shape '\[-1, 7\]' is invalid"),
    "concatenation": (Of(lambda m, x: torch.cat([x, torch.ones(3, 2)], 1)), ROWS, "Sizes of tensors must match"),
    "dimension": (Of(lambda m, x: x.mean((2, 3))), ROWS, "Dimension out of range"),
    "index": (Of(lambda m, x: x[:, 0, 0]), ROWS, "too many indices"),
}


@pytest.mark.parametrize(("model", "x", "match"), REFUSED.values(), ids=REFUSED)
def test_a_module_that_refuses_the_shape_of_its_input_is_named(model, x, match):
    with pytest.raises(ValueError, match=match) as caught:
        viz.layers(model, x)
    assert str(caught.value).startswith(f"x must have a shape that the model takes; got {tuple(x.shape)}: ")
    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in str(caught.value)
    assert not any(module._forward_hooks for module in model.modules())


CALLS = {
    "saliency": lambda model, x: viz.saliency(model, x, 0),
    "guided_backprop": lambda model, x: viz.guided_backprop(model, x, 0),
    "deconvnet": lambda model, x: viz.deconvnet(model, x, "1", 0),
    "channel_gradient": lambda model, x: viz.channel_gradient(model, x, "1", 0),
    "activations": lambda model, x: viz.activations(model, x, "1"),
    "occlusion": lambda model, x: viz.occlusion(model, x, 0),
    "adversarial": lambda model, x: viz.adversarial(model, x, 0),
    "synthesize": lambda model, x: viz.synthesize(model, tuple(x.shape[1:]), 0),
    "randomization_check": lambda model, x: viz.randomization_check(viz.saliency, model, x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_function_says_so(call):
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).train()
    with pytest.raises(ValueError, match=r"x must have a shape .*got \((1|4), 3, 5, 5\): its module '1', Linear, was"):
        call(model, IMAGES)
    assert model.training


OWN = [
    RuntimeError("expected input of size 3, got shape (4, 6)"),
    ValueError("x must have 3 dimensions"),
    IndexError("Dimension out of range"),
    AssertionError("shape"),
    KeyError("size"),
    type("OfTheUser", (RuntimeError,), {})("mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_exceptions_of_the_users_own_code_pass_as_they_are(error):
    def forward(module, x):
        raise error

    for model in (Of(forward), nn.Sequential(nn.Linear(6, 6), Of(forward))):
        with pytest.raises(type(error)) as caught:
            viz.layers(model, ROWS)
        assert caught.value is error


def test_other_complaints_of_torchs_pass_as_they_are():
    with pytest.raises(IndexError, match="^index out of range in self$"):
        viz.layers(nn.Embedding(3, 2), torch.tensor([[5]]))
    with pytest.raises(RuntimeError, match="^mat1 and mat2 must have the same dtype"):
        viz.layers(Of(lambda m, x: m.parts[0](x.half()), nn.Linear(6, 2)), ROWS)
    refusal.raise_if_refused(_outside_a_module())


def test_running_out_of_memory_is_no_matter_of_shapes():
    """Torch's own class of error, raised by torch's own code."""
    code = "def forward(module, x):\n    raise torch.OutOfMemoryError('out of memory. Tried to allocate a size')"
    scope = {"torch": torch}
    exec(compile(code, refusal.TORCH + "nn/functional.py", "exec"), scope)
    with pytest.raises(torch.OutOfMemoryError):
        viz.layers(Of(scope["forward"]), ROWS)


def _outside_a_module():
    try:
        torch.ones(2) + torch.ones(3)
    except RuntimeError as error:
        return error


# ReLUs by other names.


def set_to_zero(x):
    x = x.clone()
    x[x < 0] = 0
    return x


class Written(nn.Module):
    """A network with a ReLU of torch's, or none, and one that is written out."""

    def __init__(self, function, rectify=torch.relu):
        super().__init__()
        self.below, self.middle, self.above = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.function, self.rectify = function, rectify

    def forward(self, x):
        return self.above(self.function(self.middle(self.rectify(self.below(x)))))


DOUBTFUL = {
    "where": (lambda x: torch.where(x > 0, x, 0.0), "^Where with a mask"),
    "where, method": (lambda x: x.where(x > 0, torch.zeros(())), "^Where with a mask"),
    "where not": (lambda x: torch.where(x < 0, torch.zeros_like(x), x), "^Where with a mask"),
    "times a mask": (lambda x: x * (x > 0), "^Mul with a mask"),
    "mask times": (lambda x: (x > 0) * x, "^Mul with a mask"),
    "times 0 and 1": (lambda x: x * (x > 0).to(x.dtype), "^Mul with a mask"),
    "in place": (lambda x: x.clone().mul_(x > 0), "^Mul with a mask"),
    "masked_fill": (lambda x: x.masked_fill(x < 0, 0), "^MaskedFill with a mask"),
    "set to zero": (set_to_zero, "^IndexPut with a mask"),
    "maximum": (lambda x: torch.maximum(x, torch.zeros(())), "^Maximum keep their own derivative"),
    "max": (lambda x: torch.max(x, torch.zeros_like(x)), "^Maximum keep their own derivative"),
    "fmax": (lambda x: torch.fmax(x, torch.zeros(())), "^Fmax keep their own derivative"),
    "threshold": (lambda x: F.threshold(x, 0, 0), "^Threshold keep their own derivative"),
    "in a checkpoint": (
        lambda x: checkpoint(lambda x: x * (x > 0), x, use_reentrant=False),
        "^Mul with a mask",
    ),
}
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("function", "match"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_relu_that_is_written_out_beside_another_is_warned_of(function, match):
    with pytest.warns(UserWarning, match=match) as record:
        viz.guided_backprop(Written(function), X, 0)
    assert len(record) == 1
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match=match):
        viz.deconvnet(Written(function), X, "above", 0)


@pytest.mark.filterwarnings("ignore:.*keep their own derivative")
@pytest.mark.parametrize("function", [function for function, _ in DOUBTFUL.values()], ids=DOUBTFUL)
def test_a_network_with_no_other_relu_is_an_error(function):
    with pytest.raises(ValueError, match="model must have a ReLU"):
        viz.guided_backprop(Written(function, rectify=torch.tanh), X, 0)


@pytest.mark.parametrize(
    "clamp", [lambda x: x.clamp(min=0), lambda x: x.clamp_min(0.0), lambda x: x.clamp(min=torch.zeros(()))]
)
def test_a_clamp_at_zero_is_an_error(clamp):
    with pytest.raises(ValueError, match=r"clamp\(min=0\): write torch.relu\(x\)"):
        viz.guided_backprop(Written(clamp), X, 0)


class Attends(nn.Module):
    """Attention with a causal mask by where, and padding by products and fills."""

    def __init__(self):
        super().__init__()
        self.query, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        causal = torch.ones(5, 5).tril().bool()
        there = torch.arange(5) < torch.tensor([3, 5, 2])[:, None]
        scores = torch.where(causal, self.query(x) @ x.mT, -1e9).masked_fill(~there[:, None], -1e9)
        return self.head((torch.relu(scores.softmax(-1) @ x) * there[..., None]).sum(1) / there.sum(1, keepdim=True))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        there = torch.arange(5) < torch.tensor([3, 5, 2])[:, None]
        return self.head(self.layer(x, src_key_padding_mask=~there).mean(1))


ORDINARY = {
    "where in attention": (Attends, (3, 5, 4)),
    "transformer": (Encoder, (3, 5, 4)),
    "a gate": (lambda: Written(lambda x: x * torch.sigmoid(x)), (3, 4)),
    "ones": (lambda: Written(lambda x: x * torch.ones_like(x)), (3, 4)),
    "a mask of units": (lambda: Written(lambda x: x * torch.tensor([1.0, 0, 1, 1, 0, 1])), (3, 4)),
    "layers": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(), nn.GroupNorm(2, 8), nn.AlphaDropout(),
            nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Dropout(), nn.Linear(8, 2),
        ),
        (3, 3, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "shape"), ORDINARY.values(), ids=ORDINARY)
def test_ordinary_networks_and_masks_that_are_broadcast_raise_no_alarm(build, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert viz.guided_backprop(build().train(), x, 0).isfinite().all()


def test_the_sizes_of_what_nodes_put_out_are_where_they_are_looked_for():
    """Torch promises neither them nor the names of what a node keeps."""
    x = torch.randn(2, 3, requires_grad=True)
    assert graph._shape((x * 2).grad_fn) == (2, 3)
    assert graph._shape(x.sum().grad_fn) == ()
    for function, _ in list(DOUBTFUL.values())[:9]:
        assert function(x * 1).grad_fn.name().startswith(tuple(graph.MASKS))


@pytest.mark.parametrize("look", [viz.saliency, viz.occlusion, lambda m, x: viz.adversarial(m, x, 0)])
def test_scores_that_are_no_numbers_are_an_error(look):
    images = torch.rand(2, 1, 4, 4)
    ruined = Of(lambda _, x: x.flatten(1) * torch.tensor([torch.nan, *[1.0] * 15]))
    with pytest.raises(ValueError, match="got NaN in . of . rows"):
        look(ruined, images)
    with pytest.raises(TypeError, match="must return real scores; got torch.complex64"):
        look(Of(lambda _, x: x.flatten(1) * 1j), images)


def test_sparse_and_meta_inputs_are_named():
    with pytest.raises(TypeError, match=r"x must be a dense tensor.*pass x.to_dense\(\)"):
        viz.saliency(nn.Linear(6, 2), ROWS.to_sparse())
    with pytest.raises(TypeError, match="x must be a dense tensor that holds numbers; got one on the meta device"):
        viz.saliency(nn.Linear(6, 2), ROWS.to("meta"))
