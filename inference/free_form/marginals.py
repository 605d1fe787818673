"""What the factors of the mean field say of their sites: moments, quantiles, draws and log-densities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import (
    CategoricalBlock,
)
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.gaussian_block import GaussianBlock
from probdl.inference.free_form.grid import GridBlock

Values = dict[str, Tensor]


class Marginals(ABC):
    """The answers of one block."""

    block: Any

    @abstractmethod
    def mean(self, name: str) -> Tensor:
        """Return the mean of a site, in its shape."""

    @abstractmethod
    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of a site, in its shape."""

    @abstractmethod
    def quantile(self, name: str, q: float) -> Tensor:
        """Return the q-quantile of a site, in its shape."""

    @abstractmethod
    def draws(self, n: int) -> Values:
        """Return n draws of the block's sites by torch's generator, (n, *shape) each."""

    @abstractmethod
    def log_prob(self, values: Values) -> Tensor:
        """Return the log-density at values (..., *shape), summed over the block's sites."""

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and densities of one entry, by differences of close quantiles."""
        t = torch.linspace(-3.5, 3.5, 141, dtype=torch.float64)
        x = torch.stack([self.quantile(name, float(q)).reshape(-1)[entry] for q in torch.special.ndtr(t)]).cpu()
        mass = torch.special.ndtr(t).diff()
        keep = x.diff() > 0
        return ((x[1:] + x[:-1]) / 2)[keep], (mass / x.diff())[keep]


class GaussianMarginals(Marginals):
    """Of a Gaussian block."""

    def __init__(self, block: GaussianBlock) -> None:
        self.block = block

    def mean(self, name: str) -> Tensor:
        """Return the mean of a site."""
        return self.block.value(self.block.mean.reshape(-1))[name]

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of a site."""
        return self.block.value(self.block.variances().sqrt())[name]

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the exact quantile."""
        t = torch.special.ndtri(torch.tensor(q, dtype=torch.float64)).to(self.block.mean)
        return self.mean(name) + t * self.sd(name)

    def draws(self, n: int) -> Values:
        """Return draws, jointly within each unit."""
        mean = self.block.mean.reshape(-1)
        noise = torch.randn(n, len(mean), dtype=mean.dtype).to(mean.device)
        return self.block.value(mean + self.block.coloured(noise))

    def log_prob(self, values: Values) -> Tensor:
        """Return the joint log-density of the block's sites."""
        first = next(iter(self.block.places))
        batch = values[first].shape[: values[first].ndim - self.block.places[first].ndim]
        flat = self.block.mean.new_zeros(*batch, self.block.units * self.block.size)
        for name, place in self.block.places.items():
            flat[..., place.reshape(-1)] = values[name].to(flat).reshape((*batch, -1))
        white = self.block.whitened(flat - self.block.mean.reshape(-1))
        return -0.5 * (white**2).sum(-1) + self.block.half_log_det() - 0.5 * flat.shape[-1] * math.log(2 * math.pi)


class DiscreteMarginals(Marginals):
    """Of a discrete latent, or of a chain of them."""

    def __init__(self, block: CategoricalBlock | ChainBlock) -> None:
        self.block = block

    def probabilities(self, name: str) -> Tensor:
        """Return the probability of each value, (*shape, K)."""
        if isinstance(self.block, ChainBlock):
            return self.block.probabilities(name)
        (p,) = self.block.moments
        return p.reshape((*self.block.shape, p.shape[-1]))

    def mean(self, name: str) -> Tensor:
        """Return the mean of the site's value."""
        p = self.probabilities(name)
        return p @ self.block.support.to(p)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of the site's value."""
        p = self.probabilities(name)
        return (p @ self.block.support.to(p) ** 2 - self.mean(name) ** 2).clamp(min=0).sqrt()

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the smallest value whose distribution function reaches q."""
        p = self.probabilities(name)
        index = (p.cumsum(-1) < q - 1e-12).sum(-1).clamp(max=p.shape[-1] - 1)
        return self.block.support.to(p)[index]

    def draws(self, n: int) -> Values:
        """Return draws of the values."""
        if isinstance(self.block, ChainBlock):
            generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
            index = self.block.draws(n, generator)
        else:
            index = [self.block.distribution().sample((n,))]
        return {k: self.block.support[i].reshape(n, *self.block.shape) for k, i in zip(self.block.names, index)}

    def log_prob(self, values: Values) -> Tensor:
        """Return the log-probability of values, summed over units."""
        batch = values[self.block.names[0]].shape[: values[self.block.names[0]].ndim - len(self.block.shape)]
        index = [self._index(values[k]).reshape((*batch, -1)) for k in self.block.names]
        if isinstance(self.block, ChainBlock):
            return self.block.log_prob(index)
        return self.block.distribution().log_prob(index[0]).sum(-1)

    def _index(self, x: Tensor) -> Tensor:
        return torch.searchsorted(self.block.support.contiguous(), x.to(self.block.support).contiguous())

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return the values and their probabilities."""
        p = self.probabilities(name)
        return self.block.support.to(p).cpu(), p.reshape(-1, p.shape[-1])[entry].cpu()


class GridMarginals(Marginals):
    """Of a free-form factor: constant in unconstrained space on the cell around each grid point."""

    def __init__(self, block: GridBlock) -> None:
        self.block = block

    def mean(self, name: str) -> Tensor:
        """Return the mean of the site."""
        return (self.block.moments[0] * self.block.points).sum(-1).reshape(self.block.shape)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of the site."""
        mean = self.mean(name).reshape(-1, 1)
        return (self.block.moments[0] * (self.block.points - mean) ** 2).sum(-1).sqrt().reshape(self.block.shape)

    @property
    def _step(self) -> Tensor:
        return self.block.free[:, 1] - self.block.free[:, 0]

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the quantile, interpolated within its cell."""
        p = self.block.moments[0]
        total = p.cumsum(-1)
        index = (total < q).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
        before = total.gather(1, index) - p.gather(1, index)
        inside = ((q - before) / p.gather(1, index).clamp(min=1e-300)).clamp(0, 1) - 0.5
        free = self.block.free.gather(1, index) + inside * self._step[:, None]
        falls = self.block.points[:, 0] > self.block.points[:, -1]
        if bool(falls.any()):
            raise ValueError(f"The transform of {name!r} decreases; its quantiles are not available.")
        return self.block.constrained(free).reshape(self.block.shape)

    def draws(self, n: int) -> Values:
        """Return draws: a cell, and a place in it."""
        index = self.block.distribution().sample((n,)).T
        jitter = (torch.rand(index.shape, dtype=self._step.dtype).to(self._step) - 0.5) * self._step[:, None]
        x = self.block.constrained(self.block.free.gather(1, index) + jitter)
        return {self.block.name: x.T.reshape(n, *self.block.shape)}

    def log_prob(self, values: Values) -> Tensor:
        """Return the log-density, −∞ outside the grid, summed over units."""
        x = values[self.block.name].to(self._step)
        batch = x.shape[: x.ndim - len(self.block.shape)]
        transform = self.block.transform
        u = transform.inv(x)
        jacobian = transform.log_abs_det_jacobian(u, x).reshape((*batch, -1))
        cell = ((u.reshape((*batch, -1)) - self.block.free[:, 0]) / self._step).round().long()
        inside = (cell >= 0) & (cell < self.block.free.shape[1])
        units = torch.arange(len(self._step), device=cell.device)
        p = self.block.moments[0][units, cell.clamp(0, self.block.free.shape[1] - 1)]
        log_p = torch.where(inside, p.log(), torch.full_like(p, -torch.inf))
        return (log_p - self._step.log() - jacobian).sum(-1)
