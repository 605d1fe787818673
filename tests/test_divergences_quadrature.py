"""Quadrature on the line: narrow, far, heavy-tailed and mixed densities, and integrals that diverge."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch.distributions import (
    Categorical,
    Cauchy,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
)
from torch.distributions.transforms import AffineTransform

from probdl.divergences import energy, hellinger2, js, kl, tv, wasserstein

LOG2 = math.log(2)


def t(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def normal(mean, sd):
    return Normal(t(mean), t(sd))


def mixture(weights, means, sds):
    return MixtureSameFamily(Categorical(t(*weights)), Normal(t(*means), t(*sds)))


def agrees(estimate, truth, atol=1e-9):
    assert abs(estimate.value - truth) < atol
    assert estimate.method == "quadrature"
    assert abs(estimate.value - truth) <= estimate.stderr + 1e-10, "the bound must hold"


def test_cauchy_against_cauchy_is_the_known_logarithm():
    # KL = log[((s1 + s2)² + (m1 - m2)²) / (4 s1 s2)] (Chyzak and Nielsen 2019)
    agrees(kl(Cauchy(t(0.0), t(1.0)), Cauchy(t(3.0), t(2.0)), method="quadrature"), math.log((9 + 9) / 8))


def test_student_t_agrees_with_scipy():
    p, q = scipy.stats.t(3), scipy.stats.norm(0, 1)
    truth, _ = scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -np.inf, np.inf, epsabs=1e-12)
    agrees(kl(StudentT(t(3.0)), normal(0.0, 1.0)), truth, atol=1e-7)


@pytest.mark.parametrize("df", [1.0, 1.9])
def test_kl_of_a_tail_too_heavy_for_q_is_infinite(df):
    estimate = kl(StudentT(t(df)), normal(0.0, 1.0))
    assert estimate.value == math.inf
    assert "diverges" in estimate.notes[0]


def test_cauchy_against_normal_is_infinite_one_way_only():
    assert kl(Cauchy(t(0.0), t(1.0)), normal(0.0, 1.0)).value == math.inf
    p, q = scipy.stats.norm(), scipy.stats.cauchy()
    truth, _ = scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -30, 30, epsabs=1e-12)
    agrees(kl(normal(0.0, 1.0), Cauchy(t(0.0), t(1.0))), truth)


def test_a_component_that_is_light_and_narrow_is_seen():
    p = mixture([0.99999, 0.00001], [0.0, 1e4], [1.0, 1e-4])
    agrees(tv(p, normal(0.0, 1.0)), 1e-5)


def test_components_far_apart_give_half_the_total_variation():
    p, q = mixture([0.5, 0.5], [-1e5, 1e5], [1.0, 1e-3]), normal(1e5, 1e-3)
    agrees(tv(p, q), 0.5)
    # p is half on its own and half where q is: JS = ½[½ log 2 + ½ log(½/¾)] + ½ log(1/¾)
    agrees(js(p, q), 0.25 * LOG2 + 0.25 * math.log(2 / 3) + 0.5 * math.log(4 / 3))


def test_narrow_against_wide_is_almost_disjoint():
    estimate = js(normal(0.0, 1e-6), normal(100.0, 1e3))
    assert LOG2 - 1e-5 < estimate.value < LOG2


def test_mixture_of_uniforms_has_the_union_as_its_support():
    # torch's own constraint takes the intersection, which is empty
    p = MixtureSameFamily(Categorical(t(0.5, 0.5)), Uniform(t(0.0, 9.0), t(1.0, 10.0)))
    agrees(tv(p, Uniform(t(0.0), t(10.0))), 0.8)
    # a fifth of the probability goes a fifth of the way: the map is x → 5x on [0, 1]
    agrees(wasserstein(p, Uniform(t(0.0), t(10.0))), 2.0)
    agrees(wasserstein(p, Uniform(t(0.0), t(10.0)), order=2), math.sqrt(16 / 3))
    assert kl(Uniform(t(0.0), t(10.0)), p).value == math.inf


def test_a_shifted_exponential_has_no_density_below_its_shift():
    p = TransformedDistribution(Exponential(t(1.0)), AffineTransform(1.0, 1.0))
    agrees(tv(p, Exponential(t(1.0))), 1 - math.exp(-1))
    assert kl(Exponential(t(1.0)), p).value == math.inf
    agrees(kl(p, Exponential(t(1.0))), 1.0)


def test_half_normal_is_half_apart_from_the_normal():
    agrees(tv(HalfNormal(t(1.0)), normal(0.0, 1.0)), 0.5)
    agrees(hellinger2(HalfNormal(t(1.0)), normal(0.0, 1.0)), 1 - math.sqrt(0.5))


def test_a_density_with_a_pole_at_its_end_is_integrated():
    p, q = Gamma(t(0.1), t(1.0)), Gamma(t(2.0), t(3.0))
    assert kl(p, q, method="quadrature").value == pytest.approx(kl(p, q).value, abs=1e-7)


PAIRS = {
    "student": (StudentT(t(4.0)), normal(0.0, 1.0), scipy.stats.t(4), scipy.stats.norm()),
    "gamma gumbel": (Gamma(t(0.3), t(1.0)), Gumbel(t(0.0), t(1.0)), scipy.stats.gamma(0.3), scipy.stats.gumbel_r()),
    "laplace": (Laplace(t(1.0), t(2.0)), normal(0.0, 1.0), scipy.stats.laplace(1, 2), scipy.stats.norm()),
    "lognormal": (
        LogNormal(t(0.0), t(0.5)),
        Weibull(t(1.0), t(2.0)),
        scipy.stats.lognorm(0.5),
        scipy.stats.weibull_min(2),
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_wasserstein_and_energy_agree_with_scipys_distribution_functions(case):
    p, q, f, g = PAIRS[case]
    cuts = [-500, -20, -5, -2, -1, 0, 1e-6, 1e-3, 0.1, 0.5, 1, 1.5, 2, 4, 8, 20, 500]

    def integral(h):
        return sum(scipy.integrate.quad(h, a, b, limit=500, epsabs=1e-12)[0] for a, b in zip(cuts, cuts[1:]))

    tail = 1e-6 if case == "student" else 1e-9  # what SciPy leaves out beyond ±500
    assert wasserstein(p, q).value == pytest.approx(integral(lambda x: abs(f.cdf(x) - g.cdf(x))), abs=tail)
    assert energy(p, q).value == pytest.approx(integral(lambda x: 2 * (f.cdf(x) - g.cdf(x)) ** 2), abs=1e-9)


def test_w2_without_a_quantile_function_agrees_with_scipys():
    for p, q, f, g in [PAIRS["laplace"], PAIRS["lognormal"], PAIRS["gamma gumbel"]]:
        squared = scipy.integrate.quad(lambda u: (f.ppf(u) - g.ppf(u)) ** 2, 0, 1, limit=1000, epsabs=1e-9)[0]  # noqa: B023
        assert wasserstein(p, q, order=2).value == pytest.approx(math.sqrt(squared), abs=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3.5])
def test_translation_is_the_distance_whatever_the_law_and_the_order(order):
    p, q = StudentT(t(5.0)), StudentT(t(5.0), t(0.7))
    agrees(wasserstein(p, q, order=order), 0.7, atol=1e-7)


def test_w_between_equal_laws_is_zero_within_its_bound():
    p = mixture([0.3, 0.7], [0.0, 4.0], [1.0, 0.1])
    for order in (1, 2):
        estimate = wasserstein(p, p, order=order)
        assert estimate.value <= 1e-6
        assert estimate.value <= 10 * estimate.stderr + 1e-12


def test_orders_of_wasserstein_are_ordered():
    p, q = mixture([0.5, 0.5], [-2.0, 3.0], [1.0, 0.5]), StudentT(t(6.0))
    values = [wasserstein(p, q, order=o).value for o in (1, 1.5, 2, 3)]
    assert values == sorted(values)
    assert wasserstein(q, p, order=2).value == pytest.approx(values[2], abs=1e-8)


def test_closed_forms_and_quadrature_agree():
    p, q = normal(0.0, 1.0), normal(1.0, 2.0)
    for divergence in (kl, hellinger2, energy, wasserstein):
        assert divergence(p, q, method="quadrature").value == pytest.approx(divergence(p, q).value, abs=1e-9)


def test_the_inequalities_between_divergences_hold():
    p, q = StudentT(t(4.0), t(0.5)), mixture([0.5, 0.5], [-1.0, 1.0], [0.7, 1.2])
    h2, v, j = hellinger2(p, q).value, tv(p, q).value, js(p, q).value
    assert h2 <= v <= math.sqrt(h2 * (2 - h2))
    assert v <= math.sqrt(kl(p, q).value / 2)  # Pinsker
    assert h2 * LOG2 <= j <= v * LOG2
