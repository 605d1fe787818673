"""The VAE in a user's hands: the same results twice, tables, networks of one's own, interruptions, bad input."""

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probdl
from probdl.loops.run import apart
from probdl.models import VAE
from probdl.nn import MLP

G = torch.Generator().manual_seed(0)
TABLE = torch.randn(120, 2, generator=G, dtype=torch.float64) @ torch.tensor([[1.0, 2, 0, 1], [0, 1, 3, 1]]).double()
TABLE = TABLE + 0.1 * torch.randn(120, 4, generator=G, dtype=torch.float64)
IMAGES = torch.rand(40, 1, 6, 5, generator=G, dtype=torch.float64)


def small(**settings):
    return VAE(**{"latent_dim": 2, "hidden": (8,), **settings})


@pytest.fixture(scope="module")
def fitted(device):
    return small().fit(TABLE, epochs=4, device=device, progress=False)


class Alarm(nn.Module):
    """A decoder that does something unusual at its k-th call in training mode."""

    def __init__(self, shape, at, what):
        super().__init__()
        self.net, self.at, self.what, self.calls = MLP(2, shape, hidden=(8,)), at, what, 0

    def forward(self, z):
        self.calls += self.training
        if self.training and self.calls == self.at:
            return self.what(self.net(z))
        return self.net(z)


# --- the same results twice ---


def results(vae):
    return [
        vae.sample(7),
        vae.sample(7, mean=True),
        vae.encode(TABLE),
        vae.reconstruct(TABLE),
        vae.log_likelihood(TABLE, draws=5).value,
        vae.log_likelihood(TABLE, draws=5).stderr,
        vae.elbo(TABLE, draws=5).value,
        torch.tensor(vae.history.drop(columns="seconds").fillna(0).to_numpy()),
    ]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(fitted, device):
    again = small().fit(TABLE, epochs=4, device=device, progress=False)
    other = small().fit(TABLE, epochs=4, device=device, seed=1, progress=False)
    assert all(map(torch.equal, results(fitted), results(again)))
    assert not any(map(torch.equal, results(fitted), results(other)))
    assert not torch.equal(fitted.sample(7, seed=1), fitted.sample(7))


def test_a_second_fit_starts_anew_also_with_a_network_that_was_passed(device):
    vae = small(encoder=MLP(4, 4, hidden=(8,)), decoder=MLP(2, 4, hidden=(8,)))
    first = results(vae.fit(TABLE, epochs=2, device=device, progress=False))
    assert all(map(torch.equal, first, results(vae.fit(TABLE, epochs=2, device=device, progress=False))))


def test_results_do_not_depend_on_the_mode_of_the_module(device):
    encoder = nn.Sequential(MLP(4, 16, hidden=()), nn.BatchNorm1d(16), nn.Dropout(0.5), MLP(16, 4, hidden=()))
    vae = small(encoder=encoder).fit(TABLE, epochs=2, device=device, progress=False)
    assert not vae.training
    before = results(vae)
    assert all(map(torch.equal, before, results(vae.train())))
    assert vae.training


def test_nothing_global_is_changed(device):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].copy()
    dropout = nn.Sequential(MLP(4, 16, hidden=()), nn.Dropout(0.5), MLP(16, 4, hidden=()))
    torch.set_rng_state(state)
    results(small(encoder=dropout).fit(TABLE, epochs=2, device=device, progress=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


# --- shapes, units, tables ---


@pytest.mark.parametrize("x", [TABLE, TABLE[:, 0], IMAGES, IMAGES[:, 0], IMAGES[:, :, :3]])
def test_results_have_the_shape_and_type_of_the_data_whatever_it_is(x, device):
    vae = small(hidden=(8, 8)).fit(x.to(device), epochs=1, device=device, progress=False)
    assert vae.sample(3).shape == (3, *x.shape[1:])
    assert vae.reconstruct(x).shape == x.shape
    assert vae.encode(x).shape == (len(x), 2)
    assert vae.log_likelihood(x, draws=2).value.shape == vae.elbo(x, draws=2).value.shape == (len(x),)
    assert vae.sample(3).dtype == torch.float32
    assert vae.sample(3).device.type == device.type


def test_reconstructions_are_in_the_units_of_the_data(device):
    x = 1e6 + 1e3 * TABLE
    vae = small(dtype=torch.float64, learning_rate=0.01).fit(x, steps=400, device=device, progress=False)
    assert (vae.reconstruct(x) - x).square().mean(0).sqrt().lt(0.5 * x.std(0)).all()
    torch.testing.assert_close(vae.sample(4000).mean(0), x.mean(0), rtol=0, atol=500)


@pytest.mark.parametrize("convert", [np.asarray, torch.Tensor.tolist, pd.DataFrame, torch.Tensor.float])
def test_any_array_like_gives_the_same_fit(convert, fitted, device):
    vae = small().fit(convert(TABLE), epochs=4, device=device, progress=False)
    torch.testing.assert_close(vae.encode(TABLE), fitted.encode(TABLE), rtol=1e-3, atol=1e-3)


def test_a_dataframe_comes_back_with_its_columns_types_and_index(device):
    frame = pd.DataFrame(TABLE.numpy(), columns=["a", "b", 3, "d"], index=[f"row{i}" for i in range(120)])
    frame = frame.astype({"b": np.float32}).assign(n=np.arange(120) % 7, yes=np.arange(120) % 2 == 0)
    vae = small().fit(frame, epochs=2, device=device, progress=False)
    sample, mean, back = vae.sample(30), vae.sample(5, mean=True), vae.reconstruct(frame[:9])
    for table in (sample, mean, back):
        assert list(table.columns) == ["a", "b", 3, "d", "n", "yes"]
    assert (sample.dtypes == frame.dtypes).all()
    assert (back.dtypes[:4] == frame.dtypes[:4]).all()
    assert back.index.equals(frame.index[:9])
    assert back["n"].dtype == np.float64  # a mean is no whole number
    assert isinstance(vae.encode(frame), torch.Tensor)
    assert isinstance(vae.reconstruct(frame.to_numpy(dtype=float)), torch.Tensor)


def test_a_network_of_ones_own_is_used_and_trained_in_place(device):
    encoder, decoder = nn.Linear(4, 4), nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4))
    before = encoder.weight.detach().clone()
    vae = VAE(2, encoder=encoder, decoder=decoder).fit(TABLE, epochs=1, device=device, progress=False)
    assert vae.encoder.network is encoder
    assert vae.decoder.network is decoder
    assert not torch.equal(before, encoder.weight.detach().cpu())


def test_the_history_adds_up(fitted):
    history = fitted.history
    assert list(history.columns) == ["step", "epoch", "seconds", "loss", "validation", "reconstruction", "kl"]
    assert len(history) == 4
    np.testing.assert_allclose(history.loss, history.reconstruction + history.kl, rtol=1e-5)
    assert (history.kl > 0).all()
    assert history.validation.notna().all()


def test_a_fit_takes_the_steps_of_the_loop_that_one_writes_by_hand(device):
    def nets():
        torch.manual_seed(4)
        return MLP(4, 4, hidden=(8,)).double().to(device), MLP(2, 4, hidden=(8,)).double().to(device)

    encoder, decoder = nets()
    vae = VAE(2, encoder=encoder, decoder=decoder, draws=3, learning_rate=0.01, dtype=torch.float64)
    vae.fit(TABLE, epochs=5, batch_size=50, validation=None, device=device, seed=7, progress=False)

    by_hand = e, d = nets()
    u = ((TABLE - TABLE.mean(0)) / TABLE.std(0, correction=0)).to(device)
    adam = torch.optim.Adam([*e.parameters(), *d.parameters()], lr=0.01, fused=False)
    order, g = (torch.Generator(device).manual_seed(s) for s in (7, apart(7, 1)))
    for _ in range(5):
        for rows in torch.randperm(120, generator=order, device=device).split(50):
            mean, raw = e(u[rows]).chunk(2, 1)
            scale = nn.functional.softplus(raw) + 1e-6
            noise = torch.randn(3, len(rows), 2, generator=g, device=device, dtype=torch.float64)
            squares = torch.stack([(u[rows] - d(mean + scale * one)).square().sum(1) for one in noise])
            variance = squares.mean() / 4 + 1e-5
            kl = (mean.square() + scale.square() - 1 - scale.square().log()).sum(1) / 2
            adam.zero_grad()
            (2 * variance.log() + kl.mean()).backward()  # at its optimum σ² leaves (d/2) log σ² of the likelihood
            adam.step()
    ours = [*encoder.parameters(), *decoder.parameters()]
    theirs = [p for net in by_hand for p in net.parameters()]
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_validation_is_a_tenth_a_fraction_or_rows(device):
    def steps(x, **how):
        return small().fit(x, epochs=1, batch_size=1, device=device, progress=False, **how).history.iloc[0]

    assert steps(TABLE).step == 108
    assert steps(TABLE, validation=0.25).step == 90
    assert steps(TABLE, validation=TABLE[:5]).step == 120
    assert steps(TABLE[:12]).step == 12
    assert np.isnan(steps(TABLE, validation=None).validation)
    assert "nothing was held out" in small().fit(TABLE[:12], epochs=1, device=device, progress=False).message


# --- when it is stopped ---


def test_ctrl_c_leaves_a_usable_model_and_says_so(device):
    def interrupt(x):
        signal.raise_signal(signal.SIGINT)
        return x

    vae = small(decoder=Alarm((4,), at=15, what=interrupt))
    with pytest.warns(probdl.ConvergenceWarning, match="interrupted in epoch 4"):
        vae.fit(TABLE, epochs=50, batch_size=27, device=device, progress=False)
    assert "interrupted" in vae.message
    assert len(vae.history) == 3
    assert not vae.training
    interrupted = results(vae)
    vae.fit(TABLE, epochs=3, batch_size=27, device=device, progress=False)  # anew, and not interrupted again
    assert all(map(torch.equal, interrupted, results(vae)))


def test_a_nan_is_an_error_and_leaves_the_last_good_model(device):
    def fit(at, epochs):
        torch.manual_seed(1)
        vae = small(decoder=Alarm((4,), at=at, what=lambda out: out * torch.nan))
        return vae, lambda: vae.fit(TABLE, epochs=epochs, batch_size=30, validation=None, device=device, progress=False)

    good, run = fit(at=0, epochs=2)
    run()
    bad, run = fit(at=11, epochs=9)  # four steps an epoch: in the third
    with pytest.raises(probdl.ConvergenceError, match=r"loss became nan at step 11, reconstruction nan, kl [\d.]+;"):
        run()
    assert "state after epoch 2 was put back" in bad.message
    assert len(bad.history) == 2
    assert all(map(torch.equal, results(good), results(bad)))


def test_a_learning_rate_that_is_far_too_large_is_diagnosed(device):
    with pytest.raises(probdl.ConvergenceError, match="Try a smaller learning_rate"):
        small(learning_rate=1e30).fit(TABLE, epochs=5, device=device, progress=False)


# --- bad input ---

BAD = [
    (torch.full((30, 2), torch.nan), ValueError, r"all training rows lack columns \[0, 1\]"),
    ([[1.0, 2.0], [np.inf, 3.0]], ValueError, "x must be finite; got 0 NaN and 1 infinite"),
    (torch.zeros(0, 3), ValueError, "x is empty"),
    (3.0, TypeError, "x must be array-like"),
    (np.array([["a", "b"]]), TypeError, "x must hold numbers"),
    (np.array([[1, None]], dtype=object), TypeError, "x must hold numbers"),
    (pd.DataFrame({"a": [1.0, 2], "b": pd.to_datetime(["2020", "2021"])}), TypeError, "column .b. of x holds dates"),
    (pd.DataFrame(np.eye(4)[:, :2], columns=["a", "a"]), ValueError, "distinct columns; twice or more: .'a'"),
    ([[1.0, 2.0], [3.0]], ValueError, "x must be a rectangular array"),
    (torch.ones(30, 3) * torch.tensor([1.0, 2.0, 3.0]), ValueError, "constant in the training rows: columns"),
    (torch.ones(30, 1, 4, 4) * 7, ValueError, "x must vary; all its training rows are equal"),
]


@pytest.mark.parametrize(("x", "error", "match"), BAD)
def test_data_that_cannot_be_used_are_refused_by_name(x, error, match):
    with pytest.raises(error, match=match):
        small(likelihood="gaussian").fit(x, epochs=1, progress=False)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "log_likelihood", "elbo"])
def test_rows_unlike_those_of_fit_are_refused_by_every_method(fitted, method):
    call = getattr(fitted, method)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4\), as in fit; got \(3, 5\)"):
        call(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"got \(4,\). Pass a single row as x\[None\]"):
        call(torch.zeros(4))
    with pytest.raises(ValueError, match="x must be finite"):
        call(TABLE / 0)
    with pytest.raises(ValueError, match="x is empty"):
        call(TABLE[:0])
    with pytest.raises(TypeError, match="x must hold numbers"):
        call(np.full((2, 4), "a"))


@pytest.mark.parametrize("columns", [["a", "b", "c", "e"], ["b", "a", "c", "d"], ["a", "b", "c"]])
def test_columns_unlike_those_of_fit_are_refused(columns):
    frame = pd.DataFrame(TABLE.numpy(), columns=list("abcd"))
    vae = small().fit(frame, epochs=1, progress=False)
    other = pd.DataFrame(TABLE[:, : len(columns)].numpy(), columns=columns)
    with pytest.raises(ValueError, match=r"x must have the columns that fit saw, in the same order: \['a', 'b'"):
        vae.encode(other)
    with pytest.raises(ValueError, match="validation must have the columns"):
        vae.fit(frame, epochs=1, validation=other, progress=False)


@pytest.mark.parametrize("x", [IMAGES, IMAGES * 2 - 1, (IMAGES > 0.5) * 2.0])
def test_data_outside_the_support_name_a_likelihood_that_fits(x):
    with pytest.raises(ValueError, match=r"x must hold only 0 and 1 .* Use likelihood='gaussian'"):
        small(likelihood="bernoulli", hidden=(4, 4)).fit(x, epochs=1, progress=False)


def test_a_fitted_bernoulli_refuses_other_values_later():
    vae = small().fit((TABLE > 0).double(), epochs=1, progress=False)
    for call in (vae.encode, vae.reconstruct, vae.log_likelihood, vae.elbo):
        with pytest.raises(ValueError, match="must hold only 0 and 1"):
            call(TABLE)
    with pytest.raises(ValueError, match="sigma is a Gaussian decoder's"):
        _ = vae.sigma


@pytest.mark.parametrize(
    "use",
    [
        lambda vae: vae.sample(3),
        lambda vae: vae.encode(TABLE),
        lambda vae: vae.reconstruct(TABLE),
        lambda vae: vae.log_likelihood(TABLE),
        lambda vae: vae.elbo(TABLE),
        lambda vae: vae.save("nowhere"),
        lambda vae: vae.sigma,
    ],
)
def test_use_before_fit_says_what_to_do(use):
    with pytest.raises(ValueError, match=r"not fitted yet: call fit\(x\) before"):
        use(VAE())


@pytest.mark.parametrize(
    ("networks", "match"),
    [
        ({"encoder": nn.Linear(4, 2)}, r"encoder must map \(n, 4\) to \(n, 4\), mean and raw scale; two rows gave"),
        ({"decoder": nn.Linear(2, 3)}, r"decoder must map \(n, 2\) to \(n, 4\), .* gave \(2, 3\), not \(2, 4\)"),
        ({"encoder": nn.Linear(7, 4)}, r"encoder must take rows of shape \(n, 4\); it failed on them"),
        ({"decoder": nn.LSTM(2, 4)}, "two rows gave tuple"),
    ],
)
def test_a_network_of_another_shape_is_refused_with_both_shapes(networks, match):
    with pytest.raises(ValueError, match=match):
        VAE(2, **networks).fit(TABLE, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"latent_dim": 0}, "latent_dim must be a whole number of at least 1; got 0"),
        ({"draws": 1.5}, "draws must be a whole number"),
        (
            {"likelihood": "gauss"},
            "likelihood must be one of 'auto', 'gaussian', 'bernoulli', 'poisson', 'categorical'; got 'gauss'",
        ),
        ({"standardise": True}, "standardise must be one of"),
        ({"patience": -1}, "patience must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        VAE(**settings)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"y": TABLE}, "y must be None"),
        ({"epochs": 0}, "epochs must be"),
        ({"steps": -3}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"validation": "half"}, "validation must be 'auto'"),
        ({"validation": 1.0}, "validation must be a fraction"),
        ({"validation": TABLE[:, :2]}, r"validation must have shape \(n, 4\)"),
    ],
)
def test_ways_of_fitting_that_cannot_be_used_are_refused_by_name(how, match):
    with pytest.raises(ValueError, match=match):
        small().fit(TABLE, **{"progress": False, **how})


@pytest.mark.parametrize("n", [0, -1, 2.0])
def test_the_number_of_samples_must_be_positive(fitted, n):
    with pytest.raises(ValueError, match="n must be a whole number"):
        fitted.sample(n)


def test_an_estimate_needs_two_draws_for_its_error(fitted):
    with pytest.raises(ValueError, match="draws must be a whole number of at least 2; got 1"):
        fitted.log_likelihood(TABLE, draws=1)
