"""Classifiers against statsmodels and scikit-learn: coefficients, scores, calibration, and held-out digits."""

import math
import pickle
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression as Theirs
from sklearn.metrics import brier_score_loss, log_loss
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from probdl import ConvergenceError, ConvergenceWarning, data, viz
from probdl.models import VAE, ImageClassifier, LogisticRegression, newton
from probdl.models.labels import Labels
from probdl.models.newton import LogisticLoss, Newton
from probdl.models.scores import calibration, proportion

DIGITS, DIGIT = data.digits()
ORDER = torch.from_numpy(np.random.RandomState(0).permutation(len(DIGITS)))
TRAIN, HELD = ORDER[:1437], ORDER[1437:]


@pytest.fixture(scope="module")
def net(device):
    return ImageClassifier().fit(DIGITS[TRAIN], DIGIT[TRAIN], epochs=30, device=device, progress=False)


def wine():
    found = load_wine(as_frame=True)
    return found.data[["alcohol", "hue", "malic_acid"]], np.array(["barolo", "grignolino", "barbera"])[found.target]


def cancer():
    x, y = data.breast_cancer(as_frame=True)
    return x[["mean texture", "mean smoothness", "mean area"]], y


def fit(x, y, **settings):
    return LogisticRegression(**settings).fit(x, y, progress=False)


def random_problem(n=200, p=3, k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    b = torch.randn(k, p, generator=g, dtype=torch.float64)
    return x, torch.multinomial((x @ b.T).softmax(1), 1, generator=g)[:, 0]


# Logistic regression


def test_binary_coefficients_and_errors_are_those_of_statsmodels(device):
    x, y = cancer()
    ours = LogisticRegression().fit(x, y, device=device, progress=False)
    theirs = sm.Logit(y, sm.add_constant(x)).fit(disp=0, tol=1e-14, maxiter=100)
    assert ours.coefficients.index.tolist() == ["intercept", *x.columns]
    np.testing.assert_allclose(ours.coefficients["coefficient"], theirs.params, rtol=1e-8)
    np.testing.assert_allclose(ours.coefficients["stderr"], theirs.bse, rtol=1e-8)
    np.testing.assert_allclose(ours.coefficients[["lower", "upper"]], theirs.conf_int(), rtol=1e-8)
    assert ours.log_likelihood(x, y).value.sum().item() == pytest.approx(theirs.llf, rel=1e-12)
    assert ours.notes == ()


def test_multinomial_coefficients_and_errors_are_those_of_statsmodels():
    x, y = wine()
    ours = fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it steps 200 times and calls that a failure
        theirs = sm.MNLogit(pd.Categorical(y).codes, sm.add_constant(x)).fit(disp=0, maxiter=200, tol=1e-14)
    assert ours.classes == ("barbera", "barolo", "grignolino")
    table = ours.coefficients
    assert table.loc["barolo"].index.tolist() == ["intercept", *x.columns]
    for column, known in (("coefficient", theirs.params), ("stderr", theirs.bse)):
        np.testing.assert_allclose(table[column].to_numpy().reshape(2, 4).T, known, rtol=1e-9)
    assert ours.log_likelihood(x, y).value.sum().item() == pytest.approx(theirs.llf, rel=1e-12)


@pytest.mark.parametrize("problem", [cancer, wine])
def test_penalised_coefficients_are_those_of_scikit_learn(problem):
    x, y = problem()
    x = ((x - x.mean()) / x.std(ddof=0)).to_numpy()
    theirs = Theirs(C=1 / (len(x) * 0.01), tol=1e-10, max_iter=10_000).fit(x, y)
    ours = fit(x, y, l2=0.01)
    np.testing.assert_allclose(ours.network.layers[0].weight.detach(), theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    assert (ours.predict(x) == theirs.predict(x)).all()
    assert ours.coefficients["stderr"].isna().all()


@pytest.mark.parametrize("k", [2, 3])
def test_the_derivatives_are_those_of_autograd(k):
    x, y = random_problem(k=k)
    loss = LogisticLoss(x, y, l2=0.1)
    m = 1 if k == 2 else k
    b = torch.randn(m, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(loss.gradient(b), torch.autograd.grad(loss.value(b), b)[0])
    hessian = torch.autograd.functional.hessian(loss.value, b).reshape(4 * m, 4 * m)
    torch.testing.assert_close(loss.hessian(b.detach()), hessian)
    v = torch.ones_like(b)
    torch.testing.assert_close(loss.curve(b, v).flatten(), hessian @ v.flatten())


@pytest.mark.parametrize("k", [2, 3])
def test_conjugate_gradients_come_to_the_same_maximum(k, monkeypatch):
    x, y = random_problem(k=k)
    known = fit(x, y).coefficients["coefficient"]
    monkeypatch.setattr(newton, "DENSE", 0)
    np.testing.assert_allclose(fit(x, y).coefficients["coefficient"], known, rtol=1e-6)


def test_no_step_raises_the_loss_where_the_full_one_would_explode():
    """Rows with heavy tails, on which full steps go from a loss of .04 to 1e51."""
    g = torch.Generator().manual_seed(1706)
    for least, most in ((6, 60), (1, 4)):
        torch.randint(least, most, (1,), generator=g)
    x = torch.randn(16, 3, generator=g, dtype=torch.float64).pow(5)
    x = (x - x.mean(0)) / x.std(0)
    y = ((x[:, 0] > 0) ^ (torch.rand(16, generator=g) < 0.1)).long()
    loss, linear, values = LogisticLoss(x, y), nn.Linear(3, 1).double(), []
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    optimiser = Newton(list(linear.parameters()), linear, loss)
    for _ in range(15):
        values.append(loss.value(torch.cat([linear.weight, linear.bias[:, None]], 1)).item())
        optimiser.step()
    assert (np.diff(values) <= 0).all()
    assert values[-1] < 0.05


def test_the_history_holds_the_penalised_loss():
    x, y = cancer()
    model = fit(x, y, l2=0.1)
    loss = LogisticLoss(model._inward(x), Labels.of(y).indices(y), 0.1)
    linear = model.network.layers[0]
    known = loss.value(torch.cat([linear.weight, linear.bias[:, None]], 1)).item()
    assert model.history["loss"].iloc[-1] == pytest.approx(known, rel=1e-12)
    assert known > -model.log_likelihood(x, y).value.mean().item() + 0.01


def test_batches_come_near_the_maximum_and_say_how_near():
    x, y = random_problem(n=2000, k=2)
    with pytest.warns(ConvergenceWarning, match="not at the maximum: take more steps"):
        near = LogisticRegression().fit(x, y, batch_size=200, epochs=60, progress=False)
    away = float(near.message.split(" standard errors from")[0].split()[-1])
    exact = fit(x, y)
    distance = exact.coefficients["coefficient"] - near.coefficients["coefficient"]
    cov = sm.Logit(y.numpy(), sm.add_constant(x.numpy())).fit(disp=0).cov_params()
    assert 0.01 < away < 1
    assert math.sqrt(distance @ np.linalg.solve(cov, distance)) == pytest.approx(away, rel=0.1)  # printed to one digit
    assert near.coefficients["stderr"].isna().all()


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
@settings(max_examples=15, deadline=None)
def test_other_units_change_coefficients_and_nothing_else(shift, scale):
    x, y = random_problem(k=2)
    before, after = fit(x, y), fit(shift + scale * x, y)
    torch.testing.assert_close(before.predict_proba(x), after.predict_proba(shift + scale * x), atol=1e-7, rtol=0)
    a, b = (m.coefficients.iloc[1:] for m in (before, after))
    np.testing.assert_allclose(a["coefficient"], scale * b["coefficient"], rtol=1e-5)
    np.testing.assert_allclose(a["stderr"], scale * b["stderr"], rtol=1e-5)


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    """P(fewer than 88 or more than 99.9 % of 200 intervals of 95 %) < 1e-4 if they cover as they should."""
    truth, held = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64), 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(300, 2, generator=g, dtype=torch.float64)
        p = (truth[0] + x @ truth[1:]).sigmoid()
        table = fit(x, torch.rand(300, generator=g, dtype=torch.float64) < p).coefficients
        held += table.loc["x[0]", "lower"] < truth[1] < table.loc["x[0]", "upper"]
    assert 176 <= held < 200


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (slice(100), "the classes are separated: the likelihood has no maximum"),
        (slice(150), "some of the classes are separated along some columns"),
    ],
)
def test_separated_classes_are_noted(rows, says):
    x, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=says):
        model = fit(x[rows], y[rows])
    assert says in model.message
    assert model.coefficients["stderr"].isna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(x[rows], y[rows], l2=1e-3).notes == ()


def test_columns_that_depend_on_each_other_are_noted_and_change_no_probability():
    x, y = random_problem()
    with pytest.warns(ConvergenceWarning, match=r"depend on each other \(rank 4 of 5\)"):
        model = fit(torch.cat([x, x[:, :1] + x[:, 1:2]], 1), y)
    known = fit(x, y).predict_proba(x)
    torch.testing.assert_close(model.predict_proba(torch.cat([x, x[:, :1] + x[:, 1:2]], 1)), known, atol=1e-6, rtol=0)


def test_a_logistic_regression_is_a_module_of_rows_in_their_own_units():
    x, y = wine()
    model = fit(x, y)
    rows = torch.tensor(x.to_numpy(), requires_grad=True)
    logits = model(rows)
    torch.testing.assert_close(logits.softmax(1), model.predict_proba(x))
    slope = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), rows)[0][0]
    np.testing.assert_allclose(slope, model.coefficients.loc["barolo", "coefficient"].iloc[1:], rtol=1e-9)


def test_pixels_are_coefficients_too():
    model = fit(DIGITS[TRAIN], DIGIT[TRAIN] == 3, l2=1e-3)
    assert model.coefficients.index[[0, 1, -1]].tolist() == ["intercept", "x[0, 0, 0]", "x[0, 7, 7]"]
    assert model.classes == (False, True)
    assert model.predict(DIGITS[HELD]).dtype == torch.bool
    assert model.accuracy(DIGITS[HELD], DIGIT[HELD] == 3).value > 0.97


def test_held_out_rows_choose_the_best_step():
    x, y = random_problem(n=60, p=20)
    held = random_problem(n=500, p=20)
    model = LogisticRegression().fit(x, y, validation=held, progress=False)
    best = model.history["validation"].min()
    assert "was best for held-out rows" in model.message
    assert -model.log_likelihood(*held).value.mean().item() == pytest.approx(best, rel=1e-9)


# Images


def test_digits_are_recognised_with_an_interval(net):
    right = net.accuracy(DIGITS[HELD], DIGIT[HELD])
    assert right.value >= 0.97
    k = int((net.predict(DIGITS[HELD]) == DIGIT[HELD]).sum())
    assert right.interval() == pytest.approx(proportion_confint(k, len(HELD), method="wilson"))
    assert right.stderr == pytest.approx(math.sqrt(k / 360 * (1 - k / 360) / 360))


def test_likelihoods_are_the_logarithms_of_the_probabilities(net):
    p = net.predict_proba(DIGITS[HELD])
    likelihood = net.log_likelihood(DIGITS[HELD], DIGIT[HELD])
    torch.testing.assert_close(likelihood.value, p.gather(1, DIGIT[HELD][:, None])[:, 0].log())
    torch.testing.assert_close(p.sum(1), torch.ones(len(HELD), dtype=torch.float64))
    assert (likelihood.stderr == 0).all()
    assert (net.predict(DIGITS[HELD]) == p.argmax(1)).all()


def test_as_a_module_it_maps_raw_pixels_to_logits_with_gradients(net):
    x = DIGITS[HELD][:3].to(net._device).requires_grad_()
    logits = net(x)
    torch.testing.assert_close(logits.double().softmax(1).cpu(), net.predict_proba(DIGITS[HELD][:3]))
    assert torch.autograd.grad(logits[:, 0].sum(), x)[0].abs().sum() > 0


def test_units_are_those_of_the_rows_that_train():
    net = ImageClassifier(channels=(4, 4)).fit(DIGITS[:60], DIGIT[:60], validation=0.5, epochs=1, progress=False)
    assert net.units.shift.item() != pytest.approx(DIGITS[:60].mean().item(), rel=1e-9)


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    a, b, c = (
        ImageClassifier(channels=(4, 4), hidden=()).fit(DIGITS[:100], DIGIT[:100], epochs=2, seed=s, progress=False)
        for s in (0, 0, 1)
    )
    assert torch.equal(a.predict_proba(DIGITS), b.predict_proba(DIGITS))
    assert not torch.equal(a.predict_proba(DIGITS), c.predict_proba(DIGITS))


def test_labels_may_be_words_in_the_order_of_their_categories():
    words = pd.Categorical(["odd" if d % 2 else "even" for d in DIGIT], categories=["odd", "never", "even"])
    net = ImageClassifier(channels=(8, 8)).fit(DIGITS[:900], words[:900], epochs=10, progress=False)
    assert net.classes == ("odd", "even")
    assert set(net.predict(DIGITS[900:920])) <= {"odd", "even"}
    assert net.accuracy(DIGITS[900:], words[900:]).value > 0.8


def test_a_network_of_ones_own_starts_from_its_weights_and_must_fit():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = linear[1].weight.clone()
    model = ImageClassifier(linear, learning_rate=1e-9).fit(DIGITS[:50], DIGIT[:50], steps=1, progress=False)
    torch.testing.assert_close(model.network[1].weight, before)
    with pytest.raises(ValueError, match=r"network must map .*, the logits of the classes"):
        ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 9))).fit(DIGITS[:50], DIGIT[:50], progress=False)


def test_an_interrupted_fit_resumes_bit_by_bit(tmp_path):
    def new():
        return ImageClassifier(channels=(4, 4), hidden=(8,))

    path, how = tmp_path / "fit.safetensors", {"seed": 3, "progress": False}
    whole = new().fit(DIGITS[:200], DIGIT[:200], steps=30, **how)
    new().fit(DIGITS[:200], DIGIT[:200], steps=11, checkpoint=path, **how)
    resumed = new().fit(DIGITS[:200], DIGIT[:200], steps=30, checkpoint=path, resume=True, **how)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="checkpoint .* is of another run"):
        ImageClassifier(channels=(4, 6), hidden=(8,)).fit(
            DIGITS[:200], DIGIT[:200], steps=30, checkpoint=path, resume=True, **how
        )


def test_a_loss_that_is_not_finite_stops_the_fit_and_leaves_a_usable_model():
    net = ImageClassifier(channels=(4, 4), learning_rate=1e30)
    with pytest.raises(ConvergenceError, match="not finite|became"):
        net.fit(DIGITS[:200], DIGIT[:200], epochs=20, progress=False)
    assert torch.isfinite(net.predict_proba(DIGITS[:5])).all()


def test_every_fit_begins_anew():
    net = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), dtype=torch.float64)
    first, second = (
        net.fit(DIGITS[:100], DIGIT[:100], epochs=3, progress=False).predict_proba(DIGITS) for _ in range(2)
    )
    assert torch.equal(first, second)


# Files


@pytest.mark.parametrize(
    "model",
    [
        lambda: ImageClassifier(channels=(4, 4)).fit(DIGITS[:80], DIGIT[:80], epochs=1, progress=False),
        lambda: fit(DIGITS[:400], DIGIT[:400] == 3, l2=1e-3),
        lambda: fit(DIGITS[:400], np.array([f"is {d}" for d in DIGIT[:400]]), l2=1e-3),
    ],
    ids=["image", "binary", "multinomial"],
)
def test_a_saved_classifier_comes_back_bit_by_bit(model, tmp_path):
    model, path = model(), tmp_path / "model.safetensors"
    model.save(path)
    back = type(model).load(path)
    assert torch.equal(model.predict_proba(DIGITS), back.predict_proba(DIGITS))
    assert back.classes == model.classes
    assert (np.asarray(back.predict(DIGITS)) == np.asarray(model.predict(DIGITS))).all()
    pd.testing.assert_frame_equal(back.history, model.history)
    other = LogisticRegression if isinstance(model, ImageClassifier) else ImageClassifier
    with pytest.raises(ValueError, match=f"must be a file of {other.__name__}.save"):
        other.load(path)


def test_coefficients_and_notes_survive_a_file(tmp_path):
    model = fit(*wine())
    model.save(tmp_path / "a")
    pd.testing.assert_frame_equal(LogisticRegression.load(tmp_path / "a").coefficients, model.coefficients)
    with pytest.warns(ConvergenceWarning):
        model = fit([[0.0], [1.0], [2.0]], [0, 1, 1])
    model.save(tmp_path / "b")
    assert LogisticRegression.load(tmp_path / "b").notes == model.notes != ()


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_file_that_tries_to_run_code_is_refused(dump, tmp_path):
    with open(tmp_path / "trap", "wb") as file:
        dump(Trap(), file)
    for kind in (ImageClassifier, LogisticRegression):
        with pytest.raises(ValueError, match="pickles, are refused"):
            kind.load(tmp_path / "trap")


# Scores


def given_probabilities(n=2000, k=4, temperature=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=g, dtype=torch.float64)
    return logits.log_softmax(1), torch.multinomial((logits / temperature).softmax(1), 1, generator=g)[:, 0]


@pytest.mark.parametrize("k", [2, 4])
def test_scores_are_those_of_scikit_learn(k):
    log_p, y = given_probabilities(k=k)
    found = calibration(log_p, y)
    p = log_p.exp().numpy()
    theirs = brier_score_loss(y, p[:, 1]) if k == 2 else brier_score_loss(y, p)
    assert found.brier.value == pytest.approx(theirs, rel=1e-12)
    assert found.log_loss.value == pytest.approx(log_loss(y, p), rel=1e-12)
    each = -log_p.gather(1, y[:, None])
    assert found.log_loss.stderr == pytest.approx(each.std().item() / math.sqrt(len(y)))


@pytest.mark.parametrize(("by", "strategy"), [("width", "uniform"), ("count", "quantile")])
@pytest.mark.parametrize("of", [None, (1, "one")])
def test_the_reliability_table_is_scikit_learns_with_wilsons_intervals(by, strategy, of):
    log_p, y = given_probabilities()
    confidence = log_p.exp().amax(1) if of is None else log_p.exp()[:, 1]
    right = log_p.argmax(1) == y if of is None else y == 1
    table = calibration(log_p, y, bins=8, by=by, of=of).table
    share, mean = calibration_curve(right, confidence, n_bins=8, strategy=strategy)
    # Quantiles fall between rows, so that a row may change bins.
    exact = {"rtol": 1e-12} if by == "width" else {"atol": 0.01}
    np.testing.assert_allclose(table["accuracy"], share, **exact)
    np.testing.assert_allclose(table["confidence"], mean, **exact)
    assert table["n"].sum() == len(y)
    low, high = proportion_confint((table["accuracy"] * table["n"]).round(), table["n"], method="wilson")
    np.testing.assert_allclose(table["lower"], low, atol=1e-12)
    np.testing.assert_allclose(table["upper"], high, atol=1e-12)


def test_the_note_on_the_calibration_error_says_what_calibrated_classifiers_show():
    """200 calibrated data sets: the mean has a standard error of 7 % of the sd, and 5 of them are allowed."""
    errors = [calibration(*given_probabilities(n=500, seed=s)).error for s in range(200)]
    said = errors[0].notes[0].removeprefix("a perfectly calibrated classifier would show ").split()
    mean, sd = float(said[0]), float(said[2])
    values = np.array([e.value for e in errors])
    assert values.mean() == pytest.approx(mean, abs=5 * 0.07 * sd + 0.1 * mean)  # two digits are printed
    assert values.std() == pytest.approx(sd, rel=0.25)  # 5 standard errors
    assert errors[0].target == "expected estimate"


def test_overconfidence_is_an_error_beyond_its_noise():
    found = calibration(*given_probabilities(temperature=2.0)).error
    log_p, y = given_probabilities(temperature=2.0)
    p, right = log_p.exp().amax(1), (log_p.argmax(1) == y).double()
    gaps = [((right - p)[(p > b / 10) & (p <= (b + 1) / 10)]).sum().abs() for b in range(10)]
    assert found.value == pytest.approx(sum(gaps).item() / 2000, rel=1e-12)
    assert found.value - 5 * found.stderr > 0.02


def test_standard_errors_of_scores_are_their_spread_over_data_sets():
    """200 data sets far from calibration: a spread has a standard error of 5 %, and 5 of them are allowed."""
    found = [calibration(*given_probabilities(n=500, temperature=3.0, seed=s)) for s in range(200)]
    for name in ("error", "brier", "log_loss"):
        scores = [getattr(f, name) for f in found]
        spread = np.std([score.value for score in scores], ddof=1)
        assert spread == pytest.approx(np.mean([score.stderr for score in scores]), rel=0.25)


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.5, 0.999))
def test_wilsons_interval_is_that_of_statsmodels_and_stays_within_one(k, extra, level):
    n = k + extra - 1 or 1
    k = min(k, n)
    share = proportion(torch.arange(n) < k)
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert share.interval(level) == (pytest.approx(max(low, 0), abs=1e-9), pytest.approx(min(high, 1), abs=1e-9))
    assert share.stderr > 0


def test_a_perfect_share_is_not_certain():
    with pytest.raises(ValueError, match="a share needs at least one row"):
        proportion(torch.zeros(0, dtype=torch.bool))
    share = proportion(torch.ones(20, dtype=torch.bool))
    assert (share.value, share.stderr) == (1.0, 0.5 / 21)
    assert share.interval()[0] == pytest.approx(0.8389, abs=1e-4)  # Wilson, from tables
    assert "all of 20 rows" in share.notes[0]
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        share.interval(1.0)


def test_the_reliability_diagram_holds_the_table(net):
    found = net.calibration(DIGITS[HELD], DIGIT[HELD], bins=5)
    ax = found.plot()
    line = ax.containers[-1].lines[0]
    np.testing.assert_allclose(line.get_ydata(), found.table["accuracy"])
    assert "predicted class" in ax.get_xlabel()
    of = net.calibration(DIGITS[HELD], DIGIT[HELD], of=7)
    assert of.event == 7
    assert viz.reliability(of.table, ax, label="of sevens") is ax
    plt.close("all")


# Labels


@pytest.mark.parametrize(
    ("y", "classes", "indices"),
    [
        ([3, 1, 3], (1, 3), [1, 0, 1]),
        (torch.tensor([2, 5]), (2, 5), [0, 1]),
        (np.array([1.0, 0.0]), (0, 1), [1, 0]),
        (["b", "a"], ("a", "b"), [1, 0]),
        (np.array([["b"], ["a"]]), ("a", "b"), [1, 0]),
        ([True, False], (False, True), [1, 0]),
        (pd.Series(["u", "v"], index=[7, 8]), ("u", "v"), [0, 1]),
        (pd.Series([1, 2], dtype="Int64"), (1, 2), [0, 1]),
        (pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"]), ("lo", "hi"), [0, 1]),
        (pd.Series(["hi", "lo"], dtype=pd.CategoricalDtype(["lo", "hi"])), ("lo", "hi"), [1, 0]),
        ([torch.tensor(1), np.int64(0)], (0, 1), [1, 0]),
    ],
)
def test_labels_of_any_kind_become_indices_and_come_back(y, classes, indices):
    labels = Labels.of(y)
    assert labels.classes == classes
    assert labels.indices(y).tolist() == indices
    assert labels.named(torch.tensor(indices)).tolist() == [classes[i] for i in indices]
    assert Labels.from_json(labels.to_json()) == labels


@pytest.mark.parametrize(
    ("y", "error", "says"),
    [
        ([1, None, 2, None], ValueError, "y must have a label everywhere; 2 of 4 are missing .* at positions 1, 3"),
        ([1.0, math.nan], ValueError, "1 of 2 are missing"),
        (torch.tensor([math.nan, 1.0]), ValueError, "positions 0"),
        (pd.Series(["a", None, "b"]), ValueError, "positions 1"),
        (pd.Series([1, pd.NA, 2], dtype="Int64"), ValueError, "positions 1"),
        (pd.Categorical(["a", None, "b"]), ValueError, "positions 1"),
        ([1, "a"], TypeError, "all whole numbers, all text or all booleans; got int and str"),
        ([0.5, 1.5], TypeError, "got float. Numbers with decimals are measurements, not classes"),
        ([b"a", b"b"], TypeError, "got bytes"),
        ("labels", TypeError, "y must be array-like labels .* got str"),
        (3, TypeError, "got int"),
        ([], ValueError, "y is empty"),
        ([4, 4], ValueError, "at least two classes; all 2 labels are 4"),
        (torch.eye(3), ValueError, r"got \(3, 3\). Pass one-hot rows as y.argmax\(1\)"),
    ],
)
def test_labels_that_are_none_are_refused(y, error, says):
    with pytest.raises(error, match=says):
        Labels.of(y)


def test_labels_unlike_those_of_fit_are_named():
    labels = Labels.of([1, 2, 3])
    with pytest.raises(ValueError, match="labels that fit did not see: 7, 9, first at position 1. The classes are 1"):
        labels.indices([1, 7, 7, 9])
    with pytest.raises(TypeError, match="labels as in fit, whole numbers such as 1; got text"):
        labels.indices(["1"])
    with pytest.raises(ValueError, match="one label for each row, 3; got 2"):
        labels.indices([1, 2], 3)
    with pytest.raises(TypeError, match="at least two labels"):
        Labels.from_json([[1], [2]])


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda n: n.predict(DIGITS[0]), ValueError, r"got \(1, 8, 8\). Pass a single row as x\[None\]"),
        (lambda n: n.predict(DIGITS.expand(-1, 3, 8, 8)), ValueError, r"shape \(n, 1, 8, 8\).*got \(1797, 3, 8, 8\)"),
        (lambda n: n.predict(DIGITS[:2] * math.nan), ValueError, "x must be finite; got 128 NaN"),
        (lambda n: n.accuracy(DIGITS[:3], [1, 2]), ValueError, "one label for each row, 3; got 2"),
        (lambda n: n.accuracy(DIGITS[:2], [1, 12]), ValueError, "did not see: 12"),
        (lambda n: n.log_likelihood(DIGITS[:2], [1, None]), ValueError, "positions 1"),
        (lambda n: n.calibration(DIGITS[:2], [1, 2], bins=0), ValueError, "bins must be a whole number"),
        (lambda n: n.calibration(DIGITS[:2], [1, 2], by="size"), ValueError, "by must be one of 'width', 'count'"),
        (lambda n: n.calibration(DIGITS[:2], [1, 2], of=11), ValueError, "of has labels that fit did not see: 11"),
    ],
)
def test_bad_input_to_a_fitted_classifier_is_named(net, call, error, says):
    with pytest.raises(error, match=says):
        call(net)


X = DIGITS[:30]
Y = DIGIT[:30]


@pytest.mark.parametrize(
    ("x", "y", "how", "error", "says"),
    [
        ([np.zeros((1, 8, 8)), np.zeros((1, 8, 7))], [0, 1], {}, ValueError, "x must be a rectangular array"),
        (X[:, 0], Y, {}, ValueError, r"images of shape \(n, c, h, w\).* Add the channel as x\[:, None\]"),
        (X.flatten(1), Y, {}, ValueError, r"got rows of shape \(64,\). Pass a network="),
        (X, Y[:29], {}, ValueError, "one label for each row, 30; got 29"),
        (X, [None, *Y[1:].tolist()], {}, ValueError, "missing .* at positions 0"),
        (X, torch.zeros(30), {}, ValueError, "at least two classes"),
        (X, Y, {"validation": X}, ValueError, r"a pair \(x, y\) of your own, or None; got Tensor"),
        (X, Y, {"validation": (X, Y[:5])}, ValueError, r"validation\[1\] must have one label for each row, 30; got 5"),
        (X, Y, {"validation": (X[:, :, :5], Y)}, ValueError, r"validation\[0\] must have shape"),
        (X, Y, {"validation": "some"}, ValueError, "validation must be 'auto'"),
        (X, Y, {"batch_size": 0}, ValueError, "batch_size must be a whole number"),
    ],
)
def test_bad_input_to_fit_is_named(x, y, how, error, says):
    with pytest.raises(error, match=says):
        ImageClassifier().fit(x, y, epochs=1, progress=False, **how)


def test_a_batch_larger_than_the_data_is_the_data():
    net = ImageClassifier(channels=(4, 4)).fit(X, Y, epochs=2, batch_size=10_000, validation=None, progress=False)
    assert net.history["step"].tolist() == [1, 2]


@pytest.mark.parametrize("kind", [ImageClassifier, LogisticRegression])
@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.predict(X),
        lambda m: m.predict_proba(X),
        lambda m: m.log_likelihood(X, Y),
        lambda m: m.accuracy(X, Y),
        lambda m: m.calibration(X, Y),
        lambda m: m.classes,
        lambda m: m(X),
        lambda m: m.save("nowhere"),
    ],
)
def test_before_fit_the_error_says_so(kind, ask):
    with pytest.raises(ValueError, match=r"is not fitted yet: call fit\("):
        ask(kind())


def test_coefficients_before_fit_are_refused():
    with pytest.raises(ValueError, match="not fitted yet"):
        _ = LogisticRegression().coefficients


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"l2": -1.0}, "l2 must be a number of at least 0; got -1.0"),
        ({"l2": math.nan}, "l2 must be"),
        ({"standardise": "yes"}, "standardise must be one of"),
    ],
)
def test_settings_of_logistic_regression_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        LogisticRegression(**settings)


@pytest.mark.parametrize("settings", [{"channels": (0,)}, {"hidden": (-1,)}, {"patience": 0}, {"standardise": "x"}])
def test_settings_of_an_image_classifier_are_checked(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        ImageClassifier(**settings)


def test_a_file_of_a_vae_is_no_classifier(tmp_path):
    VAE(1, hidden=(4,)).fit(torch.randn(30, 3), epochs=1, progress=False).save(tmp_path / "vae")
    with pytest.raises(ValueError, match="holds a VAE"):
        ImageClassifier.load(tmp_path / "vae")
