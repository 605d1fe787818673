r"""
First-layer filters and sparse coding
=====================================

The filters of the first layer of a convolutional network are images, and can be looked at. Trained on photographs they
come out as edges, and so, to everyone's surprise, did the solution of another problem: *sparse coding*, in which no
label is used. It describes each patch x of a photograph by a sum of few filters out of many,

.. math:: x \approx D a, \qquad
          \min_{D, a} \sum_i \tfrac{1}{2} \|x_i - D a_i\|^2 + \lambda \|a_i\|_1 \quad \text{with } \|d_j\| \le 1 .

The penalty is the negative logarithm of a Laplace density: sparse coding is a factor model whose factors are
independent and have heavy tails. Principal components, the factors under a Normal law, are waves that cover the whole
patch; heavy tails make filters that are *oriented*, and *localised* (Olshausen and Field, 1996). Both can be measured.
"""

# %%
# Two photographs, at half their size. Most of the variance is in slow waves, as the spectrum of photographs falls like
# 1/f²; Olshausen and Field flatten it by the filter :math:`f \exp(-(f / f_0)^4)`, which also damps the highest
# frequencies. The network and sparse coding see the same flattened images.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F

from probdl import viz
from probdl.nn.seeding import seeded

photos = torch.tensor(np.stack(load_sample_images().images) / 255.0).mean(3, keepdim=True).permute(0, 3, 1, 2).float()
photos = F.avg_pool2d(photos, 2)


def flattened(images):
    rows, columns = (torch.fft.fftfreq(side) for side in images.shape[2:])
    frequency = torch.hypot(rows[:, None], columns[None])
    image = torch.fft.ifft2(torch.fft.fft2(images) * frequency * torch.exp(-((frequency / 0.4) ** 4))).real
    return image / image.std((1, 2, 3), keepdim=True)


images = flattened(photos)
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
viz.sample_grid(photos, columns=1, ax=panels[0])
viz.sample_grid(images.clamp(-4, 4), columns=1, ax=panels[1])
plt.show()

# %%
# The network's task needs nobody's labels: it is to tell photographs from noise of the same spectrum, the photographs'
# Fourier amplitudes with random phases. On average over places the pixels of both have the same means and
# covariances, and windows are brought to one contrast: what is left to find is, as in sparse coding, what a Gaussian
# model does not know. The network learns on the left two thirds of the images and is judged on the rest (by windows
# that overlap, so that the standard error is somewhat too small).

SIZE, WINDOW, generator = 8, 16, torch.Generator().manual_seed(0)
random_phases = torch.fft.fft2(torch.randn(images.shape, generator=generator))
noise = torch.fft.ifft2(torch.fft.fft2(images).abs() * random_phases / random_phases.abs()).real
LEFT, RIGHT = slice(None, 208), slice(208, None)


def windows(n, where):
    """Draw n windows of the photographs and n of the noise, each of mean 0 and about the same contrast."""
    drawn = []
    for source in (images, noise):
        all_of_them = source[:, 0, :, where].unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
        image, row, column = (torch.randint(side, (n,), generator=generator) for side in all_of_them.shape[:3])
        drawn.append(all_of_them[image, row, column][:, None])
    x = torch.cat(drawn)
    x = x - x.mean((2, 3), keepdim=True)
    return x / (x.std((2, 3), keepdim=True) + 0.1), torch.arange(2).repeat_interleave(n)


def network():
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(1, 32, SIZE), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)
        )  # fmt: skip
    model[0].weight.data *= 0.1  # what is left of the first weights would be seen as noise
    return model


untrained, model = network(), network()
optimiser = torch.optim.Adam(model.parameters(), 1e-2)
for _ in range(350):
    x, y = windows(64, LEFT)
    optimiser.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimiser.step()
x, y = windows(500, RIGHT)
right = (model(x).argmax(1) == y).double()
print(f"windows of the right third told apart: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f}")

# %%
# The filters of both. Sparse coding has its patches from the left two thirds as well.

filters = {
    "untrained": viz.filters(untrained, "0").double(),
    "network": viz.filters(model, "0").double(),
    "sparse coding": viz.sparse_filters(images[..., LEFT], n_filters=32, window=SIZE, whiten=False),
}
figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for ax, name in zip(panels, ("network", "sparse coding")):
    viz.show(filters[name], signed=True, ax=ax)
    ax.set_title(name, fontsize="medium")
plt.show()

# %%
# **The known answer beside ours.** Oriented: with the power spectrum P of a filter, at angle θ,
# :math:`|\sum P e^{2iθ}| / \sum P` is 1 for a grating and 0 where no direction stands out. Localised: the share of the
# squared weights within the best 4×4 of the 8×8 pixels. Both are positive by chance; what chance gives is seen when the
# pixels of the same filters are shuffled. Means over 32 filters ± standard errors.


def oriented(weights):
    power = torch.fft.fft2(weights[:, 0], s=(32, 32)).abs() ** 2
    down, across = torch.meshgrid(torch.fft.fftfreq(32), torch.fft.fftfreq(32), indexing="ij")
    power = power * (torch.hypot(down, across) <= 0.5)
    return (power * torch.exp(2j * torch.atan2(down, across))).sum((1, 2)).abs() / power.sum((1, 2))


def localised(weights):
    return 16 * F.avg_pool2d(weights**2, 4, 1).amax((1, 2, 3)) / (weights**2).sum((1, 2, 3))


def shuffled(weights):
    order = torch.rand(weights.flatten(1).shape, generator=generator).argsort(1)
    return weights.flatten(1).gather(1, order).reshape(weights.shape)


def mean(values):
    return f"{values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}"


rows = []
for name, weights in filters.items():
    chance = shuffled(weights)
    rows.append([name, *(mean(measure(w)) for measure in (oriented, localised) for w in (weights, chance))])
table = pd.DataFrame(rows, columns=["filters", "oriented", "shuffled", "localised", "shuffled "])
print(table.to_string(index=False))

# %%
# The filters of both are oriented and localised far beyond chance, and those of the untrained network are neither.
# How would one know that the procedure failed, and finds edges everywhere? Where patches are made of filters that are
# neither, it should return those. Sixteen random filters, each in one patch of seven with a Laplace weight:

random = np.random.default_rng(0)
truth = random.standard_normal((16, SIZE**2))
truth -= truth.mean(1, keepdims=True)
truth /= np.linalg.norm(truth, axis=1, keepdims=True)
weights = random.laplace(size=(4000, 16)) * (random.random((4000, 16)) < 1 / 7)
made = (weights @ truth).reshape(-1, SIZE, SIZE)
found = viz.sparse_filters(made, n_filters=16, window=SIZE, n_patches=4000, whiten=False)
cosines = np.abs(found.flatten(1).numpy() @ truth.T).max(0)
print(f"found again with |cosine| above .95: {(cosines > 0.95).sum()} of 16; median |cosine| {np.median(cosines):.4f}")
print(f"oriented {mean(oriented(found))}, localised {mean(localised(found))}: as by chance")
