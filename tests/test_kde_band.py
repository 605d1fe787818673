"""The band covers the smoothed density at all points at once, as often as it says, and not the density itself."""

import pytest
import torch

from probdl.models import KDE
from probdl.models.density.mise import NormalMixture

GRID = torch.linspace(-2, 2, 41, dtype=torch.float64)
NORMAL = NormalMixture.of([1.0], [[0.0]], [1.0])
REPEATS = 200


def covered(truth, n, h, **how):
    """The share of samples whose band holds the truth at all points of the grid."""
    count = 0
    for seed in range(REPEATS):
        x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        band = KDE(h, **how).fit(x).band(GRID, draws=300, seed=seed)
        count += bool(((band.lower <= truth) & (truth <= band.upper)).all())
    return count / REPEATS


def smoothed(kernel, h):
    """p_h of a standard normal, by quadrature."""
    if kernel == "gaussian":
        return NORMAL.density(GRID[:, None], h**2)
    u = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    shifted = NORMAL.density((GRID[:, None] + h * u).reshape(-1, 1)).reshape(41, -1)
    return torch.trapezoid(0.75 * (1 - u**2) * shifted, u)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
def test_coverage_is_within_binomial_error_of_the_level(kernel):
    found = covered(smoothed(kernel, 0.4), 200, 0.4, kernel=kernel)
    assert abs(found - 0.95) < 2.6 * (0.95 * 0.05 / REPEATS) ** 0.5  # a false alarm in 100


def test_it_does_not_cover_the_density_where_the_bandwidth_is_too_large():
    assert covered(NORMAL.density(GRID[:, None]), 1000, 0.6) < 0.1
    band = KDE(0.6).fit(torch.randn(50, generator=torch.Generator().manual_seed(1)).double()).band(GRID)
    assert band.target == "p_h"
    assert "not p" in band.notes[0]


def test_the_band_is_of_studentised_kernels_in_any_dimension():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model, points = KDE([0.5, 0.7]).fit(x), x[:7]
    band = model.band(points, seed=1)
    single = (points[:, None] - x) / torch.tensor([0.5, 0.7], dtype=torch.float64)
    values = torch.exp(-single.square().sum(2) / 2) / (2 * torch.pi * 0.35)
    assert torch.allclose(band.density, values.mean(1), rtol=1e-10)
    assert torch.allclose(band.stderr, values.std(1, correction=0) / 20, rtol=1e-10)
    half = band.critical * band.stderr / (2 * band.density.sqrt())
    assert torch.allclose(band.upper, (band.density.sqrt() + half) ** 2, rtol=1e-10)
    pointwise, wider = model.band(points[:1], seed=1), model.band(points, 0.99, seed=1)
    assert 1.7 < pointwise.critical < 2.2 < band.critical < wider.critical
    assert torch.equal(model.band(points, seed=1).upper, band.upper)


def test_at_bounds_the_kernels_are_reflected_and_thin_points_are_noted():
    x = -torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64).log()
    model = KDE(0.3, bounds=(0.0, None)).fit(x)
    points = torch.tensor([0.0, 0.5, 1.0, 30.0], dtype=torch.float64)
    band = model.band(points)
    assert torch.allclose(band.density, model.log_prob(points).exp())
    assert float(band.upper[3]) > 0
    assert "at 1 of 4 points fewer than 30 rows" in band.notes[1]
    assert len(model.band(points[:2]).notes) == 1
