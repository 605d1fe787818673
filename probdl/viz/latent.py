"""Latent spaces: where the codes of the data lie, and what the decoder makes of a plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import tensor
from probdl.viz.images import sample_grid
from probdl.viz.interpolation import decoder_of
from probdl.viz.style import CLASSES, LINES, axes, colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def latent_plane(z: Any, labels: Any = None, ax: Axes | None = None) -> Axes:
    """Draw codes as points, coloured by label; of more than two dimensions the first two are drawn and named so.

    On axes of three dimensions, as ``plt.figure().add_subplot(projection="3d")``, the first three are drawn.

    Args:
        z: codes of shape (n, d) with d of 2 or more, array-like.
        labels: n labels. Up to ten different ones get a colour each, a legend, and their name at the median of their
            points; more numbers than that are drawn on a continuous scale.
        ax: where to draw; None makes a figure.

    Raises:
        TypeError: if ``z`` does not hold numbers.
        ValueError: if ``z`` has another shape or too few dimensions for the axes, if ``labels`` has another length, or
            for more than ten labels in words.

    Example:
        >>> import torch
        >>> ax = latent_plane(torch.eye(3), labels=["a", "b", "b"])
        >>> ax.get_xlabel()
        'z[0] (of 3 dimensions)'
    """
    z = tensor(z, "z").cpu().numpy()
    if z.ndim != 2 or z.shape[1] < 2:
        raise ValueError(f"z must have shape (n, d) with d of 2 or more; got {z.shape}.")
    ax = tidy(axes(ax, 5.5, 4.5))
    drawn = 3 if ax.name == "3d" else 2
    if z.shape[1] < drawn:
        raise ValueError(f"z must have 3 dimensions or more for axes with three; got {z.shape[1]}.")
    if labels is None:
        _scatter(ax, z[:, :drawn], alpha=0.6, color=LINES[0])
    else:
        _scatter_by_label(ax, z[:, :drawn], _labels(labels, len(z)))
    note = f" (of {z.shape[1]} dimensions)" if z.shape[1] > drawn else ""
    for k, name in enumerate("xyz"[:drawn]):
        getattr(ax, f"set_{name}label")(f"z[{k}]{note}")
    return ax


def _scatter(ax: Any, z: np.ndarray, **how: Any) -> Any:
    """Draw points on axes with as many dimensions as they have, which the types of matplotlib do not know."""
    return ax.scatter(*z.T, s=8, linewidths=0, **how)


def _labels(labels: Any, n: int) -> np.ndarray:
    value = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if value.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one for each row of z; got {value.shape}.")
    return value


def _scatter_by_label(ax: Axes, z: np.ndarray, labels: np.ndarray) -> None:
    kinds = np.unique(labels)
    if len(kinds) <= len(CLASSES):
        for index, kind in enumerate(kinds):
            _scatter_class(ax, z[labels == kind], str(kind), colour(index, CLASSES))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=2)
    elif labels.dtype.kind in "biuf":
        points = _scatter(ax, z, c=labels, cmap="viridis")
        ax.figure.colorbar(points, ax=ax, label="label")
    else:
        raise ValueError(f"labels must take at most {len(CLASSES)} values to be told apart; got {len(kinds)}.")


def _scatter_class(ax: Any, z: np.ndarray, name: str, tint: Any) -> None:
    """Draw one class; its name at the median helps readers who cannot tell the colours apart."""
    from matplotlib.patheffects import withStroke

    _scatter(ax, z, alpha=0.7, color=tint, label=name)
    halo = [withStroke(linewidth=3, foreground="white")]
    ax.text(*np.median(z, axis=0), name, weight="bold", ha="center", va="center", path_effects=halo)


def latent_manifold(decode: Callable[[Tensor], Tensor] | Any, side: int = 15, ax: Axes | None = None) -> Axes:
    """Draw what a decoder makes of a two-dimensional latent plane, at quantiles of the standard normal prior.

    Args:
        decode: maps codes of shape (m, 2), float32, to images of shape (m, h, w) or (m, c, h, w); or a model with such
            a method ``decode``.
        side: the number of images along each axis, at the quantiles 1/(2 side), 3/(2 side), … of the prior.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: if ``side`` is not a positive integer, or ``decode`` returns something else than m images.

    Source: D. Kingma and M. Welling (2014), Auto-encoding variational Bayes, ICLR, figure 4.

    Example:
        >>> ax = latent_manifold(lambda z: z.norm(dim=1)[:, None, None].expand(-1, 4, 4), side=3)
        >>> ax.get_ylabel()
        'z[1]'
    """
    if not isinstance(side, int) or side < 1:
        raise ValueError(f"side must be a positive integer; got {side!r}.")
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    z1, z0 = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")  # large z[1] on top
    with torch.no_grad():
        images = decoder_of(decode)(torch.stack([z0.reshape(-1), z1.reshape(-1)], 1))
    if len(images) != side * side:
        raise ValueError(f"decode must return one image for each of the {side * side} codes; got {len(images)}.")
    ax = sample_grid(images, columns=side, ax=ax)
    _name_quantiles(ax, quantiles, np.array(images.shape[-2:]) + 1)
    return ax


def _name_quantiles(ax: Axes, quantiles: Tensor, pitch: np.ndarray) -> None:
    """Write the latent coordinates of the first, middle and last image on each axis."""
    shown = sorted({0, len(quantiles) // 2, len(quantiles) - 1})
    names = [f"{float(quantiles[i]):.2f}" for i in shown]
    centre = np.array(shown) + 0.5
    ax.set_xticks(centre * pitch[1] - 1, names)
    ax.set_yticks((len(quantiles) - centre) * pitch[0] - 1, names)
    ax.tick_params(length=0)
    ax.set_xlabel("\n".join(["z[0]", ax.get_xlabel()]).strip())
    ax.set_ylabel("z[1]")
