r"""
Expectation propagation on groups of data, across processes
===========================================================

Data may lie in pieces: hospitals that each hold their own patients, or files too large to be read at once. Expectation
propagation over groups (Vehtari and others, 2020, "Expectation propagation as a way of life") asks each piece for one
thing only: the moments of its *tilted distribution*, its own likelihood times a Gaussian that stands for everything
else. Effects that belong to one piece are integrated out there and never leave it.

Here a hierarchical logistic regression: 12 hospitals, each with its own log-odds of recovery around a common mean, and
one effect of treatment. Four groups of three hospitals each, worked on by two processes, against the same model fitted
whole by NUTS.
"""

# %%
# The model is an ordinary Pyro program; a plate holds the hospitals, another the patients.

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from probdl.inference import NUTS, GroupEP, compare_posteriors, fit

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the draws

HOSPITALS, PATIENTS, TOGETHER = 12, 25, 3  # patients in each hospital, hospitals in each group


def model(recovered, treated, hospital):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    effect = pyro.sample("effect", dist.Normal(0.0, 2.0))
    with pyro.plate("hospitals", HOSPITALS):
        level = pyro.sample("level", dist.Normal(mean, spread))
    with pyro.plate("patients", len(recovered)):
        pyro.sample("recovered", dist.Bernoulli(logits=level[hospital] + effect * treated), obs=recovered)


rng = np.random.default_rng(4)
truth = {"mean": 0.5, "spread": 0.8, "effect": 0.7}
hospital = np.repeat(np.arange(HOSPITALS), PATIENTS)
levels = truth["mean"] + truth["spread"] * rng.normal(size=HOSPITALS)
treated = rng.integers(0, 2, len(hospital)).astype(float)
logits = levels[hospital] + truth["effect"] * treated
recovered = (rng.random(len(hospital)) < 1 / (1 + np.exp(-logits))).astype(float)

# %%
# A label for each row says to which group it belongs, and hospitals stay whole, so that ``level`` is found to be the
# groups' own. ``spread`` is positive: it is approximated by its logarithm, and its prior, which is not Gaussian there,
# has a site of its own. The script is guarded, as processes that start anew read it again.


def main():
    groups = hospital // TOGETHER
    one = fit(model, recovered, treated, hospital, method=GroupEP(groups=groups), progress=False)
    two = fit(model, recovered, treated, hospital, method=GroupEP(groups=groups, processes=2), progress=False)
    print(two.message)
    print(two.summary().head(3).round(3).to_string())
    print(f"log evidence {two.log_evidence}")
    same = all(torch.equal(one.mean(k), two.mean(k)) and torch.equal(one.sd(k), two.sd(k)) for k in one.names)
    print(f"two processes give what one gives, to the last bit: {same}")
    return two


# %%
# The same entry point takes data that no process holds as a whole: ``groups="given"`` and a list of callables, each of
# which loads one group in the process that works on it (a file, a query). Each hospital group then counts its own.


class Load:
    """Stands for a file with the patients of some hospitals."""

    def __init__(self, group):
        self.group = group

    def __call__(self):
        rows = hospital // TOGETHER == self.group
        return recovered[rows], treated[rows], hospital[rows]


def from_files():
    method = GroupEP(groups="given", local=("level",), processes=2)
    return fit(model, [Load(g) for g in range(HOSPITALS // TOGETHER)], method=method, progress=False)


# %%
# On a cluster nothing changes but the surroundings: joblib hands the groups to whatever backend is chosen, such as
# Dask or Ray. ``GroupEP(processes=None)`` takes its number of workers from there::
#
#     from dask.distributed import Client
#     import joblib
#
#     client = Client("scheduler:8786")
#     with joblib.parallel_config(backend="dask"):
#         posterior = fit(model, loaders, method=GroupEP(groups="given"))
#
# and with Ray ``ray.util.joblib.register_ray()`` and ``backend="ray"``.

# %%
# **Left:** the effects of the hospitals by groups, beside NUTS on the whole. **Right:** the shared latents.


def show(ours, whole, given):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=[2, 1])
    order = whole.mean("level").argsort()
    at = torch.arange(1, HOSPITALS + 1)
    for posterior, colour, shift, label in (
        (whole, "0.5", -0.15, "NUTS, whole"),
        (ours, "#009E73", 0.15, "EP, groups"),
    ):
        mean, sd = posterior.mean("level")[order], posterior.sd("level")[order]
        axes[0].errorbar(at + shift, mean, 2 * sd, fmt="o", ms=3, lw=1, color=colour, label=label)
    axes[0].plot(at, levels[order], "x", color="black", ms=5, label="truth")
    axes[0].set(
        xlabel="hospital, in the order of its mean",
        ylabel="log-odds of recovery",
        title="effects of hospitals, mean ± 2 sd",
        xticks=at,
    )
    axes[0].legend(frameon=False, loc="upper left")
    for k, (posterior, colour, label) in enumerate(
        ((whole, "0.5", "NUTS, whole"), (ours, "#009E73", "EP, groups"), (given, "#0072B2", "EP, from files"))
    ):
        for i, name in enumerate(truth):
            axes[1].errorbar(posterior.mean(name), i + 0.15 * (k - 1), xerr=2 * posterior.sd(name), fmt="o", ms=4,
                             color=colour, label=label if i == 0 else None)  # fmt: skip
    axes[1].plot(list(truth.values()), range(3), "x", color="black", ms=6, label="truth")
    axes[1].set(yticks=range(3), yticklabels=list(truth), title="what all groups share")
    axes[1].set_ylim(2.6, -1.3)
    axes[1].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    plt.show()


if __name__ == "__main__":
    ours, given = main(), from_files()
    nuts = NUTS(draws=250 // SHARE, warmup=100 // SHARE, chains=2)
    whole = fit(model, recovered, treated, hospital, method=nuts, progress=False)
    show(ours, whole, given)

# %%
# **The known answer beside ours**: the whole model by NUTS, with Monte Carlo errors of both.

if __name__ == "__main__":
    table = compare_posteriors(ours, whole)
    print(table.head(3).round(3).to_string())
    effects = table.iloc[3:]
    print(f"hospitals: largest shift {effects['shift'].abs().max():.2f} sd (Monte Carlo error of NUTS about "
          f"{effects['shift_error'].mean():.2f}), mean sd ratio {effects['ratio'].mean():.3f}")  # fmt: skip
    rows = {"EP, groups": ours, "EP, from files": given, "NUTS, whole": whole}
    means = {label: {name: float(p.mean(name)) for name in truth} for label, p in rows.items()}
    print(pd.DataFrame.from_dict(means | {"truth": truth}, orient="index").round(3).to_string())
    check = ours.check()
    print(f"log evidence: groups {ours.log_evidence}; importance sampling on the whole {check.log_evidence}")
