r"""
Nearest neighbours, in pixels and in the last hidden layer
==========================================================

Which images does a network take for alike? Those whose vectors h(x) in its last hidden layer are near to each other,
by :math:`\|h(x) - h(x')\|_2`. The distance of the pixels, :math:`\|x - x'\|_2`, asks for something else: that strokes
cover each other. Two images of one digit that stand two pixels apart are then as different as images of two digits.

The claim of the course, to be tested: neighbours in the last hidden layer have the query's label, neighbours in pixels
often do not, and the difference is large where images are moved. Both are classifiers, too: the share of neighbours
with the right label estimates the probability of a class near a point, without a model for it.
"""

# %%
# Digits of 8×8 pixels at random places in images of 16×16, and for comparison in the middle. The network learns from
# moved digits, whose labels it sees; queries and the images among which neighbours are sought are held out from it.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

digits, labels = data.digits()
digits = digits.float()
generator = torch.Generator().manual_seed(0)
order = torch.randperm(len(digits), generator=generator)
train, among, queries = order[:1000], order[1000:1500], order[1500:]


def placed(images, moved=True):
    """Put each image at a place of its own, or all in the middle."""
    down, across = torch.randint(9, (2, len(images)), generator=generator) if moved else torch.full((2, len(images)), 4)
    canvas = torch.zeros(len(images), 16, 16)
    row = torch.arange(len(images))[:, None, None]
    canvas[row, (down[:, None] + torch.arange(8))[:, :, None], (across[:, None] + torch.arange(8))[:, None]] = images[
        :, 0
    ]
    return canvas[:, None]


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


untrained, model = network(), network()
optimiser = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(400):
    rows = train[torch.randint(len(train), (64,), generator=generator)]
    optimiser.zero_grad()
    F.cross_entropy(model(placed(digits[rows])), labels[rows]).backward()
    optimiser.step()

images, asked = placed(digits[among]), placed(digits[queries])

# %%
# Six queries, each with its five neighbours.

figure, panels = plt.subplots(1, 2, figsize=(10, 6), layout="constrained")
for ax, (title, layer) in zip(panels, {"in pixels": "input", "in the last hidden layer": None}.items()):
    _, index = viz.nearest(model, asked[:6], images, layer)
    rows = torch.cat([asked[:6, None], images[index]], 1)
    viz.sample_grid(rows.flatten(0, 1), columns=6, ax=ax)
    ax.axvline(16, color="#E69F00", linewidth=3)
    ax.set_title(f"the query, and its neighbours {title}", fontsize="medium")
plt.show()

# %%
# How many of the five neighbours have the query's label? Neighbours of one query are not independent; queries are. The
# mean over the 297 queries of each one's share, ± its standard error. By chance it would be about .10.


def share(net, layer, moved):
    x, q = (placed(digits[rows], moved) for rows in (among, queries))
    _, index = viz.nearest(net, q, x, layer, k=5)
    right = (labels[among][index] == labels[queries][:, None]).double().mean(1)
    return f"{right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f}"


spaces = {
    "pixels": (model, "input"),
    "last hidden layer, untrained": (untrained, None),
    "first layer": (model, "1"),
    "last hidden layer": (model, None),
}
table = [[name, share(*where, moved=False), share(*where, moved=True)] for name, where in spaces.items()]
print(pd.DataFrame(table, columns=["neighbours in", "digits in the middle", "moved digits"]).to_string(index=False))

# %%
# In the middle, pixels are good: the digits were centred by those who collected them. Moved, they are of little use,
# and the first layer, or the last one before training, are no better. What carries the label was learned.
#
# **The known answer beside ours.** The neighbours themselves are those that scikit-learn finds in the same vectors.

distance, index = viz.nearest(model, asked, images)
hidden = [viz.activations(model, x, "8")["8"].numpy() for x in (images, asked)]
theirs = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(hidden[0]).kneighbors(hidden[1])
print(f"neighbours that are the same: {(index.numpy() == theirs[1]).mean():.1%}")
print(f"largest difference of a distance, relative: {np.abs(distance.numpy() / theirs[0] - 1).max():.1e}")
