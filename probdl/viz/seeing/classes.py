"""What a classifier returns and which classes are asked for, checked and brought into one shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_scores(output: Any, n: int) -> Tensor:
    """Return a model's output as (n, classes); one number a row, (n,), is one score.

    Raises:
        TypeError: if it is not a tensor of real numbers.
        ValueError: for other shapes, or NaN.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"model must return a tensor of scores; got {type(output).__name__}. Wrap it in a module.")
    if output.is_complex():
        raise TypeError(f"model must return real scores; got {output.dtype}. Take their size in a module.")
    scores = output.unsqueeze(1) if output.ndim == 1 else output
    if scores.ndim != 2 or len(scores) != n or scores.shape[1] == 0:
        raise ValueError(
            f"model must return scores of shape ({n}, classes) or ({n},) for {n} rows; got {tuple(output.shape)}. "
            "Flatten or pool it in a module."
        )
    if scores.isnan().any():  # infinities may be the scores of classes that are ruled out
        rows = int(scores.isnan().any(1).sum())
        raise ValueError(
            f"model must return scores that are numbers; got NaN in {rows} of {n} rows. Look at its weights, and the "
            "size of x."
        )
    return scores


def as_classes(target: Any, n: int, classes: int) -> Tensor:
    """Return the class of each row, (n,), from an integer or one for each row.

    Raises:
        TypeError: if ``target`` is no integer and holds none.
        ValueError: if there is not one for each row, or no such class.
    """
    try:
        wanted = torch.as_tensor(target)
    except (RuntimeError, TypeError, ValueError):  # torch's for None, other objects and ragged lists
        wanted = torch.empty(())
    if wanted.is_floating_point() or wanted.is_complex() or wanted.dtype == torch.bool:
        raise TypeError(f"target must be an integer, or one for each row; got {target!r}.")
    if wanted.shape not in ((), (n,)):
        raise ValueError(f"target must be one integer, or one for each of {n} rows; got shape {tuple(wanted.shape)}.")
    if int(wanted.min()) < 0 or int(wanted.max()) >= classes:
        raise ValueError(f"target must be in 0, ..., {classes - 1}, one of {classes} classes; got {target!r}.")
    return wanted.expand(n).long()


def of_classes(scores: Tensor, classes: Tensor) -> Tensor:
    """Return each row's score of its class, (n,)."""
    return scores.gather(1, classes[:, None])[:, 0]


def wins(scores: Tensor, classes: Tensor) -> Tensor:
    """Say for each row whether its class has the strictly highest score; a single score decides by its sign."""
    if scores.shape[1] == 1:
        return torch.where(classes == 1, scores[:, 0] > 0, scores[:, 0] < 0)
    others = scores.scatter(1, classes[:, None], -torch.inf)
    return of_classes(scores, classes) > others.amax(1)
