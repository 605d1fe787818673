"""Generalised linear models: statsmodels, conjugate formulas and NUTS as oracles; formulas; bad input by name."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from probdl.inference import NUTS, ExpectationPropagation, compare_posteriors, fit
from probdl.inference.posteriors.approximations import Approximation
from probdl.models import GLM
from probdl.models.regression.links import log_category_probabilities, log_ndtr, log_odds
from probdl.models.regression.units import InOwnUnits, Units, in_own_units

WIDE = {"coefficients": (0.0, 20.0), "Intercept": (0.0, 50.0)}


@pytest.fixture(scope="module")
def sm():
    return pytest.importorskip("statsmodels.api")


def frame(n=1500, seed=3):
    """Covariates of very different units, a factor, and a response of every family with the same linear predictor."""
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(
        {
            "year": rng.normal(2000, 5, n),
            "income": np.exp(rng.normal(10, 0.5, n)),
            "group": rng.choice(list("abc"), n),
            "days": rng.integers(1, 30, n).astype(float),
            "trials": rng.integers(1, 12, n),
        }
    )
    eta = 0.2 + 0.08 * (df.year - 2000) + 2e-5 * (df.income - 25_000) + 0.5 * (df.group == "b")
    p = 1 / (1 + np.exp(-eta))
    df["yes"] = (rng.random(n) < p).astype(int)
    df["won"] = rng.binomial(df.trials, p)
    df["lost"] = df.trials - df.won
    df["count"] = rng.poisson(np.exp(eta))
    df["visits"] = rng.poisson(df.days * np.exp(eta - 2))
    df["spread"] = rng.negative_binomial(2.0, 2 / (2 + np.exp(eta)))
    df["size"] = rng.gamma(3.0, np.exp(eta) / 3)
    df["z"] = eta + 0.5 * rng.normal(size=n)
    df["t"] = eta + 0.3 * rng.standard_t(3, n)
    life = np.exp(eta) * rng.weibull(1.6, n)
    df["lost_sight"] = life > 2.5
    df["life"] = np.minimum(life, 2.5)
    df["grade"] = np.digitize(eta + rng.logistic(size=n), [-0.5, 1.0])
    return df


DF = frame()
TERMS = "year + income + C(group)"
NAMES = ["Intercept", "year", "income", "C(group)[T.b]", "C(group)[T.c]"]


def agrees(glm, mean, se, share):
    """Assert that means are within a share of the standard errors, and sds within 3 %."""
    table = glm.summary().table.iloc[: len(mean)]
    assert (np.abs(table["mean"] - mean) / se).max() < share
    np.testing.assert_allclose(table["sd"], se, rtol=0.03)


# -- against maximum likelihood, on 1500 rows with a wide prior --------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "link"),
    [("bernoulli", "logit"), ("bernoulli", "probit"), ("bernoulli", "cloglog"), ("poisson", "log")],
)
def test_with_a_wide_prior_the_posterior_is_the_likelihoods(family, link, sm):
    y = "yes" if family == "bernoulli" else "count"
    glm = GLM(f"{y} ~ {TERMS}", DF, family=family, link=link, prior=WIDE | {"income": 0.01}).fit()
    links = {"logit": "Logit", "probit": "Probit", "cloglog": "CLogLog", "log": "Log"}
    kind = sm.families.Binomial if family == "bernoulli" else sm.families.Poisson
    X = sm.add_constant(pd.get_dummies(DF[["year", "income", "group"]], drop_first=True).astype(float))
    X["year"] -= 2000  # statsmodels loses digits otherwise
    ml = sm.GLM(DF[y], X, family=kind(link=getattr(sm.families.links, links[link])())).fit()
    assert glm.posterior.method == "expectation propagation"
    assert list(glm.summary().table.index) == NAMES
    table = glm.summary().table
    se = ml.bse.to_numpy()
    assert (np.abs(table["mean"] - ml.params.to_numpy()) / se)[1:].max() < 0.1
    np.testing.assert_allclose(table["sd"][1:], se[1:], rtol=0.03)  # statsmodels takes the expected information
    at_2000 = table["mean"]["Intercept"] + 2000 * table["mean"]["year"]
    assert abs(at_2000 - ml.params["const"]) < 0.1 * ml.bse["const"]


def test_successes_of_trials_are_those_of_single_trials_counted(sm):
    X = sm.add_constant(DF[["year"]] - 2000.0)
    ml = sm.GLM(DF[["won", "lost"]], X, family=sm.families.Binomial()).fit()
    data = DF.assign(year=DF.year - 2000)
    first = GLM("cbind(won, lost) ~ year", data, family="binomial", prior=WIDE).fit()
    agrees(first, ml.params.to_numpy(), ml.bse.to_numpy(), 0.05)
    second = GLM("won ~ year", data, family="binomial", trials="trials", prior=WIDE).fit()
    third = GLM(family="binomial", prior=WIDE).fit(data[["year"]], data[["won", "lost"]])
    for other in (second, third):
        np.testing.assert_allclose(other.summary().table["mean"], first.summary().table["mean"], rtol=1e-9)


def test_an_exposure_is_an_offset_of_its_logarithm(sm):
    X = sm.add_constant(DF[["year"]] - 2000.0)
    ml = sm.GLM(DF.visits, X, family=sm.families.Poisson(), exposure=DF.days).fit()
    data = DF.assign(year=DF.year - 2000, log_days=np.log(DF.days))
    glm = GLM("visits ~ year", data, family="poisson", exposure="days", prior=WIDE).fit()
    agrees(glm, ml.params.to_numpy(), ml.bse.to_numpy(), 0.05)
    other = GLM("visits ~ year", data, family="poisson", offset="log_days", prior=WIDE).fit()
    np.testing.assert_allclose(other.summary().table["mean"], glm.summary().table["mean"], rtol=1e-9)
    new = pd.DataFrame({"year": [0.0, 0.0], "days": [1.0, 10.0]})
    predicted = glm.predict(new)["mean"]
    assert predicted[1] == pytest.approx(10 * predicted[0], rel=1e-9)
    at_ten = glm.predict(new[["year"]], exposure=[10.0, 10.0])["mean"]
    assert at_ten[0] == pytest.approx(predicted[1], rel=1e-9)


@pytest.mark.parametrize("method", ["ep", "laplace"])
def test_dispersions_agree_with_maximum_likelihood(method, sm):
    data = DF.assign(year=DF.year - 2000)
    X = sm.add_constant(data[["year"]])
    ml = sm.NegativeBinomial(data.spread, X).fit(disp=0)
    glm = GLM("spread ~ year", data, family="negative_binomial").fit(method=method)
    table = glm.summary().table
    assert list(table.index) == ["Intercept", "year", "dispersion"]
    assert (np.abs(table["mean"] - ml.params.to_numpy()) / ml.bse.to_numpy()).max() < 0.15
    np.testing.assert_allclose(table["sd"], ml.bse, rtol=0.05)


@pytest.mark.parametrize("method", ["ep", "laplace"])
def test_gamma_regression_agrees_with_maximum_likelihood(method, sm):
    data = DF.assign(year=DF.year - 2000)
    ml = sm.GLM(data["size"], sm.add_constant(data[["year"]]), family=sm.families.Gamma(sm.families.links.Log())).fit()
    table = GLM("size ~ year", data, family="gamma").fit(method=method).summary().table
    assert (np.abs(table["mean"][:2] - ml.params.to_numpy()) / ml.bse.to_numpy()).max() < 0.1
    assert table["mean"]["dispersion"] == pytest.approx(1 / stats.gamma.fit(data["size"], floc=0)[0], rel=0.3)


def test_ordered_categories_agree_with_maximum_likelihood(sm):
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    data = DF.assign(year=DF.year - 2000)
    for link in ("logit", "probit"):
        ml = OrderedModel(data.grade, data[["year"]], distr=link).fit(method="bfgs", disp=0)
        table = GLM("grade ~ year", data, family="ordered", link=link).fit(method="laplace").summary().table
        assert list(table.index) == ["year", "0|1", "1|2"]
        first, gap = ml.params["0/1"], np.exp(ml.params["1/2"])
        expected = np.array([ml.params["year"], first, first + gap])
        assert np.abs(table["mean"] - expected).max() < 0.1 * ml.bse.min() + 0.005


def test_a_model_of_two_ordered_categories_is_logistic_regression():
    ordered = GLM("yes ~ year", DF, family="ordered").fit()
    logistic = GLM("yes ~ year", DF, family="bernoulli").fit()
    np.testing.assert_allclose(ordered.summary().table.loc["year"], logistic.summary().table.loc["year"], rtol=1e-6)
    assert ordered.log_evidence.value == pytest.approx(logistic.log_evidence.value, abs=1e-6)
    assert ordered.summary().table["mean"]["0|1"] == pytest.approx(
        -logistic.summary().table["mean"]["Intercept"], rel=0.02
    )


def test_censored_survival_times_agree_with_the_maximum_of_their_likelihood():
    """The likelihood is written here with SciPy: densities of the events, survival functions of the others."""
    from scipy.optimize import minimize

    data = DF.assign(year=DF.year - 2000)
    x, t, cut = data.year.to_numpy(), data.life.to_numpy(), data.lost_sight.to_numpy()

    def loss(theta):
        scale, shape = np.exp(theta[0] + theta[1] * x), np.exp(theta[2])
        seen = stats.weibull_min.logpdf(t[~cut], shape, scale=scale[~cut]).sum()
        return -seen - stats.weibull_min.logsf(t[cut], shape, scale=scale[cut]).sum()

    ml = minimize(loss, np.zeros(3), method="BFGS")
    se = np.sqrt(np.diag(ml.hess_inv))
    glm = GLM("life ~ year", data, family="weibull", censored="lost_sight").fit(method="laplace")
    table = glm.summary().table
    assert list(table.index) == ["Intercept", "year", "shape"]
    assert (np.abs(table["mean"][:2] - ml.x[:2]) / se[:2]).max() < 0.1
    assert table["mean"]["shape"] == pytest.approx(np.exp(ml.x[2]), rel=0.01)
    ignored = GLM("life ~ year", data, family="weibull").fit(method="laplace").summary().table
    assert abs(ignored["mean"]["Intercept"] - ml.x[0]) > 3 * se[0]  # taking cut times for events is another model


# -- exact answers -----------------------------------------------------------------------------------------------------


def test_gaussian_regression_with_a_known_sd_is_conjugate():
    data = DF.head(40)
    prior = {"coefficients": 0.7, "Intercept": (1.0, 2.0), "sigma": 0.5}
    glm = GLM("z ~ year + C(group)", data, prior=prior).fit()
    X = np.column_stack([np.ones(40), data.year, data.group == "b", data.group == "c"]).astype(float)
    # the intercept has its prior at the means of the columns: a = level − mean·b
    to_own = np.eye(4)
    to_own[0, 1:] = -X[:, 1:].mean(0)
    S = to_own @ np.diag([4.0, 0.49, 0.49, 0.49]) @ to_own.T
    m = to_own @ np.array([1.0, 0, 0, 0])
    gain = S @ X.T @ np.linalg.inv(X @ S @ X.T + 0.25 * np.eye(40))
    mean, cov = m + gain @ (data.z - X @ m), S - gain @ X @ S
    table = glm.summary().table
    np.testing.assert_allclose(table["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(table["sd"], np.sqrt(np.diag(cov)), rtol=1e-6)
    np.testing.assert_allclose(table["P(sign)"], stats.norm.cdf(np.abs(mean) / np.sqrt(np.diag(cov))), atol=1e-9)
    evidence = stats.multivariate_normal.logpdf(data.z, X @ m, X @ S @ X.T + 0.25 * np.eye(40))
    assert glm.log_evidence.value == pytest.approx(evidence, abs=1e-6)
    assert glm.log_evidence.stderr == 0
    new = data.head(3)
    predicted = glm.predict(new, level=0.8)
    np.testing.assert_allclose(predicted["mean"], X[:3] @ mean, rtol=1e-7)
    sd = np.sqrt(np.diag(X[:3] @ cov @ X[:3].T))
    np.testing.assert_allclose(predicted["upper"], X[:3] @ mean + stats.norm.ppf(0.9) * sd, rtol=1e-3)
    np.testing.assert_allclose(
        predicted["new_upper"], X[:3] @ mean + stats.norm.ppf(0.9) * np.sqrt(sd**2 + 0.25), atol=0.05
    )  # 4000 draws: a standard error of .014
    density = stats.norm.logpdf(data.z[:3], X[:3] @ mean, np.sqrt(sd**2 + 0.25))
    np.testing.assert_allclose(glm.log_likelihood(new).value, density, atol=1e-4)


def test_gaussian_regression_with_unknown_sd_is_an_integral_over_it():
    """Given sigma all is conjugate; SciPy integrates over it."""
    from scipy.integrate import quad

    data = DF.head(25)
    glm = GLM("z ~ year", data, prior={"coefficients": 0.7, "Intercept": (1.0, 2.0)}).fit()
    unit, x = data.z.std(), (data.year - data.year.mean()).to_numpy()
    S = 4.0 + 0.49 * np.outer(x, x)

    def moment(s, k):
        law = stats.multivariate_normal(np.ones(25), S + s**2 * np.eye(25))
        return s**k * np.exp(law.logpdf(data.z) + stats.expon.logpdf(s, scale=unit))

    total, mean, square = (quad(moment, 0.1, 3.0, args=(k,), epsabs=0, epsrel=1e-8)[0] for k in range(3))
    assert glm.log_evidence.value == pytest.approx(np.log(total), abs=1e-3)
    table = glm.summary().table
    assert table["mean"]["sigma"] == pytest.approx(mean / total, rel=2e-3)
    assert table["sd"]["sigma"] == pytest.approx(np.sqrt(square / total - (mean / total) ** 2), rel=0.01)


def test_units_of_columns_and_response_change_nothing_but_units():
    data = DF.head(200)
    one = GLM("z ~ year + income", data).fit(method="laplace")
    scaled = data.assign(year=data.year * 1e6, income=data.income * 1e-9, z=1000 * data.z)
    other = GLM("z ~ year + income", scaled).fit(method="laplace")
    by = np.array([1000, 1e-3, 1e12, 1000])
    np.testing.assert_allclose(other.summary().table["mean"], one.summary().table["mean"] * by, rtol=1e-5)
    np.testing.assert_allclose(other.summary().table["sd"], one.summary().table["sd"] * by, rtol=1e-5)
    lost = 200 * np.log(1000)  # nats, by the change of variables
    assert other.log_evidence.value == pytest.approx(one.log_evidence.value - lost, abs=1e-4)


@pytest.mark.parametrize("family", ["bernoulli", "gaussian"])
def test_the_program_in_own_units_has_the_posterior_that_was_mapped(family):
    """Inference ran on standardised columns; the user's own call on the program does not."""
    data = DF.head(300).assign(year=DF.year - 1990)
    glm = GLM(f"{'yes' if family == 'bernoulli' else 'z'} ~ year + C(group)", data, family=family).fit(method="ep")
    own = fit(glm.model, **glm.arguments, method="ep")
    assert own.log_evidence.value == pytest.approx(glm.log_evidence.value, abs=1e-4)
    np.testing.assert_allclose(own.mean("coefficients"), glm.posterior.mean("coefficients"), rtol=1e-4)
    np.testing.assert_allclose(own.sd("Intercept"), glm.posterior.sd("Intercept"), rtol=1e-3)
    np.testing.assert_allclose(glm.summary(posterior=own).table["5%"], glm.summary().table["5%"], rtol=0.01, atol=0.01)
    assert glm.posterior.check().ess > 3500  # of 4000 draws


class Opaque(Approximation):
    """A Gaussian of which a map sees only the answers."""

    def __init__(self, inner):
        self.inner, self.latents = inner, inner.latents

    def mean(self, name):
        return self.inner.mean(name)

    def sd(self, name):
        return self.inner.sd(name)

    def quantile(self, name, q):
        return self.inner.quantile(name, q)

    def draws(self, n, seed):
        return self.inner.draws(n, seed)

    def density(self, name, entry):
        return self.inner.density(name, entry)

    def log_prob(self, values):
        return self.inner.log_prob(values)

    def cov(self, names):
        return self.inner.cov(names)


def test_any_approximation_is_brought_to_the_columns_units():
    """The generic map, which sees only answers, against the map of a Gaussian's mean and covariance."""
    data = DF.head(100)
    units = Units.of(np.asarray(data[["year", "income"]]), True)
    X = units.standardise(torch.as_tensor(data[["year", "income"]].to_numpy(copy=True)))
    standard = GLM().fit(X, data.z, method="laplace").posterior.approximation
    exact = in_own_units(standard, units, list(standard.latents))
    mapped = in_own_units(Opaque(standard), units, list(standard.latents))
    assert isinstance(mapped, InOwnUnits)
    for name in ("Intercept", "coefficients", "sigma"):
        np.testing.assert_allclose(mapped.mean(name), exact.mean(name), rtol=1e-6)
        np.testing.assert_allclose(mapped.sd(name), exact.sd(name), rtol=1e-6)
        error = (mapped.quantile(name, 0.9) - exact.quantile(name, 0.9)).abs() / exact.sd(name)
        assert float(error.max()) < 0.06  # of 20,000 draws: five standard errors
    values = exact.draws(5, 0)
    np.testing.assert_allclose(mapped.log_prob(values), exact.log_prob(values), rtol=1e-6)
    x, density = mapped.density("coefficients", 1)
    assert torch.trapezoid(density, x) == pytest.approx(1, abs=0.01)


# -- against NUTS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("yes ~ year + C(group)", {"family": "bernoulli", "link": "probit"}),
        ("t ~ year + income", {"family": "student"}),
        ("grade ~ year", {"family": "ordered"}),
        ("life ~ year", {"family": "weibull", "censored": "lost_sight"}),
    ],
)
def test_expectation_propagation_agrees_with_nuts(formula, options):
    """Deterministic under its seed; bounds leave four Monte Carlo errors of an ESS of 600 (.04 sd)."""
    data = frame(60, seed=5)
    propagated = GLM(formula, data, **options).fit(method="ep")
    sampled = GLM(formula, data, **options).fit(method=NUTS(draws=400, warmup=200, chains=2))
    ours, theirs = propagated.summary().table, sampled.summary().table
    assert {"rhat", "ess"} <= set(theirs.columns)
    assert (np.abs(ours["mean"] - theirs["mean"]) / theirs["sd"]).max() < 0.16
    np.testing.assert_allclose(ours["sd"], theirs["sd"], rtol=0.15)
    table = compare_posteriors(propagated.posterior, sampled.posterior)
    assert "year" in table.index


def test_links_are_those_of_scipy_far_into_both_tails():
    x = torch.tensor([-40.0, -8.0, -1.0, 0.0, 1.0, 8.0, 30.0], dtype=torch.float64)
    np.testing.assert_allclose(log_ndtr(x), stats.norm.logcdf(x), rtol=1e-12)
    np.testing.assert_allclose(log_odds(x, "probit"), stats.norm.logcdf(x) - stats.norm.logsf(x), rtol=1e-12)
    p = -np.expm1(-np.exp(x[1:5].numpy()))
    np.testing.assert_allclose(log_odds(x[1:5], "cloglog"), np.log(p / (1 - p)), rtol=1e-8)
    cuts = torch.tensor([-1.0, 0.5, 20.0], dtype=torch.float64)
    for link, law in (("logit", stats.logistic), ("probit", stats.norm)):
        edges = np.concatenate([[-np.inf], cuts, [np.inf]])
        for eta in (-2.0, 0.3, 3.0):
            near = log_category_probabilities(torch.tensor(eta, dtype=torch.float64), cuts, link)[:3].exp()
            np.testing.assert_allclose(near, np.diff(law.cdf(edges - eta))[:3], rtol=1e-9)
    far = log_category_probabilities(
        torch.tensor(0.0, dtype=torch.float64), torch.tensor([30.0, 31.0]).double(), "logit"
    )
    assert far[1] == pytest.approx(-30 + np.log1p(-np.exp(-1.0)), abs=1e-9)


# -- formulas ----------------------------------------------------------------------------------------------------------


def test_new_rows_are_coded_as_those_of_the_fit():
    glm = GLM("z ~ C(group) + poly(year, 2) + center(income)", DF).fit(method="laplace")
    whole = glm.predict(DF.head(50))
    parts = pd.concat([glm.predict(DF.iloc[[i]]) for i in range(50)])
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-6)
    only_c = DF[DF.group == "c"].head(5)
    assert (glm.predict(only_c).index == only_c.index).all()


def test_interactions_splines_functions_and_everything():
    glm = GLM("z ~ year * C(group) + np.log(income)", DF.head(300)).fit(method="laplace")
    assert "year:C(group)[T.b]" in glm.names
    assert "np.log(income)" in glm.names
    double = GLM("z ~ twice(year)", DF.head(300), context={"twice": lambda x: 2 * x}).fit(method="laplace")
    single = GLM("z ~ year", DF.head(300)).fit(method="laplace")
    assert 2 * double.summary().table["mean"]["twice(year)"] == pytest.approx(single.summary().table["mean"]["year"])
    dot = GLM("z ~ .", DF[["z", "year", "group"]]).fit(method="laplace")
    assert dot.names == ["year", "group[T.b]", "group[T.c]"]
    none = GLM("z ~ 0 + C(group)", DF).fit(method="laplace")
    assert "Intercept" not in none.posterior.names
    np.testing.assert_allclose(none.summary().table["mean"][:3], DF.groupby("group").z.mean(), atol=0.01)
    alone = GLM("z ~ 1", DF).fit(method="laplace")
    assert alone.summary().table["mean"]["Intercept"] == pytest.approx(DF.z.mean(), abs=1e-3)
    assert alone.predict(DF.head(2))["mean"].std() == pytest.approx(0, abs=1e-9)
    logged = GLM("np.log(size) ~ year", DF).fit(method="laplace")
    assert logged.response.name == "np.log(size)"


def test_quoted_columns_and_levels_are_kept():
    data = DF.head(100).rename(columns={"year": "the year", "z": "the z"})
    glm = GLM("`the z` ~ `the year`", data).fit(method="laplace")
    assert glm.names == ["the year"]
    counted = DF.head(100).rename(columns={"won": "n won", "lost": "n lost"})
    GLM("cbind(`n won`, `n lost`) ~ year", counted, family="binomial").fit(method="laplace")


def test_arrays_and_frames_and_formulas_agree():
    X, y = DF[["year", "income"]], DF.z
    formula = GLM("z ~ year + income", DF).fit(method="laplace").summary().table
    for x in (X, X.to_numpy(), torch.tensor(X.to_numpy())):
        glm = GLM().fit(x, y, method="laplace")
        np.testing.assert_allclose(glm.summary().table["mean"], formula["mean"], rtol=1e-9)
        np.testing.assert_allclose(glm.predict(x[:3])["mean"], glm.predict()["mean"][:3], rtol=1e-9)
    assert glm.names == ["x[0]", "x[1]"]
    assert GLM().fit(X, y, method="laplace").names == ["year", "income"]
    through = GLM(intercept=False).fit(X, y, method="laplace")
    assert list(through.summary().table.index) == ["year", "income", "sigma"]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "int8"])
def test_columns_of_any_number_type(dtype):
    data = DF.head(200).assign(x=(DF.year > 2000).astype(dtype))
    glm = GLM("yes ~ x", data, family="bernoulli").fit(method="laplace")
    reference = GLM("yes ~ x", data.assign(x=data.x.astype(float)), family="bernoulli").fit(method="laplace")
    np.testing.assert_allclose(glm.summary().table["mean"], reference.summary().table["mean"], rtol=1e-6)
    assert len(glm.predict(pd.DataFrame({"x": np.array([0, 1]).astype(dtype)}))) == 2


# -- answers -----------------------------------------------------------------------------------------------------------


def test_the_summary_reads_like_that_of_r():
    glm = GLM(f"yes ~ {TERMS}", DF, family="bernoulli", link="probit").fit()
    summary = glm.summary()
    text = repr(summary)
    for line in ("GLM: yes ~ year", "bernoulli family, probit link", "n = 1500", "log evidence", "Prior: intercept"):
        assert line in text
    assert list(summary.table.columns) == ["mean", "sd", "5%", "50%", "95%", "P(sign)"]
    assert summary.table["P(sign)"].between(0.5, 1).all()
    assert "C(group)[T.b]" in text
    assert summary.priors.loc["year", "sd"] == pytest.approx(2.5 / DF.year.std(ddof=0))
    assert "<table" in summary._repr_html_()
    assert list(glm.posterior.summary().index) == NAMES
    assert "fitted by expectation propagation to 1500 rows" in repr(glm)


def test_intervals_of_new_observations_cover_them():
    """Of 1500 rows under their own law 90 % are covered; four binomial errors are 3.1 %."""
    for y, family in (("z", "gaussian"), ("count", "poisson"), ("size", "gamma"), ("spread", "negative_binomial")):
        glm = GLM(f"{y} ~ {TERMS}", DF, family=family).fit(method="laplace")
        predicted = glm.predict(level=0.9)
        covered = DF[y].between(predicted["new_lower"], predicted["new_upper"]).mean()
        assert 0.869 < covered < (0.931 if family in ("gaussian", "gamma") else 0.99)
        assert (predicted["lower"] <= predicted["mean"]).all()
        assert predicted["mean"].mean() == pytest.approx(DF[y].mean(), rel=0.05, abs=0.02)


def test_probabilities_of_ordered_categories_are_their_shares():
    glm = GLM("grade ~ year", DF, family="ordered").fit(method="laplace")
    predicted = glm.predict()
    shares = [predicted[f"P({k})"].mean() for k in range(3)]
    np.testing.assert_allclose(shares, DF.grade.value_counts(normalize=True).sort_index(), atol=0.01)
    np.testing.assert_allclose(predicted[[f"P({k})" for k in range(3)]].sum(axis=1), 1, rtol=1e-9)
    assert set(predicted["new_lower"]) <= {0, 1, 2}
    labelled = DF.assign(grade=pd.Categorical.from_codes(DF.grade, ["low", "mid", "high"], ordered=True))
    named = GLM("grade ~ year", labelled, family="ordered").fit(method="laplace")
    assert list(named.summary().table.index) == ["year", "low|mid", "mid|high"]
    np.testing.assert_allclose(named.summary().table["mean"], glm.summary().table["mean"], rtol=1e-9)


def test_two_levels_of_text_say_which_is_the_success():
    data = DF.head(300).assign(answer=np.where(DF.yes[:300] == 1, "yes", "no"))
    glm = GLM("answer ~ year", data, family="bernoulli").fit(method="laplace")
    reference = GLM("yes ~ year", data, family="bernoulli").fit(method="laplace")
    np.testing.assert_allclose(glm.summary().table["mean"], reference.summary().table["mean"], rtol=1e-9)
    assert "success is answer = 'yes'" in repr(glm.summary())
    turned = GLM("answer ~ year", data, family="bernoulli", success="no").fit(method="laplace")
    np.testing.assert_allclose(turned.summary().table["mean"], -reference.summary().table["mean"], rtol=1e-5)
    np.testing.assert_allclose(glm.log_likelihood(data).value, reference.log_likelihood().value, rtol=1e-9)
    with pytest.raises(ValueError, match="'maybe'"):
        glm.log_likelihood(data.assign(answer="maybe"))


def test_predictions_have_their_seed_and_leave_the_global_one():
    glm = GLM("z ~ year", DF.head(200)).fit(method="laplace")
    torch.manual_seed(4)
    first, expected = glm.predict(seed=1), torch.rand(1)
    torch.manual_seed(4)
    assert torch.rand(1) == expected
    pd.testing.assert_frame_equal(first, glm.predict(seed=1))
    assert not first.equals(glm.predict(seed=2))


def test_log_likelihood_of_cut_times_is_that_of_surviving_them():
    data = DF.head(400)
    glm = GLM("life ~ year", data, family="weibull", censored="lost_sight", prior={"shape": 1.6}).fit()
    value = glm.log_likelihood().value
    table = glm.summary().table["mean"]
    scale = np.exp(table["Intercept"] + table["year"] * data.year)
    plain = np.where(
        data.lost_sight,
        stats.weibull_min.logsf(data.life, 1.6, scale=scale),
        stats.weibull_min.logpdf(data.life, 1.6, scale=scale),
    )
    np.testing.assert_allclose(value, plain, atol=0.15)
    assert "shape fixed at 1.6" in repr(glm.summary())


def test_priors_of_users_are_taken():
    data = DF.head(100)
    sharp = GLM("z ~ year + income", data, prior={"year": (0.5, 1e-4)}).fit(method="laplace")
    assert sharp.summary().table["mean"]["year"] == pytest.approx(0.5, abs=1e-3)
    normal = torch.distributions.Normal(0.5, 1e-4)
    same = GLM("z ~ year + income", data, prior={"year": normal}).fit(method="laplace")
    np.testing.assert_allclose(same.summary().table, sharp.summary().table, rtol=1e-4)
    single = GLM("z ~ year", data, prior=0.01).fit(method="laplace")
    assert single.summary().priors.loc["year", "sd"] == 0.01
    noise = GLM("z ~ year", data, prior={"sigma": torch.distributions.Gamma(1000.0, 1000.0)}).fit(method="laplace")
    assert noise.summary().table["mean"]["sigma"] == pytest.approx(1.0, abs=0.15)
    free = GLM("t ~ year", data, family="student", prior={"df": torch.distributions.Gamma(2.0, 0.1)})
    assert "df" in free.fit(method="laplace").summary().table.index


def test_methods_are_those_of_fit():
    data = DF.head(200)
    for method in ("meanfield", "fullrank", ExpectationPropagation(power=0.5)):
        glm = GLM("yes ~ year", data, family="bernoulli").fit(method=method)
        assert glm.summary().table["mean"]["year"] == pytest.approx(0.08, abs=0.08)
    assert "sd_lr" in GLM("yes ~ year", data, family="bernoulli").fit(method="meanfield").summary().table


def test_the_posterior_is_saved_and_exchanged_with_the_names_of_the_columns(tmp_path):
    from probdl.inference import Posterior

    for family, y in (("bernoulli", "yes"), ("student", "t")):
        glm = GLM(f"{y} ~ year + C(group)", DF.head(80), family=family).fit(method="ep")
        glm.posterior.save(tmp_path / "p.safetensors")
        loaded = Posterior.load(tmp_path / "p.safetensors", glm.model, kwargs=glm.arguments)
        assert torch.equal(loaded.mean("coefficients"), glm.posterior.mean("coefficients"))
        assert glm.posterior.predict(draws=20)["y"].shape == (20, 80)
        assert "C(group)[T.b]" in glm.posterior.plot(["coefficients"])
        pytest.importorskip("arviz")
        exchanged = glm.posterior.to_arviz(100)
        assert exchanged.posterior["coefficients"].shape == (1, 100, 3)
    assert bool(torch.isfinite(loaded.log_prob(glm.posterior.draws(5))).all())


def test_pictures():
    import matplotlib.pyplot as plt

    glm = GLM(f"yes ~ {TERMS}", DF.head(300), family="bernoulli").fit(method="laplace")
    ax = glm.plot(standardised=True)
    assert [t.get_text() for t in ax.get_yticklabels()] == NAMES[1:]
    assert glm.plot("year").get_xlabel() == "year"
    assert len(glm.plot("group").get_xticks()) == 3
    with pytest.raises(ValueError, match="effect must be one of"):
        glm.plot("nobody")
    plt.close("all")


def test_a_thousand_rows_take_little_beside_the_inference():
    import time

    data = DF.head(1000)
    GLM(f"yes ~ {TERMS}", data, family="bernoulli").fit(method="laplace")
    started = time.perf_counter()
    glm = GLM(f"yes ~ {TERMS}", data, family="bernoulli").fit(method="laplace")
    assert time.perf_counter() - started - glm.posterior.seconds < 0.5


# -- findings ----------------------------------------------------------------------------------------------------------


def noted(formula, data, **options):
    glm = GLM(formula, data, **options).fit(method="laplace")
    assert np.isfinite(glm.summary().table.drop(columns="P(sign)")).all(axis=None)
    return " ".join(glm.notes)


def test_separated_data_are_finite_and_noted():
    data = DF.head(60).assign(x=np.arange(60.0), yes=(np.arange(60) > 29).astype(int))
    assert "x separates successes from failures" in noted("yes ~ x + year", data, family="bernoulli")
    tilted = data.assign(x=np.tile([1.0, 2.0], 30), w=np.repeat(np.arange(30.0), 2))
    tilted["yes"] = (tilted.w - 5 * tilted.x > 5).astype(int)
    found = noted("yes ~ x + w", tilted, family="bernoulli")
    assert "separated along" in found
    assert "·x" in found
    assert "·w" in found
    rare = data.assign(rare=[0] * 57 + [1] * 3, yes=[0, 1] * 28 + [0, 1, 1, 1])
    assert "rare separates" in noted("yes ~ rare", rare, family="bernoulli")
    assert "every response is a success" in noted("yes ~ x", data.assign(yes=1), family="bernoulli")
    assert "separate" not in noted("yes ~ year", DF, family="bernoulli")
    propagated = GLM("yes ~ x", data, family="bernoulli").fit(method="ep")
    assert np.isfinite(propagated.summary().table).all(axis=None)


def test_collinear_and_constant_columns_are_finite_and_noted():
    data = DF.head(200).assign(twice=2 * DF.year, one=1.0, sum=DF.year + DF.days)
    assert "year from twice" in noted("z ~ year + twice", data) or "twice from year" in noted("z ~ year + twice", data)
    found = noted("z ~ year + days + sum", data)
    assert all(name in found for name in ("year", "days", "sum", "collinear"))
    assert "column one is constant" in noted("z ~ year + one", data)
    glm = GLM("z ~ year + one", data).fit(method="laplace")
    assert glm.summary().table["sd"]["one"] == pytest.approx(float(glm.summary().priors.loc["one", "sd"]), rel=1e-6)
    assert "only 3 rows" in noted("count ~ year + income + days + trials", data.head(3), family="poisson")


def test_one_row_is_an_answer():
    for y, family in (("yes", "bernoulli"), ("z", "gaussian"), ("count", "poisson")):
        glm = GLM(f"{y} ~ year", DF.head(1), family=family).fit(method="ep")
        assert np.isfinite(glm.summary().table["sd"]).all()
        assert "column year is constant" in " ".join(glm.notes)


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD_RESPONSES = [
    ("bernoulli", [0, 1, 2], r"family='bernoulli' takes 0 and 1.*got 2"),
    ("bernoulli", list("abc"), r"takes two levels.*got 3"),
    ("bernoulli", ["a", "a", "a"], r"got 1: 'a'"),
    ("poisson", [1, -1, 2], r"family='poisson' takes counts.*row 1 holds -1"),
    ("poisson", [1.5, 1, 2], r"holds 1.5"),
    ("negative_binomial", [0.5, 1, 2], r"family='negative_binomial'"),
    ("gamma", [1.0, 0.0, 2.0], r"family='gamma' takes positive numbers.*holds 0"),
    ("weibull", [1.0, -2.0, 2.0], r"family='weibull' takes positive numbers"),
    ("gaussian", [1.0, np.inf, 2.0], r"finite"),
    ("gaussian", [1.0, np.nan, 2.0], r"missing values"),
    ("ordered", ["low", "mid", "high"], r"order of the categories"),
    ("ordered", [1.5, 2.0, 3.0], r"takes categories"),
    ("ordered", [1, 1, 1], r"at least two categories"),
    ("binomial", [1, 2, 3], r"needs the numbers of trials"),
]


@pytest.mark.parametrize(("family", "y", "message"), BAD_RESPONSES)
def test_responses_outside_of_the_family_are_refused_by_value(family, y, message):
    data = pd.DataFrame({"y": y, "x": [1.0, 2.0, 4.0]})
    with pytest.raises(ValueError, match=message):
        GLM("y ~ x", data, family=family).fit()
    with pytest.raises(ValueError, match=message):
        GLM(family=family).fit(data[["x"]], data["y"])


def test_trials_that_do_not_hold_the_successes():
    data = pd.DataFrame({"y": [1, 5], "n": [3, 4], "x": [0.0, 1.0]})
    with pytest.raises(ValueError, match=r"row 1 of 'y' holds 5 successes of 4 trials"):
        GLM("y ~ x", data, family="binomial", trials="n").fit()
    with pytest.raises(ValueError, match="trials= belongs to family='binomial'"):
        GLM("y ~ x", data, family="poisson", trials="n").fit()
    with pytest.raises(ValueError, match="cbind takes two columns"):
        GLM("cbind(y, n, x) ~ x", data, family="binomial").fit()


def test_missing_values_are_counted_by_column():
    data = DF.head(50).copy()
    data.loc[[1, 2, 3], "year"] = np.nan
    data.loc[[7], "group"] = None
    with pytest.raises(ValueError, match=r"3 in 'year', 1 in 'group' \(of 50 rows each\)"):
        GLM("z ~ year + C(group)", data).fit()
    GLM("z ~ income", data).fit(method="laplace")  # columns that are not used may have them
    with pytest.raises(ValueError, match="1 in 'z'"):
        GLM("z ~ income", data.assign(z=data.z.where(data.index != 4))).fit()
    glm = GLM("z ~ year", DF.head(50)).fit(method="laplace")
    with pytest.raises(ValueError, match="3 in 'year'"):
        glm.predict(data)
    with pytest.raises(ValueError, match=r"2 in 'np.log\(w\)'"), np.errstate(all="ignore"):
        GLM("z ~ np.log(w)", DF.head(4).assign(w=[0.0, 1.0, -1.0, 2.0])).fit()


def test_levels_that_the_fit_has_not_seen_are_named():
    for formula in ("z ~ C(group)", "z ~ group", "z ~ year:group"):
        glm = GLM(formula, DF.head(100)).fit(method="laplace")
        with pytest.raises(ValueError, match=r"'group' has levels that the fit has not seen: 'd'.*'a', 'b', 'c'"):
            glm.predict(DF.head(2).assign(group=["a", "d"]))


def test_columns_that_are_missing_are_named():
    glm = GLM("z ~ year + C(group)", DF.head(100)).fit(method="laplace")
    with pytest.raises(ValueError, match="the columns group, which are missing"):
        glm.predict(DF[["year"]])
    with pytest.raises(ValueError, match="nobody"):
        GLM("z ~ nobody", DF).fit()
    with pytest.raises(ValueError, match="nobody"):
        GLM("nobody ~ year", DF).fit()
    with pytest.raises(ValueError, match="nobody"):
        GLM("count ~ year", DF, family="poisson", exposure="nobody").fit()
    arrays = GLM().fit(DF[["year", "income"]], DF.z, method="laplace")
    with pytest.raises(ValueError, match="income are missing"):
        arrays.predict(DF[["year"]])
    with pytest.raises(ValueError, match="must have the 2 columns of the fit; got 3"):
        arrays.predict(np.zeros((2, 3)))
    counts = GLM("visits ~ year", DF, family="poisson", exposure="days").fit(method="laplace")
    with pytest.raises(ValueError, match="days"):
        counts.predict(DF[["year"]])
    given = GLM("visits ~ year", DF, family="poisson").fit(exposure=DF.days, method="laplace")
    with pytest.raises(ValueError, match="pass exposure="):
        given.predict(DF[["year"]])


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (np.inf, "improper"),
        ({"year": (0.0, np.inf)}, "'year' is improper"),
        ({"Intercept": float("inf")}, "improper"),
        ({"year": 0.0}, "positive sd"),
        ({"year": (0.0, -1.0)}, "positive sd"),
        ({"yeer": 1.0}, "prior has the name 'yeer'.*year"),
        ({"year": torch.distributions.Cauchy(0.0, 1.0)}, "must be a Normal"),
        ({"sigma": torch.distributions.Normal(0.0, 1.0)}, "one positive number"),
        ({"sigma": -1.0}, "must be positive"),
    ],
)
def test_priors_that_cannot_be_used(prior, message):
    with pytest.raises(ValueError, match=message):
        GLM("z ~ year", DF.head(20), prior=prior).fit()


def test_responses_without_error_are_refused():
    """The posterior of their spread is improper."""
    data = DF.head(30).assign(line=2 * DF.year - 7, flat=3.0, grown=np.exp(0.1 * (DF.year - 2000)))
    with pytest.raises(ValueError, match="does not vary.*'sigma'"):
        GLM("flat ~ year", data).fit()
    with pytest.raises(ValueError, match="linear function of the columns.*'scale' of the laplace family"):
        GLM("line ~ year", data, family="laplace").fit()
    with pytest.raises(ValueError, match="'dispersion' of the gamma family"):
        GLM("grown ~ year", data, family="gamma").fit()
    fixed = GLM("line ~ year", data, prior={"coefficients": 100.0, "Intercept": 1e5, "sigma": 0.1}).fit()
    assert fixed.summary().table["mean"]["year"] == pytest.approx(2, abs=0.01)


def test_arguments_that_cannot_be_used():
    with pytest.raises(ValueError, match="family must be one of"):
        GLM("z ~ year", DF, family="normal")
    with pytest.raises(ValueError, match="link of the poisson family"):
        GLM("z ~ year", DF, family="poisson", link="logit")
    with pytest.raises(ValueError, match="response and terms"):
        GLM("z + year", DF).fit()
    with pytest.raises(TypeError, match="pandas DataFrame"):
        GLM("z ~ year", {"z": [1]}).fit()
    with pytest.raises(ValueError, match="at least one row"):
        GLM("z ~ year", DF.head(0)).fit()
    with pytest.raises(ValueError, match="fit\\(X, y\\)"):
        GLM().fit(DF[["year"]])
    with pytest.raises(ValueError, match="data= belongs to a formula"):
        GLM(data=DF)
    with pytest.raises(TypeError, match="columns group do not"):
        GLM().fit(DF[["year", "group"]], DF.z)
    with pytest.raises(ValueError, match="one entry for each of the 1500 rows"):
        GLM().fit(DF[["year"]], DF.z[:5])
    with pytest.raises(ValueError, match="not fitted"):
        GLM("z ~ year", DF).summary()
    with pytest.raises(ValueError, match="exposure must be positive"):
        GLM("count ~ year", DF, family="poisson").fit(exposure=np.zeros(len(DF)))
    with pytest.raises(ValueError, match="exposure= belongs to counts"):
        GLM("z ~ year", DF, exposure="days").fit()
    with pytest.raises(ValueError, match="censored must hold booleans"):
        GLM("life ~ year", DF, family="weibull", censored="days").fit()
    with pytest.raises(ValueError, match="level must be between"):
        GLM("z ~ year", DF).fit(method="laplace").predict(DF.head(1), level=90)
    with pytest.raises(ValueError, match="neither an intercept nor a column"):
        GLM("z ~ 0", DF).fit()


def test_nothing_is_warned_of_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glm = GLM(f"yes ~ {TERMS}", DF.head(200), family="bernoulli").fit(method="ep")
        glm.summary()
        glm.predict(DF.head(3))
