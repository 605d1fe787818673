"""Several processes of one script follow the run of one, and write once; two of them on the loopback device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import probdl
from probdl import files
from probdl.loops.together import Together
from probdl.models import VAE
from probdl.processes import chosen_device

SCRIPT = Path(__file__).with_name("several_processes.py")


def start(folder, part, processes, *more):
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *(launcher if processes > 1 else []), str(SCRIPT), str(folder), part, *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [files.read(path) for path in sorted(folder.glob("result *"))]


def numbers(header, name):
    return torch.tensor([float(v) for v in header["columns"][name]], dtype=torch.float64)


@pytest.mark.parametrize("part", ["descent", "game"])
def test_two_processes_take_the_steps_of_one(part, tmp_path):
    pytest.importorskip("lightning_fabric")
    ((alone, header),) = start(tmp_path / "one", part, 1)
    both = start(tmp_path / "two", part, 2)
    assert len(both) == 2
    for weights, other in both:
        for name, value in alone.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-10, atol=1e-12)
        assert list(other["columns"]) == list(header["columns"])
        for name in header["columns"]:
            torch.testing.assert_close(
                numbers(other, name), numbers(header, name), rtol=1e-9, atol=1e-12, equal_nan=True
            )
    if part == "descent":  # each saw its half of each batch: 20 rows, and once an epoch one row, which both take
        assert [h["seen"] for _, h in both] == [[10, 10, 10, 10, 10, 1] * 12] * 2
        assert header["seen"] == [20, 20, 20, 20, 20, 1] * 12


def test_a_model_is_fitted_by_two_processes_and_saved_once(tmp_path):
    pytest.importorskip("lightning_fabric")
    (first, _), (second, _) = start(tmp_path / "two", "model", 2)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    vae = VAE.load(tmp_path / "two" / "vae")
    assert all(torch.equal(first[name], value) for name, value in vae.state_dict().items())


def test_two_processes_resume_bit_by_bit_and_one_does_not_take_over(tmp_path):
    pytest.importorskip("lightning_fabric")
    whole = start(tmp_path / "whole", "noisy", 2, "8")
    start(tmp_path / "parts", "noisy", 2, "5")
    parts = start(tmp_path / "parts", "noisy", 2, "8")
    for (weights, _), (resumed, _) in zip(whole, parts):
        assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    with pytest.raises(AssertionError, match="The checkpoint is of 2 processes, this run of 1; start as many"):
        start(tmp_path / "parts", "noisy", 1, "9")


def test_a_nan_in_one_process_stops_all_of_them(tmp_path):
    pytest.importorskip("lightning_fabric")
    start(tmp_path / "two", "broken", 2)
    for rank in range(2):
        assert "loss became nan at step 7" in (tmp_path / "two" / f"error {rank}").read_text()


def test_without_fabric_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r"Install probdl\[distributed\]"):
        Together(torch.device("cpu"), whole=False)


def test_only_the_first_process_writes_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    probdl.files.write(tmp_path / "x", {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "x", "gpu", "expected"),
    [
        ("cpu", torch.ones(1, device="meta"), True, "cpu"),
        ("auto", torch.ones(1, device="meta"), True, "meta"),
        ("auto", torch.ones(1), True, "cuda:1"),
        ("auto", None, True, "cuda:1"),
        ("auto", torch.ones(1), False, "cpu"),
    ],
)
def test_auto_computes_where_the_data_are_or_on_the_gpu_of_this_process(device, x, gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert chosen_device(device, x) == torch.device(expected)
