"""Noise becomes rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softmax

from probdl.models.form import Block
from probdl.models.networks import joined

TEMPERATURE = 0.5


class Generator(nn.Module):
    r"""The map G of noise, and of a condition where there is one, to rows: :math:`x = G(z, c)`.

    A column of categories is drawn from the probabilities that the network gives it, so that rows have zeros and a
    single one there, as data have: a critic could tell anything softer at once. The gradient is that of the softmax of
    the perturbed logits at temperature τ = 1/2 (straight through).

    Args:
        network: (n, latent_dim + k) → (n, *shape).
        blocks: where columns of categories stand in a row.

    Reference:
        Jang, Gu and Poole (2017), Categorical reparameterization with Gumbel-softmax, ICLR.

    Example:
        >>> net = Generator(nn.Identity(), [Block("pet", 1, 3, ("cat", "dog"))])
        >>> net(torch.tensor([[0.7, 9.0, -9.0]]), noise=torch.Generator())
        tensor([[0.7000, 1.0000, 0.0000]])
    """

    def __init__(self, network: nn.Module, blocks: Sequence[Block] = ()) -> None:
        super().__init__()
        self.network, self.blocks = network, tuple(blocks)

    def forward(self, z: Tensor, c: Tensor | None = None, noise: torch.Generator | None = None) -> Tensor:
        """Return rows in standardised units.

        Args:
            z: (n, latent_dim).
            c: their condition (n, k), or None.
            noise: of the categories; None gives their probabilities instead of draws.
        """
        rows = self.network(joined(z, c))
        if not self.blocks:
            return rows
        parts, done = [], 0
        for block in self.blocks:
            parts += [rows[:, done : block.start], category(rows[:, block.start : block.stop], noise)]
            done = block.stop
        return torch.cat([*parts, rows[:, done:]], 1)


def category(logits: Tensor, noise: torch.Generator | None, temperature: float = TEMPERATURE) -> Tensor:
    """Return one category for each row as zeros and a one, with the gradient of a softmax; or the probabilities.

    Args:
        logits: (n, k).
        noise: of the draw; None: no draw.
        temperature: of the softmax.

    Returns:
        (n, k).
    """
    if noise is None:
        return softmax(logits, 1)
    gumbel = -torch.empty_like(logits).exponential_(generator=noise).log()
    soft = softmax((logits + gumbel) / temperature, 1)
    hard = one_hot(soft.argmax(1), logits.shape[1]).to(soft)
    return hard + (soft - soft.detach())
