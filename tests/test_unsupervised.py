"""What all models of rows do alike: tables come back as they were, bad data lose nothing, files hold all."""

import numpy as np
import pandas as pd
import pytest
import torch

from probdl.models import (
    GAN,
    GMMN,
    VAE,
    WAEGAN,
    WAEMMD,
    WGAN,
    Autoencoder,
    DenoisingAutoencoder,
    KSparseAutoencoder,
    LinearAutoencoder,
    SlicedWassersteinGenerator,
    SparseAutoencoder,
)
from probdl.models.network_model import Training

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=G)
IMAGES = torch.rand(60, 1, 8, 8, generator=G)
TABLE = pd.DataFrame(X.numpy().astype("float64"), columns=list("abcd")).assign(
    e=["u", "v", "w"] * 20, f=[1, 2] * 30, g=[True, False, False] * 20, h=pd.Categorical(["x", "y"] * 30)
)
ENCODING = {
    "linear": lambda: LinearAutoencoder(2, standardise="column"),
    "deep": lambda: Autoencoder(2, hidden=(8,)),
    "sparse": lambda: SparseAutoencoder(6),
    "k-sparse": lambda: KSparseAutoencoder(6, k=2),
    "denoising": lambda: DenoisingAutoencoder(2, hidden=(8,)),
    "VAE": lambda: VAE(2, hidden=(8,)),
    "WAE-MMD": lambda: WAEMMD(2, hidden=(8,), start=2),
    "WAE-GAN": lambda: WAEGAN(2, hidden=(8,), start=2),
}
MADE = {
    "GAN": lambda: GAN(2, hidden=(8,)),
    "WGAN": lambda: WGAN(2, hidden=(8,)),
    "clipped WGAN": lambda: WGAN(2, hidden=(8,), constraint="clip"),
    "GMMN": lambda: GMMN(2, hidden=(8,)),
    "sliced": lambda: SlicedWassersteinGenerator(2, hidden=(8,)),
}
SAMPLED = {**{name: ENCODING[name] for name in ("VAE", "WAE-MMD", "WAE-GAN")}, **MADE}
ALL = {**ENCODING, **MADE}
pytestmark = pytest.mark.filterwarnings("ignore::probdl.ConvergenceWarning")


def fitted(make, x, device="cpu", **how):
    return make().fit(x, **{"steps": 3, "device": device, "progress": False, **how})


def answers(model, x):
    """What a model says of rows, and what it makes up."""
    found = [getattr(model, name)(x) for name in ("encode", "reconstruct", "anomaly_score") if hasattr(model, name)]
    found += [model.sample(3)] if type(model).__name__ in {type(make()).__name__ for make in SAMPLED.values()} else []
    return [torch.tensor(f.select_dtypes("number").to_numpy()) if isinstance(f, pd.DataFrame) else f for f in found]


@pytest.mark.parametrize("name", SAMPLED)
def test_a_mixed_table_comes_back_with_its_columns_types_and_categories(name, device):
    model = fitted(SAMPLED[name], TABLE, device)
    made = model.sample(40)
    assert list(made.columns) == list(TABLE.columns)
    assert made.dtypes.astype(str).tolist() == TABLE.dtypes.astype(str).tolist()
    assert set(made.e) <= {"u", "v", "w"}
    assert set(made.h) <= {"x", "y"}
    assert len(made) == 40
    assert made.a.nunique() > 30


@pytest.mark.parametrize("name", ENCODING)
def test_reconstructions_have_the_index_and_columns_of_the_table(name, device):
    rows = TABLE.set_index(np.arange(60) + 100)
    model = fitted(ENCODING[name], rows, device)
    back = model.reconstruct(rows[10:20])
    assert back.index.tolist() == list(range(110, 120))
    assert list(back.columns) == list(TABLE.columns)
    assert set(back.e) <= {"u", "v", "w"}
    assert model.encode(rows[10:20]).shape == (10, model.latent_dim)


@pytest.mark.parametrize("name", ENCODING)
@pytest.mark.parametrize("x", [X, IMAGES, TABLE], ids=["rows", "images", "table"])
def test_decoding_the_codes_is_reconstruction(name, x, device):
    model = fitted(ENCODING[name], x, device)
    decoded, back = model.decode(model.encode(x)), model.reconstruct(x)
    if x is TABLE:
        assert decoded.equals(back)
    else:
        torch.testing.assert_close(decoded, back)
    with pytest.raises(ValueError, match=rf"z must have shape \(n, {model.latent_dim}\).*got \(1, 9\)"):
        model.decode([[0.0] * 9])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("x", [X, X[:, 0], IMAGES, TABLE], ids=["rows", "numbers", "images", "table"])
def test_a_saved_model_says_the_same(name, x, device, tmp_path):
    if x.ndim == 1 and name not in ("sparse", "k-sparse", *MADE):
        pytest.skip("more codes than entries")
    model = fitted(ALL[name], x, device)
    model.save(tmp_path / "m.safetensors")
    again = type(model).load(tmp_path / "m.safetensors", device=model._device)
    assert again.message == model.message
    before, after = answers(model, x), answers(again, x)
    assert before
    assert all(torch.equal(a, b.to(a)) for a, b in zip(before, after))


@pytest.mark.parametrize("name", ALL)
def test_bad_data_leave_a_fitted_model_as_it_was(name, device):
    model = fitted(ALL[name], X, device)
    before = answers(model, X)
    for bad, match in (
        (X[:1], "at least 2 rows"),
        (X.masked_fill(X > 1.5, torch.inf), "finite"),
        (torch.ones(30, 3), "must vary"),
        (X[:0], "empty"),
    ):
        if match == "must vary" and name == "VAE":
            continue  # ones are the data of a Bernoulli likelihood
        with pytest.raises(ValueError, match=match):
            fitted(lambda: model, bad, device)
        assert all(map(torch.equal, answers(model, X), before))
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(X, X)


@pytest.mark.parametrize("name", [name for name in ALL if name != "VAE"])
def test_missing_entries_are_refused_by_all_but_the_vae(name):
    with pytest.raises(ValueError, match="x must be finite; got 15 NaN"):
        fitted(ALL[name], X.masked_fill(torch.arange(240).view(60, 4) % 16 == 0, torch.nan))


@pytest.mark.parametrize("name", ALL)
def test_before_fit_every_method_says_so(name):
    model = ALL[name]()
    calls = [lambda: model.save("nowhere")]
    ways = [lambda: model.encode(X), lambda: model.reconstruct(X), lambda: model.decode(X)]
    calls += ways if name in ENCODING else [lambda: model.sample(3)]
    for call in calls:
        with pytest.raises(ValueError, match="not fitted yet: call fit"):
            call()


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name, device):
    one, same, other = (fitted(ALL[name], X, device, seed=s) for s in (0, 0, 1))
    assert all(map(torch.equal, answers(one, X), answers(same, X)))
    assert not any(map(torch.equal, answers(one, X), answers(other, X)))


@pytest.mark.parametrize("name", ["VAE", *MADE])
def test_a_conditioned_model_needs_its_condition_and_others_take_none(name, device):
    labels = ["left", "right"] * 30
    model = fitted(ALL[name], X, device, condition=labels)
    left, right = (model.sample(5, condition=side) for side in ("left", "right"))
    assert left.shape == (5, 4)
    assert not torch.equal(left, right)
    assert torch.equal(model.sample(2, condition=["left", "right"])[0], model.sample(2, condition="left")[0])
    with pytest.raises(ValueError, match="condition must be given"):
        model.sample(5)
    with pytest.raises(ValueError, match="condition has labels that fit did not see: 'up'"):
        model.sample(5, condition="up")
    with pytest.raises(ValueError, match="condition must be left out"):
        fitted(ALL[name], X, device).sample(5, condition="left")


def test_a_conditioned_model_decodes_a_code_given_its_condition(device):
    labels = ["left", "right"] * 30
    model = fitted(ALL["VAE"], X, device, condition=labels)
    codes = model.encode(X, condition=labels)
    back = model.reconstruct(X, condition=labels)
    torch.testing.assert_close(model.decode(codes, condition=labels), back)
    assert not torch.allclose(model.decode(codes, condition=labels[::-1]), back)
    with pytest.raises(ValueError, match="condition must be given"):
        model.decode(codes)


@pytest.mark.parametrize("name", [n for n in ENCODING if n != "VAE"])
def test_models_without_a_condition_refuse_one(name):
    with pytest.raises(ValueError, match="condition must be None: a .* cannot be conditioned. A VAE or a GAN can"):
        fitted(ALL[name], X, condition=["left", "right"] * 30)


@pytest.mark.parametrize("name", ["GAN", "WGAN", "GMMN", "sliced", "WAE-MMD", "WAE-GAN"])
def test_a_model_without_a_density_says_why_and_what_to_use(name, device):
    with pytest.raises(NotImplementedError, match="has no log_likelihood: .* probdl.models.evaluate"):
        fitted(ALL[name], X, device).log_likelihood(X)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_are_in_the_units_of_the_data(name, device):
    one, other = (fitted(SAMPLED[name], scale * X.double() + 5, device, batch_size=60) for scale in (1, 1000))
    torch.testing.assert_close(other.sample(8), 1000 * (one.sample(8) - 5) + 5, rtol=1e-3, atol=5)


def test_each_row_keeps_its_condition_when_some_are_held_out(device):
    class Watched(VAE):
        def _learn(self, train, held, how):
            self.seen = train, held
            super()._learn(train, held, how)

    model = fitted(lambda: Watched(2, hidden=(8,)), X, device, condition=X[:, 0])
    for (u, c), n in zip(model.seen, (54, 6)):
        assert len(u) == len(c) == n
        assert torch.corrcoef(torch.stack([u[:, 0], c[:, 0]]))[0, 1] > 0.9999
    own = fitted(lambda: Watched(2, hidden=(8,)), X, device, condition=X[:, 0], validation=(X[:9], X[:9, 0]))
    assert [len(part[0]) for part in own.seen] == [60, 9]
    assert torch.corrcoef(torch.stack([own.seen[1][0][:, 0], own.seen[1][1][:, 0]]))[0, 1] > 0.9999


def test_epochs_and_steps_bound_how_long_a_duel_takes():
    def most(epochs, steps):
        return Training(epochs, steps, 10, 0, None, None, False).steps_at_most(95, 7, batches=2)

    assert most(None, None) == 7
    assert most(None, 4) == 4
    assert most(3, None) == 15  # ten batches an epoch, two a step
    assert most(3, 4) == 4
    assert most(1, 40) == 5
