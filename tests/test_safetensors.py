"""Files are data: what is saved comes back bit by bit, and nothing in a file is ever run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from probdl import files
from probdl.models import VAE
from probdl.nn import MLP

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted():
    return VAE(2, hidden=(8,)).fit(X, epochs=3, progress=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vae.safetensors"


def assert_same(a, b, x=X):
    assert torch.equal(a.encode(x), b.encode(x))
    assert torch.equal(a.log_likelihood(x, draws=5).value, b.log_likelihood(x, draws=5).value)
    assert torch.equal(a.elbo(x, draws=5).value, b.elbo(x, draws=5).value)
    for one, other in ((a.sample(5), b.sample(5)), (a.reconstruct(x), b.reconstruct(x))):
        assert type(one) is type(other)
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("x", [X, (X > 0).double(), torch.rand(30, 2, 5, 7)], ids=["table", "binary", "images"])
def test_a_saved_model_comes_back_bit_by_bit(x, path, device):
    vae = VAE(2, hidden=(8, 8), draws=2).fit(x, epochs=2, device=device, progress=False)
    vae.save(path)
    back = VAE.load(path, device=device)
    assert_same(vae, back, x)
    pd.testing.assert_frame_equal(vae.history, back.history)
    assert (back.message, back.draws, back.hidden, back.training) == (vae.message, 2, (8, 8), False)


def test_a_float64_model_of_a_dataframe_keeps_its_columns_and_its_type(path):
    frame = pd.DataFrame(X.numpy(), columns=["a", 2, "c"]).assign(n=range(60)).astype({"a": "float32"})
    vae = VAE(1, hidden=(4,), dtype=torch.float64).fit(frame, epochs=1, progress=False)
    vae.save(path)
    back = VAE.load(path)
    assert back.encode(frame).dtype == torch.float64
    assert_same(vae, back, frame)
    assert (back.sample(2).dtypes == frame.dtypes).all()


def test_a_loaded_model_can_be_fitted_again(fitted, path):
    fitted.save(path)
    assert_same(fitted, VAE.load(path).fit(X, epochs=3, progress=False))


def test_networks_of_ones_own_are_passed_again_and_get_their_weights(path):
    def nets():
        shared = nn.Linear(2, 2)  # in both networks: weights that share their memory
        return {
            "encoder": nn.Sequential(nn.Linear(3, 2), shared, nn.Linear(2, 4)),
            "decoder": nn.Sequential(shared, nn.Linear(2, 3)),
        }

    vae = VAE(2, **nets()).fit(X, epochs=2, progress=False)
    vae.save(path)
    assert_same(vae, VAE.load(path, **nets()))
    with pytest.raises(ValueError, match="encoder must be passed: .* saved with your own encoder, a Sequential"):
        VAE.load(path)
    with pytest.raises(ValueError, match="do not fit the weights"):
        VAE.load(path, encoder=nets()["encoder"], decoder=MLP(2, 3))


def test_a_network_that_was_not_saved_is_refused(fitted, path):
    fitted.save(path)
    with pytest.raises(ValueError, match="decoder must be left out"):
        VAE.load(path, decoder=MLP(2, 3))


def test_the_file_is_one_safetensors_file_with_json_in_its_header(fitted, path):
    fitted.save(path)
    assert list(path.parent.iterdir()) == [path]
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["probdl"])
    assert header["model"] == "VAE"
    assert header["settings"]["latent_dim"] == 2
    assert header["history"]["epoch"] == [1, 2, 3]


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", [lambda o, p: p.write_bytes(pickle.dumps(o)), torch.save], ids=["pickle", "torch"])
def test_a_file_that_tries_to_run_code_is_refused_and_runs_nothing(write, path, tmp_path):
    mark = tmp_path / "it ran"
    write(Trap(mark), path)
    with pytest.raises(ValueError, match="must be a safetensors file .* refused because loading them can run code"):
        VAE.load(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()  # the trap was a real one


def test_a_damaged_file_is_refused(fitted, path):
    fitted.save(path)
    whole = path.read_bytes()
    for broken in (whole[:-10], whole[: len(whole) // 2], b"", b"\xff" * 100):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is not, or is damaged"):
            VAE.load(path)


def test_a_safetensors_file_of_somebody_else_is_refused(path):
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="it has no probdl header"):
        VAE.load(path)


def test_a_file_of_another_model_is_refused(path):
    files.write(path, {"w": torch.zeros(2)}, {"model": "GAN"})
    with pytest.raises(ValueError, match=r"path must be a file of VAE.save; .* holds a GAN"):
        VAE.load(path)


def test_a_header_that_lacks_something_is_refused(fitted, path):
    fitted.save(path)
    tensors, header = files.read(path)
    for change, match in (
        ({"found": None}, "lacks found"),
        ({"found": {"form": 3}}, "does not describe one"),
        ({"dtype": "load"}, "names no floating type"),
    ):
        files.write(path, tensors, {k: v for k, v in {**header, **change}.items() if v is not None})
        with pytest.raises(ValueError, match=match):
            VAE.load(path)


def test_weights_of_another_shape_are_refused(fitted, path):
    fitted.save(path)
    tensors, header = files.read(path)
    files.write(path, {**tensors, "units.shift": torch.zeros(7, dtype=torch.float64)}, header)
    with pytest.raises(ValueError, match="do not fit the weights"):
        VAE.load(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        VAE.load(path)


def test_a_write_that_fails_leaves_the_old_file_alone(fitted, path, monkeypatch):
    fitted.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_header_that_is_not_json_is_refused(path):
    with pytest.raises(ValueError, match="JSON"):
        files.write(path, {}, {"loss": float("nan")})
    assert not path.exists()
