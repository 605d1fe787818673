"""A residual block for networks of convolutions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from probdl.nn.mlp import sizes


class ResidualBlock(nn.Module):
    r"""Images of any size to images of the same shape, :math:`x ↦ x + F(x)`, in the pre-activation form.

    F is normalisation, activation, convolution (3 × 3), twice over. Nothing stands after the sum, so that the identity
    runs through any number of blocks: the Jacobian of a stack is the identity plus other terms, as the direct path of
    an LSTM's cell.

    Args:
        channels: of the images.
        activation: makes the activation, such as ``nn.ReLU``.
        normalise: whether each activation comes after a ``BatchNorm2d``.

    Raises:
        ValueError: if ``channels`` is not a positive integer, or images of another number of channels come in.

    Reference:
        He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks, ECCV, figure 4e.

    Example:
        >>> import torch
        >>> ResidualBlock(4)(torch.zeros(2, 4, 7, 9)).shape
        torch.Size([2, 4, 7, 9])
    """

    def __init__(self, channels: int, *, activation: Callable[[], nn.Module] = nn.ReLU, normalise: bool = True) -> None:
        super().__init__()
        (channels,) = sizes(channels, "channels")
        self.channels = channels
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.BatchNorm2d(channels)] if normalise else []
            parts += [activation(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.residual = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to images of the same shape."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must have shape (n, {self.channels}, h, w); got {tuple(x.shape)}.")
        return x + self.residual(x)
