"""Convolutions that halve an image to a vector, and their transpose that doubles it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from probdl.nn.mlp import MLP, sizes


class CNN(nn.Module):
    r"""An image to a vector: convolutions of stride 2, each halving height and width, then dense layers.

    Args:
        shape: the shape (c, h, w) of one image, h and w at least 4.
        outputs: the number of outputs.
        channels: the channels after each convolution (4 × 4, stride 2).
        hidden: the widths of the dense layers behind them.
        activation: makes the activation, such as ``nn.ReLU``.

    Raises:
        ValueError: if ``shape`` is not (c, h, w), or too small for that many halvings.

    Example:
        >>> import torch
        >>> net = CNN((1, 28, 28), 10).double()
        >>> net(torch.zeros(5, 1, 28, 28, dtype=torch.float64)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        pyramid = halvings(shape, sizes(channels, "channels"))
        parts: list[nn.Module] = []
        for above, below in zip(pyramid, pyramid[1:]):
            parts += [nn.Conv2d(above[0], below[0], 4, stride=2, padding=1), activation()]
        self.convolutions = nn.Sequential(*parts)
        self.dense = MLP(pyramid[-1], outputs, hidden=hidden, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) to (n, outputs)."""
        return self.dense(self.convolutions(x))


class TransposedCNN(nn.Module):
    r"""A vector to an image: the layers of ``CNN`` transposed, in reverse order.

    Args:
        inputs: the number of inputs.
        shape: the shape (c, h, w) of one image, any h and w of at least 4; exactly this shape is returned.
        channels: the channels from the image inwards, as in ``CNN``.
        hidden: the widths of the dense layers, from the image inwards, as in ``CNN``.
        activation: makes the activation, such as ``nn.ReLU``.

    Raises:
        ValueError: if ``shape`` is not (c, h, w), or too small for that many halvings.

    Example:
        >>> import torch
        >>> net = TransposedCNN(2, (3, 9, 13)).double()
        >>> net(torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5, 3, 9, 13])
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        pyramid = halvings(shape, sizes(channels, "channels"))[::-1]
        self.dense = MLP(inputs, pyramid[0], hidden=tuple(hidden)[::-1], activation=activation)
        parts: list[nn.Module] = []
        for below, above in zip(pyramid, pyramid[1:]):
            # Doubling an image whose height was odd leaves one row short; output_padding is that row.
            odd = above[1] - 2 * below[1], above[2] - 2 * below[2]
            parts += [
                activation(),
                nn.ConvTranspose2d(below[0], above[0], 4, stride=2, padding=1, output_padding=odd),
            ]
        self.convolutions = nn.Sequential(*parts)

    def forward(self, z: Tensor) -> Tensor:
        """Map (n, inputs) to images (n, c, h, w)."""
        return self.convolutions(self.dense(z))


def halvings(shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the shapes (c, h, w) of an image and of its halvings, one for each entry of ``channels``."""
    c, h, w = _image(shape)
    found = [(c, h, w)]
    for width in channels:
        h, w = h // 2, w // 2
        found.append((width, h, w))
    if min(h, w) < 1:
        raise ValueError(f"shape {tuple(shape)} is too small to be halved {len(channels)} times; pass fewer channels.")
    return found


def _image(shape: Sequence[int]) -> tuple[int, int, int]:
    found = sizes(shape, "shape")
    if len(found) != 3 or min(found[1:]) < 4:
        raise ValueError(f"shape must be (channels, height, width), each side at least 4; got {tuple(shape)}.")
    return found[0], found[1], found[2]
