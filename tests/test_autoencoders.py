"""Autoencoders against what is known: principal components, soft thresholds, adjoints, best linear denoisers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

import probdl
from probdl.models import Autoencoder, DenoisingAutoencoder, KSparseAutoencoder, LinearAutoencoder, SparseAutoencoder
from probdl.models.autoencoders.corruption import Corruption
from probdl.models.autoencoders.k_sparse import largest
from probdl.models.autoencoders.linear import compressed
from probdl.models.autoencoders.sparse import bernoulli_kl
from probdl.models.autoencoders.tied import Transposed
from probdl.nn import CNN, MLP

DIGITS = torch.tensor(load_digits().images[:, None] / 16)
CANCER, WINE = torch.tensor(load_breast_cancer().data), torch.tensor(load_wine().data)
DOUBLE = {"dtype": torch.float64}


def normal(n, covariance, seed=0):
    noise = torch.randn(n, len(covariance), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = noise @ torch.linalg.cholesky(covariance).T
    x = x - x.mean(0)  # with exactly this covariance, so that optima are known without sampling error
    root = torch.linalg.cholesky(x.T @ x / n)
    return x @ torch.linalg.inv(root).T @ torch.linalg.cholesky(covariance).T


COVARIANCE = torch.tensor([[2.0, 1.2, 0.3], [1.2, 1.0, 0.0], [0.3, 0.0, 0.5]], dtype=torch.float64)


# --- linear ---


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("x", "k", "standardise"), [(DIGITS, 10, "shared"), (DIGITS, 2, "none"), (CANCER, 2, "shared"), (WINE, 3, "column")]
)
def test_the_linear_autoencoder_loses_the_discarded_eigenvalues(x, k, standardise, tied, device):
    model = LinearAutoencoder(k, tied=tied, standardise=standardise).fit(x, device=device, progress=False)
    rows = x.flatten(1)
    scale = rows.std(0, correction=0) if standardise == "column" else torch.ones(rows.shape[1])
    lost = ((x - model.reconstruct(x)).flatten(1) / scale).square().sum(1).mean()
    discarded = np.linalg.eigvalsh(np.cov((rows / scale).T.numpy(), bias=True))[:-k].sum()
    assert lost.item() == pytest.approx(discarded, rel=1e-4)


def test_a_plain_call_reaches_the_eigenvalues_of_the_course_within_a_ten_thousandth():
    for k in (2, 10, 20):
        model = LinearAutoencoder(k).fit(DIGITS, progress=False)
        lost = (DIGITS - model.reconstruct(DIGITS)).square().sum((1, 2, 3)).mean()
        discarded = np.linalg.eigvalsh(np.cov(DIGITS.flatten(1).T.numpy(), bias=True))[:-k].sum()
        assert lost.item() == pytest.approx(discarded, rel=1e-4)


def test_tied_weights_are_orthonormal_and_span_the_leading_eigenvectors():
    model = LinearAutoencoder(5, **DOUBLE).fit(DIGITS, progress=False)
    w, theirs = model.components.flatten(1), torch.tensor(PCA(5).fit(DIGITS.flatten(1)).components_)
    torch.testing.assert_close(w @ w.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.svdvals(w @ theirs.T), torch.ones(5).double(), rtol=0, atol=1e-6)
    assert not torch.allclose(w.abs(), theirs.abs(), atol=0.01)  # a rotation of them, as good as they


@pytest.mark.parametrize("tied", [True, False])
def test_reconstructions_are_those_of_principal_components(tied):
    model = LinearAutoencoder(4, tied=tied, **DOUBLE).fit(WINE[:, 1:7], progress=False)
    pca = PCA(4).fit(WINE[:, 1:7])
    theirs = torch.tensor(pca.inverse_transform(pca.transform(WINE[:, 1:7])))
    torch.testing.assert_close(model.reconstruct(WINE[:, 1:7]), theirs, rtol=1e-3, atol=1e-2)
    errors = (WINE[:, 1:7] - theirs).square().sum(1) / model.units.scale**2
    torch.testing.assert_close(model.anomaly_score(WINE[:, 1:7]), errors, rtol=1e-2, atol=1e-3)


def test_no_rows_are_held_back_unless_it_is_asked_for():
    x = torch.cat([torch.randn(40, 3), 100 * torch.ones(1, 3)])  # one row decides about the first component
    model = LinearAutoencoder(1).fit(x, progress=False)
    assert "nothing was held out" in model.message
    assert abs(model.components.sum()) == pytest.approx(math.sqrt(3), rel=1e-3)
    assert LinearAutoencoder(1).fit(x, validation=0.5, steps=80, progress=False).history.validation.notna().all()


def test_batches_of_ones_own_keep_the_loss_above_its_minimum():
    x = DIGITS[:500]
    far = LinearAutoencoder(10).fit(x, batch_size=50, epochs=40, progress=False)
    near = LinearAutoencoder(10).fit(x, progress=False)
    assert near.history.step.iloc[-1] == 3000
    assert far.history.step.iloc[-1] == 400
    assert far.anomaly_score(x).mean() > 1.00003 * near.anomaly_score(x).mean()  # near's own excess is below 1e-6


def test_a_fit_that_did_not_arrive_warns_and_says_what_helps():
    with pytest.warns(probdl.ConvergenceWarning, match="above the sum of the discarded eigenvalues.*standardise='col"):
        LinearAutoencoder(10).fit(CANCER, progress=False)  # eigenvalues from 4e5 down to 1e-6
    with pytest.warns(probdl.ConvergenceWarning, match="more steps"):
        model = LinearAutoencoder(2).fit(DIGITS, steps=10, progress=False)
    assert "exceeds the sum of the discarded eigenvalues by" in model.message


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**30))
def test_compressed_rows_have_the_same_loss_under_every_map(n, d, seed):
    g = torch.Generator().manual_seed(seed)
    x, a = torch.randn(n, d, generator=g).double(), torch.randn(d, d, generator=g).double()
    few = compressed(x)
    assert len(few) == min(n, d)
    torch.testing.assert_close((few @ a).square().sum(1).mean(), (x @ a).square().sum(1).mean())


# --- deep and tied ---


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (MLP(7, 3, hidden=(5, 4), activation=nn.Identity), (7,)),
        (CNN((2, 9, 6), 3, channels=(4, 5), hidden=(6,), activation=nn.Identity), (2, 9, 6)),
        (
            nn.Sequential(nn.Conv2d(1, 3, (3, 2), stride=(2, 3), padding=(0, 1)), nn.Flatten(), nn.LazyLinear(2)),
            (1, 7, 8),
        ),
    ],
)
def test_a_tied_decoder_is_the_adjoint_of_its_encoder(encoder, shape):
    encoder = encoder.double()
    encoder(torch.zeros(1, *shape).double())
    decoder = Transposed(encoder, shape).double()
    for name, p in [*encoder.named_parameters(), *decoder.named_parameters()]:
        if "bias" in name:
            nn.init.zeros_(p)
    x, y = torch.randn(2, 5, *shape).double()
    z = torch.randn(5, encoder(x).shape[1]).double()
    torch.testing.assert_close((encoder(x) * z).flatten(1).sum(1), (x * decoder(z)).flatten(1).sum(1))
    assert decoder(z).shape == y.shape


def test_a_tied_autoencoder_has_one_set_of_weights_also_after_the_fit():
    model = Autoencoder(2, tied=True, hidden=(6,), **DOUBLE).fit(WINE, epochs=3, progress=False)
    assert sum(p.numel() for p in model.parameters()) == (13 * 6 + 6 * 2) + (6 + 2) + (6 + 13)
    first, last = model.encoder.layers[0], model.encoder.layers[2]
    z = model.encode(WINE)
    by_hand = (z @ last.weight + model.decoder.biases[0]).relu() @ first.weight + model.decoder.biases[1]
    torch.testing.assert_close(model.reconstruct(WINE), model.units.outward(by_hand))
    before = first.weight.detach().clone()
    model.fit(WINE, epochs=5, progress=False)
    assert not torch.equal(before, model.encoder.layers[0].weight)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("shape", "hidden", "epochs"), [((1, 8, 8), (16, 32), 60), ((8, 8), None, 150)])
def test_deep_autoencoders_beat_principal_components(shape, hidden, epochs, tied):
    x = DIGITS[:300].reshape(-1, *shape)
    model = Autoencoder(2, tied=tied, hidden=hidden, learning_rate=5e-3)
    model.fit(x, epochs=epochs, batch_size=32, validation=None, progress=False)
    error = (x - model.reconstruct(x)).square().flatten(1).sum(1).mean().item()
    of_components = np.linalg.eigvalsh(np.cov(x.flatten(1).T.numpy(), bias=True))[:-2].sum()
    assert error < 0.85 * of_components


def test_the_loss_is_the_squared_error_summed_over_a_row_in_standardised_units():
    model = Autoencoder(2, hidden=(4,), learning_rate=1e-12, decay=False, **DOUBLE)
    model.fit(WINE, epochs=1, batch_size=178, validation=None, progress=False)
    u = (WINE - WINE.mean(0)) / WINE.std(0, correction=0)
    v = (model.reconstruct(WINE) - WINE.mean(0)) / WINE.std(0, correction=0)
    errors = (u - v).square().sum(1)
    assert model.history.loss.iloc[0] == pytest.approx(errors.mean().item(), rel=1e-6)
    torch.testing.assert_close(model.anomaly_score(WINE), errors)


def test_a_row_unlike_the_others_has_the_largest_score():
    t = torch.linspace(-2, 2, 300, dtype=torch.float64)
    curve = torch.stack([t, t**2], 1)
    strange = torch.tensor([[0.0, 3.0], [1.5, 0.0]], dtype=torch.float64)  # inside the range of either column
    model = Autoencoder(1, learning_rate=5e-3, **DOUBLE).fit(curve, epochs=100, progress=False)
    assert model.anomaly_score(strange).min() > 3 * model.anomaly_score(curve).max()


# --- sparse ---


def test_the_sparse_autoencoder_of_numbers_is_the_m_estimator_of_huber():
    """The best code is soft thresholding about the bias c, whose loss in c is Huber's: min_v (x − c − v)² + λ|v|."""
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = SparseAutoencoder(6, weight=1.0, learning_rate=0.02, standardise="none", **DOUBLE)
    model.fit(x, steps=1500, batch_size=400, validation=None, progress=False)

    def loss(c):
        return torch.where((x - c).abs() > 0.5, (x - c).abs() - 0.25, (x - c).square()).mean().item()

    best = minimize_scalar(loss, bounds=(-1, 1), method="bounded", options={"xatol": 1e-10})
    assert model.history.loss.iloc[-1] == pytest.approx(best.fun, rel=1e-3)
    soft = best.x + (x - best.x).sign() * ((x - best.x).abs() - 0.5).clamp_min(0)
    torch.testing.assert_close(model.reconstruct(x), soft, rtol=0, atol=0.01)


def test_the_penalty_does_not_change_when_codes_shrink_and_atoms_grow():
    x = DIGITS.flatten(1)
    model = SparseAutoencoder(80, **DOUBLE, standardise="shared").fit(x, steps=50, progress=False)
    u = model._inward(x)
    before = model._loss((u,), None)[1]["penalty"]
    with torch.no_grad():
        layer = model.encoder.layers[0]
        layer.weight.mul_(0.1), layer.bias.mul_(0.1), model.decoder.layers[0].weight.mul_(10)
    torch.testing.assert_close(model._loss((u,), None)[1]["penalty"], before)
    assert before > 0.1


@pytest.mark.parametrize("target", [0.05, 0.2])
def test_under_kl_the_mean_of_each_entry_comes_near_its_target(target):
    model = SparseAutoencoder(30, penalty="kl", target=target, weight=50.0, standardise="shared")
    codes = model.fit(DIGITS[:400].flatten(1), epochs=100, validation=None, progress=False).encode(
        DIGITS[:400].flatten(1)
    )
    assert ((codes > 0) & (codes < 1)).all()
    assert (codes.mean(0) - target).abs().max() < 0.3 * target
    assert codes.std(0).min() > 0.02  # the entries still differ between rows


def test_a_larger_weight_leaves_fewer_entries_and_more_error():
    found = []
    for weight in (0.1, 1.0):
        model = SparseAutoencoder(80, weight=weight, standardise="shared")
        model.fit(DIGITS[:500].flatten(1), epochs=60, progress=False)
        x = DIGITS[500:800].flatten(1)
        found.append(((model.encode(x) > 0).double().mean().item(), model.anomaly_score(x).mean().item()))
    assert found[1][0] < 0.6 * found[0][0]
    assert found[1][1] > found[0][1]


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_divergence_of_coins_is_that_of_torch(rho, mean):
    ours = bernoulli_kl(rho, torch.tensor(mean, dtype=torch.float64))
    theirs = kl_divergence(Bernoulli(torch.tensor(rho).double()), Bernoulli(torch.tensor(mean).double()))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_atoms_add_up_to_the_reconstruction():
    x = DIGITS[:200]
    model = SparseAutoencoder(70, **DOUBLE).fit(x, epochs=2, progress=False)
    u = torch.einsum("nk,kchw->nchw", model.encode(x), model.atoms) + model.decoder.layers[0].bias.reshape(1, 8, 8)
    torch.testing.assert_close(model.units.outward(u).detach(), model.reconstruct(x))
    own = SparseAutoencoder(70, decoder=nn.Linear(70, 13)).fit(WINE, epochs=1, progress=False)
    with pytest.raises(ValueError, match="atoms are those of an affine decoder"):
        _ = own.atoms


# --- k-sparse ---


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**30))
def test_the_largest_entries_are_kept_as_sorting_finds_them(k, seed):
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    kept = largest(z, k)
    for row, before in zip(kept, z):
        order = sorted(range(6), key=lambda i: -before[i])
        assert all(row[i] == (before[i] if i in order[:k] else 0) for i in range(6))


def test_k_sparse_with_all_entries_is_the_linear_autoencoder():
    x = DIGITS[:500].flatten(1)
    model = KSparseAutoencoder(5, k=5, standardise="shared", learning_rate=0.02, **DOUBLE)
    model.fit(x, steps=1500, batch_size=500, validation=None, progress=False)
    discarded = np.linalg.eigvalsh(np.cov(x.T.numpy(), bias=True))[:-5].sum()
    assert (x - model.reconstruct(x)).square().sum(1).mean().item() == pytest.approx(discarded, rel=1e-3)


def test_k_sparse_finds_the_lines_that_data_lie_on():
    """Each row is a positive multiple of one of six orthonormal atoms: one entry says it all."""
    g = torch.Generator().manual_seed(1)
    atoms = torch.linalg.qr(torch.randn(10, 6, generator=g, dtype=torch.float64))[0].T
    which = torch.randint(6, (600,), generator=g)
    x = (1 + 2 * torch.rand(600, 1, generator=g, dtype=torch.float64)) * atoms[which]
    model = KSparseAutoencoder(12, k=1, standardise="none", learning_rate=0.01, **DOUBLE)
    model.fit(x, epochs=200, batch_size=60, progress=False)
    assert model.anomaly_score(x).mean() < 0.02 * x.square().sum(1).mean()
    codes = model.encode(x)
    assert ((codes != 0).sum(1) == 1).all()
    used = [codes[which == j].abs().sum(0).argmax().item() for j in range(6)]
    assert len(set(used)) == 6


def test_codes_have_alpha_k_entries_and_reconstructions_use_k():
    model = KSparseAutoencoder(20, k=3, alpha=1.5, **DOUBLE).fit(WINE, epochs=3, progress=False)
    codes = model.encode(WINE)
    assert (codes != 0).sum(1).unique().tolist() == [5]
    torch.testing.assert_close(model.reconstruct(WINE), model.units.outward(model.decoder(largest(codes, 3))).detach())


def test_k_falls_from_all_entries_to_k_over_the_first_half_of_the_steps(monkeypatch):
    from probdl.models.autoencoders import k_sparse

    seen = []
    real = k_sparse.largest
    monkeypatch.setattr(k_sparse, "largest", lambda z, k: seen.append(k) or real(z, k))
    KSparseAutoencoder(20, k=4).fit(WINE, steps=20, batch_size=178, validation=None, progress=False)
    assert seen == [round(20 - 16 * min(1.0, step / 10)) for step in range(1, 21)]


# --- denoising ---


def affine(d, noise, level, x, **how):
    nets = {"encoder": nn.Linear(d, d), "decoder": nn.Linear(d, d)}
    for net in nets.values():
        nn.init.eye_(net.weight)
    model = DenoisingAutoencoder(d, noise=noise, level=level, **nets, standardise="none", learning_rate=0.01, **DOUBLE)
    return model.fit(x, steps=2000, batch_size=1000, validation=None, progress=False, **how)


def test_a_linear_net_learns_the_best_linear_denoiser_of_gaussian_noise():
    s = 0.8
    model = affine(3, "gaussian", s, normal(4000, COVARIANCE))
    best = COVARIANCE @ torch.linalg.inv(COVARIANCE + s**2 * torch.eye(3))
    with torch.no_grad():
        learnt = (model.decoder.weight @ model.encoder.weight).T
    # From 2 million noisy rows in all; the last, at a small rate, count most. Sampling error about .01.
    torch.testing.assert_close(learnt, best.T, rtol=0, atol=0.04)
    y = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(model.reconstruct(y), y @ best.T, rtol=0, atol=0.15)


def test_a_linear_net_learns_the_best_linear_filler_of_masked_entries():
    p = 0.3
    model = affine(3, "masking", p, normal(4000, COVARIANCE))
    second = (1 - p) ** 2 * COVARIANCE + p * (1 - p) * COVARIANCE.diag().diag()
    best = (1 - p) * COVARIANCE @ torch.linalg.inv(second)
    with torch.no_grad():
        learnt = model.decoder.weight @ model.encoder.weight
    torch.testing.assert_close(learnt, best, rtol=0, atol=0.06)


def test_a_bottleneck_keeps_the_leading_directions_and_shrinks_them():
    s = 0.8
    model = DenoisingAutoencoder(
        1, level=s, encoder=nn.Linear(3, 1), decoder=nn.Linear(1, 3), standardise="none", learning_rate=0.01, **DOUBLE
    ).fit(normal(4000, COVARIANCE), steps=2000, batch_size=1000, validation=None, progress=False)
    values, vectors = torch.linalg.eigh(COVARIANCE)
    best = values[2] / (values[2] + s**2) * torch.outer(vectors[:, 2], vectors[:, 2])
    with torch.no_grad():
        torch.testing.assert_close(model.decoder.weight @ model.encoder.weight, best, rtol=0, atol=0.05)


@pytest.mark.parametrize(("noise", "level"), [("gaussian", 0.7), ("masking", 0.3), ("salt_and_pepper", 0.4)])
def test_noise_has_the_law_that_it_says(noise, level):
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = DenoisingAutoencoder(2, noise=noise, level=level, **DOUBLE).fit(x, steps=1, validation=None, progress=False)
    many = x.repeat(800, 1)  # 160,000 entries: four standard errors of a share are .005, P < 1e-4
    noisy = model.corrupt(many)
    if noise == "gaussian":
        z = (noisy - many) / x.std(0, correction=0) / level
        assert abs(z.mean()) < 0.01
        assert abs(z.std() - 1) < 0.0075
        assert abs(z.pow(4).mean() - 3) < 0.1
        return
    hit = (noisy - many).abs() > 1e-9
    assert abs(hit.double().mean() - level) < (
        0.006 if noise == "masking" else 0.016
    )  # 1 in 25 is the largest or smallest already, half of which stay
    values = [x.mean(0)] if noise == "masking" else [x.amin(0), x.amax(0)]
    for j in range(4):
        got = noisy[hit[:, j], j]
        shares = [(got - v[j]).abs().lt(1e-9).double().mean().item() for v in values]
        assert sum(shares) == pytest.approx(1)
        assert shares[0] == pytest.approx(1 / len(values), abs=0.03)


def test_the_range_of_an_image_is_that_of_all_its_pixels():
    model = DenoisingAutoencoder(8, noise="salt_and_pepper", level=1.0, hidden=(4, 4)).fit(
        DIGITS[:100], steps=1, progress=False
    )
    found = model.corrupt(DIGITS[:50]).unique()
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)


def test_a_category_is_masked_as_a_whole():
    noisy = Corruption("masking", 0.5, (4,), [0, 1, 1, 1])(torch.ones(400, 4), torch.Generator().manual_seed(0))
    assert (noisy[:, 1:] == noisy[:, 1:2]).all()
    assert 100 < (noisy[:, 0] != noisy[:, 1]).sum() < 300  # independent columns: half of the rows, P < 1e-20


def test_each_step_sees_new_noise_and_reconstruct_adds_none():
    model = DenoisingAutoencoder(2, level=1.0, hidden=(4,), learning_rate=1e-12, decay=False, **DOUBLE)
    model.fit(WINE, steps=4, batch_size=178, validation=None, progress=False)
    assert model.history.loss.nunique() == 4
    torch.testing.assert_close(model.reconstruct(WINE), model.units.outward(model.decoder(model.encode(WINE))).detach())


def test_noisy_digits_come_back_cleaner_than_by_the_best_linear_map():
    """The Wiener filter knows the covariance of the training images; the network is not linear."""
    u = (DIGITS - DIGITS[:1400].mean()) / DIGITS[:1400].std(correction=0)
    model = DenoisingAutoencoder(64, level=1.0, hidden=(256,), learning_rate=1e-3, standardise="shared")
    model.fit(DIGITS[:1400].flatten(1), epochs=150, progress=False)
    clean = DIGITS[1400:].flatten(1)
    noisy = model.corrupt(clean)
    u, v = u[:1400].flatten(1), model._inward(noisy).double()
    covariance = torch.cov(u.T, correction=0)
    wiener = (v - u.mean(0)) @ torch.linalg.solve(covariance + torch.eye(64), covariance) + u.mean(0)
    linear = (model.units.outward(wiener) - clean).square().sum(1)
    ours = (model.reconstruct(noisy) - clean).square().sum(1)
    difference = linear - ours  # on 397 held-out images; four standard errors, P < 1e-4
    assert difference.mean() > 4 * difference.std() / math.sqrt(len(difference))


def test_the_loss_under_kl_is_that_of_the_lecture_notes():
    model = SparseAutoencoder(20, penalty="kl", weight=2.0, target=0.1, weight_decay=0.3, learning_rate=1e-12, **DOUBLE)
    model.fit(WINE, epochs=1, batch_size=178, validation=None, progress=False)
    means = model.encode(WINE).mean(0)
    divergence = kl_divergence(Bernoulli(torch.full_like(means, 0.1)), Bernoulli(means)).sum()
    weights = sum(layer.weight.square().sum() for net in (model.encoder, model.decoder) for layer in net.layers)
    penalty = (2 * divergence + 0.15 * weights).item()
    assert model.history.penalty.iloc[0] == pytest.approx(penalty, rel=1e-6)
    assert model.history.loss.iloc[0] == pytest.approx(model.anomaly_score(WINE).mean().item() + penalty, rel=1e-6)
