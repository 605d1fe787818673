"""What all conditional families are: a network, and a distribution that is read off its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class Conditional(nn.Module, ABC):
    """A family of distributions indexed by an input, p(· | given): forward returns a ``Distribution``.

    Args:
        network: maps what is given, (n, ...), to what the family reads as parameters.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from probdl.families import NormalHead
        >>> p = NormalHead(nn.Identity())  # a family of normals around what its network returns
        >>> isinstance(p, Conditional), p(torch.zeros(3, 2)).batch_shape
        (True, torch.Size([3]))
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, given: Tensor) -> Distribution:
        """Return the distribution of one row for each row of ``given``; its batch shape is (n,)."""

    @abstractmethod
    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """Return one draw for each row of ``given``; all randomness comes from the generator."""

    @abstractmethod
    def log_prob(self, x: Tensor, given: Tensor) -> Tensor:
        """Return log p(x | given) of each row, summed over its entries but for those that are NaN, (n,), in nats."""

    @torch.no_grad()
    def settle(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fix, from pairs (x, given) of training rows, what training left open; most families leave nothing."""


def observed(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return rows with zeros where entries are missing (NaN), and whether each entry is there; None if all are.

    Example:
        >>> import torch
        >>> observed(torch.tensor([[1.0, torch.nan]]))
        (tensor([[1., 0.]]), tensor([[ True, False]]))
    """
    if not x.sum().isnan():  # one pass, and true for finite rows
        return x, None
    there = ~x.isnan()
    return x.nan_to_num(0.0), there


def summed(terms: Tensor, there: Tensor | None = None) -> Tensor:
    """Return the sum of each row's terms, (n,), of those entries that are there."""
    return (terms if there is None else terms * there).reshape(len(terms), -1).sum(1)
