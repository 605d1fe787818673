"""Sparse coding: filters of which a patch of an image takes few, to be seen beside those of a network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import tensor
from probdl.errors import ConvergenceWarning

PASSES = 5  # over the patches
NOISE = 0.01  # of the mean variance: directions with less are damped and not blown up when patches are whitened


def sparse_filters(
    images: Any,
    n_filters: int = 32,
    window: int | tuple[int, int] = 8,
    n_patches: int = 10_000,
    penalty: float = 0.3,
    whiten: bool = True,
    seed: int = 0,
) -> Tensor:
    r"""Return the filters of sparse coding: a dictionary D of which each patch of an image takes few.

    From patches x that are drawn at random places, less their means,

    .. math:: \min_{D, a} \sum_i \tfrac{1}{2} \|x_i - D a_i\|^2 + \lambda \sqrt{d} \, \|a_i\|_1
              \quad \text{with } \|d_j\| \le 1

    is learned by scikit-learn's ``MiniBatchDictionaryLearning``; d is the number of values in a patch. Neighbouring
    pixels of an image are alike, and most of the squares is in slow waves; patches are therefore whitened first,
    :math:`(S + εI)^{-1/2} x` with their covariance S (Olshausen and Field flatten the amplitude spectrum of the images,
    to the same end), and ε of a hundredth of the mean variance damps what is mostly noise. The filters are those of the
    whitened patches.

    Args:
        images: array-like of shape (n, h, w) or (n, c, h, w).
        n_filters: the number of filters.
        window: height and width of a filter.
        n_patches: how many patches are drawn.
        penalty: λ; larger ones leave fewer terms. Patches are scaled to a mean variance of 1, and √d is their length.
        whiten: False takes patches as they are.
        seed: of the draws and of the start.

    Returns:
        Filters of shape (n_filters, c, height, width) and length 1, as :func:`filters` returns those of a network. The
        problem is not convex: another seed gives others, and the sign of a filter means nothing. Where the penalty is
        so small that codes are not found to the end there is a ``ConvergenceWarning``.

    Raises:
        TypeError: if ``images`` does not hold numbers.
        ValueError: for other shapes, NaN or infinities, images that are constant or smaller than the window, counts
            that are no positive integers, fewer patches than filters, or a ``penalty`` that is not positive or leaves
            nothing of the codes.

    Reference:
        Olshausen & Field (1996), Emergence of simple-cell receptive field properties by learning a sparse code for
        natural images. Mairal, Bach, Ponce & Sapiro (2009), Online dictionary learning for sparse coding.

    Example:
        >>> from probdl import data
        >>> sparse_filters(data.digits().images, n_filters=9, window=5, n_patches=500).shape
        torch.Size([9, 1, 5, 5])
    """
    stack = _as_images(images)
    sides = _checked(stack, n_filters, window, n_patches, penalty)
    x = patches(stack, sides, n_patches, np.random.default_rng(seed))
    x = whitened(x) if whiten else x
    x, weight = x / x.std(), penalty * x.shape[1] ** 0.5
    atoms = _dictionary(x, n_filters, weight, seed)
    if np.abs(x @ atoms.T).max() <= weight:  # then all codes are zero, and the filters are where they began
        raise ValueError(f"penalty must let some patch take some filter; {penalty!r} is too large. The default is 0.3.")
    filters = torch.from_numpy(atoms).reshape(n_filters, stack.shape[1], *sides)
    return filters / filters.flatten(1).norm(dim=1)[:, None, None, None]


def _dictionary(x: np.ndarray, n_filters: int, weight: float, seed: int) -> np.ndarray:
    """Return what scikit-learn finds, (n_filters, d), with one warning in the place of its many."""
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning as Unfinished

    learner = MiniBatchDictionaryLearning(
        n_filters, alpha=weight, batch_size=256, max_iter=PASSES, tol=0.0, max_no_improvement=None,
        fit_algorithm="cd", random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught, _global_generator_put_back():
        warnings.simplefilter("always", Unfinished)
        learner.fit(x)
    if any(issubclass(warning.category, Unfinished) for warning in caught):
        message = "The codes of some patches were not found to the end: filters are imprecise. Raise penalty to help."
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    for warning in caught:
        if not issubclass(warning.category, Unfinished):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    atoms: np.ndarray = learner.components_
    return atoms


def patches(stack: np.ndarray, sides: tuple[int, int], n: int, generator: np.random.Generator) -> np.ndarray:
    """Return n patches from random places, each less its mean: (n, c · height · width)."""
    views = np.lib.stride_tricks.sliding_window_view(stack, sides, axis=(2, 3))
    image, row, column = (generator.integers(views.shape[axis], size=n) for axis in (0, 2, 3))
    x = views[image, :, row, column].reshape(n, -1)
    if np.ptp(x, axis=1).max() == 0:
        raise ValueError("images must vary within a window; all patches that were drawn are constant.")
    return x - x.mean(1, keepdims=True)


def whitened(x: np.ndarray) -> np.ndarray:
    """Return patches without correlation, turned back to the axes of the pixels, so that they still are images."""
    variances, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    shrink = 1 / np.sqrt(variances.clip(min=0) + NOISE * variances.mean())
    return (x - x.mean(0)) @ (directions * shrink) @ directions.T


@contextmanager
def _global_generator_put_back() -> Iterator[None]:
    """Undo that scikit-learn's coordinate descent takes a number from NumPy's global generator, and does not use it."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def _as_images(images: Any) -> np.ndarray:
    value = tensor(images, "images").cpu()
    if value.ndim not in (3, 4):
        raise ValueError(f"images must have shape (n, h, w) or (n, c, h, w); got {tuple(value.shape)}.")
    return (value[:, None] if value.ndim == 3 else value).numpy()


def _checked(stack: np.ndarray, n_filters: int, window: Any, n_patches: int, penalty: float) -> tuple[int, int]:
    """Return the height and the width of the window."""
    sides = tuple(window) if isinstance(window, (tuple, list)) else (window, window)
    for name, count in [("n_filters", n_filters), ("n_patches", n_patches), *(("window", side) for side in sides)]:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a positive integer; got {count!r}.")
    if len(sides) != 2 or sides[0] > stack.shape[2] or sides[1] > stack.shape[3] or sides == (1, 1):
        raise ValueError(
            f"window must be of two pixels or more and fit into images of {stack.shape[2:]}; got {window!r}."
        )
    if n_patches < n_filters:
        raise ValueError(f"n_patches must be at least n_filters, {n_filters}; got {n_patches}.")
    if not 0 < penalty < np.inf:
        raise ValueError(f"penalty must be positive and finite; got {penalty!r}.")
    return sides[0], sides[1]
