"""t-SNE of more rows than pairs can be held of: openTSNE moves the points, and the divergence stays exact."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from probdl.errors import ConvergenceError

METHODS = {2: "interpolated (openTSNE)", 3: "Barnes-Hut (openTSNE)"}


def check_installed(n: int, most: int) -> None:
    """Raise an ImportError that says what to do, where openTSNE is missing."""
    if find_spec("openTSNE") is None:
        raise ImportError(
            f"X with more than {most:,} rows needs openTSNE, since all pairs would take {16e-9 * n * n:.1f} GB; got "
            f'{n:,} rows. Run pip install "probdl[tsne]", or take a sample of the rows.'
        )


def moved(
    X: Tensor, Y: Tensor, perplexity: float, n_iter: int, early: int, every: int, seed: int
) -> tuple[Tensor, list[float]]:
    """Return the points to which openTSNE moves a start, and its own estimates of the divergence.

    Args:
        X: rows (n, d).
        Y: the start (n, dim).
        perplexity: of openTSNE's own sparse P, of 3 · perplexity neighbours a row.
        n_iter: iterations.
        early: how many of them with P exaggerated.
        every: iterations between two estimates.
        seed: of openTSNE's search for neighbours.
    """
    from openTSNE import TSNE

    seen: list[float] = []
    model = TSNE(
        Y.shape[1],
        perplexity,
        early_exaggeration_iter=early,
        n_iter=n_iter - early,
        negative_gradient_method="fft" if Y.shape[1] == 2 else "bh",
        callbacks=lambda iteration, error, embedding: seen.append(float(error)),
        callbacks_every_iters=every,
        random_state=seed,
        n_jobs=1,
    )
    found = np.array(model.fit(X.cpu().numpy(), initialization=Y.cpu().numpy()))
    if not np.isfinite(found).all():
        raise ConvergenceError("The points of openTSNE ran away to infinity. Pass init='pca', or rescale your init.")
    return torch.from_numpy(found).to(Y), seen
