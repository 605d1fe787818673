"""Highest-density regions in the plane: the smallest that hold a stated mass, of a density or of draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from probdl.access import Draws, LogDensity, hold
from probdl.divergences.dispatch import single
from probdl.divergences.distributions import dimension, double, draw, is_discrete, log_density
from probdl.viz.posteriors.smoothing import of_draws

SIDE = 250  # points along each axis of a grid
SPREAD = 2000  # draws that say where a distribution lies
ZOOMS, WIDER = 40, 8  # grids on the way to the mass, and to all that is asked of it


class Surface(NamedTuple):
    """A density over the plane, and the heights at which its regions end.

    Attributes:
        x, y: coordinates of the points of a grid (k, k), which may be a sheared one.
        density: there, up to a constant.
        levels: for each mass the height c with P(density > c) = mass.
    """

    x: Tensor
    y: Tensor
    density: Tensor
    levels: Tensor

    def box(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper corner (2,) of all regions."""
        inside = self.density >= self.levels.min()
        points = torch.stack([self.x[inside], self.y[inside]], 1)
        return points.amin(0), points.amax(0)


def surface(p: Any, masses: Sequence[float], name: str = "p") -> Surface:
    """Return the density of ``p`` on a grid that is found automatically, and the heights of the masses.

    Args:
        p: a Distribution of two coordinates, a ``LogDensity`` with dim=2, or draws (n, 2), perhaps weighted.
        masses: of the regions, each between 0 and 1.
        name: what to call ``p`` in errors.

    Raises:
        TypeError: if ``p`` is none of these, or discrete.
        ValueError: for another dimension, masses outside (0, 1), fewer than 10 draws, a density that is nowhere
            finite and positive or whose mass cannot be found.
    """
    check_masses(masses)
    held = hold(p, name)
    if isinstance(held, Distribution):
        single(held, name)
    dim = dimension(held) if isinstance(held, Distribution) else held.dim
    if dim != 2:
        raise ValueError(f"{name} must have two coordinates to be drawn in the plane; got {dim}.")
    if isinstance(held, Draws):
        return Surface(*of_draws(held, masses, name))
    return _of_density(held, masses, name)


def check_masses(masses: Sequence[float]) -> None:
    """Raise a ValueError unless there are masses, each between 0 and 1."""
    if not len(masses) or not all(0 < m < 1 for m in masses):
        raise ValueError(f"masses must lie between 0 and 1; got {list(masses)}.")


def _of_density(p: Distribution | LogDensity, masses: Sequence[float], name: str) -> Surface:
    """Sum the density over a grid, highest first, until the mass is reached; on a finer grid once it is known where."""
    log_p: Callable[[Tensor], Tensor] = p if isinstance(p, LogDensity) else _log_density(p, name)
    first = 2 * [_wide_axis()] if isinstance(p, LogDensity) else _axes_of_draws(p)
    axes = _around_the_mass(log_p, first, (1 - max(masses)) / 100, name)
    density, log_top = _density(log_p, axes, name)
    total = log_top + math.log(float(density.sum()) * _cell(axes))
    coarse = _levels(density, _cell(axes) * math.exp(log_top - total), masses)
    axes = [_stretched(axis[(density >= coarse.min()).any(1 - i)], axis) for i, axis in enumerate(axes)]
    for _ in range(WIDER):
        density, log_top = _density(log_p, axes, name)
        each = _cell(axes) * math.exp(log_top - (total if isinstance(p, LogDensity) else 0.0))
        if float(density.sum()) * each >= max(masses):
            x, y = torch.meshgrid(*axes, indexing="ij")
            return Surface(x, y, density, _levels(density, each, masses))
        axes = [_stretched(axis, axis, 0.3) for axis in axes]
    raise ValueError(
        f"Grids do not hold the mass {max(masses)} of {name}: its density has peaks too thin, or tails too "
        "long, for them. Pass draws of it instead."
    )


def _log_density(p: Distribution, name: str) -> Callable[[Tensor], Tensor]:
    if is_discrete(p):
        raise TypeError(f"{name} must have a density; {type(p).__name__} is discrete.")
    law = double(p, "cpu")
    return lambda x: log_density(law, x)


def _axes_of_draws(p: Distribution) -> list[Tensor]:
    """Return a first grid between quantiles of draws, and beyond."""
    x = draw(p, SPREAD, seed=0).cpu()
    low, high = torch.quantile(x, torch.tensor([0.002, 0.998], dtype=torch.float64), dim=0)
    reach = (high - low) / 2
    return [torch.linspace(float(low[i] - reach[i]), float(high[i] + reach[i]), SIDE, dtype=x.dtype) for i in (0, 1)]


def _wide_axis() -> Tensor:
    """Return points that are dense at 0 and reach to ±5000, for a density of unknown place."""
    return torch.linspace(-1, 1, 2 * SIDE + 1, dtype=torch.float64).mul(math.log(1e6)).sinh() * 1e-2


def _around_the_mass(log_p: Callable[[Tensor], Tensor], axes: list[Tensor], beyond: float, name: str) -> list[Tensor]:
    """Return a grid twice as wide as what holds nearly all mass: each grid follows the mass on the one before."""
    before = torch.full((2, 2), math.inf, dtype=torch.float64)
    for _ in range(ZOOMS):
        mass = _density(log_p, axes, name)[0] * torch.outer(*(torch.gradient(a)[0] for a in axes))
        found = [_ends(mass.sum(1 - i), axes[i], beyond) for i in (0, 1)]
        ends, wider = (torch.stack(parts) for parts in zip(*found))
        axes = [torch.linspace(low, high, SIDE, dtype=ends.dtype) for low, high in wider.tolist()]
        if bool(((ends - before).abs() < 0.1 * (ends[:, 1:] - ends[:, :1])).all()):
            return axes
        before = ends
    raise ValueError(
        f"The mass of {name} cannot be found on a grid: does its density integrate? Pass draws of it instead."
    )


def _ends(mass: Tensor, axis: Tensor, beyond: float) -> tuple[Tensor, Tensor]:
    """Return the ends of the part that holds all but a share at each side, and those of a grid twice as wide.

    Where the mass reaches the end of the axis, most of it may lie beyond, and the next grid goes as far again.
    """
    below = mass.cumsum(0) / mass.sum()
    first, last = int((below > beyond).nonzero()[0]), int((below >= 1 - beyond).nonzero()[0])
    ends = torch.stack([axis[max(first - 1, 0)], axis[min(last + 1, len(axis) - 1)]])
    width, reach = ends[1] - ends[0], axis[-1] - axis[0]
    more = torch.stack([reach if first == 0 else width / 2, reach if last == len(axis) - 1 else width / 2])
    return ends, ends + more * torch.tensor([-1.0, 1.0])


def _stretched(part: Tensor, axis: Tensor, share: float = 0.1) -> Tensor:
    """Return a grid over a part of the axis and a margin on either side."""
    margin = share * (part[-1] - part[0]) + 2 * (axis[1] - axis[0])
    return torch.linspace(float(part[0] - margin), float(part[-1] + margin), SIDE, dtype=axis.dtype)


def _cell(axes: Sequence[Tensor]) -> float:
    return float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))


def _levels(density: Tensor, each: float, masses: Sequence[float]) -> Tensor:
    """Return the height of the last point that is needed for each mass; ``each`` is the mass at density 1."""
    heights, _ = density.flatten().sort(descending=True)
    at = torch.searchsorted(heights.cumsum(0) * each, torch.tensor(list(masses), dtype=heights.dtype))
    return heights[at.clamp_max(len(heights) - 1)]


def _density(log_p: Callable[[Tensor], Tensor], axes: Sequence[Tensor], name: str) -> tuple[Tensor, float]:
    """Return the density over its largest value at the points of a product grid, and the logarithm of that value."""
    with torch.no_grad():
        value = log_p(torch.cartesian_prod(*axes)).double().cpu().nan_to_num(nan=-math.inf, posinf=math.inf)
    top = float(value.max())
    if not math.isfinite(top):
        raise ValueError(f"{name} must have a density that is finite and somewhere positive; its maximum is e^{top:g}.")
    return (value - top).exp().reshape(len(axes[0]), len(axes[1])), top
