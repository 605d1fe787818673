r"""
Hierarchical regression by mean field, against NUTS
===================================================

Twelve groups have 4 to 15 rows each; every group has its own intercept and slope, drawn from a common distribution
whose spread is itself unknown. The posterior pulls the estimates of small groups towards the common line, which is
called partial pooling. The rows of a group say more of its line than the common distribution does, so the model is
written centred: the lines of the groups are drawn around the common line. With a row or two in each it would be a
funnel, and the ``message`` of the fit would ask for the non-centred form.

Deterministic mean field takes fixed draws, so the bound is an ordinary function with an unambiguous maximum. Its
standard deviations are too small where latents are correlated, here those of the spreads; linear response mends most
of that.
"""

# %%
# An ordinary Pyro model, and data with 4 to 15 rows in each group.

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist

from probdl.inference import NUTS, fit

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the draws

GROUPS = 12


def model(group, x, y):
    line = pyro.sample("line", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0).expand([2]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", GROUPS):
        own = pyro.sample("own", dist.Normal(line, spread).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(own[group, 0] + own[group, 1] * x, noise), obs=y)


rng = np.random.default_rng(12)
sizes = rng.integers(4, 16, GROUPS)
group = np.repeat(np.arange(GROUPS), sizes)
true_lines = np.array([1.0, 0.5]) + np.array([0.8, 0.4]) * rng.normal(size=(GROUPS, 2))
x = rng.normal(size=len(group))
y = true_lines[group, 0] + true_lines[group, 1] * x + 0.5 * rng.normal(size=len(group))

# %%
# Both fits.

mean_field = fit(model, group, x, y, method="meanfield")
nuts = fit(model, group, x, y, method=NUTS(draws=500 // SHARE, warmup=300 // SHARE, chains=2))
print(mean_field.message)
print(nuts.message)
print(f"mean field {mean_field.seconds:.1f} s, NUTS {nuts.seconds:.1f} s")

# %%
# Each group's own line: on the left the slopes with 90 % intervals, each beside the least-squares slope of its group
# alone; on the right the standard deviations of all latents, as fractions of those of NUTS.


def slopes(posterior):
    """Return draws of the groups' own slopes, (n, groups)."""
    return posterior.draws()["own"][..., 1].numpy()


alone = np.array([np.polyfit(x[group == g], y[group == g], 1)[0] for g in range(GROUPS)])
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for posterior, shift, colour, label in ((nuts, -0.12, "C0", "NUTS"), (mean_field, 0.12, "C3", "mean field")):
    low, middle, high = np.quantile(slopes(posterior), [0.05, 0.5, 0.95], axis=0)
    left.errorbar(
        np.arange(GROUPS) + shift, middle, [middle - low, high - middle], fmt="o", ms=4, color=colour, label=label
    )
left.plot(np.arange(GROUPS), alone, "x", color="0.5", label="group alone")
left.axhline(float(nuts.mean("line")[1]), color="0.8", lw=1, zorder=0)
left.set(xlabel="group (rows)", ylabel="slope", title="slopes of the groups")
left.set_xticks(np.arange(GROUPS), [f"{g}\n({n})" for g, n in enumerate(sizes)], fontsize=8)
left.legend(frameon=False, fontsize=8)

ours, theirs = mean_field.summary(), nuts.summary()
places = np.arange(len(ours))
right.axhline(1.0, color="0.8", lw=1, zorder=0)
right.plot(places, ours["sd"] / theirs["sd"], "o", ms=4, color="C3", label="sd, mean field")
right.plot(places, ours["sd_lr"] / theirs["sd"], "s", ms=4, color="C0", label="sd_lr, linear response")
right.set(ylabel="fraction of the sd of NUTS", title="standard deviations", ylim=(0, 1.6))
right.set_xticks(places[:5], ours.index[:5], rotation=90, fontsize=8)
right.text(16.5, 0.05, "lines of the groups", ha="center", fontsize=8, color="0.4")
right.legend(frameon=False, fontsize=8)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# **The known answer beside ours.** NUTS is the reference; its own Monte Carlo error is about
# :math:`1/\sqrt{\text{ESS}}` standard deviations. The values that made the data are in the last column.

table = pd.DataFrame(
    {"mean": ours["mean"], "NUTS mean": theirs["mean"], "sd": ours["sd"], "sd_lr": ours["sd_lr"],
     "NUTS sd": theirs["sd"], "ESS": theirs["ess"]}
).iloc[:5]  # fmt: skip
table["made with"] = [1.0, 0.5, 0.8, 0.4, 0.5]
print(table.round(3).to_string())
gap = ((ours["mean"] - theirs["mean"]).abs() / theirs["sd"]).max()
print(f"the largest difference of a mean from that of NUTS is {gap:.2f} sd")
