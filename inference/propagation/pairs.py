r"""Factors that see the latents through two affine projections, as ``Normal(X @ w, exp(V @ s))`` does.

The affine nodes at the border of a factor's graph, beyond which nothing is affine, are all combinations of two of them:
:math:`f_j = c_j + \alpha_j u_1 + \beta_j u_2`, and the rest of the graph is the log-likelihood of (u₁, u₂).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from probdl.inference.programs.derivatives import at_least
from probdl.inference.propagation.cuts import FactorGraph, affine_map, spread, spreads


@dataclass(frozen=True)
class ProjectionPair:
    """The sites of one observed factor, each on a plane.

    Attributes:
        directions: shape (n, 2, d).
        offsets: shape (n, 2).
        log_likelihood: maps u = directions·z, shape (k, n, 2), to log-densities of shape (k, n).
    """

    directions: Tensor
    offsets: Tensor
    log_likelihood: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PairFactor:
    """A factor cut at its affine border, given φ.

    Attributes:
        border: maps z and φ to the value of each node of the border.
        rest: maps those values, one entry for each observation, and φ to the log-densities.
        pair: which two nodes all others are combinations of.
        shape: of the log-densities.
        dim: length of z.
        like: a tensor of the dtype and device.
    """

    border: list[fx.GraphModule]
    rest: fx.GraphModule
    pair: tuple[int, int]
    shape: torch.Size
    dim: int
    like: Tensor

    def maps(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the directions (n, nodes, d) and offsets (n, nodes) of the border."""
        parts = [affine_map(f, self.dim, phi, self.like) for f in self.border]
        directions = torch.stack([spread(a, self.shape) for a, _ in parts], 1)
        return directions, torch.stack([spread(c, self.shape)[:, 0] for _, c in parts], 1)

    def at(self, phi: Tensor) -> ProjectionPair:
        """Return the sites given φ."""
        directions, offsets = self.maps(phi)
        chosen = directions[:, list(self.pair)]
        weights = _combinations(directions, chosen)

        def log_likelihood(u: Tensor) -> Tensor:
            values = offsets + (weights * u[..., None, :]).sum(-1)
            return torch.vmap(lambda v: self._of_border(v, phi))(values)

        return ProjectionPair(chosen, torch.zeros_like(chosen[..., 0]), log_likelihood)

    def _of_border(self, values: Tensor, phi: Tensor) -> Tensor:
        return self.rest(*(v.reshape(self.shape) for v in values.unbind(-1)), phi).reshape(-1)


def pair_factor(factor: FactorGraph) -> PairFactor | None:
    """Return the factor cut at two affine projections; None where there are more, or they are not affine."""
    border = _border(factor)
    if len(border) < 2 or not factor.cuts(set(border)):
        return None
    parts, rest = [factor.before(node) for node in border], factor.after(border)
    for pair in _pairs(len(border)):
        found = PairFactor(parts, rest, pair, factor.result.shape, factor.dim, factor.like)
        if all(_is_pair(found, run[factor.output], run[factor.inputs[0]], phi) for run, phi in _held(factor)):
            return found
    return None


def _held(factor: FactorGraph) -> list[tuple[dict, Tensor]]:
    return [(factor.runs[0], factor.phi), *((run, factor.phi + 0.37) for run in factor.elsewhere[:1])]


def _border(factor: FactorGraph) -> list[fx.Node]:
    """The affine nodes with one entry for each observation, or one for all, that something else than these reads."""
    reached, shape = factor.reads_z(), factor.result.shape
    nodes = [
        x
        for x in factor.graph.graph.nodes
        if x in reached and x.op == "call_function" and factor.is_affine(x) and _fits(factor.runs[0][x], shape)
    ]
    return [x for x in nodes if any(user in reached and user not in nodes for user in x.users)]


def _fits(value: Tensor, shape: torch.Size) -> bool:
    return value.numel() == shape.numel() or spreads(value.shape, shape)


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(min(n, 6)) for j in range(i + 1, min(n, 6))]


def _combinations(directions: Tensor, chosen: Tensor) -> Tensor:
    """The weights (n, nodes, 2) of each node's direction in terms of the two chosen ones."""
    gram = chosen @ chosen.mT
    return directions @ chosen.mT @ torch.linalg.pinv(gram, hermitian=True)


def _is_pair(found: PairFactor, result: Tensor, z: Tensor, phi: Tensor) -> bool:
    """Whether two directions span all, and the rest gives the recorded values and acts on each observation alone."""
    directions, _ = found.maps(phi)
    chosen = directions[:, list(found.pair)]
    close = at_least(1e-9, z.dtype, 1e3)
    spanned = _combinations(directions, chosen) @ chosen
    if not torch.allclose(spanned, directions, rtol=close, atol=close * float(directions.abs().max())):
        return False
    pair = found.at(phi)
    u = pair.directions @ z
    try:
        same = torch.allclose(pair.log_likelihood(u[None])[0], result.reshape(-1), rtol=10 * close, atol=10 * close)
    except (RuntimeError, IndexError):  # the rest of the graph does not take one entry for each observation
        return False
    return same and _acts_on_each(pair, u, close)


def _acts_on_each(pair: ProjectionPair, u: Tensor, close: float) -> bool:
    """Whether the Jacobian is diagonal in the observations, by two random products."""
    generator = torch.Generator().manual_seed(23)
    weights = torch.randn(len(u), generator=generator, dtype=u.dtype).to(u.device)
    at = (u + 0.1 * torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device))[None].requires_grad_()
    with torch.enable_grad():
        out = pair.log_likelihood(at)
        (weighted,) = torch.autograd.grad((out * weights).sum(), at, retain_graph=True)
        (plain,) = torch.autograd.grad(out.sum(), at)
    return torch.allclose(weighted, weights[:, None] * plain, rtol=100 * close, atol=10 * close)
