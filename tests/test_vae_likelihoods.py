"""Likelihoods of a VAE: by column, against integrals over z, and data that they give no probability."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn

from probdl.models import VAE
from probdl.nn import MLP

N = 150
G = torch.Generator().manual_seed(0)
Z = torch.randn(N, generator=G, dtype=torch.float64)
NUMBERS = torch.stack([3 + 2 * Z, -Z, Z**2], 1) + 0.3 * torch.randn(N, 3, generator=G, dtype=torch.float64)
COUNTS = torch.poisson((1 + Z)[:, None].exp() * torch.tensor([1.0, 5.0]), generator=G)
FRAME = pd.DataFrame(
    {
        "age": NUMBERS[:, 0].numpy(),
        "visits": COUNTS[:, 0].int().numpy(),
        "town": np.where(Z > 1, "large", np.where(Z < -1, "small", "middle")),
        "smokes": (Z > 0.5).numpy(),
        "height": NUMBERS[:, 1].numpy(),
        "sex": pd.Categorical(np.where(np.arange(N) % 3 == 0, "f", "m")),
    }
)


def fitted(x, likelihood="auto", epochs=100, **settings):
    how = {"hidden": (8,), "dtype": torch.float64, "learning_rate": 0.01, **settings}
    return VAE(1, likelihood, **how).fit(x, epochs=epochs, validation=None, progress=False)


GRID = np.linspace(-7, 7, 4001)


def outputs(vae):
    """What the decoder's network returns at each z of the grid, an array."""
    with torch.no_grad():
        return vae.decoder.network(torch.tensor(GRID[:, None])).numpy()


def integral(log_p):
    """log ∫ p(x | z) p(z) dz by Simpson's rule, for the logarithms of p(x | z) on the grid."""
    log_joint = log_p + stats.norm.logpdf(GRID)
    return np.log(integrate.simpson(np.exp(log_joint - log_joint.max()), x=GRID)) + log_joint.max()


def poisson(vae, x, a):
    return stats.poisson(vae.decoder.log_rate.exp().numpy() * np.exp(a)).logpmf(x).sum(1)


def categorical(vae, x, a):
    return special.log_softmax(a, 1) @ x


def bernoulli(vae, x, a):
    return stats.bernoulli(special.expit(a)).logpmf(x).sum(1)


def by_column(vae, x, a):
    scale = vae.decoder.variance.sqrt().numpy() * vae.units.scale.numpy()
    return stats.norm(a * vae.units.scale.numpy() + vae.units.shift.numpy(), scale).logpdf(x).sum(1)


def from_network(vae, x, a):
    mean, raw = np.split(a, 2, axis=1)
    scale = np.sqrt(np.log1p(np.exp(raw)) ** 2 + 1e-5) * vae.units.scale.numpy()
    return stats.norm(mean * vae.units.scale.numpy() + vae.units.shift.numpy(), scale).logpdf(x).sum(1)


CASES = {
    "poisson": (COUNTS, "poisson", {}, poisson),
    "categorical": (torch.eye(3).double()[(Z > -0.5).long() + (Z > 0.5).long()], "categorical", {}, categorical),
    "bernoulli": ((NUMBERS > 0).double(), "auto", {}, bernoulli),
    "a scale for each column": (NUMBERS, "gaussian", {"scale": "column"}, by_column),
    "scales from the network": (NUMBERS, "gaussian", {"scale": "network"}, from_network),
}


@pytest.mark.filterwarnings("ignore:Posterior collapse")  # one category alone tells nothing of z
@pytest.mark.parametrize("name", CASES)
def test_the_likelihood_is_the_integral_over_z_that_scipy_finds(name):
    x, likelihood, settings, log_p = CASES[name]
    vae = fitted(x, likelihood, **settings)
    exact = [integral(log_p(vae, row, outputs(vae))) for row in x[:12].numpy()]
    estimate = vae.log_likelihood(x[:12], draws=4000)
    # 12 rows, each with a normal error: P(some |z| > 5) < 1e-5.
    assert ((estimate.value - torch.tensor(exact)).abs() < 5 * estimate.stderr + 1e-6).all()
    assert estimate.stderr.median() < 0.02
    assert vae.message.startswith("bernoulli" if name == "bernoulli" else likelihood)


@pytest.mark.parametrize("scale", ["column", "network"])
def test_a_mixed_table_s_likelihood_is_the_integral_over_z_that_scipy_finds(scale):
    vae = fitted(FRAME, {"visits": "poisson"}, scale=scale)
    assert [i for i, e in enumerate(vae.form.entries) if e in ("age", "smokes", "height")] == [0, 5, 6]
    a, unit, shift = outputs(vae), vae.units.scale.numpy(), vae.units.shift.numpy()
    rate = vae.decoder.heads[2].log_rate.exp().item()
    if scale == "network":  # the raw scales of age and height follow the row
        assert a.shape[1] == 11
        sigma = np.sqrt(np.log1p(np.exp(a[:, 9:])) ** 2 + 1e-5) * unit[[0, 6]]
    else:
        assert vae.sigma.isnan().tolist() == [i not in (0, 6) for i in range(9)]
        sigma = vae.sigma.numpy()[[0, 6]]

    def log_p(row):
        found = stats.norm.logpdf(row[[0, 6]], (a[:, :9] * unit + shift)[:, [0, 6]], sigma).sum(1)
        found += stats.poisson(rate * np.exp(a[:, 1])).logpmf(row[1])
        found += stats.bernoulli(special.expit(a[:, 5])).logpmf(row[5])
        return found + sum(special.log_softmax(a[:, b], 1) @ row[b] for b in (slice(2, 5), slice(7, 9)))

    exact = [integral(log_p(row)) for row in vae.form.check(FRAME[:10]).numpy()]
    estimate = vae.log_likelihood(FRAME[:10], draws=4000)
    assert ((estimate.value - torch.tensor(exact)).abs() < 5 * estimate.stderr + 1e-6).all()
    assert estimate.stderr.median() < 0.02


def test_a_mixed_table_comes_back_with_its_columns_and_what_they_can_hold():
    vae = VAE(2, {"visits": "poisson"}, hidden=(16,), learning_rate=0.01)
    drawn = vae.fit(FRAME, epochs=60, progress=False).sample(2000)
    assert (drawn.dtypes == FRAME.dtypes).all()
    assert drawn.visits.min() >= 0
    for column in ("town", "sex", "smokes"):
        shares, true = (t[column].value_counts(normalize=True).sort_index() for t in (drawn, FRAME))
        np.testing.assert_allclose(shares, true, atol=0.1)
    assert drawn.visits.mean() == pytest.approx(FRAME.visits.mean(), rel=0.25)
    large, small = (drawn[drawn.town == t].age.mean() for t in ("large", "small"))
    assert large - small > 3  # they differ by about 6 in the data
    assert np.corrcoef(vae.encode(FRAME)[:, 0], Z)[0, 1] ** 2 + np.corrcoef(vae.encode(FRAME)[:, 1], Z)[0, 1] ** 2 > 0.5


@pytest.mark.parametrize("likelihood", ["auto", {"visits": "poisson"}, {"visits": "poisson", "sex": "categorical"}])
@pytest.mark.parametrize("scale", ["column", "network"])
def test_a_mixed_model_is_the_same_after_a_file(likelihood, scale, tmp_path):
    vae = fitted(FRAME, likelihood, scale=scale)
    vae.save(tmp_path / "vae")
    again = VAE.load(tmp_path / "vae")
    pd.testing.assert_frame_equal(again.sample(20), vae.sample(20))
    assert torch.equal(again.log_likelihood(FRAME, 5).value, vae.log_likelihood(FRAME, 5).value)
    assert again.likelihood == vae.likelihood
    assert again.message == vae.message


def test_columns_of_an_array_are_named_by_their_number_also_after_a_file(tmp_path):
    x = torch.cat([NUMBERS[:, :1], COUNTS, (Z[:, None] > 0).double()], 1)
    vae = fitted(x, {1: "poisson", 2: "poisson", 3: "bernoulli"})
    assert vae.message.startswith("gaussian (0), bernoulli (3), poisson (1, 2) likelihood")
    drawn = vae.sample(500)
    assert (drawn[:, 1:] == drawn[:, 1:].round()).all()
    assert set(drawn[:, 3].tolist()) == {0.0, 1.0}
    vae.save(tmp_path / "vae")
    again = VAE.load(tmp_path / "vae").fit(x, epochs=1, progress=False)
    assert again.message.startswith("gaussian (0), bernoulli (3), poisson (1, 2) likelihood")


def test_the_encoder_sees_the_logarithms_of_counts_standardised_also_where_some_are_missing():
    x = torch.cat([COUNTS, NUMBERS[:, :1]], 1)
    x[::5, 0] = torch.nan
    vae = fitted(x, {0: "poisson", 1: "poisson"}, epochs=1)
    seen, mask = vae.encoder.inputs(vae._inward(x)).chunk(2, 1)
    assert torch.equal(mask == 1, ~x.isnan())
    logs = np.log1p(x[:, :2].numpy())
    expected = (logs - np.nanmean(logs, 0)) / np.nanstd(logs, 0)
    np.testing.assert_allclose(seen[:, :2], np.nan_to_num(expected), atol=1e-9)
    torch.testing.assert_close(seen[:, 2].mean(), torch.zeros(()).double())


def test_images_of_counts_get_rates():
    images = torch.poisson(torch.rand(60, 1, 6, 6, generator=G) * 9, generator=G).double()
    vae = VAE(2, "poisson", hidden=(4, 4)).fit(images, epochs=3, progress=False)
    drawn = vae.sample(300)
    assert (drawn == drawn.round()).all()
    assert drawn.mean().item() == pytest.approx(images.mean().item(), rel=0.2)
    assert vae.reconstruct(images).shape == images.shape


@pytest.mark.parametrize("rows", [(4,), (2, 5, 5), (3, 4), ()])
def test_a_network_s_scale_needs_twice_as_many_outputs_along_the_first_axis(rows):
    x = torch.randn(40, *rows, generator=G)
    doubled = (2 * rows[0], *rows[1:]) if rows else (2,)
    vae = VAE(2, "gaussian", scale="network", decoder=MLP(2, doubled, hidden=(8,))).fit(x, epochs=1, progress=False)
    assert vae.reconstruct(x).shape == vae.sample(40).shape == x.shape
    wrong = VAE(2, "gaussian", scale="network", decoder=MLP(2, rows, hidden=(8,)) if rows else nn.Linear(2, 1))
    with pytest.raises(ValueError, match="means, and then raw scales for scale='network'; two rows gave"):
        wrong.fit(x, epochs=1, progress=False)
    with pytest.raises(ValueError, match="sigma depends on z"):
        _ = vae.sigma


def test_a_network_s_scale_finds_noise_that_depends_on_where_one_is():
    g = torch.Generator().manual_seed(3)
    t = torch.randn(2000, 1, generator=g, dtype=torch.float64)
    s = torch.where(t > 0, 1.0, 0.1)
    x = torch.cat([3 * t, 3 * t + s * torch.randn(2000, 1, generator=g, dtype=torch.float64)], 1)
    found = {}
    for scale in ("column", "network"):
        vae = VAE(1, "gaussian", scale=scale, hidden=(32,), learning_rate=5e-3, dtype=torch.float64)
        found[scale] = vae.fit(x[:1500], epochs=60, progress=False).log_likelihood(x[1500:])
    gain = found["network"].value - found["column"].value
    # One-sided, 5 standard errors: a false alarm has probability 3e-7.
    assert gain.mean() > 5 * gain.std() / math.sqrt(500)


def test_each_column_has_its_own_scale():
    g = torch.Generator().manual_seed(4)
    z = torch.randn(3000, 1, generator=g, dtype=torch.float64)
    true = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    x = z * torch.tensor([1.0, 2.0, -3.0, 4.0]) + true * torch.randn(3000, 4, generator=g, dtype=torch.float64)
    vae = VAE(1, "gaussian", scale="column", hidden=(), dtype=torch.float64)
    vae.fit(x, epochs=60, validation=None, progress=False)
    torch.testing.assert_close(vae.sigma[1:], true[1:], rtol=0.07, atol=0)
    assert vae.sigma[0] < 0.15


def test_a_column_that_is_not_gaussian_may_be_constant_and_a_gaussian_one_may_not():
    constant = FRAME.assign(smokes=True, visits=0)
    vae = fitted(constant, {"visits": "poisson", "smokes": "bernoulli"})
    drawn = vae.sample(500)
    assert drawn.smokes.mean() > 0.9
    assert drawn.visits.mean() < 0.1
    for column in ("age", "smokes"):
        with pytest.raises(ValueError, match=rf"x must vary in every column; constant .*columns \['{column}'\] of"):
            fitted(FRAME.assign(**{column: True}))


@pytest.mark.parametrize(
    ("x", "likelihood", "match"),
    [
        (COUNTS - 9, "poisson", r"x must hold counts, .* negative, .* Use likelihood='gaussian'"),
        (NUMBERS, "poisson", r"x must hold counts, 0, 1, 2, ..., for likelihood='poisson'; its values are between"),
        (COUNTS, "bernoulli", r"x must hold only 0 and 1 .* Use likelihood='gaussian', or 'poisson' for counts"),
        (NUMBERS, "categorical", r"zeros and a single one in each row .* Use likelihood='gaussian' for numbers"),
        ((NUMBERS > 0).double(), "categorical", "zeros and a single one in each row"),
        (FRAME, {"age": "poisson"}, r"column 'age' of x must hold counts"),
        (FRAME, {"visits": "bernoulli"}, r"column 'visits' of x must hold only 0 and 1"),
        (FRAME, {"weight": "poisson"}, r"likelihood names columns that x lacks: \['weight'\]; it has \['age', "),
        (FRAME, {"town": "gaussian"}, r"likelihood\['town'\] must be 'categorical' for a column of text"),
        (FRAME, {"age": "categorical"}, r"for column 'age', which holds numbers. Make it text"),
        (FRAME, "categorical", r"for column 'age', which holds numbers"),
        (torch.rand(30, 1, 6, 6), {0: "poisson"}, r"likelihood by column needs a table \(n, d\)"),
    ],
)
def test_data_that_a_likelihood_gives_no_probability_are_refused_and_one_that_fits_is_named(x, likelihood, match):
    with pytest.raises(ValueError, match=match):
        fitted(x, likelihood)


def test_a_fitted_model_refuses_later_what_it_gives_no_probability():
    vae = fitted(FRAME, {"visits": "poisson"})
    for call in (vae.encode, vae.log_likelihood, vae.elbo, vae.reconstruct, vae.impute, vae.active_units):
        with pytest.raises(ValueError, match="column 'visits' of x must hold counts"):
            call(FRAME.assign(visits=-1))
        with pytest.raises(ValueError, match="column 'town' of x has labels that fit did not see: 'huge'"):
            call(FRAME.assign(town="huge"))


@pytest.mark.parametrize(
    ("likelihood", "error", "match"),
    [
        ({"a": "normal"}, ValueError, r"likelihood\['a'\] must be one of 'auto', 'gaussian'"),
        (["gaussian"], TypeError, "likelihood must be a name or {column: name}; got list"),
    ],
)
def test_likelihoods_that_there_are_not_are_refused(likelihood, error, match):
    with pytest.raises(error, match=match):
        VAE(2, likelihood)
