"""What is seen of held-out rows at each record of a duel, and which state it speaks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from probdl.divergences import energy_loss

MOST = 4096  # records; a duel makes at most 200, and as many again each time it goes on
SPLITS = 20


class Trace(nn.Module):
    """Numbers of each record of a duel, the energy distance first. They are a buffer, so that a checkpoint has them.

    Args:
        columns: how many numbers.
        noise: energy distances that differ by less are taken to be equal.

    Example:
        >>> trace = Trace(1, noise=0.1)
        >>> [trace.add(energy) for energy in (3.0, 1.0, 1.05, 2.0)]
        [-1.0, -2.0, -3.0, 0.0]
        >>> trace.table()[:, 0].tolist()
        [3.0, 1.0, 1.05, 2.0]
    """

    rows: Tensor
    count: Tensor

    def __init__(self, columns: int, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("rows", torch.full((MOST, columns), math.nan, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._latest = self.rows[:0]

    def add(self, *numbers: float) -> float:
        """Append the numbers of one record, and return a score, to be minimised.

        The state with the least score is the latest of those whose energy distance is, within the noise, the smallest
        so far. The smallest of a hundred noisy numbers would be a matter of luck; what has trained longer is better.
        """
        self.rows[self.count] = torch.tensor(numbers, dtype=torch.float64).to(self.rows)
        self.count += 1
        # A duel ends with the state of its best record, and these buffers with it; but all records are wanted.
        self._latest = self.rows[: self.count].clone()
        energies = self._latest[:, 0]
        if not math.isfinite(numbers[0]):
            return numbers[0]
        return -float(self.count) if energies[-1] <= energies.min() + self.noise else 0.0

    def table(self) -> Tensor:
        """Return all that was added, one row a record."""
        return self._latest


def noise_of_energy(x: Tensor, n: int, m: int, seed: int = 0) -> float:
    """Return two standard deviations of the energy distance of n and m draws of one law, of which there are rows x.

    Under equality the statistic's scale is that of 1/n + 1/m; it is found from random halves of the rows.
    """
    half, generator = len(x) // 2, torch.Generator().manual_seed(seed)
    if half < 2:
        return math.inf
    orders = [torch.randperm(len(x), generator=generator).to(x.device) for _ in range(SPLITS)]
    found = torch.stack([energy_loss(x[o[:half]], x[o[half : 2 * half]]) for o in orders]).double()
    return 2 * found.std().item() * (1 / n + 1 / m) / (2 / half)
