"""Anomaly tables: the false-alarm rate is what was asked, no row judges itself, and nothing leaks."""

import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probdl.models import PCA, VAE, Autoencoder, anomaly_table
from probdl.models.anomalies.plans import Pool, fold_plans, split_plan
from probdl.models.anomalies.scores import METHODS, build

D = torch.float64
FOREST = ["isolation forest"]


def rows(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=D)


@pytest.fixture(autouse=True)
def _short_fits(monkeypatch):
    """What is claimed here holds for any fit."""
    monkeypatch.setattr("probdl.models.anomalies.scores.STEPS", 30)


class Mahalanobis:
    """A score that is cheap: the squared distance from the mean, in units of the covariance."""

    digits = 12

    def fit(self, x):
        self.mean, self.precision = x.mean(0), torch.linalg.pinv(x.T.cov().reshape(x.shape[1], -1))
        return self

    def anomaly_score(self, x):
        return (((x - self.mean) @ self.precision) * (x - self.mean)).sum(1).round(decimals=self.digits)


class Coarse(Mahalanobis):
    digits = 0  # scores tie


class Witness:
    """Says of each row whether it fitted."""

    def fit(self, x):
        self.seen = {tuple(row) for row in x.tolist()}
        return self

    def anomaly_score(self, x):
        return torch.tensor([tuple(row) in self.seen for row in x.tolist()]).double()


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_false_alarms_with_clean_rows_have_the_law_that_was_promised_over_200_repeats(rate):
    """Of 100 new rows the number flagged is beta-binomial; of the first row alone, over repeats, binomial.

    Each of the three claims is wrong by chance once in 100.
    """
    flags = []
    for seed in range(200):
        x = rows(100 + 99 + 99, seed=seed)
        found = anomaly_table(x[:100], {"m": Mahalanobis()}, train=x[100:], rate=rate)
        flags.append(found.judged["m"].p <= rate)
    flags, most = torch.stack(flags).numpy(), round(100 * rate)
    assert stats.binomtest(int(flags[:, 0].sum()), 200, rate).pvalue > 0.01
    law = stats.betabinom(100, most, 100 - most)
    counts = flags.sum(1)
    assert abs(counts.mean() - law.mean()) < 2.6 * law.std() / 200**0.5
    edges = [-1, *law.ppf([0.2, 0.4, 0.6, 0.8]), 100]
    seen, expected = np.histogram(counts, np.array(edges) + 0.5)[0], 200 * np.diff(law.cdf(edges))
    assert stats.chisquare(seen, expected).pvalue > 0.01


def test_false_alarms_without_clean_rows_are_as_many_as_were_asked_over_200_repeats():
    """Of all rows ten are flagged; each row by itself is one of them in a binomial number of the repeats."""
    flags = [anomaly_table(rows(100, seed=s), {"m": Mahalanobis()}, rate=0.1).judged["m"].p <= 0.1 for s in range(200)]
    counts = torch.stack(flags).double().sum(0)
    assert (torch.stack(flags).sum(1) == 10).all()
    assert stats.binomtest(int(counts[7]), 200, 0.1).pvalue > 0.01
    low, high = stats.binom(200, 0.1).ppf([0.005, 0.995])
    assert ((counts >= low) & (counts <= high)).double().mean() > 0.95  # .99 are expected


@pytest.mark.parametrize("clean", [True, False])
def test_scores_that_tie_raise_fewer_false_alarms_and_not_more(clean):
    share = []
    for s in range(100):
        x = rows(160, seed=s)
        judged, train = (x[:60], x[60:]) if clean else (x, None)
        p = anomaly_table(judged, {"m": Coarse()}, train=train, rate=0.1).judged["m"].p
        share.append(float((p <= 0.1).double().mean()))
    assert 0.01 < np.mean(share) < 0.1 + 3 * np.std(share) / 10


def test_anomalies_among_the_rows_make_normal_rows_flagged_less_often_and_are_found_themselves():
    normal, strange = [], []
    for s in range(60):
        x = rows(200, seed=s)
        x[:10] += 6
        flagged = anomaly_table(x, {"m": Mahalanobis()}, rate=0.1).judged["m"].p <= 0.1
        normal.append(float(flagged[10:].double().mean()))
        strange.append(float(flagged[:10].double().mean()))
    assert np.mean(normal) < 0.08
    assert np.mean(strange) > 0.9


@settings(deadline=None, max_examples=60)
@given(st.integers(20, 90), st.integers(2, 7), st.floats(0.2, 0.8), st.integers(0, 5))
def test_no_row_does_two_things_at_once_and_each_is_judged_once(n, folds, share, seed):
    plans = fold_plans(n, folds, seed)
    for plan in plans:
        used = torch.cat([plan.fit, plan.judge]).sort().values
        assert torch.equal(used, torch.arange(n))
        assert not len(plan.calibrate)
        assert n // folds <= len(plan.judge) <= n // folds + 1
    assert torch.equal(torch.cat([plan.judge for plan in plans]).sort().values, torch.arange(n))
    plan = split_plan(n, 5, share, seed)
    assert torch.equal(torch.cat([plan.fit, plan.calibrate]).sort().values, torch.arange(n))
    assert plan.judge.tolist() == list(range(n, n + 5))
    assert len(plan.calibrate) == round(n * share)


@pytest.mark.parametrize("clean", [True, False])
def test_neither_a_judged_row_nor_a_calibrating_one_fits(clean):
    x = rows(100)
    found = anomaly_table(x[:40] if clean else x, {"w": Witness()}, rate=0.1, train=x[40:] if clean else None)
    assert not found.judged["w"].scores.any()
    assert not found.thresholds["threshold"].any()


@pytest.mark.parametrize("name", METHODS)
def test_a_row_is_scored_the_same_whatever_else_is_judged(name):
    """Standardised by the rows of x, a row of a million would have changed all."""
    train, x = rows(60), rows(10, seed=1)
    alone = anomaly_table(x, [name], train=train, rate=0.1)
    beside = anomaly_table(torch.cat([x, torch.full((1, 3), 1e6, dtype=D)]), [name], train=train, rate=0.1)
    assert beside.thresholds["threshold"].iloc[0] == pytest.approx(alone.thresholds["threshold"].iloc[0], rel=1e-5)
    if name != "vae":  # whose noise goes by the place of a row
        torch.testing.assert_close(beside.judged[name].scores[:10], alone.judged[name].scores, rtol=1e-5, atol=1e-6)
    assert beside.table[name].iloc[10]["rank"] == 1


def test_scores_do_not_depend_on_units():
    train, x = rows(80), rows(10, seed=1)
    scale = torch.tensor([1.0, 1e3, 1e-3], dtype=D)
    one, other = (anomaly_table(x * c, ["ae"], train=train * c, rate=0.1).judged["ae"] for c in (1, scale))
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)


def test_the_table_has_a_row_for_each_observation_and_its_ranks_follow_scores():
    x = pd.DataFrame(rows(30).numpy(), columns=list("abc"), index=[f"r{i}" for i in range(30)])
    train = pd.DataFrame(rows(60, seed=1).numpy(), columns=list("abc"))
    found = anomaly_table(
        x, {"m": Autoencoder(1, hidden=(4,), patience=1), "isolation forest": None}, train=train, rate=0.1
    )
    table = found.table
    assert table.index.equals(x.index)
    assert list(table.columns) == [(m, c) for m in ("m", *FOREST) for c in ("score", "rank", "p_value", "flagged")]
    for name in ("m", *FOREST):
        part, limit = table[name], found.thresholds.loc[name, "threshold"]
        assert part["rank"].tolist() == part["score"].rank(ascending=False, method="min").astype(int).tolist()
        assert part["flagged"].tolist() == (part["score"] > limit).tolist() == (part["p_value"] <= 0.1).tolist()
        assert part["p_value"].is_monotonic_increasing or part["p_value"].nunique() > 1
    assert found.thresholds.loc["m", "calibration_rows"] == 30
    assert found.thresholds.loc["m", ["guaranteed", "lower", "upper"]].tolist() == pytest.approx(
        [3 / 31, *stats.beta(3, 28).ppf([0.025, 0.975])]
    )


def test_without_clean_rows_the_strangest_are_flagged_and_nothing_is_said_of_others():
    found = anomaly_table(rows(100), FOREST, rate=0.1, folds=4)
    row, part = found.thresholds.loc["isolation forest"], found.table["isolation forest"]
    assert row[["calibration_rows", "guaranteed"]].tolist() == [99, 0.1]
    assert row[["lower", "upper"]].isna().all()
    assert part["rank"].tolist() == part["score"].rank(ascending=False, method="min").astype(int).tolist()
    assert part["flagged"].tolist() == (part["rank"] <= 10).tolist() == (part["score"] > row["threshold"]).tolist()
    assert part["p_value"].tolist() == pytest.approx((part["rank"] / 100).tolist())


def test_agreement_is_spearman_s_and_counts_flags():
    found = anomaly_table(rows(60), [{"m": Mahalanobis()}, *FOREST], train=rows(90, seed=2), rate=0.2)
    a, b = (found.table[name] for name in ("m", *FOREST))
    row = found.agreement.loc[("m", "isolation forest")]
    assert row["spearman"] == pytest.approx(stats.spearmanr(a["score"], b["score"]).statistic)
    assert row["both"] == (a["flagged"] & b["flagged"]).sum()
    assert row["first_only"] == (a["flagged"] & ~b["flagged"]).sum()
    assert row["second_only"] == (~a["flagged"] & b["flagged"]).sum()
    assert row["first_only"] != row["second_only"]
    assert 0 < row["both"] < a["flagged"].sum() + b["flagged"].sum()


def test_labels_give_the_area_of_the_order_and_shares_with_errors():
    from sklearn.metrics import average_precision_score, roc_auc_score

    x = torch.cat([rows(80), rows(20, seed=2) * 3])
    labels = pd.Series([False] * 80 + [True] * 20)
    found = anomaly_table(x, FOREST, train=rows(100, seed=1), labels=labels, rate=0.1)
    part, row = found.table["isolation forest"], found.auc.loc["isolation forest"]
    assert row["auc"] == pytest.approx(roc_auc_score(labels, part["score"].to_numpy()))
    assert row["average_precision"] == pytest.approx(average_precision_score(labels, part["score"].to_numpy()))
    assert row["lower"] < row["auc"] < row["upper"] <= 1
    assert row["average_precision_stderr"] > 0
    detected = part["flagged"].to_numpy()[80:].mean()
    assert row["detected"] == detected > 0.3
    assert row["detected_stderr"] == pytest.approx(math.sqrt(detected * (1 - detected) / 20))
    assert row["false_alarms"] == part["flagged"].to_numpy()[:80].mean()
    ax = found.plot()
    assert [line.get_label().split(",")[0] for line in ax.lines][0] == "isolation forest"
    np.testing.assert_allclose(ax.lines[0].get_xydata()[-1], [1, 1])
    np.testing.assert_allclose(ax.lines[1].get_xydata()[0], row[["false_alarms", "detected"]].to_numpy(float))
    plt.close("all")


def test_without_labels_the_picture_has_the_share_of_p_values_below_each():
    found = anomaly_table(rows(50), {"m": Mahalanobis()}, train=rows(90, seed=1), rate=0.1)
    x, y = plt.figure().add_subplot().figure.axes[0], found.plot()
    assert found.plot(x) is x
    line = y.lines[0].get_xydata()
    p = found.judged["m"].p.numpy()
    assert [share for _, share in line[1:]] == pytest.approx([(p < at).mean() + 1 / 50 for at, _ in line[1:]], abs=0.3)
    assert line[-1].tolist() == [p.max(), 1.0]
    with pytest.raises(ValueError, match="pass labels="):
        _ = found.auc
    plt.close("all")


def test_a_false_discovery_rate_adds_a_column_and_needs_clean_rows():
    x = torch.cat([rows(45), rows(5, seed=3) + 8])
    part = anomaly_table(x, {"m": Mahalanobis()}, train=rows(400, seed=1), fdr=0.1).table["m"]
    assert part["discovery"].tolist()[45:] == [True] * 5
    assert part["discovery"].sum() <= part["flagged"].sum()
    assert list(part.columns) == ["score", "rank", "p_value", "flagged", "discovery"]
    with pytest.raises(ValueError, match="fdr must be None without train"):
        anomaly_table(x, {"m": Mahalanobis()}, fdr=0.1)


def test_any_model_with_a_density_may_stand_in_methods_and_is_copied():
    vae, x = VAE(1, hidden=(4,), patience=1), rows(60)
    found = anomaly_table(x[:10], {"mine": vae}, train=x[10:], rate=0.1)
    assert vae.message == "not fitted"
    fit = split_plan(50, 10, 0.5, 0)
    pool = torch.cat([x[10:], x[:10]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = VAE(1, hidden=(4,), patience=1).fit(pool[fit.fit], progress=False)
    expected = -again.log_likelihood(pool[torch.cat([fit.calibrate, fit.judge])]).value[25:].double()
    torch.testing.assert_close(found.judged["mine"].scores, expected)


def test_the_same_seed_gives_the_same_table_and_another_does_not():
    before = torch.get_rng_state()
    first, again, other = (anomaly_table(rows(60), [*FOREST, "ae"], rate=0.2, seed=s).table for s in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("clean", [True, False])
def test_tables_with_categories_constants_and_duplicates_are_judged(name, clean):
    table = pd.DataFrame(rows(90).numpy(), columns=list("abc"))
    table = table.assign(kind=["u", "v", "w"] * 30, one=1.0, same="x" if False else table["a"])
    table = pd.concat([table, table[:30]], ignore_index=True)
    how = {"train": table[:80]} if clean else {}
    found = anomaly_table(table[80:] if clean else table, [name], rate=0.1, **how)
    assert found.table[name].notna().all(axis=None)
    assert any("constant in the rows that fit are left out" in note and "['one']" in note for note in found.notes)
    assert any("rows of x equal a row of train" in note for note in found.notes) == clean


def test_a_category_that_the_rows_to_fit_lack_is_left_out_and_said():
    train = pd.DataFrame({"a": rows(60)[:, 0].numpy(), "kind": ["u", "v"] * 30})
    x = pd.DataFrame({"a": [0.0, 0.1, 0.2], "kind": ["u", "w", "w"]})
    found = anomaly_table(x, FOREST, train=train, rate=0.1)
    assert "['kind']; 2 judged rows differ there" in found.notes[0]


def test_images_and_numbers_alone_are_judged():
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=D)
    assert anomaly_table(images, [*FOREST, "ae"], rate=0.2).table.shape == (60, 8)
    assert anomaly_table(rows(60)[:, 0], [*FOREST, "vae"], rate=0.2).table.shape == (60, 8)
    with pytest.raises(ValueError, match="method 'ae' cannot score these rows: .* at least 2 columns"):
        anomaly_table(rows(60)[:, 0], ["ae"], rate=0.2)


@pytest.mark.parametrize("name", METHODS)
def test_fewer_rows_than_dimensions_are_judged(name):
    x = rows(50, d=40)
    x[:3] *= 5
    part = anomaly_table(x[:20], [name], train=x[20:], rate=0.1).table[name]
    assert np.isfinite(part["score"]).all()
    assert sorted(part["rank"][:3]) == [1, 2, 3]


X = rows(60)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"methods": ["lof"]}, r"methods must be names among \['kde', .*'isolation forest'\].*got 'lof'"),
        ({"methods": []}, "methods must be names"),
        ({"rate": 0.0}, "rate must be a number between 0 and 1; got 0.0"),
        ({"rate": 1}, "rate must be a number between 0 and 1; got 1"),
        ({"rate": math.nan}, "rate must be a number between 0 and 1"),
        ({"calibration": 1.5}, "calibration must be a number between 0 and 1"),
        ({"rate": 0.01}, "99 rows must calibrate for a rate of 0.01; got 59"),
        ({"rate": 0.05, "train": X[:20]}, "19 rows must calibrate for a rate of 0.05; got 10"),
        ({"train": X[:2]}, "calibration must leave"),
        ({"folds": 1}, "folds must be a whole number of at least 2"),
        ({"folds": 50}, "at least two rows for each of 50 folds; got 60"),
        ({"labels": [0, 1]}, "labels must have an entry for each of 60 rows of x; got 2"),
        ({"labels": [0] * 60}, "labels must hold both kinds"),
        ({"labels": [1] * 60}, "labels must hold both kinds"),
        ({"labels": [0, 2] * 30}, "labels must be True or 1 for anomalies"),
        ({"labels": [0, math.nan] * 30}, "labels must be finite"),
        ({"train": X[:, :2]}, r"train must have rows like those of x, of shape \(3,\); got \(2,\)"),
        ({"train": pd.DataFrame(X.numpy())}, "train must be like x"),
        ({"fdr": 2.0, "train": X}, "fdr must be a number between 0 and 1"),
        ({"train": X.masked_fill(X > 2, math.nan)}, "train must be finite"),
        ({"train": torch.ones(60, 3)}, "x must vary"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_it(how, match):
    with pytest.raises(ValueError, match=match):
        anomaly_table(X, **{"methods": FOREST, **how})


def test_bad_rows_and_bad_models_are_errors_too():
    with pytest.raises(ValueError, match="x must be finite"):
        anomaly_table(X.masked_fill(X > 2, math.nan), FOREST)
    with pytest.raises(ValueError, match="x is empty"):
        anomaly_table(X[:0], FOREST)
    with pytest.raises(TypeError, match="the class VAE"):
        anomaly_table(X, {"mine": VAE})
    with pytest.raises(TypeError, match="must be a model with fit and one of log_prob"):
        anomaly_table(X, {"mine": 3})

    class Broken(Mahalanobis):
        def anomaly_score(self, x):
            return super().anomaly_score(x).index_fill(0, torch.tensor([0]), math.nan)

    with pytest.raises(ValueError, match="method 'mine' must give each of 12 rows a number; got 1 NaN"):
        anomaly_table(X, {"mine": Broken()}, rate=0.1)


def test_the_report_states_the_guarantee():
    found = anomaly_table(X, FOREST, train=rows(60, seed=1), rate=0.1)
    assert repr(found).startswith("isolation forest: ")
    assert "flagged with probability at most 0.1" in repr(found)
    assert "if the rows of x are exchangeable" in anomaly_table(X, FOREST, rate=0.1).guarantee


def test_numbers_are_standardised_by_the_rows_that_fit_and_categories_are_not():
    table = pd.DataFrame({"a": rows(40)[:, 0].numpy(), "kind": ["u", "v"] * 20})
    plan = split_plan(40, 0, 0.5, 0)
    numbers, left_out = Pool.of(table, None).numbers(plan)
    fit = torch.tensor(table["a"].to_numpy())[plan.fit]
    torch.testing.assert_close(
        numbers[:, 0], (torch.tensor(table["a"].to_numpy()) - fit.mean()) / fit.std(correction=0)
    )
    assert numbers[:2, 1:].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert left_out == []


def test_rows_that_tie_have_one_rank():
    part = anomaly_table(rows(80), {"m": Coarse()}, rate=0.1).table["m"]
    assert part["score"].duplicated().any()
    assert part["rank"].tolist() == part["score"].rank(ascending=False, method="min").astype(int).tolist()


def test_the_score_of_principal_components_is_the_distance_from_their_plane():
    x, plan = rows(60, d=6), split_plan(40, 20, 0.5, 0)
    found = anomaly_table(x[40:], ["pca"], train=x[:40], rate=0.1).judged["pca"].scores
    torch.testing.assert_close(found, PCA(2).fit(x[plan.fit]).anomaly_score(x[40:]))
    assert build("isolation forest", 9, 2, 7)[0].random_state == 7
