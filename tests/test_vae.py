"""The VAE against models whose likelihood is known, and what a fit leaves behind."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import probdl
from probdl.families import MeanFieldNormal, standard_normal_kl
from probdl.models import VAE
from probdl.models.elbo import importance_estimate
from probdl.nn import MLP, seeded


def digits():
    """The first 1500 digits in a fixed random order, 8 × 8, between 0 and 1."""
    x = load_digits().images[:, None] / 16
    return torch.tensor(x[np.random.RandomState(0).permutation(len(x))][:1500])


def curve(n, seed=0):
    """Rows of three columns along a noisy curve."""
    g = torch.Generator().manual_seed(seed)
    t = torch.randn(n, 1, generator=g, dtype=torch.float64)
    return torch.cat([t, t**2, t.sin()], 1) + 0.2 * torch.randn(n, 3, generator=g, dtype=torch.float64)


def linear_vae(shape, q, **settings):
    with seeded(0):
        nets = {"encoder": MLP(shape, 2 * q, hidden=()), "decoder": MLP(q, shape, hidden=())}
    return VAE(q, "gaussian", **nets, decay=True, dtype=torch.float64, **settings)


def exact_marginal(vae):
    """N(c (b + m), c² (W Wᵀ + σ² I)) of a VAE with an affine decoder and one scale for all columns."""
    eye = torch.eye(vae.latent_dim, dtype=torch.float64, device=vae.sigma.device)
    with torch.no_grad():
        b = vae.decoder.network(0 * eye[:1]).flatten(1)
        w = (vae.decoder.network(eye).flatten(1) - b).T
    c, m = vae.units.scale, vae.units.shift
    noise = vae.sigma**2 * torch.eye(len(w), dtype=torch.float64, device=w.device)
    return MultivariateNormal(c * b[0] + m, c**2 * w @ w.T + noise)


@pytest.fixture(scope="module")
def digits_vae(device):
    return linear_vae((1, 8, 8), 2, learning_rate=0.03).fit(
        digits(), epochs=250, batch_size=500, validation=None, device=device, progress=False
    )


@pytest.fixture(scope="module")
def curve_vae(device):
    vae = VAE(1, hidden=(32,), learning_rate=5e-3, dtype=torch.float64)
    return vae.fit(curve(500), epochs=60, device=device, progress=False)


def analytic(x, q):
    """The mean log-likelihood of probabilistic PCA at its maximum, and its noise variance, from the eigenvalues."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T, correction=0)).flip(0)
    variance, d = eigenvalues[q:].mean(), len(eigenvalues)
    logs = eigenvalues[:q].log().sum() + (d - q) * variance.log()
    return -0.5 * (d * math.log(2 * math.pi) + logs + d).item(), variance.item()


def test_a_linear_vae_reaches_the_likelihood_of_probabilistic_pca(digits_vae):
    x = digits()
    best, variance = analytic(x, 2)
    assert best == pytest.approx(0.0020, abs=2e-4)  # published with this split of the data
    marginal = exact_marginal(digits_vae)
    reached = marginal.log_prob(x.flatten(1).to(marginal.mean)).mean().item()
    assert 0 <= best - reached < 0.0013
    assert digits_vae.sigma.item() ** 2 == pytest.approx(variance, rel=0.01)


@pytest.mark.parametrize(("q", "published", "gap"), [(10, 17.5648, 0.026), (20, 27.4401, 0.11)])
def test_a_user_s_linear_vae_reaches_it_too_by_its_likelihood_and_by_its_bound(q, published, gap):
    """Networks, rate and decay are the defaults for ``hidden=()``; float32; at the gaps of Lucas et al. (2019)."""
    x = digits()
    vae = VAE(q, hidden=(), draws=4).fit(x, epochs=250, validation=None, progress=False)
    best, variance = analytic(x.flatten(1), q)
    assert best == pytest.approx(published, abs=2e-4)
    assert vae.sigma.item() ** 2 == pytest.approx(variance, rel=0.01)
    bound = vae.elbo(x, draws=50)
    likelihood = exact_marginal(vae.double()).log_prob(x.flatten(1)).mean().item()
    assert 0 <= best - likelihood < gap
    error = (bound.stderr.square().sum().sqrt() / len(x)).item()
    # The bound has a Monte Carlo error of .008 to .012, four of which are allowed.
    assert best - bound.value.mean().item() < gap + 4 * error


def test_importance_weighting_finds_the_exact_gaussian_marginal(digits_vae):
    x = digits()[:400]
    marginal = exact_marginal(digits_vae)
    exact = marginal.log_prob(x.flatten(1).to(marginal.mean)).cpu()
    estimate = digits_vae.log_likelihood(x, draws=200)
    z = (estimate.value - exact) / estimate.stderr
    # 400 rows: P(|mean z| > .25) < 1e-5 for standard normal z; the encoder is close to the posterior, so it holds.
    assert abs(z.mean()) < 0.25
    assert 0.8 < z.std() < 1.2  # 1 ± 5.6 standard errors
    assert estimate.value.shape == estimate.stderr.shape == (400,)


def test_the_bound_is_below_the_likelihood_by_the_kl_to_the_exact_posterior(digits_vae):
    x = digits()[:300]
    marginal = exact_marginal(digits_vae)
    gap = marginal.log_prob(x.flatten(1).to(marginal.mean)).cpu() - digits_vae.elbo(x, draws=500).value
    u = (x.to(marginal.mean) - digits_vae.units.shift) / digits_vae.units.scale
    with torch.no_grad():
        q = digits_vae.encoder(u)
        b = digits_vae.decoder.network(torch.zeros(1, 2).to(u)).flatten(1)
        w = (digits_vae.decoder.network(torch.eye(2).to(u)).flatten(1) - b).T
        precision = torch.eye(2).to(u) + w.T @ w / digits_vae.decoder.variance
        mean = torch.linalg.solve(precision, w.T @ (u.flatten(1) - b).T / digits_vae.decoder.variance).T
        full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
        kl = kl_divergence(full, MultivariateNormal(mean, precision_matrix=precision)).cpu()
    se = digits_vae.elbo(x, draws=500).stderr
    # 300 rows, each normal with this error: P(some |z| > 5) < 2e-4.
    assert ((gap - kl).abs() < 5 * se + 1e-9).all()
    assert gap.mean() > 0


def test_importance_weighting_finds_the_integral_over_z_of_a_network(curve_vae):
    x = curve(50, seed=1)
    z = torch.linspace(-9, 9, 6001, dtype=torch.float64, device=curve_vae.sigma.device)[:, None]
    u = (x.to(z) - curve_vae.units.shift) / curve_vae.units.scale
    with torch.no_grad():
        p = Normal(curve_vae.decoder.network(z), curve_vae.decoder.variance.sqrt())
        joint = p.log_prob(u[:, None]).sum(-1) + Normal(0, 1).log_prob(z[:, 0])
    exact = (joint.logsumexp(1) + math.log(18 / 6000) - curve_vae.units.scale.log().sum()).cpu()
    estimate = curve_vae.log_likelihood(x, draws=5000)
    assert ((estimate.value - exact).abs() < 5 * estimate.stderr + 1e-3).float().mean() > 0.95
    assert (estimate.value - exact).mean().abs() < 0.02


def test_the_standard_error_is_the_spread_over_seeds(curve_vae):
    x = curve(40, seed=2)
    runs = [curve_vae.log_likelihood(x, draws=200, seed=s) for s in range(60)]
    spread = torch.stack([r.value for r in runs]).std(0)
    claimed = torch.stack([r.stderr for r in runs]).square().mean(0).sqrt()
    # The median over 40 rows of a ratio whose own relative error is 1/√120 = 9 %.
    assert 0.85 < (spread / claimed).median() < 1.15


def test_the_standard_error_is_the_delta_method_s_and_few_effective_draws_are_counted():
    w = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w[0, 2] = 1e6  # one draw carries the third row
    estimate = importance_estimate(w.log(), 2.0)
    torch.testing.assert_close(estimate.value, w.mean(0).log() + 2)
    torch.testing.assert_close(estimate.stderr, w.std(0) / (w.mean(0) * 50**0.5))
    assert "smallest 1.0" in estimate.notes[0]
    assert estimate.notes[-1].startswith("1 of 3 rows have few effective draws")


def test_held_out_bound_is_at_most_the_held_out_likelihood(curve_vae):
    x = curve(200, seed=3)
    bound, likelihood = curve_vae.elbo(x), curve_vae.log_likelihood(x)
    assert (bound.value - 5 * bound.stderr <= likelihood.value + 5 * likelihood.stderr).all()
    assert bound.value.mean() < likelihood.value.mean()
    assert likelihood.target == bound.target == "lower bound"
    assert any("mean over 200 rows" in note for note in likelihood.notes)


def test_more_draws_raise_the_importance_weighted_bound(curve_vae):
    x = curve(200, seed=4)
    few, many = (curve_vae.log_likelihood(x, draws=k).value.mean() for k in (2, 500))
    assert curve_vae.elbo(x).value.mean() < few < many


def test_the_gaussian_kl_is_torch_s(device, dtype):
    q = MeanFieldNormal(MLP(3, 8)).to(device, dtype)(torch.randn(7, 3, dtype=dtype, device=device))
    p = Independent(Normal(torch.zeros(4).to(q.mean), torch.ones(4).to(q.mean)), 1)
    torch.testing.assert_close(standard_normal_kl(q), kl_divergence(q, p))


def test_rescaling_the_columns_changes_the_log_likelihood_by_the_jacobian(device):
    x, factor = curve(200), torch.tensor([1024.0, 0.5, 2.0**-20], dtype=torch.float64)  # powers of two: no rounding
    fits = [VAE(1, hidden=(16,), dtype=torch.float64) for _ in range(2)]
    plain, scaled = (vae.fit(data, epochs=3, device=device, progress=False) for vae, data in zip(fits, (x, x * factor)))
    shift = -factor.log().sum()
    torch.testing.assert_close(scaled.log_likelihood(x * factor).value, plain.log_likelihood(x).value + shift)
    torch.testing.assert_close(scaled.elbo(x * factor).value, plain.elbo(x).value + shift)
    np.testing.assert_allclose(scaled.history.validation, plain.history.validation + shift.neg().item())
    torch.testing.assert_close(scaled.reconstruct(x * factor), plain.reconstruct(x) * factor)
    torch.testing.assert_close(scaled.sigma.cpu(), plain.sigma.cpu() * factor)


def test_images_keep_their_contrast_and_their_constant_pixels():
    images = digits()[:100]
    assert (images.amax(0) == images.amin(0)).any()
    vae = VAE(2).fit(images, epochs=1, progress=False)
    assert vae.units.scale.ndim == 0
    with pytest.raises(ValueError, match=r"x must vary in every column; constant .*standardise='shared'"):
        VAE(2).fit(images.flatten(1), epochs=1, progress=False)
    table = VAE(2, standardise="shared").fit(images.flatten(1), epochs=1, validation=None, progress=False)
    assert table.sigma.item() > 0


def test_the_scale_is_the_maximum_likelihood_given_the_training_rows(device):
    vae = VAE(1, hidden=(16,), dtype=torch.float64).fit(
        curve(300), epochs=2, batch_size=1, validation=None, device=device, progress=False
    )
    u, g = vae._inward(curve(300)), torch.Generator(device).manual_seed(9)
    with torch.no_grad():
        means = torch.stack([vae.decoder(vae.encoder.draw(u, g)).mean for _ in range(300)])
    squares = (means - u).square().mean((1, 2))
    # The fit took 17 draws for each row, this test 300: both errors count, six of them are allowed.
    error = squares.std() * math.sqrt(1 / 17 + 1 / 300)
    assert abs(vae.decoder.variance - squares.mean()) < 6 * error
    assert error / squares.mean() < 0.01


def test_samples_have_the_mean_and_the_covariance_of_the_model(digits_vae):
    n, marginal = 20_000, exact_marginal(digits_vae)
    rows = digits_vae.sample(n).flatten(1)
    cov = marginal.covariance_matrix.cpu()
    error = (cov.diag().outer(cov.diag()) + cov.square()).div(n).sqrt()
    # 64 + 2080 entries, normal errors: P(some |z| > 6) < 1e-5.
    assert ((torch.cov(rows.T) - cov).abs() < 6 * error).all()
    assert ((rows.mean(0) - marginal.mean.cpu()).abs() < 6 * (cov.diag() / n).sqrt()).all()
    means = digits_vae.sample(n, mean=True).flatten(1)
    signal = cov - digits_vae.sigma.cpu() ** 2 * torch.eye(64)
    assert ((torch.cov(means.T) - signal).abs() < 6 * error).all()


def test_binary_data_reach_the_entropy_of_their_source(device):
    g = torch.Generator().manual_seed(0)
    templates = torch.tensor([[1.0] * 6 + [0.0] * 6, [0.0] * 6 + [1.0] * 6], dtype=torch.float64)
    which = torch.randint(2, (4000,), generator=g)
    x = (templates[which] - (torch.rand(4000, 12, generator=g) < 0.1).double()).abs()
    flips = torch.stack([(x - t).abs().sum(1) for t in templates])
    truth = (flips * math.log(0.1) + (12 - flips) * math.log(0.9)).logsumexp(0) - math.log(2)
    vae = VAE(1, hidden=(32, 32), learning_rate=0.01, decay=True)
    vae.fit(x[:3000], steps=1200, device=device, progress=False)
    assert vae.message.startswith("bernoulli")
    difference = truth[3000:] - vae.log_likelihood(x[3000:]).value
    se = difference.std() / math.sqrt(1000)
    # No model beats the source by more than chance (one-sided 5 standard errors), and this one is near it.
    assert -5 * se < difference.mean() < 0.15
    assert set(vae.sample(50).unique().tolist()) == {0.0, 1.0}
    assert 0 < vae.reconstruct(x).min() <= vae.reconstruct(x).max() < 1


def test_grey_values_get_a_gaussian_likelihood_and_zeros_and_ones_a_bernoulli():
    grey = digits()[:60]
    for x, name in ((grey, "gaussian"), ((grey > 0.5).double(), "bernoulli")):
        assert VAE(2).fit(x, epochs=1, progress=False).message.startswith(name)


def test_several_draws_lower_the_noise_of_the_loss(device):
    vae = VAE(1, hidden=(8,), dtype=torch.float64).fit(curve(64), epochs=1, device=device, progress=False)
    loss, u, spread = vae._loss(), vae._inward(curve(64)), {}
    for vae.draws in (1, 16):
        g = torch.Generator(u.device).manual_seed(0)
        spread[vae.draws] = torch.stack([loss((u,), g)[0].detach() for _ in range(400)]).std().item()
    # 400 losses each: the ratio has a relative error of 5 %.
    assert spread[1] / spread[16] == pytest.approx(4, rel=0.2)


def test_early_stopping_returns_to_the_best_epoch():
    vae = VAE(1, hidden=(16,), learning_rate=0.05, patience=4)
    history = vae.fit(curve(100), epochs=500, validation=0.3, progress=False).history
    best = int(history.validation.argmin())
    assert len(history) == best + 1 + 4 < 500
    assert f"has the state of epoch {best + 1}" in vae.message


def test_the_default_fit_of_the_digits_beats_probabilistic_pca_on_held_out_rows():
    x = digits()
    vae = VAE(2, hidden=(16, 32)).fit(x[:1300], epochs=30, progress=False)
    pca = linear_vae((1, 8, 8), 2, learning_rate=0.03).fit(
        x[:1300], epochs=60, batch_size=500, validation=None, progress=False
    )
    linear = exact_marginal(pca).log_prob(x[1300:].flatten(1)).mean()
    assert vae.log_likelihood(x[1300:]).value.mean() > linear + 3
    assert probdl.models.VAE is VAE
