"""What a loop tells about itself: losses, their means, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.errors import ConvergenceError
from probdl.loops.batches import Batch
from probdl.loops.keeper import not_finite

if TYPE_CHECKING:
    import pandas as pd

Terms = dict[str, Tensor]
Loss = Callable[[Batch, torch.Generator], "Tensor | tuple[Tensor, Terms]"]
COLUMNS = ("step", "epoch", "seconds", "loss", "validation")


@dataclass(frozen=True)
class Descent:
    """How a descent went.

    Attributes:
        history: one row a record (an epoch, unless ``every`` says otherwise): step, epoch, seconds, loss (mean over the
            rows since the last record), validation, then the terms.
        epoch: the epoch whose state the module has now.
        interrupted: whether Ctrl-C ended it.
        message: why it ended, in a sentence.
    """

    history: pd.DataFrame
    epoch: int
    interrupted: bool
    message: str


class NotFiniteError(ConvergenceError):
    """A loss or parameter became NaN or infinite; the module has its last good state, ``descent`` the history."""

    descent: Descent


class Mean:
    """Means over rows that are added up on the device, and read once."""

    def __init__(self) -> None:
        self.sums: Terms = {}
        self.rows = 0.0

    def add(self, rows: float, terms: Terms) -> None:
        """Add terms that are means over ``rows`` rows."""
        self.rows += rows
        for name, term in terms.items():
            value = term.detach() * rows
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def values(self) -> dict[str, float]:
        """Return the means."""
        return {name: float(total) / self.rows for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"sums": self.sums, "rows": self.rows}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` returned."""
        self.sums, self.rows = dict(state["sums"]), state["rows"]


def parts(result: Tensor | tuple[Tensor, Terms]) -> tuple[Tensor, Terms]:
    """Return the loss and its further terms from what a loss function returned."""
    value, terms = (result, {}) if isinstance(result, Tensor) else result
    if value.ndim:
        raise ValueError(f"loss must return a scalar; got shape {tuple(value.shape)}. Take the mean over rows.")
    return value, terms


def check_loss(value: Tensor, terms: Terms, module: nn.Module, step: int, player: str = "") -> None:
    """Raise a FloatingPointError that says which term and which parameters are at fault, if the loss is not finite."""
    if math.isfinite(found := value.item()):
        return
    named = "".join(f", {name} {float(term.detach()):g}" for name, term in terms.items())
    bad = not_finite(module)
    where = f"not finite are {some(bad)}" if bad else "all parameters are finite, so the loss itself is at fault"
    raise FloatingPointError(f"The {player + ' ' if player else ''}loss became {found} at step {step}{named}; {where}.")


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the history of a loop, with its columns even where no epoch was finished."""
    import pandas as pd

    return pd.DataFrame(rows, columns=None if rows else list(COLUMNS))


def some(names: list[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
