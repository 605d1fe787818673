"""Noise that a denoising autoencoder learns to undo, in standardised units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NOISES = ("gaussian", "masking", "salt_and_pepper")


class Corruption(nn.Module):
    r"""Corrupt standardised rows, :math:`\tilde u \sim C(\tilde u | u)`.

    - "gaussian": :math:`\tilde u = u + s\,ε`, ε standard normal.
    - "masking": each column, or pixel, is set to zero, the mean of all training rows, with probability s.
    - "salt_and_pepper": each entry is set with probability s to its smallest or largest training value, by a fair coin.

    Args:
        kind: one of these.
        level: s; for the first at least 0, in standard deviations; for the others between 0 and 1.
        shape: of a row.
        columns: to which column each entry of a row belongs, so that a category is masked as a whole; None: each alone.

    Example:
        >>> noisy = Corruption("masking", 1.0, (3,))(torch.ones(2, 3), torch.Generator())
        >>> noisy.tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    low: Tensor
    high: Tensor

    def __init__(self, kind: str, level: float, shape: Sequence[int], columns: Sequence[int] | None = None) -> None:
        super().__init__()
        self.kind, self.level, self.columns = kind, level, None if columns is None else list(columns)
        self.register_buffer("low", torch.zeros(tuple(shape)))
        self.register_buffer("high", torch.zeros(tuple(shape)))

    @torch.no_grad()
    def watch(self, u: Tensor, shared: bool) -> None:
        """Take the range of training rows: of each entry, or of all entries together where these are ``shared``."""
        low, high = (u.min(), u.max()) if shared else (u.amin(0), u.amax(0))
        self.low.copy_(low.expand_as(self.low))
        self.high.copy_(high.expand_as(self.high))

    def forward(self, u: Tensor, noise: torch.Generator) -> Tensor:
        """Return corrupted rows; all randomness comes from the generator."""
        if self.kind == "gaussian":
            return u + self.level * torch.randn(u.shape, generator=noise, dtype=u.dtype, device=u.device)
        hit = self._uniform(u, noise) < self.level
        if self.kind == "masking":
            where = hit if self.columns is None else hit[:, self.columns]
            return u.masked_fill(where, 0.0)
        coin = self._uniform(u, noise) < 0.5
        return torch.where(hit, torch.where(coin, self.low, self.high), u)

    def _uniform(self, u: Tensor, noise: torch.Generator) -> Tensor:
        return torch.rand(u.shape, generator=noise, dtype=u.dtype, device=u.device)


def check_noise(kind: str, level: float) -> float:
    """Return the level of a kind of noise, or raise a ValueError."""
    most = float("inf") if kind == "gaussian" else 1.0
    if (
        isinstance(level, bool)
        or not isinstance(level, (int, float))
        or not 0 <= level <= most
        or level == float("inf")
    ):
        unit = "standard deviations, at least 0" if kind == "gaussian" else "a probability between 0 and 1"
        raise ValueError(f"level must be {unit} for noise={kind!r}; got {level!r}.")
    return float(level)
