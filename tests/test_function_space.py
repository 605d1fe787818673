"""Expectation propagation in function space, and the closed forms of its tilted moments."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import log_ndtr
from sklearn.datasets import load_digits

import probdl
from probdl.inference.propagation.closed_forms import (
    laplace_moments,
    mixture_moments,
    positive_part,
    probit_moments,
)
from probdl.inference.propagation.conditioned import ConditionedGaussian
from probdl.inference.propagation.extrapolation import AndersonMixing
from probdl.inference.propagation.function_space import FunctionSpacePropagation
from probdl.inference.propagation.tilted import TiltedQuadrature
from probdl.natural import NormalFactor

DOUBLE = {"dtype": torch.float64}


def double(x):
    return torch.as_tensor(x, **DOUBLE)


def normal(mean, variance):
    return NormalFactor.from_moments(double(mean), double(variance))


def by_quadrature(log_likelihood, mean, variance, kinks=()):
    """Log normaliser, mean and variance of N(u; m, v) exp(ℓ(u)) by SciPy's adaptive quadrature around the mode."""
    sd = math.sqrt(variance)
    grid = mean + sd * np.linspace(-12, 12, 200_001)
    logs = stats.norm.logpdf(grid, mean, sd) + log_likelihood(grid)
    top, inside = logs.max(), logs > logs.max() - 80
    ends = [grid[inside][0], *sorted(k for k in kinks if grid[inside][0] < k < grid[inside][-1]), grid[inside][-1]]
    centre = grid[logs.argmax()]

    def integral(power):
        def f(u):
            return (u - centre) ** power * np.exp(stats.norm.logpdf(u, mean, sd) + log_likelihood(u) - top)

        pieces = [np.linspace(a, b, 9) for a, b in zip(ends, ends[1:])]
        return sum(
            integrate.quad(f, a, b, epsabs=0, epsrel=1e-12, limit=400)[0] for p in pieces for a, b in zip(p, p[1:])
        )

    total, first, second = integral(0), integral(1), integral(2)
    return top + math.log(total), centre + first / total, second / total - (first / total) ** 2


CAVITIES = [(0.3, 1.7), (-4.0, 0.5), (6.0, 9.0), (-9.0, 1.0), (0.0, 1e-3), (-30.0, 400.0)]


@pytest.mark.parametrize(("mean", "variance"), CAVITIES)
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (-1.0, 0.0), (2.5, -1.0)])
def test_probit_moments_are_those_of_quadrature(mean, variance, slope, intercept):
    found = probit_moments(normal([mean], [variance]), double([slope]), double([intercept]))
    log_z, tilted_mean, tilted_variance = by_quadrature(lambda u: log_ndtr(slope * u + intercept), mean, variance)
    assert abs(found.log_normaliser.item() - log_z) < 1e-10 * max(1, abs(log_z))
    assert abs(found.mean.item() - tilted_mean) < 1e-10 * max(1, abs(tilted_mean))
    assert abs(found.variance.item() / tilted_variance - 1) < 1e-9


@pytest.mark.parametrize(("mean", "variance"), CAVITIES)
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_laplace_moments_are_those_of_quadrature(mean, variance, scale):
    found = laplace_moments(normal([mean], [variance]), double([1.0]), scale)
    log_z, tilted_mean, tilted_variance = by_quadrature(
        lambda u: stats.laplace.logpdf(u, 1.0, scale), mean, variance, kinks=[1.0]
    )
    assert abs(found.log_normaliser.item() - log_z) < 1e-10 * max(1, abs(log_z))
    assert abs(found.mean.item() - tilted_mean) < 1e-10 * max(1, abs(tilted_mean))
    assert abs(found.variance.item() / tilted_variance - 1) < 1e-9


@pytest.mark.parametrize(("mean", "variance"), CAVITIES)
def test_mixture_moments_are_those_of_quadrature(mean, variance):
    """Minka's clutter site at x = 1.5, beside a component that grows."""
    constant = double([[math.log(0.5) - 0.5 * 1.5**2, -2.0, -1.0]])
    linear, quadratic = double([[1.5, 0.0, 0.05]]), double([[1.0, 0.0, -1e-3]])

    def log_likelihood(u):
        terms = [a + b * u - 0.5 * g * u**2 for a, b, g in zip(*(x[0].tolist() for x in (constant, linear, quadratic)))]
        return np.logaddexp.reduce(terms)

    found = mixture_moments(normal([mean], [variance]), constant, linear, quadratic)
    log_z, tilted_mean, tilted_variance = by_quadrature(log_likelihood, mean, variance)
    assert abs(found.log_normaliser.item() - log_z) < 1e-10 * max(1, abs(log_z))
    assert abs(found.mean.item() - tilted_mean) < 1e-10 * max(1, abs(tilted_mean))
    assert abs(found.variance.item() / tilted_variance - 1) < 1e-9


def test_a_component_that_outgrows_its_cavity_is_refused():
    with pytest.raises(probdl.ConvergenceError, match="no integral"):
        mixture_moments(normal([0.0], [2.0]), double([[0.0]]), double([[0.0]]), double([[-0.5]]))


def test_the_positive_part_keeps_its_digits_in_the_tail():
    """Against the asymptotic series in x = −z, and against each other where the two formulas meet."""
    mean, variance = positive_part(double([-1e8, -40.0, -5.001, -4.999, 0.0, 40.0]))
    assert abs(mean[0] * 1e8 - 1) < 1e-15
    assert abs(variance[0] * 1e16 - 1) < 1e-14
    x = 40.0
    series = 1 / x - 2 / x**3 + 10 / x**5 - 74 / x**7 + 706 / x**9
    assert abs(mean[1] / series - 1) < 1e-11
    assert abs(mean[2] - mean[3]).item() < 1e-4  # the two formulas meet where they change over
    slope = (mean[3] - mean[2]) / 0.002
    assert abs(slope - variance[2:4].mean()) < 1e-8  # dE[t]/dz = Var[t]
    assert abs(mean[4] - math.sqrt(2 / math.pi)) < 1e-15
    assert (mean[5], variance[5]) == (40.0, 1.0)


@pytest.mark.parametrize("z", [-1e3, -1e8, 1e3])
def test_extreme_labels_give_finite_moments_in_both_types(z):
    for dtype in (torch.float64, torch.float32):
        cavity = NormalFactor.from_moments(torch.tensor([z], dtype=dtype), torch.ones(1, dtype=dtype))
        moments = probit_moments(cavity, torch.ones(1, dtype=dtype))
        assert bool(torch.isfinite(torch.stack([moments.log_normaliser, moments.mean, moments.variance])).all())
        assert 0.49 < moments.variance.item() <= 1.0  # half the prior's from u, half of it seen exactly


# The Gaussian prior times sites --------------------------------------------------------------------------------


def rbf(x, variance=1.0, length=1.0):
    return variance * torch.exp(-0.5 * torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") ** 2 / length**2)


def well_conditioned(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=generator, **DOUBLE)
    return torch.randn(n, generator=generator, **DOUBLE), root @ root.T / n + 0.5 * torch.eye(n, **DOUBLE)


@pytest.mark.parametrize("negative", [0, 5])
def test_conditioning_is_what_the_inverses_say(negative):
    """Σ = (K⁻¹ + S)⁻¹, μ = Σ(K⁻¹m + h) and W = (K + S⁻¹)⁻¹, where the inverses exist."""
    mean, covariance = well_conditioned()
    precision = torch.linspace(0.1, 3.0, 12, **DOUBLE)
    precision[:negative] = -torch.linspace(0.05, 0.3, negative, **DOUBLE)
    shift = torch.linspace(-1, 2, 12, **DOUBLE)
    found = ConditionedGaussian(mean, covariance, NormalFactor(shift, precision))
    sigma = torch.linalg.inv(torch.linalg.inv(covariance) + precision.diag())
    assert found.proper
    assert torch.allclose(found.mean, sigma @ (torch.linalg.solve(covariance, mean) + shift), atol=1e-10)
    assert torch.allclose(found.variance, sigma.diagonal(), atol=1e-10)
    assert torch.allclose(found.covariance(), sigma, atol=1e-10)
    assert torch.allclose(found.gain(), torch.linalg.inv(covariance + (1 / precision).diag()), atol=1e-9)
    prior = torch.distributions.MultivariateNormal(mean, covariance)
    at = torch.zeros(12, **DOUBLE)  # density of the prior at 0 is that of the normalised product times its integral
    product = torch.distributions.MultivariateNormal(found.mean, sigma)
    assert abs(found.log_integral() - (prior.log_prob(at) - product.log_prob(at))) < 1e-9


def test_a_product_that_is_not_a_distribution_is_said_to_be_improper():
    mean, covariance = well_conditioned()
    too_negative = -1.01 / torch.linalg.eigvalsh(covariance).max()
    shift = torch.zeros(12, **DOUBLE)
    assert not ConditionedGaussian(mean, covariance, NormalFactor(shift, too_negative.expand(12))).proper
    assert ConditionedGaussian(mean, covariance, NormalFactor(shift, too_negative.expand(12) * 0.98)).proper


def test_other_entries_follow_from_those_that_were_seen():
    mean, covariance = well_conditioned()
    seen = slice(0, 8)
    site = NormalFactor(torch.linspace(-1, 1, 8, **DOUBLE), torch.tensor([1.0] * 6 + [-0.1] * 2, **DOUBLE))
    part = ConditionedGaussian(mean[seen], covariance[seen, seen], site)
    zero = torch.zeros(4, **DOUBLE)
    whole = ConditionedGaussian(
        mean, covariance, NormalFactor(torch.cat([site.shift, zero]), torch.cat([site.precision, zero]))
    )
    moved, variance = part.conditional_moments(covariance[8:, seen], covariance.diagonal()[8:])
    assert torch.allclose(mean[8:] + moved, whole.mean[8:], atol=1e-10)
    assert torch.allclose(variance, whole.variance[8:], atol=1e-10)
    joint = part.conditional_covariance(covariance[8:, seen], covariance[8:, 8:])
    assert torch.allclose(joint, whole.covariance()[8:, 8:], atol=1e-10)


def test_a_singular_covariance_needs_no_jitter():
    """Three copies of one entry, each seen with precision 1: the same as one entry seen with precision 3."""
    site = NormalFactor(double([1.0, 2.0, 3.0]), double([1.0, 1.0, 1.0]))
    found = ConditionedGaussian(torch.zeros(3, **DOUBLE), torch.ones(3, 3, **DOUBLE), site)
    assert torch.allclose(found.mean, double([1.5, 1.5, 1.5]), atol=1e-14)
    assert torch.allclose(found.variance, double([0.25, 0.25, 0.25]), atol=1e-14)


# Expectation propagation ---------------------------------------------------------------------------------------


def digits():
    X, y = load_digits(return_X_y=True)
    keep = (y == 3) | (y == 5)
    return double(X[keep] / 16), double(np.where(y[keep] == 3, 1.0, -1.0))


@pytest.mark.parametrize(
    ("variance", "length", "log_z"), [(1.0, 1.0, -84.533), (10.0, 2.0, -32.270), (100.0, 3.0, -26.200)]
)
def test_log_evidence_of_digits_meets_the_published_values_in_few_sweeps(variance, length, log_z):
    """Undamped parallel EP needs 13, 42 and 163 sweeps here."""
    X, sign = digits()
    problem = FunctionSpacePropagation(
        torch.zeros_like(sign), rbf(X, variance, length), lambda cavity: probit_moments(cavity, sign)
    )
    found = problem.run()
    assert abs(found.log_evidence.item() - log_z) < 1e-3
    assert len(found.history.rows) <= 25
    again = problem.run(start=found.site)
    assert len(again.history.rows) == 1
    assert abs(again.log_evidence - found.log_evidence) < 1e-8


def robust(y, scale=0.3):
    def log_likelihood(u):
        return torch.distributions.StudentT(4.0, u, double(scale)).log_prob(y)

    return log_likelihood


def outliers(n=40):
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(-3, 3, n))
    y = np.sin(x) + 0.2 * rng.normal(size=n)
    y[::7] += rng.choice([-3, 3], len(y[::7]))
    return double(x[:, None]), double(y)


def test_student_noise_has_negative_sites_and_meets_the_iteration_on_coefficients():
    """The same model with whitened f = R z goes through the sites on a·z of ``ExpectationPropagation``."""
    import pyro
    import pyro.distributions as dist

    from probdl.inference import fit

    x, y = outliers()
    kernel = rbf(x) + 1e-10 * torch.eye(len(x), **DOUBLE)
    found = FunctionSpacePropagation(torch.zeros_like(y), kernel, TiltedQuadrature(robust(y))).run()
    assert bool((found.site.precision < 0).any())

    def model(root, y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
        pyro.sample("y", dist.StudentT(4.0, root @ z, 0.3).to_event(1), obs=y)

    other = fit(model, torch.linalg.cholesky(kernel), y, method="ep")
    assert abs(found.log_evidence.item() - other.log_evidence.value) < 1e-5
    assert torch.allclose(found.gaussian.mean, torch.linalg.cholesky(kernel) @ other.mean("z"), atol=1e-5)


def finite_difference(f, x, index, h=1e-4):
    def at(step):
        moved = x.clone()
        moved[index] += step
        if moved.ndim == 2 and index[0] != index[1]:
            moved[index[1], index[0]] += step
        return f(moved)

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.parametrize("likelihood", ["probit", "student", "student, power ½"])
def test_the_gradient_of_the_log_evidence_is_that_of_finite_differences(likelihood):
    x, y = outliers(20)
    sign = torch.where(y > 0, 1.0, -1.0).double()
    power = 0.5 if "½" in likelihood else 1.0
    mean, covariance = 0.3 * torch.ones_like(y), rbf(x) + 0.1 * torch.eye(20, **DOUBLE)

    def problem(mean, covariance):
        quadrature = TiltedQuadrature(lambda u: power * robust(y)(u), tolerance=1e-11)
        tilted = quadrature if "student" in likelihood else (lambda cavity: probit_moments(cavity, sign))
        return FunctionSpacePropagation(mean, covariance, tilted, power).run(tolerance=1e-11)

    found = problem(mean, covariance)
    gradient = found.covariance_gradient()
    for i, j in [(0, 0), (3, 4), (7, 19)]:
        numeric = finite_difference(lambda k: problem(mean, k).log_evidence.item(), covariance, (i, j))
        assert abs(numeric - gradient[i, j].item() * (1 if i == j else 2)) < 1e-6
    numeric = finite_difference(lambda m: problem(m, covariance).log_evidence.item(), mean, 5)
    assert abs(numeric - found.mean_gradient()[5].item()) < 1e-6


def test_one_entry_gives_the_exact_posterior_whatever_the_power_of_a_normal_likelihood():
    def tilted(power):
        zero = torch.zeros(1, 1, **DOUBLE)
        constant = zero - 0.5 * 3.0**2 - 0.5 * math.log(2 * math.pi)
        return lambda cavity: mixture_moments(cavity, power * constant, zero + power * 3.0, zero + power)

    for power in (1.0, 0.3):
        found = FunctionSpacePropagation(double([1.0]), double([[2.0]]), tilted(power), power).run()
        assert abs(found.log_evidence.item() - stats.norm.logpdf(3, 1, math.sqrt(3))) < 1e-9
        assert abs(found.gaussian.mean.item() - 7 / 3) < 1e-9
        assert abs(found.gaussian.variance.item() - 2 / 3) < 1e-9


def test_an_entry_without_prior_variance_stays_where_it_is_and_counts_its_likelihood():
    covariance = double([[0.0, 0.0], [0.0, 1.0]])
    sign = double([1.0, 1.0])
    found = FunctionSpacePropagation(double([0.7, 0.0]), covariance, lambda c: probit_moments(c, sign)).run()
    assert abs(found.gaussian.mean[0] - 0.7) < 1e-12
    assert abs(found.log_evidence.item() - (log_ndtr(0.7) + math.log(0.5))) < 1e-9


def test_what_cannot_be_run_is_refused_by_name():
    zero, eye = torch.zeros(3, **DOUBLE), torch.eye(3, **DOUBLE)
    with pytest.raises(ValueError, match="covariance must be square"):
        FunctionSpacePropagation(zero, eye[:2], probit_moments)
    with pytest.raises(ValueError, match="finite"):
        FunctionSpacePropagation(zero, eye * math.nan, probit_moments)
    with pytest.raises(ValueError, match="power must be above 0"):
        FunctionSpacePropagation(zero, eye, probit_moments, power=0.0)
    with pytest.raises(ValueError, match="positive semidefinite"):
        FunctionSpacePropagation(zero, -eye, lambda c: probit_moments(c, zero + 1)).run()
    with pytest.raises(probdl.ConvergenceError, match="2 sweeps.*max_sweeps"):
        FunctionSpacePropagation(zero, eye + 9, lambda c: probit_moments(c, zero + 1)).run(max_sweeps=2)


def test_mixing_solves_a_linear_fixed_point_in_as_many_steps_as_it_has_directions():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(4, 4, generator=generator, **DOUBLE)
    matrix = 0.99 * matrix / torch.linalg.matrix_norm(matrix, 2)
    offset = torch.randn(4, generator=generator, **DOUBLE)
    exact = torch.linalg.solve(torch.eye(4, **DOUBLE) - matrix, offset)
    x, mixing = torch.zeros(4, **DOUBLE), AndersonMixing(ridge=0.0)
    for _ in range(6):
        x = mixing.propose(x, matrix @ x + offset)
    assert torch.allclose(x, exact, atol=1e-8)
