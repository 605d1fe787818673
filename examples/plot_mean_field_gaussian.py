r"""
Mean field on a correlated Gaussian: too narrow, and how linear response mends it
=================================================================================

Mean-field variational inference takes the product of independent normals that minimises :math:`KL(q \| p)`. When the
posterior is Gaussian with precision :math:`\Lambda`, the answer is known: q has the right mean, and the variances
:math:`1 / \Lambda_{jj}`, which are those of each latent *given the others*. The marginal variances are
:math:`(\Lambda^{-1})_{jj}`, so with a correlation :math:`\rho` of two latents the standard deviations are too small by
:math:`\sqrt{1 - \rho^2}`. Linear response asks how the optimum moves when the log-density is tilted a little; since
:math:`\partial E[z] / \partial t` is the covariance when :math:`t^\top z` is added to the log-density, it gets the
covariance back from an approximation that has none.
"""

# %%
# A regression with two covariates that nearly measure the same thing: an ordinary Pyro model, Gaussian throughout.

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from probdl.inference import fit


def model(X, y):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Normal(X @ w, 1.0), obs=y)


def data(correlation, n=60):
    """Return covariates whose sample correlation is exactly the one given, and responses."""
    rng = np.random.default_rng(3)
    a, b, noise = np.linalg.qr(rng.normal(size=(n, 3)))[0].T * math.sqrt(n)
    X = np.column_stack([a, correlation * a + math.sqrt(1 - correlation**2) * b])
    return X, X @ [1.0, -0.5] + noise


def exact(X, y):
    """Return mean and covariance of the posterior in closed form."""
    precision = np.eye(2) / 4 + X.T @ X
    return np.linalg.solve(precision, X.T @ y), np.linalg.inv(precision)


# %%
# One fit. ``summary`` has ``sd_lr``, the standard deviation by linear response, beside ``sd``; ``message`` warns.

X, y = data(0.9)
posterior = fit(model, X, y, method="meanfield")
print(posterior.summary().round(4))
print(posterior.message)

# %%
# The same for a row of correlations.

rows = []
for correlation in np.linspace(0.0, 0.99, 12):
    at = data(correlation)
    table, truth = fit(model, *at, method="meanfield").summary(), exact(*at)[1]
    sd, posterior_correlation = math.sqrt(truth[0, 0]), truth[0, 1] / math.sqrt(truth[0, 0] * truth[1, 1])
    rows.append((posterior_correlation, table["sd"].iloc[0] / sd, table["sd_lr"].iloc[0] / sd))
ratios = pd.DataFrame(rows, columns=["correlation", "sd", "sd_lr"]).sort_values("correlation")

# %%
# On the left the posterior (blue) and its mean-field approximation (red): they have the same extent along each axis
# through the mean. On the right both standard deviations as fractions of the exact one; the line is
# :math:`\sqrt{1 - \rho^2}`.

mean, covariance = exact(X, y)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200))])
sd = posterior.sd("w").numpy()
for root, colour, label in (
    (np.linalg.cholesky(covariance), "C0", "posterior"),
    (np.diag(sd), "C3", "mean field"),
):
    for radius in (1, 2):
        around = mean[:, None] + radius * root @ circle
        left.plot(*around, color=colour, lw=1.8 if radius == 1 else 1.0, label=label if radius == 1 else None)
left.set(xlabel="$w_0$", ylabel="$w_1$", title="1 and 2 standard deviations", aspect="equal")
left.legend(loc="upper right", frameon=False)
rho = np.linspace(-1, 0, 200)
right.plot(rho, np.sqrt(1 - rho**2), color="C3", lw=1, label=r"$\sqrt{1-\rho^2}$")
right.plot(ratios["correlation"], ratios["sd"], "o", color="C3", label="sd, mean field")
right.plot(ratios["correlation"], ratios["sd_lr"], "s", color="C0", label="sd_lr, linear response")
right.set(xlabel="posterior correlation", ylabel="fraction of the exact sd", ylim=(0, 1.1))
right.legend(loc="lower right", frameon=False)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# **The known answer beside ours.**

precision = np.linalg.inv(covariance)
known = {
    "mean": mean,
    "sd = 1/√Λ_jj": 1 / np.sqrt(np.diag(precision)),
    "marginal sd": np.sqrt(np.diag(covariance)),
}
ours = posterior.summary()
table = pd.DataFrame(known, index=["w[0]", "w[1]"])
for column, beside in (("mean", "mean"), ("sd", "sd = 1/√Λ_jj"), ("sd_lr", "marginal sd")):
    table.insert(table.columns.get_loc(beside) + 1, f"our {column}", ours[column])
print(table.to_string(float_format="{:.8f}".format))
assert torch.allclose(posterior.mean("w"), torch.as_tensor(mean), atol=1e-6)
