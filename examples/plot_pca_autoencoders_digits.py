r"""
Principal components and autoencoders of digits
===============================================

Principal components are the best linear code of k numbers: among all pairs of linear maps they lose least,

.. math:: \min_{V, W} \frac1n \sum_i |u_i - W V u_i|^2 = \sum_{j > k} λ_j,

with λ the eigenvalues of the covariance, in descending order. A *linear autoencoder* minimises the left side by
gradient descent, and so must arrive at the right one, in the same subspace (Baldi and Hornik, 1989). A *deep
autoencoder* puts networks in the place of V and W: it can do better on the rows that it learnt from. Does it on others?
"""

# %%
# 1200 digits to learn from and 597 to judge, as rows of 64 pixels. Errors are sums of squares over a row, as shares of
# the variance.

import matplotlib.pyplot as plt
import pandas as pd
import torch

from probdl import data, viz
from probdl.models import PCA, Autoencoder, LinearAutoencoder

images = data.digits().images.flatten(1)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, held = images[order[:1200]], images[order[1200:]]
total = float((held - train.mean(0)).square().sum(1).mean())


def loss(model, x):
    """Return the error of each row in shares of the variance."""
    return (x - model.reconstruct(x)).square().sum(1) / total


DIMENSIONS = (2, 4, 8, 16)
HOW = {"standardise": "shared", "dtype": torch.float64}  # one scale for all pixels
fits = {
    "PCA": {k: PCA(k, **HOW).fit(train) for k in DIMENSIONS},
    "linear autoencoder": {k: LinearAutoencoder(k, **HOW).fit(train, steps=500, progress=False) for k in DIMENSIONS},
    "deep autoencoder": {
        k: Autoencoder(k, hidden=(128,), standardise="shared").fit(train, steps=900, progress=False) for k in DIMENSIONS
    },
}
losses = {name: {k: loss(model, held) for k, model in models.items()} for name, models in fits.items()}
table = pd.DataFrame(
    {
        name: {k: f"{e.mean():.3f} ± {e.std() / len(e) ** 0.5:.3f}" for k, e in found.items()}
        for name, found in losses.items()
    }
).rename_axis("k")
print(table)

# %%
# The errors fall with k, and the deep network is ahead where codes are short. Below them stand digits as eight numbers
# keep them.

figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(2, 3))
for k, (name, found) in enumerate(losses.items()):
    means, errors = zip(*[(float(e.mean()), 2 * float(e.std()) / len(e) ** 0.5) for e in found.values()])
    panels[0].errorbar(
        DIMENSIONS, means, errors, label=name, color=viz.style.colour(k), linestyle=viz.style.STYLES[k], capsize=3
    )
panels[0].set(xlabel="numbers in a code", ylabel="share of variance lost, held out", xscale="log", ylim=(0, None))
panels[0].set_xticks(DIMENSIONS, map(str, DIMENSIONS))
panels[0].minorticks_off()
panels[0].legend(frameon=False)
viz.style.tidy(panels[0])

some = torch.cat([held[data.digits().labels[order[1200:]] == digit][:1] for digit in range(10)])
rows = [some, *(models[8].reconstruct(some) for models in fits.values())]
viz.sample_grid(torch.cat(rows).reshape(-1, 1, 8, 8).clamp(0, 1), columns=10, ax=panels[1])
panels[1].set_yticks([3.5 + 9 * i for i in range(4)], ["held out", "PCA", "linear", "deep"])
plt.show()

# %%
# Which differences are more than chance? The same digits are judged by both, so that errors are compared row by row.

for k in DIMENSIONS:
    gap = losses["PCA"][k] - losses["deep autoencoder"][k]
    print(f"k = {k:2d}: PCA loses {gap.mean():+.4f} ± {gap.std() / len(gap) ** 0.5:.4f} more than the deep autoencoder")

# %%
# The eigenvalues have errors too, here λ√(2/n), asymptotically and for normal rows, which digits are not: the interval
# says what sampling alone does, no more.

found = fits["PCA"][4].explained_variance_ratio
for share, error in zip(found.value, found.stderr):
    print(f"{share:.3f} ± {error:.3f} of the variance")

# %%
# **The known answer beside ours.** On the rows of the fit, the loss of the linear autoencoder must be the sum of the
# discarded eigenvalues (with divisor n), and its subspace that of the components. The sine of the largest angle between
# the two is 0 if they are the same.

records = []
for k in DIMENSIONS:
    components, linear = (fits[name][k].components for name in ("PCA", "linear autoencoder"))
    bases = [torch.linalg.qr(w.T)[0] for w in (components, linear)]
    sine = torch.linalg.matrix_norm(bases[1] - bases[0] @ (bases[0].T @ bases[1]), 2)
    discarded = torch.linalg.eigvalsh(torch.cov(train.T, correction=0)).flip(0)[k:].sum()
    loss_of = [float((train - fits[name][k].reconstruct(train)).square().sum(1).mean()) for name in fits]
    records.append([k, float(discarded), *loss_of, float(sine)])
columns = ["k", "discarded λ", "PCA", "linear", "deep", "sine of angle"]
print(pd.DataFrame(records, columns=columns).round(5).to_string(index=False))

# %%
# The linear network ends where algebra says, to five digits of its loss. The deep one lies below the discarded
# eigenvalues, which bind linear maps only: two curved coordinates lose about as much as four straight ones. Had it
# learnt the rows by heart, its lead would be gone on held-out digits.
