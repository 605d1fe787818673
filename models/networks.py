"""The networks that a model gets where none was passed, chosen by the shape of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probdl.nn import CNN, MLP, TransposedCNN

# Numbers in a batch, of tables, of images and of states; above them two threads are faster than one.
SMALL, SMALL_IMAGES, SMALL_STATES = 2**15, 2**10, 2**11


def is_small(batch: Tensor) -> bool:
    """Whether a batch of rows on a CPU trains as fast on one thread as on several; convolutions are more work."""
    return batch.device.type == "cpu" and batch.numel() <= (SMALL_IMAGES if is_image(batch.shape[1:]) else SMALL)


def is_small_step(device: torch.device, size: int, hidden: int) -> bool:
    """Whether a recurrent network trains as fast on one thread: ``size`` states of ``hidden`` numbers at each step."""
    return device.type == "cpu" and size * hidden <= SMALL_STATES


def is_image(shape: Sequence[int]) -> bool:
    """Whether rows of this shape are images (c, h, w) that can be halved twice."""
    return len(shape) == 3 and min(shape[1:]) >= 4


def chosen_encoder(shape: Sequence[int], outputs: int, hidden: Sequence[int] | None) -> nn.Module:
    """Return a CNN for images and an MLP for anything else, or a linear map: (n, *shape) → (n, outputs).

    Args:
        shape: the shape of one row.
        outputs: the number of outputs.
        hidden: the channels of the CNN or the widths of the MLP; None: (32, 64) or (128, 128); (): a linear map.
    """
    if is_image(shape) and hidden != ():
        return CNN(shape, outputs, channels=hidden or (32, 64))
    return MLP(tuple(shape), outputs, hidden=(128, 128) if hidden is None else hidden)


def chosen_decoder(inputs: int, shape: Sequence[int], hidden: Sequence[int] | None) -> nn.Module:
    """Return the mirror image of ``chosen_encoder``: (n, inputs) → (n, *shape)."""
    if is_image(shape) and hidden != ():
        return TransposedCNN(inputs, shape, channels=hidden or (32, 64))
    return MLP(inputs, tuple(shape), hidden=(128, 128) if hidden is None else tuple(hidden)[::-1])


def joined(x: Tensor, c: Tensor | None) -> Tensor:
    """Return rows and their condition as one input: further channels of an image, further entries of other rows.

    Args:
        x: rows (n, ...), or codes (n, d).
        c: (n, k), or None.

    Returns:
        ``x`` itself without a condition; else (n, *joined_shape(x.shape[1:], k)).
    """
    if c is None:
        return x
    if is_image(x.shape[1:]):
        return torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
    return torch.cat([x.flatten(1), c], 1)


def joined_shape(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the shape of a row with its condition of ``size`` numbers, as ``joined`` makes it."""
    if size == 0:
        return tuple(shape)
    if is_image(shape):
        return (shape[0] + size, *shape[1:])
    return (math.prod(shape) + size,)


def check_images(shape: Sequence[int], other: str) -> None:
    """Raise a ValueError unless rows of this shape are images; ``other`` is what others need, such as "a network="."""
    if not is_image(shape):
        hint = "Add the channel as x[:, None]." if len(shape) == 2 else f"Pass {other} for other rows."
        raise ValueError(
            f"x must be images of shape (n, c, h, w), h and w at least 4; got rows of shape {tuple(shape)}. {hint}"
        )


@torch.no_grad()
def check_network(network: nn.Module, name: str, before: Sequence[int], after: Sequence[int], meaning: str) -> None:
    """Raise a ValueError unless ``network`` maps (n, *before) to (n, *after).

    Args:
        network: tried on two rows of zeros, in eval mode.
        name: the argument it came from.
        before, after: the shapes of one row.
        meaning: what the output stands for.
    """
    want, parameter = (2, *after), next(iter(network.parameters()), torch.zeros(()))
    training = network.training
    network.eval()
    try:
        out = network(torch.zeros(2, *before, dtype=parameter.dtype, device=parameter.device))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} must take rows of shape {_n(before)}; it failed on them: {error}") from error
    finally:
        network.train(training)
    if not isinstance(out, Tensor) or tuple(out.shape) != want:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{name} must map {_n(before)} to {_n(after)}, {meaning}; two rows gave {got}, not {want}.")


def _n(shape: Sequence[int]) -> str:
    return "(" + ", ".join(["n", *map(str, shape)]) + ")"
