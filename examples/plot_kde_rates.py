r"""
How fast does a density estimate converge, and in how many dimensions?
======================================================================

Let p have β = 2 continuous derivatives. The bias of a kernel estimate at a point is of order :math:`h^2` and its
variance of order :math:`1 / (n h^d)`. Their balance is :math:`h \asymp n^{-1/(4+d)}`, and then the mean squared error
falls like

.. math:: E (\hat p(x) - p(x))^2 \asymp n^{-2β/(2β+d)} = n^{-4/(4+d)},

a rate that no estimate can better for all such densities. In one dimension it is nearly 1/n; in six, four times the
rows take no more than 43 % off. About the *smoothed* density :math:`p_h = E \hat p` of a fixed bandwidth there is no
such curse: :math:`\sup_x |\hat p(x) - p_h(x)|` is of order :math:`\sqrt{\log n / n}` at most, whatever d.

The data are standard normal in d dimensions, where the errors of a Gaussian kernel are known exactly.
"""

# %%
# The squared error at the mode, for 1 to 6 dimensions and h = .6 n^(−1/(4+d)), averaged over 400 samples. All of them
# are drawn at once; that the formula is that of ``KDE`` is checked on the first.

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from probdl.models import KDE
from probdl.models.density.mise import NormalMixture

sizes, repeats, dimensions = np.array([250, 1000, 4000, 16_000]), 400, range(1, 7)
normals = {d: NormalMixture.of([1.0], [[0.0] * d], [1.0]) for d in dimensions}
generator = torch.Generator().manual_seed(0)


def at_the_mode(n, d, h):
    """Return the estimates of p(0) from many samples of size n, of which it needs the squared distances from 0."""
    squares = torch.zeros(repeats, n, dtype=torch.float64)
    for _ in range(d):
        squares += torch.randn(repeats, n, generator=generator, dtype=torch.float64).square()
    return torch.exp(-squares / (2 * h**2)).mean(1) / (2 * math.pi * h**2) ** (d / 2)


def slope(error, stderr):
    """Return the fitted slope of log error on log n, and its standard error from those of the errors."""
    away = np.log(sizes) - np.log(sizes).mean()
    share = away / (away @ away)
    return share @ np.log(error), math.sqrt((share**2) @ (np.array(stderr) / error) ** 2)


errors, rows = {}, []
for d, normal in normals.items():
    zero = torch.zeros(1, d, dtype=torch.float64)
    truth, mse, spread, exact, best = float(normal.density(zero)), [], [], [], []
    for n in sizes.tolist():
        h = 0.6 * n ** (-1 / (4 + d))
        squares = (at_the_mode(n, d, h) - truth).square()
        mse.append(float(squares.mean()))
        spread.append(float(squares.std()) / repeats**0.5)
        exact.append(float(normal.mse(zero, h, n)))
        best.append(normal.best_bandwidth(n))
    errors[d] = np.array(mse) / truth**2, np.array(exact) / truth**2
    rows.append((d, *slope(mse, spread), slope(exact, exact)[0], -4 / (4 + d), slope(best, best)[0], -1 / (4 + d)))
x = torch.randn(500, 3, generator=generator, dtype=torch.float64)
model = KDE(0.4).fit(x)
formula = torch.exp(-x.square().sum(1) / (2 * 0.4**2)).mean() / (2 * math.pi * 0.4**2) ** 1.5
print(f"KDE {float(model.log_prob(torch.zeros(1, 3)).exp()):.12f}, the formula {float(formula):.12f}")

# %%
# The largest error about p_h for a fixed bandwidth, over 200 points that are drawn from p, averaged over 30 samples.

sups = {}
for d in (1, 2, 4):
    points, h, mean, spread = normals[d].draws(200, generator), 0.5, [], []
    smoothed = normals[d].density(points, h**2)
    for n in sizes.tolist():
        found = torch.stack([
            (KDE(h).fit(normals[d].draws(n, generator)).log_prob(points).exp() - smoothed).abs().max()
            for _ in range(30)
        ])  # fmt: skip
        mean.append(float(found.mean()))
        spread.append(float(found.std()) / 30**0.5)
    sups[d] = np.array(mean), np.array(spread)

# %%
# The curse of dimension in one picture. On the left the relative error at the mode, simulated (dots) and exact (lines).
# In the middle the largest error about :math:`p_h` over √(log n / n), which no dimension changes in its order. On the
# right the number of rows at which the relative mean squared error at the mode comes down to .1, at the best h for that
# point.


def relative_error(normal, n):
    """Return the relative mean squared error at the mode at its best bandwidth."""
    zero = torch.zeros(1, normal.means.shape[1], dtype=torch.float64)
    found = minimize_scalar(lambda t: float(normal.mse(zero, math.exp(t), n)), bounds=(-3, 2), method="bounded")
    return found.fun / float(normal.density(zero)) ** 2


def rows_needed(d):
    """Return the least n whose relative error is below a tenth, by bisection."""
    normal, low, high = NormalMixture.of([1.0], [[0.0] * d], [1.0]), 1, 10**7
    while high - low > 1 and high / low > 1.002:
        middle = math.isqrt(low * high) if high / low > 4 else (low + high) // 2
        low, high = (low, middle) if relative_error(normal, middle) < 0.1 else (middle, high)
    return high


silverman = {1: 4, 2: 19, 3: 67, 4: 223, 5: 768, 6: 2790, 7: 10_700, 8: 43_700, 9: 187_000, 10: 842_000}
needed = {d: rows_needed(d) for d in silverman}
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for d in dimensions:
    axes[0].loglog(sizes, errors[d][1], color=f"C{d - 1}", label=f"d = {d}")
    axes[0].loglog(sizes, errors[d][0], "o", color=f"C{d - 1}")
for i, (d, (mean, spread)) in enumerate(sups.items()):
    scale = np.sqrt(np.log(sizes) / sizes)
    axes[1].errorbar(sizes, mean / scale, 2 * spread / scale, fmt="o-", color=f"C{i}", label=f"d = {d}")
axes[0].set(xlabel="n", ylabel="relative mean squared error", title="at the mode", xlim=(200, 60_000))
axes[1].set(xlabel="n", xscale="log", ylim=(0, None), title=r"$\sup|\hat p - p_h| \;/\; \sqrt{\log n / n}$")
axes[2].semilogy(list(needed), list(needed.values()), "o-", color="C0", label="exact")
axes[2].semilogy(list(silverman), list(silverman.values()), "x", color="k", ms=9, label="Silverman (1986)")
axes[2].set(xlabel="d", ylabel="n", title="rows for a relative error of .1")
for ax in axes:
    ax.legend(frameon=False, fontsize="small")
plt.show()

# %%
# **The known answer beside ours.** Slopes on doubly logarithmic axes. The exact error at these n is not yet on its
# asymptote, and falls a little more slowly; in more dimensions more so. The best bandwidth for the whole density, h in
# MISE, has the slope of the theory too. The number of rows is that of Silverman's table 4.2.

columns = ["d", "slope of MSE", "stderr", "exact at these n", "-4/(4+d)", "slope of best h", "-1/(4+d)"]
print(pd.DataFrame(rows, columns=columns).round(3).to_string(index=False))
table = [(d, *slope(mean, spread), -0.5) for d, (mean, spread) in sups.items()]
print(pd.DataFrame(table, columns=["d", "slope of sup|p̂ − p_h|", "stderr", "theory"]).round(3).to_string(index=False))
print(pd.DataFrame({"rows needed": needed, "Silverman's table": silverman}).T.to_string())
