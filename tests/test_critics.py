"""Critics: bounds on f-divergences and integral probability metrics, valued on draws they were not trained on."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

import probdl
from probdl.divergences import (
    RBF,
    BoundedCritic,
    KernelCritic,
    LipschitzCritic,
    f_divergence,
    f_divergence_loss,
    gradient_penalty,
    hellinger2,
    ipm,
    js,
    kl,
    mmd2,
    tv,
    wasserstein,
)
from probdl.divergences.held_out import Critic
from probdl.divergences.lipschitz import gradient_norms, lipschitz_bound
from probdl.nn import MLP, seeded


def normals(n, d, seed, shift=0.0, scale=1.0, device="cpu"):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    x[:, 0] += shift
    return x.to(device)


def gaussian(d, shift=0.0, scale=1.0):
    mean = torch.zeros(d, dtype=torch.float64)
    mean[0] = shift
    return Independent(Normal(mean, scale * torch.ones_like(mean)), 1)


# --- integral probability metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "shift", "scale"), [(1, 1.0, 1.0), (2, 0.0, 2.0)])
def test_the_three_classes_of_functions_are_w1_tv_and_mmd(d, shift, scale):
    x, y = normals(5000, d, 1), normals(5000, d, 2, shift, scale)
    p, q = gaussian(d), gaussian(d, shift, scale)
    w1 = 1.0 if d == 1 else math.sqrt(math.pi / 2)  # a shift; radially, E|Y| − E|X| of Rayleigh laws
    mmd = math.sqrt(mmd2(p, q, RBF(1.0)).value)
    truths = {LipschitzCritic(): w1, BoundedCritic(): tv(p, q).value, KernelCritic(RBF(1.0)): mmd}
    for critic, truth in truths.items():
        estimate = ipm(x, y, critic)
        assert abs(estimate.value - truth) < 3 * estimate.stderr, critic  # four of six have bias: they are bounds
        assert estimate.stderr < 0.1 * truth


def test_the_lipschitz_critic_agrees_with_exact_transport_of_the_same_draws():
    x, y = normals(1200, 2, 1), normals(1200, 2, 2, 3.0)
    a, b = ipm(x, y), wasserstein(x, y)
    assert abs(a.value - b.value) < 3 * math.hypot(a.stderr, b.stderr)
    assert a.target == "approximation"
    assert "largest slope" in " ".join(a.notes)


def test_a_clipped_critic_is_a_lower_bound_that_grows_with_the_shift():
    critic = LipschitzCritic(constraint="clip", steps=600)
    estimates = [ipm(normals(1000, 1, 1), normals(1000, 1, 2, shift), critic) for shift in (0.5, 1.5, 3.0)]
    for estimate, shift in zip(estimates, (0.5, 1.5, 3.0)):
        assert estimate.target == "lower bound"
        assert 0.3 * shift < estimate.value < shift + 4 * estimate.stderr
    assert estimates[0].value < estimates[1].value < estimates[2].value


def test_w1_has_the_unit_of_the_data():
    x, y = normals(600, 1, 1), normals(600, 1, 2, 2.0)
    critic = LipschitzCritic(steps=300)
    value, scaled = ipm(x, y, critic), ipm(1000 * x + 7, 1000 * y + 7, critic)
    assert scaled.value == pytest.approx(1000 * value.value, rel=1e-3)
    assert scaled.stderr == pytest.approx(1000 * value.stderr, rel=1e-3)


def test_held_out_values_are_around_zero_under_equality():
    z = []
    for seed in range(20):
        estimate = ipm(normals(100, 2, 2 * seed), normals(100, 2, 2 * seed + 1), KernelCritic())
        z.append(estimate.value / estimate.stderr)
    assert max(map(abs, z)) < 4.5  # twenty near-normal values: false alarm 1e-4
    assert abs(np.mean(z)) < 4 / math.sqrt(20)


def test_a_network_of_the_user_is_trained_in_place_and_bounds_hold(device):
    with seeded(0):
        network = MLP(2, 1, hidden=(32,)).to(device).double()
    x, y = normals(600, 2, 1, device=device), normals(600, 2, 2, 2.0, device=device)
    before = [p.clone() for p in network.parameters()]
    estimate = ipm(x, y, LipschitzCritic(network=network, steps=400))
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters()))
    assert 1.5 < estimate.value < 2.0 + 4 * estimate.stderr
    norms = gradient_norms(network, x)
    bound = lipschitz_bound(network)
    assert norms.max().item() <= bound


def test_the_spectral_bound_is_a_bound_and_is_tight_for_a_line():
    with seeded(1):
        critic = Critic(3).double()
    steep = gradient_norms(critic, normals(500, 3, 1)).max().item()
    assert steep <= lipschitz_bound(critic)
    line = torch.nn.Linear(3, 1).double()
    assert lipschitz_bound(line) == pytest.approx(line.weight.norm().item())


def test_the_gradient_penalty_has_its_own_epsilon_and_norm_for_each_row():
    x, y = torch.zeros(4000, 1, dtype=torch.float64), torch.full((4000, 1), 4.0, dtype=torch.float64)

    class Square(torch.nn.Module):
        def forward(self, z):
            return z.square()

    # slopes 2z at z uniform on (0, 4): E (2z − 1)₊² = ∫_{1/2}^4 (2z − 1)² dz / 4 = 343/24
    value = gradient_penalty(Square(), x, y, torch.Generator().manual_seed(0)).item()
    assert value == pytest.approx(343 / 24, rel=0.05)  # its standard error is 1.7 %: three of them
    assert gradient_penalty(torch.nn.Linear(1, 1, bias=False).double(), x, y, torch.Generator()).item() == 0.0


def test_the_penalty_can_be_differentiated_twice():
    with seeded(0):
        network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    for parameter in network.parameters():
        parameter.data *= 5
    x, y = normals(6, 2, 1), normals(6, 2, 2)
    weight = network[0].weight

    def loss(w):
        def call(z):
            return torch.tanh(z @ w.T + network[0].bias) @ network[2].weight.T

        module = torch.nn.Module()
        module.forward = call
        return gradient_penalty(module, x, y, torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(loss, (weight.detach().clone().requires_grad_(),))


# --- f-divergences ---------------------------------------------------------------------------------------------------

P, Q = gaussian(1), gaussian(1, 1.0)


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("js", js(P, Q).value),
        ("kl", kl(P, Q).value),
        ("kl_nwj", kl(P, Q).value),
        ("reverse_kl", kl(Q, P).value),
        ("hellinger2", hellinger2(P, Q).value),
        ("tv", tv(P, Q).value),
        ("pearson", math.e - 1),
    ],
)
def test_the_bound_is_below_the_truth_and_near_it(kind, truth):
    estimate = f_divergence(normals(4000, 1, 1), normals(3000, 1, 2, 1.0), kind, steps=1000)
    stderr = estimate.stderr or 0.1 * truth  # withheld where the terms have a heavy tail
    assert estimate.value < truth + 4 * stderr
    assert estimate.value > 0.7 * truth
    assert estimate.target == "lower bound"
    assert estimate.n == 1600 + 1200, "the held-out parts"


def test_the_discriminator_is_p_over_p_plus_q():
    with seeded(0):
        network = MLP(1, 1, hidden=(32,)).double()
    x, y = normals(8000, 1, 1), normals(8000, 1, 2, 1.0)
    estimate = f_divergence(x, y, "js", network)
    grid = torch.linspace(-1.5, 2.5, 41, dtype=torch.float64)[:, None]
    log_p, log_q = P.log_prob(grid), Q.log_prob(grid)
    optimum = torch.sigmoid(log_p - log_q)
    with torch.no_grad():
        learnt = torch.sigmoid(network(grid))[:, 0]
    assert (learnt - optimum).abs().max() < 0.06
    assert abs(estimate.value - js(P, Q, method="quadrature").value) < 4 * estimate.stderr  # false alarm 6e-5


def test_at_the_optimum_the_loss_is_minus_the_divergence_by_quadrature():
    z = torch.linspace(-12, 13, 200_001, dtype=torch.float64)[:, None]
    p, q = P.log_prob(z).exp(), Q.log_prob(z).exp()
    v = P.log_prob(z) - Q.log_prob(z)
    optima = {
        "js": (v, js(P, Q)),
        "kl_nwj": (v, kl(P, Q)),
        "reverse_kl": (v, kl(Q, P)),
        "hellinger2": (v, hellinger2(P, Q)),
        "tv": (50 * v, tv(P, Q)),
        "pearson": (2 * v.exp() - 2, None),
    }
    step = (z[1] - z[0]).item()
    for kind, (best, divergence) in optima.items():
        bound = probdl.divergences.variational.BOUNDS[kind]
        value = ((p * bound.first(best)).sum() + (q * bound.second(best)).sum()).item() * step
        truth = math.e - 1 if divergence is None else divergence.value
        assert value == pytest.approx(truth, abs=1e-3 if kind == "tv" else 1e-6), kind


@pytest.mark.parametrize("kind", ["js", "kl", "kl_nwj", "reverse_kl", "hellinger2", "tv", "pearson"])
def test_losses_have_right_gradients_also_at_equal_values(kind):
    fx, fy = normals(5, 1, 1)[:, 0].requires_grad_(), normals(4, 1, 2)[:, 0].requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: f_divergence_loss(a, b, kind), (fx, fy))
    zeros = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    f_divergence_loss(zeros, zeros, kind).backward()
    assert torch.isfinite(zeros.grad).all()
    assert f_divergence_loss(zeros, zeros, kind).item() == pytest.approx(0.0, abs=1e-12)


def test_weights_correct_the_distribution():
    x, y = normals(2000, 1, 1), normals(1000, 1, 2, 1.0)
    weighted = probdl.Draws(x, torch.exp(x[:, 0] - 0.5))  # N(0, 1) weighted to N(1, 1)
    estimate = ipm(weighted, y, KernelCritic(RBF(1.0)))
    assert abs(estimate.value) < 4 * estimate.stderr  # false alarm 6e-5
    assert f_divergence(weighted, y, steps=300).value < 0.02 < f_divergence(x, y, steps=300).value


def test_of_too_many_draws_some_are_used(monkeypatch):
    for name in ("MOST", "PAIRWISE"):
        monkeypatch.setattr(probdl.divergences.critics, name, 50)
    x, y = normals(90, 1, 1), normals(45, 1, 2)
    for estimate in (f_divergence(x, y, steps=5), ipm(x, y, KernelCritic()), ipm(x, y, BoundedCritic(steps=5))):
        assert estimate.n == 20 + 18, "the held-out parts of 50 and 45"
        assert "50 of the 90 draws of x were used" in " ".join(estimate.notes)


def test_a_distribution_is_sampled_with_a_note():
    estimate = ipm(P, normals(400, 1, 2, 1.0), BoundedCritic(steps=200))
    assert "1000 draws were taken from x" in " ".join(estimate.notes)


def test_the_same_seed_gives_the_same_value_and_nothing_global_moves():
    x, y = normals(100, 2, 1), normals(100, 2, 2, 1.0)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    values = [f_divergence(x, y, steps=50, seed=s).value for s in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_what_a_critic_cannot_use_is_refused():
    x, y = normals(60, 2, 1), normals(60, 2, 2)
    with pytest.raises(ValueError, match="kind must be one of 'kl', 'js'.*; got 'chi'"):
        f_divergence(x, y, "chi")
    with pytest.raises(ValueError, match="at least 40 draws of each side; got 39 of y"):
        ipm(x, y[:39])
    with pytest.raises(TypeError, match="critic must be a LipschitzCritic"):
        ipm(x, y, "w1")
    with pytest.raises(ValueError, match='constraint must be "penalty" or "clip"'):
        LipschitzCritic(constraint="spectral")
    with pytest.raises(ValueError, match="clip must be positive"):
        LipschitzCritic(clip=0.0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        BoundedCritic(steps=0)
    with pytest.raises(TypeError, match="kernel must be a function of points"):
        KernelCritic("rbf")
    with pytest.raises(ValueError, match=r"network must map points \(\d+, 2\) to .*; got \(\d+, 3\)"):
        f_divergence(x, y, network=torch.nn.Linear(2, 3).double())
    with pytest.raises(ValueError, match="no bound on the Lipschitz constant of LayerNorm is known"):
        ipm(x, y, LipschitzCritic("clip", torch.nn.Sequential(torch.nn.LayerNorm(2), torch.nn.Linear(2, 1))))
    with pytest.raises(ValueError, match="x must be finite"):
        ipm(x * math.nan, y)
    with pytest.raises(ValueError, match="one mean embedding"):
        ipm(np.ones((50, 1)), np.ones((50, 1)), KernelCritic(RBF(1.0)))
