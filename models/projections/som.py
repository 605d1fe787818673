"""Self-organising maps: a sheet of units laid through the rows, so that near units have near rows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceWarning
from probdl.models.arguments import count, not_negative, one_of
from probdl.models.classical import ClassicalModel, flat
from probdl.models.generative import CHUNK, Encoding
from probdl.models.projections.grids import GRIDS, neighbours, positions
from probdl.models.projections.quality import mean_of
from probdl.models.projections.spectrum import Spectrum
from probdl.models.row_model import home

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SETTLE = 500  # passes at the last radius until the map should stand still


class SOM(ClassicalModel, Encoding):
    r"""A self-organising map: units on a grid, each with a row of its own, the weighted mean of the rows nearby.

    .. math:: m_j = \frac{\sum_i h_{j b(i)} u_i}{\sum_i h_{j b(i)}}, \qquad b(i) = \arg\min_j |u_i - m_j|, \qquad
              h_{jb} = \exp\frac{-|r_j - r_b|^2}{2σ^2},

    for standardised rows u and places r on the grid. All rows are seen in each pass. The map starts in the plane of the
    first two principal components, with fixed signs; σ shrinks geometrically, and at its last value the passes go on
    until the equation above holds, so that nothing is random. With σ = 0 this is k-means. Units without rows take the
    mean of the nearest that have some.

    Args:
        shape: rows and columns of the grid; (1, k) is a chain.
        grid: "hexagonal" (6 neighbours) or "square" (8).
        radius: σ in the first pass and in the last, in steps of the grid; None: a quarter of the longer side, or
            1 where that is more, and 0.5. A larger one at the end gives a smoother map that fits less closely.
        passes: in which σ shrinks.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none".
        dtype: of the units' rows.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Kohonen (1982), Self-organized formation of topologically correct feature maps; (2013), Essentials of the
        self-organizing map, Neural Networks 37, for batches.

    Example:
        >>> import torch
        >>> x = torch.linspace(0, 1, 100)[:, None]
        >>> model = SOM((1, 5)).fit(x)
        >>> [round(float(v), 1) for v in model.codebook.flatten()]
        [0.1, 0.3, 0.5, 0.7, 0.9]
        >>> model.encode([[0.9], [0.1]]).tolist()
        [[4.0, 0.0], [0.0, 0.0]]
    """

    SETTINGS = ("shape", "grid", "radius", "passes", "standardise")
    latent_dim = 2
    nodes: Tensor
    places: Tensor

    def __init__(
        self,
        shape: tuple[int, int] = (8, 8),
        *,
        grid: str = "hexagonal",
        radius: tuple[float, float] | None = None,
        passes: int = 100,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(dtype, standardise=standardise)
        self.shape, self.grid = _shape(shape), one_of(grid, GRIDS, "grid")
        self.radius, self.passes = _radius(radius), count(passes, "passes")

    @property
    def codebook(self) -> Tensor | pd.DataFrame:
        """The row of each unit in the data's units, (units, ...), or a DataFrame if ``fit`` got one; row by row."""
        form, units = self._rows("codebook")
        return form.dress(units.outward(self.nodes.reshape(-1, *form.shape)), self.dtype)

    def predict(self, x: Any) -> Tensor:
        """Return the unit whose row is nearest to each row, (n,), numbered row by row from 0.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._best(x)[:, 0].to(home(x))

    def hits(self, x: Any) -> Tensor:
        """Return how many rows are nearest to each unit, of the grid's shape."""
        return torch.bincount(self.predict(x), minlength=len(self.nodes)).reshape(self.shape)

    def quantisation_error(self, x: Any) -> Estimate:
        """Return the mean distance of a row from its unit's row, in standardised units; its error is over rows."""
        u = flat(self._inward(x))
        return mean_of((u - self.nodes[nearest(u, self.nodes)]).norm(dim=1), "mean over rows, in standardised units")

    def topographic_error(self, x: Any) -> Estimate:
        """Return the share of rows whose two nearest units do not touch on the grid; its error is binomial."""
        best = self._best(x)
        touch = neighbours(self.places, self.grid)[best[:, 0], best[:, 1]]
        return mean_of((~touch).to(self.dtype), "share of rows")

    def u_matrix(self) -> Tensor:
        """Return how far each unit's row is from those of its neighbours on the grid, on average; of the grid's shape.

        Ridges of large distances part clusters. In standardised units; draw it by ``viz.u_matrix`` or ``plot``.
        """
        self._rows("u_matrix")
        touch = neighbours(self.places, self.grid).to(self.nodes)
        apart = (self.nodes[:, None] - self.nodes).norm(dim=2)
        return ((apart * touch).sum(1) / touch.sum(1)).reshape(self.shape)

    def plot(self, x: Any = None, labels: Any = None, ax: Axes | None = None) -> Axes:
        """Draw the U-matrix; with rows x a dot on each unit, its area their number, coloured by the commonest label.

        Args:
            x: rows.
            labels: of these rows.
            ax: where to draw; None makes a figure.
        """
        from probdl.viz import u_matrix

        if labels is not None and x is None:
            raise ValueError("labels need the rows that they belong to; pass them as x.")
        where = None if x is None else self.predict(x)
        return u_matrix(self.u_matrix(), grid=self.grid, units=where, labels=labels, ax=ax)

    def _best(self, x: Any) -> Tensor:
        """Return the two nearest units of each row, (n, 2)."""
        u = flat(self._inward(x))
        parts = [torch.cdist(part, self.nodes).topk(2, largest=False).indices for part in u.split(CHUNK)]
        return torch.cat(parts)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        return self.places[nearest(flat(u), self.nodes)]

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        return self.nodes[nearest(z, self.places)].reshape(len(z), *self._form.shape)

    def _estimate(self, u: Tensor, seed: int) -> None:
        rows, places = flat(u), positions(self.shape, self.grid).to(u)
        squares = torch.cdist(places, places).square()
        nodes = _start(rows, places)
        for radius in self._radii():
            nodes = batch_pass(rows, nodes, squares, radius)
        last, passes = self._radii()[-1], self.passes
        for _ in range(SETTLE):
            before, nodes, passes = nodes, batch_pass(rows, nodes, squares, last), passes + 1
            if torch.equal(before, nodes):
                break
        self._keep(nodes=nodes, places=places)
        self.message = self._ending(passes, float((nodes - before).abs().max()))

    def _radii(self) -> list[float]:
        """Return σ in each pass."""
        first, last = self.radius or (max(1.0, max(self.shape) / 4), 0.5)
        least = last or min(first, 0.25)  # a geometric sequence has no zero; at a quarter step neighbours hardly count
        ways = torch.linspace(0, 1, self.passes, dtype=torch.float64)[:-1].tolist()
        return [*(first and first * (least / first) ** t for t in ways), last]

    def _ending(self, passes: int, change: float) -> str:
        if change > 1e-8:
            warnings.warn(
                f"The map of {len(self.nodes)} units still changes by {change:.1e} after {passes} passes: rows go to "
                "and fro between units. Pass a larger last radius, or fewer units.",
                ConvergenceWarning,
                stacklevel=7,
            )
        return f"self-organising map: {passes} passes, of which the last changed it by {change:.1e}"


def batch_pass(rows: Tensor, nodes: Tensor, squares: Tensor, radius: float) -> Tensor:
    """Return the units' rows after one pass: each the weighted mean of all rows, by the place of their nearest unit.

    Args:
        rows: (n, d).
        nodes: the units' rows, (units, d).
        squares: squared distances of the units on the grid, (units, units).
        radius: σ; with 0 the mean of a unit's own rows, or of the nearest units' that have some.
    """
    best = nearest(rows, nodes)
    number = torch.bincount(best, minlength=len(nodes)).to(rows)
    sums = torch.zeros_like(nodes).index_add_(0, best, rows)
    # Relative to the nearest unit with rows, weights cannot all underflow.
    apart = squares.masked_fill(number == 0, torch.inf)
    apart = apart - apart.amin(1, keepdim=True)
    weights = (apart <= 0).to(rows) if radius == 0 else (-apart / (2 * radius**2)).exp()
    return (weights @ sums) / (weights @ number)[:, None]


def nearest(rows: Tensor, nodes: Tensor) -> Tensor:
    """Return the index of the nearest of the nodes (k, d) for each row (n, d)."""
    return torch.cat([torch.cdist(part, nodes).argmin(1) for part in rows.split(CHUNK)])


def _start(rows: Tensor, places: Tensor) -> Tensor:
    """Return units in the plane of the first two principal components, with the spread of the rows along each."""
    spread = places - places.mean(0)
    long = spread.std(0, correction=0).argsort(descending=True)  # the longer side lies along the first component
    spread = spread[:, long[: min(2, *rows.shape)]]
    spread = spread / spread.std(0, correction=0).clamp(min=1e-12)
    found = Spectrum.of(rows, spread.shape[1])
    return found.mean + (spread * found.values[: spread.shape[1]].to(rows).sqrt()) @ found.axes


def _shape(shape: Any) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape must be two whole numbers, rows and columns of the grid; got {shape!r}.")
    rows, columns = (count(side, "each side of shape") for side in shape)
    if rows * columns < 2:
        raise ValueError("shape must have at least 2 units; got 1.")
    return rows, columns


def _radius(radius: Any) -> tuple[float, float] | None:
    if radius is None:
        return None
    if not isinstance(radius, (tuple, list)) or len(radius) != 2:
        raise ValueError(f"radius must be two numbers, the first and the last; got {radius!r}.")
    first, last = (not_negative(each, "each of radius") for each in radius)
    if first < last:
        raise ValueError(f"radius must not grow; got {first} to {last}.")
    return first, last
