"""A posterior is saved and loaded to the last bit, and goes to ArviZ with its data."""

import json
import math
import pickle
import sys
import types
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pandas.testing import assert_frame_equal
from pyro.distributions import constraints
from pyro_models import logistic

from probdl import files
from probdl.inference import NUTS, MeanField, Posterior, compare_posteriors, fit
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs import supports
from probdl.inference.programs.bijections import bijection


def every_support(x, y=None):
    m = pyro.sample("m", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    s = pyro.sample("s", dist.Gamma(3.0, 2.0))
    u = pyro.sample("u", dist.Uniform(torch.tensor([-1.0, 0.1]), torch.tensor([3.0, 0.7])).to_event(1))
    share = pyro.sample("share", dist.Dirichlet(torch.tensor([5.0, 4.0, 3.0])))
    root = pyro.sample("root", dist.LKJCholesky(3, 2.0))
    cuts = pyro.sample("cuts", dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), _ordered()))
    slope = m.sum() + share[0] + root[1, 0] + u.sum() + cuts[0]
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, s), obs=y)


def _ordered():
    return dist.transforms.OrderedTransform()


X, Y = torch.linspace(-1, 1, 8), torch.linspace(-2, 1, 8)
METHODS = {"laplace": "laplace", "meanfield": MeanField(), "nuts": NUTS(draws=24, warmup=20, chains=2)}


@pytest.fixture(scope="module", params=METHODS)
def posterior(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(every_support, X, Y, method=METHODS[request.param])


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_loaded_posterior_gives_the_same_bits(posterior, tmp_path):
    posterior.save(tmp_path / "p.safetensors")
    loaded = Posterior.load(tmp_path / "p.safetensors")
    assert_frame_equal(loaded.summary(), posterior.summary(), check_exact=True)
    assert_frame_equal(loaded.history, posterior.history, check_exact=True)
    assert equal(loaded.draws(30, seed=3), posterior.draws(30, seed=3))
    assert torch.equal(loaded.cov(), posterior.cov())
    for field in ("method", "converged", "message", "seconds", "elbo", "log_evidence", "notes", "khat", "names"):
        assert getattr(loaded, field) == getattr(posterior, field)
    assert (compare_posteriors(loaded, posterior)[["shift", "ratio"]] == [0, 1]).all(axis=None)
    if not posterior.approximation.is_sampled:
        assert torch.equal(loaded.log_prob(posterior.draws(9)), posterior.log_prob(posterior.draws(9)))
    assert loaded.plot(["s"]).keys() == {"s"}


def test_the_model_comes_back_by_argument_and_its_data_too(posterior, tmp_path):
    posterior.save(tmp_path / "p.safetensors")
    alone, with_model, with_data = (
        Posterior.load(tmp_path / "p.safetensors", **extra)
        for extra in ({}, {"model": every_support}, {"model": every_support, "args": (X, Y)})
    )
    new = torch.ones(3)
    assert equal(with_model.predict(new, draws=40), posterior.predict(new, draws=40))
    assert equal(with_data.predict(draws=40), posterior.predict(draws=40))
    assert repr(with_data.check()) == repr(posterior.check())
    with pytest.raises(ValueError, match="predict needs the model; load with"):
        alone.predict(new)
    with pytest.raises(ValueError, match="predict without arguments needs the model with its data"):
        with_model.predict()
    if not posterior.approximation.is_sampled:
        with pytest.raises(ValueError, match="check needs the model with its data"):
            with_model.check()


def test_a_model_that_holds_its_own_data_needs_no_arguments(tmp_path):
    def closed():
        every_support(X.double(), Y.double())

    posterior = fit(closed, method="laplace")
    posterior.save(tmp_path / "p.safetensors")
    loaded = Posterior.load(tmp_path / "p.safetensors", model=closed)
    assert equal(loaded.predict(draws=30), posterior.predict(draws=30))
    assert repr(loaded.check(100)) == repr(posterior.check(100))


def test_what_check_found_is_saved(tmp_path):
    laplace = fit(every_support, X, Y, method="laplace")
    laplace.check(200)
    laplace.khat = -math.inf  # as of an exact posterior; JSON has no infinities
    laplace.save(tmp_path / "p.safetensors")
    loaded = Posterior.load(tmp_path / "p.safetensors")
    loaded.save(tmp_path / "again.safetensors")
    assert Posterior.load(tmp_path / "again.safetensors").khat == -math.inf
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "p.safetensors").read_bytes()


def test_histories_keep_their_types(tmp_path):
    laplace = fit(every_support, X, Y, method="laplace")
    laplace.history = pd.DataFrame(
        {"step": [1, 2], "gap": [0.1, math.nan], "elbo": [-math.inf, 1 / 3], "said": ["a", "b"], "ok": [True, False]}
    )
    laplace.save(tmp_path / "p.safetensors")
    assert_frame_equal(Posterior.load(tmp_path / "p.safetensors").history, laplace.history, check_exact=True)


def test_float32_stays_float32(tmp_path):
    single = fit(every_support, X, Y, method="laplace", dtype=torch.float32)
    single.save(tmp_path / "p.safetensors")
    loaded = Posterior.load(tmp_path / "p.safetensors", model=every_support)
    assert loaded.mean("s").dtype is torch.float32
    assert loaded.predict(X, draws=3)["y"].dtype is torch.float32


SUPPORTS = {
    "real": constraints.real,
    "vector": constraints.real_vector,
    "positive": constraints.positive,
    "nonnegative": constraints.nonnegative,
    "softplus": constraints.softplus_positive,
    "unit interval": constraints.unit_interval,
    "simplex": constraints.simplex,
    "ordered": constraints.ordered_vector,
    "positive ordered": constraints.positive_ordered_vector,
    "correlation root": constraints.corr_cholesky,
    "correlations": constraints.corr_matrix,
    "positive definite": constraints.positive_definite,
    "interval": constraints.interval(-1.5, 2),
    "above": constraints.greater_than(0.1),
    "below": constraints.less_than(torch.tensor(0.1)),
    "from each": constraints.greater_than_eq(torch.tensor([0.3, 0.1, 0.2])),
    "half open": constraints.half_open_interval(torch.tensor([0.1, 0.2, 0.3]), 1.0),
    "independent": constraints.independent(constraints.interval(torch.zeros(3), torch.tensor([0.1, 1.0, 2.0])), 1),
}
DISCRETE = [
    constraints.boolean, constraints.nonnegative_integer, constraints.positive_integer, constraints.one_hot,
    constraints.integer_interval(0, 3), constraints.integer_interval(0, torch.tensor([3, 4])),
    constraints.multinomial(5),
]  # fmt: skip


def rebuilt(support):
    tensors = {}
    description = json.loads(json.dumps(supports.to_json(support, "site", tensors)))
    return supports.from_json(description, tensors)


@pytest.mark.parametrize("name", SUPPORTS)
def test_supports_come_back_with_the_same_transform(name):
    z = torch.tensor([-1.0, 0.2, 1.3], dtype=torch.float64)
    assert torch.equal(bijection(rebuilt(SUPPORTS[name]))(z), bijection(SUPPORTS[name])(z))
    assert type(rebuilt(SUPPORTS[name])) is type(SUPPORTS[name])


@pytest.mark.parametrize("support", DISCRETE, ids=str)
def test_supports_on_integers_come_back(support):
    assert type(rebuilt(support)) is type(support)
    assert str(rebuilt(support)) == str(support)
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0], [0.5, -1.0]])
    assert torch.equal(rebuilt(support).check(x), support.check(x))


def test_a_support_that_cannot_be_written_names_its_site():
    class Odd(dist.Normal):
        @property
        def support(self):
            return constraints.cat([constraints.real], -1, [1])

    with pytest.raises(TypeError, match="site 'x' cannot be saved: its support"):
        supports.to_json(Odd(0.0, 1.0).support, "x", {})


def test_a_kind_of_posterior_without_a_form_on_file_says_so(tmp_path):
    class Own(Approximation):
        mean = sd = quantile = draws = density = None
        latents = {}

    posterior = Posterior("own", Own(), True, "", 0.0, pd.DataFrame())
    with pytest.raises(TypeError, match="held as Own cannot be saved"):
        posterior.save(tmp_path / "p.safetensors")
    assert list(tmp_path.iterdir()) == []


# Files that are something else


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("a pickle was run",))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "p.safetensors"
    fit(every_support, X, Y, method="laplace").save(path)
    return path


def test_pickles_are_refused_and_never_run(tmp_path):
    path = tmp_path / "p.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="refused because loading them can run code"):
        Posterior.load(path)


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_cut_files_are_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match="path must be a safetensors file that save wrote"):
        Posterior.load(saved)


@pytest.mark.parametrize("change", ["kind", "method", "latents", "support", "history", "tensor", "dtype"])
def test_files_with_missing_or_unknown_parts_are_refused(saved, change):
    tensors, header = files.read(saved)
    if change == "tensor":
        tensors = {k: v for k, v in tensors.items() if k != "approximation/mean"}
    elif change == "support":
        header["latents"][0]["support"] = {"kind": "__import__"}
    elif change == "kind":
        header["kind"] = "Program"
    elif change == "dtype":
        header["source"]["dtype"] = "nn"
    else:
        del header[change]
    files.write(saved, tensors, header)
    with pytest.raises(ValueError, match="path must be a file of Posterior.save; .* is incomplete"):
        Posterior.load(saved)


def test_files_of_other_objects_and_other_models_are_named(saved, tmp_path):
    files.write(tmp_path / "vae.safetensors", {}, {"model": "VAE"})
    with pytest.raises(ValueError, match="holds a VAE"):
        Posterior.load(tmp_path / "vae.safetensors")
    with pytest.raises(FileNotFoundError):
        Posterior.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="site 'm', of shape .2, 2. and support .* is not a site of model"):
        Posterior.load(saved, model=logistic, args=(torch.eye(2), torch.ones(2)))


def test_a_model_whose_site_has_another_support_is_refused(saved):
    def other(x, y):
        with pyro.poutine.reparam(config={}), pyro.poutine.block(hide=[]):
            every_support(x, y)

    def wrong(x, y):
        class Swap(pyro.poutine.messenger.Messenger):
            def _pyro_sample(self, msg):
                if msg["name"] == "s":
                    msg["fn"] = dist.Normal(3.0, 0.1)

        with Swap():
            every_support(x, y)

    Posterior.load(saved, model=other, args=(X, Y))
    with pytest.raises(ValueError, match="site 's'"):
        Posterior.load(saved, model=wrong, args=(X, Y))


# ArviZ


def test_arviz_gets_draws_log_likelihood_and_data_with_the_names_of_plates(posterior):
    pytest.importorskip("arviz", exc_type=ImportError)
    data = posterior.to_arviz(draws=60)
    sampled = posterior.approximation.is_sampled
    assert data["posterior"]["m"].shape == ((2, 24, 2, 2) if sampled else (1, 60, 2, 2))
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "rows")
    assert data["observed_data"]["y"].dims == ("rows",)
    assert np.allclose(data["observed_data"]["y"], Y)
    draws = {k: torch.as_tensor(v.to_numpy()[0, 5]) for k, v in data["posterior"].items()}
    slope = draws["m"].sum() + draws["share"][0] + draws["root"][1, 0] + draws["u"].sum() + draws["cuts"][0]
    expected = dist.Normal(slope * X.double(), draws["s"]).log_prob(Y.double())
    assert np.allclose(data["log_likelihood"]["y"][0, 5], expected)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # four data a latent: so loo finds
def test_latents_in_plates_carry_the_plate_and_summaries_agree():
    arviz = pytest.importorskip("arviz", exc_type=ImportError)

    def model(y):
        with pyro.plate("groups", 3, dim=-1), pyro.plate("years", 2, dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(a, 1.0).to_event(1), obs=y)

    posterior = fit(model, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), method="ep")
    data = posterior.to_arviz(draws=4000)
    assert data["posterior"]["a"].dims == ("chain", "draw", "years", "groups", "a_dim_2")
    assert data["log_likelihood"]["y"].shape == (1, 4000, 2, 3, 4)
    table = arviz.summary(data, kind="stats", round_to=6)
    assert np.allclose(table["mean"], posterior.summary()["mean"], atol=5 * 0.71 / 4000**0.5)
    arviz.loo(data)


def test_from_version_one_arviz_takes_one_dict_of_groups(monkeypatch):
    """As ArviZ 1.3 does: ``from_dict({group: {name: array}}, dims=..., attrs={group: {...}})``."""
    fake = types.SimpleNamespace(__version__="1.3.1", from_dict=lambda data, *, dims, attrs: (data, dims, attrs))
    monkeypatch.setitem(sys.modules, "arviz", fake)
    data, dims, attrs = fit(every_support, X, Y, method="laplace").to_arviz(draws=10)
    assert set(data) == {"posterior", "log_likelihood", "observed_data"}
    assert data["posterior"]["m"].shape == (1, 10, 2, 2)
    assert dims["y"] == ["rows"]
    assert attrs["posterior"]["method"] == "laplace"


def test_without_arviz_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        fit(every_support, X, Y, method="laplace").to_arviz()
