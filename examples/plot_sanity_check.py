r"""
Does a map explain the network, or the image?
=============================================

A map of "where the network looks" is a statistic of two things, the network and the image. If it were the same for a
network that has learned nothing, it would say nothing about what was learned. Adebayo et al. (2018) turn this into a
test: draw the weights anew, layer by layer from the output down, and correlate the map after each step with that of
the trained network,

.. math:: \rho_l = \mathrm{Spearman}\bigl(|m(x)|, |m_l(x)|\bigr),

with the layers from the output down to l random in :math:`m_l`. The hypothesis that one hopes to see rejected is "the
map does not depend on the weights": under it ρ stays at 1.

The correlation is averaged over images and over draws of the weights; its standard error takes both as samples.
"""

# %%
# A network of digits with four layers of weights, and five ways to make a map of the class that it sees. The last one
# is an edge detector: the differences between neighbouring pixels. It knows nothing of any network.

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
with seeded(0):
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(250):
    batch = train[torch.randint(len(train), (64,), generator=generator)]
    optimiser.zero_grad()
    F.cross_entropy(network(images[batch]), labels[batch]).backward()
    optimiser.step()

x = images[held]
y = viz.activations(network, x, "output")["output"].argmax(1)
right = (y == labels[held]).double()
print(f"held-out digits: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f} right")


def edges(model, x):
    down, across = x.diff(dim=2, append=x[:, :, -1:]), x.diff(dim=3, append=x[:, :, :, -1:])
    return (down.square() + across.square()).sqrt()


methods = {
    "saliency": lambda model, x: viz.saliency(model, x, y),
    "guided": lambda model, x: viz.guided_backprop(model, x, y),
    "deconvolution": lambda model, x: viz.deconvnet(model, x, "output", y),
    "input × gradient": lambda model, x: x * viz.saliency(model, x, y, reduce=None),
    "edges": edges,
}

# %%
# The class is named for each image: a random network would explain the class that it prefers itself, and two maps of
# two questions need not agree.

found = {name: viz.randomization_check(method, network, x, draws=8) for name, method in methods.items()}
cells = {name: [f"{each[k]:.3f} ± {each.stderr[k]:.3f}" for k in each] for name, each in found.items()}
table = pd.DataFrame(cells, index=[f"down to {k}: {network[int(k)]}".split("(")[0] for k in found["edges"]])
print(table.to_string())

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, each in found.items():
    each.plot(ax, label=name)
ax.set_ylim(-0.1, 1.05)
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
# The maps of one digit: of the trained network on the left, and with one layer more drawn anew from column to column.
# Each is in units of its largest value.


def cascade(method, row):
    """Return the maps of a row, of the trained network and after each step."""
    maps = []
    viz.randomization_check(lambda model, x: maps.append(method(model, x)) or maps[-1], network, x, draws=1)
    sizes = [each.reshape(len(x), 1, 8, 8)[row].abs() for each in maps]
    return torch.stack([size / size.max().clamp(min=1e-12) for size in sizes])


figure, panels = plt.subplots(len(methods), 1, figsize=(6, 6.5), layout="constrained")
for ax, (name, method) in zip(panels, methods.items()):
    viz.show(cascade(method, 3), ax=ax)
    ax.set_ylabel(name, rotation=0, ha="right")
panels[0].set_title("trained, and random from the output down to 8, 6, 2, 0", fontsize="medium")
plt.show()

# %%
# The gradient loses most of its resemblance at the first step and ends near 0. Guided maps and deconvolutions keep much
# more of it, with three of four layers random still: what passes a ReLU is chosen by sign, and that pattern is the
# image's as much as the weights'. Input × gradient stays near 0.9 whatever the network is, where a random map would be
# at 0. That is no merit: half of the pixels of a digit are 0, and so is a product
# with 0, so that the ranks are those of the ink. The same statistic on the 20 brightest pixels of each image only:

brightest = x.flatten(1).topk(20).indices


def on_ink(method):
    return lambda model, x: method(model, x).reshape(len(x), -1).gather(1, brightest)


rows = []
for name, method in methods.items():
    all_pixels, ink = found[name], viz.randomization_check(on_ink(method), network, x, draws=8)
    rows.append([name, *(f"{each['0']:.3f} ± {each.stderr['0']:.3f}" for each in (all_pixels, ink))])
print(pd.DataFrame(rows, columns=["all layers random", "64 pixels", "20 brightest"]).to_string(index=False))

# %%
# **The known answer beside ours.** The edge detector has ρ = 1 exactly. The saliency of a linear model is a row of its
# weights; drawn anew from a law in which all weights are alike they are independent of the old ones, so that ρ has
# expectation 0 and standard deviation :math:`1/\sqrt{d - 1}` for d pixels, whatever the law.

with seeded(0):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
rho = viz.randomization_check(lambda model, x: viz.saliency(model, x, 0), linear, x[:1], draws=400).rows["1"][:, 0]
print(f"edge detector: {min(found['edges'].values())} (1.0)")
print(f"linear model: mean {rho.mean():.4f} ± {rho.std() / 20:.4f} (0)")
print(f"standard deviation {rho.std():.4f} ± {rho.std() / np.sqrt(2 * 399):.4f} ({1 / np.sqrt(63):.4f})")
