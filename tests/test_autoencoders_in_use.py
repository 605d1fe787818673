"""Autoencoders and Wasserstein autoencoders in a user's hands: the same results twice, tables, files, bad input."""

import functools
import json
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probdl
from probdl.models import (
    WAEGAN,
    WAEMMD,
    Autoencoder,
    DenoisingAutoencoder,
    KSparseAutoencoder,
    LinearAutoencoder,
    SparseAutoencoder,
    network_model,
)
from probdl.nn import MLP

G = torch.Generator().manual_seed(0)
TABLE = torch.randn(120, 3, generator=G, dtype=torch.float64) @ torch.randn(3, 5, generator=G, dtype=torch.float64)
TABLE = TABLE + 0.1 * torch.randn(120, 5, generator=G, dtype=torch.float64)
IMAGES = torch.rand(40, 1, 6, 5, generator=G, dtype=torch.float64)
FRAME = pd.DataFrame(TABLE.numpy(), columns=list("abcde"), index=[f"row{i}" for i in range(120)]).assign(
    n=np.arange(120) % 7, yes=np.arange(120) % 2 == 0, pet=np.where(np.arange(120) % 3 == 0, "cat", "dog")
)

MODELS = {
    "linear": lambda **how: LinearAutoencoder(2, **how),
    "untied": lambda **how: LinearAutoencoder(2, tied=False, **how),
    "deep": lambda **how: Autoencoder(2, hidden=(8, 8), **how),
    "tied": lambda **how: Autoencoder(2, tied=True, hidden=(8, 8), **how),
    "l1": lambda **how: SparseAutoencoder(9, **how),
    "kl": lambda **how: SparseAutoencoder(9, penalty="kl", **how),
    "k-sparse": lambda **how: KSparseAutoencoder(9, k=2, **how),
    "denoising": lambda **how: DenoisingAutoencoder(2, hidden=(8, 8), noise="masking", level=0.2, **how),
    "salt": lambda **how: DenoisingAutoencoder(2, tied=True, hidden=(8, 8), noise="salt_and_pepper", **how),
    "mmd": lambda **how: WAEMMD(2, hidden=(8, 8), start=5, **how),
    "stochastic": lambda **how: WAEMMD(2, hidden=(8, 8), start=5, stochastic=True, cost="absolute", **how),
    "gan": lambda **how: WAEGAN(2, hidden=(8, 8), start=5, **how),
}
PLAIN = [name for name in MODELS if name not in ("mmd", "stochastic", "gan")]
WASSERSTEIN = ["mmd", "stochastic", "gan"]


def results(model, x=TABLE):
    found = [model.encode(x), model.reconstruct(x), model.anomaly_score(x)]
    found += [model.sample(7)] if hasattr(model, "penalty_weight") else []
    found += [torch.tensor(model.penalty(x, draws=200).value)] if isinstance(model, WAEMMD) else []
    found += [model.corrupt(x)] if hasattr(model, "corrupt") else []
    history = model.history.drop(columns="seconds").fillna(0).to_numpy()
    return [*map(torch.as_tensor, found), torch.tensor(history)]


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(name, device):
    return quietly(MODELS[name](), TABLE, epochs=4, device=device)


def quietly(model, x, **how):
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The loss", probdl.ConvergenceWarning
        )  # of linear ones: a few steps are too few
        return model.fit(x, progress=False, **how)


# --- the same results twice ---


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(name, fitted, device):
    again = quietly(MODELS[name](), TABLE, epochs=4, device=device)
    other = quietly(MODELS[name](), TABLE, epochs=4, device=device, seed=1)
    assert all(map(torch.equal, results(fitted), results(again)))
    assert not torch.equal(fitted.encode(TABLE), other.encode(TABLE))


def test_a_second_fit_starts_anew(name, fitted, device):
    model = quietly(MODELS[name](), IMAGES, epochs=1, device=device)
    quietly(model, TABLE, epochs=4, device=device)
    assert all(map(torch.equal, results(fitted), results(model)))


def test_results_do_not_depend_on_the_mode_and_nothing_global_is_changed(fitted):
    torch.manual_seed(3)
    before, state = results(fitted), torch.get_rng_state()
    assert not fitted.training
    fitted.train()
    assert all(map(torch.equal, before, results(fitted)))
    fitted.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_a_file_holds_the_whole_model_and_no_program(name, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model")
    for a, b in zip(results(fitted), results(loaded)):
        assert torch.equal(a.cpu(), b)
    assert loaded.message == fitted.message
    assert {k: getattr(loaded, k) for k in loaded.SETTINGS} == {k: getattr(fitted, k) for k in fitted.SETTINGS}
    header = (tmp_path / "model").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


class Interrupts(nn.Module):
    """An encoder at whose k-th call in training mode somebody presses Ctrl-C."""

    def __init__(self, outputs, at):
        super().__init__()
        torch.manual_seed(1)
        self.net, self.at, self.calls = MLP(5, outputs, hidden=(8,)), at, 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return self.net(x)


INTERRUPTED = {
    "deep": lambda net: Autoencoder(2, encoder=net(2), hidden=(8,)),
    "l1": lambda net: SparseAutoencoder(9, encoder=net(9)),
    "k-sparse": lambda net: KSparseAutoencoder(9, k=2, tied=False, encoder=net(9)),
    "denoising": lambda net: DenoisingAutoencoder(2, encoder=net(2), hidden=(8,), noise="salt_and_pepper"),
    "mmd": lambda net: WAEMMD(2, encoder=net(2), hidden=(8,), start=5),
    "gan": lambda net: WAEGAN(2, encoder=net(2), hidden=(8,), start=5),
}


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_a_fit_that_is_interrupted_and_resumed_is_one_that_was_not(kind, tmp_path, monkeypatch):
    for loop in ("descend", "duel"):
        monkeypatch.setattr(
            network_model, loop, functools.partial(getattr(network_model, loop), checkpoint_seconds=0.0)
        )
    how = {"steps": 12, "batch_size": 30, "progress": False}
    whole = INTERRUPTED[kind](lambda k: Interrupts(k, at=0)).fit(TABLE, **how)
    how["checkpoint"] = tmp_path / "run"
    with pytest.warns(probdl.ConvergenceWarning, match="interrupted"):
        INTERRUPTED[kind](lambda k: Interrupts(k, at=13 if kind in WASSERSTEIN else 8)).fit(TABLE, **how)
    resumed = INTERRUPTED[kind](lambda k: Interrupts(k, at=0)).fit(TABLE, resume=True, **how)
    assert all(map(torch.equal, results(whole), results(resumed)))


def test_ctrl_c_in_the_start_of_the_encoder_ends_the_fit():
    with pytest.warns(probdl.ConvergenceWarning, match="interrupted"):
        model = WAEMMD(2, encoder=Interrupts(2, at=4), hidden=(8,), start=50).fit(TABLE, steps=20, progress=False)
    assert "interrupted" in model.message
    assert model.sample(3).shape == (3, 5)


# --- shapes, units, tables ---


@pytest.mark.parametrize("x", [TABLE, IMAGES, IMAGES[:, 0], TABLE[:, :1].float()])
def test_results_have_the_shape_of_the_data_whatever_it_is(name, x, device):
    if x.shape[1:] == (1,):
        make = {"linear": LinearAutoencoder, "untied": lambda k: LinearAutoencoder(k, tied=False)}.get(
            name, Autoencoder
        )
        model = quietly(make(1), x, epochs=1, device=device)
    else:
        model = quietly(MODELS[name](), x.to(device), epochs=1, device=device)
    assert model.reconstruct(x).shape == x.shape
    assert model.encode(x).shape == (len(x), model.latent_dim)
    assert model.anomaly_score(x).shape == (len(x),)
    if hasattr(model, "penalty_weight"):
        assert model.sample(3).shape == (3, *x.shape[1:])


def test_a_dataframe_comes_back_with_its_columns_types_and_index(name):
    model = quietly(MODELS[name](), FRAME, epochs=2)
    back = model.reconstruct(FRAME[:9])
    assert list(back.columns) == list(FRAME.columns)
    assert back.index.equals(FRAME.index[:9])
    assert set(back.pet) <= {"cat", "dog"}
    assert isinstance(model.encode(FRAME), torch.Tensor)
    if hasattr(model, "penalty_weight"):
        sample = model.sample(30)
        assert (sample.dtypes == FRAME.dtypes).all()
    if hasattr(model, "corrupt"):
        noisy = model.corrupt(FRAME)
        assert list(noisy.columns) == list(FRAME.columns)
        assert not noisy[list("abcde")].equals(FRAME[list("abcde")])


def test_scores_and_codes_do_not_depend_on_the_units_of_the_data(name):
    model = quietly(MODELS[name](dtype=torch.float64, standardise="column"), TABLE, epochs=3)
    other = quietly(MODELS[name](dtype=torch.float64, standardise="column"), 1e3 * TABLE - 50, epochs=3)
    torch.testing.assert_close(model.anomaly_score(TABLE), other.anomaly_score(1e3 * TABLE - 50), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(
        1e3 * model.reconstruct(TABLE) - 50, other.reconstruct(1e3 * TABLE - 50), rtol=1e-5, atol=1e-3
    )


def test_networks_of_ones_own_are_used_and_must_be_passed_to_load(tmp_path):
    def nets():
        return {"encoder": nn.Linear(5, 2), "decoder": nn.Linear(2, 5)}

    for make in (Autoencoder, DenoisingAutoencoder, WAEMMD, WAEGAN):
        given = nets()
        model = make(2, **given).fit(TABLE, epochs=1, progress=False)
        assert model.encoder is given["encoder"]
        model.save(tmp_path / "model")
        assert torch.equal(make.load(tmp_path / "model", **nets()).encode(TABLE), model.encode(TABLE))
        with pytest.raises(ValueError, match="encoder must be passed"):
            make.load(tmp_path / "model")


def test_a_cost_of_ones_own_is_not_learnt_and_must_be_passed_to_load(tmp_path):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.Parameter(torch.tensor([1.0, 2, 3, 4, 5]))

        def forward(self, u, v):
            return (self.weights * (u - v).square()).sum(1)

    cost = Weighted()
    model = WAEMMD(2, cost=cost).fit(TABLE, epochs=2, progress=False)
    assert cost.weights.tolist() == [1, 2, 3, 4, 5]
    model.save(tmp_path / "model")
    assert torch.equal(WAEMMD.load(tmp_path / "model", cost=Weighted()).sample(3), model.sample(3))
    with pytest.raises(ValueError, match="cost must be passed"):
        WAEMMD.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"cost must map two batches of \d+ rows to shape"):
        WAEMMD(2, cost=nn.MSELoss()).fit(TABLE, epochs=1, progress=False)


# --- what they are not, and bad input ---


@pytest.mark.parametrize("kind", PLAIN)
def test_an_autoencoder_has_no_sample_and_no_likelihood_and_says_who_has(kind):
    model = quietly(MODELS[kind](), TABLE, epochs=1)
    with pytest.raises(NotImplementedError, match="has no sample: .* Use a VAE, WAEMMD or WAEGAN"):
        model.sample(3)
    with pytest.raises(NotImplementedError, match="has no log_likelihood: .* A VAE is one"):
        model.log_likelihood(TABLE)


@pytest.mark.parametrize("kind", WASSERSTEIN)
def test_a_wasserstein_autoencoder_has_no_likelihood_and_says_what_to_use(kind):
    model = MODELS[kind]().fit(TABLE, epochs=1, progress=False)
    with pytest.raises(
        NotImplementedError, match=r"no log_likelihood: .*evaluate\(model, x\).* penalty\(x\); a VAE has"
    ):
        model.log_likelihood(TABLE)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "anomaly_score"])
def test_rows_unlike_those_of_fit_are_refused_by_every_method(fitted, method):
    call = getattr(fitted, method)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 5\), as in fit; got \(3, 4\)"):
        call(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="x must be finite"):
        call(TABLE / 0)
    with pytest.raises(ValueError, match="x is empty"):
        call(TABLE[:0])


def test_use_before_fit_says_what_to_do(name):
    model = MODELS[name]()
    calls = [model.encode, model.reconstruct, model.anomaly_score]
    calls += [model.penalty, lambda x: model.sample(2), lambda x: model.penalty_weight] if name in WASSERSTEIN else []
    calls += [model.corrupt] if hasattr(model, "corrupt") else []
    calls += [lambda x: model.components] if hasattr(type(model), "components") else []
    for call in calls:
        with pytest.raises(ValueError, match=r"not fitted yet: call fit\(x\) before"):
            call(TABLE)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearAutoencoder(6), "at most the number of entries of a row, 5; got 6. .*SparseAutoencoder"),
        (lambda: Autoencoder(6), "got 6. It would copy its input"),
        (lambda: WAEMMD(6), "latent_dim must be at most .* 5; got 6"),
        (lambda: WAEGAN(6), "latent_dim must be at most"),
        (lambda: Autoencoder(2, encoder=nn.Linear(5, 3)), r"encoder must map \(n, 5\) to \(n, 2\), the code"),
        (lambda: WAEMMD(2, encoder=nn.Linear(5, 2), stochastic=True), r"\(n, 4\), mean and raw scale"),
        (lambda: Autoencoder(2, decoder=nn.Linear(2, 3)), "decoder must map"),
        (lambda: WAEGAN(2, critic=nn.Linear(2, 2)), "critic must"),
        (
            lambda: Autoencoder(2, tied=True, encoder=nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))),
            "it has BatchNorm1d",
        ),
        (
            lambda: Autoencoder(2, tied=True, encoder=nn.Sequential(nn.Linear(5, 2), nn.Tanh())),
            "ends with a linear layer",
        ),
    ],
)
def test_networks_and_codes_that_do_not_fit_the_data_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make().fit(TABLE, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Autoencoder(0), "latent_dim must be a whole number of at least 1; got 0"),
        (lambda: Autoencoder(2, patience=0), "patience must be"),
        (lambda: Autoencoder(2, tied=True, decoder=nn.Linear(2, 5)), "decoder must be None with tied=True"),
        (lambda: LinearAutoencoder(2, standardise="all"), "standardise must be one of"),
        (lambda: SparseAutoencoder(9, penalty="l2"), "penalty must be one of 'l1', 'kl'; got 'l2'"),
        (lambda: SparseAutoencoder(9, weight=-1), "weight must be a number of at least 0; got -1"),
        (lambda: SparseAutoencoder(9, weight_decay=float("nan")), "weight_decay must be a number of at least 0"),
        (lambda: SparseAutoencoder(9, target=1), "target must be a number between 0 and 1"),
        (lambda: KSparseAutoencoder(9, k=10), "k must be at most latent_dim, 9; got 10"),
        (lambda: KSparseAutoencoder(9, k=0), "k must be a whole number"),
        (lambda: KSparseAutoencoder(9, k=2, alpha=0.5), "alpha must be a number of at least 1"),
        (lambda: KSparseAutoencoder(9, k=2, decoder=nn.Linear(9, 5)), "decoder must be None with tied=True"),
        (
            lambda: DenoisingAutoencoder(2, noise="blur"),
            "noise must be one of 'gaussian', 'masking', 'salt_and_pepper'",
        ),
        (lambda: DenoisingAutoencoder(2, level=-0.1), "level must be standard deviations, at least 0"),
        (lambda: DenoisingAutoencoder(2, noise="masking", level=1.5), "level must be a probability between 0 and 1"),
        (lambda: WAEMMD(2, cost="cosine"), "cost must be 'squared', 'euclidean', 'absolute', or an nn.Module"),
        (lambda: WAEMMD(2, weight=-1), "weight must be a number of at least 0; got -1"),
        (lambda: WAEMMD(2, start=-1), "start must be a whole number of at least 0"),
        (lambda: WAEGAN(2, critic_steps=0), "critic_steps must be"),
        (lambda: WAEGAN(2, critic_rate=0.0), "critic_rate must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_fewer_rows_than_a_batch_and_constant_columns(name):
    model = quietly(MODELS[name](), TABLE[:10], epochs=2)
    assert "nothing was held out" in model.message or name == "gan"
    constant = TABLE.clone()
    constant[:, 1] = 4.0
    with pytest.raises(ValueError, match="constant in the training rows: columns"):
        MODELS[name](standardise="column").fit(constant, epochs=1, progress=False)
    assert torch.equal(model.encode(TABLE), model.encode(TABLE))


def test_conditions_and_labels_are_refused(name):
    with pytest.raises(ValueError, match="condition must be None: .* cannot be conditioned"):
        MODELS[name]().fit(TABLE, condition=[0] * 120, epochs=1, progress=False)
    with pytest.raises(ValueError, match="y must be None"):
        MODELS[name]().fit(TABLE, torch.zeros(120), epochs=1, progress=False)


def test_a_learning_rate_that_is_far_too_large_is_diagnosed(name):
    with pytest.raises(probdl.ConvergenceError, match="Try a smaller learning_rate"):
        quietly(MODELS[name](learning_rate=1e30, decay=False), TABLE, epochs=20)
