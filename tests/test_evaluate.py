"""One way to judge generative models: what goes in, what stands in the table, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Independent, Normal

from probdl import data
from probdl.divergences import RBF, Estimate, energy, mmd2, sliced_wasserstein, tv
from probdl.models import VAE, evaluate
from probdl.models.judging.evaluate import MEASURES
from probdl.models.judging.evaluation import Evaluation

COLUMNS = [
    "value",
    "stderr",
    "lower",
    "upper",
    "reference",
    "reference_sd",
    "better",
    "p_value",
    "method",
    "target",
    "n",
]
FEW = ["energy", "precision"]


def normals(n, d, seed, scale=1.0, shift=0.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


class Gaussian:
    """A model with a likelihood: independent normals."""

    def fit(self, x):
        self.mean, self.sd = x.mean(0), x.std(0)
        return self

    def sample(self, n, *, condition=None, mean=False, seed=0):
        return self.mean + self.sd * normals(n, len(self.mean), seed)

    def log_likelihood(self, x):
        value = Normal(self.mean, self.sd).log_prob(x).sum(1)
        return Estimate(value, torch.full_like(value, 0.3), "by hand", "lower bound", notes=("a note",))


class Implicit(Gaussian):
    """A model without one."""

    def log_likelihood(self, x):
        raise NotImplementedError("an implicit model has no density; use divergence(x).")


class ImplicitConditional(Implicit):
    """A conditional model without one."""

    condition = "labels"


class Conditional(Gaussian):
    """A model that was fitted with a condition, to which it adds nothing."""

    condition = "labels"

    def sample(self, n, *, condition=None, mean=False, seed=0):
        return torch.as_tensor(condition)[:, None] + 0.1 * normals(n, 2, seed)

    def log_likelihood(self, x, condition=None):
        return Estimate(Normal(condition[:, None], 0.1).log_prob(x).sum(1), None, "exact")


@pytest.fixture(scope="module")
def rows():
    return normals(150, 3, 1), normals(120, 3, 2), normals(100, 3, 3, 1.1, 0.3)


@pytest.fixture(scope="module")
def evaluation(rows):
    train, held, _ = rows
    return evaluate(Gaussian().fit(train), held, train=train)


def test_a_model_gets_every_measure(evaluation):
    table = evaluation.table
    assert isinstance(evaluation, Evaluation)
    assert list(table.index) == list(MEASURES)
    assert list(table.columns) == COLUMNS
    assert set(evaluation.estimates) == set(MEASURES)
    assert table["value"].notna().all()
    assert table.loc[["energy", "c2st", "log_likelihood", "density"], "better"].tolist() == [
        "lower", "lower", "higher", "reference"]  # fmt: skip
    known = table[table["stderr"].notna()]
    assert ((known["lower"] <= known["value"]) & (known["value"] <= known["upper"])).all()
    assert table.loc[["precision", "recall", "coverage", "c2st", "memorisation"], "upper"].max() <= 1
    assert (table["n"].drop("log_likelihood") == 240).all()  # as many samples as held-out rows


def test_the_references_are_those_of_one_law(evaluation):
    table = evaluation.table
    assert table.loc[["c2st", "density", "memorisation"], "reference"].tolist() == [0.5, 1.0, 0.5]
    own = table.drop("log_likelihood")
    # The model is nearly right, so all lie within a few deviations; those behind the distances come of 5 splits
    assert ((own["value"] - own["reference"]).abs() < 6 * own["reference_sd"]).all()


def test_the_distances_are_those_of_the_divergences_after_scaling(rows):
    _, held, samples = rows
    samples = samples + 0.5
    table = evaluate(samples, held, measures=["energy", "mmd2", "sliced_wasserstein", "c2st"]).table
    x, y = ((z - held.mean(0)) / held.std(0, correction=0) for z in (held, samples))
    assert table.loc["energy", "value"] == pytest.approx(energy(x, y).value)
    assert table.loc["energy", "stderr"] == pytest.approx(energy(x, y).stderr)
    assert table.loc["sliced_wasserstein", "value"] == pytest.approx(sliced_wasserstein(x, y).value)
    bandwidth = torch.nn.functional.pdist(x).median().item()
    assert table.loc["mmd2", "value"] == pytest.approx(mmd2(x, y, RBF(bandwidth)).value)
    advantage = tv(x, y)
    assert table.loc["c2st", "value"] == pytest.approx((1 + advantage.value) / 2)
    assert table.loc["c2st", "stderr"] == pytest.approx(advantage.stderr / 2)
    assert table.loc["c2st", "reference_sd"] == pytest.approx(0.25 * (1 / 120 + 1 / 100) ** 0.5)
    assert (table["p_value"].drop("sliced_wasserstein") <= 1).all()


def test_a_classifier_tells_a_bad_sampler_apart(rows):
    _, held, _ = rows
    c2st = evaluate(normals(120, 3, 9, shift=2.0), held, measures=["c2st"]).table.loc["c2st"]
    assert c2st["lower"] > 0.85
    assert c2st["p_value"] <= 0.005


def test_several_models_stand_side_by_side(rows):
    train, held, samples = rows
    models = {"model": Gaussian().fit(train), "implicit": Implicit().fit(train), "samples": samples}
    found = evaluate(models, held, measures=[*FEW, "mmd2", "log_likelihood"])
    table = found.table
    assert table.index.names == ["measure", "model"]
    assert list(table.index) == [
        *[(m, name) for m in ("energy", "mmd2", "precision") for name in models],
        ("log_likelihood", "model"), ("log_likelihood", "implicit")]  # fmt: skip
    alone = evaluate(samples, held, measures=["mmd2", "precision"]).table
    for name in ("mmd2", "precision"):  # one kernel and one scale for all
        assert table.loc[(name, "samples"), "value"] == alone.loc[name, "value"]
    assert found.estimates["energy", "model"].value != found.estimates["energy", "samples"].value


def test_the_likelihood_is_the_mean_over_rows_with_both_errors(rows):
    train, held, _ = rows
    model = Gaussian().fit(train)
    e = evaluate(model, held, measures=["log_likelihood"]).estimates["log_likelihood"]
    value = model.log_likelihood(held).value
    assert e.value == pytest.approx(value.mean().item())
    assert e.stderr == pytest.approx(value.std().item() / 120**0.5)
    assert (e.target, e.n) == ("lower bound", 120)
    assert any(f"{0.3 / 120**0.5:.3g}" in note for note in e.notes)
    assert "a note" in e.notes


def test_a_model_without_likelihood_says_why(rows):
    train, held, _ = rows
    found = evaluate(Implicit().fit(train), held, measures=["log_likelihood"])
    assert np.isnan(found.table.loc["log_likelihood", "value"])
    assert "an implicit model has no density; use divergence(x)." in repr(found)
    assert found.estimates == {}


def test_a_likelihood_that_does_not_fit_the_rows_says_why_and_the_rest_is_measured():
    binary = (normals(100, 4, 1) > 0).double()
    vae = VAE(1, "bernoulli", dtype=torch.float64).fit(binary, epochs=1, progress=False)
    found = evaluate(vae, normals(40, 4, 2), measures=["energy", "log_likelihood"])
    assert list(found.estimates) == ["energy"]
    assert "0 and 1" in repr(found)


def test_the_same_seed_gives_the_same_table_and_no_global_state_changes(rows):
    train, held, _ = rows
    model, before = Gaussian().fit(train), torch.get_rng_state()
    tables = [evaluate(model, held, train=train, measures=[*FEW, "near_copies"], seed=s).table for s in (3, 3, 4)]
    assert torch.equal(before, torch.get_rng_state())
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert tables[0].loc["energy", "value"] != tables[2].loc["energy", "value"]


def test_draws_say_how_many_samples(rows):
    train, held, _ = rows
    found = evaluate(Gaussian().fit(train), held, draws=300, measures=FEW)
    assert found.table["n"].tolist() == [420, 420]


def test_a_distribution_is_sampled(rows):
    law = Independent(Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1)
    table = evaluate(law, rows[1], measures=FEW).table
    assert table.loc["energy", "value"] == pytest.approx(
        evaluate(data.draws(law, 120), rows[1], measures=FEW).table.loc["energy", "value"]
    )


def test_arrays_and_tensors_of_any_float_type_are_the_same_rows(rows):
    _, held, samples = rows
    values = [
        evaluate(y, x, measures=["energy"]).estimates["energy"].value
        for x, y in [(held, samples), (held.numpy(), samples.tolist()), (held.float(), samples.float())]
    ]
    assert values[1] == values[0]
    assert values[2] == pytest.approx(values[0], rel=1e-5)


def test_images_are_compared_on_one_scale():
    images = data.digits().images
    held, samples = images[:60], images[60:120] + 0.05
    table = evaluate(samples, held, measures=["energy"]).table
    sd = held.flatten(1).var(0, correction=0).mean().sqrt()
    assert table.loc["energy", "value"] == pytest.approx(energy(held.flatten(1) / sd, samples.flatten(1) / sd).value)


def test_scales_can_be_chosen(rows):
    _, held, samples = rows
    wide = torch.tensor([1.0, 100.0, 1.0], dtype=torch.float64)
    own = {how: evaluate(samples * wide, held * wide, measures=["energy"], standardise=how).estimates["energy"].value
           for how in ("auto", "column", "shared", "none")}  # fmt: skip
    assert (
        own["auto"]
        == own["column"]
        == pytest.approx(evaluate(samples, held, measures=["energy"]).estimates["energy"].value)
    )
    assert own["none"] == pytest.approx(energy(held * wide, samples * wide).value)
    shared = (held * wide).var(0, correction=0).mean().sqrt().item()
    assert own["shared"] == pytest.approx(own["none"] / shared)


def test_one_dimension_is_enough(rows):
    table = evaluate(rows[2][:, 0], rows[1][:, 0], measures=FEW).table
    assert table["value"].notna().all()


def mixed(n, seed, levels=("a", "b", "c")):
    noise = np.random.default_rng(seed)
    return pd.DataFrame(
        {"size": noise.normal(size=n) * 50, "kind": noise.choice(levels, n), "yes": noise.random(n) < 0.5, "flat": 7}
    )


def test_a_column_of_categories_counts_as_a_number_of_variance_1():
    held, samples = mixed(80, 1), mixed(70, 2)
    found = evaluate(samples, held, measures=["energy"])
    assert "1 that do not vary there keep their unit" in repr(found)
    kinds = pd.get_dummies(held["kind"], dtype=float)
    spread = np.sqrt(kinds.var(ddof=0).sum())

    def numbers(table):
        parts = [table["size"] / held["size"].std(ddof=0), table["yes"] / held["yes"].std(ddof=0)]
        return pd.concat([*parts, pd.get_dummies(table["kind"], dtype=float) / spread], axis=1).to_numpy(float)

    assert found.estimates["energy"].value == pytest.approx(energy(numbers(held), numbers(samples)).value)


def test_categories_that_only_samples_have_are_told_apart():
    held = mixed(80, 1)
    new = held.assign(kind="z")
    table = evaluate({"same": held, "new": new}, held, measures=["precision", "density"]).table
    assert table.loc[("precision", "same"), "value"] == 1
    assert table.loc[("precision", "new"), "value"] < 0.2


def test_a_constant_column_is_watched_all_the_same():
    held = mixed(80, 1)
    assert evaluate(held.assign(flat=9), held, measures=["precision"]).estimates["precision"].value < 0.2


def test_a_vae_of_a_table_is_judged_in_its_columns():
    x = mixed(200, 3).drop(columns="flat").astype({"size": float})
    x["yes"] = x["yes"].astype(float)
    vae = VAE(1, "gaussian", dtype=torch.float64).fit(x.drop(columns="kind"), epochs=2, progress=False)
    held = mixed(60, 4)[["size", "yes"]].astype(float)
    table = evaluate(
        vae, held, train=x.drop(columns="kind"), measures=["energy", "log_likelihood", "memorisation"]
    ).table
    assert list(table.index) == ["energy", "memorisation", "log_likelihood"]
    assert table.loc["log_likelihood", "value"] == pytest.approx(float(vae.log_likelihood(held).value.mean()))


def test_a_condition_goes_to_the_models_that_have_one(rows):
    train, _, _ = rows
    labels = torch.arange(60, dtype=torch.float64) % 3
    held = labels[:, None] + 0.1 * normals(60, 2, 4)
    models = {"given": Conditional().fit(train), "not": Gaussian().fit(train[:, :2])}
    implicit = evaluate(ImplicitConditional().fit(held), held, condition=labels, measures=["log_likelihood"])
    assert "an implicit model has no density" in repr(implicit)
    found = evaluate(models, held, condition=labels, measures=["energy", "coverage", "log_likelihood"])
    assert found.estimates["coverage", "given"].value > 0.8 > found.estimates["coverage", "not"].value
    assert found.estimates["log_likelihood", "given"].value > found.estimates["log_likelihood", "not"].value
    with pytest.raises(ValueError, match="condition must be given, one entry for each held-out row: given was fitted"):
        evaluate(models, held)
    with pytest.raises(ValueError, match="draws must be None with a condition"):
        evaluate(models, held, condition=labels, draws=100)


def test_it_can_be_read_as_text_and_in_a_notebook(evaluation):
    text, html = repr(evaluation), evaluation._repr_html_()
    for words in ("near_copies", "u-statistic", "random halves", "random splits", "variance 1 among x_heldout"):
        assert words in text
        assert words in html
    assert "<table" in html
    assert "nan" not in text.lower()


def test_the_picture_has_a_panel_for_each_measure(evaluation, rows):
    train, held, samples = rows
    ax = evaluation.plot()
    panels = [panel for panel in ax.figure.axes if panel.get_title()]
    assert [panel.get_title() for panel in panels] == list(MEASURES)
    assert all(panel.has_data() and not len(panel.get_yticks()) for panel in panels)
    assert {t.get_text() for t in ax.figure.legends[0].get_texts()} == {"estimate", "one distribution", "no interval"}
    several = evaluate({"a": Implicit().fit(train), "b": samples}, held, measures=["precision", "log_likelihood"])
    figure = several.plot().figure
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert "none" in [text.get_text() for text in figure.axes[1].texts]
    own = plt.figure().add_subplot()
    assert several.plot(own) is own
    assert [label.get_text() for label in own.get_yticklabels()] == ["precision of a", "precision of b"]
    plt.close("all")


def refused(held, samples, **how):
    """Return what evaluate says."""
    with pytest.raises((ValueError, TypeError)) as caught:
        evaluate(samples, held, **how)
    return str(caught.value)


def test_bad_input_is_refused_by_name(rows):
    _, held, samples = rows
    gap = held.clone()
    gap[3, 1] = torch.nan
    assert "x_heldout must have at least 20 rows; got 19" in refused(held[:19], samples)
    assert "samples must have at least 20 rows; got 5" in refused(held, samples[:5])
    assert "bad must have at least 34 rows" in refused(held, {"bad": samples[:33]}, neighbours=15)
    assert "x_heldout must be finite; got 1 NaN" in refused(gap, samples)
    assert "samples must be finite" in refused(held, gap)
    assert "train must be finite" in refused(held, samples, train=gap)
    assert "samples must have shape (n, 3), as x_heldout; got (100, 2)" in refused(held, samples[:, :2])
    assert "train must have shape (n, 3)" in refused(held, samples, train=samples[:, :2])
    assert "x_heldout must vary" in refused(torch.ones(30, 2), samples[:, :2])
    assert "model_or_samples must not be empty" in refused(held, {})
    assert "names that are text" in refused(held, {1: samples})
    assert "other than 'x_heldout' and 'train'" in refused(held, {"train": samples})
    assert "x_heldout must be rows (n, ...)" in refused(3.0, samples)
    assert "samples must be rows (n, ...), as tensor, array or DataFrame; got int" in refused(held, 3)
    assert "This VAE is not fitted yet" in refused(held, VAE(2))
    assert "each of measures must be one of 'energy'" in refused(held, samples, measures=["fid"])
    assert "measures must be a list of names" in refused(held, samples, measures="energy")
    assert "train must be given for memorisation" in refused(held, samples, measures=["memorisation"])
    assert "neighbours must be a whole number of at least 1" in refused(held, samples, neighbours=0)
    assert "draws must be a whole number of at least 20" in refused(held, samples, draws=5)
    assert "standardise must be one of" in refused(held, samples, standardise="row")


def test_tables_of_other_columns_are_refused():
    held = mixed(40, 1)
    assert "samples must have the columns of x_heldout, in the same order" in refused(
        held, held[["kind", "size", "yes", "flat"]]
    )
    assert "train must have the columns" in refused(held, held, train=held.drop(columns="yes"))
    assert "column 'size' of x_heldout must be finite" in refused(held.assign(size=np.nan), held)
    assert "column 'kind'" in refused(held, held.assign(kind=[None, *held["kind"][1:]]))
    assert "samples must" in refused(held, np.zeros((40, 4)))
