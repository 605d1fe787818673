"""The cost c(x, y) of carrying a row to another, in standardised units."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Cost = Callable[[Tensor, Tensor], Tensor]


def squared(u: Tensor, v: Tensor) -> Tensor:
    """Return the squared Euclidean distance of each pair of rows, (n,): the cost of W2²."""
    return (u - v).square().reshape(len(u), -1).sum(1)


def euclidean(u: Tensor, v: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair of rows, (n,): the cost of W1."""
    return (squared(u, v) + 1e-12).sqrt()  # its slope is finite also where the rows are equal


def absolute(u: Tensor, v: Tensor) -> Tensor:
    """Return the sum of absolute differences of each pair of rows, (n,): the cost of W1 in the city-block metric."""
    return (u - v).abs().reshape(len(u), -1).sum(1)


COSTS: dict[str, Cost] = {"squared": squared, "euclidean": euclidean, "absolute": absolute}


def check_cost(cost: str | nn.Module) -> tuple[str, nn.Module | None]:
    """Return the name of the cost, and the module where it is the user's own; or raise."""
    if isinstance(cost, nn.Module):
        return "own", cost
    if isinstance(cost, str) and cost in COSTS:
        return cost, None
    named = ", ".join(map(repr, COSTS))
    raise ValueError(f"cost must be {named}, or an nn.Module of two batches of rows → (n,); got {cost!r}.")


def check_values(values: Tensor, n: int) -> Tensor:
    """Return the costs of n pairs of rows, or raise a ValueError if they are of another shape."""
    if values.shape != (n,):
        raise ValueError(f"cost must map two batches of {n} rows to shape ({n},); got {tuple(values.shape)}.")
    return values
