"""χ² and Rényi divergences from draws: held-out lower bounds that come close to the known values."""

import math

import pytest
import torch
from torch.distributions import Normal

from probdl import LogDensity
from probdl.divergences import chi2, kl, renyi
from probdl.divergences.variational import renyi_bound


def normals(n, shift, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, generator=g, dtype=torch.float64) + shift


@pytest.mark.parametrize("alpha", [0.5, 0.7, 2.0])
def test_the_bound_at_the_true_log_ratio_is_the_divergence(alpha):
    """N(.5, 1) against N(0, 1): D_α = α/8; within 4 standard errors (false alarm 1 in 10,000)."""
    x, y = normals(40_000, 0.5, 0)[:, 0], normals(40_000, 0.0, 1)[:, 0]
    equal = torch.full_like(x, 1 / len(x))
    value, stderr, _ = renyi_bound(0.5 * x - 0.125, 0.5 * y - 0.125, equal, equal, alpha)
    assert abs(value - alpha / 8) < 4 * stderr
    lower = renyi_bound(0.2 * x, 0.2 * y, equal, equal, alpha)
    assert lower[0] < alpha / 8 - 4 * lower[1]


@pytest.mark.parametrize("alpha", [0.7, 2.0])
def test_renyi_from_draws_is_a_close_lower_bound(alpha):
    estimate = renyi(normals(2000, 0.5, 2), normals(2000, 0.0, 3), alpha)
    assert (estimate.method, estimate.target) == ("classifier", "lower bound")
    assert abs(float(estimate) - alpha / 8) < 4 * estimate.stderr
    assert estimate.stderr < alpha / 16


def test_chi2_from_draws_and_against_a_law():
    exact = math.expm1(0.25)
    for q in (normals(2000, 0.0, 5), Normal(torch.tensor(0.0).double(), 1.0)):
        estimate = chi2(normals(2000, 0.5, 4), q)
        assert abs(float(estimate) - exact) < 4 * estimate.stderr
        assert estimate.target == "lower bound"


def test_order_one_from_draws_is_kl_and_says_so():
    x, y = normals(300, 0.5, 6), normals(300, 0.0, 7)
    estimate = renyi(x, y, 1)
    assert float(estimate) == float(kl(x, y))
    assert any("alpha = 1" in note for note in estimate.notes)


def test_what_gives_no_draws_is_refused():
    with pytest.raises(ValueError, match="a LogDensity gives no draws"):
        chi2(normals(50, 0.0, 8), LogDensity(lambda x: -(x**2).sum(1) / 2, dim=1))
    with pytest.raises(ValueError, match="classifier"):
        renyi(normals(50, 0.0, 8), normals(50, 0.0, 9), 2.0, method="quadrature")
