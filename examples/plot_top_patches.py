r"""
What drives a unit most?
========================

A unit of a layer is a function of the image, and a simple way to ask what it looks for is to look at the images in
which it is largest (Zeiler and Fergus, 2014). For a channel c of a convolutional layer, the nine images x with the
largest :math:`\max_{ij} a_{cij}(x)`; of each the part that the unit at the maximum can see, its *receptive field*; and
below it what of that part came through to the unit, its projection by the deconvolutional network.

This is a search for extremes, and extremes deceive. A unit has nine top images whether or not it looks for anything,
and whoever sees nine patches finds something that they share. So we ask first where the answer is known, and then
whether the nine of a network that learned have more in common than those of one that did not.
"""

# %%
# **The known answer beside ours.** Noise of standard deviation σ, and in nine of 500 images a template t of 5×5 pixels
# at a random place. The filter t / ‖t‖ followed by a ReLU is the best detector there is (the matched filter): where the
# template is, its output is Normal with mean ‖t‖ and standard deviation σ; elsewhere its mean is 0. The other 491
# images have 400 places each, and the ninth largest of so many Normal numbers is about 3.9 σ: the template is found as
# long as ‖t‖ is well above that.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

generator = torch.Generator().manual_seed(0)
template = torch.tensor(
    [[-1, -1, 1, -1, -1], [-1, 1, -1, 1, -1], [1, -1, -1, -1, 1], [-1, 1, -1, 1, -1], [-1, -1, 1, -1, -1]]
).double()
template = template - template.mean()
length = float(template.norm())
detector = nn.Sequential(nn.Conv2d(1, 2, 5, bias=False), nn.ReLU()).double()
detector[0].weight.data[1, 0] = template / length


def search(sigma):
    """Return the patches that are found, and which of them are a planted template in its exact place."""
    images = sigma * torch.randn(500, 1, 24, 24, generator=generator, dtype=torch.float64)
    rows, corners = (
        torch.randperm(500, generator=generator)[:9].tolist(),
        torch.randint(20, (9, 2), generator=generator),
    )
    planted = {row: [top, top + 5, left, left + 5] for row, (top, left) in zip(rows, corners.tolist())}
    for row, (top, bottom, left, right) in planted.items():
        images[row, 0, top:bottom, left:right] += template
    found = viz.top_patches(detector, images, "1", channel=1, k=9)
    return found, torch.tensor([planted.get(i) == box for i, box in zip(found.index.tolist(), found.box.tolist())])


table = []
for sigma in (0.3, 0.6, 0.9, 1.2, 1.5):
    found, right = search(sigma)
    values = found.value[right]
    there = f"{values.mean():.2f} ± {sigma / len(values) ** 0.5:.2f}" if len(values) else "-"
    ninth = sigma * norm.isf(9 / (491 * 400))
    table.append([sigma, f"{ninth:.2f}", f"{length:.2f}", there, f"{int(right.sum())} of 9"])
columns = ["σ", "ninth of the noise", "‖t‖", "output at what was found", "right image and box"]
print(pd.DataFrame(table, columns=columns).to_string(index=False))
search(0.6)[0].plot()
plt.show()

# %%
# The patches in the upper row would not have told anybody what they have in common; the projections below, which are
# the filter times the output, do. Where the noise is larger, only the templates that it helped are found, and what the
# detector says there is too large: extremes are a selection.
#
# Now a network that reads digits.

digits, labels = data.digits()
digits = digits.float()
order = torch.randperm(len(digits), generator=generator)
train, held = order[:1000], order[1000:]


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


untrained, model = network(), network()
optimiser = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(300):
    rows = train[torch.randint(len(train), (64,), generator=generator)]
    optimiser.zero_grad()
    F.cross_entropy(model(digits[rows]), labels[rows]).backward()
    optimiser.step()
right = (viz.activations(model, digits[held], "output")["output"].argmax(1) == labels[held]).double()
print(f"held-out digits: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f} right")

# %%
# Two channels of the second layer, whose units see 5×5 pixels, and a unit of the last hidden layer, which sees all.

figure, panels = plt.subplots(3, 1, figsize=(10, 7.5), layout="constrained")
for ax, (layer, channel) in zip(panels, [("3", 0), ("3", 5), ("6", 2)]):
    found = viz.top_patches(model, digits[held], layer, channel)
    found.plot(ax=ax)
    ax.set_title(f"layer {layer}, channel {channel}; labels {labels[held][found.index].tolist()}", fontsize="medium")
plt.show()

# %%
# Do the nine have more in common than chance gives? The share of the most frequent label among the nine of a channel,
# the mean over the channels that are active at all, ± its standard error. Nine images at random have one as well.


def agreement(index):
    """Return the mean share of the most frequent label in each column of nine images."""
    counts = F.one_hot(labels[held][index], 10).sum(0)
    share = counts.amax(1).double() / len(index)
    return f"{share.mean():.2f} ± {share.std() / len(share) ** 0.5:.2f}"


def nine(net, layer):
    values = viz.activations(net, digits[held], layer)[layer].flatten(2 if layer != "6" else 1)
    largest = values.amax(2) if values.ndim == 3 else values
    return agreement(largest[:, largest.amax(0) > 0].topk(9, 0).indices)


chance = agreement(torch.randint(len(held), (9, 2000), generator=generator))
names = {"1": "first layer", "3": "second layer", "6": "last hidden layer"}
table = [[title, chance, nine(untrained, layer), nine(model, layer)] for layer, title in names.items()]
print(pd.DataFrame(table, columns=["nine of a channel", "by chance", "untrained", "trained"]).to_string(index=False))

# %%
# In every layer the nine agree far more often than nine random images, and in the first two they did so before the
# network had learned anything: images of one digit are alike, and whatever a unit computes is large for images that are
# alike. That top images share a label is no evidence that the unit was made for it. Training adds to it in the last
# hidden layer, and only the column beside it shows how much.
