r"""
Digits on a plane
=================

A variational autoencoder with a two-dimensional z draws a map of the data. The decoder is a distribution
:math:`p(x \mid z) = N(μ(z), σ^2 I)` around a network, the encoder an approximation :math:`q(z \mid x)` to its
posterior, and both maximise

.. math:: E_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, N(0, I)) \;≤\; \log p(x).

The first term wants digits that differ to lie apart, the second that together they fill a normal distribution without
holes: so every point of the plane is some digit, and a walk from one to another passes through digits. The noise σ is
learnt, which settles the balance of the two terms by the likelihood; no weight has to be chosen.
"""

# %%
# 1400 of the digits of 8×8 pixels to learn from, a tenth of which decide when to stop, and 397 to judge by. The labels
# are only used to colour the map.

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from probdl import data, viz
from probdl.models import VAE

images, labels = data.digits()
order = np.random.default_rng(0).permutation(len(labels))
train, held = order[:1400], order[1400:]

vae = VAE(2, "gaussian", hidden=(16, 32)).fit(images[train], epochs=100, progress=False)
print(vae.message)

# %%
# Left, where the encoder puts the held-out digits; right, the decoder's means on a grid of quantiles of the prior.

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained", width_ratios=[1.15, 1])
viz.latent_plane(vae.encode(images[held]), labels[held], left)
left.set_title("Means of q(z | x) of held-out digits")


def decode(z):
    return vae.decode(z).clamp(0, 1)


viz.latent_manifold(decode, 13, right)
right.set_title("The decoder's mean over the plane")
plt.show()

# %%
# A walk along a straight line of the plane, from a zero to a one and from a four to a seven; below it the same walk
# between the pixels. The pixels fade into each other, the model passes through digits. The last row are draws from the
# model, with its noise: what it says that digits look like.


def first(label):
    return images[held[np.flatnonzero(labels[held] == label)[0]]][None]


start, end = torch.cat([first(0), first(4)]), torch.cat([first(1), first(7)])
t = torch.linspace(0, 1, 9)[:, None, None, None]
fades = torch.cat([a + t * (b - a) for a, b in zip(start, end)])
figure, panels = plt.subplots(3, 1, figsize=(8, 6.4), layout="constrained", height_ratios=[2, 2, 1])
viz.interpolation(decode, vae.encode(start), vae.encode(end), ax=panels[0]).set_ylabel("by codes")
viz.sample_grid(fades, columns=9, ax=panels[1]).set_ylabel("by pixels")
viz.sample_grid(vae.sample(9, seed=3).clamp(0, 1), columns=9, ax=panels[2]).set_ylabel("draws")
plt.show()

# %%
# **The known answer beside ours.** Without hidden layers the model would be probabilistic PCA, whose likelihood needs
# no training: the eigenvalues of the covariance give it. On held-out digits, in nats per image with the standard error
# over images; and how well the nearest neighbours among the training digits tell the label, on either plane.

x, test = images[train].flatten(1), images[held].flatten(1)
eigenvalues, axes = torch.linalg.eigh(torch.cov(x.T, correction=0))
noise = eigenvalues[:-2].mean()
cov = axes[:, -2:] @ torch.diag(eigenvalues[-2:] - noise) @ axes[:, -2:].T + noise * torch.eye(64)
pca = torch.distributions.MultivariateNormal(x.mean(0), cov).log_prob(test)
ours = vae.log_likelihood(images[held], draws=100)
for name, value in (("probabilistic PCA, the known answer", pca), ("VAE, two dimensions too", ours.value)):
    print(f"{name:36s} {value.mean():6.2f} ± {value.std() / math.sqrt(len(value)):.2f}")
gain = ours.value - pca
print(f"{'difference, image by image':36s} {gain.mean():6.2f} ± {gain.std() / math.sqrt(len(gain)):.2f}")
print(ours.notes[0])

planes = {
    "principal components": ((x - x.mean(0)) @ axes[:, -2:], (test - x.mean(0)) @ axes[:, -2:]),
    "codes of the VAE": (vae.encode(images[train]), vae.encode(images[held])),
}
for name, (known, new) in planes.items():
    right = KNeighborsClassifier(5).fit(known, labels[train]).score(new, labels[held])
    print(f"{name:36s} {right:.1%} ± {math.sqrt(right * (1 - right) / len(held)):.1%} of labels right")
