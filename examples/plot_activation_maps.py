r"""
Activation maps
===============

A convolutional layer looks for each of its filters w everywhere in the image, and keeps where it was found. Its output
for one image is a stack of *activation maps*, one for each filter c,

.. math:: a_{cij} = \max\Bigl(0, \; b_c + \sum_{k, u, v} w_{ckuv} \, x_{k, i+u, j+v}\Bigr),

and in the layers above the maps below stand in the place of x. A map is large where the pattern of its filter is. The
model assumes that a pattern means the same wherever it stands: move the image, and the map moves along. This is called
*equivariance*, it is exact, and it can be used to check a network, as it ends where pooling or padding breaks it.
"""

# %%
# Digits of 8×8 pixels in an empty image, and a small network that reads them wherever they stand: its last layer takes
# the maximum of each map. It learns on images of 12×12 pixels, and is then shown larger ones.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.signal import correlate2d
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

digits, labels = data.digits()
generator = torch.Generator().manual_seed(0)
order = torch.randperm(len(digits), generator=generator)
train, held = order[:1400], order[1400:]


def placed(images, corner, side):
    """Put images of 8×8 pixels into empty ones, their upper left corner at (corner, corner)."""
    rest = side - 8 - corner
    return F.pad(images, (corner, rest, corner, rest))


with seeded(0):
    model = nn.Sequential(
        nn.Conv2d(1, 9, 3, padding=1), nn.ReLU(),
        nn.Conv2d(9, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
optimiser = torch.optim.Adam(model.parameters(), 1e-2)
for _ in range(300):
    rows = train[torch.randint(len(train), (64,), generator=generator)]
    optimiser.zero_grad()
    F.cross_entropy(model(placed(digits[rows], 2, 12).float()), labels[rows]).backward()
    optimiser.step()
model.double()
x = placed(digits[held], 4, 20)
right = (viz.activations(model, x, "output")["output"].argmax(1) == labels[held]).double()
print(f"held-out digits in 20×20 pixels: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f} right")

# %%
# One digit and all maps of three layers. The first layer answers to strokes and their sides; the second to more of the
# shape; the pool keeps the largest value of each 2×2 places. All maps of a layer are on one scale.

names = {"1": "first layer", "3": "second layer", "4": "after the pool"}
maps = viz.activations(model, x, names)
figure, panels = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", width_ratios=[1, 1.3, 1.3, 1.3])
viz.sample_grid(x[:1], ax=panels[0])
panels[0].set_title("image", fontsize="medium")
for ax, (name, title) in zip(panels[1:], names.items()):
    viz.show(maps[name][0][:, None], ax=ax)
    ax.set_title(title, fontsize="medium")
plt.show()

# %%
# The filters of the second layer take all nine maps of the first: each is a row of nine tiles, whose correlations with
# the maps are added.

viz.filter_grid(viz.filters(model, "2"))
plt.show()

# %%
# **The known answer beside ours.** The maps of the first layer are correlations with the filters, which SciPy computes
# as well. (Pixels are sixteenths and weights were learned in float32, so that their sums are exact in float64.)

weights, bias = viz.filters(model, "0")[:, 0].numpy(), model[0].bias.detach().numpy()
pixels = x[0, 0].numpy()
theirs = np.stack([np.maximum(0, b + correlate2d(pixels, w, mode="same")) for w, b in zip(weights, bias)])
print(f"largest difference to SciPy's correlation: {np.abs(maps['1'][0].numpy() - theirs).max():.1e}")

# %%
# Equivariance: the digit is moved by s pixels, down and across. The maps around it, moved back by s places (by s/2
# after the pool, where a place is two pixels wide), should be what they were. How much of them is not, in percent of
# their length? The formula says nothing at all before the pool; nothing after it for even s; and that there is
# something for odd s, where other pairs of places meet in the pool. Further away, where filters see the border, the
# padding with zeros breaks it, and we do not look. The mean over 397 held-out digits ± its standard error.


def around(values, name, corner):
    """Cut out of the maps what two pixels around the digit hold."""
    start, side = ((corner - 2) // 2, 6) if name == "4" else (corner - 2, 12)
    return values[name][:, :, start : start + side, start : start + side]


def moved(s):
    """Return for each layer how much of its maps does not move along with the digit, for each image."""
    there = viz.activations(model, placed(digits[held], 4 + s, 20), names)
    for name in names:
        here = around(maps, name, 4)
        gap = around(there, name, 4 + s) - here
        yield 100 * gap.flatten(1).norm(dim=1) / here.flatten(1).norm(dim=1)


table = [[s, *(f"{part.mean():.2f} ± {part.std() / len(part) ** 0.5:.2f}" for part in moved(s))] for s in range(1, 5)]
print(pd.DataFrame(table, columns=["moved by", *names.values()]).to_string(index=False))
