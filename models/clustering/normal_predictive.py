"""The law of the next row, given what is known of the components: a mixture of normals, by quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from probdl.models.clustering.mixture_program import Components

REACH = 30.0  # nats below its mode to which the density of log s is followed
STEP = 0.5  # of the standard deviations of log s, as far as rows can narrow it
ROWS = 2**24  # numbers in a table of rows by normals, by what a row needs


def scales_of(df: Tensor, d: int) -> tuple[Tensor, Tensor]:
    r"""Return nodes s and log weights, (K, Q) each, of :math:`E f(s), s \sim \mathrm{Gamma}(ν/2, ν/2)`.

    The trapezoidal rule in log s, whose error falls exponentially with the step; every second node is a rule too.

    Args:
        df: ν, (K,).
        d: the dimension of the rows, which narrow s.
    """
    a = df / 2
    far = REACH / a
    low, high = -(far + (2 * far).sqrt()), torch.log1p(far + (2 * far).sqrt())  # e^t − 1 − t ≥ far outside
    step = STEP * (1 / (a + d / 2)).sqrt()
    nodes = 2 * math.ceil(float(((high - low) / step).max()) / 2) + 1
    t = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, nodes).to(df)
    log_weights = a[:, None] * (t - t.exp())
    return t.exp(), log_weights.log_softmax(1)


def normals(components: Components) -> tuple[Tensor, MultivariateNormal]:
    r"""Return log weights (K, Q) and normals (K, Q) whose mixture is the law of the next row.

    Given its mean m, a component is a Student-t: normals of covariance S / s with s ~ Gamma(ν/2, ν/2). With the mean's
    own uncertainty, m ~ N(m₀, V), each stays normal, of covariance S / s + V.
    """
    d = components.means.shape[1]
    df = components.df - d + 1
    s, log_weights = scales_of(df, d)
    within = components.scatter / df[:, None, None]
    covariances = within[:, None] / s[:, :, None, None] + components.spreads[:, None]
    law = MultivariateNormal(
        components.means[:, None].expand(*s.shape, d), scale_tril=torch.linalg.cholesky(covariances),
        validate_args=False,
    )  # fmt: skip
    return components.weights.log()[:, None] + log_weights, law


def log_joint(components: Components, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(u, k), (n, K), and the same with half the nodes, which says how far quadrature errs."""
    log_weights, law = normals(components)
    size = max(1, ROWS // (log_weights.numel() * u.shape[1]))
    both = [_sums(log_weights + law.log_prob(part[:, None, None])) for part in u.split(size)]
    return torch.cat([full for full, _ in both]), torch.cat([half for _, half in both])


def _sums(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Return log sums over the nodes, (n, K), with all and with every second, which weighs double."""
    return terms.logsumexp(-1), terms[..., ::2].logsumexp(-1) + math.log(2)


def law_of(components: Components, shift: Tensor, scale: Tensor) -> MixtureSameFamily:
    """Return the law of the next row in the data's units.

    Args:
        components: in standardised units.
        shift, scale: of the standardisation, (d,).
    """
    log_weights, law = normals(components)
    tril = (scale[:, None] * law.scale_tril).flatten(0, 1)
    normal = MultivariateNormal((shift + scale * law.loc).flatten(0, 1), scale_tril=tril)
    return MixtureSameFamily(Categorical(logits=log_weights.flatten()), normal)
