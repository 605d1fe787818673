"""Means over dependent tokens, with standard errors that respect the dependence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate

BLOCKS = 40
SHORTEST = 20  # values in a block


def block_mean(values: Sequence[Tensor], unit: str = "tokens") -> Estimate:
    r"""Return the mean of all values of several sequences, with a standard error by blocks.

    The sequences are cut into about 40 blocks of neighbours (or, where they are many, left whole). Blocks count as
    independent, which holds where the dependence is short compared with a block. With sums :math:`S_b` and sizes
    :math:`n_b`,

    .. math:: \mathrm{se}^2 = \frac{B}{(B - 1) N^2} \sum_b (S_b - n_b \bar x)^2.

    Args:
        values: (T_i,) each, in order.
        unit: what they are values of, for the notes.

    Returns:
        The mean; ``stderr`` is None where there are fewer than two blocks.

    Reference:
        Flegal and Jones (2010), Batch means and spectral variance estimators in Markov chain Monte Carlo, Annals of
        Statistics 38; Cochran (1977), Sampling techniques, chapter 6 (ratios).

    Example:
        >>> block_mean([torch.arange(4000.0) % 2, torch.ones(1000)])
        0.600 ± 0.032 (block means, n=5000)
    """
    values = [v.double().cpu() for v in values if len(v)]
    n = sum(map(len, values))
    size = max(SHORTEST, math.ceil(n / BLOCKS))
    blocks = [b for v in values for b in torch.tensor_split(v, max(1, len(v) // size))]
    sums, sizes = torch.stack([b.sum() for b in blocks]), torch.tensor([len(b) for b in blocks]).double()
    mean = sums.sum() / n
    if len(blocks) < 2:
        note = f"{n} {unit} are one block, whose spread is unknown"
        return Estimate(mean.item(), None, "block means", n=n, notes=(note,))
    B = len(blocks)
    stderr = ((sums - sizes * mean).square().sum() * B / (B - 1)).sqrt() / n
    note = f"{B} blocks of {unit}, of {n / B:.0f} on average, count as independent"
    return Estimate(mean.item(), stderr.item(), "block means", n=n, notes=(note,))
