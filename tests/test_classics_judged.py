"""The classical models and a VAE, fitted to the same rows, are judged by the same functions."""

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA as Theirs

from probdl import data, divergences
from probdl.models import KDE, PCA, VAE, GaussianMixture, evaluate

X, Y = data.breast_cancer(as_frame=True)
ROWS = X[Y == 1].iloc[:, [0, 2, 5, 7]].sample(frac=1, random_state=0)  # four measurements of benign tumours
TRAIN, HELD = ROWS[:257], ROWS[257:]
NAMES = ("KDE", "PCA", "mixture", "VAE")


@pytest.fixture(scope="module")
def models():
    made = {"KDE": KDE("scott"), "PCA": PCA(2), "mixture": GaussianMixture((1, 2)), "VAE": VAE(2, hidden=(16,))}
    made["VAE"].fit(TRAIN, steps=600, progress=False)
    return made | {name: model.fit(TRAIN) for name, model in made.items() if name != "VAE"}


@pytest.fixture(scope="module")
def table(models):
    """One table of all of them, and of rows whose columns were shuffled, each for itself."""
    torn = TRAIN.apply(lambda column: column.sample(frac=1, random_state=len(column.name)).to_numpy())
    measures = ["energy", "coverage", "log_likelihood"]
    return evaluate({**models, "torn": torn}, HELD, train=TRAIN, measures=measures).table


def test_one_table_has_all_of_them_by_the_same_measures(table):
    for measure in ("energy", "coverage"):
        assert set(table.loc[measure].index) == {*NAMES, "torn"}
    assert set(table.loc["log_likelihood"].index) == set(NAMES)
    assert table["value"].notna().all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_each_model_are_nearer_to_held_out_rows_than_independent_columns_are(table, name):
    assert table.loc[("energy", name), "value"] < table.loc[("energy", "torn"), "value"]


def test_held_out_likelihoods_are_those_of_scipy_and_scikit_learn(table, models):
    found = table.loc["log_likelihood", "value"]
    assert found["KDE"] == pytest.approx(gaussian_kde(TRAIN.to_numpy().T).logpdf(HELD.to_numpy().T).mean(), abs=1e-9)
    shift, scale = TRAIN.mean(), TRAIN.std(ddof=0)
    theirs = Theirs(2).fit((TRAIN - shift) / scale).score((HELD - shift) / scale) - np.log(scale).sum()
    assert found["PCA"] == pytest.approx(theirs, abs=1e-9)
    law = models["mixture"].distribution
    assert found["mixture"] == pytest.approx(float(law.log_prob(torch.tensor(HELD.to_numpy())).mean()), abs=1e-9)
    assert found["VAE"] > found["PCA"] - 1  # with its network it may bend, and need not


@pytest.mark.parametrize("name", NAMES)
def test_compare_takes_what_each_model_draws(models, name):
    found = divergences.compare(HELD, models[name].sample(100, seed=1), divergences=[divergences.energy]).table
    far = divergences.compare(HELD, models[name].sample(100, seed=1) + 2 * HELD.std(), divergences=[divergences.energy])
    assert far.table["value"].iloc[0] > found["value"].iloc[0] + 3 * found["reference_sd"].iloc[0]
    assert far.table["p_value"].iloc[0] < 0.02


@pytest.mark.parametrize("name", ["KDE", "mixture"])
def test_compare_takes_the_distribution_of_those_that_have_one(models, name):
    law, held = models[name].distribution, torch.tensor(HELD.to_numpy())
    found = divergences.compare(held, law, divergences=[divergences.energy, divergences.mmd2]).table
    assert found["value"].notna().all()
    far = divergences.compare(held + 2 * held.std(0), law, divergences=[divergences.energy, divergences.mmd2]).table
    assert (far["value"] > found["value"] + 3 * found["reference_sd"]).all()
    torch.testing.assert_close(law.log_prob(held), models[name].log_prob(HELD), rtol=1e-9, atol=1e-9)


def test_the_divergence_of_one_from_the_other_is_the_mean_of_their_log_ratio(models):
    p, q = models["KDE"], models["mixture"]
    found = divergences.kl(p.distribution, q.distribution, draws=4000)
    x = p.sample(4000, seed=9)
    ratio = p.log_prob(x) - q.log_prob(x)
    error = (found.stderr**2 + float(ratio.var()) / 4000) ** 0.5
    assert found.value == pytest.approx(float(ratio.mean()), abs=3 * error)
    assert found.value > 3 * found.stderr
