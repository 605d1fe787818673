"""Coordinates in which pooled draws have unit scale and no correlation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Frame(NamedTuple):
    """Coordinates in which the pooled draws have unit scale: x ↦ (x − centre) @ matrix, of ``rank`` columns."""

    centre: Tensor
    matrix: Tensor
    log_volume: float  # log |det| of the way back
    rank: int

    def __call__(self, x: Tensor) -> np.ndarray:
        """Return the points in these coordinates."""
        return ((x - self.centre) @ self.matrix).cpu().numpy()


def frame(*samples: Tensor) -> Frame:
    """Return coordinates that whiten the pooled draws, or only scale them where there are too few rows for it.

    KL does not change under invertible maps; directions in which no draw varies are left out.
    """
    pooled = torch.cat(samples)
    centre, scale = pooled.mean(0), pooled.std(0)
    used = scale > 1e-12 * (1 + centre.abs())
    matrix = torch.diag(torch.where(used, 1 / scale, 0.0))[:, used]
    if len(pooled) > 4 * pooled.shape[1] and bool(used.any()):
        _, sizes, axes = torch.linalg.svd((pooled - centre) @ matrix / math.sqrt(len(pooled)), full_matrices=False)
        kept = sizes > 1e-7 * sizes[0]
        matrix = matrix @ (axes[kept] / sizes[kept, None]).T
    log_volume = -torch.linalg.svdvals(matrix).log().sum().item()
    return Frame(centre, matrix, log_volume, matrix.shape[1])
