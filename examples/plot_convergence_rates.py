r"""
How fast do estimates converge, and in how many dimensions?
===========================================================

Two samples of size n from *one* law have a Wasserstein distance that is not zero: it falls like :math:`n^{-1/2}` in one
dimension and only like :math:`n^{-1/d}` in d ≥ 3, so that in ten dimensions 1000 times the data halve it. The sliced
distance averages over projections on lines, and the maximum mean discrepancy is a mean over pairs of draws: both fall
like :math:`n^{-1/2}` whatever the dimension. That is the price and the reward of looking at all functions of Lipschitz
constant one, or at fewer.
"""

# %%
# For several n and d, the distance between two samples from a standard normal, averaged over repeats. MMD² is
# unbiased and may be negative, so its size is measured by its root mean square, which falls like 1/n.

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl import divergences

sizes, dimensions, repeats = [50, 100, 200, 400, 800], [1, 3, 10], 6
generator = torch.Generator().manual_seed(0)
started = time.perf_counter()


def distances(n, d):
    """Return W1, sliced W2 and MMD² of two samples of size n from N(0, I_d)."""
    x, y = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    kernel = divergences.RBF(float(np.sqrt(d)))
    return (
        float(divergences.wasserstein(x, y)),
        float(divergences.sliced_wasserstein(x, y, directions=50)),
        float(divergences.mmd2(x, y, kernel=kernel)),
    )


rows = []
for d in dimensions:
    for n in sizes:
        w, sliced, mmd2 = np.array([distances(n, d) for _ in range(repeats)]).T
        rows.append(
            {"d": d, "n": n, "W1": w.mean(), "sliced W2": sliced.mean(), "MMD² (rms)": np.sqrt((mmd2**2).mean())}
        )
results = pd.DataFrame(rows)
print(f"{len(rows) * repeats} pairs of samples in {time.perf_counter() - started:.0f} s")

# %%
# On doubly logarithmic axes a rate is a slope.

names = ["W1", "sliced W2", "MMD² (rms)"]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
for ax, name in zip(axes, names):
    for d, part in results.groupby("d"):
        ax.loglog(part["n"], part[name], "o-", label=f"d = {d}")
    ax.minorticks_off()
    ax.set(title=name, xlabel="n", xticks=sizes, xticklabels=sizes)
    ax.legend(frameon=False)
plt.show()

# %%
# **The known answer beside ours.** The fitted slopes, with their standard errors over n, and the theory: −1/2 for
# :math:`W_1` at d = 1 and −1/d at d ≥ 3 (reached from above, and slowly), −1/2 for the sliced distance and −1 for MMD²,
# whatever d.

theory = {"W1": lambda d: -1 / max(2, d), "sliced W2": lambda d: -0.5, "MMD² (rms)": lambda d: -1.0}
table = []
for name in names:
    for d, part in results.groupby("d"):
        (slope, _), covariance = np.polyfit(np.log(part["n"]), np.log(part[name]), 1, cov=True)
        table.append((name, d, slope, np.sqrt(covariance[0, 0]), theory[name](d)))
print(pd.DataFrame(table, columns=["divergence", "d", "slope", "stderr", "theory"]).round(3).to_string(index=False))
