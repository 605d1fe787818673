r"""
WAE-MMD, WAE-GAN and VAE side by side
=====================================

All three have an encoder, a decoder and a normal prior p(z), and all three pull codes towards it. What they pull
differs. A VAE pulls every single :math:`q(z \mid x)`, by :math:`\mathrm{KL}(q(z \mid x)\,\|\,p(z))` in each row: codes
of different digits must overlap. A Wasserstein autoencoder pulls only their mixture :math:`q(z) = E_x\,q(z \mid x)`,

.. math:: \min_{G, q} E\,c(x, G(z)) + λ\,D(q(z), p(z)),

so each digit may keep a code of its own. If q(z) = p(z), the first term bounds the transport cost between the data and
the samples G(z), z from the prior; with the squared distance as c it bounds :math:`W_2^2` (Tolstikhin et al., 2018). D
is a squared MMD, which needs no second player, or a Jensen–Shannon divergence as a critic of codes sees it.

Whether q(z) = p(z) was reached is a question about two laws, and so it has an answer with an interval.
"""

# %%
# 1400 digits of 8×8 pixels to learn from and 397 to judge by; eight numbers in a code, the same layers for all.

import math
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl import data, divergences, viz
from probdl.models import VAE, WAEGAN, WAEMMD

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the steps

images, labels = data.digits()
order = np.random.default_rng(0).permutation(len(labels))
train, held = images[order[:1400]].flatten(1), images[order[1400:]].flatten(1)

models = {
    "WAE-MMD": WAEMMD(8, standardise="shared"),
    "WAE-GAN": WAEGAN(8, standardise="shared"),
    "VAE": VAE(8, standardise="shared"),
}
for name, model in models.items():  # a step of the WAE-GAN takes half of its rows for the critic
    model.fit(train, steps=(1500 if name == "WAE-GAN" else 900) // SHARE, progress=False)

# %%
# Held-out digits and what becomes of them; and samples. The decoder of the VAE is a distribution, N(μ(z), σ²I), and a
# sample has its noise; without it (``mean=True``) samples are smoother than digits are.

figure, panels = plt.subplots(1, 2, figsize=(12, 2.8), layout="constrained", width_ratios=[1, 1.5])
rows = [held[:8], *(model.reconstruct(held[:8]) for model in models.values())]
viz.sample_grid(torch.cat([r.reshape(-1, 1, 8, 8).float() for r in rows]).clamp(0, 1), columns=8, ax=panels[0])
panels[0].set_title("Held-out digits and their reconstructions")
samples = {**{name: model.sample(1000, seed=1) for name, model in models.items()}}
samples["VAE, mean"] = models["VAE"].sample(1000, mean=True, seed=1)
shown = torch.cat([s[:12].reshape(-1, 1, 8, 8).float() for s in samples.values()]).clamp(0, 1)
viz.sample_grid(shown, columns=12, ax=panels[1])
panels[1].set_title("Samples")
for ax, names in zip(panels, (["digits", *models], samples)):
    ax.set_yticks([3.5 + 9 * k for k in range(4)], names)
    ax.tick_params(axis="y", length=0)
plt.show()

# %%
# Is q(z) = p(z)? For each model codes of the held-out digits (of the VAE, draws of q(z | x)) against draws from the
# prior, by the energy distance and a permutation test of it. And how far samples are from the held-out digits, by the
# energy distance with its standard error; and the squared error of reconstruction.

noise = torch.Generator().manual_seed(2)
prior = torch.randn(397, 8, generator=noise)


def codes(model):
    u = model.units.inward(held).float()
    if isinstance(model, VAE):
        with torch.no_grad():
            return model.encoder.draw(u, noise)
    return model.encode(held)


rows = []
for name, model in models.items():
    z = codes(model)
    test = divergences.two_sample_test(z, prior, statistic="energy", permutations=199)
    errors = (model.reconstruct(held) - held).square().sum(1)
    energy = divergences.energy(held, samples[name])
    found = [f"{divergences.energy(z, prior).value:.4f} (p = {test.p_value:.3f})", f"{z.var(0).mean():.2f}"]
    found += [
        f"{energy.value:.4f} ± {energy.stderr:.4f}",
        f"{errors.mean():.3f} ± {errors.std() / len(errors) ** 0.5:.3f}",
    ]
    rows.append([name, *found])
columns = ["", "q(z) from p(z)", "variance of z", "samples from digits", "squared error"]
print(pd.DataFrame(rows, columns=columns).to_string(index=False))
print("penalty of WAE-MMD on held-out digits:", models["WAE-MMD"].penalty(held))
print("penalty of WAE-GAN on held-out digits:", models["WAE-GAN"].penalty(held))

# %%
# Two directions of the codes, coloured by digit, on the circles that hold half, 90 % and 99 % of the prior. A linear
# map of the codes keeps the prior as it is if it only turns them; this one turns what tells digits apart to the front.

figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained", sharex=True, sharey=True)
for ax, (name, model) in zip(axes, models.items()):
    z = codes(model).double()
    means = torch.stack([z[labels[order[1400:]] == k].mean(0) for k in range(10)])
    front = torch.linalg.svd(means - means.mean(0)).Vh[:2].T
    viz.latent_plane(z @ front, labels[order[1400:]], ax)
    for share in (0.5, 0.9, 0.99):
        ax.add_patch(plt.Circle((0, 0), math.sqrt(-2 * math.log(1 - share)), fill=False, color="0.5", lw=0.8))
    ax.set(title=name, aspect="equal", xlabel="", ylabel="")
    if ax is not axes[-1] and ax.get_legend():
        ax.get_legend().remove()
plt.show()

# %%
# **The known answer beside ours.** Where the data lie on a plane and have a normal law, everything is known: the best
# generator is that of probabilistic principal components without noise, q(z) = p(z) can be reached exactly, the
# transport cost is the sum of the discarded eigenvalues, and codes are a rotation of whitened components.

g = torch.Generator().manual_seed(0)
mixing = torch.randn(2, 6, generator=g, dtype=torch.float64)
x = torch.randn(1500, 2, generator=g, dtype=torch.float64) @ mixing
x = x + 0.2 * torch.randn(1500, 6, generator=g, dtype=torch.float64)
values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
linear = {"encoder": torch.nn.Linear(6, 2), "decoder": torch.nn.Linear(2, 6)}
wae = WAEMMD(2, **linear, standardise="none", learning_rate=0.03)
wae.fit(x, steps=600 // SHARE, validation=None, progress=False)
whitened = (x - x.mean(0)) @ vectors[:, -2:] / values[-2:].sqrt()
turn = torch.linalg.lstsq(whitened, wae.encode(x).double()).solution
print(f"cost E|x − G(z)|²:  known {values[:-2].sum():.4f}, ours {wae.anomaly_score(x).mean():.4f}")
print(f"codes against whitened components, singular values of the map: {torch.linalg.svdvals(turn).numpy().round(3)},")
print("   1 and 1 where it is a rotation, which leaves the prior as it is")
