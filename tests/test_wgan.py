"""The Wasserstein GAN: its algorithm step by step, and what its critic says of W1 against the truth."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from probdl.divergences import gradient_penalty
from probdl.divergences.held_out import Critic
from probdl.loops.run import apart
from probdl.models import WGAN
from probdl.nn import MLP, seeded


def line(weight, bias):
    """An affine map of one number."""
    layer = nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


def normals(n, shift=0.0, seed=0, columns=2):
    x = torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x


class RMSProp:
    """The rule of Tieleman and Hinton, in numbers."""

    def __init__(self, rate, *values):
        self.rate, self.values, self.squares = rate, np.array(values), np.zeros(len(values))

    def step(self, *gradient):
        g = np.array(gradient)
        self.squares = 0.99 * self.squares + 0.01 * g**2
        self.values = self.values - self.rate * g / (np.sqrt(self.squares) + 1e-8)


def algorithm(x, seed, steps, turns, c, rates):
    """The paper's algorithm for f(x) = ax + b and G(z) = wz + m, with every gradient by hand; also every a."""
    noise = torch.Generator().manual_seed(apart(seed, 1))
    critic, generator, seen = RMSProp(rates[0], 0.5, -0.1), RMSProp(rates[1], 0.7, 0.3), []

    def draw():
        return torch.randn(len(x), 1, generator=noise, dtype=torch.float64).numpy()[:, 0]

    for step in range(steps):
        for _ in range(turns(step)):
            w, m = generator.values
            critic.step((w * draw() + m).mean() - x.mean(), 0.0)
            critic.values = np.clip(critic.values, -c, c)
            seen.append(critic.values[0])
        a = critic.values[0]
        generator.step(-(a * draw()).mean(), -a)
    return critic.values, generator.values, seen


@pytest.mark.parametrize("early", [None, 11])
def test_the_steps_are_those_of_the_paper_s_algorithm(early):
    x, rates = normals(64, 2.0, columns=1), (0.05, 0.02)
    wgan = WGAN(1, constraint="clip", clipping=0.2, early_critic_steps=early, learning_rates=rates, standardise="none",
                critic=line(0.5, -0.1), generator=line(0.7, 0.3), dtype=torch.float64)  # fmt: skip
    wgan.fit(x, steps=30, batch_size=64, validation=None, seed=3, device="cpu", progress=False)
    critic, generator, seen = algorithm(
        x.numpy()[:, 0], 3, 30, lambda step: early if early and step < 25 else 5, 0.2, rates
    )
    found = [torch.cat([p.flatten() for p in net.parameters()]).tolist() for net in (wgan.critic, wgan.generator)]
    np.testing.assert_allclose(found, [critic, generator], rtol=1e-12)
    assert len(seen) == (25 * early + 5 * 5 if early else 30 * 5)
    assert max(map(abs, seen)) == 0.2  # the clipping took part


def test_the_defaults_under_clipping_are_the_paper_s():
    wgan = WGAN(3, constraint="clip")
    said = {name: getattr(wgan, name) for name in ("clipping", "critic_steps", "optimiser", "learning_rates", "BATCH")}
    assert said == {
        "clipping": 0.01, "critic_steps": 5, "optimiser": "rmsprop", "learning_rates": (5e-5, 5e-5), "BATCH": 64,
    }  # fmt: skip
    assert (wgan.decay, wgan.ema) == (False, None)
    rules = wgan.fit(normals(20), steps=1, progress=False)._rules
    made = rules[0](list(wgan.critic.parameters()))
    assert (type(made), made.defaults["lr"], made.defaults["alpha"]) == (torch.optim.RMSprop, 5e-5, 0.99)


def test_every_weight_of_a_clipped_critic_ends_within_the_constant():
    wgan = WGAN(2, constraint="clip", clipping=0.03, hidden=(8,)).fit(normals(64), steps=3, progress=False)
    largest = max(p.abs().max().item() for p in wgan.critic.parameters())
    assert largest == pytest.approx(0.03)
    assert max(p.abs().max().item() for p in wgan.generator.parameters()) > 0.1


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_penalised_critic_steps_down_the_gap_and_the_penalty(two_sided):
    """f(x) = ax, G(z) = wz: the slope is |a| everywhere, and every gradient is known."""
    x = normals(32, 2.0, columns=1)
    for start in (0.4, 1.5):
        wgan = WGAN(1, two_sided=two_sided, penalty=3.0, optimiser="sgd", learning_rates=(0.1, 0.2), decay=False,
                    ema=None, critic_steps=1, critic=line(start, 0.0), generator=line(0.7, 0.3), standardise="none",
                    dtype=torch.float64)  # fmt: skip
        wgan.fit(x, steps=1, batch_size=32, validation=None, seed=3, device="cpu", progress=False)
        noise = torch.Generator().manual_seed(apart(3, 1))
        z = torch.randn(32, 1, generator=noise, dtype=torch.float64)
        torch.rand(32, 1, generator=noise, dtype=torch.float64)  # ε
        excess = start - 1 if two_sided else max(start - 1, 0.0)
        a = start - 0.1 * ((0.7 * z + 0.3).mean() - x.mean() + 3.0 * 2 * excess).item()
        assert wgan.critic.network.weight.item() == pytest.approx(a, rel=1e-12)
        z = torch.randn(32, 1, generator=noise, dtype=torch.float64)
        assert wgan.generator.network.weight.item() == pytest.approx(0.7 + 0.2 * (a * z.mean()).item(), rel=1e-12)
        assert wgan.generator.network.bias.item() == pytest.approx(0.3 + 0.2 * a, rel=1e-12)


def still():
    """A generator that makes N(0, I), and does not move at a rate of 1e-12."""
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return layer


def shifted(shift, device, **settings):
    """The critic of a WGAN trained between N(0, I) and N((shift, 0), I), of which W1 is the shift."""
    rate = 2e-3 if settings["constraint"] == "penalty" else 1e-3
    with seeded(0):
        critic = Critic(2).double() if settings["constraint"] == "penalty" else MLP(2, 1, hidden=(64, 64)).double()
    held = normals(5000 if settings["constraint"] == "penalty" else 300, shift, seed=1)
    wgan = WGAN(2, generator=still(), critic=critic, critic_steps=12, learning_rates=(rate, 1e-12), ema=None,
                decay=True, standardise="none", dtype=torch.float64, **settings)  # fmt: skip
    return wgan.fit(normals(4000, shift), steps=30, batch_size=256, validation=held,
                    device=device, progress=False)  # fmt: skip


@pytest.mark.parametrize("shift", [0.5, 1.5, 3.0])
def test_a_penalised_critic_over_its_largest_held_out_slope_is_within_a_tenth_of_w1(shift, device):
    wgan = shifted(shift, device, constraint="penalty", penalty=100.0)
    last = wgan.history.iloc[-1]
    assert last.w1 == pytest.approx(shift, rel=0.1)
    assert last.critic_w1 == pytest.approx(shift, rel=0.1)
    assert 0.9 < last.slope < 1.25
    # f rises by the shift's unit along the first axis, and the slope that history divides by is that of f.
    ends = torch.tensor([[0.0, 0.0], [shift, 0.0]], dtype=torch.float64)
    low, high = wgan.potential(ends).tolist()
    assert (high - low) / shift == pytest.approx(1, abs=0.15)


def test_a_clipped_critic_over_its_bound_is_a_lower_bound_that_grows_with_the_shift(device):
    found = []
    for shift in (0.5, 1.5, 3.0):
        wgan = shifted(shift, device, constraint="clip", clipping=0.1)
        found.append(wgan.history.w1.iloc[-1])
        assert 0.3 * shift < found[-1] < shift
        product = math.prod(
            torch.linalg.matrix_norm(layer.weight, 2).item()
            for layer in wgan.critic.network.layers
            if isinstance(layer, nn.Linear)
        )
        assert wgan.history.slope.iloc[-1] == pytest.approx(product)
    assert found == sorted(found)
    estimate = wgan.divergence(normals(200, 3.0, seed=2), draws=200)
    assert estimate.target == "lower bound"
    assert 0.5 < estimate.value < 3


@pytest.mark.parametrize("shift", [1.5])
def test_the_divergence_is_w1_by_a_fresh_critic_in_the_data_s_units(shift):
    wgan = WGAN(2, generator=still(), hidden=(4,), learning_rates=(1e-12, 1e-12), standardise="shared",
                dtype=torch.float64)  # fmt: skip
    # Data of mean 0 and one scale c: the samples are N(0, c² I), and N(shift, c² I) is a shift away.
    wgan.fit(10 * normals(500), steps=1, validation=None, progress=False)
    unit = wgan.units.scale.item()
    there = wgan.units.shift + unit * normals(3000, shift, seed=4)
    estimate = wgan.divergence(there, draws=3000)
    assert estimate.target == "approximation"
    assert estimate.value == pytest.approx(shift * unit, rel=0.1)


def test_the_history_of_w1_is_in_the_data_s_units_where_one_scale_serves_all_entries():
    small, large = (
        WGAN(2, hidden=(8,), standardise="shared", dtype=torch.float64).fit(
            factor * normals(200), steps=4, progress=False
        )
        for factor in (1.0, 1024.0)
    )
    np.testing.assert_allclose(large.history.w1, 1024 * small.history.w1, rtol=1e-9)
    np.testing.assert_allclose(large.history.critic_w1, 1024 * small.history.critic_w1, rtol=1e-9)
    np.testing.assert_allclose(large.history.slope, small.history.slope / 1024, rtol=1e-9)
    columns = normals(200) * torch.tensor([1.0, 1024.0])
    plain, scaled = (WGAN(2, hidden=(8,), dtype=torch.float64).fit(x, steps=4, progress=False)
                     for x in (normals(200), columns))  # fmt: skip
    np.testing.assert_allclose(scaled.history.w1, plain.history.w1, rtol=1e-9)


@pytest.mark.parametrize("constraint", ["penalty", "clip"])
def test_the_generator_moves_to_the_data(constraint, device):
    how = (
        {"clipping": 0.1, "learning_rates": (2e-3, 2e-3)}
        if constraint == "clip"
        else {"ema": 0.97, "learning_rates": (5e-3, 2e-3)}
    )
    x = torch.tensor([3.0, -1.0]) + normals(2000) * torch.tensor([1.0, 0.5])
    wgan = WGAN(2, constraint=constraint, hidden=(32,), standardise="shared", **how)
    samples = wgan.fit(x, steps=200, validation=0.2, device=device, progress=False).sample(5000)
    torch.testing.assert_close(samples.mean(0), torch.tensor([3.0, -1.0]), atol=0.3, rtol=0)
    torch.testing.assert_close(samples.std(0), torch.tensor([1.0, 0.5]), atol=0.3, rtol=0)
    assert wgan.history.w1.iloc[-1] < 0.3 * wgan.history.w1.max()


def test_a_critic_of_images_under_clipping_is_divided_by_the_largest_slope_it_was_seen_to_have():
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    wgan = WGAN(2, constraint="clip", clipping=0.1, hidden=(4, 8)).fit(images, steps=2, progress=False)
    assert wgan.history.slope.notna().all()
    assert (wgan.history.slope > 0).all()


def test_the_two_sided_penalty_counts_slopes_below_one():
    line = nn.Linear(2, 1).double()
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[0.3, 0.4]]))
    x = normals(10)
    assert gradient_penalty(line, x, x + 1, torch.Generator()).item() == 0
    assert gradient_penalty(line, x, x + 1, torch.Generator(), two_sided=True).item() == pytest.approx(0.25)
