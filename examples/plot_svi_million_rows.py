r"""
Variational inference on a million rows
=======================================

A stochastic gradient of the bound from m of n rows has a noise that grows with n: in units of the posterior's own
standard deviation its variance is about n/m, so that a million rows in batches of 512 leave a standard deviation of 44.
Small steps average it out, but slowly. The noise can be removed instead. One pass over all rows gives the exact
gradient at an anchor a near the optimum; with it, a batch only has to estimate the *difference*
:math:`∇ℓ(z) - ∇ℓ(a)`, which is small when z is a posterior standard deviation away from a, and whose variance does not
grow with n. ``StochasticVI`` does this by itself, starts at the mode on a pilot of the rows, and measures its steps by
the curvature there, so that there is no learning rate to choose.
"""

# %%
# A million rows of a logistic regression with 10 correlated covariates, simulated from known coefficients; a Pyro
# program as one would write it for a hundred rows.

import time

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from probdl.inference import StochasticVI, fit

n, d = 1_000_000, 10
generator = torch.Generator().manual_seed(1)
common = torch.randn(n, 1, generator=generator, dtype=torch.float64)
X = (torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.7 * common) / 1.49**0.5
truth = torch.linspace(-1.0, 1.0, d, dtype=torch.float64)
logits = X @ truth - 0.5
y = (torch.rand(n, generator=generator, dtype=torch.float64) < torch.sigmoid(logits)).double()


def model(X, y):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


started = time.perf_counter()
posterior = fit(model, X, y, method=StochasticVI(batch_size=512), progress=False)
print(f"{time.perf_counter() - started:.1f} s")
print(posterior.message)

# %%
# The known answer: with a million rows the posterior is a normal at its mode to many digits. Newton's method on all
# rows finds the mode and the curvature H; the exact posterior has covariance :math:`H^{-1}`, and its best mean-field
# approximation has the same mean and the variances :math:`1 / H_{jj}`.

design = torch.cat([torch.ones(n, 1, dtype=torch.float64), X], 1)
prior_precision = torch.cat([torch.tensor([0.01]), torch.full((d,), 0.25)]).double()
mode = torch.zeros(d + 1, dtype=torch.float64)
for _ in range(8):
    p = torch.sigmoid(design @ mode)
    curvature = design.T @ (design * (p * (1 - p))[:, None]) + torch.diag(prior_precision)
    mode = mode + torch.linalg.solve(curvature, design.T @ (y - p) - prior_precision * mode)
exact_sd, mean_field_sd = torch.linalg.inv(curvature).diagonal().sqrt(), curvature.diagonal() ** -0.5

# %%
# **Left:** the bound over the steps, with the step sizes; each stage ends when its iterates are stationary. All steps
# together read a fraction of the rows. **Right:** the mean-field posterior beside the exact one, in exact posterior
# standard deviations around the exact mean. Mean field is too narrow, as the covariates are correlated; linear response
# repairs it.

summary = posterior.summary()
ours = torch.tensor(summary["mean"].to_numpy())
figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=[1, 1.3])
for rate, part in posterior.history.groupby("step_size", sort=False):
    axes[0].plot(part["step"], part["elbo"] - posterior.elbo.value, "o-", ms=4, label=f"step size {rate:g}")
axes[0].axhline(0, color="0.6", lw=1)
axes[0].set(xlabel="step", ylabel="bound of a block − final bound, nats", title="the bound")
axes[0].legend(frameon=False)
at = torch.arange(d + 1, dtype=torch.float64)
gap = (ours - mode) / exact_sd
styles = (("exact posterior", 0 * gap, exact_sd, "black", -0.2), ("linear response", gap, "sd_lr", "#009E73", 0.0),
          ("mean field", gap, "sd", "#0072B2", 0.2))  # fmt: skip
for label, centre, sd, colour, shift in styles:
    widths = 2 * (torch.tensor(summary[sd].to_numpy()) if isinstance(sd, str) else sd) / exact_sd
    axes[1].errorbar(at + shift, centre, widths, fmt="o", ms=4, color=colour, label=label)
axes[1].set(xticks=at.tolist(), xticklabels=list(summary.index), ylabel="exact posterior sd", title="mean ± 2 sd")
axes[1].set_ylim(-2.6, 3.6)
axes[1].legend(frameon=False, ncols=3, loc="upper center")
plt.show()

# %%
# **The known answer beside ours.** Differences of the means are in exact posterior standard deviations, and scales are
# ratios. The truth lies within a few posterior standard deviations.

table = pd.DataFrame(
    {
        "truth": [-0.5, *truth.tolist()],
        "mode on all rows": mode,
        "ours": ours,
        "difference / sd": gap,
        "sd / mean-field sd": torch.tensor(summary["sd"].to_numpy()) / mean_field_sd,
        "sd_lr / exact sd": torch.tensor(summary["sd_lr"].to_numpy()) / exact_sd,
    },
    index=summary.index,
)
print(table.round(4).to_string())
print(f"steps: {posterior.history['step'].iloc[-1]:.0f}; bound {posterior.elbo}")
