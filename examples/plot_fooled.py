r"""
How little fools a classifier?
==============================

A classifier of digits is right for more than nine digits in ten. Szegedy et al. (2014) asked how far each of them is
from being taken for something else, and found: not far. The smallest change r of an image x with which it is taken for
class y solves

.. math:: \min_r \; c \, \|r\| - \log p(y \mid x + r), \qquad 0 \le x + r \le 1,

with the largest weight c of the length that still succeeds. For two classes and a linear score :math:`f(x) = w^T x + b`
it is no mystery. The boundary is a plane, the way to it is along w, and it is :math:`|f(x)| / \|w\|` long. In d
dimensions a change of size ε in each pixel moves the score by :math:`ε \|w\|_1`, which grows with d while the change
stays invisible: fooling needs no depth, only many pixels. So we begin with logistic regression.
"""

# %%
# Logistic regression and a convolutional network of digits of 8×8 pixels, and 20 held-out digits that both have right.

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


def trained(network, steps, penalty=0.0):
    optimiser = torch.optim.Adam(network.parameters(), 3e-3, weight_decay=penalty)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,), generator=generator)]
        optimiser.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimiser.step()
    return network.eval()


with seeded(0):
    models = {
        "logistic regression": trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 300),
        "network": trained(
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
            ),
            250,
        ),
    }  # fmt: skip
said = {name: viz.activations(model, images[held], "output")["output"].argmax(1) for name, model in models.items()}
for name, classes in said.items():
    right = (classes == labels[held]).double()
    print(f"{name}: {right.mean():.3f} ± {right.std() / len(held) ** 0.5:.3f} of held-out digits right")
both = torch.stack([classes == labels[held] for classes in said.values()]).all(0)
x, y = images[held][both][:20], labels[held][both][:20]
wanted = (y + 1) % 10  # each digit is to be taken for the next: 0 for 1, ..., 9 for 0

# %%
# All of them are fooled. The length of the change, in units of one pixel from black to white, beside two yardsticks:
# the image's own length, and the distance to the nearest digit of the wanted class among the training data. The mean
# over 20 digits, ± its standard error; and the same length spent on noise, which changes next to
# nothing.

found = {name: viz.adversarial(model, x, wanted) for name, model in models.items()}
target_digits = [images[train][labels[train] == int(c)] for c in wanted]
nearest = torch.stack([(digits - image).flatten(1).norm(dim=1).min() for digits, image in zip(target_digits, x)])


def mean(values):
    return f"{values.mean():.3f} ± {values.std() / np.sqrt(len(values)):.3f}"


rows = []
for name, attack in found.items():
    noise = torch.randn(x.shape, generator=generator)
    noise *= (attack.norm / noise.flatten(1).norm(dim=1))[:, None, None, None]
    same = (viz.activations(models[name], x + noise, "output")["output"].argmax(1) == y).sum()
    largest = attack.r.abs().amax((1, 2, 3))
    rows.append([name, f"{int(attack.success.sum())}/20", mean(attack.norm), mean(largest), f"{int(same)}/20 right"])
print(pd.DataFrame(rows, columns=["model", "fooled", "length", "largest pixel", "with noise"]).to_string(index=False))
print("length of the images:", mean(x.flatten(1).norm(dim=1)))
print("distance to the nearest digit of the wanted class:", mean(nearest))

# %%
# Five digits; the change for the network; and what the network takes for the next digit. The change is drawn on a scale
# of its own, red where ink is added.

attack = found["network"]
figure, panels = plt.subplots(3, 1, figsize=(7, 5), layout="constrained")
viz.sample_grid(x[:5], columns=5, ax=panels[0])
viz.show(attack.r[:5], ax=panels[1])
viz.sample_grid(attack.x[:5], columns=5, ax=panels[2])
panels[0].set_ylabel("digit " + ", ".join(map(str, y[:5].tolist())))
panels[1].set_ylabel("change")
panels[2].set_ylabel("taken for " + ", ".join(map(str, wanted[:5].tolist())))
plt.show()

# %%
# On 64 pixels the change can be seen, and yet we read the digit as before. On the 150,000 of a photograph it is spread
# so thin that it can not.
#
# Is it a matter of one model? The changes made for one, shown to the other: the share of the 20 that it no longer has
# right, ± the binomial standard error.

for name, other in [("logistic regression", "network"), ("network", "logistic regression")]:
    share = (viz.activations(models[other], found[name].x, "output")["output"].argmax(1) != y).double().mean()
    print(f"made for the {name}, the {other} errs on {share:.2f} ± {(share * (1 - share) / 20).sqrt():.2f}")

# %%
# **The known answer beside ours.** Two classes, fours and nines, and one score. Without bounds the distance to the
# boundary is :math:`|f(x)| / \|w\|`. The length found over the known one, its smallest and largest over 20 digits. (In
# float64: in float32 the score itself is known to seven digits only.)

pair = train[(labels[train] == 4) | (labels[train] == 9)]
with seeded(0):
    binary = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
optimiser = torch.optim.Adam(binary.parameters(), 1e-2)
for _ in range(200):
    optimiser.zero_grad()
    F.binary_cross_entropy_with_logits(binary(images[pair])[:, 0], (labels[pair] == 9).float()).backward()
    optimiser.step()
binary = binary.double()
digits = images[held[(labels[held] == 4) | (labels[held] == 9)]][:20].double()
with torch.no_grad():
    f = binary(digits)[:, 0]
other_side = viz.adversarial(binary, digits, (f < 0).long(), bounds=None)
ratio = other_side.norm / (f.abs() / binary[1].weight.norm()).detach()
print(f"{int(other_side.success.sum())}/20 fooled, by a length of {mean(other_side.norm)}")
print(f"over the known one: 1 + {ratio.min() - 1:.1e} to 1 + {ratio.max() - 1:.1e}")
