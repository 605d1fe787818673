r"""When stochastic iterates are stationary, how well their average is known, and what a smaller step would bring.

At a fixed step size ρ the iterates settle into a distribution around the optimum; their average (Polyak and Juditsky
1992) has a Monte Carlo error that falls with its length, and a bias that falls with ρ. Both are judged in posterior sd
units: the coordinates are means divided by their sd, and √2 times log-sds, so that the symmetrised KL between two
nearby mean-field Gaussians is their squared Euclidean distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ROWS = 1024


class Iterates:
    """The last iterates of a stage, kept in at most 2048 rows: when these are full, neighbours are averaged.

    Args:
        size: length of an iterate.
        like: a tensor of its dtype and device.

    Example:
        >>> import torch
        >>> kept = Iterates(1, torch.zeros(1))
        >>> for i in range(5000):
        ...     kept.add(torch.tensor([float(i)]))
        >>> kept.steps, len(kept.rows()), kept.rows().mean().item()
        (5000, 1250, 2499.5)
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.each, self.steps, self.count, self.pending = 1, 0, 0, 0
        self._rows = torch.zeros(2 * ROWS, size, dtype=like.dtype, device=like.device)
        self._sum = torch.zeros(size, dtype=like.dtype, device=like.device)

    def add(self, x: Tensor) -> None:
        """Add one iterate."""
        self._sum += x
        self.steps, self.pending = self.steps + 1, self.pending + 1
        if self.pending == self.each:
            self._rows[self.count] = self._sum / self.each
            self._sum.zero_()
            self.count, self.pending = self.count + 1, 0
        if self.count == 2 * ROWS:
            self._rows[:ROWS] = (self._rows[0::2] + self._rows[1::2]) / 2
            self.count, self.each = ROWS, 2 * self.each

    def rows(self) -> Tensor:
        """Return the rows so far, each the mean of ``each`` iterates."""
        return self._rows[: self.count]

    def best_window(self, least: int) -> tuple[Tensor, float]:
        """Return the last part of the rows that looks most stationary, of at least that many steps, and its R-hat."""
        rows = self.rows()
        lengths = [int(share * len(rows)) for share in (0.5, 0.7, 0.9)]
        windows = [rows[-n:] for n in lengths if n * self.each >= least]
        if not windows:
            return rows[-max(lengths) :], math.inf
        return min(((w, float(split_rhat(w).max())) for w in windows), key=lambda pair: pair[1])


def split_rhat(x: Tensor) -> Tensor:
    r"""Return the split R-hat of each column of one sequence (n, k): √(total variance / variance within its halves).

    Source: Gelman et al. (2013), *Bayesian Data Analysis*, section 11.4; for iterates: Dhaka et al. (2020), *Robust,
    accurate stochastic optimization for variational inference*.

    Example:
        >>> import torch
        >>> bool(split_rhat(torch.arange(100.0)[:, None]) > 1.5)
        True
    """
    first, second = x.chunk(2)[:2] if len(x) % 2 == 0 else x[1:].chunk(2)[:2]
    within = (first.var(0) + second.var(0)) / 2
    between = (first.mean(0) - second.mean(0)) ** 2 / 2
    return ((len(first) - 1) / len(first) + between / within.clamp(min=1e-300)).sqrt()


def drift(x: Tensor) -> float:
    """Return the root mean square difference between the means of the two halves of a sequence (n, k)."""
    first, second = x[: len(x) // 2], x[len(x) // 2 :]
    return float((first.mean(0) - second.mean(0)).square().mean().sqrt())


def error_of_mean(x: Tensor, batches: int = 10) -> Tensor:
    """Return the standard errors (k,) of the column means of a dependent sequence (n, k), by batch means.

    Source: Flegal and Jones (2010), *Batch means and spectral variance estimators in Markov chain Monte Carlo*.
    """
    n = len(x) - len(x) % batches
    return x[len(x) - n :].reshape(batches, n // batches, -1).mean(1).std(0) / batches**0.5


def predicted_change(changes: Sequence[float], noises: Sequence[float]) -> float:
    r"""Return how far the averages would still move if the step size went to zero by halves.

    The bias of the average falls in proportion to the step size or to a power of it, so that successive changes form a
    geometric series with a ratio r: the rest of it is :math:`δ r / (1 - r)`. With one change r = 1/2 is assumed.

    Args:
        changes: root mean square changes of the averages between stages, in sd units.
        noises: the parts of these that are Monte Carlo error.

    Source: Welandawe, Andersen, Vehtari and Huggins (2022), *A framework for improving the reliability of black-box
    variational inference*.

    Example:
        >>> predicted_change([], [])
        inf
        >>> predicted_change([0.4, 0.2], [0.0, 0.0])
        0.2
    """
    if not changes:
        return math.inf
    signal = [max(0.0, c * c - e * e) ** 0.5 for c, e in zip(changes, noises)]
    ratio = 0.5
    if len(signal) > 1 and signal[-2] > noises[-2] and signal[-1] > noises[-1]:
        ratio = min(max(signal[-1] / signal[-2], 0.3), 0.8)
    return signal[-1] * ratio / (1 - ratio)
