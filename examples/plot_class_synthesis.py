r"""
What would a network most like to see?
======================================

The score :math:`S_c(x)` of class c is a function of the pixels. Where is it largest? On real images a classifier says
something about images; on the image that maximises

.. math:: S_c(x) - \lambda \|x\|_2^2

it says something about itself (Simonyan, Vedaldi and Zisserman, 2014). The penalty makes the question well posed: the
score of a linear model, and of a network of ReLUs far out, grows without end along a ray. In the language of Bayes it
is a prior, :math:`x \sim N(0, I/2λ)`, and the image is the mode of :math:`e^{S_c(x)}` times that prior. This prior is
not the law of the digits, which is why the images do not look like digits.

For logistic regression the maximiser is known: the weights of the class over 2λ. So the pictures begin there.
"""

# %%
# Two classifiers of digits of 8×8 pixels: logistic regression, and a network with two convolutions.

import matplotlib.pyplot as plt
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


def trained(network, steps, penalty):
    optimiser = torch.optim.Adam(network.parameters(), 3e-3, weight_decay=penalty)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,), generator=generator)]
        optimiser.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimiser.step()
    return network.eval()


with seeded(0):
    linear = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 300, 1e-2)
    network = trained(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
        ), 300, 1e-3,
    )  # fmt: skip
models = {"logistic regression": linear, "network": network}
for name, model in models.items():
    right = viz.activations(model, images[held], "output")["output"].argmax(1) == labels[held]
    print(f"{name}: {right.float().mean():.3f} ± {right.float().std() / len(held) ** 0.5:.3f} of held-out digits right")

# %%
# The maximisers of the ten scores, with λ = 0.1 and any value of a pixel; and those of the network with pixels that
# stay between 0 and 1, as those of the data do. Each is drawn in units of its largest pixel: red is ink that speaks for
# the class, blue is ink that would speak against it.

free = {name: viz.synthesize(model, (1, 8, 8), range(10), l2=0.1) for name, model in models.items()}
boxed = viz.synthesize(network, (1, 8, 8), range(10), l2=0.1, bounds=(0, 1))


def strip(x):
    """Put images beside one another, each in units of its largest pixel."""
    return torch.cat(list(F.pad(x[:, 0] / x.abs().amax((1, 2, 3))[:, None, None], (0, 1))), 1)


figure, panels = plt.subplots(3, 1, figsize=(10, 4.6), layout="constrained")
for ax, (name, found) in zip(panels, free.items()):
    viz.show(strip(found.x), ax=ax)
    ax.set_ylabel(name)
viz.sample_grid(boxed.x, columns=10, ax=panels[2])
panels[2].set_ylabel("network in [0, 1]")
plt.show()

# %%
# Do they convince? The largest score that any of the 1,797 digits reaches in each class, and that of the image made for
# it. Within the range of pixels of the data it is higher by a third to nine tenths; without that restraint six times
# as high or more. A score is no measure of how typical an image is.

with torch.no_grad():
    best, of_boxed, of_free = network(images).amax(0), network(boxed.x), network(free["network"].x)
table = pd.DataFrame(
    {
        "class": range(10),
        "best digit": best.double(),
        "made in [0, 1]": boxed.score.double(),
        "made freely": free["network"].score.double(),
        "taken for": of_boxed.argmax(1),
        "and": of_free.argmax(1),
    }
)
print(table.round(1).to_string(index=False))

# %%
# How would one know that the ascent failed? The objective may not fall, and where the score is smooth its derivative
# vanishes at the end. A network of ReLUs has kinks, at which it need not, and more than one maximum; so we ask where
# other starts end.

others = [viz.synthesize(network, (1, 8, 8), range(4), l2=0.1, seed=seed) for seed in (1, 2)]
ends = torch.stack([found.trace[:4, -1] for found in (free["network"], *others)])
print("the mean objective of classes 0 to 3 from three seeds:", ", ".join(f"{end:.1f}" for end in ends.mean(1)))
print(f"standard deviation over seeds, of a class: {ends.std(0).mean() / ends.mean():.1%} of the objective")

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for c, trace in enumerate(free["network"].trace):
    ax.plot(trace / trace[-1], color=viz.style.CLASSES[c], label=str(c))
ax.set_xlabel("iteration of L-BFGS")
ax.set_ylabel("objective, share of its last value")
ax.set_xlim(0, 40)
ax.legend(ncols=2, frameon=False, title="class")
plt.show()

# %%
# **The known answer beside ours.** For logistic regression the maximiser is :math:`w_c / 2λ`, and with bounds the same,
# clipped; for all ten classes, relative to the largest pixel.

weights = linear[1].weight.detach().reshape(10, 1, 8, 8) / (2 * 0.1)
inside = viz.synthesize(linear, (1, 8, 8), range(10), l2=0.1, bounds=(0, 1))
for name, found, known in [("free", free["logistic regression"], weights), ("in [0, 1]", inside, weights.clamp(0, 1))]:
    print(f"{name}: largest difference {(found.x - known).abs().max() / known.abs().max():.1e}")
