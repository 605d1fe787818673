"""The encoder of rows: what its network sees of a row with missing entries, counts, or a condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from probdl.families import MeanFieldNormal, observed, reparameterised
from probdl.models.networks import joined, joined_shape
from probdl.models.variational.decoders import doubled


class Inputs(nn.Module):
    """Rows as the encoder's network sees them.

    Missing entries are zeros; if there were any in training, further entries (of images: channels) say which entries
    are there. Counts are log(1 + count), standardised. A condition comes last.

    Args:
        shape: of one row.
        masked: whether to say which entries are there.
        counts: which entries are counts, booleans of that shape; or None.
    """

    counts: Tensor | None
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int], masked: bool, counts: Tensor | None) -> None:
        super().__init__()
        self.masked = masked
        self.register_buffer("counts", counts, persistent=False)
        if counts is not None:
            self.register_buffer("shift", torch.zeros(tuple(shape)))
            self.register_buffer("scale", torch.ones(tuple(shape)))

    def learn(self, x: Tensor) -> None:
        """Find the mean and the standard deviation of the logarithms of counts in training rows."""
        if self.counts is not None:
            logs = x.clamp(min=0).log1p().to(self.shift)
            self.shift.copy_(logs.nanmean(0).nan_to_num(0.0))
            spread = (logs - self.shift).square().nanmean(0).sqrt().nan_to_num(1.0)
            self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def forward(self, u: Tensor, c: Tensor | None = None) -> Tensor:
        """Return what the network gets for rows in standardised units, given a condition or None."""
        if self.counts is not None:
            u = torch.where(self.counts, (u.clamp(min=0).log1p() - self.shift) / self.scale, u)
        filled, there = observed(u)
        if self.masked:
            mask = torch.ones_like(filled) if there is None else there.to(filled)
            filled = torch.cat([filled, mask], 1) if u.ndim > 1 else torch.stack([filled, mask], 1)
        return joined(filled if filled.ndim > 1 or c is None else filled[:, None], c)


def input_shape(shape: Sequence[int], masked: bool, condition: int) -> tuple[int, ...]:
    """Return the shape of what the encoder's network gets for one row, given so many numbers as a condition."""
    return joined_shape(doubled(shape) if masked else shape, condition)


class RowEncoder(MeanFieldNormal):
    """The approximate posterior q(z | u, c) of rows in standardised units, any entry of which may be missing.

    Args:
        network: gets what ``inputs`` makes, and returns mean and raw scale.
        inputs: makes it.
    """

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        super().__init__(network)
        self.inputs = inputs

    def forward(self, given: Tensor, c: Tensor | None = None) -> Independent:
        """Return q(· | given, c), batch shape (n,), event shape (d,)."""
        return super().forward(self.inputs(given, c))

    def draw(self, given: Tensor, generator: torch.Generator, c: Tensor | None = None) -> Tensor:
        """Return one draw for each row, (n, d)."""
        return reparameterised(self(given, c), generator, 1)[0]
