r"""
Sentiment of sentences from a grammar whose best classifier is known
====================================================================

How good is a sentence classifier? On reviews nobody knows what is possible: some sentences are ambiguous, and the best
accuracy is less than one. Here sentences come from a small probabilistic grammar, so that the posterior probability of
the sentiment is known for every sentence, and with it the Bayes rate, the accuracy that no classifier exceeds:

.. math:: \sum_x \max_s p(x, s) .

The grammar has what makes sentiment hard for a bag of words: negations that turn the next adjective, *and* and *but*
that tie clauses together, intensifiers that make an adjective more reliable.
"""

# %%
# The writer likes it (+1) or not (-1), each with probability one half. The last clause says so with probability .95; a
# clause before *and* says the same as the one after it, one before *but* the opposite. A clause has an adjective,
# chosen by what it says, turned once for each negation; behind an intensifier the choice is sharper.

import random
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probdl import viz
from probdl.models import LogisticRegression, SequenceClassifier
from probdl.models.scores import proportion

SINCERE = 0.95
CLAUSES = {1: 0.3, 2: 0.4, 3: 0.3}
NEGATIONS = {0: 0.5, 1: 0.35, 2: 0.15}
NEGATORS, INTENSIFIERS = ("not", "hardly"), ("very", "really")
SUBJECTS = ("plot", "cast", "music", "ending", "dialogue", "camera")
WORDS = ("superb", "good", "fine", "odd", "dull", "awful")
LIKED = np.array([0.25, 0.3, 0.2, 0.15, 0.07, 0.03])  # the adjective of a clause that says +1; the reverse for -1
SHARP = LIKED**2 / (LIKED**2).sum()  # behind an intensifier


def pick(law, rng):
    return rng.choices(list(law), list(law.values()))[0]


def clause(says, rng):
    negations, intensified = pick(NEGATIONS, rng), rng.random() < 0.4
    law = SHARP if intensified else LIKED
    says *= (-1) ** negations
    adjective = rng.choices(WORDS if says > 0 else WORDS[::-1], law)[0]
    middle = rng.sample(NEGATORS, negations) + ([rng.choice(INTENSIFIERS)] if intensified else [])
    return ["the", rng.choice(SUBJECTS), "was", *middle, adjective]


def sentence(liked, rng):
    says = liked if rng.random() < SINCERE else -liked
    words = clause(says, rng)
    for _ in range(pick(CLAUSES, rng) - 1):
        link = rng.choice(("and", "but"))
        says = says if link == "and" else -says
        words = [*clause(says, rng), link, *words]
    return " ".join(words)


def corpus(n, seed):
    rng = random.Random(seed)
    likes = [rng.choice((1, -1)) for _ in range(n)]
    return [sentence(liked, rng) for liked in likes], ["liked" if liked > 0 else "disliked" for liked in likes]


for text, label in zip(*corpus(5, seed=2)):
    print(f"{label:9} {text}")

# %%
# The exact posterior. Given what the last clause says, the others say what *and* and *but* make of it, and each clause
# adds the log ratio of its adjective's two probabilities; what does not depend on the sentiment cancels.


def evidence(adjective, intensified):
    law, k = (SHARP if intensified else LIKED), WORDS.index(adjective)
    return np.log(law[k] / law[::-1][k])


def log_odds(last_says):
    """Of the sentiment, from those of what the last clause says."""
    p = 1 / (1 + np.exp(-last_says))
    return np.log((SINCERE * p + (1 - SINCERE) * (1 - p)) / (SINCERE * (1 - p) + (1 - SINCERE) * p))


def posterior(text):
    """The probability of "liked"."""
    total, sign = 0.0, 1
    for word, before in zip(text.split()[::-1], [*text.split()[-2::-1], ""]):
        if word in WORDS:
            turn, value = sign, evidence(word, before in INTENSIFIERS)
        turn = -turn if word in NEGATORS else turn
        sign = -sign if word == "but" else sign
        total += turn * value if word == "was" else 0.0
    return 1 / (1 + np.exp(-log_odds(total)))


# %%
# And the Bayes rate, by enumeration. But for what cancels, a clause is one of six adjectives, with or without
# intensifier; negations, *and* and *but* only change signs, which by the symmetry of the grammar change nothing in the
# sum.

likely = [share * law[k] for share, law in ((0.6, LIKED), (0.4, SHARP)) for k in range(6)]
unlikely = [share * law[5 - k] for share, law in ((0.6, LIKED), (0.4, SHARP)) for k in range(6)]
bayes_rate = 0.0
for clauses, p in CLAUSES.items():
    for kinds in product(range(12), repeat=clauses):
        plus, minus = np.prod([[likely[k], unlikely[k]] for k in kinds], axis=0)  # given what the last clause says
        bayes_rate += p * 0.5 * max(np.array([[SINCERE, 1 - SINCERE], [1 - SINCERE, SINCERE]]) @ [plus, minus])
print(f"Bayes rate: {bayes_rate:.4f}")

# %%
# The classifier reads words one by one; an LSTM's last state gives the probability. Beside it a logistic regression on
# counts of words, which knows no order.

train, held_out = corpus(40_000, seed=0), corpus(5_000, seed=1)
model = SequenceClassifier(16, cell="lstm", words=True, embedding=8, learning_rate=2e-2, decay=True)
model.fit(*train, epochs=8, batch_size=128)
COUNTED = (*WORDS, *NEGATORS, *INTENSIFIERS, "but")  # the others are sums of these


def counts(texts):
    words = [text.split() for text in texts]
    return pd.DataFrame({word: [w.count(word) for w in words] for word in COUNTED})


bag = LogisticRegression().fit(counts(train[0]), train[1])
exact = np.array([posterior(text) for text in held_out[0]])
liked = np.array(held_out[1]) == "liked"
predicted = {
    "bag of words": bag.predict_proba(counts(held_out[0]))[:, bag.classes.index("liked")].numpy(),
    "SequenceClassifier": model.predict_proba(held_out[0])[:, model.classes.index("liked")].numpy(),
    "exact posterior": exact,
}

# %%
# **Left:** the probability of "liked" by the classifier against the exact one, a dot a sentence. **Right:** the counts
# of words say little about the same sentences.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
for k, (ax, name) in enumerate(zip(axes, ("SequenceClassifier", "bag of words"))):
    ax.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls=":")
    ax.scatter(exact, predicted[name], s=5, alpha=0.3, lw=0, color=viz.style.colour(k), rasterized=True)
    ax.set(xlabel="exact posterior of liked", title=name, aspect="equal", xlim=(0, 1), ylim=(0, 1))
axes[0].set_ylabel("predicted probability of liked")
plt.show()

# %%
# **The known answer beside ours**, on held-out sentences. The Bayes rate is that of the grammar; on these 5 000
# sentences the exact posterior itself is right a little more or less often, which the third row shows, so that the
# classifier is best compared with it sentence by sentence. The excess is of −log p of the label over that of the exact
# posterior: an estimate of KL(exact‖predicted), in nats a sentence.

nats = {name: -np.log(np.where(liked, p, 1 - p)) for name, p in predicted.items()}
rows = {}
for name, p in predicted.items():
    right, best = (p > 0.5) == liked, (exact > 0.5) == liked
    accuracy = proportion(torch.from_numpy(right))
    behind, excess = best * 1.0 - right, nats[name] - nats["exact posterior"]
    rows[name] = {
        "accuracy": accuracy.value,
        "95 %": "{:.4f} to {:.4f}".format(*accuracy.interval()),
        "Bayes rate": bayes_rate,
        "behind the exact": behind.mean(),
        "its ±": behind.std() / len(behind) ** 0.5,
        "excess nats": excess.mean(),
        "±": excess.std() / len(excess) ** 0.5,
    }
print(pd.DataFrame.from_dict(rows, orient="index").round(4).to_string())
