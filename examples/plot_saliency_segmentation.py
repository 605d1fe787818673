r"""
Segmentation that nobody taught
===============================

A network is told which digit an image holds, and never where. To know which, it must look at the digit; so the places
where its score is sensitive, :math:`|∂S_c/∂x|`, should lie on the digit. Simonyan, Vedaldi and Zisserman (2014) cut
objects out of photographs in this way, with no label but the class: weak supervision.

How good is such a map as a detector of pixels? As with any score of a binary question, by the area under its ROC curve:
the probability that a pixel of the digit has a larger value than one of the background, 0.5 for a map that knows
nothing. Two competitors know nothing of the network: the image itself (digits are bright), and the distance from the
centre (objects are often central). The scenes here give neither an easy win: a digit stands anywhere on a larger
canvas, among strokes as bright as its own.
"""

# %%
# Digits of 8×8 pixels, somewhere on 20×20, with clutter: pieces of other digits, 3×3 pixels each. What is digit and
# what is not is known; no network sees it.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

images, labels = data.digits().images.float(), data.digits().labels
generator = torch.Generator().manual_seed(0)
order = torch.randperm(len(images), generator=generator)
train, held = order[:1400], order[1400:]
side = torch.arange(20)


def placed(canvas, pieces, top, left):
    """Add a piece to each canvas at its own place."""
    rows, columns = top[:, None] + torch.arange(pieces.shape[1]), left[:, None] + torch.arange(pieces.shape[2])
    canvas[torch.arange(len(canvas))[:, None, None], rows[:, :, None], columns[:, None]] = pieces


def scenes(index, n, clutter=8):
    """Return n images, their labels, and which pixels are the digit's."""
    x, mask = torch.zeros(n, 20, 20), torch.zeros(n, 20, 20, dtype=torch.bool)
    for _ in range(clutter):
        whole = images[index[torch.randint(len(index), (n,), generator=generator)], 0]
        placed(x, whole[:, 2:5, 3:6], *torch.randint(0, 18, (2, n), generator=generator))
    which = index[torch.randint(len(index), (n,), generator=generator)]
    top, left = torch.randint(0, 13, (2, n), generator=generator)
    placed(x, images[which, 0], top, left)
    placed(mask, images[which, 0] > 0.25, top, left)
    return x[:, None], labels[which], mask


def built():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip


untrained, network = built(), built()
optimiser = torch.optim.Adam(network.parameters(), 5e-3)
for _ in range(320):
    x, y, _ = scenes(train, 64)
    optimiser.zero_grad()
    F.cross_entropy(network(x), y).backward()
    optimiser.step()

x, y, masks = scenes(held, 300)
right = (viz.activations(network, x, "output")["output"].argmax(1) == y).double()
print(f"held-out scenes: {right.mean():.3f} ± {right.std() / np.sqrt(300):.3f} right")

# %%
# The maps. A gradient is ragged: neighbouring pixels of one stroke can have large and small derivatives. A region is
# smooth, so the mean over 5×5 pixels is tried too; and since ink is bright, that mean times the image, which asks for
# ink where the network looks. For comparison an untrained network, and what knows of none.


def smooth(values):
    return F.avg_pool2d(values[:, None], 5, 1, 2)[:, 0]


def maps_of(x):
    found = viz.saliency(network, x)
    return {
        "saliency": found,
        "saliency, smoothed": smooth(found),
        "smoothed × image": smooth(found) * x[:, 0],
        "guided, smoothed": smooth(viz.guided_backprop(network, x)[:, 0].abs()),
        "untrained, smoothed": smooth(viz.saliency(untrained, x)),
        "image": x[:, 0],
        "centre": -((side - 9.5).square()[:, None] + (side - 9.5).square()).expand(len(x), -1, -1),
        "noise": torch.rand(len(x), 20, 20, generator=generator),
    }


maps = maps_of(x)
figure, panels = plt.subplots(4, 1, figsize=(8, 7), layout="constrained")
viz.sample_grid(x[:5], columns=5, ax=panels[0])
panels[0].set_ylabel("scene", rotation=0, ha="right")
for ax, name in zip(panels[1:], ["saliency", "smoothed × image"]):
    viz.show(maps[name][:5, None] / maps[name][:5].amax((1, 2))[:, None, None, None], ax=ax)
    ax.set_ylabel(name, rotation=0, ha="right")
viz.sample_grid(masks[:5, None].float(), columns=5, ax=panels[3])
panels[3].set_ylabel("truth", rotation=0, ha="right")
plt.show()

# %%
# Two measures, the mean over 300 scenes ± its standard error: the area under the ROC curve within each scene, and the
# intersection over union of the digit with the pixels above a threshold. The threshold is a share of the map's largest
# value, the same for all scenes, and chosen on 200 scenes of training digits.


def auc(values, masks):
    """Mann and Whitney's statistic of each scene: the chance that a pixel of the digit has the larger value."""
    ranks = torch.from_numpy(rankdata(values.flatten(1).double().numpy(), axis=1))
    inside = masks.flatten(1).double()
    m = inside.sum(1)
    return ((ranks * inside).sum(1) - m * (m + 1) / 2) / (m * (400 - m))


def overlap(values, masks, threshold):
    """Intersection over union of each scene."""
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    chosen = values >= low + threshold * (high - low)
    return (chosen & masks).sum((1, 2)).double() / (chosen | masks).sum((1, 2))


def mean(values):
    return f"{values.mean():.3f} ± {values.std() / np.sqrt(len(values)):.3f}"


seen, _, truth = scenes(train, 200)
rows, candidates = [], np.linspace(0.05, 0.95, 19)
for (name, values), before in zip(maps.items(), maps_of(seen).values()):
    threshold = max(candidates, key=lambda each: overlap(before, truth, each).mean())
    rows.append([name, mean(auc(values, masks)), mean(overlap(values, masks, threshold)), f"{threshold:.2f}"])
columns = ["map", "area under the curve", "intersection over union", "threshold"]
print(pd.DataFrame(rows, columns=columns).to_string(index=False))
everywhere = masks.double().mean((1, 2))
print("to call every pixel digit:", mean(everywhere), "intersection over union")

# %%
# Brightness alone finds the ink, and two fifths of it are digit. The gradient finds the region, and the two together
# the digit: three quarters of the union, from a network that was never shown a mask. The untrained network shows how
# much of a high area under the curve is no merit: its gradients, too, are larger where there is ink. Does the map fail
# where the network is wrong about the class? Not by more than the error: it errs about which digit, and not where.

overlaps = overlap(maps["smoothed × image"], masks, 0.2)
print("where the class is right:", mean(overlaps[right == 1]), "  where it is wrong:", mean(overlaps[right == 0]))

# %%
# **The known answer beside ours.** Of a map that knows nothing the area has expectation ½, and its variance over scenes
# is Mann and Whitney's, (m + n + 1) / (12 m n) for m pixels of the digit and n of the background. And of one scene the
# area is scikit-learn's.

m = masks.flatten(1).double().sum(1)
noise, known = auc(maps["noise"], masks), ((400 + 1) / (12 * m * (400 - m))).mean().sqrt()
print(f"noise: mean {mean(noise)} (0.5)")
print(f"standard deviation {noise.std():.4f} ± {noise.std() / np.sqrt(598):.4f} ({known:.4f})")
ours = auc(maps["saliency"], masks)[0]
theirs = roc_auc_score(masks[0].flatten().numpy(), maps["saliency"][0].flatten().numpy())
print(f"one scene: {ours:.6f}, scikit-learn's {theirs:.6f}")
