"""Embeddings in panels beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3


def plot_panels(
    points: Mapping[str, Tensor],
    measures: Mapping[str, Mapping[str, Estimate]],
    labels: Any,
    ax: Axes | Mapping[str, Axes] | None,
) -> dict[str, Axes]:
    """Draw each embedding in its panel.

    Args:
        points: by name, (n, 2).
        measures: by name.
        labels: one for each row, or None.
        ax: as of ``Embeddings.plot``.
    """
    from probdl.viz.latent import latent_plane

    panels = _panels(list(points), ax)
    for name, y in points.items():
        panel = latent_plane(_apart(y), labels, panels[name])
        panel.set(xlabel="", ylabel="", xticks=[], yticks=[])
        found = measures[name]
        scores = f"T {found['trustworthiness'].value:.3f}, C {found['continuity'].value:.3f}"
        panel.set_title(f"{name}: {scores}", fontsize="medium")
    *others, last = (panel.get_legend() for panel in panels.values())
    for legend in filter(None, others):
        legend.remove()
    if last is not None and ax is None:
        last.set_in_layout(len(panels) % min(len(panels), COLUMNS) == 0)  # else there is room beside the last panel
    return panels


def _panels(names: list[str], ax: Any) -> dict[str, Axes]:
    from probdl.viz.style import axes

    if ax is None:
        ax = dict(zip(names, plot_grid(len(names))))
    elif not isinstance(ax, Mapping):
        ax = dict(zip(names, [axes(ax)]))
    if missing := [name for name in names if name not in ax]:
        raise ValueError(f"ax must give each embedding its axes; none for {', '.join(missing)}. Or pass None.")
    return {name: ax[name] for name in names}


def plot_grid(n: int) -> list[Axes]:
    """Return n axes in a new figure, row by row."""
    import matplotlib.pyplot as plt

    columns = min(n, COLUMNS)
    lines = -(-n // columns)
    size = (0.8 + 3.2 * columns, 3.1 * lines)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for empty in grid.flat[n:]:
        figure.delaxes(empty)
    return list(grid.flat[:n])


def _apart(y: Tensor) -> Tensor:
    """Return points around their places where fewer than half of them are distinct, else as they are."""
    places = y.unique(dim=0)
    if len(places) > len(y) / 2 or len(places) < 2:
        return y
    step = torch.nn.functional.pdist(places).min()
    noise = torch.rand(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype).to(y)
    return y + 0.7 * step * (noise - 0.5)
