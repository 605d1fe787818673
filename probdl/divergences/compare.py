"""Several divergences in one table, each beside what draws of a single distribution would give."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.distributions import Distribution

from probdl.access import Draws
from probdl.divergences import f_divergences, metrics
from probdl.divergences.dispatch import Held, NotApplicable, draws_of, hold_pair
from probdl.divergences.distributions import seeded
from probdl.divergences.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Divergence = Callable[..., Estimate]
OF_DRAWS: tuple[Divergence, ...] = (metrics.wasserstein, metrics.mmd2, metrics.energy)
OF_DENSITIES: tuple[Divergence, ...] = (f_divergences.kl, f_divergences.js, f_divergences.tv, f_divergences.hellinger2)
SPLITS = 5  # random splits of the pooled draws behind the same-distribution reference


@dataclass(frozen=True)
class Row:
    """One divergence: its estimate, or why there is none, the references, and the seconds of the estimate alone."""

    estimate: Estimate | None
    why: str
    references: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """Divergences between two distributions, as a table, a picture and text.

    Attributes:
        rows: for each divergence by name, the ``Row`` with its ``Estimate``.

    Example:
        >>> from torch.distributions import Normal
        >>> comparison = compare(Normal(0.0, 1.0), Normal(1.0, 1.0))
        >>> comparison.estimates["kl"]
        0.5 ± 0 (closed form)
        >>> round(float(comparison.table.loc["tv", "value"]), 4)
        0.3829
    """

    rows: dict[str, Row]

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by name, without the divergences that cannot be had."""
        return {name: row.estimate for name, row in self.rows.items() if row.estimate is not None}

    @property
    def table(self) -> pd.DataFrame:
        """One row for each divergence.

        Columns: value, stderr, lower and upper (95 %), method, target, seconds, and the same-distribution reference
        with its standard deviation; NaN where a number cannot be had.
        """
        import pandas as pd

        records = {name: _record(row) for name, row in self.rows.items()}
        return pd.DataFrame.from_dict(records, orient="index").rename_axis("divergence")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each divergence with its 95 % interval, and below it the same-distribution reference ± 2 sd.

        Args:
            ax: where to draw them all on one scale; None gives each its own, since their units differ.

        Returns:
            The axes; of a new figure the first.
        """
        from probdl.viz.style import rows

        table = self.table
        if ax is not None:
            return _draw(table, ax)
        panels = rows(len(table))
        for panel, name in zip(panels, table.index):
            _draw(table.loc[[name]], panel)
        for legend in filter(None, (panel.get_legend() for panel in panels[1:])):
            legend.remove()
        return panels[0]

    def __repr__(self) -> str:
        table = self.table.to_string(float_format=lambda v: f"{v:.4g}", na_rep="—")
        return "\n".join([table, *self._remarks()])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table.to_html(float_format=lambda v: f"{v:.4g}", na_rep="—", border=0)
        return table + "".join(f"<p><small>{escape(remark)}</small></p>" for remark in self._remarks())

    def _remarks(self) -> list[str]:
        remarks = [f"{name}: {row.why}" for name, row in self.rows.items() if row.why]
        remarks += [f"{name}: {note}" for name, estimate in self.estimates.items() for note in estimate.notes]
        if any(len(row.references) > 1 for row in self.rows.values()):
            remarks.append(
                f"reference: mean and sd over {SPLITS} random splits of the pooled draws into the same sizes"
            )
        return remarks


def compare(x: Any, y: Any, *, divergences: Sequence[Divergence] | None = None, seed: int = 0) -> Comparison:
    r"""Return several divergences between x and y, each with its uncertainty and a same-distribution reference.

    The reference answers "how large would this number be if x and y came from one distribution?": both samples are
    pooled and split at random into the same sizes, five times, as a permutation test does. So it has the same bias as
    the estimate, and a value that stands far above it, in units of ``reference_sd``, is a difference. Between two
    distributions that are known there is no sampling, and the reference is 0.

    Args:
        x: draws of shape (n, d) or (n,), DataFrame, ``probdl.Draws``, or a ``torch.distributions.Distribution``.
        y: as x.
        divergences: a list of functions of this package, or of ``functools.partial`` of them, such as
            ``partial(wasserstein, order=2)``. None means all for two distributions, of which those that do not apply
            are listed without a value; and wasserstein, mmd2 and energy where draws are held.
        seed: seeds whatever is drawn.

    Returns:
        A ``Comparison`` with ``.table``, ``.plot()`` and ``.estimates``.

    Raises:
        ValueError: for bad draws, or if a divergence that was named cannot be had from what is held.

    Example:
        >>> import torch
        >>> x = torch.linspace(0, 1, 50, dtype=torch.float64)
        >>> compare(x, x + 2).table[["value", "method"]].round(3)  # doctest: +NORMALIZE_WHITESPACE
                     value       method
        divergence
        wasserstein  2.000      sorting
        mmd2         1.405  u-statistic
        energy       3.306  u-statistic
    """
    p, q = hold_pair(x, y, ("x", "y"))
    known = isinstance(p, Distribution) and isinstance(q, Distribution)
    wanted = _wanted(divergences, known)
    splits = [] if known else _splits(*draws_of(p, q, ("x", "y"), seed)[:2], seed)
    strict = divergences is not None
    return Comparison({name: _row(divergence, p, q, splits, seed, strict) for name, divergence in wanted.items()})


def _wanted(divergences: Sequence[Divergence] | None, known: bool) -> dict[str, Divergence]:
    if divergences is None:
        divergences = [*OF_DENSITIES, *OF_DRAWS] if known else OF_DRAWS
    if callable(divergences) or isinstance(divergences, str):
        raise TypeError(f"divergences must be a list of functions; got {divergences!r}. Put it in brackets.")
    return {name_of(divergence): divergence for divergence in divergences}


def name_of(divergence: Divergence) -> str:
    """Return the name of the function, with the arguments that a ``partial`` fixes."""
    if not callable(divergence):
        raise TypeError(
            f"divergences must be a list of functions such as probdl.divergences.energy; it holds {divergence!r}."
        )
    if isinstance(divergence, partial):
        fixed = ", ".join(f"{key}={value}" for key, value in divergence.keywords.items())
        return f"{name_of(divergence.func)}({fixed})"
    return getattr(divergence, "__name__", type(divergence).__name__)


def _row(divergence: Divergence, p: Held, q: Held, splits: list[tuple[Draws, Draws]], seed: int, strict: bool) -> Row:
    start = time.perf_counter()
    try:
        estimate = divergence(p, q, seed=seed)
    except NotApplicable as reason:
        if strict:
            raise
        return Row(None, str(reason), (), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    references = tuple(float(divergence(a, b, seed=seed)) for a, b in splits) or (0.0,)
    return Row(estimate, "", references, seconds)


def _splits(x: Draws, y: Draws, seed: int) -> list[tuple[Draws, Draws]]:
    """Pool the draws and split them at random into the same sizes; weights go with their rows."""
    rows = torch.cat([x.x, y.x.to(x.x.device)])
    weighted = x.weights is not None or y.weights is not None
    weights = torch.cat([_weights(x) * x.n, _weights(y).to(rows.device) * y.n]) if weighted else None
    splits = []
    with seeded(seed):
        orders = [torch.randperm(len(rows)).to(rows.device) for _ in range(SPLITS)]
    for order in orders:
        parts = order[: x.n], order[x.n :]
        first, second = (Draws(rows[i], None if weights is None else weights[i]) for i in parts)
        splits.append((first, second))
    return splits


def _weights(draws: Draws) -> torch.Tensor:
    return torch.full_like(draws.x[:, 0], 1 / draws.n) if draws.weights is None else draws.weights


def _draw(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the rows of the table on one scale."""
    from probdl import viz

    names = list(table.index)
    viz.intervals(names, table["value"], table["lower"], table["upper"], ax=ax, label="estimate", offset=-0.12)
    centre, reach = table["reference"], 2 * table["reference_sd"]
    if bool((reach > 0).any()):
        viz.intervals(names, centre, centre - reach, centre + reach, ax=ax, label="one distribution", offset=0.12)
    return ax


def _record(row: Row) -> dict[str, Any]:
    nan = math.nan
    references = torch.tensor(row.references or (nan,), dtype=torch.float64)
    record = {"value": nan, "stderr": nan, "lower": nan, "upper": nan, "method": "none", "target": "none"}
    if row.estimate is not None:
        estimate = row.estimate
        record |= {"value": float(estimate), "method": estimate.method, "target": estimate.target}
        if estimate.stderr is not None:
            lower, upper = estimate.interval()
            record |= {"stderr": float(estimate.stderr), "lower": float(lower), "upper": float(upper)}
    record["seconds"] = row.seconds
    record["reference"] = references.mean().item()
    record["reference_sd"] = references.std().item() if len(references) > 1 else 0.0
    return record
