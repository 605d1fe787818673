r"""
The linear autoencoder finds principal components
=================================================

An autoencoder compresses a row x to a code z = f(x) of fewer numbers, and reconstructs it, g(z). When both maps are
linear and share their weights, the loss is

.. math:: E\,\|x - W W^T x\|^2 ,

for x less its mean, and the best W is known: its columns span the k leading eigenvectors of the covariance of x, and
what is lost is the sum of the other eigenvalues, :math:`λ_{k+1} + … + λ_d` (Baldi and Hornik, 1989). Only the subspace
is determined: W times any rotation does as well, so it is subspaces that are compared here, and not columns. With
weights of their own, :math:`\|x - W V x\|^2`, both maps are determined up to an invertible matrix between them.

So the autoencoder is a nonlinear relative of principal component analysis. Only there does "deep" add something.
"""

# %%
# The digits of 8×8 pixels, without labels. A descent finds what an eigenvalue problem has in closed form: for several k
# by tied weights, and for one by untied ones.

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl import data
from probdl.models import Autoencoder, LinearAutoencoder

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the steps

images = data.digits().images
x = images.flatten(1).numpy()
values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()


def lost(model):
    return float((images - model.reconstruct(images)).square().sum((1, 2, 3)).mean())


sizes = (2, 5, 10, 20)
tied = {k: LinearAutoencoder(k).fit(images, progress=False) for k in sizes}
untied = LinearAutoencoder(10, tied=False).fit(images, progress=False)
print(tied[10].message)

# %%
# A network with hidden layers is not bound to a plane. With as few numbers it loses less, on digits that it has not
# seen too.

train, held = images[:1400], images[1400:]
deep = {
    k: Autoencoder(k, standardise="shared").fit(train.flatten(1), steps=1000 // SHARE, progress=False) for k in (2, 10)
}
linear = {k: LinearAutoencoder(k).fit(train, steps=1000, progress=False) for k in (2, 10)}
rows, of_deep = [], {}
for k in (2, 10):
    errors = {
        "linear": (held - linear[k].reconstruct(held)).square().sum((1, 2, 3)),
        "deep": (held.flatten(1) - deep[k].reconstruct(held.flatten(1))).square().sum(1),
    }
    errors["linear − deep"] = errors["linear"] - errors["deep"]
    of_deep[k] = float(errors["deep"].mean())
    rows.append([k, *(f"{e.mean():.3f} ± {e.std() / len(e) ** 0.5:.3f}" for e in errors.values())])
print("Squared error of a held-out digit, ± standard error:")
print(pd.DataFrame(rows, columns=["k", *errors]).to_string(index=False))

# %%
# Left, what is lost, on the curve of the eigenvalues. Right, the leading eigenvectors, the columns of W, which are
# mixtures of them, and W turned so that its codes are uncorrelated and ordered: the eigenvectors, but for signs.

w = tied[5].components.flatten(1).numpy()
_, turn = np.linalg.eigh(w @ np.cov(x.T) @ w.T)
turned = turn[:, ::-1].T @ w
signs = np.sign((turned * vectors[:, :5].T).sum(1, keepdims=True))

figure = plt.figure(figsize=(12, 4.3), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
ax = left.subplots()
ks = np.arange(0, 31)
ax.plot(ks, [values[k:].sum() for k in ks], color="0.6", lw=2, label="sum of the discarded eigenvalues")
ax.plot(sizes, [lost(m) for m in tied.values()], "o", label="linear autoencoder, tied")
ax.plot(10, lost(untied), "x", ms=10, label="untied")
ax.plot(of_deep.keys(), of_deep.values(), "s", label="deep autoencoder, held-out digits")
ax.set(xlabel="k, numbers in a code", ylabel="squared error of a digit", ylim=(0, None))
ax.legend()
panels = right.subplots(3, 5)
names = ("eigenvectors", "columns of W", "W, turned")
for line, basis, name in zip(panels, (vectors[:, :5].T, w, signs * turned), names):
    for panel, column in zip(line, basis):
        panel.imshow(column.reshape(8, 8), cmap="RdBu_r", vmin=-0.4, vmax=0.4)
        panel.set(xticks=[], yticks=[])
    line[0].set_ylabel(name)
plt.show()

# %%
# **The known answer beside ours.** The loss beside the sum of the discarded eigenvalues, and the largest angle between
# the two subspaces, which would be 0 where they are the same (in degrees; of two random subspaces it is nearly 90).

table = pd.DataFrame(
    [[k, values[k:].sum(), lost(m), lost(m) / values[k:].sum() - 1] for k, m in tied.items()],
    columns=["k", "known", "ours", "relative excess"],
)
for k, model in tied.items():
    cosines = torch.linalg.svdvals(model.components.flatten(1).double() @ torch.tensor(vectors[:, :k]))
    table.loc[table.k == k, "largest angle"] = np.degrees(np.arccos(min(1.0, float(cosines.min()))))
print(table.to_string(index=False, formatters={"relative excess": "{:.1e}".format, "largest angle": "{:.3f}".format}))
print(f"untied, k = 10: {lost(untied):.6f}, relative excess {lost(untied) / values[10:].sum() - 1:.1e}")
