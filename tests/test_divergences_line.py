"""Energy on the line by sorting: the same numbers as by all pairs, and SciPy's."""

import numpy as np
import pytest
import scipy.stats
import torch

from probdl import Draws
from probdl.divergences import energy
from probdl.divergences.absolute import absolute_sums


def test_sums_of_absolute_differences_are_those_over_all_pairs():
    g = torch.Generator().manual_seed(0)
    x, y, w = (torch.randn(k, generator=g, dtype=torch.float64) for k in (40, 30, 30))
    y[:5] = x[:5]  # ties
    assert torch.allclose(absolute_sums(x, y, w), (x[:, None] - y).abs() @ w)


@pytest.mark.parametrize("weighted", [False, True])
def test_energy_on_the_line_is_that_of_the_same_points_in_a_plane(weighted, device):
    """The points of a line in the plane take the way of all pairs; value and error must agree."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 1, generator=g, dtype=torch.float64), torch.randn(150, 1, generator=g, dtype=torch.float64)
    w = torch.rand(200, generator=g, dtype=torch.float64) if weighted else None
    line = energy(Draws(x.to(device), weights=w), (y + 1).to(device))
    turn = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    plane = energy(Draws((x @ turn).to(device), weights=w), ((y + 1) @ turn).to(device))
    assert float(line) == pytest.approx(float(plane), abs=1e-12)
    assert line.stderr == pytest.approx(plane.stderr, rel=1e-9)


def test_a_million_draws_on_the_line_meet_scipys_biased_value():
    rng = np.random.default_rng(0)
    n = 500_000
    x, y = rng.normal(size=n), rng.normal(1, 1, n)
    ours = energy(x, y)
    biased = scipy.stats.energy_distance(x, y) ** 2  # counts each point's zero distance to itself, 1/n of the pairs
    assert float(ours) == pytest.approx(biased - 4 / np.sqrt(np.pi) / n, abs=1e-7)
    assert abs(float(ours) - 0.5418066) < 4 * ours.stderr  # 2 E|N(1, 2)| − 2 E|N(0, 2)|
