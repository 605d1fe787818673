"""t-SNE: rows of many columns as points of two or three, neighbours beside neighbours, without approximations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.errors import ConvergenceError
from probdl.processes import chosen_device
from probdl.threads import one_thread
from probdl.viz.embeddings.affinities import Neighbourhoods, affinities
from probdl.viz.embeddings.many_rows import METHODS, check_installed, moved
from probdl.viz.embeddings.similarity import Divergence

MANY = 10_000  # rows above which pairs are no longer held
EVERY = 10  # iterations between two entries of the trace
EARLY = 250  # iterations with p exaggerated, at most a quarter of all
# Exaggeration e, momentum m and step a row. The attraction's curvature is at most 8e/n where every row has its share
# 1/n of P, and steps are stable below 2(1 + m)/curvature: n/32 and 0.45 n.
FIRST, THEN = (12.0, 0.5, 1 / 48), (1.0, 0.8, 1 / 12)
START = 1e-4  # standard deviation of the first coordinate at the start


@dataclass(frozen=True, eq=False)
class TSNE:
    """A picture of rows by t-SNE.

    Attributes:
        Y: the points, of shape (n, dim), float64, with mean 0. Their axes and distances between clusters mean nothing.
        kl: KL(P ‖ Q) in nats at ``Y``, on the exact P; pictures of one table at one perplexity are compared by it.
        kl_trace: the same after 0, 10, 20, … iterations, of shape (1 + n_iter // 10,), never on the exaggerated P. From
            openTSNE these are its own estimates, on its sparse P, and the first is NaN.
        sigma: the scale of each row's neighbourhood, of shape (n,), in the units of X.
        method: how the points were moved: "exact", "interpolated (openTSNE)", or "Barnes-Hut (openTSNE)".
        notes: what else there is to say, as of rows that share a point.
    """

    Y: Tensor
    kl: float
    kl_trace: Tensor
    sigma: Tensor
    method: str = "exact"
    notes: tuple[str, ...] = ()


def tsne(
    X: Any,
    dim: int = 2,
    perplexity: float = 30,
    n_iter: int = 1000,
    seed: int = 0,
    init: Any = "pca",
    device: str | torch.device = "auto",
) -> TSNE:
    r"""Place the rows of X in a plane or in space so that neighbours stay neighbours.

    .. math:: \min_Y \mathrm{KL}(P \,\|\, Q) = \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
              q_{ij} \propto (1 + \|y_i - y_j\|^2)^{-1},

    where p_ij is the mean of p_{j|i}/n and p_{i|j}/n, and p_{j|i} is normal in x_j around x_i with a scale σ_i for
    which the entropy is log(perplexity). All pairs are seen: no trees, no sampling; time is O(n²) an iteration, on
    one core or a GPU, and memory 16 n² bytes. Columns count in their own units: standardise X where these differ.

    Above 10,000 rows openTSNE moves the points, if it is installed, by interpolation in the plane and by a tree in
    space; it only sees the nearest 3 · perplexity rows of each. ``kl`` and ``sigma`` are exact all the same, in O(n²)
    time and O(n) memory.

    The picture is a local minimum. It shows who is near whom; sizes of clusters and distances between them are no
    evidence.

    Args:
        X: distinct rows, array-like of shape (n, ...) with n > 3 · perplexity; further dimensions are flattened.
        dim: 2 or 3.
        perplexity: the effective number of neighbours of a row.
        n_iter: iterations of gradient descent.
        seed: of the start for ``init="random"``, and of openTSNE's search for neighbours; else nothing is random.
        init: "pca": the first principal components, with the sign that makes the largest score positive;
            "random": N(0, 10⁻⁸); or an array of shape (n, dim).
        device: where to compute; "auto": a GPU if ``X`` is there or one is found, else the CPU.

    Returns:
        ``Y``, ``kl``, ``kl_trace``, ``sigma`` and ``method``, on the device that computed them.

    Raises:
        TypeError: if ``X`` or ``init`` does not hold numbers.
        ValueError: for NaN or infinities, duplicate rows, n ≤ 3 · perplexity, as many rows as the perplexity at equal
            distance, or another ``dim``, ``perplexity``, ``n_iter`` or ``init`` than described.
        ConvergenceError: if the points run away.
        ImportError: for more than 10,000 rows without openTSNE.

    Source: L. van der Maaten and G. Hinton (2008), Visualizing data using t-SNE, JMLR 9; the step of A. Belkina et al.
    (2019), Automated optimized parameters for t-SNE, Nature Communications 10.

    Example:
        >>> from probdl import data, viz
        >>> digits = data.digits()
        >>> found = viz.tsne(digits.images[:200], perplexity=20, n_iter=100)
        >>> found.Y.shape, bool(found.kl < found.kl_trace[0])
        (torch.Size([200, 2]), True)
        >>> ax = viz.latent_plane(found.Y, digits.labels[:200])
    """
    X = tensor(X, "X")
    X = X.reshape(len(X), -1).to(chosen_device(device, X))
    check_arguments(len(X), dim, perplexity, n_iter)
    _check_distinct(X)
    Y = _start(X, dim, seed, init)
    if len(X) > MANY:
        check_installed(len(X), MANY)
    with one_thread(X.device.type == "cpu"):  # tiles are small
        return _exact(X, Y, perplexity, n_iter) if len(X) <= MANY else _sparse(X, Y, perplexity, n_iter, seed)


def _exact(X: Tensor, Y: Tensor, perplexity: float, n_iter: int) -> TSNE:
    P, sigma = affinities(X, perplexity)
    divergence = Divergence(P)
    Y, trace = _descend(divergence, Y, n_iter)
    return TSNE(Y, float(divergence(Y)), trace, sigma)


def _sparse(X: Tensor, Y: Tensor, perplexity: float, n_iter: int, seed: int) -> TSNE:
    near = Neighbourhoods.of(X, perplexity)
    early = min(EARLY, n_iter // 4) // EVERY * EVERY  # openTSNE begins to count anew afterwards
    Y, trace = moved(X, Y, perplexity, n_iter, early, EVERY, seed)
    return TSNE(Y, float(Divergence(near)(Y)), Y.new_tensor([math.nan, *trace]), near.sigma, METHODS[Y.shape[1]])


def _descend(divergence: Divergence, Y: Tensor, n_iter: int) -> tuple[Tensor, Tensor]:
    """Descend with momentum and a gain for each coordinate, which grows while the sign of its gradient stays."""
    update, gain = torch.zeros_like(Y), torch.ones_like(Y)
    early = min(EARLY, n_iter // 4)
    trace = [divergence(Y)]
    for k in range(n_iter):
        exaggeration, momentum, rate = FIRST if k < early else THEN
        gradient = divergence.gradient(Y, exaggeration)
        gain = torch.where(gradient * update < 0, gain + 0.2, gain * 0.8).clamp_(min=0.01)
        update = momentum * update - rate * len(Y) * gain * gradient
        Y = Y + update
        Y = Y - Y.mean(0)
        if (k + 1) % EVERY == 0:
            trace.append(divergence(Y))
    if not bool(Y.isfinite().all()):
        raise ConvergenceError("The points of t-SNE ran away to infinity. Pass init='pca', or rescale your init.")
    return Y, torch.stack(trace)


def _start(X: Tensor, dim: int, seed: int, init: Any) -> Tensor:
    if isinstance(init, str) and init == "pca":
        return _principal(X, dim)
    if isinstance(init, str) and init == "random":
        g = torch.Generator().manual_seed(seed)
        return START * torch.randn(len(X), dim, dtype=X.dtype, generator=g).to(X.device)
    if isinstance(init, str):
        raise ValueError(f"init must be 'pca', 'random' or an array of shape (n, dim); got {init!r}.")
    Y = tensor(init, "init").to(X.device)
    if Y.shape != (len(X), dim):
        raise ValueError(f"init must have shape ({len(X)}, {dim}), a point for each row of X; got {tuple(Y.shape)}.")
    return Y


def _principal(X: Tensor, dim: int) -> Tensor:
    """Return the first principal scores, largest positive, the first of standard deviation START."""
    X = X / X.abs().max()
    X = X - X.mean(0)
    tall = X.shape[0] >= X.shape[1]
    values, vectors = torch.linalg.eigh(X.T @ X if tall else X @ X.T)
    values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    if len(values) < dim or float(values[-1]) < 1e-12 * float(values[0]):
        raise ValueError(f"init='pca' needs rows of X that vary in {dim} directions or more. Pass init='random'.")
    scores = X @ vectors if tall else vectors * values.sqrt()
    largest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    return scores * largest.sign() * (START / scores[:, 0].std())


def check_arguments(n: int, dim: int, perplexity: float, n_iter: int) -> None:
    """Raise a ValueError for arguments of ``tsne`` that do not fit n rows."""
    if not isinstance(dim, int) or dim not in (2, 3):
        raise ValueError(f"dim must be 2 or 3; got {dim!r}.")
    if not perplexity > 1:
        raise ValueError(f"perplexity must be a number of neighbours above 1; got {perplexity!r}.")
    if not isinstance(n_iter, int) or n_iter < 1:
        raise ValueError(f"n_iter must be a positive integer; got {n_iter!r}.")
    if n <= 3 * perplexity:
        raise ValueError(
            f"X must have more than 3 · perplexity = {3 * perplexity:g} rows; got {n}. "
            f"Take a perplexity below {n / 3:.3g}."
        )


def _check_distinct(X: Tensor) -> None:
    distinct, copies = X.unique(dim=0, return_counts=True)
    if len(distinct) < len(X):
        raise ValueError(
            f"X must have distinct rows; {len(X) - len(distinct)} of {len(X)} repeat an earlier one, the most frequent "
            f"{int(copies.max())} times. Drop them, as by X.unique(dim=0), or add noise of the size of rounding."
        )
