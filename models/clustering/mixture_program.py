"""A Gaussian mixture as a Pyro program, and what coordinate ascent makes of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference import CoordinateAscent, Posterior, fit

FLOOR = 0.1  # the prior variance within components, of that of a column, where the data would have it zero
COLLAPSED = 1e-8  # what counts as zero; also of an eigenvalue of the correlations
SWEEPS = 500
TOLERANCE = 1e-4  # in posterior sd units


@dataclass(frozen=True, eq=False)
class Components:
    """What is known of the components: q(weights), q(means), q(precisions), in standardised units.

    Attributes:
        weights, weights_sd: (K,).
        means: of the means, (K, d).
        spreads: the covariances of the means, (K, d, d).
        df: of the Wishart of each precision, (K,).
        scatter: the inverses of its scale matrices, (K, d, d).
        counts: how many rows each is expected to have, (K,).
    """

    weights: Tensor
    weights_sd: Tensor
    means: Tensor
    spreads: Tensor
    df: Tensor
    scatter: Tensor
    counts: Tensor

    @classmethod
    def of(cls, posterior: Posterior) -> Components:
        """Return the components of a posterior of ``mixture``."""
        blocks = {name: b for b in posterior.approximation.blocks for name in b.names}  # type: ignore[attr-defined]
        df, scatter = blocks["precision"].df_and_inverse_scale
        return cls(
            posterior.mean("weights"), posterior.sd("weights"), posterior.mean("mu"), blocks["mu"].covariances(), df,
            scatter, posterior.probabilities("z").sum(0),
        )  # fmt: skip

    def kept(self, which: Tensor) -> Components:
        """Return some of the components; their weights sum to one again."""
        parts = {name: value[which] for name, value in vars(self).items()}
        share = parts["weights"].sum()
        return Components(**{**parts, "weights": parts["weights"] / share, "weights_sd": parts["weights_sd"] / share})


def mixture(u: Tensor, components: int, floor: float | None) -> None:
    """The program: rows (n, d) of so many components; with ``floor``, the prior scale is held there."""
    d = u.shape[1]
    df = d + 2.0  # the least of whole numbers at which the covariance has a prior mean
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(components)))
    if floor is None:
        scale = pyro.sample("scale", dist.Gamma(torch.ones(d), 1.0).to_event(1))
    else:
        scale = torch.full((d,), floor * df)
    with pyro.plate("components", components):
        mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(d), torch.eye(d)))
        precision = pyro.sample("precision", dist.Wishart(torch.tensor(df), precision_matrix=torch.diag_embed(scale)))
    with pyro.plate("rows", len(u)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=precision[z]), obs=u)


def is_degenerate(u: Tensor) -> bool:
    """Whether rows lie in fewer dimensions than they have columns, where a density is unbounded."""
    centred = u - u.mean(0)
    scale = centred.square().mean(0).sqrt()
    if len(u) <= u.shape[1] or bool((scale == 0).any()):
        return True
    correlations = (centred / scale).mT @ (centred / scale) / len(u)
    return bool(torch.linalg.eigvalsh(correlations)[0] < COLLAPSED)


def ascend(u: Tensor, components: int, *, starts: int, seed: int, degenerate: bool) -> tuple[Posterior, bool]:
    """Return the posterior of so many components, and whether their prior scale had to be held at ``FLOOR``.

    Args:
        u: rows (n, d) in standardised units.
        components: K.
        starts: of which the best goes on.
        seed: of the starts.
        degenerate: whether to hold the scale without trying.
    """
    method = CoordinateAscent(restarts=starts, max_sweeps=SWEEPS, tolerance=TOLERANCE)

    def found(floor: float | None) -> Posterior:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the model says so, of the number it chose
            return fit(mixture, u, components, floor, method=method, seed=seed, device=u.device, progress=False)

    if not degenerate:
        try:
            posterior = found(None)
            if bool((posterior.mean("scale") > COLLAPSED * (u.shape[1] + 2)).all()):
                return posterior, False
        except ConvergenceError:  # a component on equal rows, whose density grows without bound
            pass
    return found(FLOOR), True
