r"""
Digits captioned as words
=========================

One to many: an image goes in, a word comes out, character by character. A convolutional network looks at a handwritten
digit once; what it saw is the first state :math:`h_0(x)` of a recurrent network, which spells,

.. math:: \log p(y \mid x) = \sum_{t=1}^{T+1} \log p(y_t \mid y_1, \dots, y_{t-1}, h_0(x)),

where the last term is the end of the word. Spelling and seeing are learnt together, from pairs of image and word. It is
the smallest of the models of Vinyals et al. (2015) that caption photographs, and what it does wrong can be read: a word
that does not exist, or the right word for another digit.
"""

# %%
# The 1797 digits of 8×8 pixels, 1437 of them to learn from and 360 set aside. The captions are characters: the model is
# not told that there are ten words.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from probdl import data
from probdl.models import Captioner, ImageClassifier

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
images, labels = data.digits()
captions = np.array(WORDS)[labels]
order = np.random.default_rng(0).permutation(len(labels))
train, held = order[:1437], order[1437:]

captioner = Captioner(64, cell="gru").fit(images[train], captions[train].tolist(), epochs=40, progress=False)
print(captioner.message)

# %%
# Every string has a probability. Above each digit stands the most probable caption that a beam search found, below it
# the true one, in orange where the two differ. The first row is the first of the held-out digits, the second are those
# whose true caption is least probable.

likelihood = captioner.log_likelihood(images[held], captions[held].tolist()).value.numpy()
said = np.array(captioner.predict(images[held], beams=5))
hard = np.argsort(likelihood)[:8]
figure, grid = plt.subplots(2, 8, figsize=(11, 3.6), layout="constrained")
for ax, k in zip(grid.ravel(), [*range(8), *hard]):
    row, truth = held[k], captions[held[k]]
    best = captioner.candidates(images[[row]], beams=3).iloc[0]
    ax.imshow(images[row, 0], cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{best['sequence']}  {np.exp(best['log_likelihood']):.2f}", fontsize=10)
    ax.set_xlabel(f"{truth}: {np.exp(likelihood[k]):.2f}", fontsize=9, color="black" if said[k] == truth else "#D55E00")
grid[0, 0].set_ylabel("the first", fontsize=9)
grid[1, 0].set_ylabel("the least sure", fontsize=9)
plt.show()

# %%
# What it writes about the third of these if it draws its characters: at low temperatures words, at a high one strings
# that are none.

unsure = images[held[hard[2:3]]].expand(8, -1, -1, -1)
for temperature in (0.5, 1.0, 2.0):
    print(f"temperature {temperature}: {', '.join(captioner.sample(unsure, temperature=temperature))}")

# %%
# **The known answer beside ours.** The digit itself is known. A caption that is wrong in one character is wrong. Beside
# it, a classifier that is told that there are ten classes, and how often the captions are words at all.

right = captioner.accuracy(images[held], captions[held].tolist(), beams=5)
classifier = ImageClassifier(hidden=(64,)).fit(images[train], labels[train], epochs=40, progress=False)
told = classifier.accuracy(images[held], labels[held])
rows = []
for name, share in (("exact captions", right), ("classifier, told the ten classes", told)):
    low, high = share.interval()
    rows.append([name, share.value, low, high, 1.0])
print(pd.DataFrame(rows, columns=["model", "right", "lower", "upper", "known"]).round(4).to_string(index=False))
print(f"captions that are one of the ten words: {np.isin(said, WORDS).mean():.1%}")
error = likelihood.std() / len(held) ** 0.5
print(f"log-likelihood of the true caption: {likelihood.mean():.3f} ± {error:.3f} nats; of a guess {-np.log(10):.3f}")
