r"""Linear response: how the optimum moves when the log-density is tilted gives the covariance that mean field misses.

At the optimum of a bound F(φ) the covariance of the latents is the location's block of the inverse Hessian of −F. The
same inverse turns the error of the gradient into the error of the optimum (the sandwich).
"""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.deterministic.expectations import Expectation
from probdl.inference.deterministic.gaussian_families import Family
from probdl.inference.deterministic.trust_region import Smooth
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.latents import Latent

_DENSE = 1200  # parameters up to which the Hessian is held as a matrix
_MOST_COLUMNS = 300  # latents up to which the covariance is solved for column by column where it is not
_HUBS = 20  # of which the least well known are then solved for
PROBES = 32  # random probes of its diagonal for more
_CHUNK = 16
_STEPS = 4  # towards the optimum for further points
_SHORT = 1.0  # whitened length up to which such a step is trusted
_ROOT2 = 2**0.5


def is_probed(curvature: Curvature, dim: int) -> bool:
    """Whether there are so many latents that the linear response is estimated from random probes."""
    return not curvature.is_dense and dim > _MOST_COLUMNS


class Curvature:
    """The Hessian of a function at a point, and systems with it: dense, or by conjugate gradients.

    Args:
        smooth: the function.
        x: the point, (n,).

    Raises:
        ConvergenceError: if the Hessian is not positive definite.
    """

    def __init__(self, smooth: Smooth, x: Tensor) -> None:
        self.smooth, self.x = smooth, x
        self.is_dense = len(x) <= _DENSE
        if self.is_dense:
            rows = torch.eye(len(x)).to(x).split(_CHUNK)
            matrix = torch.cat([smooth.product(x, part) for part in rows])
            self.matrix = (matrix + matrix.T) / 2
            self._root, info = torch.linalg.cholesky_ex(self.matrix)
            if int(info) or not bool(torch.isfinite(self._root).all()):
                raise ConvergenceError("the bound is not curved at its optimum")

    def solve(self, columns: Tensor) -> Tensor:
        """Return the inverse Hessian times columns (n, k)."""
        if self.is_dense:
            return torch.cholesky_solve(columns, self._root)
        return torch.stack([self._conjugate_gradients(b) for b in columns.T], 1)

    def block(self, dim: int) -> Tensor:
        """Return the first (dim, dim) block of the Hessian; its expectation, the identity, where it is not held."""
        return self.matrix[:dim, :dim] if self.is_dense else torch.eye(dim).to(self.x)

    def _conjugate_gradients(self, b: Tensor, tolerance: float = 1e-5, most: int = 500) -> Tensor:
        x, r = torch.zeros_like(b), b.clone()
        p, size = r.clone(), r @ r
        for _ in range(most):
            if size.sqrt() <= tolerance * b.norm():
                return x
            q = self.smooth.product(self.x, p)
            bend = p @ q
            if not bool(bend > 0):
                raise ConvergenceError("the bound is not curved at its optimum")
            x, r = x + (size / bend) * p, r - (size / bend) * q
            last, size = size, r @ r
            p = r + (size / last) * p
        return x


def response_covariance(family: Family, curvature: Curvature) -> Tensor:
    """Return the linear-response covariance of z, (d, d); where that is too much, a diagonal one from random probes."""
    if is_probed(curvature, family.dim):
        return torch.diag(_probed_variances(family, curvature))  # advice says so
    unit = torch.eye(len(curvature.x), family.dim).to(curvature.x)
    inner = curvature.solve(unit)[: family.dim]
    covariance = family.root @ inner @ family.root.T
    return (covariance + covariance.T) / 2


def _probed_variances(family: Family, curvature: Curvature) -> Tensor:
    """Estimate the diagonal of the covariance A of z by E[v ∘ Av], v of random signs."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (family.dim, PROBES), generator=generator).to(curvature.x) * 2 - 1
    tilts = torch.cat([family.root.T @ signs, signs.new_zeros(len(curvature.x) - family.dim, PROBES)])
    moved = family.root @ curvature.solve(tilts)[: family.dim]
    products = moved * signs
    variances = products.mean(1)
    hubs = (products.std(1) / variances.abs()).topk(min(_HUBS, family.dim)).indices  # those that probes know least
    tilts = torch.cat([family.root[hubs].T, signs.new_zeros(len(curvature.x) - family.dim, len(hubs))])
    variances[hubs] = (family.root[hubs] * curvature.solve(tilts)[: family.dim].T).sum(1)
    return variances.maximum(family.covariance(curvature.x).diagonal())  # which it cannot fall below at an optimum


def response_sds(
    latents: dict[str, Latent], family: Family, phi: Tensor, curvature: Curvature, covariance: Tensor
) -> dict[str, Tensor]:
    r"""Return the linear-response standard deviation of each site in its own space, in its shape.

    With :math:`J = \partial E_q[x] / \partial\varphi` the covariance of x is :math:`J H^{-1} J^\top`; on real sites
    that is the covariance of z.
    """
    out = {}
    for name, latent in latents.items():
        if latent.is_real():
            out[name] = covariance.diagonal().sqrt()[latent.place].reshape(latent.shape)
        else:
            rows = _mean_jacobian(latents, family, phi, name)
            out[name] = (rows * curvature.solve(rows.T).T).sum(1).clamp(min=0).sqrt().reshape(latent.shape)
    return out


def _mean_jacobian(latents: dict[str, Latent], family: Family, phi: Tensor, name: str) -> Tensor:
    """How the mean of a site under q moves with φ, (entries, size)."""
    phi = phi.detach().requires_grad_()
    with torch.enable_grad():
        q = GaussianApproximation(latents, family.location(phi), family.covariance(phi))
        mean = q.mean(name).reshape(-1)
        return torch.stack([torch.autograd.grad(x, phi, retain_graph=True)[0] for x in mean])


def location_hessian(family: Family, curvature: Curvature) -> Tensor:
    """Return the mean of the Hessian of minus the log-density under q, (d, d)."""
    inverse = torch.linalg.inv(family.root)
    return inverse.T @ curvature.block(family.dim) @ inverse


def pooled_optimum(
    family: Family, phi: Tensor, curvature: Curvature, expectation: Expectation
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the optimum for further points, by steps with the curvature at hand, and what error is left.

    At the optimum for one set of points the gradients at other sets are errors of the gradient. The inverse Hessian
    turns them into errors of the optimum (the sandwich), and their mean into a step to the optimum for all of them.

    Args:
        family: of the approximation.
        phi: its parameters at the optimum for one set of points, (size,).
        curvature: of the negative bound there.
        expectation: with that set of points.

    Returns:
        The parameters, and the errors of locations and of log-scales, (d,) each.
    """
    d, others, best = family.dim, expectation.others(), phi
    for _ in range(_STEPS):
        moves = curvature.solve(torch.stack([_gradient(family, best, other) for other in others], 1))
        step, error = expectation.pooled(moves)
        location_step, location_error = expectation.pooled(family.root @ moves[:d])
        if not bool(step.norm() <= _SHORT):  # so far off that one Newton step says little: more points will
            return phi, location_step.abs() + location_error, (step.abs() + error)[d : 2 * d] / _ROOT2
        best = best + step
        if bool((step.abs() <= 0.1 * error + 1e-6).all()):
            break
    return best, torch.hypot(location_step, location_error), torch.hypot(step, error)[d : 2 * d] / _ROOT2


def _gradient(family: Family, phi: Tensor, expectation: Expectation) -> Tensor:
    phi = phi.detach().requires_grad_()
    with torch.enable_grad():
        bound = expectation(family, phi) + family.entropy(phi)
        return torch.autograd.grad(bound, phi)[0]
