"""
A page of the course, run
=========================

Every method brings one distribution close to another. Here a posterior is approximated by iterating (expectation
propagation), a density is learnt by descending (a variational autoencoder), and the result is judged by divergences,
each with its standard error. Run ``python quickstart.py``; pictures and tables go to ``quickstart_output``, the page
that sums them up is ``page.png``.
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # pictures go to files
# sphinx_gallery_thumbnail_path = "quickstart.png"

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from probdl import data, divergences, viz
from probdl.inference import NUTS, fit
from probdl.models import VAE

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("quickstart_output"), help="folder for pictures and tables")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)
started = time.perf_counter()


layout = [["posterior", "w1", "js", "kl"], ["samples", "samples", "plane", "plane"]]
page, panel = plt.subplot_mosaic(layout, figsize=(13, 7.5), height_ratios=[1, 1.7], layout="constrained")


def keep(ax, name):
    """Write the figure of a picture to a file."""
    ax.figure.savefig(out / name, dpi=130, bbox_inches="tight")
    plt.close(ax.figure)


# %%
# (a) A Bayesian logistic regression
# ----------------------------------
# Which tumours are benign? 569 biopsies, 30 standardised measurements. The model is an ordinary Pyro program, and it
# is fitted twice: by expectation propagation, and by Markov chain Monte Carlo as the reference.

X, y = data.breast_cancer(standardise=True)


def model(X, y=None):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(X)):
        return pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


print("(a) Bayesian logistic regression on the breast-cancer data, 569 × 31")
ep = fit(model, X, y)
print(f"    {ep.message}")
nuts = fit(model, X, y, method=NUTS(draws=400, warmup=150, chains=2), seed=1)
print(f"    {nuts.message}")

a, b = ep.summary(), nuts.summary()
table = pd.DataFrame({"EP mean": a["mean"], "NUTS mean": b["mean"], "EP sd": a["sd"], "NUTS sd": b["sd"]})
table["difference / sd"] = (a["mean"] - b["mean"]) / b["sd"]
table["its MC error"] = b["ess"] ** -0.5  # of the NUTS mean, in posterior sds
table["sd ratio"] = a["sd"] / b["sd"]
table.to_csv(out / "regression.csv")
largest = table.reindex(table["difference / sd"].abs().sort_values(ascending=False).index)
print("\n    The six coefficients on which the two differ most, of 31:")
print(largest.head(6).to_string(float_format=lambda v: f"{v:.3f}"))
gap, ratio = table["difference / sd"].abs(), table["sd ratio"]
alone = 0.8 * table["its MC error"].mean()
print(f"    All 31: mean |difference| {gap.mean():.3f} sd, of which Monte Carlo alone gives about {alone:.3f};")
print(f"    sds differ by a factor of {ratio.mean():.3f} on average, {ratio.min():.3f} to {ratio.max():.3f}.")
print(f"    Seconds: EP {ep.seconds:.2f}, NUTS {nuts.seconds:.1f}. Log evidence: {ep.log_evidence}.\n")

for posterior, label in ((nuts, "NUTS"), (ep, "EP")):
    posterior.plot(["b"], ax=panel["posterior"], label=label)
panel["posterior"].set(title="intercept of the regression", ylim=(0, 0.85))
panel["posterior"].legend(loc="upper right", fontsize=8, frameon=False)  # the title stands where it is by default

# %%
# (b) A variational autoencoder of handwritten digits
# ---------------------------------------------------
# 1797 images of 8 × 8 pixels; 400 are kept back, and nothing below looks at them before the model is finished.

digits = data.digits()
order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
train, held_out = order[400:], order[:400]
print("(b) A variational autoencoder of the handwritten digits, 2 latent dimensions")
vae = VAE(latent_dim=2).fit(digits.images[train])
score = vae.log_likelihood(digits.images[held_out])
spread = score.value.std() / len(held_out) ** 0.5
print(f"    {vae.message}")
print(f"    Held-out log-likelihood: {score.value.mean():.2f} ± {spread:.2f} nats an image, importance-weighted.\n")
samples = vae.sample(400)
viz.sample_grid(vae.sample(72, mean=True), columns=12, ax=panel["samples"]).set_title("digits that the VAE made up")
viz.latent_plane(vae.encode(digits.images[held_out]), digits.labels[held_out], ax=panel["plane"])
panel["plane"].set_title("held-out digits in the latent plane")
some = digits.images[held_out[:12]]
keep(viz.reconstructions(some, vae.reconstruct(some)), "reconstructions.png")
keep(viz.history(vae.history), "training.png")

# %%
# (c) How far are the samples from held-out digits?
# -------------------------------------------------
# Each divergence between 200 held-out digits and 200 samples, beside the one between two halves of the held-out digits.

half, other = digits.images[held_out[:200]], digits.images[held_out[200:]]
apart = divergences.compare(half, samples[:200])
same = divergences.compare(half, other)
columns = ["value", "stderr", "lower", "upper", "method", "target"]
both = pd.concat({"to samples": apart.table[columns], "between halves": same.table[columns]}).swaplevel().sort_index()
both.to_csv(out / "divergences.csv")
print("(c) Divergences of 200 held-out digits, with 95 % intervals where there is a valid one")
print(both.to_string(float_format=lambda v: f"{v:.4f}", na_rep="—"), "\n")
keep(apart.plot(), "divergences.png")

# %%
# (d) The course's parallel lines
# -------------------------------
# A uniform on the line x = 0 and one on x = θ: only the Wasserstein distance sees how far they are apart.

thetas = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
lines = [data.parallel_lines(theta) for theta in thetas]
estimates = [divergences.wasserstein(*line.draws(300, seed=i)) for i, line in enumerate(lines)]
exact = pd.DataFrame([{"W1": li.wasserstein, "JS": li.js, "TV": li.tv, "KL": li.kl} for li in lines])
known = exact.assign(**{"W1 from draws": [float(e) for e in estimates], "stderr": [e.stderr for e in estimates]})
known.index = pd.Index(thetas, name="θ")
known.to_csv(out / "parallel_lines.csv")
print("(d) The course's parallel lines, (0, U) and (θ, U)")
print(known.to_string(float_format=lambda v: f"{v:.4f}"))
for name, column in {"w1": "W1", "js": "JS", "kl": "KL"}.items():
    ax, values = panel[name], known[column].clip(upper=5)  # infinity is drawn at 5
    ax.plot(thetas, values.where(known.index != 0) if name != "w1" else values, color="C0", lw=2)
    ax.plot(0, values[0.0], "o", color="C0")
    ax.set(title=f"parallel lines: {column}" + (" (5 is ∞)" if name == "kl" else ""), xlabel="θ", ylim=(-0.1, None))
reach = 1.96 * known["stderr"]
panel["w1"].errorbar(thetas, known["W1 from draws"], reach, fmt="o", color="C1", label="300 draws, 95 %")
panel["w1"].legend()
keep(panel["w1"], "page.png")
print(f"\nPictures and tables are in {out.resolve()} ({time.perf_counter() - started:.0f} s in all).")
