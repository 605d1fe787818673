r"""
The evidence lower bound as a penalised expected likelihood
===========================================================

For any :math:`q(z; φ)`, the bound :math:`L(φ) = E_q[\log p(x \mid z)] - KL(q \,\|\, p(z))` is at most
:math:`\log p(x)`, and their difference is :math:`KL(q \,\|\, p(z \mid x))`. The first term rewards values z that
explain the data, on average over q; alone it would be largest for a q that shrinks to the maximum-likelihood estimate.
The second is a penalty for leaving the prior. What is a ridge in penalised likelihood is here a divergence between
distributions, and it settles the width of q too: where data are few the prior holds q wide and near itself; where they
are many the likelihood wins.
"""

# %%
# A conjugate model, in which everything is known: :math:`z \sim N(0, 1)`, and four observations
# :math:`x_i \sim N(z, 2^2)`. With :math:`q = N(m, s^2)` the two terms are
#
# .. math:: E_q \log p(x \mid z) = \sum_i \log N(x_i; m, 4) - \frac{n s^2}{8}, \qquad
#     KL(q \,\|\, p) = \tfrac12 (m^2 + s^2 - 1 - \log s^2)
#
# and the first needs only the second moment of q.

import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import Normal

from probdl import divergences
from probdl.inference import MeanField, fit

x, noise = torch.tensor([3.1, 0.4, 2.6, 4.3], dtype=torch.float64), 2.0
prior = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)


def expected_log_likelihood(m, s, x=x):
    """Return E log p(x | z) under q = N(m, s²), for arrays m and s."""
    return Normal(m[..., None], noise).log_prob(x).sum(-1) - len(x) * s**2 / (2 * noise**2)


def penalty(m, s):
    """Return KL(q ‖ prior), which the package knows for a pair of distributions; here for arrays m and s."""
    return torch.distributions.kl_divergence(Normal(m, s), prior)


print("KL(N(1, ½²) ‖ N(0, 1)) =", divergences.kl(Normal(1.0, 0.5), Normal(0.0, 1.0)))

# %%
# The exact posterior, and the evidence, which is a multivariate normal density of the data.

precision = 1 + len(x) / noise**2
exact = Normal(x.sum() / noise**2 / precision, precision**-0.5)
covariance = noise**2 * torch.eye(len(x), dtype=torch.float64) + 1.0
evidence = torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)

# %%
# **Left and middle:** the two terms and their sum along m and along s, through the optimum. The expected likelihood
# alone would put m at the mean of the data and s at zero; the penalty alone would put them at 0 and 1. The sum touches
# the evidence (dotted), since the exact posterior is a normal. **Right:** how far the bound is below the evidence.

grid = torch.linspace(-1.5, 4.0, 221, dtype=torch.float64)
scales = torch.linspace(0.08, 1.8, 173, dtype=torch.float64)
likelihood_colour, penalty_colour, bound_colour = "#0072B2", "#D55E00", "#000000"


def curves(ax, at, m, s, best):
    terms = expected_log_likelihood(m, s), -penalty(m, s)
    ax.plot(at, terms[0], color=likelihood_colour, label="$E_q\\log p(x|z)$")
    ax.plot(at, terms[1], color=penalty_colour, label="$-KL(q\\,\\|\\,p)$")
    ax.plot(at, terms[0] + terms[1], color=bound_colour, lw=2, label="bound")
    ax.axhline(evidence, color="0.4", ls=":", label="$\\log p(x)$")
    ax.plot(best, (terms[0] + terms[1]).max(), "o", color=bound_colour)


figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
m_best, s_best = exact.mean, exact.stddev
curves(axes[0], grid, grid, s_best.expand_as(grid), m_best)
axes[0].axvline(x.mean(), color=likelihood_colour, ls="--", lw=1)
axes[0].text(x.mean() - 0.1, -5.5, "mean of the data", color=likelihood_colour, ha="right")
axes[0].set(title="along the mean m, at the best s", xlabel="m", ylabel="nats", ylim=(-13.5, 0.5))
curves(axes[1], scales, m_best.expand_as(scales), scales, s_best)
axes[1].set(title="along the scale s, at the best m", xlabel="s", ylim=(-13.5, 0.5))
axes[1].legend(frameon=False, loc="center", bbox_to_anchor=(0.5, 0.68), ncols=2)
mm, ss = torch.meshgrid(grid, scales, indexing="ij")
bound = expected_log_likelihood(mm, ss) - penalty(mm, ss)
gaps = [0.02, 0.1, 0.25, 0.5, 1, 2, 4]
lines = axes[2].contour(grid, scales, (evidence - bound).T, levels=gaps, colors="0.55")
axes[2].clabel(lines, fmt=lambda level: f"{level:g}")
axes[2].plot(m_best, s_best, "o", color=bound_colour)
axes[2].plot(0, 1, "^", color=penalty_colour)
axes[2].annotate("exact posterior", (m_best, s_best), (2.15, 1.35), arrowprops={"arrowstyle": "-"})
axes[2].annotate("prior", (0, 1), (-6, 8), textcoords="offset points", color=penalty_colour, ha="right")
axes[2].set(title="$\\log p(x)$ − bound $= KL(q\\,\\|\\,p(z|x))$", xlabel="m", ylabel="s")
plt.show()

# %%
# More data of the same kind, and the penalty matters less: the optimum leaves the prior for the mean of the data.

figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
z = torch.linspace(-2.5, 4.5, 400, dtype=torch.float64)
ax.plot(z, prior.log_prob(z).exp(), color=penalty_colour, label="prior")
for copies, shade in ((1, 0.35), (4, 0.6), (16, 1.0)):
    precision_n = 1 + copies * len(x) / noise**2
    q = Normal(copies * x.sum() / noise**2 / precision_n, precision_n**-0.5)
    weight = float(penalty(q.mean, q.stddev))
    label = f"n = {copies * len(x)}: penalty {weight:.2f} nats"
    ax.plot(z, q.log_prob(z).exp(), color=likelihood_colour, alpha=shade, label=label)
ax.axvline(x.mean(), color="0.4", ls=":")
ax.set(xlabel="z", ylabel="density", title="the best q")
ax.legend(frameon=False, loc="upper left")
plt.show()

# %%
# **The known answer beside ours.** The maximum over the grid, the package's deterministic VI on the model as a Pyro
# program, and the exact posterior with its evidence.


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(z, noise), obs=x)


posterior = fit(model, x, method=MeanField())
best = bound.argmax()
m_grid, s_grid = float(mm.reshape(-1)[best]), float(ss.reshape(-1)[best])
print(f"on the grid  m = {m_grid:.3f}, s = {s_grid:.3f}, bound {bound.max():.4f}")
print(f"MeanField    m = {posterior.mean('z'):.3f}, s = {posterior.sd('z'):.3f}, bound {posterior.elbo.value:.4f}")
print(f"exact        m = {exact.mean:.3f}, s = {exact.stddev:.3f}, log evidence {evidence:.4f}")
wide = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
gap = evidence - (expected_log_likelihood(*wide) - penalty(*wide))
kl = divergences.kl(Normal(*wide), exact)
print(f"at m = 0.5, s = 1.5: log evidence − bound = {gap:.6f}, KL(q ‖ posterior) = {float(kl):.6f}")
assert math.isclose(float(gap), float(kl), rel_tol=1e-9)
