"""The sanity check of maps: do they depend on what the network learned? (Adebayo et al., 2018)."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probdl.nn.seeding import seeded
from probdl.viz.seeing.cascade import Method, cascade, correlations, initialises, layer_of, ranks
from probdl.viz.seeing.unchanged import as_input, unchanged
from probdl.viz.style import LINES, axes, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Randomization(dict[str, float]):
    """Rank correlations with the maps of the trained model, by the layer down to which it was randomised, top first.

    Attributes:
        stderr: the standard error of each, over draws of the weights and over rows, both taken as samples; NaN where
            there is one of either.
        rows: for each layer the correlation in each draw of each row, (draws, n) in float64.
        notes: what was compared, how layers were randomised, and how many maps died and had no ranks.

    Example:
        >>> import torch
        >>> from probdl.viz import randomization_check
        >>> found = randomization_check(lambda model, x: x, torch.nn.Linear(9, 3), torch.randn(5, 9))
        >>> found.table
            layer  correlation  stderr
        0  output          1.0     0.0
    """

    def __init__(self, rows: dict[str, Tensor], notes: tuple[str, ...]):
        super().__init__({name: float(each.mean()) for name, each in rows.items()})
        self.stderr = {name: _stderr(each) for name, each in rows.items()}
        self.rows, self.notes = rows, notes

    @property
    def table(self) -> pd.DataFrame:
        """The correlations as a DataFrame with the columns layer, correlation and stderr."""
        import pandas as pd

        return pd.DataFrame({"layer": list(self), "correlation": self.values(), "stderr": self.stderr.values()})

    def plot(self, ax: Axes | None = None, label: str | None = None) -> Axes:
        """Draw the cascade from the top layer down, with bars of two standard errors."""
        ax = tidy(axes(ax, 6.0, 3.5))
        places, values = np.arange(len(self)), np.array(list(self.values()))
        ax.axhline(0.0, color="0.8", zorder=0)
        heights = 2 * np.nan_to_num(list(self.stderr.values()))
        lines = sum(hasattr(each, "has_yerr") for each in ax.containers)
        ax.errorbar(places, values, heights, marker="o", color=LINES[lines % len(LINES)], label=label)
        crowded = sum(map(len, self)) > 48
        ax.set_xticks(places, list(self), rotation=90 if crowded else 0)
        ax.set_xlabel("randomised from the top down to")
        ax.set_ylabel("rank correlation with the trained model's")
        if label is not None:
            ax.legend(frameon=False)
        return ax


def randomization_check(method: Method, model: nn.Module, x: Any, *, draws: int = 5, seed: int = 0) -> Randomization:
    r"""Return how much of a map survives when the layers of the model are randomised, from the output down.

    For the layers l = L, ..., 1 with parameters of their own the layers L, ..., l are drawn anew in a copy of the
    model, and

    .. math:: \rho_l = \frac{1}{n} \sum_i \mathrm{Spearman}\bigl(|m(x_i)|, |m_l(x_i)|\bigr)

    compares absolute values of the maps before and after, over all elements of the map of a row; it is averaged over
    draws of the weights. A map that explains the model has a correlation near 0 once the model is random; one that
    stays near 1 would have been the same for an untrained network, and explains the input.

    Args:
        method: a function of a model and x that returns maps, of shape (n, ...). Name the class, as in
            ``lambda model, x: saliency(model, x, classes)``: without it each model explains the class that it prefers.
        model: any torch module; it is copied. Its layers are taken in the reverse of the order in which they finish
            for x; one that is never called by itself is drawn with the module that holds it.
        x: inputs of shape (n, ...), converted to the dtype of the model.
        draws: how often the cascade is run, with weights of its own.
        seed: of the weights. A layer draws by its ``reset_parameters``, by which batch norm forgets its statistics
            too; where it has none, the entries of its parameters are permuted, and the notes say so.

    Returns:
        Randomization, a dict from the name of the layer to the correlation, in the order of the cascade.

    Raises:
        TypeError: if ``model`` is no module, ``method`` can not be called, ``x`` or the maps do not hold numbers, or
            ``seed`` is no integer.
        ValueError: for empty or infinite ``x`` or maps, maps without a row for each input or of fewer than 2 elements,
            a model without parameters, a map of the trained model that is constant, ``draws`` that is no positive
            integer, or a compiled or scripted model.

    Reference:
        Adebayo et al. (2018), Sanity checks for saliency maps.

    Example:
        >>> import torch
        >>> from probdl.viz import saliency
        >>> model = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
        >>> found = randomization_check(lambda model, x: x, model, torch.randn(5, 9))  # a map that is the input
        >>> dict(found)
        {'2': 1.0, '0': 1.0}
        >>> found.stderr["0"]
        0.0
    """
    _check(method, draws, seed)
    with unchanged(model) as seen:
        inputs = as_input(seen, x)
        names = cascade(seen, inputs)
        with seeded(seed, inputs.device):  # a method may draw, too
            seeds = torch.randint(2**62, (draws, len(names))).tolist()
            wanted = ranks(method(copy.deepcopy(seen), inputs.clone()), len(inputs))
            _check_ranks(wanted)
            found = [correlations(wanted, method, seen, inputs, dict(zip(names, row))) for row in seeds]
        rows = {name: torch.stack([each[name] for each in found]) for name in names}
        return Randomization(rows, _notes(seen, rows))


def _stderr(rows: Tensor) -> float:
    """Return the standard error of the mean of (draws, n), both taken as samples: a little too large, not too small."""
    if 1 in rows.shape:
        return math.nan
    return math.sqrt(sum(float(rows.mean(1 - dim).var()) / rows.shape[dim] for dim in (0, 1)))


def _notes(model: nn.Module, rows: dict[str, Tensor]) -> tuple[str, ...]:
    notes = ["Spearman's correlation of absolute values of the maps, the mean over rows and draws of the weights."]
    permuted = [name for name in rows if not initialises(layer_of(model, name))]
    if permuted:
        notes.append(f"Entries of parameters permuted, as there is no reset_parameters: {', '.join(permuted)}.")
    dead = sum(int((each == 0).sum()) for each in rows.values())
    if dead:
        notes.append(f"{dead} of the maps after randomising order nothing, as if constant: they count as 0.")
    return tuple(notes)


def _check(method: Any, draws: Any, seed: Any) -> None:
    if not callable(method):
        raise TypeError(f"method must be a function of a model and x; got {type(method).__name__}.")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws must be a positive integer; got {draws!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an integer; got {seed!r}.")


def _check_ranks(wanted: Tensor) -> None:
    """Raise where the map of the trained model has no ranks."""
    constant = (wanted == wanted[:, :1]).all(1).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"the maps of the model must vary within each row, or they have no ranks; constant in rows {constant[:9]}. "
            "Leave these rows out."
        )
