"""A row, and its condition, becomes a number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probdl.divergences.held_out import scores
from probdl.models.networks import joined


class Critic(nn.Module):
    """The function of rows, and of a condition where there is one, by which a model tells data from samples.

    Args:
        network: (n, ...) → (n,) or (n, 1).

    Example:
        >>> Critic(nn.Flatten())(torch.ones(5, 1)).shape
        torch.Size([5])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.trace: nn.Module | None = None  # of a duel that is under way

    def forward(self, u: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the value at each row, (n,)."""
        return scores(self.network, joined(u, c))

    def with_slopes(self, u: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the values and the squared lengths of the gradients in u, (n,) each, with a graph to the weights."""
        u = u.detach().requires_grad_()
        values = self(u, c)
        gradient = torch.autograd.grad(values.sum(), u, create_graph=True)[0]
        return values, gradient.reshape(len(u), -1).square().sum(1)
