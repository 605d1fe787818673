"""Expectation propagation beyond one projection: power, schedules, planes, grids, hyperparameters."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_models import clutter, clutter_data, grid_moments, logistic, probit
from scipy import integrate, optimize, stats

import probdl
from probdl.inference import ExpectationPropagation, Posterior, fit
from probdl.inference.posteriors.lattice import Cells, explore_lattice
from probdl.inference.programs.program import Program
from probdl.inference.propagation import outer_grid
from probdl.inference.propagation.evidence import Evidence
from probdl.inference.propagation.factors import Factors
from probdl.inference.propagation.fixed_point import FixedPoint
from probdl.inference.propagation.recognised import recognised
from probdl.inference.propagation.report import powers
from probdl.inference.propagation.site_factors import SiteFactors
from probdl.inference.propagation.solving import Attempt
from probdl.inference.propagation.tilted import TiltedQuadrature
from probdl.natural import NormalFactor


def test_power_towards_zero_meets_gaussian_variational_inference():
    """The distance to FullRank shrinks in proportion to the power."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 2))
    y = (rng.random(40) < stats.norm.cdf(0.3 + X @ [1.2, -0.5])).astype(float)
    limit = fit(probit, X, y, method="fullrank")
    gaps = []
    for power in (0.2, 0.02):
        posterior = fit(probit, X, y, method=ExpectationPropagation(power=power))
        gaps.append(float(((posterior.mean("w") - limit.mean("w")) / limit.sd("w")).abs().max()))
        assert f"power {power:g}" in posterior.message
    assert gaps[1] < 3e-3
    assert 5 < gaps[0] / gaps[1] < 20


def test_sequential_and_parallel_schedules_have_the_same_fixed_point():
    x = clutter_data(1)
    parallel, sequential = (
        fit(clutter, x, method=ExpectationPropagation(schedule=s)) for s in ("parallel", "sequential")
    )
    assert "sequential sweeps" in sequential.message
    assert torch.allclose(parallel.mean("theta"), sequential.mean("theta"), atol=1e-5)
    assert abs(parallel.log_evidence.value - sequential.log_evidence.value) < 1e-5


def test_a_fixed_damping_is_kept_and_leads_to_the_same_place():
    x = clutter_data(1)
    damped = fit(clutter, x, method=ExpectationPropagation(damping=0.5, schedule="parallel"))
    assert damped.history["step"].max() == 0.5  # halved where a cavity would not be proper
    assert torch.allclose(damped.mean("theta"), fit(clutter, x, method="ep").mean("theta"), atol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"power": 0.0}, "power must be above 0"),
        ({"power": 1.5}, "power must be"),
        ({"schedule": "random"}, "schedule must be"),
        ({"damping": 1.0}, "damping must be"),
        ({"damping": "some"}, "damping must be"),
        ({"tolerance": 0.0}, "tolerance and max_sweeps"),
        ({"optimise": "tau"}, "optimise must be a list"),
    ],
)
def test_arguments_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        ExpectationPropagation(**keywords)


def heteroscedastic(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    log_sd = pyro.sample("log_sd", dist.Normal(0.0, 0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, torch.exp(log_sd * x)), obs=y)


def test_one_site_on_a_plane_gives_the_exact_posterior():
    """One observation sees both latents: the tilted distribution is the posterior."""
    posterior = fit(heteroscedastic, torch.tensor([1.5]), torch.tensor([0.8]), method="ep")
    assert "planes of two projections" in posterior.message
    b, s = np.meshgrid(np.linspace(-7, 7, 1601), np.linspace(-4, 4, 1601), indexing="ij")
    log_p = stats.norm.logpdf(b) + stats.norm.logpdf(s, 0, 0.5) + stats.norm.logpdf(0.8, 1.5 * b, np.exp(1.5 * s))
    p = np.exp(log_p)
    total = p.sum()
    assert abs(posterior.log_evidence.value - np.log(total * (14 / 1600) * (8 / 1600))) < 1e-6
    for name, value in (("slope", b), ("log_sd", s)):
        mean = (p * value).sum() / total
        assert abs(posterior.mean(name).item() - mean) < 1e-6
        assert abs(posterior.sd(name).item() - np.sqrt((p * (value - mean) ** 2).sum() / total)) < 1e-6


def test_sites_on_planes_meet_quadrature():
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = 0.7 * x + np.exp(0.4 * x) * rng.normal(size=30)
    posterior = fit(heteroscedastic, x, y, method="ep")
    b, s = np.meshgrid(np.linspace(-1, 2.5, 701), np.linspace(-0.8, 1.6, 701), indexing="ij")
    log_p = stats.norm.logpdf(b) + stats.norm.logpdf(s, 0, 0.5)
    for xi, yi in zip(x, y):
        log_p += stats.norm.logpdf(yi, b * xi, np.exp(s * xi))
    p = np.exp(log_p - log_p.max())
    log_z = log_p.max() + np.log(p.sum() * (3.5 / 700) * (2.4 / 700))
    assert abs(posterior.log_evidence.value - log_z) < 0.03  # EP's own error
    for name, value in (("slope", b), ("log_sd", s)):
        mean = (p * value).sum() / p.sum()
        sd = np.sqrt((p * (value - mean) ** 2).sum() / p.sum())
        assert abs(posterior.mean(name).item() - mean) < 0.05 * sd
        assert abs(posterior.sd(name).item() / sd - 1) < 0.06


def test_three_projections_are_refused_by_name():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w[0] * x, torch.exp(w[1] * x**2) + torch.exp(w[2] * x**3)), obs=y)

    with pytest.raises(ValueError, match="site 'y' to see the latents w through one or two affine projections"):
        fit(model, torch.randn(5), torch.randn(5), method="ep")


def test_a_projection_that_is_not_affine_is_refused_by_name():
    def model(X, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=(X @ w) * w.sum() * w[0]), obs=y)

    with pytest.raises(ValueError, match="'y' to see the latents w .*not affine"):
        fit(model, torch.randn(5, 3), torch.ones(5), method="ep")


def random_intercepts(group, y=None):
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("groups", 6):
        effect = pyro.sample("effect", dist.Normal(0.0, tau))
    with pyro.plate("rows", len(group)):
        pyro.sample("y", dist.Bernoulli(logits=effect[group]), obs=y)


def grouped():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(6), 12)
    effect = np.array([-1.0, -0.5, 0.0, 0.3, 0.8, 1.4])
    return group, (rng.random(72) < 1 / (1 + np.exp(-effect[group]))).astype(float)


def exact_tau(group, y):
    """Moments of tau by quadrature: given tau the groups are independent one-dimensional integrals."""
    counts = [(y[group == g].sum(), (group == g).sum()) for g in range(6)]
    u = np.linspace(-8, 8, 4001)

    def log_marginal(tau):
        logs = [np.log(np.trapezoid(np.exp(k * tau * u - n * np.logaddexp(0, tau * u)) * stats.norm.pdf(u), u))
                for k, n in counts]  # fmt: skip
        return sum(logs) + stats.halfnorm.logpdf(tau)

    tau = np.linspace(1e-4, 5, 1500)
    return grid_moments(tau, np.array([log_marginal(t) for t in tau]))


def test_a_scale_on_the_grid_meets_quadrature(tmp_path):
    group, y = grouped()
    posterior = fit(random_intercepts, group, y, method="ep")
    assert "'tau', not Gaussian given the other latents, was held on a grid" in posterior.message
    log_z, mean, sd = exact_tau(group, y)
    assert abs(posterior.log_evidence.value - log_z) < 0.02  # EP's own error
    assert abs(posterior.mean("tau").item() - mean) < 0.02 * sd
    assert abs(posterior.sd("tau").item() / sd - 1) < 0.02
    draws = posterior.draws(20_000)
    assert abs(draws["tau"].mean() - posterior.mean("tau")) < 5 * sd / 20_000**0.5  # one in two million by chance
    assert torch.allclose(draws["effect"].std(0), posterior.sd("effect"), rtol=0.04)
    share = (draws["tau"] < posterior.quantile("tau", 0.2)).double().mean()
    assert abs(share - 0.2) < 5 * (0.16 / 20_000) ** 0.5
    check = posterior.check()
    assert check.khat < 0.7
    assert abs(check.log_evidence.value - log_z) < 4 * check.log_evidence.stderr
    posterior.save(tmp_path / "p.safetensors")
    loaded = Posterior.load(tmp_path / "p.safetensors")
    assert torch.equal(loaded.mean("effect"), posterior.mean("effect"))
    assert torch.equal(loaded.quantile("tau", 0.9), posterior.quantile("tau", 0.9))
    values = {k: v[:5] for k, v in draws.items()}
    assert torch.allclose(loaded.log_prob(values), posterior.log_prob(values))


def test_normal_noise_of_unknown_scale_is_exact_up_to_the_grid():
    rng = np.random.default_rng(2)
    y = rng.normal(1.0, 2.0, size=15)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        s = pyro.sample("s", dist.HalfNormal(2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, s), obs=y)

    posterior = fit(model, y, method="ep")

    def joint(m, s):
        return np.exp(
            stats.norm.logpdf(m, 0, 3) + stats.halfnorm.logpdf(s, 0, 2) + stats.norm.logpdf(y, m, s).sum() + 40
        )

    z = integrate.dblquad(joint, 0.8, 6, -3, 5)[0]
    mean = integrate.dblquad(lambda m, s: s * joint(m, s), 0.8, 6, -3, 5)[0] / z
    assert abs(posterior.log_evidence.value - (np.log(z) - 40)) < 2e-3
    assert posterior.log_evidence.method == "quadrature"
    assert abs(posterior.mean("s").item() - mean) < 2e-3


def test_more_than_three_entries_outside_are_refused_by_name():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        s = pyro.sample("s", dist.HalfNormal(2.0).expand([5]).to_event(1))
        pyro.sample("y", dist.Normal(mu, s).to_event(1), obs=y)

    with pytest.raises(ValueError, match="at most 3 entries; this model has 5: 's'"):
        fit(model, torch.randn(5), method="ep")


def curved(phi, bend, width):
    """x ~ N(0, 1), y | x ~ N(bend x², width²): E y = bend, Var y = 2 bend² + width²."""
    x, y = phi[..., 0], phi[..., 1]
    return -0.5 * x**2 - 0.5 * ((y - bend * x**2) / width) ** 2 - np.log(2 * np.pi * width)


def on_lattice(bend, width, spacing):
    root = torch.diag(torch.tensor([1.0, width], dtype=torch.float64))
    zero = torch.zeros(2, dtype=torch.float64)
    return explore_lattice(lambda phi, _: float(curved(phi, bend, width)), zero, root, spacing)


@pytest.mark.parametrize(
    ("bend", "width", "spacing"), [(0.0, 1.0, 0.75), (0.25, 1.0, 0.75), (0.4, 0.5, 0.5), (0.6, 0.4, 0.5)]
)
def test_a_curved_density_on_the_lattice_keeps_its_integral_moments_and_shape(bend, width, spacing):
    lattice = on_lattice(bend, width, spacing)
    cells = Cells.of(lattice)
    phi, p = lattice.phi(cells.centres()), cells.log_probability.reshape(-1).exp()
    mean = p @ phi
    variance = p @ (phi - mean) ** 2
    assert abs(lattice.log_integral()) < 1e-3
    assert torch.allclose(mean, torch.tensor([0.0, bend], dtype=torch.float64), atol=0.01)
    assert torch.allclose(variance, torch.tensor([1.0, 2 * bend**2 + width**2], dtype=torch.float64), rtol=0.03)
    exact = torch.exp(torch.as_tensor(curved(phi, bend, width))) * lattice.root.diagonal().prod() * cells.width**2
    assert 0.5 * float((p - exact).abs().sum()) < 0.01  # total variation
    assert cells.error() < 0.01


def test_draws_and_density_of_the_cells_are_those_of_one_law():
    lattice = on_lattice(0.4, 0.5, 0.5)
    cells = Cells.of(lattice)
    t = cells.draws(20_000, torch.Generator().manual_seed(0))
    phi = lattice.phi(t)
    assert abs(phi[:, 1].mean() - 0.4) < 5 * (0.57 / 20_000) ** 0.5  # one in two million by chance
    gap = cells.log_density(t) - curved(phi, 0.4, 0.5)
    assert gap.abs().mean() < 0.05


def test_a_lattice_that_is_too_coarse_for_a_ridge_is_known():
    coarse = on_lattice(1.0, 0.3, 0.75)
    assert coarse.has_cliffs()
    assert not on_lattice(0.25, 1.0, 0.75).has_cliffs()
    assert Cells.of(coarse).error() > 0.01


def test_a_ridge_of_two_scales_is_refined_or_said_and_meets_quadrature():
    """Only the product of two scales is seen well, so that their posterior is a curved ridge."""
    y = torch.tensor([2.1, -1.7, 0.4, 2.9, -2.2, 1.1], dtype=torch.float64)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        a = pyro.sample("a", dist.HalfNormal(2.0))
        b = pyro.sample("b", dist.HalfNormal(2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, a * b), obs=y)

    posterior = fit(model, y, method="ep")
    a, b = np.meshgrid(*[np.linspace(0.005, 10, 2000)] * 2, indexing="ij")
    n, ybar, square = len(y), float(y.mean()), float(((y - y.mean()) ** 2).sum())
    v = (a * b) ** 2  # mu integrated out: ȳ ~ N(0, 1 + v/n)
    log_p = stats.halfnorm.logpdf(a, 0, 2) + stats.halfnorm.logpdf(b, 0, 2)
    log_p += stats.norm.logpdf(ybar, 0, np.sqrt(1 + v / n)) - 0.5 * (n - 1) * np.log(2 * np.pi * v)
    log_p += -0.5 * square / v - 0.5 * np.log(n)
    p = np.exp(log_p)
    log_z = np.log(p.sum() * (9.995 / 1999) ** 2)
    mean = (p * a).sum() / p.sum()
    sd = np.sqrt((p * (a - mean) ** 2).sum() / p.sum())
    assert abs(posterior.log_evidence.value - log_z) < 5e-3
    assert abs(posterior.mean("a").item() - mean) < 0.02 * sd
    assert abs(posterior.sd("a").item() / sd - 1) < 0.02


def test_a_grid_says_where_its_points_have_different_powers():
    one, half = (Attempt(p, "parallel", "auto", 1e-7, 500) for p in (1.0, 0.5))
    assert powers([one, one]) == ()
    (note,) = powers([one, half, one])
    assert "2 with power 1, 1 with power 0.5" in note


def test_power_below_one_is_in_the_name_of_method_and_evidence():
    posterior = fit(clutter, clutter_data(1), method=ExpectationPropagation(power=0.5))
    assert posterior.method == "power expectation propagation (power 0.5)"
    assert posterior.log_evidence.method == posterior.method


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("model", ["centred", "scaled", "noise", "plane"])
def test_the_gradient_of_the_log_evidence_is_that_of_its_differences(model, power):
    """Through the prior, through the projection, through the likelihood, and on planes."""
    group, y = grouped()
    x = np.linspace(-1, 1, 72)

    def scaled(group, y):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0).expand([6]).to_event(1))
        with pyro.plate("rows", len(group)):
            pyro.sample("y", dist.Bernoulli(logits=tau * raw[group]), obs=y)

    def noise(x, y):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.StudentT(4.0, w[0] + w[1] * x, tau), obs=y)

    def plane(x, y):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        w = pyro.sample("w", dist.Normal(0.0, 0.5).expand([2]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w[0] * x, tau * torch.exp(w[1] * x)), obs=y)

    program, args = {
        "centred": (random_intercepts, (group, y)),
        "scaled": (scaled, (group, y)),
        "noise": (noise, (x, y)),
        "plane": (plane, (x[:20] + 1.5, y[:20])),
    }[model]
    factors = Factors(Program(program, args), ("tau",))
    evidence = Evidence(factors, Attempt(power, "parallel", "auto", 1e-9, 500))
    phi, step = factors.start + 0.2, 1e-3
    value, gradient = evidence(phi)
    difference = (evidence(phi + step)[0] - evidence(phi - step)[0]) / (2 * step)
    assert value == value
    assert abs(float(gradient) - difference) < 1e-5 * max(1.0, abs(difference))


def test_a_parameter_is_set_to_the_maximum_of_the_log_evidence():
    """Normal observations, where the evidence is known: the maximum over the prior's sd, with its curvature."""
    rng = np.random.default_rng(6)
    y = rng.normal(0, 2.0, size=30) + rng.normal(size=30)

    def model(y):
        spread = pyro.param("spread", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(y)):
            level = pyro.sample("level", dist.Normal(0.0, spread))
            pyro.sample("y", dist.Normal(level, 1.0), obs=y)

    pyro.clear_param_store()
    posterior = fit(model, y, method=ExpectationPropagation(optimise=["spread"]))
    pyro.clear_param_store()  # running the model put it there

    def loss(s):
        return -stats.norm.logpdf(y, 0, np.sqrt(s**2 + 1)).sum()

    best = optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10})
    assert f"spread = {best.x:.4g}" in posterior.message
    assert "own uncertainty is not in the posterior" in posterior.message
    assert abs(posterior.log_evidence.value + best.fun) < 1e-6
    curvature = (loss(best.x + 1e-3) - 2 * best.fun + loss(best.x - 1e-3)) / 1e-6
    error = float(posterior.message.split("standard error ")[1].split(")")[0])
    assert abs(error / curvature**-0.5 - 1) < 1e-3
    shrunk = y * best.x**2 / (best.x**2 + 1)
    assert np.allclose(posterior.mean("level"), shrunk, atol=1e-5)


def test_a_site_is_set_to_its_maximum_with_its_prior():
    group, y = grouped()
    posterior = fit(random_intercepts, group, y, method=ExpectationPropagation(optimise=["tau"]))
    assert "with the prior: tau = " in posterior.message
    assert posterior.names == ("effect",)
    assert posterior.predict(draws=50)["y"].shape == (50, 72)
    assert posterior.check().khat < 0.7
    tau = float(posterior.message.split("tau = ")[1].split(" ")[0])
    near = (0.97 * tau, tau, 1.03 * tau)
    given = [fit_given(group, y, t).log_evidence.value + stats.halfnorm.logpdf(t) for t in near]
    assert given[1] == max(given)


def fit_given(group, y, tau):
    def model(group, y):
        with pyro.plate("groups", 6):
            effect = pyro.sample("effect", dist.Normal(0.0, tau))
        with pyro.plate("rows", len(group)):
            pyro.sample("y", dist.Bernoulli(logits=effect[group]), obs=y)

    return fit(model, group, y, method="ep")


def test_unknown_names_to_optimise_are_refused():
    group, y = grouped()
    with pytest.raises(ValueError, match="optimise must name latent sites or parameters .*'tau', 'effect'.*'sigma'"):
        fit(random_intercepts, group, y, method=ExpectationPropagation(optimise=["sigma"]))
    with pytest.raises(ValueError, match="optimise names every latent"):
        fit(random_intercepts, group, y, method=ExpectationPropagation(optimise=["tau", "effect"]))


def test_closed_forms_are_recognised_by_value_and_only_where_they_hold():
    like = torch.zeros(3, dtype=torch.float64)
    shift = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    cavity = NormalFactor(torch.full_like(like, 0.3), torch.full_like(like, 0.5))
    known = {
        "probit": lambda u: torch.special.log_ndtr(1.5 * u + shift),
        "probit as odds": lambda u: (
            -torch.nn.functional.softplus(torch.special.log_ndtr(u + shift) - torch.special.log_ndtr(-u - shift))
        ),
        "laplace": lambda u: dist.Laplace(u, 2.0).log_prob(shift),
    }
    for log_likelihood in known.values():
        closed = recognised(log_likelihood, like)(cavity)
        grid = TiltedQuadrature(log_likelihood)(cavity)
        for name in ("log_normaliser", "mean", "variance"):
            assert torch.allclose(getattr(closed, name), getattr(grid, name), rtol=1e-6, atol=1e-6)
    for other in (
        lambda u: -torch.nn.functional.softplus(u + shift),
        lambda u: dist.Normal(u, 1.0).log_prob(shift),
        lambda u: dist.StudentT(4.0, u, 1.0).log_prob(shift),
        lambda u: dist.Laplace(u, 2.0).log_prob(shift) - 1e-3 * u**2,
    ):
        assert recognised(other, like) is None


MORE_SITES = {
    "ordered": (
        lambda e: dist.OrderedLogistic(e, torch.tensor([-1.0, 0.5])),
        1,
        lambda e: np.log(1 / (1 + np.exp(-(0.5 - e))) - 1 / (1 + np.exp(-(-1 - e)))),
    ),
    "cloglog failure": (
        lambda e: dist.Bernoulli(-torch.expm1(-torch.exp(e))),
        1.0,
        lambda e: np.log(-np.expm1(-np.exp(e))),
    ),
    "exponential": (lambda e: dist.Exponential(torch.exp(e)), 0.7, lambda e: e - 0.7 * np.exp(e)),
    "beta": (
        lambda e: dist.Beta(5 * torch.sigmoid(e), 5 * torch.sigmoid(-e)),
        0.3,
        lambda e: stats.beta.logpdf(0.3, 5 / (1 + np.exp(-e)), 5 / (1 + np.exp(e))),
    ),
    "lognormal": (
        lambda e: dist.LogNormal(torch.sin(e), 1.0),
        2.0,
        lambda e: stats.lognorm.logpdf(2, 1, 0, np.exp(np.sin(e))),
    ),
    "mixture": (
        lambda e: dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.stack([e, -e], -1), 1.0)
        ),
        1.0,
        lambda e: np.logaddexp(np.log(0.3) + stats.norm.logpdf(1, e), np.log(0.7) + stats.norm.logpdf(1, -e)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE_SITES)
def test_one_site_of_other_likelihoods_gives_the_exact_posterior(name):
    likelihood, y, log_likelihood = MORE_SITES[name]

    def model(y):
        eta = pyro.sample("eta", dist.Normal(0.3, 1.5))
        pyro.sample("y", likelihood(eta), obs=y)

    posterior = fit(model, torch.tensor(y), method="ep")
    grid = np.linspace(-15, 15, 300_001)
    log_z, mean, sd = grid_moments(grid, stats.norm.logpdf(grid, 0.3, 1.5) + log_likelihood(grid))
    assert abs(posterior.log_evidence.value - log_z) < 1e-6
    assert abs(posterior.mean("eta").item() - mean) < 1e-6
    assert abs(posterior.sd("eta").item() - sd) < 1e-6


def test_censored_survival_times_by_a_factor():
    """Weibull times, some only known to be longer: log S(t) enters by pyro.factor, as one more affine site."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=40)
    t = rng.weibull(1.5, size=40) * np.exp(0.5 * x)
    seen = t < 1.5
    t = np.minimum(t, 1.5)

    def model(x, t, seen):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        scale = torch.exp(w * x)
        with pyro.plate("rows", len(x)):
            with pyro.poutine.mask(mask=seen):
                pyro.sample("t", dist.Weibull(scale, 1.5), obs=t)
            with pyro.poutine.mask(mask=~seen):
                pyro.factor("longer", -((t / scale) ** 1.5))

    posterior = fit(model, x, t, seen, method="ep")
    grid = np.linspace(-2, 3, 20_001)
    log_p = stats.norm.logpdf(grid)
    for xi, ti, si in zip(x, t, seen):
        scale = np.exp(grid * xi)
        law = stats.weibull_min.logpdf if si else stats.weibull_min.logsf
        log_p = log_p + law(ti, 1.5, 0, scale)
    log_z, mean, sd = grid_moments(grid, log_p)
    assert abs(posterior.mean("w").item() - mean) < 0.01 * sd
    assert abs(posterior.sd("w").item() / sd - 1) < 0.01
    assert abs(posterior.log_evidence.value - log_z) < 0.01


def test_perfectly_separated_and_collinear_data_give_a_finite_answer():
    x = torch.cat([-1 - torch.rand(20, dtype=torch.float64), 1 + torch.rand(20, dtype=torch.float64)])
    X = torch.stack([x, 2 * x, torch.ones(40)], 1)

    def model(X, y):
        w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)

    posterior = fit(model, X, (x > 0).double(), method="ep")
    assert bool(torch.isfinite(posterior.mean("w")).all())
    assert posterior.check().khat < 0.7


def test_a_tight_limit_on_sweeps_names_the_way_out():
    with pytest.raises(probdl.ConvergenceError, match="2 sweeps.*power=0.5"):
        fit(clutter, clutter_data(1), method=ExpectationPropagation(max_sweeps=2))


def logistic_data(n, p, seed=9):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    w = rng.normal(size=p) * 0.3
    return X, (rng.random(n) < 1 / (1 + np.exp(-X @ w))).astype(float)


def test_the_start_at_the_mode_spares_the_sweeps_of_a_wild_beginning():
    """From sites that say nothing 60 sweeps and more, with gaps of several sds; from the mode a few."""
    X, y = logistic_data(3000, 50)
    posterior = fit(logistic, X, y, method="ep")
    assert len(posterior.history) < 12
    assert posterior.history["gap"].max() < 0.1


def test_extrapolated_steps_halve_the_sweeps():
    """Plain parallel steps need about 24 on these data."""
    X, y = probdl.data.breast_cancer(standardise=True)
    assert len(fit(logistic, X, y, method="ep").history) < 18


def test_a_fixed_point_that_does_not_stand_a_fresh_look_is_refused(monkeypatch):
    """At the fresh look the tilted distributions turn out to be others, as when mass had been missed."""

    def elsewhere(self):
        known = self.log_likelihood
        self.tilted = TiltedQuadrature(lambda u: known(u + 1.0))

    monkeypatch.setattr(SiteFactors, "look_again", elsewhere)
    with pytest.raises(probdl.ConvergenceError, match="the moments still differ by 0"):
        fit(logistic, *logistic_data(30, 2), method="ep")


def test_where_power_one_fails_half_the_power_is_taken_and_said(monkeypatch):
    run = FixedPoint.run

    def fails_at_power_one(self, *args, **kwargs):
        history = run(self, *args, **kwargs)
        history.converged = history.converged and self.groups[0].power != 1
        return history

    data = logistic_data(30, 2)
    half = fit(logistic, *data, method=ExpectationPropagation(power=0.5))
    monkeypatch.setattr(FixedPoint, "run", fails_at_power_one)
    fallen = fit(logistic, *data, method="ep")
    assert torch.allclose(fallen.mean("w"), half.mean("w"), atol=1e-6)
    assert fallen.method == "power expectation propagation (power 0.5)"
    assert "2 attempts before it did not converge" in fallen.message
    with pytest.raises(probdl.ConvergenceError):
        fit(logistic, *data, method=ExpectationPropagation(schedule="parallel"))


def test_a_grid_that_is_too_coarse_is_refined(monkeypatch):
    rng = np.random.default_rng(2)
    y = rng.normal(1.0, 2.0, size=12)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        s = pyro.sample("s", dist.HalfNormal(2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, s), obs=y)

    fine = fit(model, y, method="ep")
    monkeypatch.setitem(outer_grid._SPACING, 1, 4.0)
    coarse = fit(model, y, method="ep")
    assert abs(coarse.log_evidence.value - fine.log_evidence.value) < 1e-3
    assert torch.allclose(coarse.sd("s"), fine.sd("s"), rtol=0.01)
    monkeypatch.setattr(outer_grid, "_REFINEMENTS", 1)
    assert any("strongly curved" in note for note in fit(model, y, method="ep").notes)


def test_many_sites_take_a_few_sweeps():
    rng = np.random.default_rng(9)
    X = rng.normal(size=(20_000, 3))
    y = (rng.random(20_000) < 1 / (1 + np.exp(-X @ [0.5, -0.3, 0.0]))).astype(float)

    def model(X, y):
        w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)

    posterior = fit(model, X, y, method="ep")
    laplace = fit(model, X, y, method="laplace")
    assert len(posterior.history) < 12
    assert float(((posterior.mean("w") - laplace.mean("w")) / laplace.sd("w")).abs().max()) < 0.02
