"""Generators without a critic: their loss is the divergence of a batch, and they reach the law."""

import pytest
import torch
from torch import nn

from probdl.divergences import RBF, energy, mmd2_loss, sliced_wasserstein_loss
from probdl.loops.run import apart
from probdl.models import GMMN, SlicedWassersteinGenerator
from probdl.models.adversarial.matching import BANDWIDTHS

MODELS = {"gmmn": GMMN, "sliced": SlicedWassersteinGenerator}


def curve(n, seed=0):
    """Rows along a noisy parabola, in units of their own."""
    g = torch.Generator().manual_seed(seed)
    t = torch.randn(n, 1, generator=g, dtype=torch.float64)
    return torch.cat([5 + t, 100 * t**2], 1) + torch.tensor([0.1, 10.0]) * torch.randn(n, 2, generator=g).double()


@pytest.mark.parametrize("name", MODELS)
def test_samples_come_close_to_held_out_rows(name, device):
    model = MODELS[name](2, hidden=(32, 32), learning_rate=5e-3)
    model.fit(curve(3000), steps=250, device=device, progress=False)
    held, scale = curve(1000, seed=1), torch.tensor([1.0, 150.0])
    made, far = (float(energy(held / scale, rows / scale)) for rows in (model.sample(1000).double(), held.roll(1, 1)))
    normal = held.mean(0) + torch.randn(1000, 2, generator=torch.Generator().manual_seed(2)).double() * held.std(0)
    assert made < 0.25 * float(energy(held / scale, normal / scale)) < far
    estimate = model.divergence(held)
    assert estimate.n is not None
    assert "1000 fresh samples" in estimate.notes


def still():
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return layer


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_divergence_of_standardised_batches(name):
    x = curve(80)
    model = MODELS[name](2, generator=still(), dtype=torch.float64)
    made, real = [], model._fakes

    def fakes(batch, noise):
        made.append(real(batch, noise))
        return made[-1]

    model._fakes = fakes
    model.fit(x, steps=1, batch_size=80, validation=None, seed=3, device="cpu", progress=False)
    u = (x - x.mean(0)) / x.std(0, correction=0)
    noise = torch.Generator().manual_seed(apart(3, 1))
    z = torch.randn(80, 2, generator=noise, dtype=torch.float64)
    torch.testing.assert_close(made[0].detach(), z)
    if name == "gmmn":
        median = torch.nn.functional.pdist(u).median().item()
        assert model.bandwidth == pytest.approx(median, rel=1e-6)
        truth = mmd2_loss(u, z, RBF([median * b for b in BANDWIDTHS]))
        assert BANDWIDTHS == (0.125, 0.25, 0.5, 1.0, 2.0)
    else:
        seed = int(torch.randint(2**31, (), generator=noise))
        truth = sliced_wasserstein_loss(u, z, directions=100, seed=seed)
    assert model.history.loss.iloc[0] == pytest.approx(truth.item(), rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_it_stops_early_and_ends_with_the_best_held_out_divergence(name):
    model = MODELS[name](2, hidden=(8,), patience=2, learning_rate=0.05).fit(curve(100), epochs=400, progress=False)
    best = int(model.history.validation.idxmin())
    assert "stopped early" in model.message
    assert len(model.history) == best + 3 < 400


def test_the_held_out_loss_is_computed_with_the_same_noise_and_directions_each_time():
    model = SlicedWassersteinGenerator(2, generator=still(), learning_rate=1e-12, ema=None, dtype=torch.float64)
    history = model.fit(curve(100), epochs=4, progress=False).history
    assert history.validation.std() < 1e-9
    assert history.loss.std() > 1e-4
