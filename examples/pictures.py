"""
Two pages of pictures, run
==========================

What a network of handwritten digits learned, and what densities look like beside their approximations. Run
``python pictures.py``; ``seeing.png`` and ``densities.png`` go to ``pictures_output``.
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # pictures go to files

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn import functional as F

from probdl import data, divergences, viz
from probdl.inference import NUTS, fit
from probdl.nn.seeding import seeded

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("pictures_output"), help="folder for the pictures")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)
started = time.perf_counter()
double = {"dtype": torch.float64}

# %%
# (a) What a network of digits learned
# ------------------------------------
# A small convolutional network, and five digits that it did not see.

images, labels = data.digits().images.float(), data.digits().labels
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, held = order[:1300], order[1300:]
with seeded(0):
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
optimiser, noise = torch.optim.Adam(network.parameters(), 3e-3), torch.Generator().manual_seed(1)
for _ in range(300):
    batch = train[torch.randint(len(train), (64,), generator=noise)]
    optimiser.zero_grad()
    F.cross_entropy(network(images[batch]), labels[batch]).backward()
    optimiser.step()
network.eval()
with torch.no_grad():
    right = (network(images[held]).argmax(1) == labels[held]).float()
print(f"(a) held-out digits: {right.mean():.3f} ± {right.std() / len(right) ** 0.5:.3f} right")

x = torch.stack([images[held[labels[held] == digit][0]] for digit in (0, 2, 3, 4, 7)])
targets = torch.tensor([6, 3, 8, 9, 1])
fooled = viz.adversarial(network, x, targets)
print(f"    fooled: {int(fooled.success.sum())} of 5, mean |r| {fooled.norm.mean():.2f}")
rows = {
    "image": x,
    "saliency": viz.saliency(network, x)[:, None],
    "guided": viz.guided_backprop(network, x),
    "occlusion": viz.occlusion(network, x, window=3).map[:, None],
    "fooled": fooled.x,
    "change": fooled.r,
}
layout = [[name, "pixels" if i < 3 else "hidden"] for i, name in enumerate(rows)]
page, panels = plt.subplot_mosaic(layout, figsize=(12, 9.6), width_ratios=[1.2, 1], layout="constrained")
for name, values in rows.items():
    if name in ("image", "fooled"):
        viz.sample_grid(values, columns=5, ax=panels[name])
    else:
        viz.show(values, ax=panels[name])
    panels[name].set_ylabel(name, fontsize="large")
panels["fooled"].set_title("taken for " + ", ".join(map(str, targets.tolist())), fontsize="medium")
seen = viz.tsne_layers(network, images[held], ["input", "7"], n_iter=750)
for panel, (layer, title) in zip((panels["pixels"], panels["hidden"]), zip(seen, ("pixels", "last hidden layer"))):
    viz.embedding(seen[layer], labels[held], panel)
    panel.get_legend().remove()  # the digits stand in the picture
    panel.set_title(f"t-SNE of the {title}: " + panel.get_title())
page.savefig(out / "seeing.png", dpi=100)

# %%
# (b) Densities beside their approximations
# -----------------------------------------
# The two directions of KL, what a mean field makes of a correlated posterior, and which point goes where.

page, panels = plt.subplot_mosaic(
    [["covers", "seeks", "posterior", "transport"]], figsize=(15, 4), layout="constrained"
)
means, root = torch.tensor([[-1.5, -1.5], [1.5, 1.5]], **double), torch.tensor([[0.77, 0.0], [-0.39, 0.67]], **double)
halves = dist.MultivariateNormal(means, scale_tril=root.expand(2, 2, 2))
mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(2, **double)), halves)
whole = root @ root.T + means.T @ means / 2
best = {
    "covers": ("least KL(p‖q) covers", torch.distributions.MultivariateNormal(torch.zeros(2, **double), whole)),
    "seeks": ("least KL(q‖p) seeks", torch.distributions.MultivariateNormal(means[0], scale_tril=root)),
}
# Both minima to three digits: the moments of p, and those of one component. plot_kl_directions.py descends to them.
for name, (title, q) in best.items():
    viz.density_contours(mixture, {"q": q}, panels[name])
    panels[name].set(title=title, xlim=(-4.5, 4.5), ylim=(-4.5, 4.5))

z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), **double)
covariates = torch.stack([z[:, 0], 0.9 * z[:, 0] + 0.436 * z[:, 1]], 1)
y = covariates @ torch.tensor([2.0, -1.0], **double) + torch.from_numpy(np.random.default_rng(0).normal(size=50))


def model(X, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Normal(X @ w, 1.0), obs=y)


nuts = fit(model, covariates, y, method=NUTS(draws=600, warmup=150, chains=2))
both = nuts.plot(kind="pairs", ax=panels["posterior"], label="NUTS")
fit(model, covariates, y, method="meanfield").plot(kind="pairs", ax=both, label="mean field")
panels["posterior"].set_title("a posterior, and its mean field")

with seeded(0):
    a, b = halves.sample((15,)).flatten(0, 1), best["covers"][1].sample((30,)) + torch.tensor([7.0, 0.0])
viz.transport_plan(a, b, divergences.transport_plan(a, b, epsilon=0.3), panels["transport"])
panels["transport"].set_title("optimal transport with an entropy")
page.savefig(out / "densities.png", dpi=90)
print(f"Pictures are in {out.resolve()} ({time.perf_counter() - started:.0f} s in all).")
