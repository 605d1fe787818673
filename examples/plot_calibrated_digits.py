r"""
Are a classifier's probabilities to be believed?
================================================

A classifier that is right for 97 % of the images says with each how sure it is. It is calibrated if, of the images for
which it says 80 %, it is right for 80 %. Bins of confidence show it: in bin b the share that is right, with its
interval, stands against the mean confidence, and the expected calibration error

.. math:: \sum_b \frac{n_b}{n} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|

sums up the gaps (Guo et al., 2017). It is positive even for a perfect classifier, since shares of few images scatter;
how large it would be then is part of the answer. The logarithm of the probability of what happened needs no bins: its
mean is the held-out log-likelihood, largest for the true probabilities.

Three classifiers of handwritten digits: a network without hidden layer, logistic regression, at its maximum
likelihood; the same with a penalty; and a convolutional network.
"""

# %%
# Eight hundred digits of 8×8 pixels to learn from, 997 to judge by. With 650 coefficients the classes can be separated
# by hyperplanes: the likelihood of logistic regression then has no maximum, its coefficients go to infinity, and the
# fit warns.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression as Theirs

from probdl import ConvergenceWarning, data, viz
from probdl.models import ImageClassifier, LogisticRegression

images, labels = data.digits()
order = np.random.default_rng(0).permutation(len(labels))
train, held = order[:800], order[800:]

models = {
    "logistic regression": LogisticRegression(),
    "with a penalty": LogisticRegression(l2=0.01),
    "convolutional network": ImageClassifier(),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", ConvergenceWarning)
    for model in models.values():
        model.fit(images[train], labels[train], epochs=60, progress=False)
print("\n".join(str(warning.message) for warning in caught))

# %%
# Accuracy, and three scores of the probabilities: each with its standard error over the held-out images.

rows, found = [], {}
for name, model in models.items():
    right, found[name] = model.accuracy(images[held], labels[held]), model.calibration(images[held], labels[held])
    low, high = right.interval()
    scores = [f"{s.value:.3f} ± {s.stderr:.3f}" for s in (found[name].log_loss, found[name].brier, found[name].error)]
    rows.append([name, f"{right.value:.1%} ({low:.1%} to {high:.1%})", *scores])
columns = ["model", "right (95 % interval)", "log loss", "Brier score", "calibration error"]
print(pd.DataFrame(rows, columns=columns).to_string(index=False))
for name, calibration in found.items():
    print(f"{name}: {calibration.error.notes[0]}")

# %%
# Below the diagonal is overconfidence. Without a penalty logistic regression is sure of everything, and wrong for one
# image in eleven; the penalised one errs on the side of doubt.

figure, panels = plt.subplots(1, 3, figsize=(12, 4.5), layout="constrained", sharey=True)
for ax, (name, calibration) in zip(panels, found.items()):
    viz.reliability(calibration.table, ax)
    ax.set_title(name, fontsize="medium")
plt.show()

# %%
# **The known answer beside ours.** The penalised problem is convex and has one maximum. scikit-learn's, at the same
# penalty on the same standardised pixels, has the same coefficients; ours says how far from the maximum it stopped.

ours = models["with a penalty"]
pixels = (images[train] - ours.units.shift) / ours.units.scale
theirs = Theirs(C=1 / (0.01 * len(train)), tol=1e-8, max_iter=10_000).fit(pixels.flatten(1), labels[train])
weights = ours.network.layers[0].weight.detach().numpy()
print(ours.message)
print(f"largest coefficient {np.abs(weights).max():.4f}, largest difference {np.abs(weights - theirs.coef_).max():.1e}")
