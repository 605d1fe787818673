"""Divergences of two distributions against values that can be had on paper."""

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Exponential,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    Pareto,
    Poisson,
    Uniform,
    kl_divergence,
)

from probdl.divergences import RBF, energy, hellinger2, js, kl, mmd2, tv, wasserstein

LOG2 = math.log(2)


def t(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def normal(mean, sd):
    return Normal(t(mean), t(sd))


def uniform(low, high):
    return Uniform(t(low), t(high))


def vector(mean, covariance):
    return MultivariateNormal(t(*mean), torch.as_tensor(covariance, dtype=torch.float64))


P, Q = normal(0.0, 1.0), normal(1.0, 2.0)
S1 = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
S2 = torch.tensor([[1.0, -0.3], [-0.3, 3.0]], dtype=torch.float64)

PAPER = {  # divergence of two normal distributions: value
    "KL N(0,1) N(1,4)": (lambda: kl(P, Q), LOG2 + 2 / 8 - 0.5),
    "H2 N(0,1) N(1,4)": (lambda: hellinger2(P, Q), 0.149195),
    "TV N(0,1) N(1,1)": (lambda: tv(P, normal(1.0, 1.0)), 0.382925),
    "JS N(0,1) N(1,1)": (lambda: js(P, normal(1.0, 1.0)), 0.111421),
    "W1 N(0,1) N(0,9)": (lambda: wasserstein(P, normal(0.0, 3.0)), math.sqrt(2 / math.pi) * 2),
    "W2 N(0,1) N(3,9)": (lambda: wasserstein(P, normal(3.0, 3.0), order=2), math.sqrt(9 + 4)),
    "W3 of a shift": (lambda: wasserstein(P, normal(2.0, 1.0), order=3), 2.0),
    "energy N(0,1) N(1,4)": (lambda: energy(P, Q), 0.534105),
}


@pytest.mark.parametrize("case", PAPER)
def test_two_normals_give_the_value_on_paper(case):
    divergence, truth = PAPER[case]
    estimate = divergence()
    assert abs(float(estimate) - truth) < 5e-7
    assert estimate.stderr < 1e-9
    assert estimate.target == "population"


@pytest.mark.parametrize(("d", "truth"), [(2, 0.429821), (10, 0.215863)])
def test_energy_of_unit_gaussians_one_apart(d, truth):
    shifted = Independent(Normal(torch.eye(d, dtype=torch.float64)[0], 1.0), 1)
    estimate = energy(vector([0.0] * d, torch.eye(d)), shifted)
    assert abs(estimate.value - truth) < 5e-7
    assert estimate.method == "quadrature"
    assert estimate.stderr < 1e-9


def test_energy_of_gaussians_in_one_dimension_is_the_same_by_every_method():
    values = [energy(P, Q, method=m).value for m in ("closed form", "quadrature")]
    assert abs(values[0] - values[1]) < 1e-10
    sampled = energy(P, Q, method="monte carlo", draws=20_000)
    assert abs(sampled.value - values[0]) < 4 * sampled.stderr  # false alarm 6e-5
    assert 0 < sampled.stderr < 0.02


def test_w2_of_gaussians_is_the_bures_formula():
    m1, m2 = t(0.0, 1.0), t(2.0, -1.0)
    values, vectors = torch.linalg.eigh(S1)
    root = vectors @ values.sqrt().diag() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ S2 @ root).sqrt().sum()
    truth = ((m1 - m2).square().sum() + S1.trace() + S2.trace() - 2 * inner).sqrt()
    estimate = wasserstein(MultivariateNormal(m1, S1), MultivariateNormal(m2, S2), order=2)
    assert abs(estimate.value - truth) < 1e-12
    assert estimate.method == "closed form"


def test_w2_of_nearly_equal_gaussians_does_not_cancel():
    p, q = vector([0.0, 0.0], S1), vector([0.0, 0.0], S1 * (1 + 1e-10) ** 2)
    # scaling by c moves a centred Gaussian by (c - 1)·√tr S
    assert wasserstein(p, q, order=2).value == pytest.approx(1e-10 * math.sqrt(3), rel=1e-4)


def test_w2_of_a_gaussian_to_itself_is_exactly_zero():
    p = vector([1.0, 2.0], S1)
    assert wasserstein(p, p, order=2).value == 0.0


@pytest.mark.parametrize("order", [1, 1.5, 2, 7])
def test_a_translated_gaussian_is_as_far_as_the_translation(order):
    assert wasserstein(vector([0.0, 0.0], S1), vector([3.0, 4.0], S1), order=order).value == pytest.approx(5, abs=1e-12)


def test_gaussians_of_different_classes_give_one_kl():
    plain = Independent(Normal(t(0.0, 1.0), t(1.0, 2.0)), 1)
    full = vector([0.0, 1.0], [[1.0, 0.0], [0.0, 4.0]])
    low_rank = LowRankMultivariateNormal(t(0.0, 1.0), torch.zeros(2, 1).double(), t(1.0, 4.0))
    other = vector([1.0, 0.0], S2)
    truth = kl_divergence(full, other).item()
    for p in (plain, full, low_rank):
        assert kl(p, other).value == pytest.approx(truth, abs=1e-12)
        assert kl(p, full).value == pytest.approx(0.0, abs=1e-12)


def test_total_variation_of_gaussian_vectors_depends_on_the_mahalanobis_distance():
    p, q = vector([0.0, 0.0], S1), vector([1.0, 1.0], S1)
    delta = (t(1.0, 1.0) @ torch.linalg.inv(S1) @ t(1.0, 1.0)).sqrt().item()
    assert tv(p, q).value == pytest.approx(2 * Normal(0, 1).cdf(t(delta / 2)).item() - 1, abs=1e-12)
    along = js(normal(0.0, 1.0), normal(delta, 1.0)).value
    assert js(p, q).value == pytest.approx(along, abs=1e-10)


def test_mmd2_of_gaussians_under_rbf_is_the_closed_form():
    p, q, ell = vector([0.0, 0.0], S1), vector([1.0, -1.0], S2), 1.5

    def mean_kernel(shift, s):
        a = ell**2 * torch.eye(2).double() + s
        return ell**2 / a.det().sqrt() * torch.exp(-0.5 * shift @ torch.linalg.inv(a) @ shift)

    none, shift = t(0.0, 0.0), t(-1.0, 1.0)
    truth = mean_kernel(none, 2 * S1) + mean_kernel(none, 2 * S2) - 2 * mean_kernel(shift, S1 + S2)
    assert mmd2(p, q, RBF(ell)).value == pytest.approx(truth.item(), abs=1e-13)
    two = (mmd2(p, q, RBF(1.0)).value + mmd2(p, q, RBF(3.0)).value) / 2
    assert mmd2(p, q, RBF((1.0, 3.0))).value == pytest.approx(two, abs=1e-13)
    sampled = mmd2(p, q, RBF(ell), method="monte carlo", draws=20_000)
    assert abs(sampled.value - truth.item()) < 4 * sampled.stderr  # false alarm 6e-5


@pytest.mark.parametrize("a", [0.25, 0.75, 1.0])
def test_shifted_uniforms(a):
    p, q = uniform(0.0, 1.0), uniform(a, 1 + a)
    assert wasserstein(p, q).value == pytest.approx(a, abs=1e-12)
    assert wasserstein(p, q, order=2).value == pytest.approx(a, abs=1e-12)
    assert tv(p, q).value == pytest.approx(a, abs=1e-12)
    assert hellinger2(p, q).value == pytest.approx(a, abs=1e-12)
    assert js(p, q).value == pytest.approx(a * LOG2, abs=1e-12)
    assert energy(p, q).value == pytest.approx(2 * a**2 - 2 / 3 * a**3, abs=1e-10)
    assert kl(p, q).value == math.inf


def test_nested_uniforms_have_the_log_ratio_of_their_lengths_as_kl():
    narrow, wide = uniform(0.0, 1.0), uniform(0.0, 2.0)
    for method in ("closed form", "quadrature"):
        assert kl(narrow, wide, method=method).value == pytest.approx(LOG2, abs=1e-10)
    sampled = kl(narrow, wide, method="monte carlo")
    assert sampled.value == pytest.approx(LOG2, abs=1e-10)  # a control variate would give 0.193


def test_uniforms_of_different_lengths_have_a_linear_transport_map():
    # |1 - 3u| integrates to 5/6, and its square to 1
    p, q = uniform(0.0, 1.0), uniform(-1.0, 3.0)
    assert wasserstein(p, q).value == pytest.approx(5 / 6, abs=1e-12)
    assert wasserstein(p, q, order=2).value == pytest.approx(1.0, abs=1e-12)
    assert wasserstein(p, q, order=2, method="quadrature").value == pytest.approx(1.0, abs=1e-9)


def test_disjoint_supports_give_the_largest_values():
    p, q = uniform(0.0, 1.0), uniform(2.0, 3.0)
    assert [js(p, q).value, tv(p, q).value, hellinger2(p, q).value, kl(p, q).value] == [LOG2, 1.0, 1.0, math.inf]
    assert "do not overlap" in " ".join(js(p, q).notes)


def test_discrete_laws_whose_ends_touch_share_an_atom():
    two, shifted = Categorical(t(0.5, 0.5)), Binomial(1, t(0.5))
    assert tv(two, shifted).value == pytest.approx(0.0, abs=1e-12)
    point = Categorical(torch.ones(1, dtype=torch.float64))  # the atom 0 alone
    assert tv(point, Geometric(t(0.5))).value == pytest.approx(0.5, abs=1e-11)
    assert js(uniform(0.0, 1.0), uniform(1.0, 2.0)).value == LOG2


def test_a_support_violation_is_an_infinite_kl_with_its_reason():
    estimate = kl(P, Exponential(t(1.0)))
    assert estimate.value == math.inf
    assert estimate.stderr == 0.0
    assert "q has no density where p has some" in estimate.notes[0]


def test_torchs_registry_is_used_where_it_knows():
    for p, q in [
        (Gamma(t(2.0), t(1.0)), Gamma(t(3.0), t(2.0))),
        (Beta(t(2.0), t(3.0)), Beta(t(1.0), t(1.5))),
        (Laplace(t(0.0), t(1.0)), normal(0.0, 1.0)),
        (Pareto(t(1.0), t(3.0)), Pareto(t(1.0), t(2.0))),
    ]:
        assert kl(p, q).method == "closed form"
        assert kl(p, q).value == kl_divergence(p, q).item()
        assert kl(p, q, method="quadrature").value == pytest.approx(kl_divergence(p, q).item(), abs=1e-7)


def test_finite_discrete_laws_are_summed():
    p, q = Categorical(t(0.5, 0.25, 0.25)), Categorical(t(0.25, 0.25, 0.5))
    assert kl(p, q).value == pytest.approx(0.25 * LOG2, abs=1e-12)
    assert tv(p, q).value == pytest.approx(0.25, abs=1e-12)
    assert wasserstein(p, q).value == pytest.approx(0.5, abs=1e-12)
    assert energy(p, q).value == pytest.approx(2 * (0.25**2 + 0.25**2), abs=1e-12)
    root = math.sqrt(0.125)
    assert hellinger2(p, q).value == pytest.approx(1 - 2 * root - 0.25, abs=1e-12)
    assert {e.method for e in (tv(p, q), wasserstein(p, q), energy(p, q))} == {"exact sum"}


def test_an_atom_without_mass_makes_kl_infinite_and_js_finite():
    p, q = Bernoulli(t(0.5)), Bernoulli(t(0.0))
    assert kl(p, q, method="exact sum").value == math.inf
    m = (0.75, 0.25)
    truth = 0.5 * (0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1])) + 0.5 * math.log(1 / m[0])
    assert js(p, q).value == pytest.approx(truth, abs=1e-12)


def test_poisson_laws_are_summed_to_the_end_of_their_mass():
    p, q = Poisson(t(3.0)), Poisson(t(4.0))
    assert kl(p, q, method="exact sum").value == pytest.approx(kl_divergence(p, q).item(), abs=1e-9)
    # Poisson laws are ordered, so W_1 is the difference of the means
    assert wasserstein(p, q).value == pytest.approx(1.0, abs=1e-9)


def test_a_batch_of_distributions_gives_one_kl_each():
    p, q = Normal(t(0.0, 1.0), t(1.0, 1.0)), Normal(t(1.0, 1.0), t(1.0, 2.0))
    estimate = kl(p, q)
    assert torch.equal(estimate.value, kl_divergence(p, q))
    assert estimate.stderr.shape == (2,)


def test_float32_parameters_are_computed_in_float64():
    # the float32 number nearest to 0.1 is the parameter; nothing more is lost
    p, q = Normal(torch.tensor(0.1), torch.tensor(1.0)), Normal(torch.tensor(0.1), torch.tensor(1.001))
    s = float(torch.tensor(1.001))
    assert kl(p, q).value == pytest.approx(math.log(s) + 1 / (2 * s * s) - 0.5, rel=1e-9)
