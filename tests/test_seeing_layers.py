"""The layers of a network by their names: sizes, activations and filters."""

import pytest
import torch
from torch import nn

from probdl import viz


class Reused(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 4, 3), nn.ReLU(inplace)
        self.head = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))

    def forward(self, x):
        x = self.relu(self.conv(x)).mean((2, 3))
        return self.head(self.relu(x - x.mean(1, keepdim=True)))


X = torch.randn(7, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_layers_have_the_names_of_the_modules_and_a_number_for_each_further_call():
    sizes = viz.layers(Reused().double(), X)
    assert list(sizes) == ["conv", "relu", "relu#1", "head.0", "head.1", "head", "output"]
    assert sizes["relu"] == (7, 4, 4, 4)
    assert sizes["relu#1"] == (7, 4)


def test_activations_are_what_the_modules_return():
    model = Reused().double()
    found = viz.activations(model, X, ["relu#1", "conv", "head.0"])
    assert list(found) == ["relu#1", "conv", "head.0"]
    conv = model.conv(X)
    mean = conv.relu().mean((2, 3))
    second = (mean - mean.mean(1, keepdim=True)).relu()
    torch.testing.assert_close(found["conv"], conv)
    torch.testing.assert_close(found["relu#1"], second)
    torch.testing.assert_close(found["head.0"], model.head[0](second))
    assert not any(value.requires_grad for value in found.values())


def test_a_later_operation_in_place_does_not_change_an_activation():
    model, inplace = Reused().double(), Reused(inplace=True).double()
    inplace.load_state_dict(model.state_dict())
    found = viz.activations(inplace, X, "conv")["conv"]
    assert (found < 0).any()
    assert torch.equal(found, viz.activations(model, X, "conv")["conv"])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_size_of_the_batches_does_not_matter(batch_size):
    model, seen = Reused().double(), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    found = viz.activations(model, X, ["relu", "output"], batch_size)
    assert max(seen) == min(batch_size, 7)
    assert sum(seen) == 7
    torch.testing.assert_close(found["output"], model(X))
    assert found["relu"].shape == (7, 4, 4, 4)


def test_integers_go_into_an_embedding_as_integers_and_into_other_layers_as_numbers():
    tokens = torch.tensor([[1, 0, 2]])
    model = nn.Sequential(nn.Embedding(3, 4), nn.LSTM(4, 5, batch_first=True))
    assert viz.layers(model, tokens) == {"0": (1, 3, 4), "1": (1, 3, 5), "output": (1, 3, 5)}
    for dtype in (torch.int32, torch.int64):
        assert torch.equal(viz.activations(model, tokens.to(dtype), "0")["0"], model[0](tokens))
    for dtype in (torch.uint8, torch.int64):
        pixels = torch.arange(36, dtype=dtype).reshape(1, 1, 6, 6)
        assert viz.activations(Reused(), pixels, "conv")["conv"].dtype == torch.float32


class Packed(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.pack, self.linear = pack, nn.Linear(2, 3)

    def forward(self, x):
        return self.pack(self.linear(x))


@pytest.mark.parametrize(
    "pack", [lambda y: (None, y, -y), lambda y: [y, -y], lambda y: {"loss": None, "logits": y}, lambda y: ((-y,), y)]
)
def test_of_several_outputs_the_first_tensor_counts(pack):
    model, x = Packed(pack), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert viz.layers(model, x) == {"linear": (4, 3), "output": (4, 3)}
    assert torch.equal(viz.activations(model, x, "output")["output"], model.linear(x))


def test_a_module_named_output_keeps_its_name():
    model = nn.Sequential()
    model.add_module("output", nn.Linear(2, 3))
    model.add_module("softmax", nn.Softmax(1))
    assert list(viz.layers(model, torch.ones(1, 2))) == ["output", "softmax", "output#1"]


def test_filters_are_a_copy_of_the_weights():
    model = Reused()
    found = viz.filters(model, "conv")
    assert torch.equal(found, model.conv.weight)
    assert not found.requires_grad
    found.zero_()
    assert model.conv.weight.abs().min() > 0
    assert viz.filters(model, "head.1").shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.layers(len, X), TypeError, "model must be a torch.nn.Module; got builtin"),
        (lambda: viz.layers(Reused(), None), TypeError, "x must"),
        (lambda: viz.activations(Reused(), X, "relu2"), ValueError, "one of 'conv', 'relu', 'relu#1'.*got 'relu2'"),
        (lambda: viz.activations(Reused(), X, "conv", 0), ValueError, "batch_size must be a positive integer; got 0"),
        (lambda: viz.activations(Reused(), X, "conv", 2.5), ValueError, "batch_size must be a positive integer"),
        (lambda: viz.activations(nn.Sequential(nn.Flatten(0)), X, "0"), ValueError, "a row for each of the 7 inputs"),
        (lambda: viz.filters(Reused(), "relu"), ValueError, "filters: 'conv', 'head.0', 'head.1'; got 'relu'"),
        (lambda: viz.filters(nn.Sequential(nn.BatchNorm1d(3)), "0"), ValueError, "none"),
        (lambda: viz.filters(nn.ReLU(), "conv"), ValueError, "none"),
        (lambda: viz.filters("net", "conv"), TypeError, "model must be a torch.nn.Module; got str"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
