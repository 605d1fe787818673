"""Gaussian process classification and regression: against scikit-learn, NUTS, SciPy and published values."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn.gaussian_process as sk
import sklearn.gaussian_process.kernels as sk_kernels
import torch
from scipy import integrate, stats
from sklearn.datasets import load_digits

import probdl
from probdl.inference import NUTS, fit
from probdl.models import GaussianProcessClassifier, GaussianProcessRegressor, gaussian_process_evidence, kernels
from probdl.models.gaussian_process_evidence import Setting
from probdl.models.gaussian_process_intervals import predictive_quantiles
from probdl.models.gaussian_process_likelihoods import Label, LaplaceNoise, NormalNoise, StudentNoise


def double(x):
    return torch.as_tensor(x, dtype=torch.float64)


def inputs(n=25, d=2, seed=0):
    return double(np.random.default_rng(seed).normal(size=(n, d)))


# Kernels --------------------------------------------------------------------------------------------------------

AGAINST_SKLEARN = {
    "rbf": (kernels.RBF(2.0, 0.7), 2.0 * sk_kernels.RBF(0.7)),
    "rbf, one length each": (kernels.RBF(2.0, [0.7, 1.5]), 2.0 * sk_kernels.RBF([0.7, 1.5])),
    "matern ½": (kernels.Matern(0.5, 1.5, 0.8), 1.5 * sk_kernels.Matern(0.8, nu=0.5)),
    "matern 3/2": (kernels.Matern(1.5, 1.5, 0.8), 1.5 * sk_kernels.Matern(0.8, nu=1.5)),
    "matern 5/2, one length each": (kernels.Matern(2.5, 1.0, [0.8, 2.0]), sk_kernels.Matern([0.8, 2.0], nu=2.5)),
    "linear and constant": (kernels.Linear(0.5) + kernels.Constant(3.0), 0.5 * sk_kernels.DotProduct(math.sqrt(6.0))),
    "sums, products, white": (
        kernels.RBF(2.0, 0.7) * kernels.Matern(1.5, 1.0, 0.4) + kernels.White(0.3),
        2.0 * sk_kernels.RBF(0.7) * sk_kernels.Matern(0.4, nu=1.5) + sk_kernels.WhiteKernel(0.3),
    ),
}


@pytest.mark.parametrize("name", AGAINST_SKLEARN)
def test_kernels_are_those_of_scikit_learn(name):
    ours, theirs = AGAINST_SKLEARN[name]
    x, new = inputs(), inputs(7, seed=1)
    assert np.allclose(ours(x), theirs(x.numpy()), atol=1e-12)
    assert np.allclose(ours(new, x), theirs(new.numpy(), x.numpy()), atol=1e-12)
    assert np.allclose(ours.diagonal(x), theirs.diag(x.numpy()), atol=1e-12)


def test_the_periodic_kernel_is_that_of_scikit_learn_in_one_column_and_a_product_in_two():
    x = inputs(9, 1)
    theirs = sk_kernels.ExpSineSquared(length_scale=0.8, periodicity=1.3)
    assert np.allclose(kernels.Periodic(1.3, 1.0, 0.8)(x), theirs(x.numpy()), atol=1e-12)
    x = inputs(9, 2)
    both = theirs(x[:, :1].numpy()) * theirs(x[:, 1:].numpy())
    assert np.allclose(kernels.Periodic(1.3, 1.0, 0.8)(x), both, atol=1e-12)


def test_hyperparameters_have_names_and_a_product_has_one_variance():
    kernel = kernels.RBF(columns=[0]) * kernels.Periodic(fixed=["period"]) + kernels.RBF() + kernels.Linear()
    assert kernel.free == (
        "rbf1.variance",
        "rbf1.length",
        "periodic.length",
        "rbf2.variance",
        "rbf2.length",
        "linear.variance",
    )
    other = kernel.replaced({"rbf2.length": 3.0, "periodic.period": 2.0})
    assert other.hyperparameters["rbf2.length"] == 3.0
    assert other.hyperparameters["periodic.period"] == 2.0
    assert kernel.hyperparameters["rbf2.length"] == 1.0
    assert other.free == kernel.free
    assert (kernels.Constant(2.0) * (kernels.RBF() + kernels.Linear())).free == (
        "rbf.variance",
        "rbf.length",
        "linear.variance",
    )


def test_a_kernel_reads_the_columns_that_it_is_told_to():
    x = inputs(6, 3)
    assert torch.equal(kernels.RBF(columns=[2])(x), kernels.RBF()(x[:, 2:]))
    ard = kernels.RBF(columns=[0, 2], ard=True).for_columns(3)
    assert ard.hyperparameters["rbf.length"].shape == (2,)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: kernels.RBF(variance=-1.0), ValueError, "rbf.variance must be positive"),
        (lambda: kernels.RBF(length="long"), TypeError, "rbf.length must be a positive number"),
        (lambda: kernels.RBF(variance=[1.0, 2.0]), ValueError, "rbf.variance must be one number"),
        (lambda: kernels.Matern(2.0), ValueError, "nu must be 0.5, 1.5 or 2.5"),
        (lambda: kernels.RBF(fixed=["scale"]), ValueError, "fixed must list names among"),
        (lambda: kernels.RBF(fixed="length"), ValueError, "fixed must list names among"),
        (lambda: kernels.RBF() + 1.0, TypeError, r"another kernel; got float. A number c is Constant\(c\)"),
        (lambda: kernels.RBF().replaced({"length": 1.0}), ValueError, "no hyperparameter 'length'; there are"),
        (lambda: kernels.RBF(length=[1.0, 2.0]).for_columns(3), ValueError, "2 values for 3 columns"),
        (lambda: kernels.RBF(columns=[3]).for_columns(3), ValueError, r"reads the columns \[3\]; the inputs have 3"),
    ],
)
def test_kernels_that_cannot_be_are_refused_by_name(make, error, says):
    with pytest.raises(error, match=says):
        make()


# Evidence and its gradient --------------------------------------------------------------------------------------


def digits():
    X, y = load_digits(return_X_y=True)
    keep = (y == 3) | (y == 5)
    return X[keep] / 16, y[keep]


@pytest.mark.parametrize(
    ("variance", "length", "log_z"), [(1.0, 1.0, -84.533), (10.0, 2.0, -32.270), (100.0, 3.0, -26.200)]
)
def test_log_evidence_of_digits_3_and_5_is_that_published(variance, length, log_z):
    X, y = digits()
    gp = GaussianProcessClassifier(kernels.RBF(variance, length), optimise=False).fit(X, y)
    assert abs(gp.log_evidence.value - log_z) < 1e-3
    assert gp.log_evidence.stderr is None
    assert (gp.predict(X) == torch.from_numpy(y)).double().mean() > 0.99


def test_log_evidence_of_breast_cancer_is_that_of_gpy():
    X, y = probdl.data.breast_cancer(standardise=True)
    gp = GaussianProcessClassifier(kernels.RBF(4.0, 5.0), optimise=False).fit(X, y)
    assert abs(gp.log_evidence.value + 74.4324) < 1e-3


def many_parts():
    return (
        kernels.RBF(1.3, [0.7, 1.1])
        + kernels.Matern(0.5, 0.5, [0.4, 0.8]) * kernels.Linear(0.3)
        + kernels.White(0.05)
        + kernels.Constant(2.0)
        + kernels.Periodic(1.5, 0.3, 0.9)
    )


def observations():
    x = inputs(40)
    noise = double(np.random.default_rng(1).standard_t(3, size=40))
    return x, torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.2 * noise


@pytest.mark.parametrize("likelihood", ["normal", "student", "laplace", "probit", "logit"])
def test_the_gradient_of_the_log_evidence_is_that_of_finite_differences(likelihood):
    """In every hyperparameter of kernel, noise and mean, to 1e-6."""
    x, y = observations()
    sign = torch.where(y > 0, 1.0, -1.0).double()
    made = {
        "normal": lambda: NormalNoise(y, 0.3),
        "student": lambda: StudentNoise(y, 0.3, 4.0),
        "laplace": lambda: LaplaceNoise(y, 0.3),
        "probit": lambda: Label(sign, "probit"),
        "logit": lambda: Label(sign, "logit"),
    }[likelihood]()
    setting = Setting(many_parts().for_columns(2), made, mean=0.2, free_mean=True, unit=0.7)
    at, h = setting.vector(), 1e-3
    _, gradient = setting.value_and_gradient(x, tolerance=1e-10)

    def value(vector):
        return setting.moved(vector).propagated(x, tolerance=1e-10).log_evidence.item()

    assert len(setting.names) == len(at) == 12 + 1 * (likelihood in ("normal", "student", "laplace"))
    for i, e in enumerate(np.eye(len(at))):
        near, far = value(at + h * e) - value(at - h * e), value(at + 2 * h * e) - value(at - 2 * h * e)
        assert abs((8 * near - far) / (12 * h) - gradient[i]) < 1e-6, setting.names[i]


def test_regression_with_normal_noise_is_that_of_scikit_learn():
    x, y = observations()
    new = inputs(6, seed=4)
    theirs = sk.GaussianProcessRegressor(2.0 * sk_kernels.RBF(0.7), alpha=0.09, optimizer=None).fit(x, y - 0.4)
    kernel = kernels.RBF(2.0, 0.7)
    ours = GaussianProcessRegressor(kernel, scale=0.3, mean=0.4, optimise=False).fit(x, y)
    assert abs(ours.log_evidence.value - theirs.log_marginal_likelihood_value_) < 1e-8
    assert ours.log_evidence.stderr == 0.0
    assert ours.log_evidence.method == "closed form"
    mean, sd = theirs.predict(new, return_std=True)
    table = ours.predict(new, level=0.8, of="f")
    assert np.allclose(table["mean"], mean + 0.4, atol=1e-8)
    assert np.allclose(table["sd"], sd, atol=1e-8)
    assert np.allclose(table["upper"], mean + 0.4 + stats.norm.ppf(0.9) * sd, atol=1e-8)
    assert np.allclose(ours.predict(new)["sd"], np.sqrt(sd**2 + 0.09), atol=1e-8)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_evidence_and_predictions_keep_their_digits_under_tiny_and_large_noise(scale):
    """Dividing marginals by sites, and sites by their heights, would be wrong by many nats at 1e-3."""
    x, y = inputs(30, 1), 1e3 * inputs(30, 1, seed=2)[:, 0]
    gp = GaussianProcessRegressor(kernels.Matern(0.5, 1e6, 1.0), scale=scale, mean=0.0, optimise=False).fit(x, y)
    covariance = kernels.Matern(0.5, 1e6, 1.0)(x).numpy() + scale**2 * np.eye(30)
    exact = stats.multivariate_normal(np.zeros(30), covariance).logpdf(y.numpy())
    assert abs(gp.log_evidence.value - exact) < 1e-7 * abs(exact)
    smoothed = kernels.Matern(0.5, 1e6, 1.0)(x).numpy() @ np.linalg.solve(covariance, y.numpy())
    assert np.allclose(gp.predict(x)["mean"], smoothed, rtol=1e-8, atol=1e-8)


def test_optimised_hyperparameters_are_those_of_scikit_learn_with_errors_of_the_curvature():
    x, y = observations()
    theirs = sk.GaussianProcessRegressor(
        sk_kernels.ConstantKernel(1.0) * sk_kernels.RBF([1.0, 1.0]) + sk_kernels.WhiteKernel(0.1),
        n_restarts_optimizer=2,
        random_state=0,
    ).fit(x, y)
    gp = GaussianProcessRegressor(kernels.RBF(ard=True), mean=0.0).fit(x, y)
    assert abs(gp.log_evidence.value - theirs.log_marginal_likelihood_value_) < 1e-3
    table = gp.hyperparameters
    assert list(table.index) == ["rbf.variance", "rbf.length[0]", "rbf.length[1]", "noise.scale", "mean"]
    found = theirs.kernel_
    exact = [found.k1.k1.constant_value, *found.k1.k2.length_scale, math.sqrt(found.k2.noise_level)]
    assert np.allclose(np.log(table["value"][:4].astype(float)), np.log(exact), atol=0.1 * 0.1)
    assert list(table["optimised"]) == [True] * 4 + [False]
    at = np.array(theirs.kernel_.theta)  # logs of variance, lengths and the noise's variance

    def gradient(theta):
        return theirs.log_marginal_likelihood(theta, eval_gradient=True)[1]

    hessian = np.array([(gradient(at + 1e-4 * e) - gradient(at - 1e-4 * e)) / 2e-4 for e in np.eye(4)])
    errors = np.sqrt(np.linalg.inv(-hessian).diagonal()) * [1, 1, 1, 0.5]
    assert np.allclose(table["sd"][:4].astype(float) / table["value"][:4].astype(float), errors, rtol=0.05)
    assert "maximised over rbf.variance, rbf.length[0], rbf.length[1], noise.scale by L-BFGS" in gp.message


def test_hyperparameters_of_a_classifier_maximise_the_log_evidence():
    x = inputs(60, 1)
    y = torch.sin(3 * x[:, 0]) + 0.3 * inputs(60, 1, seed=5)[:, 0] > 0
    gp = GaussianProcessClassifier(kernels.RBF(ard=True)).fit(x, y)
    best = gp.log_evidence.value
    for name, value in gp.fitted_kernel.hyperparameters.items():
        for factor in (0.8, 1.25):
            moved = gp.fitted_kernel.replaced({name: value * factor})
            assert GaussianProcessClassifier(moved, optimise=False).fit(x, y).log_evidence.value < best
    assert "3 starts" in gp.message
    with_prior = GaussianProcessClassifier(kernels.RBF(), prior_sd=0.1).fit(x, y).hyperparameters
    near, far = (np.log(table["value"].to_numpy()[:2].astype(float)) for table in (with_prior, gp.hyperparameters))
    assert (np.abs(near) < 0.5 * np.abs(far)).all()


def test_a_subset_of_the_rows_chooses_among_starts_and_all_rows_decide(monkeypatch):
    monkeypatch.setattr(gaussian_process_evidence, "FEW", 40)
    rng = np.random.default_rng(2)
    x = rng.uniform(-3, 3, size=(90, 1))
    y = rng.random(90) < stats.norm.cdf(2 * np.sin(2 * x[:, 0]))
    gp = GaussianProcessClassifier(kernels.RBF(2.0, 1.0), restarts=1).fit(x, y)
    assert "on 40 of the rows, then on all 90" in gp.message
    whole = Setting(gp.fitted_kernel, Label(gp._labels, "probit"))
    _, gradient = whole.value_and_gradient(gp._x)
    assert np.abs(gradient).max() < 0.01


# What is learnt -------------------------------------------------------------------------------------------------


def test_two_labels_give_the_exact_posterior_to_the_error_of_ep():
    """Two correlated probit labels: moments and evidence on a grid; EP's own error is some thousandths here."""
    x = double([[0.0], [0.7]])
    gp = GaussianProcessClassifier(kernels.RBF(3.0, 1.0), optimise=False).fit(x, [0, 1])
    grid = np.linspace(-9, 9, 601)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    prior = stats.multivariate_normal(np.zeros(2), kernels.RBF(3.0, 1.0)(x).numpy())
    p = prior.pdf(np.stack([a, b], -1)) * stats.norm.cdf(-a) * stats.norm.cdf(b)
    cell = (grid[1] - grid[0]) ** 2
    assert abs(gp.log_evidence.value - math.log(p.sum() * cell)) < 0.01
    mean, sd = gp.latent(x)
    for k, value in enumerate((a, b)):
        exact = (p * value).sum() / p.sum()
        exact_sd = math.sqrt((p * (value - exact) ** 2).sum() / p.sum())
        assert abs(mean[k].item() - exact) < 0.01 * exact_sd
        assert abs(sd[k].item() / exact_sd - 1) < 0.02


def test_probabilities_are_the_averages_of_the_link():
    x, y = inputs(30, 1), inputs(30, 1, seed=3)[:, 0] > 0
    new = double([[-1.0], [0.3], [50.0]])
    inverses = {"probit": stats.norm.cdf, "logit": lambda f: 1 / (1 + np.exp(-f))}

    def averaged(link, m, s):
        return integrate.quad(lambda f: inverses[link](f) * stats.norm.pdf(f, m, s), m - 9 * s, m + 9 * s)[0]

    for link in inverses:
        gp = GaussianProcessClassifier(kernels.RBF(3.0, 0.5), link, optimise=False).fit(x, y)
        proba = gp.predict_proba(new)
        for (m, s), p in zip(torch.stack(gp.latent(new), 1).tolist(), proba[:, 1].tolist()):
            assert abs(p - averaged(link, m, s)) < 1e-7
        assert torch.allclose(proba.sum(1), double([1.0] * 3))
        assert abs(proba[2, 1].item() - 0.5) < 1e-9  # far from all data


def few_labels():
    x = inputs(12, 1)
    y = double(np.random.default_rng(3).random(12) < stats.norm.cdf(2 * np.sin(2 * x[:, 0].numpy())))
    return x, y, GaussianProcessClassifier(kernels.RBF(4.0, 1.0), optimise=False).fit(x, y)


def test_ep_is_closer_to_the_posterior_than_laplace():
    """Means and sds of f at 12 labels by 400,000 importance draws, whose own error is some .003 sd."""
    x, y, gp = few_labels()
    cross = gp.fitted_kernel(x)
    proposal = torch.distributions.MultivariateNormal(
        gp.latent(x)[0], gp._fit.gaussian.conditional_covariance(cross, cross) + 1e-9 * torch.eye(12).double()
    )
    root = torch.linalg.cholesky(proposal.covariance_matrix)
    noise = double(np.random.default_rng(0).normal(size=(400_000, 12)))
    f = proposal.loc + noise @ root.T
    prior = torch.distributions.MultivariateNormal(torch.zeros(12).double(), cross + 1e-9 * torch.eye(12).double())
    log_w = prior.log_prob(f) + torch.special.log_ndtr((2 * y - 1) * f).sum(1) - proposal.log_prob(f)
    w = log_w.softmax(0)
    assert 1 / (w @ w) > 100_000
    exact_mean = w @ f
    exact_sd = (w @ (f - exact_mean) ** 2).sqrt()
    laplace = fit(gp.model, x, y, method="laplace")
    ep_gap, laplace_gap = (
        ((mean - exact_mean) / exact_sd).abs().mean() for mean in (gp.latent(x)[0], laplace.mean("f"))
    )
    assert ep_gap < 0.02
    assert laplace_gap > 5 * ep_gap
    assert abs((gp.latent(x)[1] / exact_sd).log().mean()) < 0.03
    assert abs(gp.log_evidence.value - (log_w.logsumexp(0).item() - math.log(len(w)))) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("method", [NUTS(draws=500, warmup=300, chains=2), "meanfield", "fullrank"])
def test_other_methods_run_on_the_pyro_program_of_a_fit(method):
    x, y, gp = few_labels()
    other = fit(gp.model, x, y, method=method, seed=1)
    gap = (other.mean("f") - gp.latent(x)[0]) / gp.latent(x)[1]
    assert gap.abs().mean() < 0.3  # variational means are off by some tenths of an sd


def test_the_pyro_program_of_a_fit_has_its_evidence():
    x = inputs(15, 1)
    y = double(x[:, 0] > 0.2)
    gp = GaussianProcessClassifier(kernels.RBF(2.0, 1.0), mean=0.3, optimise=False).fit(x, y)
    posterior = fit(gp.model, x, y, method="ep")
    assert abs(posterior.log_evidence.value - gp.log_evidence.value) < 1e-4
    assert torch.allclose(posterior.mean("f"), gp.latent(x)[0], atol=1e-3)
    regressor = GaussianProcessRegressor(kernels.RBF(2.0, 1.0), "student", scale=0.5, optimise=False).fit(x, y)
    posterior = fit(regressor.model, x, y, method="ep")
    assert abs(posterior.log_evidence.value - regressor.log_evidence.value) < 1e-4


@pytest.mark.parametrize("noise", ["student", "laplace"])
def test_robust_noise_is_not_pulled_by_outliers(noise):
    """A sine with a sixth of its measurements off by 8 sds of the noise or more."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-3, 3, 50))
    truth = 3 * np.sin(2 * x)
    y = truth + 0.3 * rng.normal(size=50)
    y[::6] += rng.choice([-8, 8], len(y[::6]))
    robust = GaussianProcessRegressor(noise=noise, restarts=0).fit(x, y)
    plain = GaussianProcessRegressor(restarts=0).fit(x, y)
    robust_error, plain_error = (np.abs(gp.predict(x, of="f")["mean"] - truth).mean() for gp in (robust, plain))
    assert robust_error < 0.4
    assert robust_error < 0.5 * plain_error
    assert robust.log_evidence.value > plain.log_evidence.value + 5
    assert "noise.scale" in robust.message
    if noise == "student":
        assert any("negative precision" in note for note in robust.notes)


@pytest.mark.parametrize("sd", [1e-6, 0.3, 3.0, 50.0])
@pytest.mark.parametrize("noise", ["student", "laplace"])
def test_quantiles_of_a_new_measurement_have_their_probability(noise, sd):
    one = torch.ones(1, dtype=torch.float64)
    made, law = {
        "student": (StudentNoise(one, 1.0, 4.0), stats.t(4)),
        "laplace": (LaplaceNoise(one, 1.0), stats.laplace()),
    }[noise]

    def probability_below(q):
        if sd < 1:
            return integrate.quad(lambda f: law.cdf(q - sd * f) * stats.norm.pdf(f), -9, 9, epsabs=1e-9)[0]
        edges = [-60 - 9 * sd, -5, 0, 5, 60 + 9 * sd]
        pieces = zip(edges, edges[1:])
        return sum(integrate.quad(lambda e: stats.norm.cdf((q - e) / sd) * law.pdf(e), a, b)[0] for a, b in pieces)

    for level in (0.025, 0.5, 0.95):
        (q,) = predictive_quantiles(0 * one, sd * one, made, [level])
        assert abs(probability_below(q[0]) - level) < 2e-4


# Data as they come ----------------------------------------------------------------------------------------------


def test_labels_of_text_and_tables_with_names_come_back_as_they_were():
    frame = pd.DataFrame({"age": [20, 30, 60, 70], "dose": [1.0, 2.0, 8.0, 9.0]})
    gp = GaussianProcessClassifier(kernels.RBF(4.0, 20.0), optimise=False).fit(
        frame, pd.Series(["no", "no", "yes", "yes"])
    )
    assert list(gp.classes) == ["no", "yes"]
    assert list(gp.predict(frame[["dose", "age"]].assign(other=1))) == ["no", "no", "yes", "yes"]
    with pytest.raises(ValueError, match=r"lacks the columns \['dose'\]"):
        gp.predict(frame[["age"]])
    with pytest.raises(ValueError, match="must have the 2 columns.*got 3"):
        gp.predict(np.ones((2, 3)))
    regressor = GaussianProcessRegressor(kernels.RBF(1.0, 20.0), optimise=False).fit(frame, [1.0, 2, 3, 4])
    table = regressor.predict(frame.set_index(pd.Index(list("abcd"))))
    assert list(table.index) == list("abcd")
    assert list(table.columns) == ["mean", "sd", "lower", "upper"]


@pytest.mark.parametrize(
    "labels", [[True, False, True], [3, 5, 3], np.array(["b", "a", "b"]), torch.tensor([1.0, 0.0, 1.0])]
)
def test_labels_may_be_booleans_numbers_or_text(labels):
    gp = GaussianProcessClassifier(kernels.RBF(9.0, 0.3), optimise=False).fit([0.0, 1.0, 2.0], labels)
    assert list(gp.predict([0.0, 1.0, 2.0])) == list(labels)


def test_single_precision_and_lists_give_what_double_precision_gives():
    x, y = observations()
    models = [
        GaussianProcessRegressor(kernels.RBF(2.0, 1.0), scale=0.3, optimise=False).fit(a, b)
        for a, b in ((x, y), (x.float(), y.float()), (x.tolist(), y.tolist()))
    ]
    assert abs(models[1].log_evidence.value - models[0].log_evidence.value) < 1e-4
    assert models[2].log_evidence.value == models[0].log_evidence.value
    assert models[1].latent(x)[0].dtype is torch.float64


def test_duplicate_rows_need_no_jitter_and_count_as_often_as_they_occur():
    x, y = double([[0.0], [1.0]]), double([0.5, -0.2])
    twice = GaussianProcessRegressor(kernels.RBF(), scale=0.2, mean=0.0, optimise=False).fit(
        torch.cat([x, x]), torch.cat([y, y])
    )
    once = GaussianProcessRegressor(kernels.RBF(), scale=0.2 / math.sqrt(2), mean=0.0, optimise=False).fit(x, y)
    assert np.allclose(twice.predict([0.3], of="f"), once.predict([0.3], of="f"), atol=1e-10)
    labelled = GaussianProcessClassifier(kernels.RBF(), optimise=False).fit([0.0, 0.0, 0.0], [0, 1, 1])
    assert 0.5 < labelled.predict_proba([0.0])[0, 1] < 0.7


def test_one_row_is_fitted_where_nothing_is_to_be_learnt_from_it():
    gp = GaussianProcessRegressor(kernels.RBF(4.0), scale=1.0, mean=0.0, optimise=False).fit([[2.0]], [5.0])
    assert abs(gp.predict([2.0], of="f")["mean"][0] - 4.0) < 1e-12
    assert abs(gp.log_evidence.value - stats.norm.logpdf(5, 0, math.sqrt(5))) < 1e-12
    with pytest.raises(ValueError, match="do not differ.*optimise=False"):
        GaussianProcessRegressor().fit([[2.0]], [5.0])


@pytest.mark.parametrize(
    ("X", "y", "error", "says"),
    [
        ([1.0, 2.0], [1, 1], ValueError, r"two classes; got 1 \(1\): nothing to tell apart"),
        ([1.0, 2.0, 3.0], ["a", "b", "c"], ValueError, "got 3 .*one against the rest"),
        ([1.0, 2.0], [0.0, math.nan], ValueError, "y has 1 missing labels of 2"),
        ([1.0, 2.0], ["a", None], ValueError, "y has 1 missing labels of 2"),
        ([1.0, 2.0], [0, 1, 1], ValueError, r"shape \(2,\), one value for each row of X; got \(3,\)"),
        ([1.0, math.nan], [0, 1], ValueError, "X must be finite; got 1 NaN"),
        ([["a"], ["b"]], [0, 1], TypeError, "X must hold numbers"),
        ([], [], ValueError, "X is empty"),
        (np.zeros((2, 2, 2)), [0, 1], ValueError, r"shape \(n, d\)"),
        (pd.DataFrame({"u": [1.0, None], "v": [1.0, 2.0]}), [0, 1], ValueError, r"missing .* columns 'u' \(1\)"),
        (np.zeros((10_001, 1)), np.zeros(10_001), ValueError, "10001 rows.*too large"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_refused_by_name(X, y, error, says):
    with pytest.raises(error, match=says):
        GaussianProcessClassifier(optimise=False).fit(X, y)


class Upside(kernels.RBF):
    """Minus a covariance."""

    def __call__(self, x, y=None):
        return torch.eye(len(x), dtype=x.dtype) * 2 - super().__call__(x, y)


def test_a_kernel_that_is_no_covariance_is_refused_with_its_smallest_eigenvalue():
    with pytest.raises(ValueError, match="not positive definite on X: the smallest eigenvalue of its matrix is -"):
        GaussianProcessClassifier(Upside(1.0, 10.0), optimise=False).fit([0.0, 1.0, 2.0], [0, 1, 1])
    with pytest.raises(ValueError, match="no variance at any row"):
        GaussianProcessClassifier(kernels.Linear(), optimise=False).fit([0.0, 0.0], [0, 1])


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: GaussianProcessClassifier(link="cauchit"), ValueError, "link must be one of"),
        (lambda: GaussianProcessClassifier("rbf"), TypeError, "kernel must be one of probdl.models.kernels"),
        (lambda: GaussianProcessClassifier(restarts=-1), ValueError, "restarts must be a whole number"),
        (lambda: GaussianProcessClassifier(prior_sd=0.0), ValueError, "prior_sd must be positive"),
        (lambda: GaussianProcessRegressor(noise="cauchy"), ValueError, "noise must be one of"),
        (lambda: GaussianProcessRegressor(scale=-1.0), ValueError, "scale must be positive"),
        (lambda: GaussianProcessRegressor(mean="linear"), ValueError, "mean must be one of"),
        (lambda: GaussianProcessClassifier().predict([1.0]), RuntimeError, "has not been fitted"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_by_name(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_prior_mean_that_is_constant_is_learnt_with_the_rest():
    x, y = observations()
    far = GaussianProcessRegressor(kernels.RBF(), restarts=0).fit(x, 1000 + 10 * y)
    near = GaussianProcessRegressor(kernels.RBF(), restarts=0).fit(x, y)
    assert abs(far.mean - 1000 - 10 * near.mean) < 0.05
    assert abs(far.log_evidence.value - near.log_evidence.value + 40 * math.log(10)) < 1e-3


def test_fits_are_the_same_each_time_and_leave_global_seeds_alone():
    x, y = observations()
    state = torch.get_rng_state()
    values = {GaussianProcessRegressor(restarts=1).fit(x, y, seed=3).log_evidence.value for _ in range(2)}
    assert len(values) == 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("kind", [GaussianProcessClassifier, GaussianProcessRegressor])
def test_pictures_of_one_and_two_columns(kind, d):
    x = inputs(20, d)
    y = x.sum(1) > 0 if kind is GaussianProcessClassifier else x.sum(1)
    ax = kind(kernels.RBF(2.0, 1.0), optimise=False).fit(x, y).plot()
    assert ax.has_data()
    assert ax.get_xlabel() == "X[0]"
    plt.close("all")
    with pytest.raises(ValueError, match="one or two columns; this model has 3"):
        kind(kernels.RBF(2.0, 1.0), optimise=False).fit(inputs(20, 3), y).plot()


def test_where_plain_ep_has_no_fixed_point_a_lower_power_is_taken_and_said():
    """Hyperparameters far from what the data say: noise a tenth of the true scale, and outliers of 8."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-3, 3, 50))
    y = 3 * np.sin(2 * x) + 0.3 * rng.normal(size=50)
    y[::6] += rng.choice([-8, 8], 9)
    gp = GaussianProcessRegressor(kernels.RBF(0.3, 0.5), "student", scale=0.03, mean=0.0, optimise=False).fit(x, y)
    assert "power expectation propagation (power 0." in gp.log_evidence.method
    assert any("plain expectation propagation has no fixed point" in note for note in gp.notes)
    assert gp.history["gap"].iloc[-1] <= 1e-7
