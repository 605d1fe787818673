"""Losses for training: the value of the estimators, with right and finite gradients."""

import pytest
import torch

from probdl.divergences import RBF, energy, energy_loss, mmd2, mmd2_loss


def batch(n, d, seed, dtype=torch.float64, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=dtype).to(device).requires_grad_()


@pytest.mark.parametrize("d", [1, 3, 30])
def test_the_losses_are_the_estimates(d, device):
    x, y = batch(20, d, 1, device=device), batch(15, d, 2, device=device)
    assert mmd2_loss(x, y, RBF(2.0)).item() == pytest.approx(mmd2(x, y, RBF(2.0)).value, abs=1e-12)
    assert energy_loss(x, y).item() == pytest.approx(energy(x, y).value, abs=1e-12)
    assert mmd2_loss(x, y).item() == pytest.approx(mmd2(x, y).value, abs=1e-12)


@pytest.mark.parametrize("d", [1, 3, 20])
@pytest.mark.parametrize("loss", [energy_loss, lambda x, y: mmd2_loss(x, y, RBF((0.5, 2.0)))], ids=["energy", "mmd2"])
def test_gradients_are_those_of_finite_differences(loss, d):
    assert torch.autograd.gradcheck(loss, (batch(4, d, 1), batch(3, d, 2)))


@pytest.mark.parametrize("loss", [energy_loss, mmd2_loss], ids=lambda f: f.__name__)
def test_gradients_are_finite_at_identical_draws(loss, dtype, device):
    for x in (batch(6, 2, 1, dtype, device), torch.ones(6, 2, dtype=dtype, device=device, requires_grad=True)):
        y = x.detach().clone().requires_grad_()
        loss(x, y).backward()
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(y.grad).all()


def test_dtype_and_device_are_those_of_the_batch(dtype, device):
    x, y = batch(5, 2, 1, dtype, device), batch(5, 2, 2, dtype, device)
    for loss in (energy_loss, mmd2_loss):
        assert (loss(x, y).dtype, loss(x, y).device, loss(x, y).shape) == (dtype, x.device, ())


def test_float32_keeps_its_digits_far_from_the_origin():
    x, y = batch(50, 3, 1), batch(50, 3, 2)
    near = energy_loss(x, y).item()
    far = energy_loss((x + 1000).float(), (y + 1000).float()).item()
    assert far == pytest.approx(near, abs=2e-4)  # what rounding the data itself to float32 costs


@pytest.mark.parametrize("loss", [energy_loss, mmd2_loss], ids=lambda f: f.__name__)
def test_descent_moves_one_sample_onto_the_other(loss):
    x, y = batch(40, 1, 1), batch(40, 1, 2).detach() + 2
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        loss(x.detach() + shift, y).backward()
        optimiser.step()
    assert abs(shift.item() - (y.mean() - x.mean()).item()) < 0.25


def test_images_are_flattened():
    x, y = batch(6, 12, 1), batch(5, 12, 2)
    assert energy_loss(x.reshape(6, 1, 3, 4), y.reshape(5, 1, 3, 4)).item() == energy_loss(x, y).item()


def test_bad_batches_are_refused():
    x = torch.zeros(5, 2)
    with pytest.raises(TypeError, match="x must be a floating tensor"):
        energy_loss([[1.0]], x)
    with pytest.raises(TypeError, match="y must be a floating tensor.*int64"):
        mmd2_loss(x, torch.zeros(5, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"y must hold at least 2 draws, shape \(n, d\); got \(1, 2\)"):
        energy_loss(x, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="as many columns; got 2 and 3"):
        mmd2_loss(x, torch.zeros(5, 3))
