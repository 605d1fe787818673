r"""
What a Wasserstein critic says of W1, and the clipping constant
===============================================================

By the duality of Kantorovich and Rubinstein the Wasserstein distance is a supremum over functions of slope at most 1,

.. math:: W_1(p, q) = \sup_{|f(a) - f(b)| \le |a - b|} E_p f(X) - E_q f(Y),

so a critic that is held to a slope gives, while a WGAN trains, a running estimate of the distance that the generator
descends. How it is held decides what the number means. Clipping each weight to [−c, c], the algorithm of the paper,
bounds the slope by some K that depends on c and the layers; the critic's gap is then in units of K, which nobody knows.
A penalty on slopes above 1 keeps the gap near the distance itself. Divided by a bound on the critic's slope, on rows
that it did not learn from, both are honest: under clipping a lower bound, since the product of the layers' norms is far
above the slope that the network has; under the penalty an approximation.

On the line the distance from draws is exact, by sorting. So here the critic can be checked while it trains.
"""

# %%
# The data are a mixture of two normals. The history of one fit has the critic's gap on its batches (``critic_w1``) and
# the held-out gap over the slope (``w1``). Fits of fewer steps, which are the beginnings of the long one since no rate
# decays, give generators whose distance from the data is had exactly, by sorting.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from probdl import data, divergences
from probdl.models import WGAN

weights, means, sds = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-2.0, 3.0], [1.0, 0.5]))
law = MixtureSameFamily(Categorical(weights), Normal(means, sds))
x, held = data.draws(law, 4000)[:, None], data.draws(law, 400, seed=1)[:, None]
ways = {
    "penalty": {"penalty": 100.0, "learning_rates": (2e-3, 2e-4), "decay": False, "ema": None},
    "clip": {"clipping": 0.1, "learning_rates": (1e-3, 1e-4)},
}
stops = (10, 30, 60, 100)


def fitted(steps, constraint, **settings):
    """Return a WGAN after some steps; the critic takes 10 to one at first, so that it is near its best."""
    wgan = WGAN(1, constraint=constraint, hidden=(64, 64), early_critic_steps=10, **settings)
    return wgan.fit(x, steps=steps, batch_size=128, validation=held, progress=False)


def exact(wgan):
    """Return W1 between the data and as many samples, by sorting."""
    return divergences.wasserstein(x, wgan.sample(4000, seed=1), order=1)


fits = {(way, steps): fitted(steps, way, **settings) for way, settings in ways.items() for steps in stops}

# %%
# **The clipping constant.** With the paper's rates in proportion, a small c makes the critic flat: the gradient that
# reaches the generator is about as small as the slope, and with RMSProp, which rescales each gradient, what suffers is
# its ratio to the noise. A large c takes the critic many steps to reach, and its slope is then far from uniform.

constants = (0.001, 0.01, 0.1, 1.0)
clipped = {
    c: WGAN(1, constraint="clip", clipping=c, learning_rates=(5e-4, 5e-4), hidden=(64, 64)).fit(
        x, steps=100, batch_size=64, validation=held, progress=False
    )
    for c in constants
}

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
distances = {key: exact(wgan) for key, wgan in fits.items()}
for panel, way in ((left, "penalty"), (middle, "clip")):
    history, values = fits[way, stops[-1]].history, [distances[way, steps] for steps in stops]
    panel.plot(history.step, history.w1, label="critic, held out: gap over slope")
    if way == "penalty":
        panel.plot(history.step, history.critic_w1, lw=0.8, label="critic, its own batches: gap")
    panel.plot(stops, [float(v) for v in values], "ko", ms=5, label="exact, by sorting")
    panel.set(xlabel="step of the generator", ylabel="$W_1$", title=f"constraint={way!r}", ylim=(0, None))
    panel.legend(frameon=False)
for c, wgan in clipped.items():
    right.plot(wgan.history.step, wgan.history.validation, label=f"c = {c:g}")
right.set(
    xlabel="step of the generator", ylabel="energy distance, held out", title="The clipping constant", yscale="log"
)
right.legend(frameon=False)
plt.show()

# %%
# **The known answer beside ours.** W1 between the data and as many samples of the generator after so many steps, exact
# by sorting, beside what the critic of that moment said of held-out rows. Under clipping it is well below: the curve of
# a clipped WGAN is worth watching for its course, and not for its height.

rows = []
for (way, steps), wgan in fits.items():
    known, said = distances[way, steps], wgan.history.w1.iloc[-1]
    error = "" if known.stderr is None else f" ± {known.stderr:.3f}"
    rows.append([way, steps, f"{known.value:.3f}{error}", f"{said:.3f}", f"{said / known.value:.2f}"])
print("W1 while training, the known answer (exact) beside the critic's:")
print(pd.DataFrame(rows, columns=["constraint", "steps", "exact", "critic's", "ratio"]).to_string(index=False))

rows = []
for c, wgan in clipped.items():
    last = wgan.history.iloc[-1]
    rows.append([f"{c:g}", f"{last.critic_w1:.2g}", f"{last.slope:.2g}", f"{last.w1:.3f}", f"{exact(wgan).value:.3f}"])
print("\nAfter 100 steps at each clipping constant c:")
print(pd.DataFrame(rows, columns=["c", "gap", "bound on slope", "gap over bound", "exact W1"]).to_string(index=False))
