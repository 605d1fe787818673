"""Pyro programs with groups of rows, as users would write them, and groups that are loaded where they are needed."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch


def hierarchical(y, level, levels):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0))
    with pyro.plate("levels", levels):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(theta[level], sigma), obs=y)


def one_way(y, level, levels):
    """Known variances, so that the posterior of all latents is Gaussian."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("levels", levels):
        theta = pyro.sample("theta", dist.Normal(mu, 0.7))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(theta[level], 1.3), obs=y)


def noisy_rows(y, X):
    """A latent for each row: overdispersed counts."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(y)):
        e = pyro.sample("e", dist.Normal(0.0, 0.5))
        pyro.sample("y", dist.Poisson(torch.exp(X @ w + e)), obs=y)


def own_levels(y, level):
    """A group with levels of its own, as many as it has."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("levels", int(level.max()) + 1):
        theta = pyro.sample("theta", dist.Normal(mu, 0.7))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(theta[level], 1.3), obs=y)


def schools(y, error):
    """Rubin's eight schools: little is known of tau, whose logarithm is far from Gaussian."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, error), obs=y)


def levels_data(seed=1, levels=24, rows=12):
    rng = np.random.default_rng(seed)
    level = np.repeat(np.arange(levels), rows)
    return 1 + 0.8 * rng.normal(size=levels)[level] + rng.normal(size=len(level)), level


def regression_data(seed=0, n=200, sd=0.5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, X @ np.array([1.0, -1.0, 0.5, 0.0]) + sd * rng.normal(size=n)


class Part:
    """A piece of the regression data, made in the process that asks for it."""

    def __init__(self, which, parts):
        self.which, self.parts = which, parts

    def __call__(self):
        X, y = regression_data()
        rows = np.array_split(np.arange(len(y)), self.parts)[self.which]
        return X[rows], y[rows]
