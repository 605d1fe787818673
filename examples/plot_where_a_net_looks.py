r"""
Where does a network look?
==========================

The score :math:`S_c(x)` of a class is a function of the pixels, and its derivative says which of them it would notice
a change in: the *saliency* :math:`|∂S_c / ∂x|` (Simonyan, Vedaldi and Zisserman, 2014). *Guided back-propagation* and
the *deconvolutional network* change the chain rule at each ReLU, :math:`\max(0, u)`, where the derivative g becomes

.. math:: g \, 1[u > 0] \;\text{(saliency)}, \qquad \max(g, 0) \, 1[u > 0] \;\text{(guided)}, \qquad
          \max(g, 0) \;\text{(deconvolution)}.

Such maps are pretty, and pretty maps are believed. So we ask where the answer is known. An image here is two digits
side by side. The label is the left one; the right one says nothing. A network that has learned this looks left.
"""

# %%
# Pairs of digits, 8×16 pixels, and a small convolutional network.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

images, labels = data.digits().images.float(), data.digits().labels
generator = torch.Generator().manual_seed(0)
order = torch.randperm(len(images), generator=generator)
train, held = order[:1400], order[1400:]


def pairs(index, n):
    """Draw the left and the right digit independently."""
    left, right = index[torch.randint(len(index), (2, n), generator=generator)]
    return torch.cat([images[left], images[right]], 3), labels[left]


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16 * 4 * 8, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


untrained, model = network(), network()
optimiser = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(300):
    x, y = pairs(train, 64)
    optimiser.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimiser.step()

x, y = pairs(held, 400)
right = viz.activations(model, x, "output")["output"].argmax(1) == y
print(f"held-out pairs: {right.float().mean():.3f} ± {right.float().std() / 20:.3f} right")
print({name: tuple(size[1:]) for name, size in viz.layers(model, x).items()})

# %%
# The maps of the winning class, for four pairs.

methods = {
    "saliency": lambda net: viz.saliency(net, x),
    "guided": lambda net: viz.guided_backprop(net, x)[:, 0],
    "deconvolution": lambda net: viz.deconvnet(net, x, "output", net(x).argmax(1))[:, 0],
}
maps = {name: method(model) for name, method in methods.items()}
figure, panels = plt.subplots(4, 1, figsize=(10, 6), layout="constrained")
viz.sample_grid(x[:4], columns=4, ax=panels[0])
panels[0].set_ylabel("image")
for ax, (name, values) in zip(panels[1:], maps.items()):
    viz.show(values[:4, None], ax=ax)
    ax.set_ylabel(name)
plt.show()

# %%
# **The known answer beside ours.** The share of a map's absolute values that lies on the left half: all of it would, in
# a network that had learned to ignore the right half altogether, and half of it in one that does not know left from
# right, as before training. The mean over 400 held-out pairs, ± its standard error.


def left_half(values):
    size = values.abs().sum(1)
    shares = size[:, :8].sum(1) / size.sum(1)
    return f"{shares.mean():.3f} ± {shares.std() / np.sqrt(len(shares)):.3f}"


table = pd.DataFrame(
    [[name, left_half(method(untrained)), left_half(maps[name])] for name, method in methods.items()],
    columns=["map", "untrained", "trained"],
)
print(table.to_string(index=False))

# %%
# All three find the left half, and none of them does before training. The guided map leaves more on the right than the
# gradient does: what it keeps at each ReLU is chosen by sign, not by how much it moves the score, so that edges of the
# image show too (Adebayo et al., 2018). Where a map is to be evidence, take the gradient.
