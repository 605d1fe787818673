"""A trained VAE as Pyro programs: the same densities, and what Pyro's own tools make of them."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from torch.distributions import MultivariateNormal, Normal

from probdl import ConvergenceWarning
from probdl.inference import fit
from probdl.models import VAE

G = torch.Generator().manual_seed(0)
Z = torch.randn(120, generator=G, dtype=torch.float64)
NUMBERS = 50 + 20 * torch.stack([Z, -2 * Z, Z**2], 1) + torch.randn(120, 3, generator=G, dtype=torch.float64)
COUNTS = torch.poisson((1 + Z)[:, None].exp() * torch.ones(2), generator=G)
FRAME = pd.DataFrame(
    {
        "age": NUMBERS[:, 0].numpy(),
        "town": np.where(Z > 1, "large", np.where(Z < -1, "small", "middle")),
        "visits": COUNTS[:, 0].numpy(),
        "smokes": (Z > 0.5).numpy(),
        "sex": np.where(np.arange(120) % 3 == 0, "f", "m"),
    }
)
FRAME.loc[[3, 8], "age"] = np.nan
FRAME.loc[5, "town"] = None
IMAGES = torch.rand(30, 1, 6, 5, generator=G, dtype=torch.float64)
LABELS = np.where(Z > 0, "a", "b")

CASES = {
    "gaussian": (NUMBERS, {}, None),
    "a scale for each": (NUMBERS, {"scale": "column"}, None),
    "scales from the network": (NUMBERS, {"scale": "network"}, None),
    "missing": (torch.where(torch.rand(120, 3, generator=G) < 0.2, torch.nan, NUMBERS), {}, None),
    "bernoulli": ((NUMBERS > 50).double(), {}, None),
    "poisson": (COUNTS, {"likelihood": "poisson"}, None),
    "mixed": (FRAME, {"likelihood": {"visits": "poisson"}}, None),
    "images": (IMAGES, {"hidden": (4, 4)}, None),
    "one column": (NUMBERS[:, 0], {}, None),
    "condition": (NUMBERS, {}, LABELS),
}


@pytest.fixture(scope="module")
def models():
    found = {}
    for name, (x, settings, condition) in CASES.items():
        vae = VAE(2, **{"hidden": (8,), "dtype": torch.float64, "learning_rate": 0.01, **settings})
        with warnings.catch_warnings():  # after 15 epochs some have learnt little
            warnings.simplefilter("ignore", ConvergenceWarning)
            found[name] = vae.fit(x, condition=condition, epochs=15, validation=None, progress=False)
    return found


def given(name):
    x, _, condition = CASES[name]
    return x, {} if condition is None else {"condition": condition}


@pytest.mark.parametrize("name", CASES)
def test_the_program_has_the_model_s_log_density_in_the_units_of_the_data(models, name):
    vae, (x, c) = models[name], given(name)
    model, guide = vae.to_pyro()
    z = torch.randn(len(x), 2, generator=G, dtype=torch.float64)
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x, **c)
    trace.compute_log_prob()
    rows = sum(site["log_prob"] for key, site in trace.nodes.items() if key.startswith("x"))
    u, *k = vae._batch(x, c.get("condition"))
    own = vae.decoder.log_prob(u, torch.cat([z, *k], 1)) + vae._jacobian(u)
    torch.testing.assert_close(rows, own, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], Normal(0.0, 1.0).log_prob(z).sum(1))
    codes = poutine.trace(guide).get_trace(x, **c).nodes["z"]
    torch.testing.assert_close(codes["fn"].mean, vae.encode(x, **c))
    assert not any(p.requires_grad for p in (rows, codes["value"]))


@pytest.mark.parametrize("name", ["gaussian", "mixed", "missing", "condition"])
@pytest.mark.parametrize("vectorised", [True, False])
def test_pyro_s_bound_of_the_two_programs_is_ours(models, name, vectorised):
    vae, (x, c) = models[name], given(name)
    model, guide = vae.to_pyro()
    particles = 400 if vectorised else 40
    pyro.set_rng_seed(0)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=vectorised, max_plate_nesting=1)
    found = -elbo.loss(model, guide, x, **c)
    ours = vae.elbo(x, draws=400, **c)
    # The KL has an error of its own in Pyro: about that of the reconstruction, √d a row.
    spread = (ours.stderr.square() * 400).sum() + 2 * len(x)
    assert abs(found - ours.value.sum()) < 6 * (spread / particles).sqrt()


def test_pyro_draws_new_rows_from_the_model(models):
    model, _ = models["mixed"].to_pyro()
    pyro.set_rng_seed(1)
    for parallel in (False, True):
        drawn = Predictive(model, num_samples=300, parallel=parallel)(n=20)
        assert drawn["z"].shape == (300, 20, 2)
        assert drawn["x.categorical.town"].shape == (300, 20, 3)
        assert (drawn["x.categorical.town"].sum(-1) == 1).all()
        assert set(drawn["x.bernoulli"].unique().tolist()) == {0.0, 1.0}
        ours = models["mixed"].sample(6000)
        for site, column in (("x.gaussian", "age"), ("x.poisson", "visits"), ("x.bernoulli", "smokes")):
            values, own = drawn[site].flatten(), ours[column].astype(float)
            # Two means of 6000 draws each: P(|z| > 5) < 1e-6.
            error = np.sqrt((values.var().item() + own.var()) / 6000)
            assert abs(values.mean().item() - own.mean()) < 5 * error
    rows = model(n=7)
    assert rows.shape == (7, 8)


def test_what_is_missing_is_nan_in_the_rows_of_the_program_and_has_no_term(models):
    model, _ = models["missing"].to_pyro()
    x = CASES["missing"][0]
    assert torch.equal(model(x).isnan(), x.isnan())
    assert models["mixed"].to_pyro().model(FRAME).isnan().sum() == 2 + 3


@pytest.mark.parametrize("method", ["laplace", "ep", "meanfield"])
def test_inference_of_the_package_finds_the_posterior_of_the_codes_and_the_likelihood(method):
    """With linear networks all is normal: Laplace and EP are exact."""
    vae = VAE(1, hidden=(), dtype=torch.float64).fit(NUMBERS, epochs=60, validation=None, progress=False)
    x = NUMBERS[:4]
    posterior = fit(vae.to_pyro().model, x, method=method, progress=False)
    with torch.no_grad():
        b = vae.decoder.network(torch.zeros(1, 1).double())[0]
        w = vae.decoder.network(torch.ones(1, 1).double())[0] - b
    precision = 1 + w @ w / vae.decoder.variance
    mean = (vae._inward(x) - b) @ w / vae.decoder.variance / precision
    torch.testing.assert_close(posterior.mean("z")[:, 0], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.sd("z")[:, 0], precision.rsqrt().expand(4), rtol=1e-3, atol=0)
    if posterior.log_evidence is not None:
        cov = w.outer(w) + vae.decoder.variance * torch.eye(3)
        exact = MultivariateNormal(b, cov).log_prob(vae._inward(x)) + vae.units.log_jacobian
        assert float(posterior.log_evidence) == pytest.approx(exact.sum().item(), abs=1e-4)


def test_the_programs_stay_as_they_are_when_the_model_learns_anew(models):
    vae = VAE(1, hidden=(4,)).fit(NUMBERS, epochs=1, progress=False)
    model, _ = vae.to_pyro()
    z = torch.zeros(120, 1, dtype=torch.float64)

    def density():
        trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(NUMBERS)
        return trace.log_prob_sum().item()

    before = density()
    vae.fit(NUMBERS + 7, epochs=3, progress=False)
    assert density() == before
    assert all(p.requires_grad for p in vae.parameters())


def test_a_program_needs_rows_or_their_number():
    with pytest.raises(ValueError, match=r"not fitted yet: call fit\(x\) before to_pyro"):
        VAE().to_pyro()
    model, guide = VAE(1, hidden=(4,)).fit(NUMBERS, epochs=1, progress=False).to_pyro()
    for program in (model, guide):
        with pytest.raises(ValueError, match="n must be given where x is not"):
            program()
        with pytest.raises(ValueError, match=r"x must have shape \(n, 3\)"):
            program(torch.zeros(4, 2))
    assert guide(n=5).shape == (5, 1)
