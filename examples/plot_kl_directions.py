r"""
Mode-seeking and mass-covering: the two directions of KL
========================================================

A bimodal density :math:`p` is approximated by one Gaussian :math:`q`. Minimising :math:`KL(p \| q)` forces q to cover
all that p charges; its minimum matches the mean and the covariance of p, the projection that expectation propagation
repeats. Minimising :math:`KL(q \| p)` forces q to be small where p is small, so that it settles on one mode, and on
which one depends on where it starts; this is the direction of variational inference. The picture is Bishop's figure
10.3, here by actual minimisation.
"""

# %%
# The target: two narrow, tilted Gaussians in the plane.

import matplotlib.pyplot as plt
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from probdl import divergences, viz

double = {"dtype": torch.float64}
means = torch.tensor([[-1.5, -1.5], [1.5, 1.5]], **double)
covariance = torch.tensor([[0.6, -0.3], [-0.3, 0.6]], **double)
p = MixtureSameFamily(
    Categorical(torch.tensor([0.5, 0.5], **double)), MultivariateNormal(means, covariance.expand(2, 2, 2))
)

# %%
# Both divergences as sums over a fine grid, hence as ordinary functions of the mean and the Cholesky factor of q, which
# L-BFGS minimises.

side = torch.linspace(-7, 7, 141, **double)
grid = torch.cartesian_prod(side, side)
cell = (side[1] - side[0]) ** 2
log_p = p.log_prob(grid)


def gaussian(parameters):
    """Return q: two entries for the mean, three for the Cholesky factor, its diagonal in logs."""
    root = torch.diag(parameters[2:4].exp()) + torch.tril(parameters[4].expand(2, 2), -1)
    return MultivariateNormal(parameters[:2], scale_tril=root)


def forward(q):
    log_q = q.log_prob(grid)
    return (log_p.exp() * (log_p - log_q)).sum() * cell


def reverse(q):
    log_q = q.log_prob(grid)
    return (log_q.exp() * (log_q - log_p)).sum() * cell


def minimise(divergence, start):
    parameters = torch.tensor([*start, 0.0, 0.0, 0.0], **double, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def loss():
        optimiser.zero_grad()
        value = divergence(gaussian(parameters))
        value.backward()
        return value

    optimiser.step(loss)
    return gaussian(parameters.detach())


found = {
    "KL(p‖q): covers both": minimise(forward, (0.3, -0.3)),
    "KL(q‖p) from the left": minimise(reverse, (-1.0, -1.0)),
    "KL(q‖p) from the right": minimise(reverse, (1.0, 1.0)),
}

# %%
# The target is filled: its regions of highest density that hold .5 and .9 of it. The lines are those of the best
# Gaussians.

figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
for ax, (title, q) in zip(axes, found.items()):
    viz.density_contours(p, {"best q": q}, ax)
    ax.set(title=title, xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal")
plt.show()

# %%
# **The known answer beside ours.** The minimum of :math:`KL(p \| q)` has the mean 0 and the covariance of the mixture,
# that of a component plus that of the means. Those of :math:`KL(q \| p)` nearly have the moments of one component.

moments = covariance + means.T @ means / 2
best = found["KL(p‖q): covers both"]
print("KL(p‖q): mean", best.mean.numpy().round(6), "covariance", best.covariance_matrix.numpy().round(6).tolist())
print("         known   [0, 0]          ", moments.numpy().round(6).tolist())
for title, q in found.items():
    forwards, backwards = divergences.kl(p, q), divergences.kl(q, p)
    print(f"{title:<23} mean {q.mean.numpy().round(3)}  KL(p‖q) = {forwards}  KL(q‖p) = {backwards}")
