"""Options of a VAE's training, each against what it says, conditions, active units and collapse."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

import probdl
from probdl.families import MeanFieldNormal
from probdl.models import VAE
from probdl.models.elbo import drawn_terms, importance_estimate, log_weights
from probdl.models.variational.activity import Activity, collapse
from probdl.models.variational.objective import Objective
from probdl.nn import MLP, seeded

G = torch.Generator().manual_seed(0)
T = torch.randn(400, 1, generator=G, dtype=torch.float64)
CURVE = torch.cat([T, T**2, T.sin()], 1) + 0.2 * torch.randn(400, 3, generator=G, dtype=torch.float64)
NOISE = torch.randn(300, 4, generator=G, dtype=torch.float64)


def fitted(x=CURVE, latent_dim=1, epochs=60, validation=0.2, condition=None, **settings):
    how = {"hidden": (16,), "learning_rate": 0.01, "dtype": torch.float64, **settings}
    return VAE(latent_dim, **how).fit(x, epochs=epochs, validation=validation, condition=condition, progress=False)


# --- the objective ---


def batch(draws=3, rows=7, d=2):
    """An approximate posterior, draws from it, and any log p(x | z)."""
    q = Independent(Normal(torch.randn(rows, d, generator=G).double(), torch.rand(rows, d, generator=G).double()), 1)
    z = q.base_dist.loc + q.base_dist.scale * torch.randn(draws, rows, d, generator=G).double()
    return q, z, torch.randn(draws, rows, generator=G).double()


def kls(q):
    prior = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    return kl_divergence(q.base_dist, prior)


def test_in_eval_mode_it_is_the_bound_whatever_the_options():
    q, z, log_p = batch()
    bound = -log_p.mean() + kls(q).sum(1).mean()
    bent = Objective(beta=4.0, warm_up=100, free_bits=0.5, weighted=False)
    torch.testing.assert_close(bent.eval()(q, z, log_p)[0], bound)
    assert bent.taken == 0
    assert not math.isclose(bent.train()(q, z, log_p)[0].item(), bound.item())


def test_beta_and_the_warm_up_weigh_the_kl_in_training():
    q, z, log_p = batch()
    kl = kls(q).sum(1).mean()
    objective = Objective(beta=3.0, warm_up=4, free_bits=0.0, weighted=False).train()
    weights = [(objective(q, z, log_p)[0] + log_p.mean()).item() / kl.item() for _ in range(6)]
    np.testing.assert_allclose(weights, [0.75, 1.5, 2.25, 3, 3, 3])
    terms = objective(q, z, log_p)[1]
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(terms["reconstruction"], -log_p.mean())


def test_free_bits_cost_nothing_in_each_dimension_of_the_mean_over_rows():
    q, z, log_p = batch()
    each = kls(q).mean(0)
    free = each.min().item() + 0.01  # above one dimension, below the other
    assert (each > free).sum() == 1
    value = Objective(1.0, 0, free, weighted=False).train()(q, z, log_p)[0] + log_p.mean()
    torch.testing.assert_close(value, each.max() + free)


@pytest.mark.parametrize("train", [True, False])
def test_the_weighted_objective_is_minus_the_log_of_the_mean_weight(train):
    with seeded(0):
        encoder, decoder = MeanFieldNormal(MLP(3, 2)).double(), VAE(1, dtype=torch.float64)
    decoder = decoder.fit(CURVE[:40], epochs=1, progress=False).decoder
    terms = drawn_terms(encoder, decoder, CURVE, 5, torch.Generator().manual_seed(1))
    value = Objective(1.0, 0, 0.0, weighted=True).train(train)(*terms)[0]
    log_w = log_weights(encoder, decoder, CURVE, 5, torch.Generator().manual_seed(1))
    assert value.item() == pytest.approx(-importance_estimate(log_w.detach(), 0.0).value.mean().item(), abs=1e-12)
    torch.testing.assert_close(value, -(log_w.exp().mean(0)).log().mean(), rtol=1e-12, atol=1e-12)
    q, z, log_p = terms
    by_hand = log_p + Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z)
    torch.testing.assert_close(log_w, by_hand, rtol=1e-12, atol=1e-12)


def test_of_one_draw_both_objectives_have_the_same_mean():
    q, _, _ = batch(rows=3)
    g = torch.Generator().manual_seed(0)
    z = q.base_dist.loc + q.base_dist.scale * torch.randn(100_000, 3, 2, generator=g).double()
    log_p = -z.square().sum(-1)
    elbo = Objective(1.0, 0, 0.0, weighted=False).eval()(q, z, log_p)[0]
    weighted = Objective(1.0, 0, 0.0, weighted=True).eval()
    each = torch.stack([weighted(q, z[k : k + 1], log_p[k : k + 1])[0] for k in range(2000)])
    assert abs(each.mean() - elbo) < 5 * each.std() / math.sqrt(2000)


# --- what they do to a fit ---


@pytest.mark.filterwarnings("ignore:Posterior collapse")  # as a large beta makes it
def test_a_loss_with_beta_is_reported_beside_the_bound_that_is_validated():
    vae = fitted(beta=5.0, epochs=30)
    history = vae.history
    np.testing.assert_allclose(history.loss, history.reconstruction + 5 * history.kl, rtol=1e-9)
    held = fitted(beta=5.0, epochs=30, validation=CURVE[:80]).history.validation
    vae = fitted(beta=5.0, epochs=30, validation=CURVE[:80])
    best = held.min()
    # The bound of the best state, by its own draws: it has no weight 5.
    estimate = vae.elbo(CURVE[:80], draws=200)
    assert -estimate.value.mean().item() == pytest.approx(best, abs=0.3)
    assert fitted(epochs=30).history.kl.iloc[-1] > 1.3 * history.kl.iloc[-1]


def test_a_warm_up_begins_near_an_autoencoder_and_outlasts_impatience():
    vae = fitted(kl_warm_up=200, patience=2, epochs=100)  # three steps an epoch
    first = vae.history.iloc[0]
    assert first.loss < first.reconstruction + 0.1 * first.kl
    last = vae.history.iloc[-1]
    assert last.loss == pytest.approx(last.reconstruction + last.kl)
    assert last.step >= 200  # patience begins when the warm-up is over


def test_free_bits_keep_dimensions_in_use_that_would_collapse():
    plain, free = (fitted(NOISE, 2, epochs=80, free_bits=b, validation=None) for b in (0.0, 0.5))
    assert free.history.kl.iloc[-1] > 0.7
    assert plain.history.kl.iloc[-1] < free.history.kl.iloc[-1]


def test_the_weighted_objective_gives_a_likelihood_at_least_as_high_and_learns_its_scale():
    x = torch.cat([T, T], 1).abs() * torch.tensor([1.0, -1.0]) + 0.1 * NOISE[:, :2].repeat(2, 1)[:400]
    found = {}
    for objective in ("elbo", "iwae"):
        vae = fitted(x[:300], objective=objective, draws=8, epochs=80, validation=None, hidden=(8,))
        found[objective] = vae.log_likelihood(x[300:], draws=1000)
    gain = found["iwae"].value - found["elbo"].value
    assert gain.mean() > -3 * gain.std() / 10  # 100 rows
    assert 0.05 < vae.sigma.min() < vae.sigma.max() < 0.3  # the noise has .1


def test_the_weighted_loss_falls_with_the_number_of_draws():
    vae = fitted(epochs=20)
    values = [vae.log_likelihood(CURVE, draws=k, seed=5).value.mean().item() for k in (2, 10, 100)]
    assert vae.elbo(CURVE).value.mean() < values[0] < values[1] < values[2]


def test_the_average_of_the_parameters_is_what_remains():
    plain, averaged = (fitted(epochs=3, ema=e, validation=None) for e in (None, 0.9))
    assert not torch.equal(plain.encode(CURVE), averaged.encode(CURVE))
    np.testing.assert_array_equal(plain.history.loss, averaged.history.loss)  # the training is the same


def test_long_gradients_are_clipped():
    history = fitted(epochs=2, clip=0.01).history
    assert (history.clipped == 1).all()
    assert (history.gradient_norm > 0.01).all()


@pytest.mark.parametrize("how", [{"kl_warm_up": 10, "free_bits": 0.1}, {"objective": "iwae", "draws": 3}, {"ema": 0.9}])
def test_a_fit_that_goes_on_from_a_checkpoint_is_the_uninterrupted_one(how, tmp_path):
    def fit(steps, **more):
        vae = VAE(1, hidden=(8,), dtype=torch.float64, scale="column", **how)
        return vae.fit(CURVE[:100], steps=steps, progress=False, **more)

    fit(5, checkpoint=tmp_path / "run")
    resumed, whole = fit(14, checkpoint=tmp_path / "run", resume=True), fit(14)
    assert torch.equal(resumed.sample(9), whole.sample(9))
    assert torch.equal(resumed.bound.taken, whole.bound.taken)


def test_all_settings_survive_a_file(tmp_path):
    how = {"scale": "column", "beta": 2.0, "kl_warm_up": 3, "free_bits": 0.1, "clip": 5.0, "ema": 0.9, "draws": 2}
    fitted(epochs=2, **how).save(tmp_path / "vae")
    again = VAE.load(tmp_path / "vae")
    assert {name: getattr(again, name) for name in how} == how
    fitted(epochs=2, objective="iwae", scale="network").save(tmp_path / "vae")
    again = VAE.load(tmp_path / "vae")
    assert (again.objective, again.scale) == ("iwae", "network")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"scale": "row"}, "scale must be one of 'shared', 'column', 'network'; got 'row'"),
        ({"objective": "vr"}, "objective must be one of 'elbo', 'iwae'"),
        ({"beta": -1.0}, "beta must be a number of at least 0"),
        ({"free_bits": math.nan}, "free_bits must be a number of at least 0"),
        ({"kl_warm_up": -3}, "kl_warm_up must be a whole number of at least 0"),
        ({"objective": "iwae", "beta": 2.0}, "must be left out for objective='iwae'"),
        ({"objective": "iwae", "free_bits": 0.1}, "must be left out for objective='iwae'"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        VAE(**settings)


# --- conditions ---

LABELS = np.where(T[:, 0] > 0, "right", "left")


def test_given_a_label_a_model_makes_rows_of_that_label():
    vae = fitted(condition=LABELS, epochs=80)
    right, left = (vae.sample(500, condition=c) for c in ("right", "left"))
    assert (right[:, 0] > 0).double().mean() > 0.9
    assert (left[:, 0] < 0).double().mean() > 0.9
    mixed = vae.sample(400, condition=LABELS)
    assert ((mixed[:, 0] > 0).numpy() == (LABELS == "right")).mean() > 0.9
    right_rows = CURVE[LABELS == "right"]
    n = len(right_rows)
    true = vae.log_likelihood(right_rows, condition=["right"] * n)
    false = vae.log_likelihood(right_rows, condition=["left"] * n)
    assert true.value.mean() > false.value.mean() + 1
    assert vae.encode(CURVE, condition=LABELS).shape == (400, 1)
    back = vae.reconstruct(CURVE, condition=LABELS)
    assert (back - CURVE).square().mean() < 0.1 * CURVE.var()


def test_a_conditional_likelihood_is_that_of_the_regression_it_is():
    """x | c ~ N(c β, s² I): there is next to nothing for z to do, and least squares is the answer."""
    c = torch.randn(500, 2, generator=G, dtype=torch.float64)
    x = c @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]).double() + 0.5 * torch.randn(500, 3, generator=G).double()
    vae = fitted(x[:400], condition=c[:400], hidden=(), epochs=150, validation=None, standardise="shared")
    beta = torch.linalg.lstsq(torch.cat([c[:400], torch.ones(400, 1)], 1), x[:400]).solution
    residual = x - torch.cat([c, torch.ones(500, 1)], 1) @ beta
    s = residual[:400].square().mean().sqrt()
    exact = Normal(0.0, s).log_prob(residual[400:]).sum(1)
    found = vae.log_likelihood(x[400:], condition=c[400:]).value
    assert (found - exact).abs().mean() < 0.1
    assert vae.sigma.item() == pytest.approx(s.item(), rel=0.03)


def test_a_model_with_a_condition_asks_for_it_and_one_without_refuses_it():
    with_, without = fitted(condition=LABELS, epochs=1), fitted(epochs=1)
    for name in ("encode", "reconstruct", "log_likelihood", "elbo", "impute", "active_units"):
        with pytest.raises(ValueError, match="condition must be given"):
            getattr(with_, name)(CURVE)
        with pytest.raises(ValueError, match="condition must be left out"):
            getattr(without, name)(CURVE, condition=LABELS)


def test_conditions_missing_entries_and_images_go_together(tmp_path):
    x = torch.rand(60, 1, 8, 8, generator=G)
    x[torch.rand(x.shape, generator=G) < 0.1] = torch.nan
    c = torch.randn(60, 3, generator=G)
    vae = VAE(2, "gaussian", hidden=(4, 4)).fit(x, condition=c, epochs=2, progress=False)
    vae.save(tmp_path / "vae")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probdl.ConvergenceWarning)
        filled = [m.impute(x, 30, condition=c) for m in (vae, VAE.load(tmp_path / "vae"))]
    assert torch.equal(*filled)
    assert filled[0].isfinite().all()
    one = VAE(1, hidden=(4,)).fit(CURVE[:, 0], condition=LABELS, epochs=1, progress=False)
    assert one.sample(3, condition="left").shape == (3,)


# --- active units and collapse ---


def test_active_units_are_those_whose_mean_varies_over_rows():
    vae = fitted(latent_dim=3, epochs=60, free_bits=0.0)
    table = vae.active_units(CURVE)
    codes = vae.encode(CURVE)
    np.testing.assert_allclose(table.variance, codes.var(0))
    fourth = ((codes - codes.mean(0)).square()).std(0, correction=0) / 20
    np.testing.assert_allclose(table.stderr, fourth)
    assert list(table.index) == ["z[0]", "z[1]", "z[2]"]
    assert table.active.tolist() == (codes.var(0) > 0.01).tolist()
    assert table.active.any()
    assert f"{int(vae.active_units(CURVE).active.sum())} of 3 latent dimensions active" in vae.message
    assert isinstance(table, pd.DataFrame)


def test_what_is_active_is_said_by_the_variance_and_not_by_the_kl():
    variance, kl = torch.tensor([0.5, 0.005]), torch.tensor([0.001, 0.5])
    found = Activity(variance, variance / 9, kl, kl / 9)
    assert found.table().active.tolist() == [True, False]
    assert collapse(found, 2) == ("1 of 2 latent dimensions active", None)
    said, warning = collapse(Activity(variance / 100, variance, kl / 100, kl), 2)
    assert said == "0 of 2 latent dimensions active"
    assert "0 of 2" in warning


def test_a_decoder_that_does_without_z_is_a_collapse_and_the_warning_counts():
    with pytest.warns(probdl.ConvergenceWarning, match="Posterior collapse: 0 of 2 latent dimensions are active") as w:
        vae = fitted(NOISE[:, :2], 2, beta=20.0, validation=None)
    assert w[0].filename == __file__
    assert "kl_warm_up=" in str(w[0].message)
    assert vae.active_units(NOISE[:, :2]).kl.max() < 0.01
    assert "0 of 2 latent dimensions active" in vae.message


def test_a_model_that_is_not_learnt_yet_has_not_collapsed(recwarn):
    fitted(epochs=1)
    assert not [w for w in recwarn if issubclass(w.category, probdl.ConvergenceWarning)]


def test_more_latent_dimensions_than_entries_work_and_are_said():
    vae = fitted(latent_dim=7, epochs=40)
    assert "of 7 latent dimensions active (a row has only 3 entries)" in vae.message
    assert vae.sample(5).shape == (5, 3)
    assert vae.active_units(CURVE).active.sum() < 7


def test_fewer_rows_than_a_batch_are_one_batch():
    vae = fitted(CURVE[:11], epochs=5, validation=None)
    assert vae.history.step.tolist() == [1, 2, 3, 4, 5]
