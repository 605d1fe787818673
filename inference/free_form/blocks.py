r"""The factors q_j of the mean field: exponential families, held by natural parameters and expected statistics.

A block is told the gradient of the expected log-density with respect to its expected statistics. Since that density is
linear in them, the gradient *is* the natural parameter of the optimum, :math:`q_j \propto \exp E_{-j} \log p(x, z)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Categorical, Dirichlet, Gamma, Wishart

from probdl.errors import ConvergenceError


class Block(ABC):
    """One factor of the mean field.

    Attributes:
        names: the latent sites that it holds.
        moments: expected statistics; each block's own layout.
    """

    names: tuple[str, ...]
    moments: tuple[Tensor, ...]

    @abstractmethod
    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the optimum whose natural parameters are the gradient with respect to ``moments``."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return −E log q, in nats, a scalar."""

    @abstractmethod
    def state(self) -> tuple[Tensor, ...]:
        """Return the natural parameters, to compare and to restore."""

    @abstractmethod
    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take natural parameters that ``state`` returned."""


class ExponentialBlock(Block):
    """Independent units of one family: each a row of natural parameters and of expected statistics, (units, M)."""

    knots: tuple[float, ...] = ()  # values at which linearity in the statistics is solved for

    def __init__(self, name: str, shape: torch.Size, event: int, start: Tensor) -> None:
        self.name, self.names, self.shape, self.event = name, (name,), shape, event
        self.restore((start,))

    @property
    def unit_shape(self) -> torch.Size:
        """The dimensions of the site's array that number its units."""
        return self.shape[: len(self.shape) - self.event]

    def state(self) -> tuple[Tensor, ...]:
        """Return the natural parameters, (units, M)."""
        return (self.natural,)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take natural parameters, (units, M)."""
        (self.natural,) = state
        if not bool(self._is_proper()):
            raise ConvergenceError(
                f"Coordinate ascent: the optimal factor of {self.name!r} is improper. Give it a proper prior, or check "
                "that the data say something of it."
            )
        self.moments = (self._expected(),)

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the gradient as natural parameters."""
        self.restore(gradient)

    def knot_values(self) -> list[Tensor]:
        """Values of the site, the same in all units, at which linearity in the statistics is solved for."""
        like = self.natural
        return [torch.full(self.shape, x, dtype=like.dtype, device=like.device) for x in self.knots]

    @abstractmethod
    def _is_proper(self) -> Tensor: ...

    @abstractmethod
    def _expected(self) -> Tensor: ...

    @staticmethod
    @abstractmethod
    def statistics(x: Tensor) -> Tensor:
        """Return the statistics (units, M) of values (units, *event)."""

    @abstractmethod
    def distribution(self) -> Any:
        """Return the factor as a torch distribution over units."""

    def entropy(self) -> Tensor:
        """Return the entropy, summed over units."""
        return self.distribution().entropy().sum()

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """The expected statistics of the site's value in its own factor, in the shape of the site."""
        (u,) = moments
        return [u[:, m].reshape(self.unit_shape) for m in range(u.shape[1])]


class GammaBlock(ExponentialBlock):
    """Gamma(a, b), statistics (log x, x)."""

    knots = (0.6, 1.3, 2.9)

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Return (log x, x)."""
        return torch.stack([x.log(), x], -1)

    @property
    def shape_and_rate(self) -> tuple[Tensor, Tensor]:
        """The parameters a and b, (units,) each."""
        return self.natural[:, 0] + 1, -self.natural[:, 1]

    def _is_proper(self) -> Tensor:
        a, b = self.shape_and_rate
        return (a > 0).all() & (b > 0).all()

    def _expected(self) -> Tensor:
        a, b = self.shape_and_rate
        return torch.stack([torch.digamma(a) - b.log(), a / b], -1)

    def distribution(self) -> Any:
        """Return Gamma(a, b)."""
        return Gamma(*self.shape_and_rate, validate_args=False)


class InverseGammaBlock(GammaBlock):
    """InverseGamma(a, b), statistics (log x, 1/x)."""

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Return (log x, 1/x)."""
        return torch.stack([x.log(), 1 / x], -1)

    @property
    def shape_and_rate(self) -> tuple[Tensor, Tensor]:
        """The parameters a and b, (units,) each."""
        return -self.natural[:, 0] - 1, -self.natural[:, 1]

    def _expected(self) -> Tensor:
        a, b = self.shape_and_rate
        return torch.stack([b.log() - torch.digamma(a), a / b], -1)

    def distribution(self) -> Any:
        """Return InverseGamma(a, b)."""
        from pyro.distributions import InverseGamma

        return InverseGamma(*self.shape_and_rate, validate_args=False)

    def entropy(self) -> Tensor:
        """Return the entropy, summed over units."""
        a, b = self.shape_and_rate
        return (a + b.log() + torch.lgamma(a) - (1 + a) * torch.digamma(a)).sum()


class BetaBlock(ExponentialBlock):
    """Beta(a, b), statistics (log x, log(1−x))."""

    knots = (0.2, 0.45, 0.85)

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Return (log x, log(1−x))."""
        return torch.stack([x.log(), torch.log1p(-x)], -1)

    def _is_proper(self) -> Tensor:
        return (self.natural > -1).all()

    def _expected(self) -> Tensor:
        a = self.natural + 1
        return torch.digamma(a) - torch.digamma(a.sum(-1, keepdim=True))

    def distribution(self) -> Any:
        """Return Beta(a, b)."""
        return Beta(self.natural[:, 0] + 1, self.natural[:, 1] + 1, validate_args=False)


class DirichletBlock(ExponentialBlock):
    """Dirichlet(a), statistics log x, (units, V)."""

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Return log x."""
        return x.log()

    def _is_proper(self) -> Tensor:
        return (self.natural > -1).all()

    def _expected(self) -> Tensor:
        a = self.natural + 1
        return torch.digamma(a) - torch.digamma(a.sum(-1, keepdim=True))

    def distribution(self) -> Any:
        """Return Dirichlet(a)."""
        return Dirichlet(self.natural + 1, validate_args=False)

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """E log x in the shape of the site."""
        return [moments[0].reshape(self.shape)]


class WishartBlock(ExponentialBlock):
    """Wishart(ν, V) of d×d matrices, statistics (log|Λ|, Λ), (units, 1 + d²)."""

    @property
    def size(self) -> int:
        """The number of rows d."""
        return self.shape[-1]

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Return (log|Λ|, Λ)."""
        return torch.cat([torch.linalg.slogdet(x)[1][:, None], x.flatten(1)], 1)

    @property
    def df_and_inverse_scale(self) -> tuple[Tensor, Tensor]:
        """The parameters ν (units,) and V⁻¹ (units, d, d)."""
        d = self.size
        inverse = -2 * self.natural[:, 1:].reshape(-1, d, d)
        return 2 * self.natural[:, 0] + d + 1, (inverse + inverse.mT) / 2

    def _is_proper(self) -> Tensor:
        df, inverse = self.df_and_inverse_scale
        self._root, info = torch.linalg.cholesky_ex(inverse)
        return (df > self.size - 1).all() & (info == 0).all()

    def _expected(self) -> Tensor:
        df, _ = self.df_and_inverse_scale
        d, log_2 = self.size, 0.6931471805599453
        log_det = -2 * self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        halves = (df[:, None] - torch.arange(d, dtype=df.dtype, device=df.device)) / 2
        expected = df[:, None, None] * torch.cholesky_inverse(self._root)
        return torch.cat([(torch.digamma(halves).sum(-1) + d * log_2 + log_det)[:, None], expected.flatten(1)], 1)

    def distribution(self) -> Any:
        """Return Wishart(ν, V)."""
        df, inverse = self.df_and_inverse_scale
        return Wishart(df, precision_matrix=inverse, validate_args=False)

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """E log|Λ| and E Λ in the shape of the site."""
        (u,) = moments
        return [u[:, 0].reshape(self.unit_shape), u[:, 1:].reshape(self.shape)]

    def entropy(self) -> Tensor:
        """Return the entropy: log normaliser minus natural parameters times expected statistics."""
        df, _ = self.df_and_inverse_scale
        d = self.size
        log_det_v = -2 * self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normaliser = 0.5 * df * (d * 0.6931471805599453 + log_det_v) + torch.mvlgamma(df / 2, d)
        return (normaliser - (self.natural * self.moments[0]).sum(-1)).sum()


class CategoricalBlock(ExponentialBlock):
    """A discrete latent: probabilities of its K values, statistics an indicator, (units, K).

    Args:
        support: its values, (K,).
    """

    def __init__(self, name: str, shape: torch.Size, support: Tensor, start: Tensor) -> None:
        self.support = support
        super().__init__(name, shape, 0, start)

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Not used: discrete latents are summed over."""
        raise NotImplementedError

    def _is_proper(self) -> Tensor:
        return ~torch.isnan(self.natural).any()

    def _expected(self) -> Tensor:
        return torch.softmax(self.natural, -1)

    def distribution(self) -> Any:
        """Return the categorical distribution over the index of the value."""
        return Categorical(logits=self.natural, validate_args=False)

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """The statistics in the site's own factor: an indicator, or the value of a Bernoulli."""
        (u,) = moments
        if self.support.is_floating_point():
            return [(u @ self.support).reshape(self.shape)]
        return [u.reshape((*self.shape, -1))]

    def entropy(self) -> Tensor:
        """Return the entropy, summed over units."""
        log_r = torch.log_softmax(self.natural, -1)
        return -torch.where(log_r > -1e300, log_r.exp() * log_r, torch.zeros_like(log_r)).sum()


BLOCKS: dict[str, tuple[type[ExponentialBlock], int]] = {
    "gamma": (GammaBlock, 0),
    "inverse_gamma": (InverseGammaBlock, 0),
    "beta": (BetaBlock, 0),
    "dirichlet": (DirichletBlock, 1),
    "wishart": (WishartBlock, 2),
}
