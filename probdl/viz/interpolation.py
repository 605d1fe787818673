"""Walks through a latent space: what a decoder makes of the codes between two."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.viz.images import sample_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATHS = ("straight", "spherical")


def interpolation(
    decode: Callable[[Tensor], Any] | Any,
    start: Any,
    end: Any,
    steps: int = 9,
    ax: Axes | None = None,
    *,
    path: str = "straight",
) -> Axes:
    r"""Draw what a decoder makes of the codes between two, a row for each pair of ends.

    .. math:: z_t = (1-t) z_0 + t z_1 \;\text{(straight)}, \quad
              z_t = \frac{\sin((1-t)\theta)\, z_0 + \sin(t\theta)\, z_1}{\sin\theta} \;\text{(spherical)}

    with the angle θ between :math:`z_0` and :math:`z_1`. Under a Gaussian prior of many dimensions nearly all codes lie
    at one distance from 0, and the middle of a straight line lies nearer, where the decoder saw few; the spherical path
    keeps the distance.

    Args:
        decode: maps codes (m, d), float32, to images of shape (m, h, w) or (m, c, h, w); or a model with such a method
            ``decode``.
        start: codes of shape (k, d), or (d,) for a single row.
        end: as many codes.
        steps: how many images in a row, both ends included.
        ax: where to draw; None makes a figure.
        path: "straight" or "spherical".

    Raises:
        TypeError: if codes are not numbers, or there is nothing to decode with.
        ValueError: if the codes differ in shape, ``steps`` is below 2, ``decode`` returns something else than images,
            ``path`` is unknown, or an end of a spherical path is 0 or opposite to the other.

    Reference: T. White (2016), Sampling generative networks, arXiv:1609.04468.

    Example:
        >>> ax = interpolation(lambda z: z[:, :, None], [0.0, 1.0], [1.0, 0.0], steps=5)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['0', '0.25', '0.5', '0.75', '1']
    """
    codes = codes_between(start, end, steps, path)
    images = _decoded(decode, codes.reshape(-1, codes.shape[-1]).float())
    ax = sample_grid(images, columns=steps, ax=ax)
    pitch = images.shape[-1] + 1
    shown = range(0, steps, (steps - 1) // next(parts for parts in (4, 2, 1) if (steps - 1) % parts == 0))
    ax.set_xticks([(i + 0.5) * pitch - 1 for i in shown], [f"{i / (steps - 1):.3g}" for i in shown])
    ax.tick_params(length=0)
    note = ax.get_xlabel()  # the range, where it is not [0, 1]
    ax.set_xlabel("\n".join(filter(None, [f"t, on the {path} path between the codes", note])), fontsize="small")
    return ax


def codes_between(start: Any, end: Any, steps: int, path: str) -> Tensor:
    """Return the codes (k, steps, d) from each start to its end, both included."""
    a, b = (torch.atleast_2d(tensor(z, name)) for z, name in ((start, "start"), (end, "end")))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"start and end must have the same shape (k, d) or (d,); got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ValueError(f"steps must be a whole number of at least 2; got {steps!r}.")
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(map(repr, PATHS))}; got {path!r}.")
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]
    weights = _spherical(a, b.to(a.device), t) if path == "spherical" else (1 - t, t)
    return weights[0] * a[:, None] + weights[1] * b.to(a.device)[:, None]


def _spherical(a: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights (k, steps, 1) of both ends; those of a straight line where the ends point the same way."""
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = (a * b).sum(1) / norms
    if bool((norms == 0).any()) or bool((cosine < -1 + 1e-12).any()):
        raise ValueError("A spherical path needs ends that are not 0 and not opposite to each other; use 'straight'.")
    theta = cosine.clamp(-1, 1).acos()[:, None, None]
    parallel = theta < 1e-6
    sine = torch.where(parallel, torch.ones_like(theta), theta.sin())
    first, last = ((share * theta).sin() / sine for share in (1 - t, t))
    return torch.where(parallel, 1 - t, first), torch.where(parallel, t, last)


def decoder_of(decode: Any) -> Callable[[Tensor], Any]:
    """Return a function of codes: itself, or the method ``decode`` of a model."""
    maps = getattr(decode, "decode", decode)
    if not callable(maps):
        raise TypeError(f"decode must be a function of codes, or a model with decode; got {type(decode).__name__}.")
    return maps


def _decoded(decode: Any, codes: Tensor) -> Tensor:
    with torch.no_grad():
        images = torch.as_tensor(decoder_of(decode)(codes))
    if images.ndim < 3 or len(images) != len(codes):
        raise ValueError(
            f"decode must return an image, (h, w) or (c, h, w), for each of the {len(codes)} codes; "
            f"got shape {tuple(images.shape)}."
        )
    return images
