r"""
The hidden states of a Markov chain as labels of frames
=======================================================

A hidden Markov model writes symbols :math:`x_t` from states :math:`z_t` that nobody sees. Who knows its matrices can
compute the probability of each state given all symbols by the forward–backward recursions (Baum et al., 1970),

.. math:: α_t(j) = B_{j x_t} \sum_i α_{t-1}(i) A_{ij}, \quad β_t(i) = \sum_j A_{ij} B_{j x_{t+1}} β_{t+1}(j), \quad
    p(z_t = i \mid x_1, \dots, x_T) ∝ α_t(i)\,β_t(i),

and on average no rule labels more steps right than the largest of these. A bidirectional recurrent network has the same
form: one state that runs forward, one that runs backward, and a label from both. Here it is told neither A nor B, only
labelled sequences. A network in one direction sees the past alone, and its bound is the filter,
:math:`p(z_t \mid x_1, \dots, x_t) ∝ α_t`.
"""

# %%
# Three states that stay for about ten steps, six symbols that tell little about them, and sequences of 20 to 79 steps.

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from probdl.models import SequenceTagger

SHARE = 10 if "PROBDL_FAST" in os.environ else 1  # a trial run takes a tenth of the epochs

A = np.array([[0.90, 0.08, 0.02], [0.05, 0.90, 0.05], [0.02, 0.08, 0.90]])
B = np.array(
    [[0.40, 0.30, 0.15, 0.05, 0.05, 0.05], [0.10, 0.15, 0.30, 0.30, 0.10, 0.05], [0.05, 0.05, 0.10, 0.15, 0.30, 0.35]]
)
SYMBOLS, STATES = "abcdef", ["low", "middle", "high"]


def draw(n, seed):
    """Return n strings of symbols, and the states behind them."""
    rng, texts, paths = np.random.default_rng(seed), [], []
    for length in rng.integers(20, 80, n):
        path = [rng.choice(3)]
        for _ in range(length - 1):
            path.append(rng.choice(3, p=A[path[-1]]))
        texts.append("".join(SYMBOLS[rng.choice(6, p=B[z])] for z in path))
        paths.append([STATES[z] for z in path])
    return texts, paths


def forward_backward(text):
    """Return the probabilities of the states given all symbols, and given those so far, (T, 3) each."""
    like = B[:, [SYMBOLS.index(x) for x in text]].T
    forward, backward = np.empty_like(like), np.ones_like(like)
    for t in range(len(like)):
        forward[t] = like[t] * (forward[t - 1] @ A if t else np.full(3, 1 / 3))
        forward[t] /= forward[t].sum()
    for t in reversed(range(len(like) - 1)):
        backward[t] = A @ (like[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    both = forward * backward
    return both / both.sum(1, keepdims=True), forward


texts, paths = draw(800, seed=1)
new_texts, new_paths = draw(400, seed=2)
smoothed, filtered = zip(*map(forward_backward, new_texts))
truth = np.concatenate(new_paths)


def share_right(posteriors):
    """Return the share of steps whose most probable state is the true one."""
    return np.mean(np.array(STATES)[np.concatenate([p.argmax(1) for p in posteriors])] == truth)


# %%
# Networks of 32 units in each direction, on a growing number of sequences. The accuracy's error is that of whole
# sequences, since neighbouring steps are right or wrong together.

rows, taggers = [], {}
for name, both_ways in (("both directions", True), ("forward only", False)):
    for n, epochs in ((25, 80), (100, 30), (800, 12)):
        tagger = SequenceTagger(32, bidirectional=both_ways, learning_rate=1e-2, decay=True)
        tagger.fit(texts[:n], paths[:n], epochs=-(-epochs // SHARE), batch_size=32, progress=False)
        share = tagger.accuracy(new_texts, new_paths)
        rows.append([name, n, share.value, *share.interval()])
    taggers[name] = tagger
page = pd.DataFrame(rows, columns=["network", "sequences", "accuracy", "lower", "upper"])

# %%
# Left, a sequence that was not learnt from: the true states as a band, and the probability of "high" by the recursions
# and by the network. Right, the share of right labels against the bounds.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained", width_ratios=[1.5, 1])
k = next(i for i, path in enumerate(new_paths) if len(path) > 70 and len(set(path)) == 3)
steps = np.arange(len(new_paths[k]))
high = tagger.classes.index("high")
shades = dict(zip(STATES, ("#EEEEEE", "#BBBBBB", "#666666")))
left.bar(steps, 0.08, width=1, bottom=-0.13, color=[shades[z] for z in new_paths[k]])
left.plot(steps, smoothed[k][:, 2], color="#D55E00", label="forward–backward")
left.plot(steps, taggers["both directions"].predict_proba([new_texts[k]])[0][:, high], color="#0072B2", label="network")
left.plot(steps, filtered[k][:, 2], color="#D55E00", linewidth=1, linestyle=":", label="filter")
left.set(xlabel='step (below: the true state, "high" in dark grey)', ylabel='probability of "high"', ylim=(-0.15, 1.02))
left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3)
for (name, group), colour in zip(page.groupby("network", sort=False), ("#0072B2", "#56B4E9")):
    bars = np.abs(group[["lower", "upper"]].to_numpy().T - group["accuracy"].to_numpy())
    right.errorbar(group["sequences"], group["accuracy"], bars, marker="o", color=colour, label=name)
for posteriors, name in ((smoothed, "forward–backward"), (filtered, "filter")):
    right.axhline(share_right(posteriors), color="#D55E00", linestyle="--", linewidth=1)
    right.text(25, share_right(posteriors) + 0.003, name, va="bottom", fontsize=9)
right.set(xscale="log", xlabel="sequences to learn from", ylabel="share of steps labelled right")
right.set_xticks([25, 100, 800], ["25", "100", "800"])
right.minorticks_off()
right.legend(frameon=False, loc="center right")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# **The known answer beside ours.** The shares of right labels of the recursions with the true matrices, on the same
# held-out sequences, and the log-likelihood of the true labels in nats a step.

page["bound"] = [share_right(smoothed if name == "both directions" else filtered) for name in page["network"]]
print(page.round(4).to_string(index=False))
index = [STATES.index(z) for z in truth]
for (name, tagger), posteriors in zip(taggers.items(), (smoothed, filtered)):
    ours = tagger.log_likelihood(new_texts, new_paths).value.sum().item() / len(truth)
    known = np.log(np.concatenate(posteriors)[np.arange(len(truth)), index]).mean()
    print(f"{name}: log p of the true label {ours:.4f} nats a step; the recursions' {known:.4f}")
