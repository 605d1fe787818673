r"""
One posterior, seen in all ways
===============================

A posterior is a distribution over parameters, and each picture shows another side of it: the *forest* its intervals,
the *marginals* the whole density of each parameter, the *pairs* what the marginals hide, namely which parameters can be
traded against each other, and the *trace* whether there is reason to believe any of it.

So that we know what each must show, the model is one whose posterior has a closed form: linear regression with a known
noise and a Gaussian prior, :math:`y = Xβ + ε`, :math:`ε \sim N(0, σ^2)`, :math:`β \sim N(0, τ^2 I)`, of which

.. math:: β \mid y \sim N(m, V), \qquad V = (X^\top X/σ^2 + I/τ^2)^{-1}, \qquad m = V X^\top y/σ^2 .
"""

# %%
# Two covariates that go together, correlated at .9, as height and weight do.

import math

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from probdl.inference import NUTS, fit
from probdl.viz import pairs

generator = torch.Generator().manual_seed(0)
z = torch.randn(50, 2, generator=generator, dtype=torch.float64)
covariates = torch.stack([z[:, 0], 0.9 * z[:, 0] + math.sqrt(1 - 0.9**2) * z[:, 1]], 1)
X = torch.cat([torch.ones(50, 1, dtype=torch.float64), covariates], 1)
names = ["intercept", "height", "weight"]
truth = dict(zip(names, (1.0, 2.0, -1.0)))
y = X @ torch.tensor(list(truth.values()), dtype=torch.float64) + torch.randn(50, generator=generator).double()


def model(X, y=None):
    β = torch.stack([pyro.sample(name, dist.Normal(0.0, 5.0)) for name in names])
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Normal(X @ β, 1.0), obs=y)


nuts = fit(model, X, y, method=NUTS(draws=300, warmup=100, chains=2))
mean_field = fit(model, X, y, method="meanfield")

# %%
# Forest and marginals: a sampler and the mean-field approximation side by side. They agree on where each coefficient
# is, and not on how sure one may be of it.

figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
nuts.plot(kind="forest", ax=ax, label="NUTS")
mean_field.plot(kind="forest", ax=ax, label="mean field")
panels = nuts.plot(label="NUTS")
mean_field.plot(ax=panels, label="mean field")
plt.show()

# %%
# Pairs: why. The data tell the sum of the two slopes well and their difference badly, so that they are correlated in
# the posterior; factors cannot be, and are as wide as a slope is *given* the others. The third outline is the closed
# form; the grey lines are the parameters that made the data.

variance = torch.linalg.inv(X.T @ X + torch.eye(3) / 25)
mean = variance @ X.T @ y
exact = torch.distributions.MultivariateNormal(mean, variance)
panels = nuts.plot(kind="pairs", label="NUTS")
mean_field.plot(kind="pairs", ax=panels, label="mean field")
known = {
    (row, column): torch.distributions.MultivariateNormal(mean[[j, i]], variance[[j, i]][:, [j, i]])
    for i, row in enumerate(names)
    for j, column in enumerate(names[:i])
}
with torch.random.fork_rng():
    torch.manual_seed(0)
    draws = dict(zip(names, exact.sample((4000,)).T))
pairs(draws, panels, label="closed form", joints=known, points=False, truth=truth)
plt.show()

# %%
# The trace: chains that move about quickly and cannot be told apart, as they must be for the rest to count.

nuts.plot(kind="trace")
plt.show()

# %%
# **The known answer beside ours.** The Monte Carlo error of a mean of NUTS is its sd over the root of the effective
# sample size. Mean-field means are exact in this model, and its sds are those given the other coefficients,
# :math:`1/\sqrt{(V^{-1})_{jj}}`, half of what they should be for the slopes; linear response mends that.

a, b = nuts.summary(), mean_field.summary()
means = {"known": mean, "NUTS": a["mean"], "± MC error": a["sd"] / a["ess"] ** 0.5, "mean field": b["mean"]}
sds = {"known": variance.diagonal().sqrt(), "NUTS": a["sd"], "linear response": b["sd_lr"], "mean field": b["sd"]}
sds["known, given the others"] = 1 / torch.linalg.inv(variance).diagonal().sqrt()
for title, columns in (("means", means), ("standard deviations", sds)):
    print(title, pd.DataFrame(columns, index=names).round(3).to_string(), "", sep="\n")


def correlation(covariance):
    return float(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt())


slopes = correlation(variance[1:, 1:]), correlation(nuts.cov("height", "weight"))
print("correlation of the slopes: known {:.3f}, NUTS {:.3f}, mean field 0 by construction".format(*slopes))
