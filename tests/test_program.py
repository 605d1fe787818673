"""An unmodified Pyro program as densities: right values, restored settings, and clear refusals."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro_models import logistic

from probdl.inference import fit
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record


def shop(y):
    """Latents of many supports, all of which the log-density has to bring to unconstrained space."""
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    rho = pyro.sample("rho", dist.Uniform(-1.0, 1.0))
    with pyro.plate("groups", 2):
        mu = pyro.sample("mu", dist.Normal(rho, scale))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu.sum() + share[0], scale), obs=y)


def test_log_joint_is_pyros_own_with_the_jacobian_of_the_transforms():
    y = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    program = Program(shop, (y,))
    z = torch.randn(program.dim, dtype=torch.float64)
    values = program.constrain(z)
    trace = poutine.trace(poutine.condition(shop, data=values)).get_trace(y)
    jacobian = sum(
        x.transform.log_abs_det_jacobian(z[x.place].reshape(x.free_shape), values[k]).sum()
        for k, x in program.latents.items()
    )
    assert torch.allclose(program.log_joint(z), trace.log_prob_sum() + jacobian)
    assert torch.allclose(program.log_joint(z), program.log_prior(z) + program.log_factor("y", z).sum())


def test_the_recorded_density_is_the_eager_one_to_the_last_bit():
    program = Program(shop, (torch.tensor([0.3, -1.0, 2.0]),))
    graph = record(program.log_joint, program.start)
    for seed in range(3):
        z = torch.randn(program.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert graph(z) == program.log_joint(z)


def test_in_place_writes_are_recorded_as_new_tensors():
    def f(z):
        out = torch.zeros(3, dtype=z.dtype)
        out[:2] = z.exp()
        out[-1] = z.sum()
        return out.sum()

    graph = record(f, torch.zeros(2))
    z = torch.tensor([0.3, 0.5])
    assert torch.allclose(graph(z), f(z))
    assert torch.allclose(torch.vmap(graph)(z[None]), f(z)[None])


def test_a_multinomial_likelihood_writes_by_a_mask_and_still_runs_on_many_rows():
    """torch sets logits of impossible and unseen categories to zero by a mask; the grid posterior is exact."""
    y = np.array([[4.0, 3.0, 3.0], [2.0, 5.0, 3.0]])

    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        logits = torch.stack([a, -a, torch.zeros(())])
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Multinomial(10, logits=logits), obs=y)

    grid = np.linspace(-5, 5, 4001)
    logits = np.stack([grid, -grid, 0 * grid], 1)
    log_p = -0.5 * grid**2 + (logits - np.log(np.exp(logits).sum(1, keepdims=True))) @ y.sum(0)
    p = np.exp(log_p - log_p.max())
    mean = (p * grid).sum() / p.sum()
    for method in ("laplace", "meanfield"):
        posterior = fit(model, y, method=method)
        assert not any("could not be recorded" in note for note in posterior.notes)
        assert abs(posterior.mean("a").item() - mean) < 0.02


def test_control_flow_on_latent_values_is_not_recorded():
    with pytest.raises(NotRecordable, match="control flow"):
        record(lambda z: z.sum() if z[0] > 0 else z.prod(), torch.zeros(2))
    with pytest.raises(NotRecordable, match="random"):
        record(lambda z: (z + torch.randn_like(z)).sum(), torch.zeros(2))


def test_a_program_with_control_flow_still_fits_and_says_that_it_runs_each_time():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        scale = 1.0 if mu < 100 else 2.0
        pyro.sample("y", dist.Normal(mu, scale).expand([len(y)]).to_event(1), obs=y)

    posterior = fit(model, torch.tensor([1.0, 2.0, 3.0]), method="laplace")
    assert torch.allclose(posterior.mean("mu"), torch.tensor(1.5, dtype=torch.float64))
    assert any("could not be recorded" in note for note in posterior.notes)


def test_a_float32_tensor_in_the_model_meets_float64_data():
    def model(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        offset = torch.zeros(len(y))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=X @ w + offset), obs=y)

    posterior = fit(model, np.random.default_rng(0).normal(size=(10, 2)), np.arange(10) % 2)
    assert posterior.mean("w").dtype is torch.float64


def test_settings_and_seeds_are_as_before():
    before = (
        torch.get_default_dtype(),
        pyro.distributions.is_validation_enabled(),
        poutine.is_validation_enabled(),
        torch.get_num_threads(),
    )
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(shop, torch.tensor([0.3, -1.0, 2.0]), method="laplace")
    fit(logistic, torch.eye(3), torch.tensor([1, 0, 1]), method="ep")
    assert torch.rand(1) == expected
    after = (
        torch.get_default_dtype(),
        pyro.distributions.is_validation_enabled(),
        poutine.is_validation_enabled(),
        torch.get_num_threads(),
    )
    assert before == after


def test_settings_are_restored_after_an_error():
    def broken(y):
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        raise RuntimeError("the user's own")

    with pytest.raises(ValueError, match=r"own data \(y \(2,\)\) with RuntimeError: the user's own"):
        fit(broken, torch.ones(2))
    assert torch.get_default_dtype() is torch.float32
    assert pyro.distributions.is_validation_enabled()


def test_frames_arrays_and_tensors_give_the_same_posterior():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.integers(0, 2, 20)
    by_array = fit(logistic, X, y).mean("w")
    by_frame = fit(logistic, pd.DataFrame(X, columns=["a", "b"]), pd.Series(y)).mean("w")
    by_tensor = fit(logistic, torch.tensor(X), y=torch.tensor(y)).mean("w")
    assert torch.equal(by_array, by_frame)
    assert torch.equal(by_array, by_tensor)


def test_integer_design_matrices_become_floats_and_integer_indices_stay():
    counts = np.array([[1, 0], [2, 1], [0, 3], [1, 1]])
    assert fit(logistic, counts, np.array([0, 1, 1, 0])).mean("w").shape == (2,)

    def indexed(group, y):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Poisson(effect[group].exp()), obs=y)

    assert fit(indexed, np.array([0, 1, 2, 0]), np.array([1, 2, 0, 4])).mean("effect").shape == (3,)


X3, Y3 = np.arange(6.0).reshape(3, 2), np.array([0.0, 1.0, 1.0])
BAD_DATA = {
    "NaN": (X3, np.array([0.0, np.nan, 1.0]), ValueError, "y must be finite; got 1 NaN"),
    "infinite": (np.where(X3 == 5, np.inf, X3), Y3, ValueError, "X must be finite; got 0 NaN and 1 infinite"),
    "empty": (X3[:0], Y3[:0], ValueError, "X is empty"),
    "strings": (X3.astype(str), Y3, TypeError, "X must hold numbers; got an array of type <U"),
    "objects": (X3, np.array([0, 1, None]), TypeError, "y must hold numbers; got an array of type object"),
    "frame of strings": (pd.DataFrame({"a": ["x", "y", "z"]}), Y3, TypeError, "not numeric: a"),
    "too short": (X3, Y3[:2], ValueError, r"site 'y' has shape \(2,\), but its distribution has shape \(3,\)"),
    "column": (X3, Y3[:, None], ValueError, r"site 'y' has shape \(3, 1\)"),
    "label outside": (X3, Y3 + 1, ValueError, "site 'y' must lie in the support of Bernoulli.*2 of 3 do not"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_refused_by_name(case):
    X, y, error, match = BAD_DATA[case]
    with pytest.raises(error, match=match):
        fit(logistic, X, y)


def test_models_without_latents_or_observations_are_refused():
    with pytest.raises(ValueError, match="no observed site, only the latents b, w, y"):
        fit(logistic, X3)
    with pytest.raises(ValueError, match="no latent site"):
        fit(lambda y: pyro.sample("y", dist.Normal(0.0, 1.0), obs=y), torch.tensor(1.0))
    with pytest.raises(TypeError, match="model must be a Pyro program"):
        fit("logistic", X3)
    with pytest.raises(TypeError, match="do not fit logistic"):
        fit(logistic, X3, Y3, Y3)


def test_discrete_latents_and_subsampling_are_refused_by_name():
    def mixture(x):
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def minibatch(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), subsample_size=2) as i:
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x[i])

    with pytest.raises(ValueError, match="latent sites k are discrete"):
        fit(mixture, torch.randn(4), method="laplace")
    with pytest.raises(ValueError, match="needs continuous ones"):
        fit(mixture, torch.randn(4), method="ep")
    with pytest.raises(ValueError, match="plate 'rows' draws 2 of 4"):
        fit(minibatch, torch.randn(4), method="laplace")


def test_a_support_that_depends_on_another_latent_is_refused():
    def model(y):
        top = pyro.sample("top", dist.HalfNormal(1.0))
        u = pyro.sample("u", dist.Uniform(0.0, top))
        pyro.sample("y", dist.Normal(u, 1.0), obs=y)

    with pytest.raises(ValueError, match="support of 'u' depends on other latents"):
        fit(model, torch.tensor(0.3))


def test_methods_are_values_or_names():
    with pytest.raises(ValueError, match="method must be one of 'auto', 'cavi', 'ep'"):
        fit(logistic, X3, Y3, method="hmc")
    with pytest.raises(TypeError, match="method must be a value"):
        fit(logistic, X3, Y3, method=dict)
    with pytest.raises(ValueError, match="device must be"):
        fit(logistic, X3, Y3, device="warp")
    with pytest.raises(ValueError, match="dtype must be a floating type"):
        fit(logistic, X3, Y3, dtype=torch.int64)


LIKELIHOODS = {
    "ordered": (lambda a: dist.OrderedLogistic(a, torch.tensor([-1.0, 1.0])), [0, 2, 2, 1]),
    "categorical": (lambda a: dist.Categorical(torch.softmax(torch.stack([a, -a, 0 * a]), -1)), [0, 2, 2, 1]),
    "multinomial": (lambda a: dist.Multinomial(4, logits=torch.stack([a, -a])), [[1, 3], [4, 0], [2, 2], [0, 4]]),
    "probs": (lambda a: dist.Bernoulli(probs=torch.sigmoid(a)), [1, 0, 0, 1]),
    "logits": (lambda a: dist.Bernoulli(logits=a), [1, 0, 0, 1]),
    "zero-inflated": (lambda a: dist.ZeroInflatedPoisson(a.exp(), gate=torch.tensor(0.3)), [0, 2, 0, 5]),
    "beta-binomial": (lambda a: dist.BetaBinomial(a.exp(), 1.0, 9), [0, 9, 4, 1]),
    "mixture": (
        lambda a: dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.stack([a, 0 * a]), 1.0)),
        [0.3, -1.0, 2.0, 0.0],
    ),
    "von Mises": (lambda a: dist.VonMises(a, 2.0), [0.3, -1.0, 2.0, 0.0]),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_of_recorded_factors_are_the_same_on_many_rows(name):
    """Under vmap some of torch's operations have a wrong gradient, or none: what is recorded must use others."""
    likelihood, y = LIKELIHOODS[name]

    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", likelihood(a), obs=y)

    program = Program(model, (np.array(y),))
    graph = program.recorded(program.log_joint)
    z = torch.tensor([[0.3], [-0.8]], dtype=torch.float64, requires_grad=True)
    (many,) = torch.autograd.grad(torch.vmap(graph)(z).sum(), z)
    step = 1e-6
    rows = [(program.log_joint(r + step) - program.log_joint(r - step)) / (2 * step) for r in z.detach()]
    assert torch.allclose(many[:, 0], torch.stack(rows), atol=1e-6)
