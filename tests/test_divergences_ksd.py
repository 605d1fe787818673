"""The kernel Stein discrepancy against its value on paper and against autograd."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Independent, Laplace, MultivariateNormal, Normal, Poisson

import probdl
from probdl.divergences import RBF, InverseMultiquadratic, ksd2, stein

KERNELS = [RBF(0.8), RBF((0.5, 2.0)), InverseMultiquadratic(1.3), InverseMultiquadratic([0.5, 3.0])]


def normals(n, d, seed, shift=0.0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[:, 0] += shift
    return x.to(device)


def standard(d):
    return probdl.LogDensity(lambda x: -x.square().sum(1) / 2, dim=d)


def by_autograd(kernel, target, x, y):
    """u(x, y) of two points, as it is written."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    (s,) = torch.autograd.grad(target(x[None]).sum(), x)
    (t,) = torch.autograd.grad(target(y[None]).sum(), y)
    scaled = (x - y).square().sum() / torch.tensor(kernel.bandwidths, dtype=torch.float64) ** 2
    k = ((-scaled / 2).exp() if isinstance(kernel, RBF) else (1 + scaled) ** -0.5).mean()
    assert kernel(x[None].detach(), y[None].detach()).item() == pytest.approx(k.item(), abs=1e-14)
    gx, gy = torch.autograd.grad(k, (x, y), create_graph=True)
    trace = sum(torch.autograd.grad(gx[i], y, retain_graph=True)[0][i] for i in range(len(x)))
    return (k * (s @ t) + s @ gy + t @ gx + trace).item()


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_the_stein_kernel_is_that_of_autograd(kernel):
    x, y = normals(4, 3, 1), normals(3, 3, 2)
    target = probdl.LogDensity(lambda z: -(z**4).sum(1) / 4 + z[:, 0] * z[:, 1], dim=3)
    gram = stein.stein_gram(kernel, x, y, stein.score(target, x), stein.score(target, y))
    truth = [[by_autograd(kernel, target, a, b) for b in y] for a in x]
    assert torch.allclose(gram, torch.tensor(truth, dtype=torch.float64), atol=1e-11)


@pytest.mark.parametrize("ell", [0.5, 1.0, 3.0])
def test_a_shifted_normal_gives_the_value_on_paper(ell, device):
    m = 1.5
    estimate = ksd2(normals(3000, 1, 4, m, device=device), standard(1), RBF(ell))
    truth = m**2 * math.sqrt(ell**2 / (ell**2 + 2))
    assert abs(estimate.value - truth) < 4 * estimate.stderr  # false alarms: 1 in 15,000
    assert estimate.stderr < 0.05 * truth
    assert (estimate.method, estimate.target, estimate.n) == ("u-statistic", "population", 3000)


@pytest.mark.parametrize("d", [1, 5])
def test_intervals_cover_the_population_value(d):
    m, ell = 1.0, 2.0
    truth = m**2 * (ell**2 / (ell**2 + 2)) ** (d / 2)
    estimates = [ksd2(normals(200, d, s, m), standard(d), RBF(ell)) for s in range(300)]
    with_error = [e for e in estimates if e.stderr is not None]
    assert len(with_error) > 295
    covered = np.mean([e.interval()[0] < truth < e.interval()[1] for e in with_error])
    assert 0.9 < covered < 0.985  # if the truth is .95: false alarms below 1 in 200


def test_it_is_unbiased_and_withholds_the_interval_where_the_draws_are_the_targets():
    estimates = [ksd2(normals(100, 2, s), standard(2)) for s in range(200)]
    values = np.array([e.value for e in estimates])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)  # false alarms: 1 in 15,000
    assert (values < 0).any()
    assert np.mean([e.stderr is None for e in estimates]) > 0.95
    assert "near equality the estimator is not normal" in " ".join(estimates[0].notes)


def test_the_normaliser_plays_no_part():
    x = normals(200, 2, 1, 0.5)
    law = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    shifted = probdl.LogDensity(lambda z: 17 - z.square().sum(1) / 2, dim=2)
    assert ksd2(x, shifted).value == pytest.approx(ksd2(x, law).value, abs=1e-12)


def test_it_needs_memory_for_tiles_only_and_tiles_do_not_matter(monkeypatch):
    x = normals(700, 2, 1, 0.5)
    whole = ksd2(x, standard(2), RBF(1.0))
    monkeypatch.setattr("probdl.divergences.kernels.TILE", 128)
    tiled = ksd2(x, standard(2), RBF(1.0))
    assert tiled.value == pytest.approx(whole.value, abs=1e-12)
    assert tiled.stderr == pytest.approx(whole.stderr, abs=1e-12)


def test_weights_make_draws_of_one_law_into_draws_of_another():
    x = normals(4000, 1, 1)
    shifted = probdl.LogDensity(lambda z: -((z[:, 0] - 0.5) ** 2) / 2, 1)
    assert abs(ksd2(probdl.Draws(x, torch.exp(0.5 * x[:, 0])), shifted).value) < 0.01
    assert ksd2(x, shifted).value > 0.1
    equal = ksd2(probdl.Draws(x[:300], np.ones(300)), standard(1))
    assert equal.value == pytest.approx(ksd2(x[:300], standard(1)).value, abs=1e-12)


def test_distributions_stand_on_either_side():
    p = Independent(Laplace(torch.zeros(3), 1.0), 1)
    estimate = ksd2(p, MultivariateNormal(torch.zeros(3), torch.eye(3)), n=1000)
    assert estimate.interval()[0] > 0
    assert estimate.n == 1000
    assert "1000 draws were taken" in estimate.notes[0]
    assert "inverse multiquadratic of bandwidth" in estimate.notes[1]


def test_float32_draws_are_computed_in_float64():
    x = normals(300, 2, 1, 0.5)
    assert ksd2(x.float(), standard(2), RBF(1.0)).value == pytest.approx(ksd2(x, standard(2), RBF(1.0)).value, abs=1e-6)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, (), (1.0, -1.0), "1"])
def test_a_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be positive and finite; got"):
        InverseMultiquadratic(bandwidth)


def test_bad_input_is_refused():
    x = normals(10, 2, 1)
    with pytest.raises(ValueError, match="draws must hold at least 2 draws"):
        ksd2(x[:1], standard(2), RBF(1.0))
    with pytest.raises(ValueError, match="draws have 2 columns and log_density takes 3"):
        ksd2(x, standard(3))
    with pytest.raises(ValueError, match="draws must be finite; got 1 NaN"):
        ksd2([[math.nan, 0.0], [0.0, 0.0]], standard(2))
    with pytest.raises(TypeError, match="log_density must be a probdl.LogDensity"):
        ksd2(x, lambda z: z.sum(1))
    with pytest.raises(ValueError, match="log_density must be continuous"):
        ksd2(x[:, 0], Poisson(1.0))
    with pytest.raises(ValueError, match="not finite at .* of 10 draws; they may lie off its support"):
        ksd2(x[:, 0], Beta(torch.tensor(2.0), torch.tensor(2.0)))
    with pytest.raises(TypeError, match="kernel must be an RBF or InverseMultiquadratic"):
        ksd2(x, standard(2), lambda a, b: a @ b.T)
    with pytest.raises(ValueError, match="draws is a LogDensity, which gives no draws"):
        ksd2(standard(2), standard(2))
    with pytest.raises(ValueError, match="log_density must be one distribution"):
        ksd2(x, Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="pass kernel=InverseMultiquadratic"):
        ksd2(np.ones((5, 2)), standard(2))
