r"""
Synthetic tables: useful, and private?
======================================

A synthetic table is drawn from a model of a real one, to be handed out in its place. Two demands pull at it. It should
have the law of the real table: no classifier should tell the two apart, and what is learnt from it should hold for real
rows. And it should not give away rows that the model was trained on. The second can be tested like the first. Let A be
the distance of a held-out row to its nearest training row and B that of a synthetic row; then

.. math:: P(A > B) + \tfrac12 P(A = B)

is one half where synthetic rows are like new rows, and rises to one as they copy. A small distance alone says nothing,
since rows of other people may also be close to a training row; how close, the held-out rows tell. This is evidence of
copying or of none; it is no guarantee of privacy, as differential privacy would be.

Here are 569 biopsies, eight measurements of cell nuclei each, and the diagnosis. Four synthetic tables: from a
variational autoencoder, from a Wasserstein autoencoder; with each column drawn apart from the others; and copies of
training rows. New patients, who took part in nothing, show what real rows score.
"""

# %%
# A mixed table: numbers, and a column of text. Its parts train the models, judge them, and stand in for new patients.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from probdl import data
from probdl.models import VAE, WAEMMD, evaluate

X, y = data.breast_cancer(as_frame=True)
X = X.filter(like="mean").rename(columns=lambda name: name.removeprefix("mean "))
table = X.drop(columns=["perimeter", "area"]).assign(diagnosis=np.where(y == 1, "benign", "malignant"))
order = np.random.default_rng(0).permutation(len(table))
train, held, new = (table.iloc[part] for part in np.split(order, [329, 449]))
n = len(held)

# %%
# Both models take the table as it is: the diagnosis is a categorical variable of the VAE's likelihood. What they make
# has the same columns and types.

vae = VAE(latent_dim=4).fit(train, progress=False)
wae = WAEMMD(latent_dim=4).fit(train, epochs=200, progress=False)
print(vae.message)
print(vae.sample(3).round(3).to_string())

apart = {name: train[name].sample(n, replace=True, random_state=i).to_numpy() for i, name in enumerate(table)}
tables = {
    "VAE": vae,
    "WAE-MMD": wae,
    "columns apart": pd.DataFrame(apart),
    "copies": train.sample(n, random_state=0),
    "new patients": new,
}

# %%
# One call judges them all: c2st is the share of rows that a classifier attributes rightly, .5 if it cannot; coverage
# the share of held-out rows with a synthetic row nearby. Each stands over what rows of one law would give.

wanted = ["energy", "c2st", "precision", "coverage", "memorisation", "near_copies"]
evaluation = evaluate(tables, held, train=train, measures=wanted)
print(evaluation.table["value"].unstack()[list(tables)].loc[wanted].round(3).to_string())
evaluation.plot()
plt.show()

# %%
# The columns apart keep every margin and lose the dependence: private and useless. Copies have the law and no privacy:
# precision and coverage praise them, and only the distances to the training rows find them out. Between these two
# stand the models. The decoder of a WAE adds no noise, so its rows stay near the surface on which training rows lie.

numbers = [name for name in table if name != "diagnosis"]
scale = held[numbers].std()


def nearest(rows):
    """Return for each row the distance to the nearest training row, in standard deviations."""
    a, b = (part[numbers].to_numpy() / scale.to_numpy() for part in (rows, train))
    return np.sort(np.linalg.norm(a[:, None] - b, axis=2).min(1))


figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
shown = {"held-out rows": held} | {k: t.sample(n, seed=0) if k in ("VAE", "WAE-MMD") else t for k, t in tables.items()}
for name, rows in shown.items():
    style = {"color": "black", "lw": 2.5} if name == "held-out rows" else {"lw": 1.5}
    ax.step(nearest(rows), np.arange(1, n + 1) / n, where="post", label=name, **style)
ax.set(xlim=(-0.1, 4), xlabel="distance to the nearest training row", ylabel="share of rows below")
ax.legend(frameon=False)
plt.show()

# %%
# **The known answer beside ours.** Copies have memorisation 1 and near copies 1, whatever the data. Rows of the law of
# the held-out ones, which new patients are, have memorisation 1/2, near copies k/(n+1) with k = 6 of n = 120 held-out
# distances, a classifier's accuracy 1/2, and coverage 1 − C(n−1, 5)/C(2n−1, 5): all exact, for any law. In units of
# the deviation that chance gives, the new patients lie near 0, and the models tell how far they are from it.

for name in ("copies", "new patients"):
    for measure in ("memorisation", "near_copies", "c2st", "coverage"):
        e = evaluation.estimates[measure, name]
        reference = evaluation.table.loc[(measure, name), ["reference", "reference_sd"]]
        known = 1.0 if name == "copies" and measure in ("memorisation", "near_copies") else reference["reference"]
        print(f"{name:>13}, {measure:<13} known {known:.3f}, ours {e.value:.3f} ± {e.stderr:.3f}")
deviations = evaluation.table.assign(z=lambda t: (t["value"] - t["reference"]) / t["reference_sd"])["z"].unstack()
print(deviations.loc[["c2st", "coverage", "memorisation"], list(tables)].round(1).to_string())
