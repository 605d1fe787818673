r"""
A density through fewer dimensions: KDE and the VAE as d grows
==============================================================

The error of a kernel density estimate falls as :math:`n^{-2β/(2β+d)}`: with many columns it hardly falls at all. Yet
the columns of real tables are not free of each other; rows lie near a set of few dimensions. A variational autoencoder
assumes just that: :math:`p(x) = \int p(x \mid z)\, p(z)\, dz` with a z of few dimensions, a normal p(z), and noise
around a network of z. Probabilistic PCA is the same with a linear map, and a mixture of normals assumes pieces that
are flat.

The rows here lie around a circle in a plane of :math:`R^d`, with normal noise in all directions:

.. math:: x = Q \,(\cos a, \sin a)^T + σ ε, \qquad Q^T Q = I, \quad a \sim U(0, 2π), \quad ε \sim N(0, I_d).

Two dimensions carry the circle whatever d is. The density is known, for the angle integrates to a Bessel function,

.. math:: \log p(x) = -\tfrac{d}{2} \log 2πσ^2 - \frac{|x|^2 + 1}{2σ^2} + \log I_0\Bigl(\frac{r}{σ^2}\Bigr), \qquad
          r = |Q^T x|,

and so is the best mean log-likelihood that any estimate can have: minus the entropy of the law.
"""

# %%
# The law, its density, and its entropy: r follows Rice's law, the other d − 2 directions are normal.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import i0e

from probdl.models import KDE, PCA, VAE, GaussianMixture
from probdl.viz import style

sigma, n, dimensions = 0.15, 500, (2, 8, 24)


def plane(d):
    return np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0][:, :2]


def rows(n, d, seed):
    noise = np.random.default_rng(seed)
    angle = noise.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1) @ plane(d).T + sigma * noise.normal(size=(n, d))


def log_density(r, rest, d):
    """Return log p of rows at radius r in the plane, with squared distance ``rest`` from it."""
    exponent = -((r - 1) ** 2 + rest) / (2 * sigma**2)
    return -d / 2 * np.log(2 * np.pi * sigma**2) + exponent + np.log(i0e(r / sigma**2))


def log_likelihood(x):
    r = np.linalg.norm(x @ plane(x.shape[1]), axis=1)
    return log_density(r, (x**2).sum(1) - r**2, x.shape[1])


def entropy(d):
    in_plane = -stats.rice(1 / sigma, scale=sigma).expect(lambda r: log_density(r, 0.0, 2))
    return in_plane + (d - 2) / 2 * np.log(2 * np.pi * np.e * sigma**2)


# %%
# Four estimates from 500 rows, and their mean log-likelihood of 1000 others. What is missing to the log-likelihood
# under the true law is the Kullback–Leibler divergence from it, in nats; both are seen at the same rows, so that the
# difference is known better than either. The log-likelihood of the VAE is by importance sampling, and errs downwards if
# its encoder is poor; so does that of a fit which ended in a poor optimum. On real rows nobody knows the truth: there a
# validation log-likelihood below that of probabilistic PCA says that the network found less than a plane.


def models(d):
    yield "KDE", KDE("likelihood"), {}
    yield "normal mixture", GaussianMixture((1, 4), starts=1), {}
    yield "probabilistic PCA", PCA(min(2, d - 1), standardise="shared"), {}
    if d > 2:  # else there is nothing to reduce
        vae = VAE(2, hidden=(64, 64), standardise="shared", learning_rate=1e-2, decay=True, patience=100)
        yield "VAE", vae, {"steps": 1000, "progress": False}


found = {}
for d in dimensions:
    train, held = rows(n, d, 0), rows(1000, d, 1)
    truth = log_likelihood(held)
    for name, model, how in models(d):
        value = model.fit(train, **how).log_likelihood(held).value.double().numpy()
        gap = truth - value
        found[d, name] = [value.mean(), -entropy(d), gap.mean(), gap.std() / np.sqrt(len(gap))]
columns = ["log-likelihood", "minus entropy", "divergence", "± s.e."]
table = pd.DataFrame(found, index=columns).T
print(table.round(3))

# %%
# The divergence of the kernel estimate grows with every column of noise; the models that know of few dimensions have
# only to find them.

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for i, name in enumerate(dict.fromkeys(name for _, name in found)):
    part = table.xs(name, level=1)
    ax.errorbar(
        part.index, part["divergence"], 2 * part["± s.e."], fmt="o-", capsize=3, color=style.colour(i), label=name
    )
ax.set(xscale="log", yscale="log", xlabel="d", ylabel="divergence from the true law, nats")
ax.set(xticks=dimensions, xticklabels=dimensions, title=f"{n} rows around a circle")
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %%
# **The known answer beside ours.** The log-likelihood of the held-out rows under the true law is minus its entropy, up
# to the error of 1000 rows; no estimate is above it, and what it lacks is its divergence.

for d in dimensions:
    held, gaps = log_likelihood(rows(1000, d, 1)), table.loc[d]["divergence"]
    print(f"d = {d:2}: minus entropy {-entropy(d):.3f}, true law {held.mean():.3f} ± {held.std() / np.sqrt(1000):.3f}; "
          f"KDE {gaps['KDE']:.2f} below it, the nearest, {gaps.idxmin()}, {gaps.min():.2f}")  # fmt: skip
