"""A posterior with a few latents on a grid of cells, and the others Gaussian given these."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.posteriors.lattice import Cells, Lattice
from probdl.inference.programs.latents import Latent
from probdl.smoothing import kernel_density


class GridMixture(Approximation):
    r"""Latents φ with a density on small cells, and z Gaussian given the nodes around φ.

    .. math:: q(z, \phi) = q(\phi) \sum_k h_k(\phi)\, N(z; m_k, \Sigma_k)

    with the hat functions h of the lattice on which the Gaussians are known. Moments and quantiles are sums over cells
    and nodes, without draws.

    Args:
        latents: all sites.
        inner: where each Gaussian site stands in z.
        outer: where each other site stands in φ.
        cells: the density of φ.
        means: of z at the nodes, (m, d).
        covariances: of z at the nodes, (m, d, d).
    """

    def __init__(
        self,
        latents: dict[str, Latent],
        inner: dict[str, Latent],
        outer: dict[str, Latent],
        cells: Cells,
        means: Tensor,
        covariances: Tensor,
    ) -> None:
        self.latents, self.inner, self.outer, self.cells = latents, inner, outer, cells
        self.means, self.covariances = means, covariances
        self.sds = covariances.diagonal(dim1=1, dim2=2).sqrt()

    @cached_property
    def _masses(self) -> Tensor:
        """The probability of each cell, flat."""
        return self.cells.log_probability.reshape(-1).exp()

    @cached_property
    def weights(self) -> Tensor:
        """The probability of each node's Gaussian, (m,)."""
        nodes, hats = self.cells.neighbours(self.cells.centres())
        flat = torch.zeros(len(self.means), dtype=self.means.dtype, device=self.means.device)
        return flat.index_add(0, nodes.reshape(-1), (hats * self._masses[:, None]).reshape(-1))

    @cached_property
    def _roots(self) -> Tensor:
        return torch.linalg.cholesky(self.covariances)

    def _outer_values(self, name: str) -> Tensor:
        """The site's value in each cell, (cells, *shape)."""
        return self.outer[name].constrain(self.cells.lattice.phi(self.cells.centres()))

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site."""
        return self._moments(name)[0]

    def sd(self, name: str) -> Tensor:
        """Return the posterior standard deviation of a site."""
        return self._moments(name)[1]

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        if name in self.outer:
            x, p = self._outer_values(name), self._masses
            p = p.reshape(-1, *(1,) * (x.ndim - 1))
            mean = (p * x).sum(0)
            return mean, (p * (x - mean) ** 2).sum(0).sqrt()
        latent = self.inner[name]
        m, s, w = self.means[:, latent.place], self.sds[:, latent.place], self.weights[:, None]
        mean = (w * m).sum(0)
        variance = (w * (s**2 + (m - mean) ** 2)).sum(0)
        return mean.reshape(latent.shape), variance.sqrt().reshape(latent.shape)

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the q-quantile of a site: of the cells, or of the mixture by bisection."""
        if name in self.outer:
            return self._cell_quantile(name, q)
        latent = self.inner[name]
        m, s, w = self.means[:, latent.place], self.sds[:, latent.place], self.weights[:, None]
        low, high = (m - 12 * s).amin(0), (m + 12 * s).amax(0)
        for _ in range(60):
            middle = (low + high) / 2
            below = (w * torch.special.ndtr((middle - m) / s)).sum(0) < q
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).reshape(latent.shape)

    def _cell_quantile(self, name: str, q: float) -> Tensor:
        """Interpolate between the middles of the cells, whose mass counts half below."""
        x = self._outer_values(name).reshape(len(self._masses), -1)
        ordered, order = x.sort(0)
        mass = self._masses[order]
        below = mass.cumsum(0) - 0.5 * mass
        at = (below < q).sum(0).clamp(1, len(x) - 1)[None]
        left, right = below.gather(0, at - 1)[0], below.gather(0, at)[0]
        share = ((q - left) / (right - left).clamp(min=1e-300)).clamp(0, 1)
        low, high = ordered.gather(0, at - 1)[0], ordered.gather(0, at)[0]
        return (low + share * (high - low)).reshape(self.outer[name].shape)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and densities there of one entry of the flattened site."""
        if name in self.outer:
            return kernel_density(self.draws(20_000, 1)[name].reshape(20_000, -1)[:, entry])
        place = self.inner[name].place.start + entry
        m, s = self.means[:, place], self.sds[:, place]
        x = torch.linspace(float((m - 4 * s).min()), float((m + 4 * s).max()), 300, dtype=m.dtype, device=m.device)
        p = (self.weights / s * torch.exp(-0.5 * ((x[:, None] - m) / s) ** 2)).sum(1) / math.sqrt(2 * math.pi)
        shown = p > 1e-4 * p.max()
        return x[shown].cpu(), p[shown].cpu()

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return n draws (4000 where None) with a local generator."""
        n = n or 4000
        generator = torch.Generator().manual_seed(seed)
        t = self.cells.draws(n, generator)
        nodes, hats = self.cells.neighbours(t)
        chosen = torch.multinomial(hats.cpu(), 1, generator=generator).to(nodes.device)
        node = nodes.gather(1, chosen)[:, 0]
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype).to(self.means.device)
        z = self.means[node].clone()
        for k in node.unique().tolist():
            rows = node == k
            z[rows] += noise[rows] @ self._roots[k].T
        phi = self.cells.lattice.phi(t)
        return {
            k: self.outer[k].constrain(phi) if k in self.outer else self.inner[k].constrain(z) for k in self.latents
        }

    def log_prob(self, values: dict[str, Tensor]) -> Tensor:
        """Return the log-density at sites' values, each (..., *shape), in their own spaces."""
        batch = next(iter(values.values())).shape[: values[next(iter(values))].ndim - len(self._shape_of_first(values))]
        z = torch.cat([values[k].to(self.means).reshape(-1, _size(x)) for k, x in self.inner.items()], -1)
        phi, log_jacobian = self._free_outer(values)
        t = self.cells.lattice.coordinates(phi)
        nodes, hats = self.cells.neighbours(t)
        log_z = torch.full_like(hats, -torch.inf)
        for k in nodes.unique().tolist():
            rows, corner = (nodes == k).nonzero(as_tuple=True)
            log_z[rows, corner] = self._log_normal(z[rows], k)
        log_q = (log_z + hats.log()).logsumexp(1) + self.cells.log_density(t) - log_jacobian
        return log_q.reshape(batch)

    def _shape_of_first(self, values: dict[str, Tensor]) -> torch.Size:
        return self.latents[next(iter(values))].shape

    def _free_outer(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """φ (n, k) of sites' values, and the log Jacobian of the transforms, (n,)."""
        parts, total = [], torch.zeros((), dtype=self.means.dtype, device=self.means.device)
        for name, latent in self.outer.items():
            x = values[name].to(self.means).reshape(-1, *latent.shape)
            u = latent.transform.inv(x)
            parts.append(u.reshape(len(x), -1))
            total = total + latent.transform.log_abs_det_jacobian(u, x).reshape(len(x), -1).sum(-1)
        return torch.cat(parts, -1), total

    def _log_normal(self, z: Tensor, node: int) -> Tensor:
        root = self._roots[node]
        white = torch.linalg.solve_triangular(root, (z - self.means[node]).T, upper=False)
        constant = root.diagonal().log().sum() + 0.5 * len(root) * math.log(2 * math.pi)
        return -0.5 * (white**2).sum(0) - constant

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the lattice, the cells and the Gaussians."""
        lattice = self.cells.lattice
        tensors = {
            "means": self.means,
            "covariances": self.covariances,
            "centre": lattice.centre,
            "root": lattice.root,
            "nodes": lattice.nodes,
            "log_density": lattice.log_density,
        }
        return tensors, {"spacing": lattice.spacing, "outer": list(self.outer)}

    @classmethod
    def from_tensors(
        cls, latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> GridMixture:
        """Return what ``to_tensors`` took apart."""
        from probdl.inference.programs.latents import one_after_another

        lattice = Lattice(
            tensors["centre"], tensors["root"], settings["spacing"], tensors["nodes"], tensors["log_density"]
        )
        inner = one_after_another({k: x for k, x in latents.items() if k not in settings["outer"]})
        outer = one_after_another({k: latents[k] for k in settings["outer"]})
        return cls(latents, inner, outer, Cells.of(lattice), tensors["means"], tensors["covariances"])


def _size(latent: Latent) -> int:
    return latent.place.stop - latent.place.start
