"""Missing entries: what is there alone is scored, and what is not is imputed as the Gaussian conditional says."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal

import probdl
from probdl.models import VAE
from probdl.nn import MLP, seeded

D, Q, N = 5, 2, 2500
G = torch.Generator().manual_seed(0)
W = torch.randn(D, Q, generator=G, dtype=torch.float64)
MEAN, COV = torch.arange(D).double(), W @ W.T + 0.16 * torch.eye(D).double()
FULL = MultivariateNormal(MEAN, COV).mean + torch.randn(N + 300, D, generator=G).double() @ torch.linalg.cholesky(COV).T
HOLES = torch.where(torch.rand(FULL.shape, generator=G) < 0.3, torch.nan, FULL)
HELD = HOLES[N:]
MISSING = HELD.isnan()
FEW = pytest.mark.filterwarnings("ignore:.*effective draws")  # not what these tests are about


def conditional(rows, mean, cov):
    """Rows whose missing entries are E(x_m | x_o) of a normal, and the conditional variances."""
    found, variance = rows.clone(), torch.zeros_like(rows)
    for row, var, there in zip(found, variance, ~rows.isnan()):
        gain = cov[~there][:, there] @ torch.linalg.inv(cov[there][:, there])
        row[~there] = mean[~there] + gain @ (row[there] - mean[there])
        var[~there] = (cov[~there][:, ~there] - gain @ cov[there][:, ~there]).diag()
    return found, variance


def marginal(vae):
    """The normal that a VAE with an affine decoder is, N(C(b + m), C (W Wᵀ + Σ) C)."""
    eye = torch.eye(Q, dtype=torch.float64)
    with torch.no_grad():
        b = vae.decoder.network(0 * eye[:1])[0]
        w = (vae.decoder.network(eye) - b).T
    c = torch.diag(vae.units.scale)
    return c @ b + vae.units.shift, c @ (w @ w.T + torch.diag(vae.decoder.variance.detach())) @ c


@pytest.fixture(scope="module")
def vae():
    with seeded(0):
        decoder = MLP(Q, D, hidden=())
    how = {"hidden": (64,), "learning_rate": 5e-3, "decay": True, "dtype": torch.float64}
    made = VAE(Q, "gaussian", scale="column", decoder=decoder, objective="iwae", draws=20, **how)
    return made.fit(HOLES[:N], epochs=120, validation=None, progress=False)


def test_a_model_fitted_to_incomplete_rows_is_the_normal_that_em_finds(vae):
    mean, cov = marginal(vae)
    em_mean, em_cov = expectation_maximisation(HOLES[:N])
    scale = em_cov.diag().sqrt()
    torch.testing.assert_close(mean / scale, em_mean / scale, rtol=0, atol=0.05)
    torch.testing.assert_close(cov / scale.outer(scale), em_cov / scale.outer(scale), rtol=0, atol=0.05)
    # It is nearer to the truth than what the complete rows alone say, of which there are a sixth.
    complete = HOLES[:N][~HOLES[:N].isnan().any(1)]
    assert len(complete) < 0.2 * N


def expectation_maximisation(x, steps=60):
    """Mean and covariance of a normal by EM on incomplete rows (Little and Rubin, 2002, section 11.2)."""
    patterns = {tuple(r.tolist()): (x.isnan() == r).all(1) for r in x.isnan().unique(dim=0)}
    mean, cov = x.nanmean(0), torch.diag(x.nan_to_num(0.0).var(0))
    for _ in range(steps):
        first, second = torch.zeros(D).double(), torch.zeros(D, D).double()
        for gone, rows in patterns.items():
            m = torch.tensor(gone)
            part, left = x[rows].clone(), torch.zeros(D, D).double()
            gain = cov[m][:, ~m] @ torch.linalg.pinv(cov[~m][:, ~m])
            part[:, m] = mean[m] + (part[:, ~m] - mean[~m]) @ gain.T
            left[m.outer(m)] = (cov[m][:, m] - gain @ cov[~m][:, m]).flatten()
            first += part.sum(0)
            second += part.T @ part + len(part) * left
        mean = first / len(x)
        cov = second / len(x) - mean.outer(mean)
    return mean, cov


def test_the_imputed_mean_is_the_conditional_mean(vae):
    exact, variance = conditional(HELD, *marginal(vae))
    found = vae.impute(HELD, draws=2000, mean=True)
    assert torch.equal(found[~MISSING], HELD[~MISSING])
    z = (found - exact)[MISSING] / variance[MISSING].sqrt()
    # By 2000 draws at an efficiency of about a half the error is .03 standard deviations; rows in the tails have more.
    assert z.square().mean().sqrt() < 0.1
    truth, _ = conditional(HELD, MEAN, COV)
    apart = (found - truth)[MISSING].square().mean().sqrt()
    assert apart < 0.15 * (FULL[N:] - truth)[MISSING].square().mean().sqrt()


@pytest.mark.filterwarnings("ignore:.*Early stopping criterion")  # of theirs
def test_scikit_learn_s_imputation_is_no_nearer_to_what_was_removed(vae):
    """Chained regressions, fitted to the same rows: for normal data they find the conditional mean too."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    theirs = torch.tensor(IterativeImputer(max_iter=20, random_state=0).fit(HOLES[:N].numpy()).transform(HELD.numpy()))
    ours = vae.impute(HELD, draws=1000, mean=True)
    truth = FULL[N:]
    difference = ((ours - truth).square() - (theirs - truth).square())[MISSING]
    # About 450 entries: worse by chance with probability 1e-3, one-sided.
    assert difference.mean() < 3 * difference.std() / len(difference) ** 0.5
    torch.testing.assert_close(ours[MISSING], theirs[MISSING], rtol=0, atol=1.0)


def test_imputed_draws_have_the_mean_and_the_spread_of_the_conditional(vae):
    exact, variance = conditional(HELD, *marginal(vae))
    draws = torch.stack([vae.impute(HELD, draws=300, seed=s) for s in range(40)])
    assert (draws[:, ~MISSING] == HELD[~MISSING]).all()
    z = (draws - exact)[:, MISSING] / variance[MISSING].sqrt()
    # About 450 entries by 40 draws: the mean z has a standard error below .02, the mean square below .03.
    assert z.mean().abs() < 0.1
    assert z.square().mean().item() == pytest.approx(1, abs=0.15)


def test_the_likelihood_is_that_of_what_is_there(vae):
    mean, cov = marginal(vae)
    exact = [MultivariateNormal(mean[o], cov[o][:, o]).log_prob(r[o]) if o.any() else 0.0
             for r, o in zip(HELD, ~MISSING)]  # fmt: skip
    estimate = vae.log_likelihood(HELD, draws=500)
    z = (estimate.value - torch.tensor(exact)) / estimate.stderr.clamp(min=1e-9)
    # 300 rows: the standard error of the mean is .06, and the estimate is biased by half a stderr² at most.
    assert abs(z.mean()) < 0.4
    assert 0.8 < z.std() < 1.3
    assert estimate.ess.shape == (300,)
    assert ((estimate.ess >= 1) & (estimate.ess <= 500)).all()
    expected = 500 / (1 + 499 * estimate.stderr**2)  # the two say the same of the weights
    torch.testing.assert_close(estimate.ess, expected)
    bound = vae.elbo(HELD)
    assert bound.value.mean() < estimate.value.mean()


def test_a_row_with_nothing_there_has_likelihood_one_and_is_imputed_from_the_model(vae):
    empty = torch.full((400, D), torch.nan, dtype=torch.float64)
    assert vae.log_likelihood(empty, 300).value.abs().max() < 0.5
    drawn, (mean, cov) = vae.impute(empty, draws=200), marginal(vae)
    # Draws of 400 rows: 5 entries, P(some |z| > 5) < 3e-6, and as much again for the weights' own error.
    assert ((drawn.mean(0) - mean).abs() < 10 * (cov.diag() / 400).sqrt()).all()


def test_a_model_of_complete_rows_imputes_too_and_says_when_it_is_unsure():
    vae = VAE(Q, "gaussian", scale="column", hidden=(), dtype=torch.float64)
    vae.fit(FULL[:N], epochs=30, progress=False)
    assert not vae.masked
    exact, variance = conditional(HELD, *marginal(vae))
    with pytest.warns(probdl.ConvergenceWarning, match=r"fewer than 10 effective draws of 30; .*Fit with missing"):
        vae.impute(HELD, draws=30)
    with pytest.warns(probdl.ConvergenceWarning):
        found = vae.impute(HELD, draws=20_000, mean=True)
    z = (found - exact)[MISSING] / variance[MISSING].sqrt()
    assert z.abs().median() < 0.15


def test_rows_that_are_complete_are_returned_as_they_are(vae, recwarn):
    assert torch.equal(vae.impute(FULL[:5]), FULL[:5])
    assert not recwarn.list


@FEW
def test_the_same_seed_imputes_the_same(vae):
    assert torch.equal(vae.impute(HELD, 50, seed=3), vae.impute(HELD, 50, seed=3))
    assert not torch.equal(vae.impute(HELD, 50, seed=3), vae.impute(HELD, 50, seed=4))


def test_results_for_incomplete_rows_are_finite_and_deterministic(vae):
    for call in (vae.encode, vae.reconstruct):
        assert call(HELD).isfinite().all()
        assert torch.equal(call(HELD), call(HELD))
    assert vae.sample(10).isfinite().all()


FRAME = pd.DataFrame(
    {
        "a": FULL[:300, 0].numpy(),
        "town": np.where(FULL[:300, 0] > 0, "up", "down"),
        "visits": torch.poisson(FULL[:300, 1].clamp(min=0.1)).numpy(),
        "b": FULL[:300, 1].float().numpy(),
    },
    index=[f"p{i}" for i in range(300)],
)


@FEW
def test_a_table_is_completed_in_its_columns_types_and_index():
    holes = FRAME.copy()
    for k, column in enumerate(FRAME):
        holes.loc[holes.index[k::7], column] = None
    vae = VAE(2, {"visits": "poisson"}, hidden=(16,), learning_rate=0.01).fit(holes, epochs=60, progress=False)
    for mean in (False, True):
        filled = vae.impute(holes, mean=mean)
        assert filled.index.equals(FRAME.index)
        assert (filled.dtypes == holes.dtypes).all()
        assert not filled.isna().any().any()
        there = holes.notna()
        pd.testing.assert_frame_equal(filled.where(there), holes.where(there), check_dtype=False)
    drawn = vae.impute(holes)
    assert (drawn.visits == drawn.visits.round()).all()
    gone = holes.town.isna()
    # a tells the town but where a is missing too; by chance it would be a half, 43 rows: P(> .75) < 1e-3.
    assert (vae.impute(holes, mean=True).town[gone] == FRAME.town[gone]).mean() > 0.75
    assert isinstance(vae.impute(holes.drop(columns=[])), pd.DataFrame)


@FEW
def test_observed_entries_keep_their_last_bit_and_their_type(vae):
    plain = VAE(1, hidden=(4,)).fit(HOLES[:200].float(), epochs=1, progress=False)
    for x in (HOLES[:200], HOLES[:200].float()):
        filled = plain.impute(x, 20)
        assert filled.dtype == x.dtype
        assert torch.equal(filled[~x.isnan()], x[~x.isnan()])
    assert isinstance(plain.impute(HOLES[:9].numpy(), 20), torch.Tensor)


@FEW
@pytest.mark.parametrize("shape", [(), (4,), (1, 6, 6), (3, 4)])
def test_rows_of_any_shape_may_have_missing_entries(shape, tmp_path):
    x = torch.randn(60, *shape, generator=torch.Generator().manual_seed(0))
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.2] = torch.nan
    vae = VAE(2, "gaussian", hidden=(4, 4)).fit(x, epochs=2, progress=False)
    assert vae.masked
    assert vae.impute(x, 20).shape == x.shape
    assert vae.impute(x, 20).isfinite().all()
    vae.save(tmp_path / "vae")
    again = VAE.load(tmp_path / "vae")
    assert torch.equal(again.impute(x, 20), vae.impute(x, 20))
    assert torch.equal(again.log_likelihood(x, 5).value, vae.log_likelihood(x, 5).value)


def test_an_encoder_of_ones_own_gets_which_entries_are_there():
    seen = []

    class Watched(MLP):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    VAE(2, encoder=Watched(2 * D, 4, hidden=(8,))).fit(HOLES[:50], epochs=1, validation=None, progress=False)
    u, mask = seen[-1].chunk(2, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (u[mask == 0] == 0).all()
    with pytest.raises(ValueError, match=r"encoder must .*\(n, 10\)"):
        VAE(2, encoder=MLP(D, 4, hidden=(8,))).fit(HOLES[:50], epochs=1, progress=False)


def test_holes_in_validation_alone_count_too():
    vae = VAE(1, hidden=(8,)).fit(FULL[:100], validation=HOLES[:50], epochs=2, progress=False)
    assert vae.masked
    assert vae.history.validation.notna().all()


def test_a_column_without_any_entry_is_named():
    holes = FRAME.assign(b=np.nan)
    with pytest.raises(ValueError, match=r"all training rows lack columns \['b'\]"):
        VAE(1).fit(holes, epochs=1, progress=False)
    x = (FULL[:50] > 0).double()
    x[:, 3] = torch.nan
    with pytest.raises(ValueError, match=r"all training rows lack columns \[3\]"):
        VAE(1, "bernoulli").fit(x, epochs=1, progress=False)


@pytest.mark.parametrize("draws", [1, 0, 2.5])
def test_an_imputation_needs_two_draws(vae, draws):
    with pytest.raises(ValueError, match="draws must be a whole number of at least 2"):
        vae.impute(HELD, draws)
