r"""
AE, VAE and GAN: what each of them estimates
============================================

Three models make rows x of a code z of few numbers, by a network: x = g(z). They differ in what they say of z, and so
in what can be asked of them:

- an autoencoder estimates a pair of transformations, :math:`x ≈ g(f(x))`, and no distribution: it reconstructs;
- a variational autoencoder estimates conditional distributions, :math:`p(x \mid z)` and :math:`q(z \mid x)`, by a bound
  on the likelihood, up to a KL divergence: it reconstructs, samples, and scores rows by their density;
- a generative adversarial network estimates a distribution through a transformation of noise, by a Jensen–Shannon
  divergence that a discriminator sees: it samples, and does nothing else.

The table below is the course's. It is written from the three classes, and the rest of the page asks them for what it
says that they have.
"""

# %%

import math
import os

import matplotlib.pyplot as plt
import torch

from probdl.models import GAN, VAE, Autoencoder, course_tables, evaluate

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the steps

print(course_tables()[0].to_string())

# %%
# Data whose law is known: points on an arc in the plane, with normal noise. One number in a code is what the arc needs.
# The GAN gets two, since samples of a map of one number would lie on a curve, where the data have a density.


def arc(n, seed):
    g = torch.Generator().manual_seed(seed)
    angle = 0.9 * torch.randn(n, generator=g, dtype=torch.float64)
    points = torch.stack([angle.sin(), 1 - angle.cos()], 1)
    return points + 0.08 * torch.randn(n, 2, generator=g, dtype=torch.float64)


train, held = arc(2000, 0), arc(1000, 1)
how = {"standardise": "shared", "hidden": (64, 64)}
autoencoder = Autoencoder(1, **how).fit(train, steps=1500 // SHARE, progress=False)
vae = VAE(1, "gaussian", **how).fit(train, steps=2500 // SHARE, progress=False)
gan = GAN(2, **how).fit(train, steps=1500 // SHARE, progress=False)
for model in (autoencoder, gan):
    try:
        model.sample(2)
        model.log_likelihood(held)
    except NotImplementedError as error:
        print(f"{type(model).__name__}: {error}")

# %%
# What each of them can do, on the data. The autoencoder's curve is where its decoder leads, and lines join rows to
# their reconstructions; how often which part of the curve occurs, it does not say. The other two make samples.

figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained", sharex=True, sharey=True)
figure.get_layout_engine().set(h_pad=0.1)
titles = ("AE: a transformation", "VAE: conditional distributions", "GAN: a distribution")
for ax, title in zip(axes, titles):
    ax.plot(*held[:400].T, ".", ms=3, color="0.75", label="held-out rows")
    ax.set(title=title, aspect="equal")
rows = held[:60]
back = autoencoder.reconstruct(rows)
axes[0].plot(*torch.stack([rows, back.double()], 1).permute(2, 1, 0), lw=0.6, color="C0")
codes = autoencoder.encode(train)
with torch.no_grad():
    z = torch.linspace(float(codes.min()), float(codes.max()), 200)[:, None]
    axes[0].plot(*autoencoder.units.outward(autoencoder.decoder(z)).T, color="C3", lw=2, label="x = g(z)")
for ax, model in zip(axes[1:], (vae, gan)):
    ax.plot(*model.sample(400, seed=1).T, ".", ms=4, color="C3", label="samples")
for ax in axes:
    ax.legend(loc="center", fontsize="small")
plt.show()

# %%
# One way to judge them all, on rows that none has seen: distances of samples from held-out rows, the share of samples
# among the held-out rows and of held-out rows among samples, and the likelihood where there is one. Beside each value
# stands what new draws of the true law would get.

judged = evaluate({"VAE": vae, "GAN": gan}, held, measures=["energy", "sliced_wasserstein", "precision", "recall"])
print(judged.table[["value", "stderr", "reference", "reference_sd"]].round(4).to_string())
print("why no AE:", end=" ")
try:
    evaluate(autoencoder, held)
except NotImplementedError as error:
    print(error)

# %%
# **The known answer beside ours.** The law of the arc is an integral over the angle, so its entropy can be had to any
# accuracy: no density scores higher on average than the true one. The VAE's held-out likelihood is a lower bound on its
# own; the noise of the arc, σ = .08, is what its decoder and the autoencoder's residual should find.

angles = 0.9 * torch.linspace(-6, 6, 4001, dtype=torch.float64)
log_weights = torch.log_softmax(-0.5 * (angles / 0.9) ** 2, 0)
centres = torch.stack([angles.sin(), 1 - angles.cos()], 1)
squared = torch.cdist(held, centres).square()
exact = torch.logsumexp(-squared / (2 * 0.08**2) + log_weights, 1) - math.log(2 * math.pi * 0.08**2)
ours = vae.log_likelihood(held, draws=200).value
gap = exact - ours
n = math.sqrt(len(held))
print(f"log-likelihood of a held-out row: known {exact.mean():.3f}, VAE {ours.mean():.3f}")
print(f"difference, row by row: {gap.mean():.3f} ± {gap.std() / n:.3f} nats, an estimate of KL(truth ‖ VAE)")
residual = (held - autoencoder.reconstruct(held)).square().sum(1).mean().sqrt()
print(f"σ: known 0.080; VAE {float(vae.sigma):.3f}; AE, root mean square of the residuals {residual:.3f}")
