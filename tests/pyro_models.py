"""Pyro programs that several tests fit, as users would write them; nothing of probdl is in them."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import logsumexp
from scipy.stats import norm


def logistic(X, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


def probit(X, y):
    b = pyro.sample("b", dist.Normal(0.0, 20.0))
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Bernoulli(torch.special.ndtr(X @ w + b)), obs=y)


def normal_regression(X, y):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)


def clutter(x):
    """Minka's clutter problem: half of the points come from N(theta, 1), half from N(0, 10)."""
    theta = pyro.sample("theta", dist.Normal(0.0, 10.0))
    halves = dist.Categorical(torch.tensor([0.5, 0.5]))
    locs, scales = torch.stack([theta, torch.zeros(())]), torch.tensor([1.0, 10**0.5])
    with pyro.plate("points", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(halves, dist.Normal(locs, scales)), obs=x)


def clutter_data(seed, n=20):
    rng = np.random.default_rng(seed)
    from_clutter = rng.random(n) < 0.5
    return np.where(from_clutter, rng.normal(0, 10**0.5, n), rng.normal(2, 1, n))


def clutter_exact(x):
    """Log evidence, mean and sd of theta on a grid."""
    grid = np.linspace(-40, 40, 40_001)
    log_p = norm.logpdf(grid, 0, 10)
    for xi in x:
        log_p = log_p + np.logaddexp(np.log(0.5) + norm.logpdf(xi, grid, 1), np.log(0.5) + norm.logpdf(xi, 0, 10**0.5))
    return grid_moments(grid, log_p)


def grid_moments(grid, log_p):
    """Log integral, mean and sd of exp(log_p) on an even grid."""
    weights = np.exp(log_p - logsumexp(log_p))
    mean = weights @ grid
    return logsumexp(log_p) + np.log(grid[1] - grid[0]), mean, np.sqrt(weights @ (grid - mean) ** 2)
