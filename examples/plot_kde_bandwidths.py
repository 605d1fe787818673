r"""
How wide should the kernels be?
===============================

A kernel density estimate is the mean of kernels of bandwidth h around the rows,

.. math:: \hat p_h(x) = \frac1n \sum_{i=1}^n \frac1h K\Big(\frac{x - x_i}{h}\Big).

Its error has two parts. The variance falls with h; the bias grows, since :math:`E \hat p_h` is not p but the density
:math:`p_h` smoothed by the kernel. The mean integrated squared error
:math:`\mathrm{MISE}(h) = E \int (\hat p_h - p)^2` adds them up, and the best h balances them. It depends on p, which is
not known. Rules of thumb suppose that p is normal (Scott, Silverman); cross-validation asks each row what it says of
the estimate from all others, in squared error or in likelihood; the improved rule of Sheather and Jones estimates the
curvature of p without a normal to start from.

The truth here is Marron and Wand's claw: a standard normal with five narrow claws. For mixtures of normals the MISE of
a Gaussian kernel is known exactly, for each h, so that each choice can be judged.
"""

# %%
# One sample of 1000, and the bandwidth that each rule chooses.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl.models import KDE
from probdl.models.density.mise import NormalMixture

claw = NormalMixture.of([0.5] + [0.1] * 5, [0.0, -1.0, -0.5, 0.0, 0.5, 1.0], [1.0] + [0.1] * 5)
n, rules = 1000, ["scott", "silverman", "lscv", "likelihood", "isj"]
x = claw.draws(n, torch.Generator().manual_seed(0))[:, 0]
models = {rule: KDE(rule).fit(x) for rule in rules}
print({rule: round(float(model.root), 3) for rule, model in models.items()}, "best:", round(claw.best_bandwidth(n), 3))

# %%
# Silverman's rule sees one normal of standard deviation .87 and smears the claws; the others find them. Beside them a
# band of 95 % around the estimate, at all points at once, for the *smoothed* density: where the kernels are too wide it
# is narrow, and excludes the truth. A band says how well :math:`p_h` is known, and nothing about the bias.

grid = torch.linspace(-3, 3, 401, dtype=torch.float64)
truth = claw.density(grid[:, None])
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for ax, rule in zip(axes, ["silverman", "isj"]):
    band = models[rule].band(grid, draws=300)
    ax.plot(grid, truth, color="0.6", lw=3, label="truth")
    ax.plot(grid, band.density, color="C0", lw=1.5, label=f"estimate, h = {float(models[rule].root):.3f}")
    ax.fill_between(grid, band.lower, band.upper, color="C0", alpha=0.25, lw=0, label="95 % band for $p_h$")
    ax.set(title=rule, xlabel="x", ylim=(0, 1.1))
    ax.legend(frameon=False, loc="upper left", fontsize="small")
axes[0].set_ylabel("density")

widths = np.geomspace(0.02, 0.6, 60)
axes[2].loglog(widths, [claw.mise(h, n) for h in widths], color="0.3", label="exact MISE, n = 1000")
for i, rule in enumerate(rules):
    h = float(models[rule].root)
    axes[2].plot(h, claw.mise(h, n), "os^Dv"[i], color=f"C{i}", label=rule, ms=7)
axes[2].set(title="exact error of each choice", xlabel="h", ylabel="MISE", ylim=(3e-3, 0.12))
axes[2].minorticks_off()
axes[2].set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
axes[2].legend(frameon=False, fontsize="small", loc="upper center", ncols=2)
plt.show()

# %%
# **The known answer beside ours.** Twenty samples for each of two sizes. The exact MISE at the best h is what an oracle
# reaches; the mean of the integrated squared errors of the estimates, with its standard error, is what the rules reach,
# which choose h anew for each sample. As a check of the estimate itself the oracle's simulated error stands beside its
# exact one. Of 100 rows no rule but least squares sees the claws, and that one not always: its errors vary most.

wide = torch.linspace(-5, 5, 1001, dtype=torch.float64)
generator = torch.Generator().manual_seed(1)


def error(rule, sample):
    """Return the chosen h, and the integrated squared error of the estimate."""
    model = KDE(rule).fit(sample)
    away = model.log_prob(wide).exp() - claw.density(wide[:, None])
    return float(model.root), float(torch.trapezoid(away.square(), wide))


table = []
for size in (100, 1000):
    best = claw.best_bandwidth(size)
    samples = [claw.draws(size, generator)[:, 0] for _ in range(20)]
    for rule in [best, *rules]:
        h, ise = np.array([error(rule, sample) for sample in samples]).T
        name = rule if isinstance(rule, str) else "oracle"
        table.append(
            (size, name, h.mean(), 1000 * claw.mise(h.mean(), size), 1000 * ise.mean(), 1000 * ise.std() / 20**0.5)
        )
columns = ["n", "bandwidth", "mean h", "1000 exact MISE at mean h", "1000 mean ISE", "stderr"]
print(pd.DataFrame(table, columns=columns).round(3).to_string(index=False))
