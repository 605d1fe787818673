r"""
A Markov source, and what a network learns of it
================================================

A source that writes letters by a Markov chain of order two has a known *entropy rate*,

.. math:: H = -\sum_{a, b} π(a, b) \sum_c P(c \mid a, b) \log P(c \mid a, b),

with π the stationary distribution of pairs: no model can predict its text with fewer nats a letter, on average. A
model's nats per letter are :math:`H + \mathrm{KL}(\text{source} ‖ \text{model})`, so that the distance of a trained
network to the bound *is* the divergence, in nats a letter, that maximum likelihood brings down. On one held-out text
both sides carry the same chance; the difference to the source's own nats *on that text* carries far less of it.
"""

# %%
# Six letters; each pair has its own distribution of the next letter, drawn from a Dirichlet distribution. What a chain
# of order one can know of this source is less: its best nats are the entropy of a letter given the last one alone.

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl.models import LanguageModel
from probdl.models.sequences.blocks import block_mean

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the steps

K, LETTERS = 6, "abcdef"
P = np.random.default_rng(1).dirichlet(np.full(K, 0.4), (K, K))  # P[a, b, c]: c after ab
pairs = np.einsum("abc,bd->abdc", P, np.eye(K)).reshape(K * K, K * K)  # from ab to bc
values, vectors = np.linalg.eig(pairs.T)
stationary = np.real(vectors[:, np.argmax(np.real(values))])
stationary = (stationary / stationary.sum()).reshape(K, K)
joint = stationary[..., None] * P  # p(a, b, c)
rate = -(joint * np.log(P)).sum()
given_last = joint.sum(0) / joint.sum((0, 2))[:, None]
order_one = -(joint.sum(0) * np.log(given_last)).sum()
order_zero = -(stationary.sum(0) * np.log(stationary.sum(0))).sum()
print(f"entropy of a letter {order_zero:.4f}, given the last {order_one:.4f}, entropy rate {rate:.4f} nats")


def draw(n, seed):
    """Return a text of the source, and log p of each letter from the third on, by the source itself."""
    rng, steps = np.random.default_rng(seed), P.cumsum(2)
    path = [0, 1]
    for u in rng.random(n - 2):
        path.append(min(int(np.searchsorted(steps[path[-2], path[-1]], u)), K - 1))
    a, b, c = np.array(path[:-2]), np.array(path[1:-1]), np.array(path[2:])
    return "".join(LETTERS[i] for i in path), torch.from_numpy(np.log(P[a, b, c]))


held, own = draw(30_000, seed=2)

# %%
# Gated networks of 32 units on texts of growing length, in 64 streams; beside them the maximum likelihood estimate in
# the right family, the table of counts of order two (with one half added to each). The table knows that two letters are
# enough; the network has to find out.


def table_of_counts(text):
    """Return log p of the held-out letters by counts of triples."""
    index = np.array([LETTERS.index(c) for c in text])
    counts = np.full((K, K, K), 0.5)
    np.add.at(counts, (index[:-2], index[1:-1], index[2:]), 1)
    at = np.array([LETTERS.index(c) for c in held])
    return torch.from_numpy(np.log(counts / counts.sum(2, keepdims=True))[at[:-2], at[1:-1], at[2:]])


text, _ = draw(200_000, seed=1)
rows, curves = [], {}
for n, steps in ((2_000, 300), (10_000, 400), (50_000, 600), (200_000, 900)):
    model = LanguageModel(32, cell="gru", window=32, learning_rate=1e-2)
    model.fit(text[:n], steps=steps // SHARE, batch_size=64, progress=False)
    curves[n] = model.history
    found = model.token_log_likelihood(held)[0][1:]
    for name, log_p in (("network", found), ("counts of order 2", table_of_counts(text[:n]))):
        gap = block_mean([own - log_p])
        rows.append([n, name, -log_p.mean().item(), gap.value, gap.stderr])
page = pd.DataFrame(rows, columns=["letters", "model", "nats", "above the source", "standard error"])

# %%
# Left, the training of the last network: after one pass its nats are below what the last letter allows, and they end
# near the entropy rate. Right, the divergence from the source against the length of the training text. In the right
# family maximum likelihood pays half a nat a free parameter over the whole text (Rissanen, 1986),
# :math:`K^2 (K - 1) / 2n` a letter, the dotted line. The network pays several times as much: nobody told it the
# order.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
history = curves[200_000]
left.plot(history["step"], history["loss"], color="#56B4E9", label="training")
left.plot(history["step"], history["validation"], color="#0072B2", label="validation")
for level, name in ((order_zero, "entropy of a letter"), (order_one, "given the last letter"), (rate, "entropy rate")):
    left.axhline(level, color="#444444", linewidth=1, linestyle="--" if level == rate else ":")
    left.text(history["step"].iloc[-1], level + 0.008, name, ha="right", va="bottom", fontsize=9)
left.set(xlabel="step", ylabel="nats per letter")
left.legend(loc="center right", frameon=False)
for (name, group), colour in zip(page.groupby("model", sort=False), ("#0072B2", "#D55E00")):
    right.errorbar(
        group["letters"],
        group["above the source"],
        1.96 * group["standard error"],
        marker="o",
        color=colour,
        label=name,
    )
n = np.array([2_000, 200_000])
right.plot(n, K**2 * (K - 1) / (2 * n), color="#444444", linestyle=":", label="half a nat a parameter")
right.set(xscale="log", yscale="log", xlabel="letters of training text", ylabel="nats per letter above the source")
right.legend(frameon=False)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# **The known answer beside ours.** The source's own nats on the held-out text differ from the entropy rate by chance;
# those of the network that saw most differ from the source's own by less than a hundredth of a nat.

source = block_mean([-own])
print(page.round(4).to_string(index=False))
print(f"entropy rate {rate:.4f}; the source's own nats on the held-out text {source}")
print(f"the network's nats {model.nats(held)}")
last = page[page["model"] == "network"].iloc[-1]
print(
    f"above the source's own {last['above the source']:.4f} ± {last['standard error']:.4f}; known: 0, at most .01 asked"
)
