"""What a fit of an adversarial model leaves behind: samples like the data, files, checkpoints, errors."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from probdl.errors import ConvergenceError
from probdl.loops import duel
from probdl.models import GAN, GMMN, WGAN, SlicedWassersteinGenerator
from probdl.models.adversarial.generator import category

SMALL = {"hidden": (16,)}
DUELLING = {"gan": GAN, "wgan": WGAN, "clipped": lambda d, **how: WGAN(d, constraint="clip", **how)}
MODELS = {**DUELLING, "gmmn": GMMN, "sliced": SlicedWassersteinGenerator}


def normals(n, columns=2, seed=0):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(n=400, seed=0):
    """A number and a whole number, both of which go along with a category."""
    rng = np.random.default_rng(seed)
    pet = rng.choice(["cat", "dog", "eel"], n, p=[0.5, 0.3, 0.2])
    height = 10.0 - 4 * (pet == "dog") - 2 * (pet == "eel") + rng.normal(0, 0.5, n)
    return pd.DataFrame({"height": height, "pet": pet, "age": rng.poisson(4 + 4 * (pet == "cat")).astype("int64")})


@pytest.mark.parametrize("name", MODELS)
def test_samples_have_the_form_of_the_data_and_depend_on_the_seed_alone(name, device):
    rows = table()
    model = MODELS[name](2, **SMALL).fit(rows, steps=30, device=device, progress=False)
    some = model.sample(50, seed=1)
    assert list(some.columns) == list(rows.columns)
    assert some.dtypes.tolist() == rows.dtypes.tolist()
    assert set(some.pet) <= {"cat", "dog", "eel"}
    pd.testing.assert_frame_equal(some, model.sample(50, seed=1))
    assert not some.equals(model.sample(50, seed=2))
    again = MODELS[name](2, **SMALL).fit(rows, steps=30, device=device, progress=False)
    pd.testing.assert_frame_equal(some, again.sample(50, seed=1))
    other = MODELS[name](2, **SMALL).fit(rows, steps=30, device=device, seed=1, progress=False)
    assert not some.equals(other.sample(50, seed=1))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (3,), (1, 4, 4), (2, 3)])
def test_rows_of_any_shape_come_back_in_it(name, shape):
    x = normals(60, int(np.prod(shape))).reshape(60, *shape).float()
    model = MODELS[name](2, hidden=(4, 8) if len(shape) == 3 else (8,)).fit(x, steps=3, progress=False)
    assert model.sample(7).shape == (7, *shape)
    assert model.sample(7).dtype == torch.float32
    conditional = MODELS[name](2, hidden=(4, 8) if len(shape) == 3 else (8,))
    if shape:
        conditional.fit(x, condition=[0, 1] * 30, steps=3, progress=False)
        assert conditional.sample(7, condition=1).shape == (7, *shape)


@pytest.mark.parametrize("name", MODELS)
def test_rescaling_the_columns_rescales_the_samples(name):
    x, factor = normals(200), torch.tensor([1024.0, 2.0**-20], dtype=torch.float64)  # powers of two: no rounding
    plain, scaled = (
        MODELS[name](2, **SMALL, dtype=torch.float64).fit(rows, steps=10, progress=False) for rows in (x, x * factor)
    )
    torch.testing.assert_close(scaled.sample(9), plain.sample(9) * factor, rtol=1e-9, atol=0)
    np.testing.assert_allclose(scaled.history.validation, plain.history.validation, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_the_same_samples(name, tmp_path):
    rows, labels = table(), ["a", "b"] * 200
    model = MODELS[name](2, **SMALL).fit(rows, condition=labels, steps=20, progress=False)
    model.save(tmp_path / "m")
    back = type(model).load(tmp_path / "m")
    pd.testing.assert_frame_equal(back.sample(20, condition="b", seed=4), model.sample(20, condition="b", seed=4))
    assert back.message == model.message
    pd.testing.assert_frame_equal(back.history, model.history)
    if isinstance(model, GAN):
        torch.testing.assert_close(
            back.discriminator(rows, condition=labels), model.discriminator(rows, condition=labels)
        )


def test_networks_of_ones_own_are_used_and_passed_again_at_loading(tmp_path):
    def mine():
        torch.manual_seed(5)
        critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
        return {"generator": nn.Linear(3, 2), "critic": critic}

    networks = mine()
    gan = GAN(3, **networks).fit(normals(100), steps=5, progress=False)
    assert gan.generator.network is networks["generator"]
    assert gan.critic.network is networks["critic"]
    gan.save(tmp_path / "m")
    with pytest.raises(ValueError, match="generator must be passed"):
        GAN.load(tmp_path / "m")
    torch.testing.assert_close(GAN.load(tmp_path / "m", **mine()).sample(4), gan.sample(4))
    twice = gan.sample(4)
    torch.testing.assert_close(gan.fit(normals(100), steps=5, progress=False).sample(4), twice)  # starts anew


@pytest.mark.parametrize("name", DUELLING)
def test_a_fit_that_was_killed_goes_on_as_if_it_had_not_been(name, tmp_path, monkeypatch):
    from probdl.models import network_model

    x = normals(100)

    def fit(model, **how):
        return model.fit(x, steps=12, batch_size=20, progress=False, **how)

    whole = fit(MODELS[name](2, **SMALL))
    here, killed = tmp_path / "checkpoint", MODELS[name](2, **SMALL)
    monkeypatch.setattr(network_model, "duel", lambda *a, **how: duel(*a, checkpoint_seconds=0.0, **how))
    calls, loss = [], killed._generator_loss

    def dying(batch, noise):
        calls.append(1)
        if len(calls) == 8:
            raise MemoryError("killed")
        return loss(batch, noise)

    monkeypatch.setattr(killed, "_generator_loss", dying)
    with pytest.raises(MemoryError):
        fit(killed, checkpoint=here)
    resumed = fit(MODELS[name](2, **SMALL), checkpoint=here, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    pd.testing.assert_frame_equal(whole.history.drop(columns="seconds"), resumed.history.drop(columns="seconds"))


def test_a_column_of_categories_is_learnt_with_what_goes_along(device):
    gan = GAN(4, hidden=(64, 64), learning_rates=(2e-3, 1e-3), ema=0.99)
    rows = gan.fit(table(2000), steps=1000, device=device, progress=False).sample(2000)
    share = rows.pet.value_counts(normalize=True).reindex(["cat", "dog", "eel"], fill_value=0)
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.1)
    means = rows.groupby("pet")[["height", "age"]].mean().loc[["cat", "dog", "eel"]]
    np.testing.assert_allclose(means.height, [10, 6, 8], atol=0.7)
    np.testing.assert_allclose(means.age, [8, 4, 4], atol=1)


def test_categories_are_drawn_from_the_softmax_and_carry_its_gradient(device):
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, device=device).expand(40_000, 3)
    noise = torch.Generator(device).manual_seed(0)
    drawn = category(logits, noise)
    assert ((drawn == 0) | (drawn == 1)).all()
    assert (drawn.sum(1) == 1).all()
    # 40,000 draws: P(some |z| > 5) < 2e-6.
    p = logits[0].softmax(0)
    assert ((drawn.mean(0) - p).abs() < 5 * (p * (1 - p) / 40_000).sqrt()).all()
    torch.testing.assert_close(category(logits, None), logits.softmax(1))
    free = logits[:5].clone().requires_grad_()
    category(free, noise)[:, 0].sum().backward()
    assert (free.grad[:, 0] > 0).all()
    assert (free.grad[:, 1:] < 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_condition_picks_what_is_made(name, device):
    labels = ["low", "high"] * 500
    x = normals(1000) + torch.tensor([-3.0, 3.0]).repeat(500)[:, None]
    duel = {"learning_rates": (5e-3, 2e-3), "ema": 0.98}
    how = {"gan": duel, "wgan": duel, "clipped": {"clipping": 0.1, "learning_rates": (2e-3, 2e-3)}}
    model = MODELS[name](2, hidden=(32,), **how.get(name, {"learning_rate": 0.01}))
    model.fit(x, condition=labels, steps=200, device=device, progress=False)
    low, high = (model.sample(500, condition=c, seed=1) for c in ("low", "high"))
    assert low.mean().item() < -1.5
    assert high.mean().item() > 1.5
    both = model.sample(4, condition=["low", "high", "high", "low"])
    assert (both[:, 0] < both[1:2, 0])[[0, 3]].all()
    if name not in DUELLING:  # whose divergence trains a critic
        held = normals(200, seed=3) + torch.tensor([-3.0, 3.0]).repeat(100)[:, None]
        right = float(model.divergence(held, 300, condition=["low", "high"] * 100))
        assert right < float(model.divergence(held, 300, condition=["high", "low"] * 100))
    with pytest.raises(ValueError, match="condition must be given"):
        model.sample(3)
    with pytest.raises(ValueError, match="'middle'"):
        model.sample(3, condition="middle")


class Copy(nn.Module):
    """A generator that returns its condition."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, zc):
        return zc[:, -2:] + 0 * self.zero


class Watch(nn.Module):
    """A critic that keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(4)), []

    def forward(self, xc):
        self.seen.append(xc.detach())
        return (xc * self.weight).sum(1)


@pytest.mark.parametrize("name", DUELLING)
def test_the_critic_sees_each_sample_beside_the_condition_that_it_was_made_for(name):
    critic = Watch()
    model = MODELS[name](1, generator=Copy(), critic=critic, standardise="none")
    model.fit(
        normals(50), condition=["a", "b", "b", "a", "a"] * 10, steps=3, batch_size=25, validation=None, progress=False
    )
    seen = [rows for rows in critic.seen if len(rows) == 25]
    samples = [rows for rows in seen if torch.equal(rows[:, :2], rows[:, 2:])]
    assert len(samples) == 3 * (model.critic_steps + 1)
    assert len(seen) > len(samples)


def test_epochs_count_the_batches_of_both_players():
    x = normals(120)
    for critic_steps, steps in ((1, 9), (2, 6)):  # 6 batches of 20 an epoch, 1 + k for each step
        gan = GAN(2, critic_steps=critic_steps, **SMALL).fit(
            x, epochs=3, batch_size=20, validation=None, progress=False
        )
        assert gan.history.step.iloc[-1] == steps


def test_fewer_rows_than_a_batch_are_one_batch():
    for make in MODELS.values():
        model = make(2, **SMALL).fit(normals(15), steps=4, progress=False)
        assert model.sample(3).shape == (3, 2)


def test_a_last_batch_of_one_row_is_no_obstacle():
    for make in MODELS.values():
        make(2, **SMALL).fit(normals(33), epochs=2, batch_size=16, validation=normals(1), progress=False)


@pytest.mark.parametrize("name", MODELS)
def test_there_is_no_likelihood_and_the_error_says_what_to_use(name):
    model = MODELS[name](2, **SMALL).fit(normals(50), steps=2, progress=False)
    with pytest.raises(NotImplementedError, match=r"no log_likelihood: .* density .*divergence\(x\).*evaluate.* VAE"):
        model.log_likelihood(normals(5))


@pytest.mark.parametrize("name", MODELS)
def test_bad_data_are_refused_and_leave_a_fitted_model_as_it_was(name):
    model = MODELS[name](2, **SMALL).fit(normals(60), steps=2, progress=False)
    before = model.sample(5)
    constant = torch.cat([normals(60), torch.ones(60, 1)], 1)
    with pytest.raises(ValueError, match=r"x must vary in every column; constant .* columns \[2\]"):
        model.fit(constant, steps=2, progress=False)
    holed = normals(60)
    holed[3, 1] = torch.nan
    with pytest.raises(ValueError, match="x"):
        model.fit(holed, steps=2, progress=False)
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(normals(60), [1] * 60)
    assert torch.equal(model.sample(5), before)
    with pytest.raises(ValueError, match="not fitted"):
        MODELS[name](2).sample(3)
    with pytest.raises(ValueError, match="not fitted"):
        MODELS[name](2).divergence(normals(50))


def test_categories_that_fit_did_not_see_are_named():
    rows = table()
    gan = GAN(2, **SMALL).fit(rows, steps=2, progress=False)
    other = rows.assign(pet="yak")
    with pytest.raises(ValueError, match="yak"):
        gan.discriminator(other)
    with pytest.raises(ValueError, match="columns"):
        gan.divergence(rows[["pet", "height", "age"]])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GAN(0), "latent_dim must be a whole number of at least 1"),
        (lambda: GAN(2, loss="tv"), "loss must be one of 'js', 'kl', 'reverse_kl', 'pearson'; got 'tv'"),
        (lambda: GAN(2, penalty=-1.0), "penalty must be a number of at least 0"),
        (lambda: GAN(2, critic_steps=0), "critic_steps must be a whole number"),
        (lambda: GAN(2, optimiser="lbfgs"), "optimiser must be one of"),
        (lambda: GAN(2, learning_rates=1e-3), "learning_rates must be two numbers"),
        (lambda: GAN(2, learning_rates=(1e-3, 0.0)), "learning_rates must be a positive number"),
        (lambda: WGAN(2, constraint="spectral"), "constraint must be one of 'clip', 'penalty'"),
        (lambda: WGAN(2, clipping=0.0), "clipping must be a positive number"),
        (lambda: WGAN(2, early_critic_steps=0), "early_critic_steps must be a whole number"),
        (lambda: SlicedWassersteinGenerator(2, directions=0), "directions must be a whole number"),
        (lambda: GMMN(2, patience=0), "patience must be a whole number"),
        (lambda: GAN(2, critic=nn.Linear(2, 3)).fit(normals(50)), r"critic must map \(n, 2\) to \(n\)"),
        (lambda: GAN(2, generator=nn.Linear(2, 3)).fit(normals(50)), r"generator must map \(n, 2\) to \(n, 2\)"),
        (lambda: GAN(2).fit(normals(50), steps=1, progress=False).divergence(normals(39)), "at least 40 draws"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_loss_that_is_not_finite_ends_with_the_last_good_state(monkeypatch):
    gan = GAN(2, **SMALL)
    calls, loss = [], gan._generator_loss

    def exploding(batch, noise):
        calls.append(1)
        return loss(batch, noise) * (torch.nan if len(calls) == 30 else 1.0)

    monkeypatch.setattr(gan, "_generator_loss", exploding)
    with pytest.raises(ConvergenceError, match="The generator loss became nan at step 30"):
        gan.fit(normals(100), steps=100, progress=False)
    assert gan.sample(5).isfinite().all()
    assert len(gan.history) == 29
    assert gan.history.validation.notna().all()


def test_the_rates_fall_along_a_cosine_and_the_samples_are_those_of_averaged_weights(monkeypatch):
    from probdl.models import network_model

    seen = {}
    monkeypatch.setattr(network_model, "duel", lambda *a, **how: seen.update(how) or duel(*a, **how))
    GAN(2, **SMALL).fit(normals(50), steps=1, progress=False)
    assert (seen["ema"], seen["batch_size"]) == (0.999, 45)
    assert [rate(0.5) for rate in seen["learning_rates"]] == pytest.approx([5e-4, 2.5e-4])
    GAN.algorithm_1(2, **SMALL).fit(normals(50), steps=1, progress=False)
    assert (seen["ema"], seen["learning_rates"]) == (None, (0.01, 0.01))


def test_the_first_weights_depend_on_the_seed():
    still = {"learning_rates": (1e-30, 1e-30), "ema": None, "hidden": (4,)}
    one, two = (GAN(2, **still).fit(normals(9), steps=1, seed=seed, progress=False) for seed in (0, 1))
    for part in ("generator", "critic"):
        first, second = (getattr(gan, part).network.layers[0].weight for gan in (one, two))
        assert (first - second).abs().max() > 1e-3
