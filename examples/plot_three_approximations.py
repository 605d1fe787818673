r"""
EP, Laplace and variational inference on one skewed posterior
=============================================================

A logistic regression in which six of six trials succeed has a posterior that leans to one side: large log-odds explain
the data as well as moderate ones do. A Gaussian cannot lean, so three ways to choose one differ:

* **Laplace's method** looks at the mode, where the curvature is, and at nothing else;
* **variational inference** minimises :math:`KL(q \| p)`, and stays where the posterior has mass;
* **expectation propagation** matches moments, one factor at a time, which is local and so only near the minimum of
  :math:`KL(p \| q)`, at the moments of the whole posterior.

As there is one latent, both divergences can be computed by quadrature: each method should win by its own measure.
"""

# %%
# A coefficient with a normal prior of mean 0 and sd 3, six successes at a covariate of one.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from scipy.integrate import quad
from torch.distributions import Normal

from probdl import data, divergences
from probdl.inference import NUTS, ExpectationPropagation, FullRank, Laplace, compare_methods, fit

PRIOR_SD, TRIALS = 3.0, 6


def model(x, y):
    b = pyro.sample("b", dist.Normal(0.0, PRIOR_SD))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=b * x), obs=y)


x, y = torch.ones(TRIALS), torch.ones(TRIALS)
METHODS = {"expectation propagation": ExpectationPropagation(), "variational": FullRank(), "Laplace": Laplace()}
posteriors = {name: fit(model, x, y, method=method, progress=False) for name, method in METHODS.items()}

# %%
# The posterior itself, as a distribution of torch: a density on a fine grid of cells, so that ``probdl.divergences``
# can be asked for both directions of KL.


def unnormalised(b):
    return np.exp(-0.5 * (b / PRIOR_SD) ** 2 - TRIALS * np.logaddexp(0, -b)) / (PRIOR_SD * np.sqrt(2 * np.pi))


evidence = quad(unnormalised, -np.inf, np.inf)[0]
mean = quad(lambda b: b * unnormalised(b), -np.inf, np.inf)[0] / evidence
sd = (quad(lambda b: (b - mean) ** 2 * unnormalised(b), -np.inf, np.inf)[0] / evidence) ** 0.5


class Exact(torch.distributions.Distribution):
    """The exact posterior, by its density and by its quantiles on a grid."""

    arg_constraints = {}
    support = torch.distributions.constraints.real
    cells = torch.linspace(-20, 30, 500_001, dtype=torch.float64)
    cumulative = torch.as_tensor(unnormalised(cells.numpy())).cumsum(0)

    def log_prob(self, b):
        log_prior = Normal(0.0, PRIOR_SD).log_prob(b)
        return log_prior + TRIALS * torch.nn.functional.logsigmoid(b) - np.log(evidence)

    def icdf(self, u):
        where = torch.searchsorted(self.cumulative / self.cumulative[-1], u.double().contiguous())
        return self.cells[where.clamp(max=len(self.cells) - 1)]

    def sample(self, sample_shape=()):
        return self.icdf(torch.rand(sample_shape, dtype=torch.float64))


p = Exact(torch.Size(), validate_args=False)
qs = {name: Normal(post.mean("b"), post.sd("b")) for name, post in posteriors.items()}
best = Normal(torch.tensor(mean), torch.tensor(sd))  # the moments of p: the minimum of KL(p‖q) over Gaussians
table = pd.DataFrame(
    {
        name: {
            "mean": float(q.mean),
            "sd": float(q.stddev),
            "KL(p‖q)": float(divergences.kl(p, q, method="quadrature")),
            "KL(q‖p)": float(divergences.kl(q, p, method="quadrature")),
        }
        for name, q in {**qs, "moments of p": best}.items()
    }
).T
print(table.round(4).to_string())

# %%
# **Left:** the three approximations. **Right:** both divergences. Variational inference has the smallest
# :math:`KL(q \| p)`. EP has the smallest :math:`KL(p \| q)` of the three, yet not that of the Gaussian with the moments
# of p, as it matches those of one factor at a time. Laplace's method minimises neither.

COLOURS = {"expectation propagation": "#009E73", "variational": "#0072B2", "Laplace": "#D55E00", "moments of p": "0.4"}
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=[1.4, 1])
b = torch.linspace(-3, 12, 400, dtype=torch.float64)
axes[0].fill_between(b, p.log_prob(b).exp(), color="0.85", label="exact posterior")
for name, q in qs.items():
    axes[0].plot(b, q.log_prob(b).exp(), color=COLOURS[name], label=name)
axes[0].set(xlabel="b, log-odds of success", ylabel="density", title=f"{TRIALS} of {TRIALS} trials succeed")
axes[0].legend(frameon=False)
at = np.arange(len(table))
for k, column in enumerate(("KL(p‖q)", "KL(q‖p)")):
    colours, alpha = [COLOURS[n] for n in table.index], 1.0 if k == 0 else 0.45
    axes[1].barh(at - 0.2 + 0.4 * k, table[column], height=0.36, color=colours, alpha=alpha)
    for i, value in enumerate(table[column]):
        axes[1].text(value, i - 0.2 + 0.4 * k, f"  {column} {value:.4f}", va="center", fontsize=8)
axes[1].set(yticks=at, yticklabels=table.index, xlabel="nats", title="both divergences")
axes[1].invert_yaxis()
axes[1].set_xlim(0, 1.5 * table[["KL(p‖q)", "KL(q‖p)"]].to_numpy().max())
plt.show()

# %%
# The same comparison in one call, on a posterior of the size that one meets: nine coefficients, with draws of NUTS as
# the reference. ``compare_methods`` says for each method how far means and sds are off, how sure that is, and what the
# evidence lacks.

X, malignant = data.breast_cancer(standardise=True)


def logistic(X, y):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


comparison = compare_methods(
    logistic,
    (X[:60, :8], malignant[:60]),
    ["ep", "laplace", "meanfield", "fullrank"],
    NUTS(draws=500, warmup=200, chains=2),
    progress=False,
)
print(comparison)
comparison.plot()
plt.show()

# %%
# **The known answer beside ours.** Moments and evidence of the first example by SciPy's quadrature.

ep = posteriors["expectation propagation"]
known = {"mean": mean, "sd": sd, "log evidence": np.log(evidence)}
ours = {"mean": float(ep.mean("b")), "sd": float(ep.sd("b")), "log evidence": float(ep.log_evidence)}
print(pd.DataFrame({"expectation propagation": ours, "quadrature": known}).round(4).to_string())
