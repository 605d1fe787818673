r"""
What drives a node, and what a channel?
=======================================

A convolution has one filter a channel and as many nodes as places. What does such a node respond to? Its derivative
with respect to the image says what would change it. In a network of ReLUs it is a sum over all paths from the pixels to
the node, and paths of opposite sign cancel. *Guided back-propagation* (Springenberg et al., 2015) keeps at each ReLU
what is positive, and drops what would speak against the node; the *deconvolutional network* (Zeiler and Fergus, 2014)
does so without asking whether the ReLU was active. And a channel as a whole? Its gradient averaged over its nodes
(Yosinski et al., 2015),

.. math:: \frac{1}{|N|} \sum_{j \in N} \frac{∂a_j}{∂x},

says which pixels move the mean of its map.

None of these is an estimate with an error: they are functions of the weights and of one image. What can be wrong is
what one reads into them; so the detector here is planted, and we know what it looks for.
"""

# %%
# A network with a cross detector. The first layer has four filters: strokes across, down, and along the two diagonals.
# The second adds up, over 5×5 pixels, what the two diagonals found, and subtracts what the others found: a node of it
# is driven by a diagonal cross.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn.seeding import seeded

across, down = torch.zeros(3, 3), torch.zeros(3, 3)
across[1], down[:, 1] = 1.0, 1.0
strokes = torch.stack([across, down, torch.eye(3), torch.eye(3).flip(0)])
strokes = strokes - strokes.mean((1, 2), keepdim=True)
network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 5), nn.ReLU())
with torch.no_grad():
    network[0].weight[:, 0], network[0].bias[:] = strokes, 0.0
    network[2].weight[0], network[2].bias[:] = torch.tensor([-0.2, -0.2, 1.0, 1.0])[:, None, None] / 25, 0.0

generator = torch.Generator().manual_seed(0)
crosses = {"diagonal": torch.eye(5).maximum(torch.eye(5).flip(0)), "upright": torch.zeros(5, 5)}
crosses["upright"][2], crosses["upright"][:, 2] = 1.0, 1.0


def scene():
    """A diagonal cross on the left or the right of 10×20 pixels, an upright one on the other side, and noise."""
    image, mask = 0.2 * torch.rand(10, 20, generator=generator), torch.zeros(10, 20, dtype=torch.bool)
    sides = [0, 10] if torch.rand((), generator=generator) < 0.5 else [10, 0]
    for (name, cross), side in zip(crosses.items(), sides):
        top, left = torch.randint(0, 6, (2,), generator=generator).tolist()
        image[top : top + 5, side + left : side + left + 5] += 0.8 * cross
        if name == "diagonal":
            mask[top : top + 5, side + left : side + left + 5] = cross.bool()
    return image[None], mask


scenes, masks = (torch.stack(each) for each in zip(*[scene() for _ in range(200)]))
values = viz.activations(network, scenes, "3")["3"]
best = values.flatten(1).argmax(1)
detected = torch.stack(torch.unravel_index(best, values.shape[1:]), 1)

# %%
# The node that is driven most in each image, and its maps; red pixels would drive it further. The plain gradient is the
# saliency of a network whose scores are the nodes. Last, the gradient of the channel as a whole.

as_scores = nn.Sequential(network, nn.Flatten())
maps = {
    "gradient": viz.saliency(as_scores, scenes, best, reduce=None),
    "guided": viz.guided_backprop(network, scenes, layer="3", unit=detected),
    "deconvolution": viz.deconvnet(network, scenes, "3", detected),
    "channel gradient": viz.channel_gradient(network, scenes, "3", 0),
}
figure, panels = plt.subplots(5, 1, figsize=(9, 7), layout="constrained")
viz.sample_grid(scenes[:4], columns=4, ax=panels[0])
panels[0].set_ylabel("image", rotation=0, ha="right")
for ax, (name, values) in zip(panels[1:], maps.items()):
    viz.show(values[:4], ax=ax)
    ax.set_ylabel(name, rotation=0, ha="right")
plt.show()

# %%
# The pixels of the diagonal cross are known. Two shares of the positive part of a map, the mean over 200 images ± its
# standard error: on the cross, and on the 7×7 pixels that the node sees. Of these 9 in 49 are the cross's: a map that
# knew where the node stands, and nothing else, would have 0.184 on the cross.


def share(values, where):
    """The share of the positive part of maps that lies on a mask."""
    positive = values[:, 0].clamp(min=0)
    shares = (positive * where).sum((1, 2)) / positive.sum((1, 2))
    return f"{shares.mean():.3f} ± {shares.std() / np.sqrt(len(shares)):.3f}"


fields = torch.zeros(len(scenes), 10, 20, dtype=torch.bool)
for field, (_, row, column) in zip(fields, detected.tolist()):
    field[row : row + 7, column : column + 7] = True
print(f"a node sees {(masks & fields).sum((1, 2)).double().mean():.2f} of the 9 pixels of the cross")
rows = [[name, share(values, masks), share(values, fields)] for name, values in maps.items()]
print(pd.DataFrame(rows, columns=["map", "on the cross", "where the node sees"]).to_string(index=False))

# %%
# The gradient and the guided map find the cross. The deconvolution is the same in every image: without max-pooling
# nothing in it depends on the image but the node that was chosen, and here the filters, which sum to 0, cancel in all
# but the corners. (With max-pooling the switches depend on the image.) The channel gradient shows whatever moves the
# mean of the map, all over the image: it asks another question.
#
# Now a network that was trained. Four channels of its second convolution; the held-out digit, and the node, that drive
# each most.

images, labels = data.digits().images.float(), data.digits().labels
order = torch.randperm(len(images), generator=generator)
train, held = order[:1400], order[1400:]
with seeded(0):
    digits = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
optimiser = torch.optim.Adam(digits.parameters(), 3e-3)
for _ in range(200):
    batch = train[torch.randint(len(train), (64,), generator=generator)]
    optimiser.zero_grad()
    F.cross_entropy(digits(images[batch]), labels[batch]).backward()
    optimiser.step()

values = viz.activations(digits, images[held], "3")["3"]
channels = values.amax((0, 2, 3)).topk(4).indices
rows, spots = values[:, channels].flatten(2).amax(2).argmax(0), []
for row, channel in zip(rows, channels):
    spot = values[row, channel].argmax()
    spots.append([channel, spot // 8, spot % 8])
driven, nodes = images[held][rows], torch.tensor(spots)
body = nn.Sequential(digits[:4], nn.Flatten())
best = nodes[:, 0] * 64 + nodes[:, 1] * 8 + nodes[:, 2]
maps = {
    "gradient": viz.saliency(body, driven, best, reduce=None),
    "guided": viz.guided_backprop(digits, driven, layer="3", unit=nodes),
    "deconvolution": viz.deconvnet(digits, driven, "3", nodes),
    "channel gradient": viz.channel_gradient(digits, driven, "3", channels),
}
figure, panels = plt.subplots(1, 5, figsize=(10, 5), layout="constrained")
for ax, (name, tiles) in zip(panels, {"digit": driven, **maps}.items()):
    size = tiles.abs().amax((1, 2, 3), keepdim=True)
    column = torch.cat(list(F.pad(tiles / size, (0, 0, 0, 1))[:, 0]), 0)
    if name == "digit":
        viz.sample_grid(driven, columns=1, ax=ax)
    else:
        ax.imshow(column, cmap=viz.style.DIVERGING, vmin=-1, vmax=1)
        ax.axis("off")
    ax.set_title(name, fontsize="medium")
plt.show()

# %%
# **The known answer beside ours.** Each node of a linear convolution has the filter in its place; so the gradient of
# the channel is the sum of the filters over all places, divided by their number. And the guided map of a node of the
# cross detector, above one layer of ReLUs, is the sum of the strokes of positive weight, where their ReLU was active.

first = viz.channel_gradient(network, scenes[:1], "0", 2)
places = torch.ones(1, 1, 8, 18)
known = F.conv_transpose2d(places, strokes[2][None, None]) / places.numel()
print(f"channel gradient: largest difference {(first - known).abs().max():.1e} of {known.abs().max():.1e}")

active = viz.activations(network, scenes, "0")["0"] > 0
weights = network[2].weight.detach().clamp(min=0)
node = torch.zeros(len(scenes), 1, 4, 14).index_put((torch.arange(len(scenes)), *detected.T), torch.tensor(1.0))
known = F.conv_transpose2d(F.conv_transpose2d(node, weights) * active, strokes[:, None])
guided = viz.guided_backprop(network, scenes, layer="3", unit=detected)
print(f"guided map: largest difference {(guided - known).abs().max():.1e} of {known.abs().max():.1e}")
