"""Losses for training: the estimators from draws, tensor in and tensor out, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.divergences.kernels import RBF, Kernel, centred, negative_distance


def mmd2_loss(x: Tensor, y: Tensor, kernel: Kernel | None = None) -> Tensor:
    r"""Return the unbiased squared MMD of two batches as a tensor with gradients.

    .. math:: \frac{1}{n(n-1)}\sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)}\sum_{i \ne j} k(y_i, y_j)
              - \frac{2}{nm}\sum_{i,j} k(x_i, y_j)

    Args:
        x: draws of shape (n, d) or (n, ...), n ≥ 2; trailing dimensions are flattened.
        y: draws of shape (m, d) or (m, ...), m ≥ 2.
        kernel: as in :func:`probdl.divergences.mmd2`; None takes an RBF whose bandwidth is the median distance of
            the pooled batch, held fixed in the gradient.

    Returns:
        A scalar in the dtype and on the device of ``x``; it may be negative. Gradients are finite also at equal draws.

    Raises:
        ValueError: if the batches have fewer than 2 rows or sizes that differ.

    Source:
        Gretton et al. (2012), JMLR 13; Li, Swersky and Zemel (2015), Generative moment matching networks, ICML.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
        >>> y = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
        >>> loss = mmd2_loss(x, y, RBF(1.0))
        >>> loss.backward()
        >>> round(loss.item(), 4), x.grad.flatten().round(decimals=3).tolist()
        (0.7689, [0.455, -1.045])
    """
    x, y = batches(x, y)
    return _dense(kernel or RBF(_median(x, y)), x, y)


def energy_loss(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the unbiased energy distance of two batches, :math:`2E|X-Y| - E|X-X'| - E|Y-Y'|`, with gradients.

    Args:
        x: draws of shape (n, d) or (n, ...), n ≥ 2; trailing dimensions are flattened.
        y: draws of shape (m, d) or (m, ...), m ≥ 2.

    Returns:
        A scalar in the dtype and on the device of ``x``; it may be negative. At equal draws the subgradient 0 of the
        distance is taken, so gradients are finite.

    Raises:
        ValueError: if the batches have fewer than 2 rows or sizes that differ.

    Source:
        Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143(8).

    Example:
        >>> energy_loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]))
        tensor(2.)
    """
    return _dense(negative_distance, *batches(x, y))


def batches(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return both batches as (n, d) about one common centre."""
    for name, batch in (("x", x), ("y", y)):
        if not isinstance(batch, Tensor) or not batch.is_floating_point():
            kind = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise TypeError(f"{name} must be a floating tensor of shape (n, d); got {kind}.")
        if batch.ndim < 1 or len(batch) < 2:
            raise ValueError(f"{name} must hold at least 2 draws, shape (n, d); got {tuple(batch.shape)}.")
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have as many columns; got {x.shape[1]} and {y.shape[1]}.")
    return centred(x, y)


def _median(x: Tensor, y: Tensor) -> float:
    """Return the median of the positive distances, or 1 where all draws are equal and every bandwidth gives 0."""
    with torch.no_grad():
        apart = torch.nn.functional.pdist(torch.cat([x, y]))
    apart = apart[apart > 0]
    return apart.median().item() if len(apart) else 1.0


def _dense(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    return _off_diagonal(kernel(x, x)) + _off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()


def _off_diagonal(gram: Tensor) -> Tensor:
    """Return the mean over pairs of different draws."""
    n = len(gram)
    return (gram.sum() - gram.diagonal().sum()) / (n * (n - 1))
