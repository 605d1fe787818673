"""Pictures of rows by t-SNE: one, in two or three dimensions, or one for each layer of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probdl.viz.embeddings.tsne import TSNE
from probdl.viz.latent import latent_plane
from probdl.viz.style import axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPACE = {"projection": "3d"}


def embedding(found: TSNE, labels: Any = None, ax: Axes | None = None) -> Axes:
    """Draw rows as points of a plane or of space, coloured by label; axes have no ticks, as their numbers mean nothing.

    Args:
        found: what :func:`tsne` returned.
        labels: n labels, as of :func:`latent_plane`.
        ax: where to draw, with three dimensions for points of three; None makes a figure.

    Returns:
        The axes; the title says how much is lost, KL(P ‖ Q).

    Raises:
        TypeError: if ``found`` is something else.
        ValueError: if ``ax`` has another number of dimensions than the points, or ``labels`` another length than there
            are points.

    Example:
        >>> from probdl import data, viz
        >>> found = viz.tsne(data.digits().images[:100], dim=3, perplexity=10, n_iter=50)
        >>> embedding(found, data.digits().labels[:100]).name
        '3d'
    """
    if not isinstance(found, TSNE):
        raise TypeError(f"found must be what tsne returns; got {type(found).__name__}. Draw points by latent_plane.")
    dim = found.Y.shape[1]
    if ax is None and dim == 3:
        ax = _grid(1, dim)[0]
    ax = axes(ax, 5.5, 4.5)
    if (ax.name == "3d") != (dim == 3):
        raise ValueError(f"ax must have {dim} dimensions, as the points; make it by plt.subplots(subplot_kw={SPACE}).")
    latent_plane(found.Y, labels, ax)
    for name in "xyz"[:dim]:
        getattr(ax, f"set_{name}label")("")
        getattr(ax, f"set_{name}ticks")([])
    ax.set_title(f"KL {found.kl:.2f}", fontsize="medium")
    return ax


def layer_panel(
    found: Mapping[str, TSNE], labels: Any = None, ax: Axes | Mapping[str, Axes] | None = None
) -> dict[str, Axes]:
    """Draw the t-SNE of each layer of a network in a panel of its own, in one figure with one legend.

    Args:
        found: by layer, what :func:`tsne_layers` returned.
        labels: n labels, as of :func:`latent_plane`.
        ax: None makes a figure; a mapping gives each layer its panel; one Axes takes one layer.

    Returns:
        The axes by layer; titles name the layer and how much is lost, KL(P ‖ Q).

    Raises:
        TypeError: if ``found`` holds something else.
        ValueError: if there is no layer, or none of the axes for a layer; else as :func:`embedding`.

    Example:
        >>> import torch
        >>> from probdl import data, viz
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
        >>> found = viz.tsne_layers(model, data.digits().images[:100], perplexity=10, n_iter=50)
        >>> list(layer_panel(found, data.digits().labels[:100]))
        ['input', '1']
    """
    panels = _panels(found, ax)
    for name, each in found.items():
        embedding(each, labels, panels[name])
        panels[name].set_title(f"{name}: KL {each.kl:.2f}", fontsize="medium")
    *others, last = (panel.get_legend() for panel in panels.values())
    for legend in filter(None, others):
        legend.remove()
    if last is not None and ax is None:
        last.set_in_layout(len(panels) % _columns(len(panels)) == 0)  # else there is room beside the last panel
    return panels


def _panels(found: Mapping[str, TSNE], ax: Any) -> dict[str, Axes]:
    if not isinstance(found, Mapping) or not all(isinstance(each, TSNE) for each in found.values()):
        raise TypeError("found must be what tsne_layers returns, a picture for each layer.")
    if not found:
        raise ValueError("found must hold at least one layer; got none.")
    if ax is None:
        ax = dict(zip(found, _grid(len(found), max(each.Y.shape[1] for each in found.values()))))
    elif not isinstance(ax, Mapping):
        ax = dict(zip(found, [axes(ax)]))
    if missing := [name for name in found if name not in ax]:
        raise ValueError(f"ax must give each layer its axes; none for {', '.join(missing)}. Pass None for a figure.")
    return {name: ax[name] for name in found}


def _grid(n: int, dim: int) -> list[Axes]:
    """Return n axes of that many dimensions, in a new figure, row by row."""
    import matplotlib.pyplot as plt

    columns = _columns(n)
    lines = math.ceil(n / columns)
    size = (0.6 + 3.2 * columns, 3.2 * lines) if n > 1 else (5.5, 4.5)
    figure, grid = plt.subplots(
        lines, columns, figsize=size, squeeze=False, layout="constrained", subplot_kw=SPACE if dim == 3 else None
    )
    for empty in grid.flat[n:]:
        figure.delaxes(empty)
    return list(grid.flat[:n])


def _columns(n: int) -> int:
    return 3 if n in (5, 6) else min(n, 4)
