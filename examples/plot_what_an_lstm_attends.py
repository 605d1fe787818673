r"""
What does an LSTM attend to?
============================

A recurrent network reads a sequence and says one number S at its end. Its derivative with respect to what stood at step
t, the *saliency over time* :math:`∂S/∂x_t`, says how much S would change with a small change there. It is a statement
about this network at this sequence, not about the task, and a local one: where a gate is saturated a small change does
nothing although a large one may.

Both can be seen where the answer is known. In the *adding problem* each step has a value and a mark, and what is to be
predicted is the sum of the two marked values, so that the derivative of the truth is known at each step:

.. math:: \frac{∂}{∂v_t} \sum_s m_s v_s = m_t , \quad \text{1 at the two marked steps and 0 at all others.}

A network that has learned the task, and not a substitute for it, has these derivatives.
"""

# %%
# Sequences of twenty steps, an LSTM of 16 units, and how well it predicts the sums of sequences that it did not see; a
# constant has a mean squared error of 1/6.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from probdl import viz
from probdl.loops import cosine, descend, one_thread
from probdl.models import SequenceClassifier
from probdl.nn import LSTM, seeded

STEPS = 20


def sequences(n, seed):
    """Values and marks (n, STEPS, 2), and the sums (n,)."""
    g = torch.Generator().manual_seed(seed)
    values, rows, half = torch.rand(n, STEPS, generator=g), torch.arange(n), STEPS // 2
    marks = torch.zeros(n, STEPS)
    marks[rows, torch.randint(half, (n,), generator=g)] = 1
    marks[rows, half + torch.randint(half, (n,), generator=g)] = 1
    return torch.stack([values, marks], -1), (values * marks).sum(1)


class Summing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.output = LSTM(2, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.output(self.net.last(self.net(x)[1]))[:, 0]


def squares(model, x, y):
    return (model(x) - y) ** 2


with seeded(0):
    model = Summing()
untrained = viz.saliency(model, sequences(400, seed=1)[0], reduce=None)[..., 0]
with one_thread():
    descend(
        model,
        lambda batch, _: squares(model, *batch).mean(),
        sequences(30_000, seed=0),
        steps=2000,
        batch_size=64,
        learning_rate=cosine(0.02),
        clip=1.0,
        progress=False,
    )


def mean(values, digits=4):
    """The mean over independent sequences ± its standard error."""
    return f"{values.mean():.{digits}f} ± {values.std() / len(values) ** 0.5:.{digits}f}"


x, y = sequences(400, seed=1)
print("mean squared error:", mean(squares(model, x, y).detach(), digits=6))

# %%
# ``saliency`` with ``reduce=None`` is the derivative itself, with respect to values and marks; the first are drawn.

derivative = viz.saliency(model, x, reduce=None)[..., 0]
figure, panels = plt.subplots(2, 1, figsize=(8, 6), layout="constrained", sharex=True)
viz.show(x[:8, :, 1], signed=True, ax=panels[0])
panels[0].set_title("the marks of eight sequences: the derivative of the truth", fontsize="medium")
viz.show(derivative[:8], ax=panels[1])
panels[1].set_title("the derivative of the LSTM", fontsize="medium")
panels[1].set_xlabel("step")
for ax in panels:
    ax.set_ylabel("sequence")
plt.show()

# %%
# **The known answer beside ours.** Means over 400 held-out sequences. Before training the derivative does not know the
# marks.

marked = x[..., 1] > 0
table = pd.DataFrame(
    {
        "known": ["1", "0"],
        **{
            name: [mean(values[which].reshape(len(x), -1).mean(1)) for which in (marked, ~marked)]
            for name, values in (("untrained", untrained), ("trained", derivative))
        },
    },
    index=["at marked steps", "at the others"],
)
print(table.to_string())
two = derivative.abs().topk(2, 1).indices.sort(1).values
found = (x[..., 1].gather(1, two) > 0).all(1)
print("sequences whose two largest derivatives are at the marks:", int(found.sum()), "of", len(found))

# %%
# The network looks where it should. At marked steps its derivative falls short of 1 by some percent, and by more than
# the standard error explains: the sum that it has learned is slightly flattened.

# %%
# **Tokens** have no derivative; the vectors :math:`e_t` that stand for them have, and ``saliency`` of a
# ``SequenceClassifier`` returns :math:`\|∂S_c/∂e_t\|` for each character. Here a text of a, b, c and d has one question
# mark, and its class is the letter that follows.


def texts(n, seed):
    """Texts of 16 to 24 characters, their classes, and where the letter stands that matters."""
    g, x, y, place = torch.Generator().manual_seed(seed), [], [], []
    for _ in range(n):
        letters = ["abcd"[k] for k in torch.randint(4, (int(torch.randint(16, 25, (1,), generator=g)),), generator=g)]
        place.append(int(torch.randint(1, len(letters), (1,), generator=g)))
        letters[place[-1] - 1] = "?"
        x.append("".join(letters))
        y.append(letters[place[-1]])
    return x, y, place


reader = SequenceClassifier(32, cell="lstm", learning_rate=1e-2)
reader.fit(*texts(4000, seed=0)[:2], steps=600, validation=None, progress=False)
x, y, place = texts(400, seed=1)
right = reader.accuracy(x, y)
print(f"right: {right.value:.3f}, {x[0]!r} is of class {reader.predict(x[:1])[0]}")

# %%
# **The known answer** is that the letter matters, and the question mark that says so. Beside the derivative stands what
# it is often taken for: how far the logarithm of the probability of the right class falls, at most, when the character
# at t is replaced by another letter. That costs as many passes as there are replacements, and asks about changes that
# can happen. A method finds the letter where its largest value is there; to replace the question mark does as much
# harm.

slope = reader.saliency(x)


def drops(text, label):
    """The largest fall of log p(label) for each character, over all replacements by a letter."""
    others = [text[:t] + letter + text[t + 1 :] for t in range(len(text)) for letter in "abcd"]
    log_p = reader.predict_proba([text, *others]).log()[:, reader.classes.index(label)]
    return (log_p[0] - log_p[1:]).reshape(len(text), 4).amax(1)


fall = [drops(text, label) for text, label in zip(x[:100], y)]
rows = {}
for name, values in (("derivative", slope[:100]), ("replacement", fall)):
    largest = torch.tensor([int(each.argmax()) for each in values])
    before = torch.tensor(place[:100]) - largest  # 0: the letter; 1: the question mark before it
    rows[name] = [mean((before == 0) * 1.0), mean(((before == 0) | (before == 1)) * 1.0)]
by_chance = sum(1 / len(text) for text in x[:100]) / 100
rows["by chance"] = [f"{by_chance:.4f}", f"{2 * by_chance:.4f}"]
print(pd.DataFrame.from_dict(rows, orient="index", columns=["finds the letter", "or its question mark"]).to_string())

# %%
# The derivative finds the letter six times as often as chance does, and far less often than the replacement, although
# the network is right for all texts. A small change of a vector is no replacement of a letter: where the network holds
# what it has read firmly, the small change does little there, and what it does elsewhere may move all scores together.
# A derivative is no effect size. Where the changes that matter can be made, as here, make them.
