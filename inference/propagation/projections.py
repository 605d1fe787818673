r"""Find the affine projection :math:`\eta_i = a_i^\top z + c_i` through which each observation sees the latents.

The earliest affine node of the factor's graph through which every path from z to the output runs, and on which the
rest of the graph acts elementwise, is η; the rest of the graph, with that node as its input, *is* the log-likelihood
ℓ(η), to the last bit. So ``Bernoulli(logits=X @ w)``, ``Poisson(exp(X @ w))`` and ``Binomial(n, probs=sigmoid(f))``
are all found without rules for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from probdl.inference.programs.derivatives import at_least
from probdl.inference.propagation.cuts import FactorGraph, affine_map, spread, spreads

Likelihood = Callable[[Tensor, Tensor], Tensor]  # (η, φ) → log-densities


@dataclass(frozen=True)
class Projection:
    """The sites of one observed factor.

    Attributes:
        directions: a, shape (n, d).
        offsets: c, shape (n,).
        log_likelihood: ℓ, maps η of shape (k, n) to log-densities of shape (k, n).
    """

    directions: Tensor
    offsets: Tensor
    log_likelihood: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ProjectedFactor:
    """A factor that was cut at η: an affine function of z, and a log-likelihood of η, both given φ.

    Attributes:
        eta: maps z and φ to η, in the shape of its node.
        log_likelihood: ℓ, maps η of shape (k, n) and φ to log-densities of shape (k, n).
        shape: of the log-densities.
        dim: length of z.
        like: a tensor of the dtype and device.
    """

    eta: fx.GraphModule
    log_likelihood: Likelihood
    shape: torch.Size
    dim: int
    like: Tensor

    def affine_map(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return directions a, (n, d), and offsets c, (n,), given φ."""
        directions, offsets = affine_map(self.eta, self.dim, phi, self.like)
        return spread(directions, self.shape), spread(offsets, self.shape)[:, 0]

    def at(self, phi: Tensor) -> Projection:
        """Return the sites given φ."""
        directions, offsets = self.affine_map(phi)
        return Projection(directions, offsets, lambda eta: self.log_likelihood(eta, phi))


def find_projection(graph: fx.GraphModule, dim: int, like: Tensor) -> Projection | None:
    """Return the one affine projection of each observation, or None where there is none or more than one.

    Args:
        graph: records z (dim,) → log-densities, one entry for each observation.
        dim: length of z.
        like: a tensor of the dtype and device to use.
    """
    phi = torch.zeros(0, dtype=like.dtype, device=like.device)
    factor = projected_factor(FactorGraph(graph, dim, phi, like))
    return None if factor is None else factor.at(phi)


def projected_factor(factor: FactorGraph) -> ProjectedFactor | None:
    """Return the factor cut at its one affine projection; None where there is none, or more than one."""
    generator = torch.Generator().manual_seed(22)
    for node in factor.graph.graph.nodes:
        if factor.is_affine(node) and factor.cuts({node}):
            found = _try_node(factor, node, generator)
            if found is not None:
                return found
    return None


def _try_node(factor: FactorGraph, node: fx.Node, generator: torch.Generator) -> ProjectedFactor | None:
    value, result = factor.runs[0][node], factor.result
    for log_likelihood in _ways_to_feed(factor.after([node]), value, result):
        if _is_it(log_likelihood, factor, node, generator):
            faster = _without_vmap(log_likelihood, factor.after([node]), value, result, factor.phi)
            return ProjectedFactor(factor.before(node), faster, result.shape, factor.dim, factor.like)
    return None


def _is_it(log_likelihood: Likelihood, factor: FactorGraph, node: fx.Node, generator: torch.Generator) -> bool:
    runs = [(factor.runs[0], factor.phi), *((run, factor.phi + 0.37) for run in factor.elsewhere[:1])]
    return all(_acts_elementwise(log_likelihood, run[node], run[factor.output], phi, generator) for run, phi in runs)


def _ways_to_feed(rest: fx.GraphModule, value: Tensor, result: Tensor) -> Iterator[Likelihood]:
    """The ways in which η of shape (k, n) may enter at a node: one entry each, spread over all, or shared by all."""
    shape, n = result.shape, result.numel()
    if value.numel() == n:
        yield lambda eta, phi: torch.vmap(lambda e: rest(e.reshape(value.shape), phi).reshape(n))(eta)
    elif spreads(value.shape, shape):
        yield lambda eta, phi: torch.vmap(lambda e: rest(e.reshape(shape), phi).reshape(n))(eta)
    if value.numel() == 1:
        yield lambda eta, phi: _shared(lambda e: rest(e.reshape(value.shape), phi).reshape(n), eta)


def _without_vmap(found: Likelihood, rest: fx.GraphModule, value: Tensor, result: Tensor, phi: Tensor) -> Likelihood:
    """The rest of the graph itself, where it takes (k, n) in place of (n,) and gives the same numbers."""
    if result.ndim != 1:
        return found
    rest = _without_expansions(rest)
    steps = torch.linspace(-1, 1, 3 * result.numel(), dtype=value.dtype, device=value.device)
    eta = value.reshape(-1) + steps.reshape(3, -1)
    try:
        ours = rest(eta, phi)
    except (RuntimeError, IndexError):  # it names dimensions from the left
        return found
    close = at_least(1e-10, value.dtype)
    same = ours.shape == eta.shape and torch.allclose(ours, found(eta, phi), rtol=close, atol=close, equal_nan=True)
    return rest if same else found


def _without_expansions(graph: fx.GraphModule) -> fx.GraphModule:
    """Leave it to broadcasting to spread a tensor; the caller checks the numbers."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.expand.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _shared(f: Callable[[Tensor], Tensor], eta: Tensor) -> Tensor:
    """Each observation has its own value of a projection that all share: run them all, keep the diagonal."""
    n = eta.shape[1]
    rows = max(1, int(5e6 / n**2))
    return torch.cat([torch.vmap(f)(part.reshape(-1)).reshape(-1, n, n).diagonal(0, 1, 2) for part in eta.split(rows)])


def _acts_elementwise(f: Likelihood, value: Tensor, result: Tensor, phi: Tensor, generator: torch.Generator) -> bool:
    """Whether ℓ gives the recorded values at the recorded η, and its Jacobian is diagonal (two random products)."""
    n = result.numel()
    eta = (value.reshape(n) if value.numel() == n else value.expand(result.shape).reshape(n))[None]
    close = at_least(1e-9, eta.dtype, 1e3)
    try:
        same = torch.allclose(f(eta, phi)[0], result.reshape(n), rtol=close, atol=close)
    except (RuntimeError, IndexError):  # the rest of the graph does not take this shape: not a way to feed it
        return False
    if not same:
        return False
    eta = eta + torch.randn(eta.shape, generator=generator, dtype=eta.dtype).to(eta.device)
    weights = torch.randn(eta.shape, generator=generator, dtype=eta.dtype).to(eta.device)
    eta.requires_grad_()
    with torch.enable_grad():
        out = f(eta, phi)
        (weighted,) = torch.autograd.grad((out * weights).sum(), eta, retain_graph=True)
        (plain,) = torch.autograd.grad(out.sum(), eta)
    return torch.allclose(weighted, weights * plain, rtol=10 * close, atol=close)
