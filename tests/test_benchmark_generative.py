"""The benchmark of generative models reads IDX files, and its intervals are those of Student."""

import gzip
import importlib.util
import math
import struct
from pathlib import Path

import pytest
import scipy.stats
import torch

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "generative.py"
spec = importlib.util.spec_from_file_location("generative_benchmark", PATH)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def idx(magic=2051):
    return struct.pack(">4I", magic, 3, 2, 4) + bytes(range(0, 240, 10))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_images_of_an_idx_file_are_read(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(idx()))
    images = benchmark.idx_images(path)
    assert images.shape == (3, 1, 2, 4)
    assert torch.equal(images.flatten(), torch.arange(0, 240, 10, dtype=torch.float64) / 255)


def test_a_file_of_labels_is_refused(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(2049))
    with pytest.raises(ValueError, match="must be an IDX file of images"):
        benchmark.idx_images(path)


def test_held_out_rows_train_nothing():
    train, held = benchmark.divided(torch.arange(50.0), 3, 10)
    assert len(held) == 10
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(50.0))


def test_intervals_are_those_of_student():
    values = [1.0, 2.0, 4.0, 3.5]
    mean, half = benchmark.interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=mean, scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-3)
    assert math.isnan(benchmark.interval([1.0])[1])
