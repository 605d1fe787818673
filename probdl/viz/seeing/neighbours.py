"""Nearest neighbours: which inputs a network takes for alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.batches import batches, rows_of
from probdl.viz.seeing.layers import held
from probdl.viz.seeing.unchanged import check_open, unchanged

INPUT = "input"  # the name of the pixels themselves
LINEAR = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)
Features = Callable[[Tensor], Tensor]


def nearest(
    model: nn.Module, query: Any, data: Any, layer: str | None = None, k: int = 5, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    r"""Return the k rows of data that are nearest to each query in what a layer h holds, by :math:`\|h(q) - h(x)\|_2`.

    Args:
        model: any torch module; it runs in eval mode and is left as it was.
        query: inputs of shape (m, ...), of tokens too if the model embeds them.
        data: inputs of shape (n, ...) with the sizes of ``query``.
        layer: the name of a layer, as :func:`probdl.viz.layers` gives them; "input" for the inputs themselves. None:
            the last hidden layer, which is what comes into the last linear or convolutional module that runs.
        k: how many neighbours of each query, from 1 to n.
        batch_size: the number of inputs in a forward pass; memory grows with it and with m, and not with n.

    Returns:
        The distances and the rows of ``data``, both (m, k), the nearest first; of equal ones the first in the data. A
        query that is in the data is its own neighbour, at distance 0 up to the rounding of the network, which in
        batches of other sizes may differ in the last digit.

    Raises:
        TypeError: if ``model`` is no module, or ``query`` or ``data`` do not hold numbers.
        ValueError: if sizes differ, k is out of range, there is no such layer (or, for None, no linear or convolutional
            module) or it holds NaN, for empty or infinite inputs, or a compiled or scripted model.

    Reference:
        Krizhevsky, Sutskever & Hinton (2012), ImageNet classification with deep convolutional neural networks.

    Example:
        >>> import torch
        >>> data = torch.tensor([[0.0], [4.0], [5.0], [9.0]])
        >>> nearest(torch.nn.Linear(1, 2), torch.tensor([[4.6]]), data, "input", k=2)
        (tensor([[0.4000, 0.6000]]), tensor([[2, 1]]))
    """
    queries, rows = rows_of(query, "query"), rows_of(data, "data")
    if tuple(queries.shape[1:]) != tuple(rows.shape[1:]):
        raise ValueError(
            f"query must have the sizes of data, {tuple(rows.shape[1:])} a row; got {tuple(queries.shape[1:])}."
        )
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(rows):
        raise ValueError(f"k must be an integer from 1 to {len(rows)}, the number of rows of data; got {k!r}.")
    with unchanged(model) as seen, torch.no_grad(), _features(seen, layer) as features:
        asked = torch.cat([features(x) for x in batches(seen, queries, "query", batch_size)])
        return _nearest(asked, (features(x) for x in batches(seen, rows, "data", batch_size)), k)


def _nearest(asked: Tensor, parts: Iterator[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Keep the k nearest of each query while the data goes by; sorting is stable: of equal ones the first stay."""
    distance, index, start = asked.new_empty(len(asked), 0), asked.new_empty(len(asked), 0, dtype=torch.long), 0
    for part in parts:
        new = torch.arange(start, start + len(part), device=asked.device).expand(len(asked), -1)
        # not by |a|² + |b|² - 2ab, which loses half of the digits where rows are close
        gap = torch.cdist(asked, part, compute_mode="donot_use_mm_for_euclid_dist")
        if bool(torch.isnan(gap).any()):
            raise ValueError("layer must hold numbers to be compared; distances are NaN. Look at activations.")
        distance, order = torch.cat([distance, gap], 1).sort(dim=1, stable=True)
        index = torch.cat([index, new], 1).gather(1, order)[:, :k]
        distance, start = distance[:, :k], start + len(part)
    return distance, index


@contextmanager
def _features(model: nn.Module, layer: str | None) -> Iterator[Features]:
    """Give a function from inputs to what a layer holds, in rows of numbers."""
    if layer is None:
        with _last_input(model) as features:
            yield features
    elif layer == INPUT:
        yield _pixels
    else:
        yield lambda x: held(model, x, [layer])[layer].reshape(len(x), -1)


def _pixels(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(
            "layer must not be 'input' where the inputs are tokens: their numbers are names. Name a layer."
        )
    return x.flatten(1)


@contextmanager
def _last_input(model: nn.Module) -> Iterator[Features]:
    """Give a function from inputs to what comes into the last linear or convolutional module that runs."""
    check_open(model)
    last: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        last[:] = [(inputs or tuple(named.values()))[0].clone()]  # a later operation in place would change it

    def features(x: Tensor) -> Tensor:
        last.clear()
        model(x)
        if not last or len(last[0]) != len(x):
            what = (
                f"its shape is {tuple(last[0].shape)}" if last else "the model runs no linear or convolutional module"
            )
            raise ValueError(f"the last hidden layer must hold a row for each of {len(x)} inputs; {what}. Pass layer=.")
        return last[0].reshape(len(x), -1)

    handles = [m.register_forward_pre_hook(keep, with_kwargs=True) for m in model.modules() if isinstance(m, LINEAR)]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
