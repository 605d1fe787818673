r"""
Where along the way do the classes come apart?
==============================================

Each layer of a network is a table: a row for each image, a column for each unit. *t-SNE* (van der Maaten and Hinton,
2008) draws such a table in the plane so that neighbours stay neighbours: similarities :math:`p_{ij}` of rows, normal
around each with a scale for which the effective number of neighbours is the perplexity, are kept by similarities
:math:`q_{ij} ∝ (1 + \|y_i - y_j\|^2)^{-1}` of points, with the least

.. math:: \mathrm{KL}(P \,\|\, Q) = \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}} .

The picture is a local minimum in two dimensions; what it seems to show has to be checked in the layer itself. Sizes of
clusters and distances between them are no evidence.
"""

# %%
# A convolutional network of digits, and 500 digits that it did not see.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded
from probdl.viz.embeddings.affinities import affinities
from probdl.viz.embeddings.similarity import Divergence

images, labels = data.digits().images.float(), data.digits().labels
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, held = order[:1297], order[1297:]
with seeded(0):
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
optimiser, g = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
for _ in range(400):
    batch = train[torch.randint(len(train), (64,), generator=g)]
    optimiser.zero_grad()
    F.cross_entropy(model(images[batch]), labels[batch]).backward()
    optimiser.step()
x, y = images[held], labels[held]
right = (model(x).argmax(1) == y).float()
print(f"right: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f}")

# %%
# All layers in one call, and in one figure. Convolutions are left out, whose ReLUs follow.

layers = ["input", "2", "5", "8", "9"]
found = viz.tsne_layers(model, x, layers, n_iter=500)
viz.layer_panel(found, y)
plt.show()

# %%
# Do the classes come apart, or does it only look so? The share of the ten nearest neighbours of an image that have its
# label, in the layer itself and in the picture: means over the images ± their standard errors, for these images as they
# are (their neighbours are common to several, so that the errors are somewhat too small).


def agreement(rows):
    distance = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    same = (y[distance.topk(10, largest=False).indices] == y[:, None]).double().mean(1)
    return f"{same.mean():.3f} ± {same.std() / len(same) ** 0.5:.3f}"


held_by = {"input": x, **viz.activations(model, x, layers[1:])}
table = pd.DataFrame(
    {
        name: {
            "units": rows[0].numel(),
            "in the layer": agreement(rows.flatten(1).double()),
            "in the picture": agreement(found[name].Y),
            "KL": f"{found[name].kl:.3f}",
            "rows that share a point": "; ".join(found[name].notes) or "none",
        }
        for name, rows in held_by.items()
    }
).T
print(table.to_string())

# %%
# The classes come apart from layer to layer, and in each picture they are further apart than in the layer it shows:
# t-SNE closes ranks. Pixels hold much of it already; what a picture of the last layer owes to the network is the
# difference to that of the pixels.

# %%
# **The known answer beside ours.** scikit-learn's exact method minimises the same divergence from the pixels by a
# descent of its own. Both pictures are judged on the same P, and by their trustworthiness: one less a penalty for those
# of a point's twelve nearest neighbours that are not near in 64 dimensions.

from sklearn.manifold import TSNE, trustworthiness

pixels = x.flatten(1).double()
theirs = TSNE(perplexity=30, method="exact", max_iter=500, init="pca", random_state=0).fit_transform(pixels.numpy())
divergence = Divergence(affinities(pixels, 30)[0])
rows = {}
for name, points in (("probdl", found["input"].Y), ("scikit-learn, exact", torch.tensor(theirs).double())):
    trust = trustworthiness(pixels.numpy(), points.numpy(), n_neighbors=12)
    rows[name] = {"KL": f"{float(divergence(points)):.4f}", "trustworthiness(12)": f"{trust:.4f}"}
print(pd.DataFrame(rows).T.to_string())
