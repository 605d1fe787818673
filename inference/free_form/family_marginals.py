"""Moments, quantiles, draws and densities of the factors that are exponential families."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probdl.inference.free_form.blocks import (
    BetaBlock,
    DirichletBlock,
    ExponentialBlock,
    GammaBlock,
    InverseGammaBlock,
    WishartBlock,
)
from probdl.inference.free_form.marginals import Marginals, Values
from probdl.smoothing import kernel_density


class FamilyMarginals(Marginals):
    """Of independent units of an exponential family."""

    def __init__(self, block: ExponentialBlock) -> None:
        self.block = block
        self._kept: Tensor | None = None

    def _shaped(self, x: Tensor) -> Tensor:
        return x.reshape(self.block.shape)

    def mean(self, name: str) -> Tensor:
        """Return the mean of the site."""
        return self._shaped(self.block.distribution().mean)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of the site."""
        return self._shaped(self.block.distribution().variance.sqrt())

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the exact quantile; of entries of a matrix off its diagonal, that of 20,000 draws."""
        if isinstance(self.block, WishartBlock):
            if self._kept is None:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(1)
                    self._kept = self.draws(20_000)[name]
            return self._kept.quantile(q, 0)
        return self._shaped(torch.as_tensor(_quantile(self.block, q)).to(self.block.natural))

    def draws(self, n: int) -> Values:
        """Return draws of the site."""
        if isinstance(self.block, WishartBlock):
            return {self.block.name: _wishart_draws(self.block, n)}
        return {self.block.name: self.block.distribution().sample((n,)).reshape(n, *self.block.shape)}

    def log_prob(self, values: Values) -> Tensor:
        """Return the log-density, summed over units."""
        x = values[self.block.name].to(self.block.natural)
        event = self.block.shape[len(self.block.unit_shape) :]
        batch = x.shape[: x.ndim - len(self.block.shape)]
        return self.block.distribution().log_prob(x.reshape((*batch, -1, *event))).sum(-1)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return points and densities of one entry."""
        if isinstance(self.block, WishartBlock):
            self.quantile(name, 0.5)
            assert self._kept is not None
            return kernel_density(self._kept.reshape(len(self._kept), -1)[:, entry])
        return super().density(name, entry)


def _wishart_draws(block: WishartBlock, n: int) -> Tensor:
    """Draws by Bartlett's decomposition, which any degrees of freedom allow; (n, *shape)."""
    df, inverse = block.df_and_inverse_scale
    d = block.size
    lower = torch.randn(n, len(df), d, d, dtype=df.dtype, device=df.device).tril(-1)
    halves = (df[:, None] - torch.arange(d, dtype=df.dtype, device=df.device)) / 2
    chi2 = 2 * torch.distributions.Gamma(halves, torch.ones_like(halves)).sample((n,))
    root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(inverse)))
    a = root @ (lower + chi2.sqrt().diag_embed())
    return (a @ a.mT).reshape(n, *block.shape)


def _quantile(block: ExponentialBlock, q: float) -> np.ndarray:
    from scipy import special

    natural = block.natural.cpu().numpy()
    if isinstance(block, InverseGammaBlock):
        a, b = (x.cpu().numpy() for x in block.shape_and_rate)
        return b / special.gammainccinv(a, q)
    if isinstance(block, GammaBlock):
        a, b = (x.cpu().numpy() for x in block.shape_and_rate)
        return special.gammaincinv(a, q) / b
    if isinstance(block, BetaBlock):
        return special.betaincinv(natural[:, 0] + 1, natural[:, 1] + 1, q)
    assert isinstance(block, DirichletBlock)
    a = natural + 1
    return special.betaincinv(a, a.sum(1, keepdims=True) - a, q)
