"""The debiased Sinkhorn divergence against Gaussians in closed form and against POT's dense iteration."""

import math

import numpy as np
import ot
import pytest
import torch
from torch.distributions import Cauchy, Independent, Laplace, MultivariateNormal, Normal

import probdl
from probdl.divergences import debiased, entropic, sinkhorn, sinkhorn_loss, transport, wasserstein
from probdl.errors import ConvergenceError


def normals(n, d, seed, shift=0.0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


def weights(n):
    w = np.random.default_rng(n).random(n)
    return w / w.sum()


def pots(x, y, v, w, order, epsilon):
    """The divergence as it is written, with POT's plans."""

    def cost(a, b, s, t):
        c = ot.dist(a, b, metric="euclidean") ** order
        plan = ot.sinkhorn(s, t, c, epsilon, method="sinkhorn_log", stopThr=1e-9, numItermax=100_000)
        return (plan * c).sum() + epsilon * (plan * np.log(np.maximum(plan, 1e-300) / np.outer(s, t))).sum()

    return cost(x, y, v, w) - cost(x, x, v, v) / 2 - cost(y, y, w, w) / 2


@pytest.mark.parametrize(("order", "epsilon"), [(2, 2.0), (1, 1.0), (1.5, 1.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_divergence_of_pots_plans(order, epsilon, weighted):
    x, y = normals(50, 3, 1).numpy(), normals(40, 3, 2, 1.0).numpy()
    v, w = (weights(n) if weighted else np.full(n, 1 / n) for n in (50, 40))
    truth = pots(x, y, v, w, order, epsilon)
    p, q = (probdl.Draws(x, v), probdl.Draws(y, w)) if weighted else (x, y)
    assert sinkhorn(p, q, order, epsilon).value == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 20.0, None])
def test_gaussians_of_equal_covariance_are_their_squared_shift_apart_for_every_epsilon(epsilon):
    s = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    p, q = MultivariateNormal(torch.zeros(2), s), MultivariateNormal(torch.tensor([1.0, -2.0]), s)
    estimate = sinkhorn(p, q, epsilon=epsilon)
    assert estimate.value == pytest.approx(5.0, abs=1e-9)
    assert (estimate.method, estimate.stderr) == ("closed form", 0.0)
    assert "epsilon" in estimate.notes[0]


def test_without_entropy_gaussians_are_their_wasserstein_distance_apart():
    p, q = Normal(0.0, 1.0), Normal(1.0, 3.0)
    assert sinkhorn(p, q, epsilon=1e-7).value == pytest.approx(1 + 4, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_on_a_fine_grid_the_iteration_reaches_the_closed_form_of_gaussians(epsilon):
    x = torch.linspace(-19, 20, 800, dtype=torch.float64)
    p, q = Normal(torch.tensor(0.0).double(), 1.0), Normal(torch.tensor(1.0).double(), 2.0)
    grids = (probdl.Draws(x, h.log_prob(x).exp()) for h in (p, q))
    assert sinkhorn(*grids, epsilon=epsilon).value == pytest.approx(sinkhorn(p, q, epsilon=epsilon).value, abs=1e-6)


@pytest.mark.parametrize("epsilon", [None, 2.0])
def test_draws_of_gaussians_give_the_shift_within_their_error(epsilon, device):
    x, y = normals(1500, 2, 1, device=device), normals(1200, 2, 2, 2.0, device=device)
    estimate = sinkhorn(x, y, epsilon=epsilon)
    assert abs(estimate.value - 4) < 4 * estimate.stderr  # false alarms: 1 in 15,000
    assert estimate.stderr < 0.25
    assert (estimate.method, estimate.target, estimate.n) == ("sinkhorn", "expected estimate", 2700)


def test_the_default_epsilon_is_a_twentieth_of_the_mean_cost():
    x, y = normals(70, 2, 1), normals(90, 2, 2, 1.0)
    mean = (x[:, None] - y[None]).square().sum(-1).mean().item()
    assert sinkhorn(x, y).value == pytest.approx(sinkhorn(x, y, epsilon=0.05 * mean).value, abs=1e-12)
    assert f"epsilon {0.05 * mean:.6g}" in sinkhorn(x, y).notes


@pytest.mark.parametrize(("d", "order"), [(1, 2), (2, 2), (4, 1)])
def test_the_interval_covers_the_mean_of_the_estimate(d, order):
    estimates = [
        sinkhorn(normals(60, d, 2 * s), normals(50, d, 2 * s + 1, 2.0), order, epsilon=1.0) for s in range(250)
    ]
    mean = np.mean([e.value for e in estimates])
    covered = np.mean([e.interval()[0] < mean < e.interval()[1] for e in estimates])
    assert 0.9 < covered < 0.985  # if the truth is .95: false alarms below 1 in 200


def test_swapping_the_two_changes_nothing():
    x, y = normals(60, 2, 1), normals(50, 2, 2, 1.0)
    assert sinkhorn(x, y, epsilon=0.3).value == pytest.approx(sinkhorn(y, x, epsilon=0.3).value, abs=1e-8)


def test_many_draws_start_from_few_and_reach_the_same(monkeypatch):
    x, y = normals(400, 2, 1), normals(300, 2, 2, 1.0)
    direct = sinkhorn(x, y).value
    monkeypatch.setattr(entropic, "COARSE", 60)
    monkeypatch.setattr("probdl.divergences.kernels.TILE", 128)
    assert sinkhorn(x, y).value == pytest.approx(direct, abs=1e-7)


def test_equal_draws_are_no_distance_apart_and_have_no_interval():
    x = normals(40, 2, 1)
    for same in (x, torch.ones(10, 2)):
        estimate = sinkhorn(same, same)
        assert estimate.value == pytest.approx(0.0, abs=1e-6)  # what the tolerance of the iteration leaves
        assert estimate.stderr is None


def test_a_far_origin_and_float32_do_not_matter():
    x, y = normals(80, 3, 1), normals(60, 3, 2, 1.0)
    truth = sinkhorn(x, y, epsilon=0.5).value
    assert sinkhorn(x + 1e5, y + 1e5, epsilon=0.5).value == pytest.approx(truth, abs=1e-6)
    assert sinkhorn((x + 1000).float(), (y + 1000).float(), epsilon=0.5).value == pytest.approx(truth, abs=1e-3)


def test_an_iteration_that_is_stopped_early_is_an_error_and_not_a_number(monkeypatch):
    monkeypatch.setattr(entropic, "STEPS", 3)
    x = normals(100, 2, 1)
    with pytest.raises(ConvergenceError, match="after 3 steps.*pass an epsilon larger than"):
        sinkhorn(x, x + 1.0, epsilon=0.01)


def test_other_laws_are_drawn_from():
    p, q = (Independent(Laplace(torch.tensor(m).double(), 1.0), 1) for m in ([0.0, 0.0], [3.0, 0.0]))
    estimate = sinkhorn(p, q, draws=800)
    assert (estimate.method, estimate.n) == ("monte carlo", 1600)
    assert abs(estimate.value - 9) < 4 * estimate.stderr  # symmetric shifts, as of Gaussians: 9 for every epsilon


# --- the Wasserstein distance of many draws --------------------------------------------------------------------------


def test_above_five_thousand_draws_wasserstein_is_a_sinkhorn_divergence_and_says_so(monkeypatch):
    monkeypatch.setattr(transport, "MOST", 500)
    x, y = normals(900, 2, 1), normals(600, 2, 2, 1.0)
    for order, blur, method in ((1, 0.08, "sinkhorn"), (2, 0.01, "auto")):
        estimate, exact = (wasserstein(x, y, order, method=m) for m in (method, "exact transport"))
        assert (estimate.method, estimate.target, estimate.n) == ("sinkhorn", "approximation", 1500)
        assert "epsilon" in " ".join(estimate.notes)
        assert abs(estimate.value - 1) < 4 * estimate.stderr + blur  # a shift: W_p = 1
        assert exact.method == "exact transport"
        assert abs(estimate.value - exact.value) < blur + 0.03


def test_fewer_draws_are_transported_exactly_unless_sinkhorn_is_asked_for():
    x, y = normals(200, 2, 1), normals(200, 2, 2, 2.0)
    assert wasserstein(x, y).method == "exact transport"
    assert wasserstein(x, y, 2, method="sinkhorn").value == pytest.approx(math.sqrt(sinkhorn(x, y).value), abs=1e-12)


def test_more_draws_than_sinkhorn_takes_are_thinned_and_the_note_says_so(monkeypatch):
    monkeypatch.setattr(transport, "MOST", 50)
    monkeypatch.setattr(debiased, "MOST", 100)
    x, y = normals(300, 2, 1), normals(80, 2, 2)
    estimate = wasserstein(x, y, 2)
    assert estimate.n == 180
    assert "100 of the 300 draws of p were used, at random; method='sinkhorn' uses all" in " ".join(estimate.notes)
    assert wasserstein(x, y, method="sinkhorn").n == 380


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_the_loss_is_the_estimate(order, device):
    x, y = normals(40, 3, 1, device=device), normals(30, 3, 2, 1.0, device=device)
    for epsilon in (0.5, None):
        assert sinkhorn_loss(x, y, order, epsilon).item() == pytest.approx(
            sinkhorn(x, y, order, epsilon).value, abs=1e-7
        )


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_gradients_of_the_loss_are_those_of_finite_differences(order, monkeypatch):
    monkeypatch.setattr(entropic, "TOLERANCE", 1e-12)
    x, y = normals(5, 3, 1).requires_grad_(), normals(4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: sinkhorn_loss(a, b, order, 0.5), (x, y))


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_gradients_of_the_loss_are_finite_at_identical_draws(order, dtype, device):
    for draws in (normals(6, 2, 1), torch.ones(6, 2)):
        x = draws.to(device, dtype).requires_grad_()
        y = x.detach().clone().requires_grad_()
        loss = sinkhorn_loss(x, y, order)
        loss.backward()
        assert (loss.dtype, loss.device, loss.shape) == (dtype, x.device, ())
        assert abs(loss.item()) < 1e-6
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() < 1e-3


def test_descent_moves_one_sample_onto_the_other():
    x, y = normals(40, 2, 1), normals(40, 2, 2, 3.0)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=0.2)
    for _ in range(60):
        optimiser.zero_grad()
        sinkhorn_loss(x + shift, y).backward()
        optimiser.step()
    assert (shift.detach() - (y.mean(0) - x.mean(0))).abs().max() < 0.1


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, "1", True])
def test_an_epsilon_must_be_positive(epsilon):
    x = normals(5, 2, 1)
    for f in (sinkhorn, sinkhorn_loss):
        with pytest.raises(ValueError, match="epsilon must be positive and finite, or None; got"):
            f(x, x, epsilon=epsilon)


def test_other_bad_input_is_refused():
    x = normals(5, 2, 1)
    for f in (sinkhorn, sinkhorn_loss):
        with pytest.raises(ValueError, match="order must be a number of at least 1; got 0.5"):
            f(x, x, 0.5)
    with pytest.raises(ValueError, match="finite moment of order 2, which p"):
        sinkhorn(Cauchy(0.0, 1.0), x[:, 0])
    with pytest.raises(ValueError, match="p must be finite; got 1 NaN"):
        sinkhorn([[math.nan, 0.0]], x)
    with pytest.raises(ValueError, match="method of sinkhorn must be one of 'auto', 'sinkhorn'"):
        sinkhorn(x, x, method="closed form")
    with pytest.raises(TypeError, match="x must be a floating tensor"):
        sinkhorn_loss([[0.0]], x)
