"""Iterate: repeat a projection until it stands still. It knows nothing of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from probdl.errors import ConvergenceError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Iteration:
    """What happened: one dict for each sweep, and whether the gap fell below the tolerance."""

    rows: list[dict[str, float]] = field(default_factory=list)
    converged: bool = False

    @property
    def last(self) -> float:
        """The last gap."""
        return self.rows[-1]["gap"]

    def frame(self) -> pd.DataFrame:
        """Return the sweeps as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def iterate(
    sweep: Callable[[], dict[str, float]], *, tolerance: float, max_steps: int, progress: bool | None = None
) -> Iteration:
    """Call ``sweep`` until the gap it returns is below ``tolerance``, or ``max_steps`` are done.

    Args:
        sweep: takes one step; returns a dict with the "gap" to the fixed point that it found before the step.
        tolerance: the gap at which the iteration stands still.
        max_steps: the largest number of sweeps.
        progress: show a bar; None shows one when the error stream is a terminal.

    Raises:
        ConvergenceError: if the gap is NaN.

    Example:
        >>> state = {"x": 1.0}
        >>> def halve():
        ...     state["x"] /= 2
        ...     return {"gap": state["x"]}
        >>> iterate(halve, tolerance=0.1, max_steps=10, progress=False).rows[-1]
        {'sweep': 4, 'gap': 0.0625}
    """
    from tqdm.auto import tqdm

    done = Iteration()
    with tqdm(total=None, desc="sweeps", leave=False, disable=None if progress is None else not progress) as bar:
        for i in range(1, max_steps + 1):
            row = sweep()
            done.rows.append({"sweep": i, **row})
            bar.update()
            bar.set_postfix_str(f"gap {row['gap']:.2e}")
            if row["gap"] != row["gap"]:
                raise ConvergenceError(f"The iteration gave NaN in sweep {i}; the one before had {done.rows[-2:-1]}.")
            if row["gap"] <= tolerance:
                done.converged = True
                break
    return done
