"""The GAN: its algorithm step by step, its discriminator and its divergence against the truth, and rings of modes."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from probdl import data
from probdl.divergences import js
from probdl.errors import ConvergenceWarning
from probdl.loops.run import apart
from probdl.models import GAN
from probdl.models.adversarial.f_losses import KINDS, critic_loss, generator_loss


def line(weight, bias):
    """An affine map of one number."""
    layer = nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


def normals(n, mean=0.0, seed=0, columns=1):
    g = torch.Generator().manual_seed(seed)
    return mean + torch.randn(n, columns, generator=g, dtype=torch.float64)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


class Momentum:
    """Stochastic gradient descent with momentum, in numbers."""

    def __init__(self, rate, *values, momentum=0.9):
        self.rate, self.momentum = rate, momentum
        self.values, self.speed = np.array(values), np.zeros(len(values))

    def step(self, *gradient):
        self.speed = self.momentum * self.speed + np.array(gradient)
        self.values = self.values - self.rate * self.speed


def algorithm_1(x, seed, steps, k, saturating, penalty):
    """The course's algorithm 1 for D(x) = σ(ax + b), G(z) = wz + m, with every gradient by hand."""
    noise = torch.Generator().manual_seed(apart(seed, 1))
    d, g = Momentum(0.05, 0.5, -0.1), Momentum(0.02, 0.7, 0.3)

    def draw():
        return torch.randn(len(x), 1, generator=noise, dtype=torch.float64).numpy()[:, 0]

    for _ in range(steps):
        for _ in range(k):
            (a, b), (w, m) = d.values, g.values
            f = w * draw() + m
            real, fake = sigmoid(-(a * x + b)), sigmoid(a * f + b)  # 1 − D(x) and D(G(z))
            d.step((fake * f).mean() - (real * x).mean() + penalty * a, fake.mean() - real.mean())
        (a, b), (w, m) = d.values, g.values
        z = draw()
        share = sigmoid(a * (w * z + m) + b)
        share = -share if saturating else share - 1
        g.step((share * a * z).mean(), (share * a).mean())
    return d.values, g.values


@pytest.mark.parametrize(
    ("k", "saturating", "penalty"), [(1, True, 0.0), (3, True, 0.0), (1, False, 0.0), (2, False, 0.7)]
)
def test_the_steps_are_those_of_algorithm_1(k, saturating, penalty):
    x = normals(50, 2.0)
    gan = GAN.algorithm_1(
        1, critic_steps=k, saturating=saturating, penalty=penalty, learning_rates=(0.05, 0.02), standardise="none",
        critic=line(0.5, -0.1), generator=line(0.7, 0.3), dtype=torch.float64,
    )  # fmt: skip
    gan.fit(x, steps=20, batch_size=50, validation=None, seed=3, device="cpu", progress=False)
    d, g = algorithm_1(x.numpy()[:, 0], 3, 20, k, saturating, penalty)
    found = [torch.cat([p.flatten() for p in net.parameters()]).tolist() for net in (gan.critic, gan.generator)]
    np.testing.assert_allclose(found, [d, g], rtol=1e-12)


def test_algorithm_1_is_the_paper_s_unless_changed():
    gan = GAN.algorithm_1(3)
    said = {name: getattr(gan, name) for name in GAN.SETTINGS}
    assert said == {
        "latent_dim": 3, "loss": "js", "saturating": True, "penalty": 0.0, "critic_steps": 1, "optimiser": "momentum",
        "learning_rates": (0.01, 0.01), "decay": False, "ema": None, "hidden": None, "standardise": "auto",
    }  # fmt: skip
    assert GAN.algorithm_1(3, saturating=False).saturating is False


def frozen(shift, **settings):
    """A GAN whose generator stays at N(0, 1), fitted to N(shift, 1)."""
    gan = GAN(1, generator=line(1.0, 0.0), hidden=(32,), learning_rates=(5e-3, 1e-12), standardise="none",
              dtype=torch.float64, ema=None, **settings)  # fmt: skip
    return gan.fit(normals(20_000, shift), steps=300, batch_size=512, validation=None, progress=False)


@pytest.mark.parametrize("loss", KINDS)
def test_the_discriminator_is_p_over_p_plus_q(loss, device):
    gan = frozen(0.8, loss=loss, penalty=0.0)
    x = torch.linspace(-1.5, 2.3, 41, dtype=torch.float64)[:, None]
    truth = torch.sigmoid(0.8 * x[:, 0] - 0.32)  # from .18 to .82
    found = gan.discriminator(x)
    assert found.shape == (41,)
    assert (found - truth).abs().max() < 0.07
    assert gan.history[f"critic_{loss}"].iloc[-1] == pytest.approx(
        {
            "js": js(Normal(0.8, 1.0), Normal(0.0, 1.0)).value,
            "kl": 0.32,
            "reverse_kl": 0.32,
            "pearson": math.expm1(0.64),
        }[loss],
        rel=0.15,
    )


# The bounds E_P a(V) + E_Q b(V) of Nowozin, Cseke and Tomioka (2016), tables 2 and 6, in our parametrisation of V.
BOUNDS = {
    "js": (lambda v: np.log(2 * sigmoid(v)), lambda v: np.log(2 * sigmoid(-v))),
    "kl": (lambda v: v, lambda v: 1 - np.exp(v)),
    "reverse_kl": (lambda v: 1 - np.exp(-v), lambda v: -v),
    "pearson": (lambda v: v, lambda v: -v - v**2 / 4),
}


@pytest.mark.parametrize("loss", KINDS)
def test_the_players_losses_are_those_of_the_f_gan(loss):
    first, second = BOUNDS[loss]
    p, q = normals(7)[:, 0], normals(9, seed=1)[:, 0]
    bound = first(p.numpy()).mean() + second(q.numpy()).mean()
    assert critic_loss(p, q, loss).item() == pytest.approx(-bound, rel=1e-12)
    assert generator_loss(q, loss, saturating=True).item() == pytest.approx(second(q.numpy()).mean(), rel=1e-12)
    assert generator_loss(q, loss, saturating=False).item() == pytest.approx(-first(q.numpy()).mean(), rel=1e-12)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_the_divergence_is_the_jensen_shannon_divergence_by_quadrature(shift):
    gan = frozen(shift)
    truth = js(Normal(0.0, 1.0), Normal(shift, 1.0), method="quadrature").value
    estimate = gan.divergence(normals(4000, shift, seed=5), draws=4000)
    assert estimate.target == "lower bound"
    assert estimate.notes[0] == "4000 fresh samples"
    # A lower bound (5 standard errors: false alarm 3e-7) that is near.
    assert truth - 0.01 - 5 * estimate.stderr < estimate.value < truth + 5 * estimate.stderr
    assert 0.002 < estimate.stderr < 0.02


GAMES = [("js", False), ("js", True), ("kl", False), ("kl", True), ("reverse_kl", True), ("pearson", False)]


@pytest.mark.parametrize(("loss", "saturating"), GAMES)
def test_every_divergence_leads_the_generator_to_the_law(loss, saturating, device):
    gan = GAN(1, loss=loss, saturating=saturating, hidden=(16,), generator=line(1.0, 0.0), critic_steps=2, penalty=0.2,
              learning_rates=(0.02, 0.01), ema=0.95, standardise="none", dtype=torch.float64)  # fmt: skip
    gan.fit(1 + 0.5 * normals(2000), steps=300, validation=None, device=device, progress=False)
    x = gan.sample(5000)
    assert x.mean().item() == pytest.approx(1, abs=0.15)
    assert x.std().item() == pytest.approx(0.5, abs=0.15)


def test_the_default_finds_all_modes_of_a_ring(device):
    law = data.ring(sigma=0.05)
    gan = GAN(2, hidden=(64, 64), learning_rates=(2e-3, 1e-3), ema=0.99)
    gan.fit(data.draws(law, 5000), steps=1500, device=device, progress=False)
    coverage = data.mode_coverage(gan.sample(2500), law)
    assert coverage.populated == 8
    assert coverage.good.value > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "steps", "batch", "good"), [("ring", 20_000, 128, 0.9), ("grid", 12_000, 256, 0.65)])
def test_the_default_reaches_the_modes_of_the_literature(name, steps, batch, good, seed):
    """8 and 25 modes with at least a fifth of their share each, and the draws within 3 σ."""
    law = getattr(data, name)()
    gan = GAN(2).fit(data.draws(law, 20_000 if name == "ring" else 50_000, seed=seed), steps=steps, batch_size=batch,
                     seed=seed, progress=False)  # fmt: skip
    coverage = data.mode_coverage(gan.sample(2500, seed=1), law)
    assert coverage.populated == coverage.modes
    assert coverage.good.value >= good


def test_the_fit_ends_with_the_latest_of_the_best_states(monkeypatch):
    """The rule of ``Trace``: of energies within the noise of the smallest, the last; what is worse is not taken."""
    from probdl.models.adversarial import duelling

    energies = iter([3.0, 1.0, 0.25, 0.3125, 2.0, 0.28125, 1.0])
    weights = []

    def energy(x, y):
        weights.append(gan.generator.network.weight.item())
        return torch.tensor(next(energies))

    monkeypatch.setattr(duelling, "noise_of_energy", lambda *_: 0.1)
    monkeypatch.setattr(duelling, "energy_loss", energy)
    gan = GAN(1, generator=line(0.1, 0.0), ema=None, dtype=torch.float64)
    gan.fit(normals(100), steps=7, progress=False)
    assert gan.generator.network.weight.item() == weights[5]
    assert gan.history.validation.tolist() == [3.0, 1.0, 0.25, 0.3125, 2.0, 0.28125, 1.0]


def test_the_noise_of_the_energy_distance_is_its_spread_under_equality():
    from probdl.divergences import energy_loss
    from probdl.models.adversarial.trace import noise_of_energy

    def null(k):
        g = torch.Generator().manual_seed(k)
        return energy_loss(*(torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (150, 400)))

    spread = torch.stack([null(k) for k in range(400)]).std().item()
    claims = [noise_of_energy(normals(150, seed=k, columns=2), 150, 400) / 2 for k in range(20)]
    # The spread's own relative error is about 5 % (400 draws of a skewed law), that of the mean claim the same.
    assert np.mean(claims) == pytest.approx(spread, rel=0.25)


def test_a_discriminator_that_is_sure_of_every_row_is_a_diagnosis():
    def fit(**settings):
        gan = GAN(1, generator=line(0.1, 0.0), penalty=0.0, learning_rates=(0.02, 1e-12), decay=False, **settings)
        return gan.fit(torch.cat([normals(500, -50), normals(500, 50)]), steps=150, validation=None, progress=False)

    with pytest.warns(ConvergenceWarning, match=r"sure of every row .* try saturating=False, a larger penalty="):
        gan = fit(saturating=True)
    assert "sure of every row" in gan.message
    assert gan.history.critic_real.iloc[-1] > 0.99
    assert gan.history.critic_fake.iloc[-1] < 0.01
    with pytest.warns(ConvergenceWarning, match=r"try a larger penalty="):
        fit(saturating=False)


def test_a_game_in_balance_gives_no_warning_nor_does_a_discriminator_that_takes_all_for_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gan = GAN(1, hidden=(8,)).fit(normals(200), steps=30, progress=False)
        gan.history.loc[gan.history.index[-1], ["critic_real", "critic_fake"]] = 0.999
        gan._warn_if_sure()
    assert "sure" not in gan.message


def test_the_penalty_grows_with_the_entries_of_a_row():
    def sample(**how):
        return GAN(2, hidden=(8,), **how).fit(normals(100, columns=6), steps=20, progress=False).sample(5)

    assert torch.equal(sample(), sample(penalty=0.05 * 6))
    assert not torch.equal(sample(), sample(penalty=0.05))
