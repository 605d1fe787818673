r"""
Missing values: draws, not means
================================

A table with holes can still be learnt from: the likelihood of a row is that of the entries that are there,

.. math:: p(x_o) = \int p(x_o \mid z)\,p(z)\,dz,

for entries that are independent given z only lose their factor when they are missing. The encoder gets zeros in their
place and is told where. What is missing then follows from what is there, :math:`p(x_m \mid x_o)`: z is drawn from the
encoder, weighted by :math:`p(x_o \mid z)\,p(z)/q(z \mid x_o)`, and the decoder fills in. Whether entries are missing
may depend on what is there, not on what is not (missing at random).

The conditional distribution is more than its mean. Here the first column is a position t, the second its square: of a
row that lacks t, the square says how far from zero it is and nothing about the side.
"""

# %%
# 2000 rows, of which a third of the entries are removed at random. The importance-weighted bound with 20 draws is the
# one to maximise here: given only the square, the posterior of z has two modes, which no normal q(z | x) has, and the
# plain bound would punish the model for it. One σ for both columns, standardised, is the default; with one for each
# (``scale="column"``) some seeds end in a local optimum that takes the position for noise.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl import ConvergenceWarning
from probdl.models import VAE

SD = torch.tensor([0.12, 0.17], dtype=torch.float64)
g = torch.Generator().manual_seed(0)
t = torch.randn(2000, 1, generator=g, dtype=torch.float64)
complete = torch.cat([t, t**2], 1) + SD * torch.randn(2000, 2, generator=g, dtype=torch.float64)
gone = torch.rand(complete.shape, generator=g) < 1 / 3
table = pd.DataFrame(complete.where(~gone, torch.nan).numpy(), columns=["position", "square"])
print(table.head(4).round(2).to_string(), "\n")

vae = VAE(1, "gaussian", objective="iwae", draws=20, hidden=(64,), learning_rate=5e-3, decay=True)
vae.fit(table, epochs=100, validation=None, progress=False)
print(vae.message)

# %%
# Each hole filled in by the conditional mean, and by a draw. The means lie where there are no data at all. For some
# rows few of the draws of z count, since one wide normal q has to serve two narrow modes; ``impute`` warns of them.

lacks = table.position.isna() & table.square.notna()
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharex=True, sharey=True)
there = table.dropna()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", ConvergenceWarning)
    filled = {"conditional mean": vae.impute(table, mean=True), "one draw": vae.impute(table, 200)}
print(caught[-1].message)
warnings.simplefilter("ignore", ConvergenceWarning)  # said once
panels[0].plot(*complete.T, ".", ms=2, color="#999999")
panels[0].set(title="The complete data", xlabel="position", ylabel="square")
for ax, (name, rows) in zip(panels[1:], filled.items()):
    ax.plot(there.position, there.square, ".", ms=2, color="#999999", label="rows without holes")
    ax.plot(rows.position[lacks], rows.square[lacks], ".", ms=3, color="#D55E00", label=f"position by {name}")
    ax.set(title=name.capitalize(), xlabel="position")
    ax.legend(frameon=False, loc="upper center", markerscale=3)
panels[0].set(xlim=(-3.5, 3.5), ylim=(-1, 9))
plt.show()

# %%
# **The known answer beside ours.** We know the law of these data, so the density of the position given the square is an
# integral over t on a grid. Beside it, 1000 draws of ours for each of three squares.

grid = torch.linspace(-6, 6, 2401, dtype=torch.float64)


def normal(x, mean, sd):
    return torch.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * (2 * torch.pi) ** 0.5)


def known(square):
    """Return the density of the position on the grid."""
    weights = normal(grid, 0.0, 1.0) * normal(square, grid**2, SD[1])
    density = (normal(grid[:, None], grid, SD[0]) * weights).sum(1)
    return density / torch.trapezoid(density, grid)


figure, panels = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained", sharex=True)
for ax, square in zip(panels, (0.0, 1.0, 4.0)):
    hole = pd.DataFrame({"position": np.nan, "square": np.full(1000, square)})
    drawn, density = vae.impute(hole, draws=500).position.to_numpy(), known(square)
    ax.hist(drawn, 60, range=(-3, 3), density=True, color="#56B4E9", label="ours")
    ax.plot(grid, density, "k-", lw=1, label="known")
    ax.set(title=f"position given a square of {square:g}", xlim=(-3, 3), yticks=[])
    mass = torch.cumulative_trapezoid(density, grid)
    levels = torch.searchsorted(mass, torch.tensor([0.1, 0.9], dtype=torch.float64))
    sd, quantiles = torch.trapezoid(density * grid**2, grid).sqrt(), np.quantile(drawn, [0.1, 0.9])
    print(
        f"square {square:g}: known sd {sd:.3f}, ours {drawn.std():.3f} ± {drawn.std() / 2000**0.5:.3f}; known 10 % and "
        f"90 % quantiles {grid[levels[0]]:.2f}, {grid[levels[1]]:.2f}, ours {quantiles[0]:.2f}, {quantiles[1]:.2f}"
    )
panels[0].legend(frameon=False)
plt.show()

# %%
# Several draws are a multiple imputation: an interval between their quantiles should contain what was removed as often
# as it says. And for the other hole, the square given the position, the conditional mean is the best guess, and known.

some = table[gone.any(1).numpy()][:100]
truth, holes = complete.numpy()[some.index], some.isna().to_numpy()
draws = np.stack([vae.impute(some, draws=300, seed=s).to_numpy() for s in range(39)])
below = (draws < truth).sum(0)[holes]  # of 39; each of 0 to 39 is as probable as another, if all is well
share = ((below >= 4) & (below < 36)).mean()
error = (share * (1 - share) / holes.sum()) ** 0.5
print(f"80 % intervals of 39 draws contain {share:.0%} ± {error:.0%} of {holes.sum()} removed entries")

lacks = table.square.isna() & table.position.notna()
x = torch.tensor(table.position[lacks].to_numpy())
shrink = 1 / (1 + SD[0] ** 2)  # t given the position is normal, with mean x · shrink and variance SD² · shrink
best = (x * shrink) ** 2 + SD[0] ** 2 * shrink
for name, guess in (
    ("column mean", np.full(int(lacks.sum()), table.square.mean())),
    ("ours", filled["conditional mean"].square[lacks].to_numpy()),
    ("known conditional mean", best.numpy()),
):
    off = (guess - complete[:, 1].numpy()[lacks]) ** 2
    print(f"{name:24s} mean squared error of the square {off.mean():.3f} ± {off.std() / len(off) ** 0.5:.3f}")
