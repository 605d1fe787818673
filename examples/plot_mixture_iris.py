r"""
Three irises: a Gaussian mixture by coordinate ascent
=====================================================

In a mixture each flower belongs to an unknown component. Mean field gives the labels, the weights, the means and the
precisions factors of their own, and coordinate ascent sets each in turn to its optimum,

.. math:: q_j(z_j) \propto \exp E_{i \neq j} \log p(x, z).

The optimum of a label is a softmax (the *responsibilities*), that of a mean a Gaussian, that of a precision matrix a
Wishart, that of the weights a Dirichlet. None of this is written here: the program below is ordinary Pyro, and the
updates are derived from it.
"""

# %%
# Petal length and width of 150 irises; their species are kept for the end.
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from probdl.inference import CoordinateAscent, fit

iris = load_iris()
petals = iris.data[:, 2:]


def mixture(x, k):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(k)))
    with pyro.plate("components", k):
        mu = pyro.sample("mu", dist.MultivariateNormal(torch.tensor([4.0, 1.0]), 4.0 * torch.eye(2)))
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(4.0), covariance_matrix=4.0 * torch.eye(2)))
    with pyro.plate("flowers", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=precision[z]), obs=x)


# %%
# The bound on the log evidence chooses the number of components; it counts what extra components cost.
fits = {k: fit(mixture, petals, k, method=CoordinateAscent()) for k in (1, 2, 3, 4)}
for k, posterior in fits.items():
    print(f"{k} components: bound {float(posterior.elbo):8.2f}, in {posterior.seconds:.1f} s")
posterior = fits[3]
print(posterior.message)
table = posterior.summary()
print(table.loc[[label for label in table.index if label.startswith(("weights", "mu"))]].round(3))

# %%
# Responsibilities: flowers between two components belong to both. Ellipses hold half of each component's mass.
responsibilities = posterior.probabilities("z").numpy()
means, precisions = posterior.mean("mu").numpy(), posterior.mean("precision").numpy()
order = means[:, 0].argsort()
colours = np.array([[0.12, 0.47, 0.71], [0.89, 0.47, 0.10], [0.17, 0.63, 0.17]])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.scatter(*petals.T, c=(responsibilities[:, order] @ colours).clip(0, 1), s=18)
angles = np.linspace(0, 2 * np.pi, 100)
circle = np.sqrt(2 * np.log(2)) * np.stack([np.cos(angles), np.sin(angles)])
for component, colour in zip(order, colours):
    spread = np.linalg.cholesky(np.linalg.inv(precisions[component]))
    left.plot(*(means[component][:, None] + spread @ circle), color=colour)
left.set(xlabel="petal length, cm", ylabel="petal width, cm", title="Responsibilities mix the colours")
right.plot(list(fits), [float(p.elbo) for p in fits.values()], "o-", color="0.3")
right.set(xlabel="components", ylabel="bound on the log evidence, nats", xticks=list(fits), title="The bound by number")
plt.show()

# %%
# The known answers: the species, and maximum likelihood by EM, from which a posterior with weak priors is not far.
em = GaussianMixture(3, n_init=5, random_state=0).fit(petals)
em_order = em.means_[:, 0].argsort()
print("means by coordinate ascent:", np.round(means[order], 2).tolist())
print("means by EM (scikit-learn):", np.round(em.means_[em_order], 2).tolist())
print("means of the species:      ", [np.round(petals[iris.target == s].mean(0), 2).tolist() for s in range(3)])
labels = responsibilities.argmax(1)
print(f"agreement with the species (adjusted Rand index): {adjusted_rand_score(iris.target, labels):.3f}")
print(f"the same for EM:                                  {adjusted_rand_score(iris.target, em.predict(petals)):.3f}")
