"""The course's rates: exact errors of kernel estimates, and the slopes of simulated ones."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from probdl.models import KDE
from probdl.models.density.mise import NormalMixture

CLAW = NormalMixture.of([0.5] + [0.1] * 5, [0.0, -1.0, -0.5, 0.0, 0.5, 1.0], [1.0] + [0.1] * 5)


def test_exact_errors_are_those_of_simulated_estimates():
    g, grid, n, h = torch.Generator().manual_seed(0), torch.linspace(-5, 5, 1001).double(), 200, 0.15
    ise = []
    for _ in range(100):
        p = KDE(h).fit(CLAW.draws(n, g)[:, 0])
        ise.append(float(torch.trapezoid((p.log_prob(grid).exp() - CLAW.density(grid[:, None])).square(), grid)))
    assert abs(np.mean(ise) - CLAW.mise(h, n)) < 4 * np.std(ise) / 10


@pytest.mark.parametrize(("n", "h"), [(50, 0.1), (5000, 0.5)])
def test_the_integral_of_the_mean_squared_error_is_the_mise(n, h):
    error = quad(lambda t: float(CLAW.mse(torch.tensor([[t]]).double(), h, n)), -8, 8, limit=300, epsabs=1e-12)[0]
    assert CLAW.mise(h, n) == pytest.approx(error, rel=1e-7)


def test_the_best_bandwidth_of_a_normal_is_that_of_the_theory():
    normal = NormalMixture.of([2.0], [[0.0, 0.0]], [3.0])
    assert normal.best_bandwidth(10**9) == pytest.approx(3 * 10 ** (-9 / 6), rel=0.01)
    h = CLAW.best_bandwidth(500)
    assert CLAW.mise(h, 500) < min(CLAW.mise(0.9 * h, 500), CLAW.mise(1.1 * h, 500))
    with pytest.raises(ValueError, match="sds must be 1 positive numbers"):
        NormalMixture.of([1.0], [[0.0]], [-1.0])


def test_rows_that_a_relative_error_of_a_tenth_takes():
    """Silverman (1986), table 4.2, which rounds to three digits."""
    for d, expected in zip(range(1, 7), (4, 19, 67, 223, 768, 2790)):
        normal, zero = NormalMixture.of([1.0], [[0.0] * d], [1.0]), torch.zeros(1, d).double()

        def error(n, normal=normal, zero=zero):
            best = minimize_scalar(lambda t: float(normal.mse(zero, math.exp(t), n)), bounds=(-3, 2), method="bounded")
            return best.fun / float(normal.density(zero)) ** 2

        assert error(1.03 * expected + 1) < 0.1 < error(0.97 * expected - 1)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_fitted_slopes_of_the_mean_squared_error_are_the_rate(d):
    g, sizes, repeats = torch.Generator().manual_seed(d), [250, 1000, 4000, 16_000], 150
    normal, zero = NormalMixture.of([1.0], [[0.0] * d], [1.0]), torch.zeros(1, d).double()
    truth, error = float(normal.density(zero)), []
    for n in sizes:
        x = torch.randn(repeats, n, d, generator=g, dtype=torch.float64)
        found = [float(KDE(0.6 * n ** (-1 / (4 + d))).fit(rows).log_prob(zero).exp()) for rows in x]
        error.append(np.mean((np.array(found) - truth) ** 2))
    slope = np.polyfit(np.log(sizes), np.log(error), 1)[0]
    assert abs(slope + 4 / (4 + d)) < 0.1


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_largest_error_about_the_smoothed_density_falls_like_one_over_root_n_whatever_d(d):
    g, sizes = torch.Generator().manual_seed(d), [250, 1000, 4000]
    normal = NormalMixture.of([1.0], [[0.0] * d], [1.0])
    points, sup = normal.draws(100, g), []
    for n in sizes:
        away = [(KDE(0.5).fit(normal.draws(n, g)).log_prob(points).exp() - normal.density(points, 0.25)).abs().max()
                for _ in range(40)]  # fmt: skip
        sup.append(float(torch.stack(away).mean()))
    assert abs(np.polyfit(np.log(sizes), np.log(sup), 1)[0] + 0.5) < 0.1
