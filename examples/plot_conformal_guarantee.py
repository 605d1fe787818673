r"""
A false-alarm rate that holds for any score
===========================================

Which rows are anomalies? A model scores them, larger for stranger ones, and a threshold decides. Where it should stand
follows from the law of the scores of normal rows, and that law is not known: the model may be wrong, and scores of the
rows that fitted it are too small. *Conformal* thresholds need neither the law nor a right model. n further normal rows,
which fitted nothing, calibrate: a new row of score s has

.. math:: p = \frac{1 + \#\{j : c_j \ge s\}}{n + 1},

and if it is exchangeable with them, its rank among n + 1 scores is uniform, whatever the score: P(p ≤ α) ≤ α.

The guarantee is an average over calibration sets. Given one, the rate of false alarms among all further rows is a
number, and over calibration sets it has a known law, for continuous scores Beta(l, n + 1 − l) with l = ⌊α(n + 1)⌋
(Vovk, 2012). How many rows must calibrate follows from how wide that law may be.
"""

# %%
# Normal rows on a curved surface in six dimensions, and principal components, which do not fit it. 200 times 60 rows
# fit, n calibrate, and 1000 new rows of the same law are judged at α = 5 %. Beside it what is often done instead: the
# threshold that 5 % of the rows exceed that fitted the model.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats

from probdl.models import PCA, anomaly_table
from probdl.viz import style

rate, fit, repeats = 0.05, 60, 200
generator = torch.Generator().manual_seed(0)


def normal_rows(n, sd=0.5):
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return torch.cat([z, z**2 - z.roll(1, 1)], 1) + sd * noise


def in_sample(train, x):
    model = PCA(3).fit(train)
    return model.anomaly_score(x) > model.anomaly_score(train).quantile(1 - rate)


realised = {}
for calibrate in (60, 240):
    found = []
    for _ in range(repeats):
        train, new = normal_rows(fit + calibrate), normal_rows(1000)
        share = calibrate / (fit + calibrate)
        table = anomaly_table(new, {"pca": PCA(3)}, train=train, rate=rate, calibration=share)
        found.append(float(table.table["pca"].flagged.mean()))
    realised[f"conformal, {calibrate} rows calibrate"] = np.array(found)
realised["quantile of the rows that fitted"] = np.array(
    [float(in_sample(normal_rows(fit), normal_rows(1000)).double().mean()) for _ in range(repeats // 2)]
)
print(table.thresholds.round(3).to_string(), "\n")
print(table.guarantee)

# %%
# The rates that were realised, and the laws that were promised. Nothing in the law knows the score. The quantile of the
# rows that fitted is not twice as lenient by bad luck: a model lies nearer to its own rows than to others.

figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", sharex=True)
grid = np.linspace(0.001, 0.25, 400)
for i, (ax, (name, found)) in enumerate(zip(panels, realised.items())):
    style.tidy(ax).hist(found, 25, range=(0, 0.25), density=True, color=style.colour(4), label="realised")
    if i < 2:
        n = (60, 240)[i]
        most = int(rate * (n + 1))
        ax.plot(grid, stats.beta(most, n + 1 - most).pdf(grid), "k-", lw=1.2, label=f"Beta({most}, {n + 1 - most})")
    ax.axvline(rate, color=style.MUTED, ls=":", label="asked")
    ax.set(title=name, xlabel="false-alarm rate", yticks=[])
    ax.legend(frameon=False)
plt.show()

# %%
# **The known answer beside ours.** Mean and standard deviation of the realised rate, with those of its law (beta-
# binomial: a share among 1000 new rows); how many repeats are within the law's 95 % interval; and the test that all 200
# rates have that law (chi-square, five classes).

lines = []
for n in (60, 240):
    found, most = realised[f"conformal, {n} rows calibrate"], int(rate * (n + 1))
    law = stats.betabinom(1000, most, n + 1 - most)
    low, high = law.ppf([0.025, 0.975]) / 1000
    edges = np.array([-1, *law.ppf([0.2, 0.4, 0.6, 0.8]), 1000])
    counts = np.histogram(np.round(found * 1000), edges + 0.5)[0]
    fits = stats.chisquare(counts, repeats * np.diff(law.cdf(edges))).pvalue
    lines.append(
        [n, f"{law.mean() / 1000:.4f}", f"{found.mean():.4f} ± {found.std() / repeats**0.5:.4f}",
         f"{law.std() / 1000:.4f}", f"{found.std():.4f}", f"{((found >= low) & (found <= high)).mean():.1%}",
         f"{fits:.2f}"]
    )  # fmt: skip
columns = ["calibrate", "mean, known", "mean, ours", "sd, known", "sd, ours", "in the 95 % interval", "p of the law"]
print(pd.DataFrame(lines, columns=columns).to_string(index=False))
wrong = realised["quantile of the rows that fitted"]
print(f"quantile of the rows that fitted: {wrong.mean():.3f} ± {wrong.std() / len(wrong) ** 0.5:.3f}, asked {rate}")

# %%
# What the guarantee does not say: that a row which is flagged is an anomaly (of 1000 normal rows 50 are), that
# anomalies are found (that depends on the score), or anything for rows that are not exchangeable with those that
# calibrated. If new rows come from elsewhere, the rate is another one, and only labels tell.

noisy = anomaly_table(normal_rows(1000, sd=0.75), {"pca": PCA(3)}, train=normal_rows(300), rate=rate)
print(f"rows with half as much noise again: {noisy.table['pca'].flagged.mean():.1%} flagged, {rate:.0%} asked")
