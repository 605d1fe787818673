"""Dense layers between any two shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    r"""Dense layers, :math:`x ↦ W_K\,a(W_{K-1} \cdots a(W_1 x + b_1) \cdots) + b_K`.

    Args:
        inputs: the number of inputs, or the shape of one row; rows are flattened.
        outputs: the number of outputs, or the shape of one output row.
        hidden: the widths of the hidden layers; ``()`` leaves one affine map.
        activation: makes the activation :math:`a`, such as ``nn.ReLU``.

    Raises:
        ValueError: if a size or width is not a positive integer.

    Example:
        >>> import torch
        >>> net = MLP(4, (1, 8, 8), hidden=(32,)).double()
        >>> net(torch.zeros(5, 4, dtype=torch.float64)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        inputs: int | Sequence[int],
        outputs: int | Sequence[int],
        *,
        hidden: Sequence[int] = (128, 128),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.shape = sizes(outputs, "outputs")
        widths = [math.prod(sizes(inputs, "inputs")), *sizes(hidden, "hidden"), math.prod(self.shape)]
        parts: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for before, after in zip(widths[1:], widths[2:]):
            parts += [activation(), nn.Linear(before, after)]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (n, ...) to (n, ...outputs)."""
        out = self.layers(x.reshape(len(x), -1))
        return out if len(self.shape) == 1 else out.reshape(len(x), *self.shape)


def sizes(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """Return one size or several as a tuple of positive integers, or raise a ValueError that names the argument."""
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in found):
        raise ValueError(f"{name} must be positive integers; got {value!r}.")
    return found
