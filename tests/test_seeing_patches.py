"""Receptive fields are those of arithmetic and brute force, top patches and neighbours those of a plain search."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from probdl import data, viz
from probdl.viz.seeing.fields import boxes


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def seeded(build, seed=0):
    torch.manual_seed(seed)
    return build().double().eval()


def random(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Receptive fields.


def rows_seen(stack, heights, row):
    """Return the rows of the input that a row of the output sees, by the arithmetic of each layer, the last first."""
    rows = {row}
    for layer, below, above in reversed(list(zip(stack, heights, heights[1:]))):
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            reached = (range(r * below // above, -(-(r + 1) * below // above)) for r in rows)
        elif hasattr(layer, "kernel_size"):
            size, step, pad = (getattr(layer, name) for name in ("kernel_size", "stride", "padding"))
            size, step, pad, gap = (
                v if isinstance(v, int) else v[0] for v in (size, step, pad, getattr(layer, "dilation", 1))
            )
            reached = (range(r * step - pad, r * step - pad + gap * size, gap) for r in rows)
        else:
            reached = ([r] for r in rows)
        rows = {r for group in reached for r in group if 0 <= r < below}
    return rows


@st.composite
def layer(draw):
    size, step, gap = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, size // 2))
    kind = draw(st.sampled_from(["conv", "grouped", "depthwise", "max", "average", "adaptive", "norm", "relu"]))
    groups = {"grouped": 2, "depthwise": 4}.get(kind, 1)
    return {
        "max": lambda: nn.MaxPool2d(size, step, pad, dilation=gap, ceil_mode=draw(st.booleans())),
        "average": lambda: nn.AvgPool2d(size, step, pad, ceil_mode=draw(st.booleans())),
        "adaptive": lambda: nn.AdaptiveAvgPool2d(draw(st.integers(1, 9))),
        "norm": lambda: nn.BatchNorm2d(4),
        "relu": lambda: nn.ReLU(inplace=draw(st.booleans())),
    }.get(kind, lambda: nn.Conv2d(4, 4, size, step, pad, gap, groups))()


def sizes(stack, x):
    found = [x.shape[2:]]
    for part in stack:
        x = part(x)
        found.append(x.shape[2:])
    return found


@settings(max_examples=60, deadline=None)
@given(stack=st.lists(layer(), min_size=1, max_size=5), side=st.integers(6, 15), at=st.floats(0, 0.999))
def test_the_field_of_a_stack_of_layers_is_that_of_their_arithmetic(stack, side, at):
    """With padding, stride, dilation, groups, pools that round up, and adaptive ones; rows and columns differ."""
    model, x = nn.Sequential(*stack).double().eval(), torch.zeros(1, 4, side, side + 3, dtype=torch.float64)
    try:
        shapes = sizes(model, x)
    except RuntimeError:  # the layers do not fit the image
        assume(False)
    unit = [int(at * n) for n in shapes[-1]]
    seen = [rows_seen(stack, [shape[d] for shape in shapes], unit[d]) for d in (0, 1)]
    assume(all(seen))  # a unit may see nothing but padding
    found, note = boxes(model, str(len(stack) - 1), 3, torch.tensor([unit]), x.shape[1:], 7)
    assert found.tolist() == [[edge for rows in seen for edge in (min(rows), max(rows) + 1)]]
    assert note == ""


class Branches(nn.Module):
    """Two ways of unequal reach, added; the ReLU of one is a function that knows no NaN."""

    def __init__(self):
        super().__init__()
        self.near, self.far, self.wide = (
            nn.Conv2d(2, 4, 1),
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, stride=2, groups=2)

    def forward(self, x):
        y = self.far(x)
        y = self.norm(self.wide(torch.where(y > 0, y, 0.0)))
        return self.last(F.relu(self.near(x) + y))


class Gated(Branches):
    """Squeeze and excitation: a gate, closed at zero, that looks at the whole image."""

    def forward(self, x):
        y = self.far(x)
        return self.last(y * torch.sigmoid(self.wide(y.mean((2, 3), keepdim=True))))


class Difference(Branches):
    """What is subtracted counts too."""

    def forward(self, x):
        return self.last(self.far(x).sum(1, keepdim=True).expand(-1, 4, -1, -1) - 9 * self.near(x))


class Shuffled(Branches):
    def forward(self, x):
        return self.last(F.interpolate(F.max_pool2d(self.far(x), 2), scale_factor=2.0))


def changed_pixels(model, layer, unit, x):
    """Return the box of the pixels that change a unit when they are made large, one after another."""
    height, width = x.shape[2:]
    each = x.repeat(height * width, 1, 1, 1)
    each[
        torch.arange(height * width),
        :,
        torch.arange(height).repeat_interleave(width),
        torch.arange(width).repeat(height),
    ] = 50
    before = viz.activations(model, x, layer)[layer][(0, *unit)]
    change = (viz.activations(model, each, layer)[layer][(slice(None), *unit)] != before).reshape(height, width)
    return [
        edge for d in (1, 0) for edge in (int(change.any(d).nonzero().min()), int(change.any(d).nonzero().max()) + 1)
    ]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([Branches, Gated, Difference, Shuffled]), seed=st.integers(0, 10**6), at=st.floats(0, 0.999)
)
def test_the_field_holds_exactly_the_pixels_that_change_a_unit(kind, seed, at):
    model = seeded(kind, seed)
    for parameter in model.parameters():
        parameter.data.abs_()  # no ReLU is closed
    x = random(1, 2, 8, 12, seed=seed).abs()
    unit = [seed % 4, *(int(at * n) for n in viz.layers(model, x)["output"][2:])]
    found, note = boxes(model, "output", unit[0], torch.tensor([unit[1:]]), x.shape[1:], 100)
    assert found[0].tolist() == changed_pixels(model, "output", unit, x)
    assert note == ""


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(2, 1, batch_first=True), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.last(self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape))


COUPLED = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 96), nn.Unflatten(1, (1, 8, 12)), nn.Conv2d(1, 4, 1)),
    "attention": Attention,
    "layer norm": lambda: nn.Sequential(nn.LayerNorm([1, 8, 12]), nn.Conv2d(1, 4, 1)),
    "group norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.ReLU()),
    "instance norm": lambda: nn.Sequential(nn.InstanceNorm2d(1), nn.ReLU(), nn.Conv2d(1, 4, 1)),
    "softmax over places": lambda: nn.Sequential(
        nn.Flatten(), nn.Softmax(1), nn.Unflatten(1, (1, 8, 12)), nn.Conv2d(1, 4, 1)
    ),
    "global pool": lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Upsample((8, 12)), nn.Conv2d(1, 4, 1)),
}


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED)
def test_where_everything_is_coupled_the_field_is_the_whole_image(build):
    model, channels = seeded(build), 2 if build is Attention else 1
    found, note = boxes(model, "output", 1, torch.tensor([[0, 0], [3, 7]]), torch.Size((channels, 8, 12)), 9)
    assert found.tolist() == [[0, 8, 0, 12]] * 2
    assert note == ""


def test_a_softmax_over_channels_couples_no_places():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softmax(1)))
    assert boxes(model, "output", 1, torch.tensor([[2, 4]]), torch.Size((1, 8, 12)), 9)[0].tolist() == [[2, 5, 4, 7]]


class Single(nn.Module):
    """It takes single precision only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return F.relu(self.conv(x.float()))


class Silent(nn.Conv2d):
    def forward(self, x):
        return super().forward((x > 5).to(x))


def test_where_the_network_can_not_be_probed_the_box_is_the_whole_image_and_a_note_says_why():
    found = viz.top_patches(Single(), random(4, 1, 5, 6), "output", 0, k=2)
    assert found.box.tolist() == [[0, 5, 0, 6]] * 2
    assert "whole input: the network could not be probed (RuntimeError" in found.notes[0]
    found = viz.top_patches(Silent(1, 2, 3), random(4, 1, 5, 6), "output", 0, k=2)
    assert found.box.tolist() == [[0, 5, 0, 6]] * 2
    assert "let nothing through" in found.notes[0]


class Finite(nn.Module):
    """Its head refuses what is not finite."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Linear(2, 2)

    def forward(self, x):
        x = self.body(x).amax((2, 3))
        if not bool(torch.isfinite(x).all()):
            raise ValueError("not finite")
        return self.head(x)


def test_what_stands_above_the_layer_is_not_probed():
    found = viz.top_patches(Finite().double(), random(4, 1, 6, 7), "body", 1, k=2)
    assert found.notes == ()
    assert (found.box[:, 1::2] - found.box[:, ::2]).tolist() == [[3, 3]] * 2
    above = viz.top_patches(Finite().double(), random(4, 1, 6, 7), "head", 1, k=2)
    assert "(ValueError: not finite)" in above.notes[0]


# Top patches.


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 7, 256])
@pytest.mark.parametrize("layer", ["4", "5"])
def test_top_patches_are_those_of_a_plain_search(layer, batch_size):
    model, x = seeded(network), random(30, 1, 9, 11)
    found = viz.top_patches(model, x, layer, channel=4, k=6, batch_size=batch_size)
    maps = viz.activations(model, x, layer)[layer][:, 4]
    by_image = sorted(((float(image.max()), -i) for i, image in enumerate(maps)), reverse=True)[:6]
    torch.testing.assert_close(found.value.tolist(), [value for value, _ in by_image])
    assert found.index.tolist() == [-i for _, i in by_image]
    torch.testing.assert_close(maps[(found.index, *found.position.T)], found.value)
    assert found.notes == ()


def test_equal_values_stand_in_the_order_of_the_data():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    x = torch.zeros(40, 1, 3, 3)
    assert viz.top_patches(model, x, "1", 0, k=5, batch_size=7).index.tolist() == [0, 1, 2, 3, 4]
    assert viz.top_patches(model, x, "1", 0, k=5).position.tolist() == [[0, 0]] * 5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_template_is_found_where_it_was_planted(channels):
    """A filter equal to a template, centred, answers most to the template: Cauchy and Schwarz."""
    template, x = random(channels, 4, 4, seed=3), 0.1 * random(50, channels, 12, 12)
    template -= template.mean()
    planted = {3: (0, 0), 17: (8, 8), 31: (5, 2)}
    for n, (i, (row, column)) in enumerate(planted.items()):
        x[i, :, row : row + 4, column : column + 4] = template * (3 - n)
    model = nn.Sequential(nn.Conv2d(channels, 2, 4, bias=False), nn.ReLU()).double()
    model[0].weight.data[1] = template
    found = viz.top_patches(model, x, "1", channel=1, k=3)
    assert found.index.tolist() == list(planted)
    assert found.position.tolist() == [list(place) for place in planted.values()]
    assert found.box.tolist() == [[r, r + 4, c, c + 4] for r, c in planted.values()]
    scale = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found.image, template * scale[:, None, None, None])
    torch.testing.assert_close(found.value, scale * (template**2).sum())


def test_patches_are_cut_from_the_images_and_what_is_beyond_the_border_is_zero():
    x = random(60, 1, 9, 9).abs() + 1
    found = viz.top_patches(seeded(network), x, "4", 1, k=60)
    height, width = found.image.shape[2:]
    sides = found.box[:, 1::2] - found.box[:, ::2]
    assert [height, width] == sides.amax(0).tolist()
    assert bool((sides < sides.amax(0)).any())
    clipped = {(0, 1): 0, (1, 0): 0}
    for patch, i, (top, bottom, left, right) in zip(found.image, found.index, found.box.tolist()):
        down = height - (bottom - top) if top == 0 else 0
        across = width - (right - left) if left == 0 else 0
        inside = patch[:, down : down + bottom - top, across : across + right - left]
        assert torch.equal(inside, x[i, :, top:bottom, left:right])
        assert int((patch != 0).sum()) == inside.numel()
        clipped[(0, 1)] += top == 0 and bottom - top < height
        clipped[(1, 0)] += bottom == 9 and bottom - top < height
    assert min(clipped.values()) > 0


def test_projections_are_those_of_the_deconvolutional_network_times_the_value_and_stay_in_the_box():
    model, x = seeded(network), random(40, 1, 9, 11)
    found = viz.top_patches(model, x, "5", channel=2, k=8)
    assert found.projection.shape == found.image.shape
    for i in range(8):
        unit = (2, *found.position[i].tolist())
        whole = viz.deconvnet(model, x[found.index[i : i + 1]], "5", unit)[0] * found.value[i]
        top, bottom, left, right = found.box[i].tolist()
        torch.testing.assert_close(found.projection[i].sum(), whole[:, top:bottom, left:right].sum())
        torch.testing.assert_close(found.projection[i].abs().sum(), whole.abs().sum())
        assert whole.abs().sum() > 0


def test_a_projection_of_a_net_without_overlap_is_the_filter_at_the_switches():
    """One convolution, a ReLU and one max-pool: the filter, times the value, stands where the maximum was."""
    model = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.ReLU(), nn.MaxPool2d(3)).double()
    model[0].weight.data = torch.tensor([[[[1.0, 2.0], [-1.0, 3.0]]]]).double()
    x = torch.zeros(1, 1, 7, 7).double()
    x[0, 0, 2, 3] = 5.0
    found = viz.top_patches(model, x, "2", 0, k=1)  # the maximum, 15, is at row 1 and column 2, the last of (0, 0)
    assert (found.value.tolist(), found.position.tolist(), found.box.tolist()) == ([15.0], [[0, 0]], [[0, 4, 0, 4]])
    expected = torch.zeros(4, 4).double()
    expected[1:3, 2:4] = 15 * model[0].weight.data[0, 0]
    torch.testing.assert_close(found.projection[0, 0], expected)


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.near, self.far, self.relu = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.far(self.relu(self.near(x))))


def test_a_second_call_of_a_module_has_fields_and_projections_of_its_own():
    model, x = seeded(Reused), random(6, 1, 9, 9)
    for name, side in {"relu": 3, "relu#1": 5}.items():
        found = viz.top_patches(model, x, name, 1, k=3)
        assert found.projection.shape == found.image.shape == (3, 1, side, side)
        assert torch.equal(found.box, torch.cat([found.position, found.position + side], 1)[:, [0, 2, 1, 3]])


def test_without_a_relu_there_are_no_projections_and_a_note_says_so():
    for model, name in ((seeded(network), "0"), (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()).double(), "1")):
        found = viz.top_patches(model, random(5, 1, 9, 9), name, 0, k=2)
        assert found.projection is None
        assert found.notes[0].startswith("There are no projections: model must have a ReLU")
        assert len(found.plot().images) == 2


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_where_a_relu_could_hide_there_are_no_projections_and_where_one_resembles_it_a_warning():
    conv, x = nn.Conv2d(1, 2, 3).double(), random(5, 1, 9, 9)

    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.conv, self.reentrant = conv, reentrant

        def forward(self, x):
            return checkpoint(lambda x: torch.relu(self.conv(x)), x, use_reentrant=self.reentrant)

    seen = viz.top_patches(nn.Sequential(conv, nn.ReLU()), x, "output", 0, k=2)
    hidden = viz.top_patches(Checkpointed(True), x, "output", 0, k=2)
    assert (hidden.projection, hidden.box.tolist()) == (None, seen.box.tolist())
    assert "reentrant checkpoint: use torch.utils.checkpoint with use_reentrant=False" in hidden.notes[0]
    assert torch.equal(viz.top_patches(Checkpointed(False), x, "output", 0, k=2).projection, seen.projection)
    with pytest.warns(UserWarning, match="^LeakyRelu keep their own derivative") as record:
        viz.top_patches(nn.Sequential(conv, nn.ReLU(), nn.LeakyReLU()), x, "output", 0, k=2)
    assert record[0].filename == __file__


def test_units_without_a_map_see_the_whole_image_and_sequences_have_two_ends():
    x = random(12, 1, 9, 9)
    found = viz.top_patches(seeded(network), x, "8", 3, k=4)
    assert found.position.shape == (4, 0)
    assert torch.equal(found.image, x[found.index])
    net = seeded(
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 3, dilation=2), nn.ReLU())
    )
    found = viz.top_patches(net, random(20, 2, 15), "3", 1, k=3)
    assert (found.position.shape, found.image.shape[:2]) == ((3, 1), (3, 2))
    starts = found.position[:, 0]
    expected = torch.stack([(starts - 1).clamp(min=0), (starts + 6).clamp(max=15)], 1)
    assert torch.equal(found.box, expected)
    np.testing.assert_array_equal(found.plot().images[0].get_array(), found.image[0])  # channels by time
    vectors = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    x = random(20, 4)
    found = viz.top_patches(vectors, x, "1", 2, k=3)
    assert (found.box.shape, found.position.shape) == ((3, 0), (3, 0))
    assert torch.equal(found.image, x[found.index])
    with pytest.raises(ValueError, match=r"images must have shape .*got \(3, 4\)"):
        found.plot()


class Watchful(nn.Module):
    """It counts its calls in a buffer, remembers the longest batch, and may fail."""

    def __init__(self, fails=False):
        super().__init__()
        self.net, self.fails, self.longest = network(), fails, [0]
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.longest[0] = max(self.longest[0], len(x))
        if self.fails:
            raise RuntimeError("an error of the user's")
        return self.net(x)


CALLS = {
    "top_patches": lambda model, x: viz.top_patches(model, x, "net.5", 1, k=3, batch_size=4),
    "nearest": lambda model, x: viz.nearest(model, x[:6], x, k=3, batch_size=4),
    "nearest in a layer": lambda model, x: viz.nearest(model, x[:6], x, "net.5", k=3, batch_size=4),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_is_left_as_it_was_also_after_an_exception(call, fails):
    model, x = Watchful(fails).double().train(), random(10, 1, 9, 9).requires_grad_()
    model.net[1].eval()
    model.net[0].requires_grad_(False)
    model.net[4].weight.grad = torch.ones_like(model.net[4].weight)
    model.net[2].register_forward_pre_hook(lambda *_: None)
    state = copy.deepcopy(model.state_dict())
    if fails:
        with pytest.raises(RuntimeError, match="user's"):
            call(model, x)
    else:
        call(model, x)
    assert [m.training for m in model.modules()] == [m is not model.net[1] for m in model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [len(m._forward_pre_hooks) for m in model.net] == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert all(not m._forward_hooks for m in model.modules())
    assert [p.requires_grad for p in model.net[0].parameters()] == [False, False]
    assert torch.equal(model.net[4].weight.grad, torch.ones_like(model.net[4].weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "net.4.weight")
    assert x.grad is None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_data_are_seen_in_batches_and_may_be_an_array(call):
    model, x = Watchful().double(), random(50, 1, 9, 9)
    found = call(model, x)
    assert model.longest[0] == 4
    again = call(model, x.numpy())
    assert str(found) == str(again)


def test_one_patch_of_an_array_is_one_row():
    assert viz.top_patches(seeded(network), random(5, 1, 9, 9).numpy(), "5", 1, k=1).image.shape[:2] == (1, 1)


def test_what_is_found_does_not_depend_on_the_device(device):
    model, x = seeded(network), random(30, 1, 9, 9)
    here, there = (viz.top_patches(m, x, "5", 2, k=4) for m in (model, copy.deepcopy(model).to(device)))
    for name in ("value", "index", "position", "box", "image", "projection"):
        assert getattr(there, name).device.type == device.type
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name))
    near, far = viz.nearest(model, x[:3], x), viz.nearest(copy.deepcopy(model).to(device), x[:3].to(device), x)
    assert torch.equal(far[1].cpu(), near[1])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_seen_in_single(half):
    model, x = seeded(network).to(half), random(10, 1, 9, 9)
    found = viz.top_patches(model, x, "5", 1, k=3)
    single = viz.top_patches(copy.deepcopy(model).float(), x, "5", 1, k=3)
    assert found.value.dtype == torch.float32
    assert str(found) == str(single)
    assert viz.nearest(model, x, x)[0].dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {half}


# Neighbours.


@pytest.mark.parametrize("layer", [None, "input", "2", "8"])
@pytest.mark.parametrize("batch_size", [3, 256])
def test_neighbours_are_those_of_scikit_learn(layer, batch_size):
    from sklearn.neighbors import NearestNeighbors

    model, query, x = seeded(network), random(9, 1, 8, 8), random(70, 1, 8, 8, seed=2)
    name = {None: "7", "input": None}.get(layer, layer)  # what comes into the linear layer comes out of "7"
    a, b = (v if name is None else viz.activations(model, v, name)[name] for v in (query, x))
    distance, index = viz.nearest(model, query, x, layer, k=6, batch_size=batch_size)
    theirs = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(b.flatten(1)).kneighbors(a.flatten(1))
    np.testing.assert_allclose(distance, theirs[0], rtol=1e-9)
    np.testing.assert_array_equal(index, theirs[1])


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=12), query=st.integers(0, 3), size=st.integers(1, 5))
def test_of_equal_neighbours_the_first_in_the_data_comes_first(values, query, size):
    model, x = nn.Linear(2, 2).double(), torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, 2)
    k = 1 + len(values) // 2
    expected = sorted(range(len(values)), key=lambda i: (abs(values[i] - query), i))[:k]
    distance, index = viz.nearest(model, torch.full((1, 2), float(query)), x, k=k, batch_size=size)
    assert index[0].tolist() == expected
    np.testing.assert_allclose(distance[0], [abs(values[i] - query) * 2**0.5 for i in expected])


def test_a_row_is_its_own_neighbour_at_distance_zero_however_large_its_numbers():
    x = random(20, 5) + 1e6
    distance, index = viz.nearest(nn.Linear(5, 2).double(), x, x, "input", k=1)
    assert index[:, 0].tolist() == list(range(20))
    assert distance.abs().max() == 0


class Twice(nn.Module):
    """The last layer to run is not the last that was declared, and a later operation in place changes what it took."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        scores = self.last(hidden)
        hidden.zero_()
        return scores


def test_the_last_hidden_layer_is_what_comes_into_the_last_layer_that_runs():
    model, x = seeded(Twice), random(10, 4)
    hidden = torch.tanh(model.first(x)).detach()
    distance, index = viz.nearest(model, x[:3], x, k=4)
    torch.testing.assert_close(distance, torch.cdist(hidden[:3], hidden).sort(1).values[:, :4])
    head = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    images = random(10, 1, 6, 6)
    assert torch.equal(viz.nearest(head, images, images)[0], viz.nearest(head, images, images, "1")[0])


class Sentences(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(20, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(input=self.lstm(self.embed(x))[0][:, -1])


def test_sentences_have_neighbours_too():
    model = seeded(Sentences)
    tokens = torch.randint(20, (30, 7), generator=torch.Generator().manual_seed(0))
    hidden = model.lstm(model.embed(tokens))[0][:, -1].detach()
    expected = torch.cdist(hidden[:4], hidden).sort(1)
    distance, index = viz.nearest(model, tokens[:4], tokens.numpy(), k=3, batch_size=8)
    torch.testing.assert_close(distance, expected.values[:, :3])
    assert torch.equal(index, expected.indices[:, :3])
    with pytest.raises(ValueError, match="must not be 'input' where the inputs are tokens"):
        viz.nearest(model, tokens, tokens, "input")
    with pytest.raises(ValueError, match="data must hold images, .* got tokens"):
        viz.top_patches(model, tokens, "lstm", 0, k=1)


# Pictures.


def test_patches_stand_above_their_projections_with_their_values():
    x = data.digits().images[:60]
    found = viz.top_patches(seeded(network), x, "5", 1, k=5)
    ax = found.plot(columns=3)
    assert len(ax.images) == 10
    np.testing.assert_array_equal(ax.images[0].get_array(), found.image[0, 0])
    np.testing.assert_array_equal(ax.images[7].get_array(), found.projection[3, 0])
    assert ax.images[0].get_clim() == (0.0, 1.0)
    low, high = ax.images[1].get_clim()
    assert -low == high == pytest.approx(float(found.projection.abs().max()))
    assert [text.get_text() for text in ax.texts] == [f"{v:.3g}" for v in found.value.tolist()]
    extents = np.array([image.get_extent() for image in ax.images])  # left, right, bottom, top, rows counted down
    assert (extents[1::2, 3] > extents[::2, 2]).all()
    assert extents[2 * 3, 3] > extents[1, 2]
    assert len(ax.figure.axes) == 2  # and the bar
    given = plt.figure().subplots()
    assert found.plot(ax=given) is given


def test_patches_in_colour_have_zero_at_middle_grey_below():
    found = viz.top_patches(
        seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())), random(9, 3, 7, 7), "1", 0, k=2
    )
    ax = found.plot()
    top = float(found.projection.abs().max())
    np.testing.assert_allclose(ax.images[1].get_array(), (found.projection[0].permute(1, 2, 0) / top + 1) / 2)
    assert f"projections dark to bright: -{top:.3g} to {top:.3g}" in ax.get_xlabel()
    assert ax.get_xlabel().startswith("patches dark to bright")
    assert len(ax.figure.axes) == 1


def test_a_filter_of_many_channels_is_a_row_of_tiles():
    weights = viz.filters(seeded(network), "4")
    ax = viz.filter_grid(weights)
    picture = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert picture.shape == (6 * 4 - 1, 2 * 4 - 1)  # groups: two channels in
    np.testing.assert_array_equal(picture[8:11, 4:7], weights[2, 1])
    assert np.isnan(picture[3]).all()
    assert ax.images[0].get_clim() == (-float(weights.abs().max()), float(weights.abs().max()))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]


def test_filters_of_one_or_three_channels_and_of_sequences_are_tiles():
    for channels in (1, 3):
        weights = random(4, channels, 3, 3)
        np.testing.assert_array_equal(
            viz.filter_grid(weights).images[0].get_array(), viz.show(weights, signed=True).images[0].get_array()
        )
    weights = random(2, 5, 3)
    np.testing.assert_array_equal(np.ma.filled(viz.filter_grid(weights).images[0].get_array(), 9)[:, 4:], weights[1])


def test_maps_of_a_layer_are_drawn_in_one_call():
    hidden = viz.activations(seeded(network), random(2, 1, 9, 9), "0")["0"]
    picture = np.asarray(viz.show(hidden[1][:, None]).images[0].get_array())
    np.testing.assert_array_equal(picture[:, 20:29], hidden[1, 2])


# Bad input.


class Nothing(nn.Module):
    def forward(self, x):
        return x / x


MODEL = seeded(network)
X = random(5, 1, 9, 9)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: viz.top_patches(torch.relu, X, "0", 0, k=1), TypeError, "model must be a torch.nn.Module; got"),
        (lambda: viz.top_patches(MODEL, X, "conv", 0, k=1), ValueError, "layer must be one of '0', '1', .*got 'conv'"),
        (lambda: viz.top_patches(MODEL, X, "0", 4, k=1), ValueError, r"channel must be in 0, ..., 3, .*'0'; got 4"),
        (lambda: viz.top_patches(MODEL, X, "0", -1, k=1), ValueError, "channel must be in 0"),
        (lambda: viz.top_patches(MODEL, X, "0", 1.0, k=1), ValueError, "channel must be an integer; got 1.0"),
        (lambda: viz.top_patches(MODEL, X, "0", True, k=1), ValueError, "channel must be an integer; got True"),
        (lambda: viz.top_patches(MODEL, X, "0", 0), ValueError, "k must be an integer from 1 to 5, .* got 9"),
        (lambda: viz.top_patches(MODEL, X, "0", 0, k=0), ValueError, "k must be an integer from 1 to 5"),
        (lambda: viz.top_patches(MODEL, X, "0", 0, k=2, batch_size=0), ValueError, "batch_size must be a positive"),
        (lambda: viz.top_patches(MODEL, X[:0], "0", 0), ValueError, r"data must have shape \(n, ...\) with n of 1"),
        (lambda: viz.top_patches(MODEL, torch.ones(3), "0", 0), ValueError, r"data must have shape \(n, ...\)"),
        (lambda: viz.top_patches(MODEL, X * torch.nan, "0", 0, k=2), ValueError, "data must be finite; got 405 NaN"),
        (lambda: viz.top_patches(MODEL, np.array([["a"]]), "0", 0, k=1), TypeError, "data must hold numbers"),
        (lambda: viz.top_patches(Nothing(), 0 * X, "output", 0, k=1), ValueError, "layer 'output' .* holds NaN"),
        (lambda: viz.top_patches(MODEL, X, "5", 0, k=2).plot(columns=0), ValueError, "columns must be a positive"),
        (lambda: viz.nearest(torch.relu, X, X), TypeError, "model must be a torch.nn.Module; got"),
        (lambda: viz.nearest(MODEL, X, X, k=6), ValueError, "k must be an integer from 1 to 5, .* of data; got 6"),
        (lambda: viz.nearest(MODEL, X, X, k=0), ValueError, "k must be an integer from 1 to 5"),
        (lambda: viz.nearest(MODEL, X, X, k=2.0), ValueError, "k must be an integer from 1 to 5"),
        (lambda: viz.nearest(MODEL, X[..., :8], X), ValueError, r"sizes of data, \(1, 9, 9\) a row; got \(1, 9, 8\)"),
        (lambda: viz.nearest(MODEL, X[0, 0, 0], X), ValueError, r"query must have shape \(n, ...\)"),
        (lambda: viz.nearest(MODEL, X * torch.inf, X), ValueError, "query must be finite"),
        (lambda: viz.nearest(MODEL, X, X * torch.nan), ValueError, "data must be finite"),
        (lambda: viz.nearest(MODEL, X, X, "99"), ValueError, "layer must be one of '0'"),
        (lambda: viz.nearest(nn.ReLU(), X, X), ValueError, "runs no linear or convolutional module. Pass layer="),
        (lambda: viz.nearest(Nothing(), 0 * X, X, "output"), ValueError, "layer must hold numbers to be compared"),
        (lambda: viz.nearest(MODEL, X, X, batch_size=-1), ValueError, "batch_size must be a positive integer"),
        (lambda: viz.nearest(torch.compile(MODEL, backend="eager"), X, X), ValueError, "is compiled: pass the model"),
        (lambda: viz.top_patches(torch.compile(MODEL, backend="eager"), X, "0", 0, k=1), ValueError, "is compiled"),
        (lambda: viz.filter_grid(torch.ones(3, 4)), ValueError, r"filters must have shape \(out, in, .*got \(3, 4\)"),
        (lambda: viz.filter_grid(torch.ones(3, 4, 2, 2) * torch.nan), ValueError, "filters must be finite"),
        (lambda: viz.filter_grid([["a"]]), TypeError, "filters must hold numbers"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_was_expected(call, error, match):
    with pytest.raises(error, match=match):
        call()
