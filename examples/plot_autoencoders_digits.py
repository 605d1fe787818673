r"""
Sparse, k-sparse and denoising: what keeps an autoencoder from copying
======================================================================

An autoencoder whose code has more numbers than its input can copy: the loss is zero and nothing is learnt. Three ways
to forbid that, each of which says what a good code is:

- few entries, softly: a penalty on the code, such as :math:`λ \sum_j |w_j||z_j|`, beside the squared error. For given
  atoms w this is the lasso, and what it leaves out it also shrinks;
- few entries, strictly: only the k largest entries of a linear code are kept (Makhzani and Frey, 2014);
- noise: the input is corrupted and the clean row is asked for, :math:`E\,\|x - g(f(\tilde x))\|^2` (Vincent et al.,
  2008). The best map of all is the conditional mean of x given :math:`\tilde x`, and the best linear one is known, the
  filter :math:`Σ(Σ + s^2 I)^{-1}`.
"""

# %%
# Codes of a hundred numbers for digits of 64 pixels. The share of entries that a held-out digit uses, and what it costs
# in squared error (of standardised pixels, summed over the digit; ± standard error). Below, how well a logistic
# regression on the code tells the label: it need not lose what the reconstruction loses.

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from probdl import data, viz
from probdl.models import DenoisingAutoencoder, KSparseAutoencoder, SparseAutoencoder

images, labels = data.digits()
order = np.random.default_rng(0).permutation(len(labels))
x, y, held, held_labels = images[order[:1400]], labels[order[:1400]], images[order[1400:]], labels[order[1400:]]

models = {
    "L1, λ = ½": SparseAutoencoder(100, weight=0.5),
    "L1, λ = 2": SparseAutoencoder(100, weight=2.0),
    "KL to ρ = .05": SparseAutoencoder(100, penalty="kl", target=0.05, weight=2.0),
    "k = 10": KSparseAutoencoder(100, k=10),
    "k = 5": KSparseAutoencoder(100, k=5),
    "k = 5, αk = 10 in the code": KSparseAutoencoder(100, k=5, alpha=2.0),
}
rows = []
for name, model in models.items():
    model.fit(x, steps=800, progress=False)
    codes, errors = model.encode(held), model.anomaly_score(held)
    used = (codes > 0.2 if "KL" in name else codes != 0).double().sum(1).mean()
    scale = codes.std()
    right = LogisticRegression(C=10, max_iter=1000).fit(model.encode(x) / scale, y).score(codes / scale, held_labels)
    error = f"{errors.mean():.2f} ± {errors.std() / math.sqrt(len(errors)):.2f}"
    rows.append([name, f"{used:.1f}", error, f"{right:.1%} ± {math.sqrt(right * (1 - right) / len(held)):.1%}"])
print(pd.DataFrame(rows, columns=["", "entries in use", "squared error", "labels right"]).to_string(index=False))

# %%
# The atoms, what each entry of a code adds to the digit, those in most use first. Under a large penalty an atom is
# nearly a whole digit, a prototype; under a small one, a difference that several together make good. Right, two
# held-out digits as sums: what the decoder says of an empty code, and then atom after atom, the largest first.


def cumulative(model, row):
    code = model.encode(row)[0]
    sums = [torch.zeros_like(code)]
    for entry in code.argsort(descending=True)[:5]:
        sums.append(sums[-1] + code * (torch.arange(len(code)) == entry))
    with torch.no_grad():
        return model.units.outward(model.decoder(torch.stack(sums)))


figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained", width_ratios=[1, 1, 1.25])
for ax, name in zip(axes, ("L1, λ = 2", "L1, λ = ½")):
    model = models[name]
    atoms = model.atoms[model.encode(x).mean(0).argsort(descending=True)][:49]
    viz.sample_grid(atoms / atoms.flatten(1).abs().amax(1)[:, None, None, None], columns=7, ax=ax)
    ax.set_title(f"Atoms, {name}")
shown = []
for name in ("L1, λ = 2", "k = 5"):
    for row in (held[:1], held[7:8]):
        shown += [row, cumulative(models[name], row), models[name].reconstruct(row)]
viz.sample_grid(torch.cat([tile.float() for tile in shown]).clamp(0, 1), columns=8, ax=axes[2])
axes[2].set_xticks([3.5 + 9 * k for k in range(8)], ["digit", "none", *"12345", "all"])
axes[2].set_yticks([3.5 + 9 * k for k in range(4)], ["λ = 2", "", "k = 5", ""])
axes[2].tick_params(length=0)
axes[2].set_title("Atoms in the sum")
plt.show()

# %%
# Noise of one standard deviation of the pixels, on digits that the network has not seen, and what becomes of it: by the
# denoising autoencoder, and by the best linear filter for the covariance of the training digits.

flat, flat_held = x.flatten(1), held.flatten(1)
denoiser = DenoisingAutoencoder(64, level=1.0, hidden=(256,), standardise="shared")
denoiser.fit(flat, steps=1000, progress=False)
noisy = denoiser.corrupt(flat_held)
mean, variance = flat.mean(0), denoiser.units.scale.double() ** 2
covariance = torch.cov(flat.T, correction=0)
wiener = (noisy.double() - mean) @ torch.linalg.solve(covariance + variance * torch.eye(64), covariance) + mean
cleaned = denoiser.reconstruct(noisy)

figure, ax = plt.subplots(figsize=(9, 4.4), layout="constrained")
tiles = [flat_held, noisy, wiener, cleaned]
viz.sample_grid(torch.cat([t[:10].reshape(-1, 1, 8, 8).clamp(0, 1).float() for t in tiles]), columns=10, ax=ax)
ax.set_yticks([3.5 + 9 * k for k in range(4)], ["digit", "with noise", "linear filter", "autoencoder"])
ax.tick_params(axis="y", length=0)
plt.show()

# %%
# **The known answer beside ours.** The network has to beat the best linear filter, whose expected error is known in
# closed form, :math:`\mathrm{tr}\,Σ - \mathrm{tr}\,Σ(Σ + s^2 I)^{-1}Σ` on rows with covariance Σ. A linear denoising
# autoencoder has to find that filter.

linear = DenoisingAutoencoder(
    64,
    level=1.0,
    encoder=torch.nn.Linear(64, 64),
    decoder=torch.nn.Identity(),
    standardise="shared",
    learning_rate=5e-3,
).fit(flat, steps=1000, validation=None, progress=False)
known = (covariance - covariance @ torch.linalg.solve(covariance + variance * torch.eye(64), covariance)).trace()
found = {
    "no denoising": noisy,
    "linear filter": wiener,
    "linear autoencoder": linear.reconstruct(noisy),
    "deep": cleaned,
}
for name, rows in found.items():
    errors = (rows.double() - flat_held).square().sum(1)
    print(f"{name:20s} {errors.mean():.3f} ± {errors.std() / math.sqrt(len(errors)):.3f}")
print(f"{'known, linear filter':20s} {known:.3f} on the training digits")
gain = (wiener - flat_held).square().sum(1) - (cleaned.double() - flat_held).square().sum(1)
print(f"deep is closer than the linear filter by {gain.mean():.3f} ± {gain.std() / math.sqrt(len(gain)):.3f} a digit")
