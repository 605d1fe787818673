"""Recurrent networks: torch's kernels against the cells written out, ragged batches, parts by name, bad input."""

import math

import pytest
import recurrent_cells as cells
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from probdl.nn import GRU, LSTM, RNN, Recurrent, ResidualBlock, gates, seeded

NETS = {
    "tanh": RNN,
    "relu": lambda *size, **how: RNN(*size, activation="relu", **how),
    "lstm": LSTM,
    "gru": GRU,
}
SHAPES = [(1, False), (1, True), (3, False), (2, True)]
EXACT = {"atol": 1e-12, "rtol": 1e-12}


def built(kind, inputs=3, hidden=5, seed=0, **how):
    with seeded(seed):
        return NETS[kind](inputs, hidden, **how).double()


def as_list(state):
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
def test_torchs_layers_are_the_equations(kind, layers, bidirectional):
    net = built(kind, layers=layers, bidirectional=bidirectional)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    out, state = net(x)
    for s in range(4):
        expected, last = cells.run(net, x[s])
        torch.testing.assert_close(out[s], expected, **EXACT)
        for found, wanted in zip(as_list(state), last):
            torch.testing.assert_close(found[:, s], wanted, **EXACT)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
def test_ragged_sequences_are_the_equations_too_and_padding_is_zero(kind, layers, bidirectional):
    net = built(kind, layers=layers, bidirectional=bidirectional)
    lengths = torch.tensor([4, 9, 1, 7])
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    out, state = net(x, lengths)
    for s, length in enumerate(lengths.tolist()):
        expected, last = cells.run(net, x[s, :length])
        torch.testing.assert_close(out[s, :length], expected, **EXACT)
        assert (out[s, length:] == 0).all()
        for found, wanted in zip(as_list(state), last):
            torch.testing.assert_close(found[:, s], wanted, **EXACT)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(list(NETS)),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    pad=st.integers(0, 3),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_ragged_batch_is_its_sequences_run_one_by_one(kind, lengths, pad, layers, bidirectional, seed):
    net = built(kind, layers=layers, bidirectional=bidirectional, seed=seed)
    T = max(lengths) + pad
    x = torch.randn(len(lengths), T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out, state = net(x, torch.tensor(lengths))
    assert out.shape == (len(lengths), T, net.outputs)
    for s, length in enumerate(lengths):
        alone, own = net(x[s : s + 1, :length])
        torch.testing.assert_close(out[s : s + 1, :length], alone, **EXACT)
        for found, wanted in zip(as_list(state), as_list(own)):
            torch.testing.assert_close(found[:, s : s + 1], wanted, **EXACT)


@pytest.mark.parametrize("kind", NETS)
def test_what_stands_in_the_padding_changes_neither_values_nor_gradients(kind):
    net, lengths = built(kind, layers=2, bidirectional=True), torch.tensor([5, 2])
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    other = x.clone()
    other[0, 5:], other[1, 2:] = 1e6, -7.0
    found = []
    for padded in (x, other):
        net.zero_grad()
        out, state = net(padded, lengths)
        (out.square().sum() + net.last(state).sum()).backward()
        found.append([out.detach(), *(p.grad.clone() for p in net.parameters())])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("kind", NETS)
def test_not_even_nan_gets_out_of_the_padding(kind):
    net, lengths = built(kind, layers=2, bidirectional=True), torch.tensor([5, 2])
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    expected = net(x, lengths)[0]
    x[0, 5:], x[1, 2:] = math.nan, math.inf
    out, state = net(x, lengths)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    (out.sum() + net.last(state).sum()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
def test_an_lstm_without_packing_is_that_with_packing(precision, tolerance, layers, bidirectional, monkeypatch):
    net = built("lstm", layers=layers, bidirectional=bidirectional).to(precision)
    lengths, start = torch.tensor([7, 9, 1, 4]), None
    if not bidirectional:
        start = tuple(torch.randn(layers, 4, 5, dtype=precision) for _ in range(2))
    x = torch.randn(4, 9, 3, dtype=precision, requires_grad=True)
    weights = [
        torch.randn(shape, dtype=precision) for shape in ((4, 9, net.outputs), *2 * [(net.directions * layers, 4, 5)])
    ]

    def run(function):
        out, (h, c) = function(x, lengths, start)
        value = sum((w * part).sum() for w, part in zip(weights, (out, h, c)))
        return [out, h, c, *torch.autograd.grad(value, [x, *net.parameters()])]

    packed = run(lambda *a: Recurrent.run_ragged(net, *a))
    monkeypatch.setattr("probdl.nn.recurrent.pack_padded_sequence", None)  # would raise
    for found, wanted in zip(run(net), packed):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_an_lstm_packs_what_is_mostly_padding_and_what_runs_back_from_a_state():
    for bidirectional, lengths in ((False, [40, 1, 1, 1, 2]), (True, [9, 8, 40, 40, 40])):
        net = built("lstm", bidirectional=bidirectional)
        start = tuple(torch.randn(net.directions, 5, 5, dtype=torch.float64) for _ in range(2))
        x = torch.randn(5, 40, 3, dtype=torch.float64)
        out, state = net(x, torch.tensor(lengths), start)
        for s, length in enumerate(lengths):
            alone, own = net(x[s : s + 1, :length], state=tuple(part[:, s : s + 1].contiguous() for part in start))
            torch.testing.assert_close(out[s : s + 1, :length], alone, **EXACT)
            torch.testing.assert_close([p[:, s : s + 1] for p in state], list(own), **EXACT)


@pytest.mark.parametrize("kind", NETS)
def test_a_run_can_be_taken_up_from_its_state(kind):
    net, x = built(kind, layers=2), torch.randn(3, 8, 3, dtype=torch.float64)
    whole, end = net(x)
    first, state = net(x[:, :5])
    rest, last = net(x[:, 5:], state=state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, **EXACT)
    torch.testing.assert_close(last, end, **EXACT)


@pytest.mark.parametrize("kind", NETS)
def test_last_is_the_output_at_the_end_of_each_sequence_in_each_direction(kind):
    net, lengths = built(kind, layers=2, bidirectional=True), torch.tensor([2, 6, 4])
    out, state = net(torch.randn(3, 6, 3, dtype=torch.float64), lengths)
    forward = out[torch.arange(3), lengths - 1, :5]
    torch.testing.assert_close(net.last(state), torch.cat([forward, out[:, 0, 5:]], 1), rtol=0, atol=0)


def test_a_gru_that_keeps_nothing_and_resets_nothing_is_the_simple_network():
    gru, simple = built("gru"), built("tanh", seed=1)
    for layer_gate, value in (("u", -800.0), ("r", 800.0)):  # the sigmoid is 0 and 1 to the last bit
        gru.set_bias(layer_gate, value)
    theirs, ours = simple.parts()["h"], gru.parts()["h"]
    with torch.no_grad():
        ours.U.copy_(theirs.U)
        ours.w.copy_(theirs.w)
    gru.set_bias("h", theirs.b.detach())
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    torch.testing.assert_close(gru(x)[0], simple(x)[0], **EXACT)


def test_a_gru_that_updates_nothing_keeps_its_state():
    gru, state = built("gru"), torch.randn(1, 4, 5, dtype=torch.float64)
    gru.set_bias("u", 800.0)
    out, last = gru(torch.randn(4, 9, 3, dtype=torch.float64), state=state)
    torch.testing.assert_close(last, state, **EXACT)
    torch.testing.assert_close(out[:, 3], state[0], **EXACT)


@pytest.mark.parametrize("kind", NETS)
def test_parts_are_views_of_the_weights_and_cover_them(kind):
    net = built(kind, layers=2)
    for layer, inputs in ((0, 3), (1, 5)):
        for name, part in net.parts(layer).items():
            assert (name, part.U.shape, part.w.shape, part.b.shape) == (name, (5, inputs), (5, 5), (5,))
            with torch.no_grad():
                part.U.zero_(), part.w.zero_()
    weights = [p for name, p in net.named_parameters() if "weight" in name]
    assert len(weights) == 4
    assert all((p == 0).all() for p in weights)


def test_torchs_two_biases_add_but_for_the_new_state_of_a_gru():
    for kind in NETS:
        net = built(kind)
        first, second = net.cell.bias_ih_l0.chunk(len(net.GATES)), net.cell.bias_hh_l0.chunk(len(net.GATES))
        for k, (gate, part) in enumerate(net.parts().items()):
            if (kind, gate) == ("gru", "h"):
                assert torch.equal(part.b, first[k])
                assert torch.equal(part.b_r, second[k])
            else:
                assert torch.equal(part.b, first[k] + second[k])
                assert part.b_r is None


def test_forget_gates_begin_open_in_every_layer_and_direction():
    net = built("lstm", layers=2, bidirectional=True)
    for layer in range(2):
        for backward in (False, True):
            parts = net.parts(layer, backward=backward)
            assert (parts["f"].b == 1).all()
            assert (parts["i"].b.abs() < 2 / 5**0.5).all()
    torchs = built("lstm", forget_bias=None)
    with seeded(0):
        reference = nn.LSTM(3, 5).double()
    assert torch.equal(torchs.cell.bias_ih_l0, reference.bias_ih_l0)


def test_gates_are_those_of_the_equations():
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    lstm = built("lstm", layers=2)
    found = gates(lstm, x)
    below = cells.states(lstm, lstm.parts(0), x[1])
    top = cells.states(lstm, lstm.parts(1), torch.stack([h for h, _ in below]))
    c = torch.stack([c for _, c in top])
    h = torch.stack([h for h, _ in top])
    before = torch.cat([torch.zeros(1, 5, dtype=torch.float64), c[:-1]])
    torch.testing.assert_close(found["f"][1] * before + found["i"][1] * found["g"][1], c, **EXACT)
    torch.testing.assert_close(found["o"][1] * c.tanh(), h, **EXACT)
    gru = built("gru")
    h, found = gru(x)[0], gates(gru, x)
    before = torch.cat([torch.zeros(2, 1, 5, dtype=torch.float64), h[:, :-1]], 1)
    torch.testing.assert_close(found["u"] * before + (1 - found["u"]) * found["h"], h, **EXACT)
    assert ((found["r"] > 0) & (found["r"] < 1)).all()
    simple = built("relu")
    torch.testing.assert_close(gates(simple, x)["h"], simple(x)[0], **EXACT)


def test_dropout_acts_in_training_only():
    x, lengths = torch.randn(2, 6, 3, dtype=torch.float64), torch.tensor([6, 4])
    for kind in ("gru", "lstm"):
        net, whole = built(kind, layers=2, dropout=0.5), built(kind, layers=2)
        for own in (None, lengths):
            net.train()
            assert not torch.equal(net(x, own)[0], net(x, own)[0])
            net.eval()
            assert torch.equal(net(x, own)[0], whole(x, own)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs must be positive"),
        ({"hidden": 2.5}, "hidden must be positive integers; got 2.5"),
        ({"layers": 0}, "layers must be positive"),
        ({"dropout": 1.0, "layers": 2}, "dropout must be at least 0 and less than 1"),
        ({"dropout": 0.1}, "with layers=1 dropout=0.1 does nothing"),
    ],
)
def test_sizes_that_cannot_be_used_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        LSTM(**{"inputs": 2, "hidden": 3, **arguments})


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation must be 'tanh' or 'relu'; got 'sigmoid'"):
        RNN(2, 3, activation="sigmoid")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0], "lengths must be at least 1; sequence 1 has 0"),
        ([6, 2], "lengths must be at most T = 5; sequence 0 has 6"),
        ([3], r"lengths must be \(2,\) whole numbers"),
        ([3.0, 2.0], r"lengths must be \(2,\) whole numbers.*float32"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        built("tanh")(torch.zeros(2, 5, 3, dtype=torch.float64), torch.tensor(lengths))


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (2, 5, 4), (5, 3)])
def test_sequences_of_another_shape_or_without_a_step_are_refused(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(n, T, 3\)"):
        built("gru")(torch.zeros(shape, dtype=torch.float64))


def test_a_part_that_is_not_there_is_named():
    net = built("lstm", layers=2)
    with pytest.raises(ValueError, match="no layer 2: this LSTM has 2"):
        net.parts(2)
    with pytest.raises(ValueError, match="no backward layer 0"):
        net.parts(0, backward=True)
    with pytest.raises(ValueError, match="gate must be one of i, f, g, o; got 'u'"):
        net.set_bias("u", 1.0)


def test_a_residual_block_without_its_convolutions_is_the_identity_and_learns_the_rest(device, dtype):
    block, x = ResidualBlock(4).to(device, dtype), torch.randn(3, 4, 5, 7).to(device, dtype)
    assert block(x).shape == x.shape
    for p in block.residual[-1].parameters():
        nn.init.zeros_(p)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert (block.residual[-1].weight.grad != 0).any()
    assert sum(p.numel() for p in ResidualBlock(4, normalise=False).parameters()) == 2 * (4 * 4 * 9 + 4)
    with pytest.raises(ValueError, match="channels must be positive"):
        ResidualBlock(0)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4, h, w\); got \(3, 2, 5, 5\)"):
        ResidualBlock(4)(torch.zeros(3, 2, 5, 5))


def test_the_jacobian_of_a_stack_of_residual_blocks_holds_the_identity():
    """As He et al. say: x_L = x_0 + Σ F(x_l), so the gradient is 1 plus what runs through the residuals."""
    with seeded(3):
        stack = nn.Sequential(*(ResidualBlock(1, normalise=False) for _ in range(3))).double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    inner, through = x, torch.eye(16, dtype=torch.float64)
    for block in stack:
        jacobian = torch.autograd.functional.jacobian(block.residual, inner).reshape(16, 16)
        through = through + jacobian @ through
        inner = block(inner)
    whole = torch.autograd.functional.jacobian(stack, x).reshape(16, 16)
    torch.testing.assert_close(whole, through, **EXACT)
