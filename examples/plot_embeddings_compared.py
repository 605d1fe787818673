r"""
Which picture of a rolled-up sheet is to be believed?
=====================================================

Every method that draws many columns in a plane keeps something and gives something up. *Trustworthiness* asks whether
neighbours in the picture are neighbours in truth, *continuity* whether neighbours in truth are neighbours in the
picture (Venna and Kaski, 2001), *stress* whether distances are in proportion (Kruskal, 1964). For n rows and k
neighbours

.. math:: T = 1 - \frac{2}{n k (2n - 3k - 1)} \sum_i \sum_{j \in U_k(i)} \max(0, r(i, j) - k),

with :math:`U_k(i)` the neighbours of i in the picture and r(i, j) the rank of j among the distances from i; continuity
is the same with the two spaces exchanged. To know what they are worth, we draw data whose true picture is known.
"""

# %%
# The Swiss roll: a strip of length t and height h, rolled up in space. The truth joins the comparison as a method.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_swiss_roll

from probdl.models import embed_compare
from probdl.models.projections.quality import continuity, stress, trustworthiness

roll, angle = make_swiss_roll(400, random_state=0)
x = torch.as_tensor(roll)
length = (angle * np.sqrt(1 + angle**2) + np.arcsinh(angle)) / 2  # of the spiral, from its middle
strip = torch.stack([torch.as_tensor(length), x[:, 1]], 1)


class Strip:
    """The true picture, which no method is told."""

    def encode(self, rows):
        return strip


METHODS = [{"truth": Strip()}, "pca", "mds", "som", "ae", "tsne"]
found = embed_compare(x, METHODS, labels=angle, neighbours=8, steps=800, standardise="shared")
print(found)

# %%
# Colours are the position along the strip.

found.plot()
plt.show()

# %%
# **The known answer beside ours.** Trustworthiness against the rows is a proxy, for distances in space see across the
# gaps of the roll. Here we can also measure against the strip itself. The truth has 1, 1 and 0 there by definition;
# what it has against the rows says how good the proxy is.


def against_the_strip(y):
    measures = (trustworthiness(strip, y, 8), continuity(strip, y, 8), stress(strip, y))
    return [f"{e.value:.3f} ± {e.stderr:.3f}" for e in measures]


columns = ["trustworthiness", "continuity", "stress"]
table = pd.DataFrame([against_the_strip(y) for y in found.embeddings.values()], found.embeddings, columns)
print(table)

# %%
# The proxies for neighbourhoods are fair here: the truth has nearly 1 and 1 against the rows too. Stress is not: the
# truth has the largest of all, since a picture that is right about the sheet is wrong about the space in which it is
# rolled up, and metric scaling, which has the least, shows the roll from the side. PCA tears nothing apart (its
# continuity is high) but lays sheets on each other (its trustworthiness is low, and lower against the strip). t-SNE
# cuts the strip into pieces that are each right; its stress against the strip, as large as that of the rest, says that
# the place of the pieces means nothing. No method here unrolls the strip, and no single measure says so: read them
# together.
