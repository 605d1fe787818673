r"""
Three densities, equally far apart and not
==========================================

Three narrow densities :math:`p_1, p_2, p_3` stand on a line: the first two side by side, the third far away. Where no
two of them overlap, every pair has the same total variation, Jensen–Shannon and Hellinger distance, for these compare
the densities point by point and ignore how far mass would have to be moved. The Wasserstein distance is the cost of
moving it, and agrees with the eye: :math:`p_1` and :math:`p_2` are close together.
"""

# %%
# Uniform densities of width 1 at 0, 1.5 and 6, so that all distances are known exactly.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.distributions import Uniform

from probdl import divergences

places = {"p1": 0.0, "p2": 1.5, "p3": 6.0}
laws = {name: Uniform(torch.tensor(at).double(), torch.tensor(at + 1).double()) for name, at in places.items()}
pairs = [("p1", "p2"), ("p1", "p3"), ("p2", "p3")]

# %%
# Each function is handed the laws themselves, and answers in closed form.

functions = [divergences.tv, divergences.js, divergences.hellinger2, divergences.wasserstein, divergences.energy]
table = pd.DataFrame({f"{a}, {b}": {f.__name__: float(f(laws[a], laws[b])) for f in functions} for a, b in pairs})
print(table.round(4).to_string())

# %%
# The same from 400 draws of each, where a table with errors and the reference "how large would it be if both came from
# one distribution?" says what can be told apart.

generator = torch.Generator().manual_seed(0)
draws = {name: at + torch.rand(400, generator=generator, dtype=torch.float64) for name, at in places.items()}
compared = {pair: divergences.compare(draws[pair[0]], draws[pair[1]]) for pair in pairs}

figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), layout="constrained", height_ratios=[1, 1.4])
for i, (name, law) in enumerate(laws.items()):
    top.fill_between([law.low, law.high], 0, 1, alpha=0.4, color=f"C{i}")
    top.text(law.mean, 0.5, name, ha="center")
top.set(yticks=[], xlabel="x", title="three densities")
for i, name in enumerate(["tv", "js", "hellinger2", "wasserstein", "energy"]):
    bottom.bar([i + 0.25 * (k - 1) for k in range(3)], table.loc[name] / table.loc[name].iloc[-1], 0.2,
               color=["#0072B2", "#D55E00", "#009E73"])  # fmt: skip
bottom.set(xticks=range(5), xticklabels=table.index, ylabel="relative to (p2, p3)")
bottom.set_title("bars: (p1, p2), (p1, p3), (p2, p3)")
plt.show()

# %%
# **The known answer beside ours.** :math:`W_1` of two shifted uniforms is the shift.

for pair in pairs:
    shift = places[pair[1]] - places[pair[0]]
    print(f"W1 of {pair[0]} and {pair[1]}: exact {shift}, from draws {compared[pair].estimates['wasserstein']}")
