"""Jointly Gaussian latents: units of equal size, independent of each other given all other factors."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.free_form.blocks import Block


class GaussianBlock(Block):
    """Gaussian factors of n units with k entries each; moments are E z (n, k) and E zzᵀ (n, k, k).

    Args:
        places: for each latent site, the flat position u·k + i of each of its entries, in the site's shape.
        units: n.
        size: k.
        mean: the start, (n, k).
        sd: of the start.
    """

    def __init__(self, places: dict[str, Tensor], units: int, size: int, mean: Tensor, sd: float = 1.0) -> None:
        self.names, self.places, self.units, self.size = tuple(places), places, units, size
        eye = torch.eye(size, dtype=mean.dtype, device=mean.device).expand(units, size, size)
        self.restore((mean / sd**2, eye / sd**2))

    def state(self) -> tuple[Tensor, ...]:
        """Return shift (n, k) and precision (n, k, k)."""
        return self.shift, self.precision

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take shift and precision."""
        self.shift, self.precision = state
        shared = (
            self.units > 1 and not self.precision.requires_grad and bool((self.precision == self.precision[:1]).all())
        )
        precision = self.precision[:1] if shared else self.precision
        self.root, info = torch.linalg.cholesky_ex(precision)
        if bool(info.any()):
            self._refuse()
        self.covariance = torch.cholesky_inverse(self.root)
        if shared:
            self.mean = self.shift @ self.covariance[0]
        else:
            self.mean = (self.covariance @ self.shift[..., None])[..., 0]
        self.moments = (self.mean, self.covariance + self.mean[..., None] * self.mean[..., None, :])

    def by_gradient(self, shift: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Turn derivatives by (shift, P) into those by the gradient G in E zzᵀ that sets P = −(G + Gᵀ)."""
        return shift, -(precision + precision.mT)

    def _refuse(self) -> NoReturn:
        raise ConvergenceError(
            f"Coordinate ascent: the optimal factor of {', '.join(map(repr, self.names))} is improper, its precision "
            "is not positive. Give the latents proper priors, or use method='meanfield'."
        )

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the optimum: shift from the gradient by E z, precision from that by E zzᵀ."""
        shift, second = gradient
        self.restore((shift, -(second + second.mT)))

    def entropy(self) -> Tensor:
        """Return the entropy, summed over units."""
        return 0.5 * self.units * self.size * (1 + math.log(2 * math.pi)) - self.half_log_det()

    def pair_index(self, i: Tensor, j: Tensor) -> Tensor:
        """Where E z_i z_j of flat positions in one unit stands in the flattened second moments."""
        return i * self.size + j % self.size

    def second_of(self, flat: Tensor) -> Tensor:
        """The second moments of a point, laid out as ``moments`` has them."""
        z = flat.reshape(self.units, self.size)
        return z[:, :, None] * z[:, None, :]

    def covariances(self) -> Tensor:
        """Return the covariance of each unit, (n, k, k)."""
        return self.covariance.expand(self.units, self.size, self.size)

    def variances(self) -> Tensor:
        """Return the variance of each entry, flat in u·k + i."""
        return self.covariances().diagonal(dim1=-2, dim2=-1).reshape(-1)

    def whitened(self, gap: Tensor) -> Tensor:
        """Return what is standard normal where ``gap``, (…, n·k), is a deviation from the mean."""
        rows = gap.reshape((*gap.shape[:-1], self.units, self.size, 1))
        return (self.root.mT @ rows).reshape(gap.shape)

    def coloured(self, noise: Tensor) -> Tensor:
        """Return deviations from the mean, (…, n·k), that standard normal noise becomes."""
        rows = noise.reshape((*noise.shape[:-1], self.units, self.size, 1))
        return torch.linalg.solve_triangular(self.root.mT, rows, upper=True).reshape(noise.shape)

    def half_log_det(self) -> Tensor:
        """Return half the log determinant of the precision of all units."""
        return self.root.diagonal(dim1=-2, dim2=-1).log().sum() * (self.units / len(self.root))

    def value(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the sites' values from flat vectors (..., n·k)."""
        return {
            name: flat[..., place.reshape(-1)].reshape((*flat.shape[:-1], *place.shape))
            for name, place in self.places.items()
        }


class ArrowBlock(GaussianBlock):
    r"""Jointly Gaussian latents in which many units see each other only through a core, as groups do through a mean.

    The precision has the shape of an arrow: with blocks D_u of the leaves, B_u between leaf and core, and C of the
    core, the core's precision is :math:`C - \sum_u B_u^\top D_u^{-1} B_u`, and all moments follow unit by unit. Flat
    positions number the leaves first, u·l + i, then the core. The second moments are packed: leaf with leaf (n, l, l),
    leaf with core (n, l, c), core with core (c, c).

    Args:
        places: flat positions of each site.
        leaves: the number of units n.
        leaf: the entries l of each.
        core: the entries c of the core.
        mean: the start, flat.
    """

    def __init__(self, places: dict[str, Tensor], leaves: int, leaf: int, core: int, mean: Tensor) -> None:
        self.names, self.places, self.leaves, self.leaf, self.core = tuple(places), places, leaves, leaf, core
        self.units, self.size = 1, leaves * leaf + core
        self._cuts = (leaves * leaf * leaf, leaves * leaf * core, core * core)
        start = torch.eye(leaf).expand(leaves, leaf, leaf), torch.zeros(leaves, leaf, core), torch.eye(core)
        packed = torch.cat([x.reshape(-1) for x in start]).to(mean)
        self.restore((mean.reshape(1, -1), packed))

    def split(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the blocks D (n, l, l), B (n, l, c) and C (c, c) of packed numbers."""
        d, b, c = packed.split(self._cuts)
        n, leaf, core = self.leaves, self.leaf, self.core
        return d.reshape(n, leaf, leaf), b.reshape(n, leaf, core), c.reshape(core, core)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take shift (1, d) and packed precision."""
        self.shift, self.precision = state
        d, b, c = self.split(self.precision)
        h, g = self.shift[0].split((self.leaves * self.leaf, self.core))
        h = h.reshape(self.leaves, self.leaf, 1)
        self.leaf_root, bad = torch.linalg.cholesky_ex(d)
        solved = torch.cholesky_solve(torch.cat([b, h], -1), self.leaf_root)
        self.gain, alone = solved[..., :-1], solved[..., -1:]  # leaf = alone − gain · core, given the core
        self.core_root, bad_core = torch.linalg.cholesky_ex(c - (b.mT @ self.gain).sum(0))
        if bool(bad.any()) or bool(bad_core.any()):
            self._refuse()
        self.core_covariance = torch.cholesky_inverse(self.core_root)
        core_mean = self.core_covariance @ (g - (b.mT @ alone).sum(0)[:, 0])
        leaf_mean = alone[..., 0] - self.gain @ core_mean
        cross = -self.gain @ self.core_covariance
        self.leaf_covariance = torch.cholesky_inverse(self.leaf_root) - cross @ self.gain.mT
        self.cross_covariance = cross
        self.mean = torch.cat([leaf_mean.reshape(-1), core_mean])[None]
        covariance = (self.leaf_covariance, cross, self.core_covariance)
        packed = torch.cat([x.reshape(-1) for x in covariance])
        self.moments = (self.mean, packed + self.second_of(self.mean))

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the optimum: shift from the gradient by E z, precision from that by the packed second moments."""
        shift, second = gradient
        d, b, c = self.split(second)
        self.restore((shift, -torch.cat([(d + d.mT).reshape(-1), b.reshape(-1), (c + c.mT).reshape(-1)])))

    def by_gradient(self, shift: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Turn derivatives by (shift, packed precision) into those by the packed gradient that sets it."""
        d, b, c = self.split(precision)
        return shift, -torch.cat([(d + d.mT).reshape(-1), b.reshape(-1), (c + c.mT).reshape(-1)])

    def second_of(self, flat: Tensor) -> Tensor:
        """The packed second moments of a point."""
        leaf, core = flat.reshape(-1).split((self.leaves * self.leaf, self.core))
        leaf = leaf.reshape(self.leaves, self.leaf)
        outer = (leaf[:, :, None] * leaf[:, None, :], leaf[:, :, None] * core, core[:, None] * core)
        return torch.cat([x.reshape(-1) for x in outer])

    def pair_index(self, i: Tensor, j: Tensor) -> Tensor:
        """Where E z_i z_j stands in the packed second moments."""
        n, leaf, core = self.leaves * self.leaf, self.leaf, self.core
        low, high = torch.minimum(i, j), torch.maximum(i, j)
        inside = i * leaf + j % leaf
        across = self._cuts[0] + low * core + (high - n)
        centre = self._cuts[0] + self._cuts[1] + (i - n) * core + (j - n)
        return torch.where(high < n, inside, torch.where(low < n, across, centre))

    def half_log_det(self) -> Tensor:
        """Return half the log determinant of the precision."""
        leaf, core = (r.diagonal(dim1=-2, dim2=-1).log().sum() for r in (self.leaf_root, self.core_root))
        return leaf + core

    def _leaves_and_core(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        leaf, core = flat.split((self.leaves * self.leaf, self.core), -1)
        return leaf.reshape((*flat.shape[:-1], self.leaves, self.leaf)), core

    def whitened(self, gap: Tensor) -> Tensor:
        """Return what is standard normal: the leaves given the core, and the core."""
        leaf, core = self._leaves_and_core(gap)
        given = leaf + (self.gain @ core[..., None, :, None])[..., 0]
        white = (self.leaf_root.mT @ given[..., None])[..., 0].flatten(-2)
        return torch.cat([white, core @ self.core_root], -1)

    def coloured(self, noise: Tensor) -> Tensor:
        """Return deviations from the mean: of the core, and of the leaves given it."""
        leaf, core = self._leaves_and_core(noise)
        core = torch.linalg.solve_triangular(self.core_root.mT, core[..., None], upper=True)
        own = torch.linalg.solve_triangular(self.leaf_root.mT, leaf[..., None], upper=True)
        return torch.cat([(own - self.gain @ core[..., None, :, :])[..., 0].flatten(-2), core[..., 0]], -1)

    def variances(self) -> Tensor:
        """Return the variance of each entry, flat."""
        leaf = self.leaf_covariance.diagonal(dim1=-2, dim2=-1).reshape(-1)
        return torch.cat([leaf, self.core_covariance.diagonal()])

    def covariances(self) -> Tensor:
        """Return the whole covariance, (1, d, d)."""
        n = self.leaves * self.leaf
        gain = self.gain.reshape(n, self.core)
        full = gain.new_zeros(self.size, self.size)
        full[:n, :n] = gain @ self.core_covariance @ gain.T + torch.block_diag(*torch.cholesky_inverse(self.leaf_root))
        full[:n, n:] = self.cross_covariance.reshape(n, self.core)
        full[n:, :n] = full[:n, n:].T
        full[n:, n:] = self.core_covariance
        return full[None]
