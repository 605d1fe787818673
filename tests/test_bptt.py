"""Back-propagation through time: Jacobians and gradients by step against the cells written out, and what they say."""

import math

import numpy as np
import pytest
import recurrent_cells as cells
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recurrent import EXACT, NETS, built
from torch.autograd.functional import jacobian

from probdl import viz
from probdl.loops import descend
from probdl.nn import (
    GRU,
    LSTM,
    RNN,
    cell_direct_path,
    cell_jacobian,
    gates,
    gradient_norms,
    hidden_jacobian,
    pascanu,
    seeded,
    weight_gradient_by_step,
)

T, K, N = 8, 2, 3


@pytest.fixture
def x():
    return torch.randn(N, T, 3, dtype=torch.float64)


def scaled(sigma, activation="tanh", hidden=6, inputs=1, seed=0):
    """A simple network whose w is sigma times an orthogonal matrix."""
    with seeded(seed):
        net = RNN(inputs, hidden, activation=activation).double()
        torch.nn.init.orthogonal_(net.cell.weight_hh_l0, sigma)
    return net


def linear(w):
    """A network whose ReLUs are all in use, so that h_t = 1 + w h_{t-1} + x_t / 2 for x_t > -2 and w ≥ 0."""
    net = scaled(1.0, "relu", hidden=len(w))
    net.set_bias("h", 1.0)
    with torch.no_grad():
        net.parts()["h"].w.copy_(w)
        net.parts()["h"].U.fill_(0.5)
    return net


def slopes(net, x):
    """The diagonals of D_j at each step of one sequence."""
    h = torch.stack([s[0] for s in cells.states(net, net.parts(), x)])
    return 1 - h**2 if net.activation == "tanh" else (h > 0).to(h)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_jacobian_of_the_simple_network_is_the_ordered_product_of_d_and_w(activation, x):
    net = built(activation)
    net.set_bias("h", 0.5)
    w = net.parts()["h"].w.detach()
    found = hidden_jacobian(net, x, T - 1, K)
    for s in range(N):
        d = slopes(net, x[s]).detach()
        product = torch.eye(5, dtype=torch.float64)
        for j in range(K, T - 1):
            product = d[j + 1].diag() @ w @ product
        torch.testing.assert_close(found[s], product, **EXACT)
        apart = d[K + 1 :].prod(0).diag() @ torch.linalg.matrix_power(w, T - 1 - K)
        assert (found[s] - apart).norm() > 0.1 * found[s].norm()  # D and w do not commute


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_hidden_jacobian_is_that_of_the_equations_in_each_layer(kind, layer, x):
    net = built(kind, layers=2)
    found = hidden_jacobian(net, x, T - 1, K, layer=layer)
    for s in range(N):
        inputs = x[s]
        for below in range(layer):
            inputs = torch.stack([state[0] for state in cells.states(net, net.parts(below), inputs)])
        h, *c = cells.states(net, net.parts(layer), inputs)[K]

        def onward(h_k, inputs=inputs, c=c):
            return cells.states(net, net.parts(layer), inputs[K + 1 :], (h_k, *c))[-1][0]

        torch.testing.assert_close(found[s], jacobian(onward, h.detach()), **EXACT)


@pytest.mark.parametrize("kind", NETS)
def test_the_hidden_jacobian_is_what_finite_differences_of_torchs_kernels_see(kind, x):
    net, step = built(kind), 1e-6
    _, state = net(x[:, : K + 1])
    h, c = state if kind == "lstm" else (state, None)
    columns = []
    for j in range(5):
        ends = []
        for sign in (1, -1):
            moved = h.clone()
            moved[..., j] += sign * step
            ends.append(net(x[:, K + 1 :], state=moved if c is None else (moved, c))[0][:, -1])
        columns.append((ends[0] - ends[1]) / (2 * step))
    torch.testing.assert_close(hidden_jacobian(net, x, T - 1, K), torch.stack(columns, 2), atol=1e-8, rtol=0)


def test_the_cell_jacobian_is_total_and_the_direct_path_holds_the_gates_fixed(x):
    net = built("lstm")
    total, direct = cell_jacobian(net, x, T - 1, K), cell_direct_path(net, x, T - 1, K)
    parts = net.parts()
    for s in range(N):
        before, here = cells.states(net, parts, x[s])[K - 1 : K + 1]
        o = torch.sigmoid(cells.affine(parts["o"], x[s, K], before[0]))

        def onward(c, o=o, s=s):
            return cells.states(net, parts, x[s, K + 1 :], (o * torch.tanh(c), c))[-1][1]

        torch.testing.assert_close(total[s], jacobian(onward, here[1].detach()), **EXACT)
        h = torch.stack([state[0] for state in cells.states(net, parts, x[s])])
        f = [torch.sigmoid(cells.affine(parts["f"], x[s, j], h[j - 1])) for j in range(K + 1, T)]
        torch.testing.assert_close(direct[s], torch.stack(f).prod(0).diag().detach(), **EXACT)
    assert ((total - direct).norm(dim=(1, 2)) > 0.01 * direct.norm(dim=(1, 2))).all()


def test_the_direct_path_is_all_there_is_when_no_gate_reads_the_state(x):
    net = built("lstm")
    with torch.no_grad():
        net.cell.weight_hh_l0.zero_()
    torch.testing.assert_close(cell_jacobian(net, x, 6, 1), cell_direct_path(net, x, 6, 1), **EXACT)


def test_the_cells_totals_do_not_multiply_as_its_direct_path_does(x):
    net = built("lstm")
    for function, multiplies in ((cell_direct_path, True), (cell_jacobian, False)):
        whole, first, second = function(net, x, 5, 3), function(net, x, 4, 3), function(net, x, 5, 4)
        assert torch.allclose(second @ first, whole, atol=1e-6) is multiplies


@pytest.mark.parametrize("kind", ["tanh", "relu", "gru"])
@settings(max_examples=15, deadline=None)
@given(steps=st.tuples(*[st.integers(0, T - 1)] * 3).map(sorted), seed=st.integers(0, 99))
def test_jacobians_of_a_state_chain(kind, steps, seed):
    k, j, t = steps
    net = built(kind, seed=seed)
    x = torch.randn(2, T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    whole = hidden_jacobian(net, x, t, k)
    torch.testing.assert_close(hidden_jacobian(net, x, t, j) @ hidden_jacobian(net, x, j, k), whole, **EXACT)


@pytest.mark.parametrize("function", [hidden_jacobian, cell_jacobian, cell_direct_path])
def test_a_state_is_its_own_identity(function, x):
    identity = torch.eye(5, dtype=torch.float64).expand(N, 5, 5)
    torch.testing.assert_close(function(built("lstm"), x, 4, 4), identity, rtol=0, atol=0)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_terms_of_a_gradient_sum_to_autograds(kind, layer, x):
    net = built(kind, layers=2)
    head, target = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1])

    def loss(h):
        return torch.nn.functional.cross_entropy(h @ head, target)

    terms = weight_gradient_by_step(net, x, loss, 5, layer=layer)
    loss(net(x)[0][:, 5]).backward()
    expected = getattr(net.cell, f"weight_hh_l{layer}").grad.chunk(len(net.GATES))
    for gate, wanted in zip(net.GATES, expected):
        assert terms[gate].shape == (6, 5, 5)
        assert (terms[gate][0] == 0).all()
        torch.testing.assert_close(terms[gate].sum(0), wanted, **EXACT)


def test_each_term_of_the_simple_network_is_the_courses_product(x):
    """∂L_t/∂h_t · ∂h_t/∂h_k · diag(1 - tanh²(a_k)) h_{k-1}, for one sequence."""
    net, one = built("tanh"), x[:1]
    terms = weight_gradient_by_step(net, one, lambda h: (h**3).sum(), 6)["h"]
    h = net(one)[0][0].detach()
    for k in range(1, 7):
        to_h_k = 3 * h[6] ** 2 @ hidden_jacobian(net, one, 6, k)[0]
        torch.testing.assert_close(terms[k], torch.outer(to_h_k * (1 - h[k] ** 2), h[k - 1]), **EXACT)


@settings(max_examples=30, deadline=None)
@given(
    sigma=st.floats(0.1, 3.0),
    activation=st.sampled_from(["tanh", "relu"]),
    seed=st.integers(0, 99),
    k=st.integers(0, T - 1),
)
def test_the_published_bounds_hold(sigma, activation, seed, k):
    """‖∂h_t/∂h_k‖ ≤ ∏‖D_j‖‖w‖ ≤ (γ σ_max)^(t-k): Pascanu et al. (2013), equations 6 and 7."""
    net = scaled(sigma, activation, inputs=3, seed=seed)
    x = torch.randn(2, T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    norms = torch.linalg.matrix_norm(hidden_jacobian(net, x, T - 1, k), 2)
    for s in range(2):
        largest = slopes(net, x[s]).detach()[k + 1 :].amax(1)
        product = float(largest.prod()) * sigma ** (T - 1 - k)
        assert norms[s] <= product * (1 + 1e-9)
        assert product <= pascanu(net).bound(T - 1 - k) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("sigma", "vanish", "explode", "words"),
    [
        (0.9, True, False, "sufficient for vanishing: ‖∂h_t/∂h_k‖ ≤ 0.9"),
        (1.0, False, False, "at the border: ‖∂h_t/∂h_k‖ ≤ 1, gradients do not explode"),
        (1.5, False, True, "necessary, not sufficient"),
    ],
)
def test_pascanus_conditions_are_reported_in_numbers_and_words(sigma, vanish, explode, words):
    found = pascanu(scaled(sigma))
    assert (found.must_vanish, found.may_explode) == (vanish, explode)
    assert found.sigma == pytest.approx(sigma, rel=1e-12)
    assert found.radius == pytest.approx(sigma, rel=1e-12)  # of an orthogonal matrix
    assert words in str(found)
    assert found.bound(3) == pytest.approx(sigma**3)


def test_a_shear_may_explode_by_its_singular_value_and_not_by_its_eigenvalues():
    net = linear(torch.tensor([[0.5, 4.0], [0.0, 0.5]]))
    found = pascanu(net)
    assert found.may_explode
    assert found.radius == pytest.approx(0.5)
    norms = gradient_norms(net, torch.zeros(2, 60, 1))["mean"]
    assert norms.max() == norms[1] == pytest.approx(found.sigma)
    assert norms.iloc[-1] < 1e-3


def test_gradients_vanish_where_they_must_and_explode_only_where_tanh_is_not_saturated():
    x = torch.randn(4, 40, 1, dtype=torch.float64)
    assert gradient_norms(scaled(0.8), x)["upper"].iloc[-1] <= 0.8**39
    assert gradient_norms(scaled(1.25), 20 * x)["upper"].iloc[-1] < 1e-3  # though it might explode
    exploded = gradient_norms(linear(1.25 * torch.eye(3)), x.clamp(min=-1.9))
    np.testing.assert_allclose(exploded["mean"], 1.25 ** exploded["lag"])


def test_the_table_of_norms_is_what_the_jacobians_say(x):
    net = built("lstm", layers=2)
    table = gradient_norms(net, x, t=6, layer=0, level=0.5)
    functions = {"hidden": hidden_jacobian, "cell": cell_jacobian, "cell, direct path": cell_direct_path}
    assert list(table["quantity"].unique()) == list(functions)
    for name, function in functions.items():
        rows = table[table["quantity"] == name].set_index("lag")
        assert list(rows.index) == list(range(7))
        for lag in (0, 1, 6):
            norms = torch.linalg.matrix_norm(function(net, x, 6, 6 - lag, layer=0), 2).numpy()
            row = rows.loc[lag]
            np.testing.assert_allclose(row["mean"], norms.mean(), rtol=1e-12)
            np.testing.assert_allclose(row["stderr"], norms.std(ddof=1) / math.sqrt(N), rtol=1e-9, atol=1e-12)
            expected = np.quantile(norms, [0.25, 0.5, 0.75])
            np.testing.assert_allclose(row[["lower", "median", "upper"]].astype(float), expected, rtol=1e-12)
            assert row["n"] == N


def test_an_open_forget_gate_keeps_the_direct_path_where_a_simple_network_forgets():
    x = torch.randn(5, 60, 1, dtype=torch.float64)
    with seeded(0):
        lstm = LSTM(1, 6, forget_bias=8.0).double()
    table = gradient_norms(lstm, x)
    last = table[table["lag"] == 59].set_index("quantity")
    assert last.loc["cell, direct path", "lower"] > 0.9
    assert last.loc["cell", "lower"] > 0.5
    assert gradient_norms(scaled(0.8), x)["upper"].iloc[-1] < 1e-5


def test_the_picture_draws_a_curve_for_each_quantity(x):
    table = gradient_norms(built("lstm"), x)
    ax = viz.gradient_norms(table, label="LSTM")
    assert len(ax.lines) == 3
    assert ax.get_yscale() == "log"
    np.testing.assert_allclose(ax.lines[1].get_ydata(), table[table["quantity"] == "cell"]["median"])
    viz.gradient_norms(gradient_norms(built("gru"), x), ax=ax, label="GRU")
    assert [t.get_text() for t in ax.get_legend().get_texts()][2:] == ["LSTM, cell, direct path", "GRU"]
    with pytest.raises(ValueError, match="table must be a DataFrame from gradient_norms"):
        viz.gradient_norms(table.drop(columns="median"))


def test_derivatives_can_be_taken_inside_no_grad_and_change_no_gradients(x):
    net = built("lstm")
    expected = cell_jacobian(net, x, 5, 1)
    with torch.no_grad():
        torch.testing.assert_close(cell_jacobian(net, x, 5, 1), expected, rtol=0, atol=0)
        weight_gradient_by_step(net, x, lambda h: h.sum(), 5)
    assert all(p.grad is None for p in net.parameters())
    assert not expected.requires_grad


def test_clipping_keeps_the_direction_of_a_gradient_and_bounds_its_length():
    x = torch.rand(16, 30, 1, dtype=torch.float64)
    w = 1.2 * torch.eye(3)
    start = linear(w)

    def moved(clip):
        net = linear(w)
        descend(
            net,
            lambda batch, _: net(batch[0])[0][:, -1].square().mean(),
            (x,),
            steps=1,
            batch_size=16,
            clip=clip,
            optimiser=lambda p: torch.optim.SGD(p, lr=1e-3),
            progress=False,
        )
        return torch.cat([(b - a).detach().flatten() for a, b in zip(start.parameters(), net.parameters())]) / -1e-3

    gradient, clipped = moved(None), moved(5.0)
    assert gradient.norm() > 50  # exploded
    torch.testing.assert_close(clipped, 5 * gradient / gradient.norm(), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(moved(1e9), gradient, rtol=0, atol=0)


@pytest.mark.parametrize(("t", "k"), [(3, 4), (T, 0), (2, -1)])
def test_steps_outside_of_the_sequences_are_refused(t, k, x):
    for function in (hidden_jacobian, cell_jacobian, cell_direct_path):
        with pytest.raises(ValueError, match=f"0 ≤ k ≤ t < 8, the length of x; got t={t}, k={k}"):
            function(built("lstm"), x, t, k)


def test_networks_that_have_no_such_jacobian_are_refused(x):
    with pytest.raises(ValueError, match="net must run one way"):
        hidden_jacobian(built("gru", bidirectional=True), x, 3, 1)
    with pytest.raises(TypeError, match="net must be an LSTM of probdl.nn; got GRU"):
        cell_jacobian(built("gru"), x, 3, 1)
    with pytest.raises(TypeError, match="net must be an RNN, LSTM or GRU of probdl.nn; got LSTM"):
        gates(torch.nn.LSTM(3, 5), x)
    with pytest.raises(TypeError, match="net must be an RNN, whose Jacobian is a product"):
        pascanu(GRU(3, 5))


def test_input_that_cannot_be_used_is_refused(x):
    net = built("tanh", layers=2)
    with pytest.raises(ValueError, match="layer must be from 0 to 1, or -1 for the top; got 2"):
        hidden_jacobian(net, x, 3, 1, layer=2)
    with pytest.raises(ValueError, match="layer must be from 0 to 1, or -1 for the top; got 2"):
        pascanu(net, layer=2)
    with pytest.raises(ValueError, match=r"x must have shape \(n, T, 3\)"):
        gradient_norms(net, x[..., :2])
    with pytest.raises(ValueError, match="x must be finite; got 1 NaN"):
        gradient_norms(net, torch.where(torch.arange(T)[:, None] == 3, math.nan, x[:1, :, :1]).expand(1, T, 1))
    with pytest.raises(ValueError, match="at least two sequences"):
        gradient_norms(net, x[:1])
    with pytest.raises(ValueError, match="level must be between 0 and 1; got 1.0"):
        gradient_norms(net, x, level=1.0)
    with pytest.raises(ValueError, match="t must be a step from 0 to 7; got 8"):
        weight_gradient_by_step(net, x, lambda h: h.sum(), 8)
    for loss in (lambda h: h, lambda h: 1.0, lambda h: torch.zeros(())):
        with pytest.raises(ValueError, match=r"loss must map h_t, \(n, 5\), to a scalar"):
            weight_gradient_by_step(net, x, loss, 3)
