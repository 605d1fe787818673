"""Kernel density estimates: the same as SciPy's, scikit-learn's and statsmodels', and what these do not have."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity
from statsmodels.nonparametric.kernel_density import KDEMultivariate

from probdl import ConvergenceError, ConvergenceWarning, divergences, viz
from probdl.models import KDE, evaluate
from probdl.models.density import bandwidths, cross_validation, plug_in
from probdl.models.density.smoothing import Kernel
from probdl.models.density.tiles import Tiles
from probdl.viz.posteriors.regions import surface

G = torch.Generator().manual_seed(0)
X = torch.randn(300, 2, generator=G, dtype=torch.float64) @ torch.tensor([[1.0, 0.8], [0.0, 0.5]]).double() + 3
W = torch.rand(300, generator=G, dtype=torch.float64)
Y = torch.randn(50, 2, generator=G, dtype=torch.float64) * 2 + 3
E = -torch.rand(400, generator=G, dtype=torch.float64).log()  # exponential


@pytest.mark.parametrize("rule", ["scott", "silverman"])
@pytest.mark.parametrize("weights", [None, W])
@pytest.mark.parametrize("d", [1, 2])
def test_rules_of_thumb_are_scipys(rule, weights, d):
    model = KDE(rule).fit(X[:, :d], weights=weights)
    kde = gaussian_kde(X[:, :d].numpy().T, bw_method=rule, weights=weights)
    np.testing.assert_allclose(model.bandwidth_matrix, kde.covariance, rtol=1e-12)
    np.testing.assert_allclose(model.log_prob(Y[:, :d]), kde.logpdf(Y[:, :d].numpy().T), rtol=1e-11)
    assert model.effective_rows == pytest.approx(kde.neff)
    assert rule in model.message


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_radial_kernels_are_scikit_learns(kernel, d):
    x, y = torch.randn(2, 200, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    weights = W[:200]
    theirs = KernelDensity(kernel=kernel, bandwidth=0.9).fit(x, sample_weight=weights).score_samples(y)
    ours = KDE(0.9, kernel=kernel).fit(x, weights=weights).log_prob(y)
    some = theirs > -30  # where the density is 0, they have a large negative number
    np.testing.assert_allclose(ours.exp(), np.exp(theirs), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(ours[some], theirs[some], rtol=1e-7)


def test_products_have_one_bandwidth_a_column():
    h = np.array([0.5, 0.8])
    u = (Y.numpy()[:, None] - X.numpy()) / h
    expected = (0.75 * np.clip(1 - u**2, 0, None)).prod(2).mean(1) / h.prod()
    found = KDE([0.5, 0.8], kernel="epanechnikov", product=True).fit(X)
    np.testing.assert_allclose(found.log_prob(Y).exp(), expected, rtol=1e-10, atol=1e-15)
    gauss = np.exp(-(u**2).sum(2) / 2).mean(1) / (2 * np.pi * h.prod())
    np.testing.assert_allclose(KDE([0.5, 0.8], product=True).fit(X).log_prob(Y).exp(), gauss, rtol=1e-10)
    silverman = KDE("silverman", product=True).fit(X)
    assert torch.allclose(silverman.bandwidth_matrix, KDE("silverman").fit(X).bandwidth_matrix.diagonal().diag())


def test_numbers_are_in_the_units_of_the_data_and_a_matrix_in_their_squares():
    by = [KDE(h).fit(100 * X) for h in (30.0, [30.0, 30.0], (900 * torch.eye(2)).tolist())]
    for model in by:
        assert torch.allclose(model.bandwidth_matrix, 900 * torch.eye(2, dtype=torch.float64))
    full = KDE([[0.5, 0.2], [0.2, 0.3]]).fit(X)
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), full.bandwidth_matrix)
    expected = (law.log_prob(Y[:, None] - X)).logsumexp(1) - math.log(300)
    assert torch.allclose(full.log_prob(Y), expected, rtol=1e-10)


@pytest.mark.parametrize(("rule", "theirs"), [("lscv", "cv_ls"), ("likelihood", "cv_ml")])
def test_cross_validation_finds_the_minimum_that_statsmodels_finds(rule, theirs):
    x = X[:120, 0]
    expected = KDEMultivariate(x.numpy(), "c", bw=theirs).bw
    np.testing.assert_allclose(KDE(rule).fit(x).root.numpy()[0], expected, rtol=2e-3)  # their simplex stops early


@pytest.mark.parametrize("d", [1, 2])
def test_criteria_of_cross_validation_are_those_of_the_definition(d):
    x, w, s = X[:80, :d], W[:80] / W[:80].sum(), 0.4
    law = torch.distributions.MultivariateNormal(torch.zeros(d).double(), s**2 * torch.eye(d).double())
    density = law.log_prob(x[:, None] - x).exp()
    left_out = (density * w).fill_diagonal_(0).sum(1) / (1 - w)
    twice = torch.distributions.MultivariateNormal(torch.zeros(d).double(), 2 * s**2 * torch.eye(d).double())
    squared = w @ twice.log_prob(x[:, None] - x).exp() @ w
    tiles = Tiles.of(x, w)
    assert cross_validation.least_squares(tiles, s) == pytest.approx(float(squared - 2 * w @ left_out), rel=1e-11)
    assert cross_validation.minus_log_likelihood(tiles, s) == pytest.approx(-float(w @ left_out.log()), rel=1e-11)


def test_several_columns_are_cross_validated_along_their_covariance():
    for rule in ("lscv", "likelihood"):
        model = KDE(rule).fit(X)
        ratio = model.bandwidth_matrix / KDE("scott").fit(X).bandwidth_matrix
        assert torch.allclose(ratio, ratio[0, 0].expand(2, 2))
        again = KDE(rule).fit(X @ torch.tensor([[3.0, 1.0], [0.0, 0.2]]).double())  # the rule goes with the data
        expected = model.log_prob(X) - math.log(0.6)
        assert torch.allclose(again.log_prob(X @ torch.tensor([[3.0, 1.0], [0.0, 0.2]]).double()), expected, rtol=1e-4)


def test_the_fixed_point_is_that_of_botevs_program():
    step = plug_in._Step(np.arange(1, 51) / 4, 50)
    step.frequencies = np.arange(1, 51) * math.pi**2
    assert step(0.01) == pytest.approx(0.0099076220293967618515, rel=1e-13)  # printed by the authors' MATLAB


def test_improved_sheather_jones_sees_modes_that_silvermans_rule_smears():
    x = torch.cat([X[:, 0], 0.1 * X[:, 1] + 8])
    h, silverman = (float(KDE(rule).fit(x).root) for rule in ("isj", "silverman"))
    assert h < 0.1 * silverman
    assert float(KDE("isj").fit(1000 * x - 5).root) == pytest.approx(1000 * h, rel=1e-6)
    normal = torch.randn(2000, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    assert float(KDE("isj").fit(normal).root) == pytest.approx((4 / 3 / 2000) ** 0.2, rel=0.15)
    twice = KDE("isj").fit(x, weights=torch.cat([torch.ones(300), torch.zeros(300)])).root
    assert float(twice) == pytest.approx(float(KDE("isj").fit(X[:, 0]).root), rel=0.2)


def test_weights_count_rows():
    counts = torch.arange(300) % 3
    weighted = KDE(0.4).fit(X, weights=counts)
    repeated = KDE(0.4).fit(X.repeat_interleave(counts, 0))
    assert torch.allclose(weighted.log_prob(Y), repeated.log_prob(Y), rtol=1e-11)
    assert weighted.message == "gaussian kernel, bandwidth as given; weights of x were divided by their sum 300"
    assert KDE(0.4).fit(X).message == "gaussian kernel, bandwidth as given"


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_constants_of_the_kernels(d, product):
    kernel = Kernel("epanechnikov", product, d)
    u = kernel.draws(200_000, lambda *n: torch.randn(*n, generator=torch.Generator().manual_seed(1)).double())
    assert torch.allclose(u.square().mean(0), torch.full((d,), kernel.variance).double(), rtol=0.02)
    values = kernel.log_values(u, torch.zeros(1, d).double()).exp()[:, 0]
    assert float(values.mean()) == pytest.approx(kernel.roughness, rel=0.01)
    assert bool((u.abs() <= 1).all())
    if d == 1:  # Marron and Nolan's 1.7188 and 0.7764
        assert kernel.canonical == pytest.approx(15**0.2 / (4 * math.pi) ** -0.1, rel=1e-12)
    ours = KDE("silverman", kernel="epanechnikov", product=product).fit(X)
    gauss = KDE("silverman", product=product).fit(X)
    ratio = Kernel("epanechnikov", product, 2).canonical
    assert torch.allclose(ours.bandwidth_matrix, ratio**2 * gauss.bandwidth_matrix)


@pytest.mark.parametrize("rule", ["lscv", "likelihood", "isj"])
def test_rules_smooth_alike_with_each_kernel(rule):
    ratio = KDE(rule, kernel="epanechnikov").fit(X[:, 0]).root / KDE(rule).fit(X[:, 0]).root
    assert float(ratio) == pytest.approx(15**0.2 * (4 * math.pi) ** 0.1, rel=1e-12)


def test_auto_says_what_it_chose():
    assert KDE().fit(X[:, 0]).message == "gaussian kernel, bandwidth by 'isj' ('auto' for one column)"
    assert KDE().fit(X).message == "gaussian kernel, bandwidth by 'silverman' ('auto' for several columns)"
    few = KDE().fit([0.0, 1.0, 5.0])
    assert few.message == "gaussian kernel, bandwidth by 'silverman' ('auto' where 'isj' has no solution)"


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
@pytest.mark.parametrize("bounds", [(0.0, None), (0.0, 1.0), (None, 1.0), (-0.1, 1.05)])
@pytest.mark.parametrize("h", [0.1, 2.0])
def test_a_bounded_density_integrates_to_one(kernel, bounds, h):
    x = torch.rand(100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = KDE(h, kernel=kernel, bounds=bounds).fit(x)
    p = model.distribution
    start, stop = (-25.0 if bounds[0] is None else bounds[0]), (25.0 if bounds[1] is None else bounds[1])
    edges = torch.linspace(start, stop, 40_001, dtype=torch.float64)
    middles, dx = (edges[1:] + edges[:-1]) / 2, (stop - start) / 40_000
    mass = p.log_prob(middles).exp() * dx
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    assert float(p.mean) == pytest.approx(float(mass @ middles), abs=1e-5)
    assert float(p.variance) == pytest.approx(float(mass @ (middles - p.mean).square()), abs=1e-4)
    draws = model.sample(20_000)
    assert bool(p.support.check(draws).all())
    assert float((draws.mean() - p.mean).abs() / (p.variance / 20_000).sqrt()) < 4
    assert float(draws.var()) == pytest.approx(float(p.variance), rel=0.05)
    assert math.isinf(float(p.log_prob(torch.tensor(3.0 if bounds[1] else -3.0).double())))


def test_reflection_takes_most_of_the_bias_at_the_end_of_an_exponential():
    n, h = 100_000, 0.05
    x = -torch.rand(n, generator=torch.Generator().manual_seed(4), dtype=torch.float64).log()
    zero = torch.zeros(1, dtype=torch.float64)
    plain, bounded = (float(KDE(h, bounds=b).fit(x).log_prob(zero).exp()) for b in (None, (0.0, None)))
    u = torch.linspace(0, 10, 100_001, dtype=torch.float64)
    expected = float(torch.trapezoid(2 * torch.exp(-h * u - u**2 / 2) / math.sqrt(2 * math.pi), u))
    noise = 2 * math.sqrt(1 / (n * h * 2 * math.sqrt(math.pi)))
    assert abs(bounded - expected) < 4 * noise
    assert abs(bounded - 1) < 0.07 < 0.45 < abs(plain - 1)


def test_columns_have_bounds_of_their_own():
    x = torch.stack([E[:300], X[:, 0]], 1)
    model = KDE([0.3, 0.4], bounds=[(0.0, None), None]).fit(x)
    left, right = KDE(0.3, bounds=(0.0, None)), KDE(0.4)
    y = torch.tensor([[0.1, 3.0], [0.0, 2.0], [-0.1, 3.0]], dtype=torch.float64)
    apart = left.fit(x[:, 0]).distribution.kernel_values(y[:, :1], slice(None))
    other = right.fit(x[:, 1]).distribution.kernel_values(y[:, 1:], slice(None))
    expected = (apart * other).mean(1)
    assert torch.allclose(model.log_prob(y).exp()[:2], expected[:2], rtol=1e-10)
    assert model.log_prob(y)[2] == -math.inf


def test_every_divergence_takes_the_distribution():
    p, q = KDE("silverman").fit(X[:, 0]).distribution, KDE("scott").fit(X[:150, 0] + 0.5).distribution
    grid = torch.linspace(-5, 12, 20_001, dtype=torch.float64)
    expected = torch.trapezoid(p.log_prob(grid).exp() * (p.log_prob(grid) - q.log_prob(grid)), grid)
    assert float(divergences.kl(p, q)) == pytest.approx(float(expected), rel=1e-4)
    cumulative = (p.log_prob(grid).exp() - q.log_prob(grid).exp()).cumsum(0) * (grid[1] - grid[0])
    w1 = divergences.wasserstein(p, q)
    assert float(w1) == pytest.approx(float(torch.trapezoid(cumulative.abs(), grid)), rel=0.05)
    assert float(divergences.mmd2(p, q, draws=2000)) > 0
    assert float(divergences.tv(KDE().fit(X).distribution, KDE().fit(X).distribution)) == pytest.approx(0, abs=1e-6)
    bounded, exponential = KDE(bounds=(0.0, None)).fit(E).distribution, torch.distributions.Exponential(1.0)
    assert 0 < float(divergences.kl(exponential, bounded)) < 0.2
    assert float(divergences.kl(torch.distributions.Normal(3.0, 1.0), bounded)) == math.inf


def test_the_distribution_has_the_shapes_and_moments_of_torch():
    p = KDE().fit(X).distribution
    assert p.event_shape == (2,)
    assert p.batch_shape == ()
    assert p.sample((3, 4)).shape == (3, 4, 2)
    assert p.sample().shape == (2,)
    assert p.log_prob(Y.reshape(5, 10, 2)).shape == (5, 10)
    assert KDE().fit(E).distribution.log_prob(E[0]).shape == ()
    draws = p.draws(100_000, torch.Generator().manual_seed(1))
    assert torch.allclose(draws.mean(0), p.mean, atol=4 * float(p.variance.max()) ** 0.5 / 300)
    assert torch.allclose(draws.var(0), p.variance, rtol=0.03)
    y = Y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(p.log_prob(y).sum(), y)
    step = 1e-5 * torch.tensor([1.0, 0.0]).double()
    assert torch.allclose(slope[:, 0], (p.log_prob(Y + step) - p.log_prob(Y - step)) / 2e-5, rtol=1e-5)
    assert torch.allclose(p.log_prob(y).detach(), p.log_prob(Y), rtol=1e-11)


def test_models_are_judged_with_it():
    table = evaluate({"kde": KDE().fit(X[:200])}, X[200:], measures=["energy", "log_likelihood"]).table["value"]
    assert float(table["log_likelihood"].iloc[0]) == pytest.approx(float(KDE().fit(X[:200]).log_prob(X[200:]).mean()))
    found = KDE().fit(X).log_likelihood(Y)
    assert torch.equal(found.stderr, torch.zeros(50).double())
    assert torch.equal(found.value, KDE().fit(X).log_prob(Y))


def test_a_table_comes_back_as_a_table_and_categories_have_no_density():
    table = pd.DataFrame({"a": X[:, 0].numpy(), "b": X[:, 1].numpy()})
    assert list(KDE().fit(table).sample(4).columns) == ["a", "b"]
    with pytest.raises(ValueError, match=r"numbers only: columns \['c'\]"):
        KDE().fit(table.assign(c=["u", "v"] * 150))


def bad(match, model=None, x=X, error=ValueError, **how):
    with pytest.raises(error, match=match):
        KDE(**(model or {})).fit(x, **how)


def test_bad_input_is_named():
    bad("positive", {"bandwidth": -1.0})
    bad("positive", {"bandwidth": [1.0, 0.0]})
    bad("one of 'auto', 'scott'", {"bandwidth": "sheather"})
    bad("a rule, a number", {"bandwidth": None}, error=TypeError)
    bad("symmetric positive definite", {"bandwidth": [[1.0, 2.0], [2.0, 1.0]]})
    bad("symmetric positive definite", {"bandwidth": [[1.0, 0.5], [0.0, 1.0]]})
    bad("diagonal matrix", {"bandwidth": [[1.0, 0.5], [0.5, 1.0]], "product": True})
    bad(r"shape \(\) or \(2,\) or \(2, 2\)", {"bandwidth": [1.0, 1.0, 1.0]})
    bad("one of 'gaussian', 'epanechnikov'", {"kernel": "cosine"})
    bad("isj' is for one column", {"bandwidth": "isj"})
    bad("must not be negative", weights=-W)
    bad("must be finite", weights=W.masked_fill(W > 0.5, torch.nan))
    bad(r"shape \(300,\)", weights=W[:10])
    bad("positive sum", weights=0 * W)
    bad("at least 2 rows", weights=torch.eye(300)[0])
    bad("1 NaN", x=torch.tensor([[1.0], [torch.nan], [2.0]]))
    bad(r"constant in the training rows: columns \[1\]", x=X * torch.tensor([1.0, 0.0]))
    bad("singular: at least d \\+ 1 rows are needed", x=torch.randn(3, 5, generator=G))
    bad("singular", x=torch.cat([X, X[:, :1] + X[:, 1:]], 1))
    bad("inside bounds", {"bounds": (3.0, None)})
    bad("low < high", {"bounds": (1.0, 0.0)})
    bad("pairs", {"bounds": [(0.0, 1.0, 2.0)]})
    bad("bounds must be None, a pair", {"bounds": 3.0}, error=TypeError)
    bad("one for each of the 2 columns; got 3", {"bounds": [None, None, (0.0, None)]})
    with pytest.raises(ValueError, match="between 0 and 1"):
        KDE().fit(X).band(X, 1.5)
    assert KDE(product=True).fit(torch.randn(3, 5, generator=G)).log_prob(torch.zeros(1, 5)).isfinite().all()


def test_many_duplicates_are_an_error_or_a_warning_and_not_a_bandwidth_of_zero():
    rounded = (X[:, 0] * 5).round() / 5
    for rule, x in (("lscv", rounded), ("likelihood", X[:150, 0].repeat(2))):
        with pytest.warns(ConvergenceWarning, match="duplicates"):
            bad("goes to 0, and has no minimum; x has", {"bandwidth": rule}, x=x, error=ConvergenceError)
    with pytest.warns(ConvergenceWarning, match="duplicates among 300 rows"):
        KDE().fit(rounded)
    with pytest.raises(ConvergenceError, match="no root"), pytest.warns(ConvergenceWarning):
        KDE("isj").fit([0.0, 0.0, 1.0, 1.0, 1.0])
    assert bandwidths.RULES[0] == "auto"


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model = KDE(bounds=(-10.0, None)).fit(X)
    before = model.log_prob(Y)
    with pytest.raises(ValueError, match="inside bounds"):
        model.fit(X - 100, weights=W)
    assert torch.equal(model.log_prob(Y), before)
    with pytest.raises(ConvergenceError), pytest.warns(ConvergenceWarning):
        KDE("lscv").fit(torch.tensor([0.0, 1.0] * 20))


def test_pictures_take_the_distribution():
    p = KDE().fit(X).distribution
    found = surface(p, [0.5, 0.9])
    top = found.density.argmax()  # the picture's density is known up to a constant
    height = float(
        found.density.max() / p.log_prob(torch.stack([found.x.flatten()[top], found.y.flatten()[top]])).exp()
    )
    at_draws = height * p.log_prob(p.draws(20_000, torch.Generator().manual_seed(1))).exp()
    for level, mass in zip(found.levels.sort(descending=True).values, (0.5, 0.9)):
        assert float((at_draws > level).double().mean()) == pytest.approx(mass, abs=0.02)
    ax = viz.density_contours(p, KDE(bounds=[(1.0, None), None]).fit(X[X[:, 0] > 1]).distribution)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["p", "q"]


def test_sheather_and_jones_reflect_the_rows_at_a_bound():
    bounded, both, plain = (
        float(KDE("isj", bounds=b).fit(x).root[0, 0])
        for x, b in ((E, (0.0, None)), (torch.cat([E, -E]), None), (E, None))
    )
    assert bounded == pytest.approx(both, rel=0.02)
    assert plain < 0.9 * both


def test_draws_and_moments_count_weights_and_the_kernels_variance():
    x, weights = torch.tensor([[0.0], [10.0]]).double(), [0.2, 0.8]
    model = KDE(2.0, kernel="epanechnikov").fit(x, weights=weights)
    assert float(model.distribution.mean) == pytest.approx(8)
    assert float(model.distribution.variance) == pytest.approx(0.2 * 0.8 * 100 + 4 / 5)
    assert float((model.sample(10_000) > 5).double().mean()) == pytest.approx(0.8, abs=0.02)
