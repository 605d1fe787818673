"""The course's gradient estimators: unbiased against exact gradients, honest errors, variances as theory has them.

A test of unbiasedness takes the largest of a few components' errors in standard errors; with 4.5 as the limit its
false-alarm rate is below 1e-4 for up to ten components (normal tails). Seeds are fixed.
"""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Exponential,
    Gamma,
    Gumbel,
    Independent,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
)

from probdl.inference.gradients import GradientEstimate, reparameterised_gradient, score_gradient

F64 = {"dtype": torch.float64}


def tensor(*values):
    return torch.tensor(values, **F64)


def normal(phi):
    return Normal(phi[0], phi[1])


def location_scale(phi, e):
    return phi[0] + phi[1] * e


def normal_gradient(f, phi):
    """The exact gradient of E f(μ + σε) by 60-point Gauss–Hermite quadrature."""
    nodes, weights = (torch.as_tensor(a) for a in hermegauss(60))
    phi = phi.clone().requires_grad_()
    value = (weights * f(phi[0] + phi[1] * nodes)).sum() / weights.sum()
    return torch.autograd.grad(value, phi)[0]


def assert_unbiased(estimate, exact):
    z = (estimate.value - exact) / estimate.stderr.clamp(min=1e-10)  # where the estimate has no noise at all
    assert float(z.abs().max()) < 4.5, z


def bumpy(z):
    return torch.sin(2 * z) + 0.3 * z**2


@pytest.mark.parametrize("control_variate", [True, False, 0.7])
@pytest.mark.parametrize("f", [bumpy, torch.exp, lambda z: z**3])
def test_the_score_function_is_unbiased_for_a_normal(f, control_variate):
    phi = tensor(0.4, 0.9)
    estimate = score_gradient(f, normal, phi, draws=50_000, control_variate=control_variate, seed=1)
    assert_unbiased(estimate, normal_gradient(f, phi))


@pytest.mark.parametrize("f", [bumpy, torch.exp, lambda z: z**3])
def test_reparameterisation_is_unbiased_for_a_normal(f):
    phi = tensor(0.4, 0.9)
    exact = normal_gradient(f, phi)
    assert_unbiased(reparameterised_gradient(f, location_scale, phi, Normal(0.0, 1.0), draws=50_000), exact)
    assert_unbiased(reparameterised_gradient(f, normal, phi, draws=20_000), exact)


def gumbel(phi, u):
    return phi[0] - phi[1] * torch.log(-torch.log(u))


def weibull(phi, u):
    return phi[0] * (-torch.log1p(-u)) ** (1 / phi[1])


def kumaraswamy(phi, u):
    return (1 - (1 - u) ** (1 / phi[1])) ** (1 / phi[0])


def weibull_mean(phi):
    return phi[0] * torch.lgamma(1 + 1 / phi[1]).exp()


def kumaraswamy_mean(phi):
    a, b = phi
    return b * (torch.lgamma(1 + 1 / a) + torch.lgamma(b) - torch.lgamma(1 + 1 / a + b)).exp()


@pytest.mark.parametrize(
    ("g", "phi", "mean"),
    [
        (gumbel, (0.5, 2.0), lambda phi: phi[0] + np.euler_gamma * phi[1]),
        (weibull, (2.0, 1.5), weibull_mean),
        (kumaraswamy, (2.0, 3.0), kumaraswamy_mean),
    ],
    ids=["gumbel", "weibull", "kumaraswamy"],
)
def test_reparameterisation_takes_any_differentiable_g(g, phi, mean):
    """Inverse distribution functions of a uniform ε, against the derivative of the mean in closed form."""
    exact_at = tensor(*phi).requires_grad_()
    exact = torch.autograd.grad(mean(exact_at), exact_at)[0]
    tiny = torch.finfo(torch.float64).tiny
    noise = Uniform(tensor(tiny)[0], tensor(1.0)[0])
    assert_unbiased(reparameterised_gradient(lambda z: z, g, tensor(*phi), noise, draws=50_000), exact)


def test_both_estimators_agree_on_a_gumbel_where_both_apply():
    phi = tensor(0.5, 2.0)
    f = torch.tanh
    by_score = score_gradient(f, lambda p: Gumbel(p[0], p[1]), phi, draws=100_000, seed=2)
    by_path = reparameterised_gradient(f, gumbel, phi, Uniform(tensor(1e-300)[0], tensor(1.0)[0]), draws=50_000)
    gap = (by_score.value - by_path.value) / (by_score.variance / by_score.n + by_path.variance / by_path.n).sqrt()
    assert float(gap.abs().max()) < 4.5


def test_implicit_reparameterisation_of_a_gamma():
    """E z² = (a + a²)/b²."""
    estimate = reparameterised_gradient(lambda z: z**2, lambda p: Gamma(p[0], p[1]), tensor(1.5, 2.0), draws=20_000)
    assert_unbiased(estimate, tensor((1 + 3.0) / 4, -2 * (1.5 + 2.25) / 8))


def test_the_score_function_of_discrete_laws_is_unbiased():
    def f(z):
        return (z - 1.0) ** 2

    logits = tensor(0.2, -0.5, 1.0)
    p = logits.softmax(0)
    values = f(torch.arange(3.0, **F64))
    exact = p * (values - p @ values)
    assert_unbiased(score_gradient(f, lambda x: Categorical(logits=x), logits, draws=50_000), exact)
    rate = tensor(3.0)  # E (z − 1)² = φ² − φ + 1
    assert_unbiased(score_gradient(lambda z: f(z[:, 0]), lambda x: Poisson(x), rate, draws=50_000), tensor(5.0))
    logit = torch.tensor(0.3, **F64)
    p = torch.sigmoid(logit)
    assert_unbiased(score_gradient(f, lambda x: Bernoulli(logits=x), logit), -p * (1 - p))


def test_vectors_and_batches_of_independent_parts():
    phi = tensor(1.0, 2.0, 0.5)
    laws = [
        lambda p: Normal(p, 1.0),
        lambda p: Independent(Normal(p, 1.0), 1),
        lambda p: MultivariateNormal(p, torch.eye(3, **F64)),
    ]

    def f(z):
        return (z**2).sum(-1)

    estimates = [score_gradient(f, law, phi, draws=20_000) for law in laws]
    for estimate in estimates:
        assert_unbiased(estimate, 2 * phi)
    torch.testing.assert_close(estimates[0].value, estimates[1].value)
    matrix = torch.stack([phi, phi])
    by_path = reparameterised_gradient(lambda z: (z**2).sum((-1, -2)), lambda p, e: p + e, matrix,
                                       Normal(torch.zeros(2, 3, **F64), 1.0))  # fmt: skip
    assert by_path.value.shape == (2, 3)
    assert_unbiased(by_path, 2 * matrix)


def test_the_estimated_baseline_is_unbiased_with_few_draws():
    """With 5 draws a baseline from the same draws is biased by several percent; from the others it is not."""
    phi = tensor(1.0, 1.0)
    runs = torch.stack([score_gradient(torch.exp, normal, phi, draws=5, seed=s).value for s in range(2500)])
    z = (runs.mean(0) - normal_gradient(torch.exp, phi)) / (runs.std(0) / 2500**0.5)
    assert float(z.abs().max()) < 4.0


@pytest.mark.parametrize("estimator", ["score", "reparameterised"])
def test_intervals_cover_at_their_level(estimator):
    """400 intervals at 90 %: fewer than 335 or more than 384 cover with probability below 1e-3 each."""
    phi, exact = tensor(0.4, 0.9), normal_gradient(bumpy, tensor(0.4, 0.9))

    def interval(seed):
        if estimator == "score":
            return score_gradient(bumpy, normal, phi, draws=400, seed=seed).interval(0.9)
        noise = Normal(0.0, 1.0)
        return reparameterised_gradient(bumpy, location_scale, phi, noise, draws=400, seed=seed).interval(0.9)

    inside = [(low <= exact) & (exact <= high) for low, high in map(interval, range(400))]
    covered = torch.stack(inside).sum(0)
    assert bool(((covered >= 335) & (covered <= 384)).all()), covered


def test_the_variances_are_those_of_theory():
    """f = z² under N(μ, 1): per draw, in μ, reparameterisation has 4, the score μ⁴ + 14μ² + 15, with c* 8μ² + 6."""
    mu = 1.5
    phi = torch.tensor(mu, **F64)

    def law(p):
        return Normal(p, 1.0)

    def square(z):
        return z**2

    plain = score_gradient(square, law, phi, draws=400_000, control_variate=False)
    best = score_gradient(square, law, phi, draws=400_000)
    path = reparameterised_gradient(square, lambda p, e: p + e, phi, Normal(0.0, 1.0), draws=100_000)
    # E[z⁴ε²] = μ⁴ + 18μ² + 15, less the square of the gradient 2μ; c* = E[z²ε²] = μ² + 3 takes (μ² + 3)² away.
    exact_plain = mu**4 + 14 * mu**2 + 15
    exact_best = exact_plain - (mu**2 + 3) ** 2
    assert float(plain.variance) == pytest.approx(exact_plain, rel=0.03)
    assert float(best.variance) == pytest.approx(exact_best, rel=0.03)
    assert float(path.variance) == pytest.approx(4.0, rel=0.03)


def test_the_gradient_of_a_bound():
    """log p − log q with q's density held fixed: the gradient through it has mean zero. KL of two normals is exact."""
    phi = tensor(0.7, 0.6)
    held = normal(phi)

    def f(z):
        return Normal(0.0, 1.0).log_prob(z) - held.log_prob(z)

    exact = tensor(-0.7, 1 / 0.6 - 0.6)
    assert_unbiased(score_gradient(f, normal, phi, draws=50_000), exact)


def test_a_baseline_of_the_right_constant_leaves_no_variance():
    estimate = score_gradient(lambda z: torch.full_like(z, 3.0), normal, tensor(0.0, 1.0), control_variate=3.0)
    assert float(estimate.value.abs().max()) == 0.0
    assert float(estimate.variance.abs().max()) == 0.0


def test_the_result_reads_well():
    estimate = GradientEstimate(tensor(1.0, 2.0), tensor(0.1, 0.2), tensor(1.0, 4.0), 100, "score function")
    assert repr(estimate) == "[1 ± 0.1, 2 ± 0.2] (score function, n=100)"
    low, high = estimate.interval()
    torch.testing.assert_close((high - low) / 2, 1.959964 * estimate.stderr)
    with pytest.raises(ValueError, match="level must be between"):
        estimate.interval(1.0)


def test_seeds_decide_and_nothing_global_changes():
    phi, validates = tensor(0.4, 0.9), torch.distributions.Distribution._validate_args
    before = torch.get_rng_state()
    a, b, c = (score_gradient(bumpy, normal, phi, draws=100, seed=s).value for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    reparameterised_gradient(bumpy, location_scale, phi, Normal(0.0, 1.0), draws=100)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.distributions.Distribution._validate_args is validates


@pytest.mark.parametrize(
    "g",
    [
        lambda phi, u: (u < torch.sigmoid(phi)).double(),
        lambda phi, u: torch.floor(3 * u + phi),
        lambda phi, u: (3 * u + phi).round().long(),
    ],
    ids=["comparison", "floor", "integer"],
)
def test_reparameterisation_refuses_a_discrete_z(g):
    with pytest.raises(ValueError, match=r"(?s)discrete.*score_gradient"):
        reparameterised_gradient(lambda z: z * 1.0, g, torch.tensor(0.1, **F64), Uniform(0.0, 1.0))


@pytest.mark.parametrize("law", [Poisson, lambda p: Categorical(logits=torch.stack([p, -p]))])
def test_reparameterisation_refuses_a_law_without_reparameterised_draws(law):
    with pytest.raises(ValueError, match=r"cannot be reparameterised.*score_gradient"):
        reparameterised_gradient(lambda z: z, law, torch.tensor(1.0, **F64))


def test_a_floor_with_a_slope_is_no_mistake():
    """A g whose gradient really is zero in a component that it does not use is accepted."""
    estimate = reparameterised_gradient(lambda z: z, lambda p, e: p[0] + e, tensor(1.0, 5.0), Normal(0.0, 1.0))
    torch.testing.assert_close(estimate.value, tensor(1.0, 0.0))


@pytest.mark.parametrize("phi", [torch.tensor([1, 2]), [1.0, 2.0]])
def test_phi_must_be_a_floating_tensor(phi):
    with pytest.raises(TypeError, match="phi must be a floating torch tensor"):
        score_gradient(bumpy, normal, phi)
    with pytest.raises(TypeError, match="phi must be a floating torch tensor"):
        reparameterised_gradient(bumpy, location_scale, phi, Normal(0.0, 1.0))


def test_bad_input_is_named():
    phi = tensor(0.4, 0.9)
    with pytest.raises(ValueError, match="draws must be an integer of at least 3"):
        score_gradient(bumpy, normal, phi, draws=2)
    with pytest.raises(ValueError, match=r"one value for each draw, shape \(10,\).*got \(\)"):
        score_gradient(lambda z: bumpy(z).sum(), normal, phi, draws=10)
    with pytest.raises(ValueError, match=r"f must be finite; \d+ of 100"):
        score_gradient(torch.log, normal, phi, draws=100)
    with pytest.raises(TypeError, match="q must return a torch distribution; got Tensor"):
        score_gradient(bumpy, lambda p: p, phi)
    with pytest.raises(TypeError, match="g must return a torch distribution; got Tensor"):
        reparameterised_gradient(bumpy, lambda p: p, phi)
    with pytest.raises(ValueError, match=r"does not depend on φ"):
        score_gradient(bumpy, lambda p: Normal(0.0, 1.0), phi)
    with pytest.raises(ValueError, match=r"no derivative in φ"):
        reparameterised_gradient(bumpy, lambda p, e: e, phi, Normal(0.0, 1.0))


def test_float32_stays_float32():
    estimate = score_gradient(lambda z: z, lambda rate: Exponential(rate), torch.tensor([2.0]).squeeze(), draws=1000)
    assert estimate.value.dtype is torch.float32
    assert math.isclose(float(estimate.value), -0.25, abs_tol=4.5 * float(estimate.stderr))


def test_beta_by_score_and_by_path():
    """The mean of a Beta(a, b) is a/(a+b), with gradient (b, −a)/(a+b)²."""
    phi = tensor(2.0, 3.0)
    exact = tensor(3.0, -2.0) / 25
    assert_unbiased(score_gradient(lambda z: z, lambda p: Beta(p[0], p[1]), phi, draws=20_000), exact)
    assert_unbiased(reparameterised_gradient(lambda z: z, lambda p: Beta(p[0], p[1]), phi, draws=5_000), exact)


def test_phi_that_is_not_finite_is_refused():
    phi = torch.tensor([0.0, torch.nan], dtype=torch.float64)
    with pytest.raises(ValueError, match="phi must be finite; 1 of 2"):
        score_gradient(lambda z: z, lambda p: torch.distributions.Normal(p[0], p[1]), phi)
