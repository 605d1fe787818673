r"""
Occlusion: cover a window, and see what the score loses
=======================================================

A derivative says what a small change would do. *Occlusion* makes a large one (Zeiler and Fergus, 2014): a window W of
the image is covered by a baseline b, and what the score S of a class loses is written down,

.. math:: Δ_W = S(x) - S(x^W), \qquad x^W_i = b_i \text{ for } i \in W, \; x_i \text{ elsewhere,}

for each place of the window; a pixel's value is the mean over the windows that cover it. Nothing is assumed of the
model, which is only evaluated. What is estimated depends on the baseline: a digit with a black patch is no digit, and
the network was never asked about such images. So two baselines are compared.
"""

# %%
# Digits of 8×8 pixels, a convolutional network, and its accuracy for digits that it did not see.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

images, labels = data.digits().images.float(), data.digits().labels
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, held = order[:1400], order[1400:]


def fitted(net, steps, rate):
    optimiser, g = torch.optim.Adam(net.parameters(), rate), torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,), generator=g)]
        optimiser.zero_grad()
        F.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimiser.step()
    return net


with seeded(0):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
fitted(linear, 300, 1e-2)
fitted(network, 300, 3e-3)

x, y = images[held], labels[held]
for name, net in (("linear", linear), ("convolutional", network)):
    right = (net(x).argmax(1) == y).float()
    print(f"{name}: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f} right")

# %%
# What the score of the right class loses where a window of 3×3 pixels is covered by black, and by the mean image of the
# training digits; and what one feature map of the second layer loses, the one that is largest in sum.

four = [int((y == digit).nonzero()[0]) for digit in (0, 3, 4, 7)]
mean_image = images[train].mean(0)
channel = int(viz.activations(network, x, "3")["3"].sum((0, 2, 3)).argmax())
found = {
    "black": viz.occlusion(network, x[four], y[four], window=3),
    "mean image": viz.occlusion(network, x[four], y[four], window=3, baseline=mean_image),
    f"channel {channel}": viz.occlusion(network, x[four], layer="3", channel=channel, window=3),
}
figure, panels = plt.subplots(4, 1, figsize=(9, 9), layout="constrained")
viz.sample_grid(x[four], columns=4, ax=panels[0])
panels[0].set_ylabel("image")
for ax, (name, each) in zip(panels[1:], found.items()):
    viz.show(each.map[:, None], ax=ax, signed=True)
    ax.set_ylabel(name)
plt.show()

# %%
# Red is what speaks for the class. Under black only ink can be lost; the mean image also adds ink, so that empty places
# matter: the hole of a zero speaks for zero. How alike are the two maps, and how well does the derivative foretell
# them? The correlation over pixels, its mean over the held-out digits ± its standard error.


def correlation(a, b):
    a, b = (each.flatten(1) - each.flatten(1).mean(1, keepdim=True) for each in (a, b))
    r = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return f"{r.mean():.2f} ± {r.std() / len(r) ** 0.5:.2f}"


black = viz.occlusion(network, x, y, window=3).map
filled = viz.occlusion(network, x, y, window=3, baseline=mean_image).map
slope = viz.saliency(network, x, y, reduce=None)[:, 0]
rows = {
    "black, mean image": correlation(black, filled),
    "black, size of the derivative": correlation(black, slope.abs()),
    "black, derivative · x": correlation(black, slope * x[:, 0]),
}
print(pd.Series(rows).to_string())

# %%
# **The known answer beside ours.** If the score is linear, S = w · x + c, the loss is known: the sum over the window of
# w (x − b), whatever the image. In float64, the largest difference over the held-out digits, all windows and both
# baselines; and for the convolutional network, where the same sum with its derivative for w is an approximation.


def known(slope, baseline):
    """The sum of w (x − b) over each window of 3×3 pixels."""
    return F.avg_pool2d(slope * (x.double() - baseline), 3, stride=1)[:, 0] * 9


rows = []
for name, net in (("linear", linear.double()), ("convolutional", network.double())):
    slope = viz.saliency(net, x, y, reduce=None)
    for text, baseline in (("black", torch.zeros(1, 8, 8)), ("mean image", mean_image)):
        ours = viz.occlusion(net, x, y, window=3, baseline=baseline).grid
        difference = float((ours - known(slope, baseline.double())).abs().max())
        rows.append([name, text, f"{float(ours.abs().max()):.3g}", f"{difference:.1e}"])
print(pd.DataFrame(rows, columns=["model", "baseline", "largest loss", "largest difference"]).to_string(index=False))

# %%
# For the linear model the two agree to rounding (pixels are sixteenths, so that sums are exact under black). For the
# network the derivative does not foretell what is lost: a window is no small change.
