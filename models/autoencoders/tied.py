"""A decoder that shares the weights of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, linear

SHARED = (nn.Linear, nn.Conv2d)


class Transposed(nn.Module):
    r"""The layers of an encoder in reverse order, each weight transposed, with biases of its own.

    .. math:: W_K a(\cdots a(W_1 x + b_1)) + b_K \quad\text{becomes}\quad W_1^T a(\cdots a(W_K^T z + c_K)) + c_1.

    Args:
        encoder: of linear layers, convolutions (not grouped or dilated) and activations of single entries, applied in
            the order in which the module holds them, as in ``MLP``, ``CNN`` and ``nn.Sequential``.
        shape: the shape of one row that it takes.

    Raises:
        ValueError: for layers that have no transpose here.

    Reference:
        Vincent et al. (2010), Stacked denoising autoencoders, JMLR 11.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> Transposed(encoder, (3,))(torch.zeros(5, 1)).shape
        torch.Size([5, 3])
    """

    def __init__(self, encoder: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        layers = [layer for layer in encoder.modules() if not list(layer.children())]
        if strange := [type(layer).__name__ for layer in layers if not _has_transpose(layer)]:
            raise ValueError(
                f"tied=True needs an encoder of linear layers, convolutions and activations; it has {strange[0]}. "
                "Leave tied=False, and pass a decoder."
            )
        if not layers or not isinstance(layers[-1], SHARED):
            raise ValueError("tied=True needs an encoder that ends with a linear layer or a convolution.")
        self.shape = tuple(shape)
        self._layers = layers[::-1]  # in a list, so that the weights stay the encoder's
        self._shapes = _shapes(encoder, layers, self.shape)[::-1]
        sizes = [layer.weight.shape[1] for layer in self._layers if isinstance(layer, SHARED)]
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in sizes])

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (n, d) to rows (n, *shape)."""
        biases = iter(self.biases)
        for layer, (before, after) in zip(self._layers, self._shapes):
            z = z.reshape(len(z), *after)
            z = _transposed(layer, z, next(biases), before) if isinstance(layer, SHARED) else layer(z)
        return z.reshape(len(z), *self.shape)


def _has_transpose(layer: nn.Module) -> bool:
    """Whether it is a linear layer, a plain convolution, or has no weights and acts alike in both directions."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.dilation == (1, 1) and not isinstance(layer.padding, str)
    if isinstance(layer, (nn.Linear, nn.Flatten, nn.Identity)):
        return True
    return not list(layer.parameters()) and "Pool" not in type(layer).__name__ and "Norm" not in type(layer).__name__


def _transposed(layer: nn.Module, z: Tensor, bias: Tensor, before: Sequence[int]) -> Tensor:
    """Return the transpose of a layer's linear map at z, plus a bias; ``before`` is the shape of what it took."""
    if isinstance(layer, nn.Linear):
        return linear(z, layer.weight.T, bias)
    assert isinstance(layer, nn.Conv2d)
    padding = (int(layer.padding[0]), int(layer.padding[1]))
    steps = zip(before[1:], z.shape[2:], layer.stride, padding, layer.kernel_size)
    missing = [size - ((out - 1) * stride - 2 * pad + kernel) for size, out, stride, pad, kernel in steps]
    return conv_transpose2d(z, layer.weight, bias, layer.stride, padding, missing)


@torch.no_grad()
def _shapes(encoder: nn.Module, layers: list[nn.Module], shape: Sequence[int]) -> list[tuple[Sequence[int], ...]]:
    """Return the shapes of one row before and after each layer."""
    found: dict[int, tuple[Sequence[int], ...]] = {}

    def see(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        found[id(layer)] = (tuple(given[0].shape[1:]), tuple(out.shape[1:]))

    hooks = [layer.register_forward_hook(see) for layer in layers]
    first = next(encoder.parameters())
    try:
        encoder(torch.zeros(1, *shape, dtype=first.dtype, device=first.device))
    finally:
        for hook in hooks:
            hook.remove()
    return [found[id(layer)] for layer in layers]
