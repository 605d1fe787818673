r"""
Vanishing and exploding gradients
=================================

A recurrent network learns from the past by the gradient that comes back through time. For the simple network
:math:`h_t = a(b + w h_{t-1} + U x_t)` the gradient of the loss at step t is a sum over the steps at which w was used,

.. math::
    \frac{∂L_t}{∂w} = \sum_{k=0}^t \frac{∂L_t}{∂h_t} \frac{∂h_t}{∂h_k} \frac{∂^+ h_k}{∂w}, \qquad
    \frac{∂h_t}{∂h_k} = D_t w\, D_{t-1} w \cdots D_{k+1} w, \qquad D_j = \operatorname{diag} a'(\cdot) ,

with one factor :math:`D_j w` for each step of the lag. They do not commute: the product is not
:math:`(\prod_j D_j)\, w^{t-k}`, as it is sometimes written for short. What does hold is the bound of Pascanu, Mikolov
and Bengio (2013), :math:`\|∂h_t/∂h_k\| ≤ (γ\, σ_{\max}(w))^{t-k}`, with :math:`γ = 1` for tanh and ReLU. A largest
singular value below one *suffices* for gradients to vanish; one above it is *necessary* for them to explode.
"""

# %%
# Simple networks whose w is a multiple of an orthogonal matrix, so that all its singular values are equal, on white
# noise. The conditions need w alone.

import matplotlib.pyplot as plt
import pandas as pd
import torch

from probdl import viz
from probdl.nn import (
    GRU,
    LSTM,
    RNN,
    cell_direct_path,
    cell_jacobian,
    gradient_norms,
    hidden_jacobian,
    pascanu,
    seeded,
    weight_gradient_by_step,
)

T, HIDDEN = 60, 16
x = torch.randn(50, T, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def simple(sigma, activation="tanh"):
    with seeded(1):
        net = RNN(1, HIDDEN, activation=activation).double()
        torch.nn.init.orthogonal_(net.cell.weight_hh_l0, sigma)
    return net


SIGMAS = (0.8, 1.0, 1.3, 2.0)
for sigma in SIGMAS:
    print(pascanu(simple(sigma)))

# %%
# What happens on data: where the condition says "possible" it means no more than that. With tanh the states leave zero
# as :math:`σ_{\max}` grows, and the :math:`D_j` fall: at σ = 1.3 the gradients hardly grow, at 2 they do, though
# far less than the bound allows. Of the ReLUs about half are off at a time, and with them half of the paths: at σ = 1.3
# the gradients still vanish, at 2 they explode.

tables = {(a, s): gradient_norms(simple(s, a), x) for a in ("tanh", "relu") for s in SIGMAS}
figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", sharey=True)
for ax, activation in zip(axes, ("tanh", "relu")):
    for k, sigma in enumerate(SIGMAS):
        viz.gradient_norms(tables[activation, sigma], ax, label=f"σ = {sigma}")
        bound = [pascanu(simple(sigma)).bound(lag) for lag in range(T)]
        ax.plot(bound, ":", lw=1, color=viz.style.colour(k))
    ax.set(title=f"simple network, {activation}; dotted: the bound", ylim=(1e-18, 1e18))
axes[1].set_ylabel("")
plt.show()

# %%
# The gradient itself: the share of each step k in that of a loss at the last step. For σ = .8 the last ten steps are
# all there is. The sum of the terms is what autograd returns.

net = simple(0.8)
terms = weight_gradient_by_step(net, x, lambda h: h.square().sum(1).mean(), T - 1)["h"]
net(x)[0][:, -1].square().sum(1).mean().backward()
share = torch.linalg.matrix_norm(terms[-10:].sum(0)) / torch.linalg.matrix_norm(terms.sum(0))
gap = (terms.sum(0) - net.cell.weight_hh_l0.grad).abs().max().item()
print(f"norm of the last ten steps' terms over that of all: {share:.3f}; sum against autograd: {gap:.1e}")

# %%
# The gated networks. An LSTM adds to its cell, :math:`c_t = f_t ⊙ c_{t-1} + i_t ⊙ \tilde c_t`, so that
# :math:`∂c_t/∂c_k` has a *direct path*, the product :math:`f_t \cdots f_{k+1}` with the gates held fixed. It is often
# given as if it were the whole derivative. The *total* has also the paths that leave the cell through :math:`h` and
# come back by the gates. They outweigh the direct path after eight steps, as networks are initialised; once
# weights have grown, as they do in training (here they are made three times as large), they also differ much from
# sequence to sequence. Open forget gates keep the direct path near 1; they do not keep the total there.


def gated(kind, scale, **how):
    with seeded(1):
        net = kind(1, HIDDEN, **how).double()
    with torch.no_grad():
        net.cell.weight_hh_l0.mul_(scale)
    return net


figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", sharey=True)
for ax, scale in zip(axes, (1, 3)):
    viz.gradient_norms(gradient_norms(gated(LSTM, scale, forget_bias=1.0), x), ax, label="LSTM")
    forget = gradient_norms(gated(LSTM, scale, forget_bias=4.0), x)
    viz.gradient_norms(forget[forget["quantity"] != "hidden"], ax, label="LSTM (forget bias 4)")
    viz.gradient_norms(gradient_norms(gated(GRU, scale), x), ax, label="GRU")
    ax.set(title="as initialised" if scale == 1 else "w three times as large", ylim=(1e-12, 1e3))
axes[1].set_ylabel("")
plt.show()

for scale in (1, 3):
    net = gated(LSTM, scale, forget_bias=1.0)
    for lag in (8, T - 1):
        total, direct = cell_jacobian(net, x, T - 1, T - 1 - lag), cell_direct_path(net, x, T - 1, T - 1 - lag)
        away = torch.linalg.matrix_norm(total - direct, 2) / torch.linalg.matrix_norm(direct, 2)
        middle = "{:.3g} ({:.3g} to {:.3g})".format(*away.quantile(torch.tensor([0.5, 0.05, 0.95]).double()).tolist())
        print(f"w × {scale}, lag {lag}: ‖total − direct‖ / ‖direct‖, median and 90 % of the sequences: {middle}")

# %%
# Clipping. Where the gradient explodes, its norm says how steep the loss is at a point, not how far to go. Clipping
# scales it down to a given norm: the direction stays, a share of the length is kept. Sequences that explode by chance
# no longer decide a step.


def gradients(net, rows):
    """The gradient of a squared error on each of some sequences, flattened."""
    found = []
    for row in rows:
        net.zero_grad()
        (net(row[None])[0][:, -1].sum(1) - 1).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    return torch.stack(found)


CLIP = 5.0
clipped = {}
for sigma in (1.0, 1.3, 1.5, 2.0):
    net = simple(sigma, "relu")
    g = gradients(net, x)
    norms = g.norm(dim=1)
    kept = (CLIP / norms).clamp(max=1)
    for p, gradient in zip(net.parameters(), g[0].split([p.numel() for p in net.parameters()])):
        p.grad = gradient.view_as(p).clone()
    torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    after = torch.cat([p.grad.flatten() for p in net.parameters()])
    clipped[sigma] = {
        "median norm": norms.median().item(),
        "largest norm": norms.max().item(),
        "share clipped": (kept < 1).double().mean().item(),
        "median of the length kept": kept.median().item(),
        "cosine with the gradient": torch.cosine_similarity(after, g[0], dim=0).item(),
    }
print(pd.DataFrame.from_dict(clipped, orient="index").rename_axis("σ").to_string(float_format="{:.3g}".format))

# %%
# **The known answer beside ours.** A ReLU network whose units are all on, with w = σI, is linear, and its Jacobians are
# known: :math:`σ^{t-k}`. And on every sequence above, at every lag, the norms are within the published bound.

linear = simple(1.1, "relu")
with torch.no_grad():
    linear.parts()["h"].w.copy_(1.1 * torch.eye(HIDDEN, dtype=torch.float64))
    linear.parts()["h"].U.zero_()
linear.set_bias("h", 1.0)
found = torch.linalg.matrix_norm(hidden_jacobian(linear, x, T - 1, 0), 2)
print(f"1.1^{T - 1} = {1.1 ** (T - 1):.10f}; ours {found.min():.10f} to {found.max():.10f}")

within = {key: bool((table["upper"] <= key[1] ** table["lag"] * (1 + 1e-9)).all()) for key, table in tables.items()}
print(f"within Pascanu's bound: {sum(within.values())} of {len(within)} networks")
