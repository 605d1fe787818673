"""Several methods on one model, beside a reference: accuracy, evidence, diagnostics and time in one table."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.comparing import compare_posteriors
from probdl.inference.fitting import Method, fit
from probdl.inference.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

_USABLE = 0.7  # k-hat below which importance sampling tells the evidence


@dataclass(frozen=True)
class MethodComparison:
    """What ``compare_methods`` found.

    Attributes:
        table: one row for each method, the reference last. seconds; mean_error and max_error, of the means in sds of
            the reference, average and largest over the entries of all sites; mc_error, the Monte Carlo standard error
            that such an error has, average over the entries; sd_ratio, average, with sd_ratio_min and sd_ratio_max;
            log_evidence (the bound of methods that have no more); evidence_gap, what it is above the evidence that is
            known best, and evidence_error, the standard error of the gap; khat; note, such as why a method failed.
        entries: for each method that ran, the table of ``compare_posteriors`` against the reference.
        posteriors: of the methods that ran, and of the reference.
        reference: the name of the reference's row.
        evidence: the evidence that the gaps are counted from, where it is known.
    """

    table: pd.DataFrame
    entries: dict[str, pd.DataFrame] = field(repr=False)
    posteriors: dict[str, Posterior] = field(repr=False)
    reference: str
    evidence: Estimate | None

    def __repr__(self) -> str:
        shown = self.table.drop(columns="note").map(lambda x: "" if x != x else f"{x:.4g}")
        notes = [f"{name}: {note}" for name, note in self.table["note"].items() if note]
        error = self.table.loc[self.reference, "mc_error"]
        known = "" if self.evidence is None else f" Gaps are to the log evidence {self.evidence!r}."
        said = f"Errors are in sds of {self.reference}, whose own Monte Carlo error is {error:.2g} sd.{known}"
        return "\n".join([shown.to_string(), said, *notes])

    def plot(self, ax: Any = None) -> Any:
        """Draw the errors of all entries: of means, in sds of the reference, and of sds, as ratios.

        Args:
            ax: two axes; None makes a figure. Grey bands show two Monte Carlo standard errors of the reference.

        Returns:
            The two axes.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            size = (9, 1.4 + 0.5 * len(self.entries))
            ax = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")[1]
        for axes, column, centre, label in zip(
            ax, ("shift", "ratio"), (0.0, 1.0), ("error of the mean / reference sd", "sd / reference sd")
        ):
            errors = [float(t[f"{column}_error"].mean()) for t in self.entries.values()]
            width = 2 * min(errors, default=0.0)
            axes.axvspan(centre - width, centre + width, color="0.9", zorder=0)
            axes.axvline(centre, color="0.6", lw=1, zorder=1)
            for i, table in enumerate(self.entries.values()):
                axes.plot(table[column], [i] * len(table), "o", ms=5, alpha=0.5, color=f"C{i}", mec="none")
            axes.set(xlabel=label, yticks=range(len(self.entries)), yticklabels=list(self.entries))
            axes.set_ylim(len(self.entries) - 0.5, -0.5)
        return ax


def compare_methods(
    model: Callable,
    data: Any,
    methods: Iterable[Method | str] | Mapping[str, Method | str] = ("ep", "laplace", "meanfield"),
    reference: Method | Posterior | str = "nuts",
    *,
    seed: int = 0,
    progress: bool | None = None,
    **settings: Any,
) -> MethodComparison:
    r"""Fit a model by several methods and set them beside a reference.

    For each entry z of each site, with mean m and standard deviation s under a method and :math:`m_r, s_r` under the
    reference, the error of the mean is :math:`|m - m_r| / s_r` and the sd ratio :math:`s / s_r`. The evidence is known
    best where a method has it exactly, else from Pareto-smoothed importance sampling with the approximation whose
    weights have the smallest error, if k-hat is below 0.7 there.

    Args:
        model: a Pyro program.
        data: its arguments: a tuple of positional ones, a dict of keyword ones, a pair (tuple, dict) of both, or one
            array.
        methods: short names or method values, such as "ep" or ``MeanField()``; a mapping gives them labels.
        reference: a name, a value, or a ``Posterior`` that was fitted before.
        seed: of all fits.
        progress: show bars; None shows them when the error stream is a terminal.
        settings: device and dtype, passed on to ``fit``.

    Returns:
        A ``MethodComparison``. A method that does not fit the model, or does not converge, is a row that says why. The
        times are those of the fits in turn, the reference's first; the first of a process pays for imports.

    Raises:
        ValueError: if the data do not fit the model, or there is no method.
        ConvergenceError: if the reference does not converge.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import NUTS
        >>> def model(y):
        ...     rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Poisson(rate), obs=y)
        >>> y = torch.tensor([3.0, 5.0, 4.0])
        >>> result = compare_methods(model, y, ["cavi", "laplace", "ep"], NUTS(draws=200, warmup=100, chains=2))
        >>> result.table.index.tolist()
        ['cavi', 'laplace', 'ep', 'nuts']
        >>> round(float(result.table.loc["laplace", "evidence_gap"]), 2)  # conjugate: coordinate ascent is exact
        -0.01
        >>> bool(result.table.loc["laplace", "max_error"] < 0.3)
        True
    """
    args, kwargs = _arguments(data)
    chosen = _labelled(methods)
    shared = {"seed": seed, "progress": progress, **settings}
    name, known = _reference(reference, lambda method: fit(model, *args, method=method, **shared, **kwargs))
    posteriors, notes = {}, {}
    for label, method in chosen.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                posteriors[label] = fit(model, *args, method=method, **shared, **kwargs)
                notes[label] = " ".join(str(w.message) for w in caught if w.category is ConvergenceWarning)
            except (ValueError, ConvergenceError) as reason:  # the data are sound: the reference has seen them
                notes[label] = f"failed: {reason}"
    return _compared(chosen, posteriors, notes, name, known)


def _arguments(data: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(data, dict):
        return (), data
    if not isinstance(data, tuple):
        return (data,), {}
    if len(data) == 2 and isinstance(data[0], tuple) and isinstance(data[1], dict):
        return data
    return data, {}


def _labelled(methods: Any) -> dict[str, Any]:
    """Give every method a label: the name it has here, its short name, or its class, numbered where it comes twice."""
    if isinstance(methods, str) or hasattr(methods, "run"):
        raise TypeError(f"methods must be a list such as ['ep', 'laplace']; got {methods!r} alone.")
    if isinstance(methods, Mapping):
        chosen = dict(methods)
    else:
        chosen = {}
        for method in methods:
            label = name = method if isinstance(method, str) else type(method).__name__
            count = 1
            while label in chosen:
                count += 1
                label = f"{name} {count}"
            chosen[label] = method
    if not chosen:
        raise ValueError("methods must name at least one method, such as ['ep', 'laplace']; got none.")
    return chosen


def _reference(reference: Any, run: Callable[[Any], Posterior]) -> tuple[str, Posterior]:
    if isinstance(reference, Posterior):
        return reference.method, reference
    return (reference if isinstance(reference, str) else type(reference).__name__.lower()), run(reference)


def _compared(
    chosen: dict[str, Any], posteriors: dict[str, Posterior], notes: dict[str, str], name: str, known: Posterior
) -> MethodComparison:
    import pandas as pd

    while name in chosen:
        name = f"{name} (reference)"
    entries = {label: compare_posteriors(p, known) for label, p in posteriors.items()}
    checks = {label: _checked(p) for label, p in posteriors.items()}
    evidence = _best_evidence([*posteriors.values(), known], [c for _, c in checks.values() if c is not None])
    rows = {}
    for label in chosen:
        row = {}
        if label in posteriors:
            row = _accuracy(entries[label]) | _evidence(posteriors[label], evidence)
            row |= {"seconds": posteriors[label].seconds, "khat": checks[label][0]}
        rows[label] = row | {"note": notes[label]}
    itself = compare_posteriors(known, known)
    own = (itself["shift_error"] / math.sqrt(2)).mean()
    rows[name] = {"seconds": known.seconds, "mc_error": own, "note": ""} | _evidence(known, evidence)
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=_COLUMNS)
    table["note"] = table["note"].fillna("")
    return MethodComparison(table, entries, posteriors | {name: known}, name, evidence)


_COLUMNS = [
    "seconds", "mean_error", "max_error", "mc_error", "sd_ratio", "sd_ratio_min", "sd_ratio_max", "log_evidence",
    "evidence_gap", "evidence_error", "khat", "note",
]  # fmt: skip


def _accuracy(table: pd.DataFrame) -> dict[str, float]:
    shift, ratio = table["shift"].abs(), table["ratio"]
    return {
        "mean_error": shift.mean(),
        "max_error": shift.max(),
        "mc_error": table["shift_error"].mean(),
        "sd_ratio": ratio.mean(),
        "sd_ratio_min": ratio.min(),
        "sd_ratio_max": ratio.max(),
    }


def _checked(p: Posterior) -> tuple[float, Estimate | None]:
    """Return k-hat, and the evidence that importance sampling with this approximation gives, where it can be used."""
    if p.approximation.is_sampled:
        return math.nan, None
    try:
        check = p.check()
    except ValueError:
        return math.nan, None
    khat = math.nan if check.khat is None else check.khat
    return khat, check.log_evidence if khat < _USABLE else None


def _best_evidence(posteriors: list[Posterior], sampled: list[Estimate]) -> Estimate | None:
    exact = [p.log_evidence for p in posteriors if p.log_evidence is not None and p.log_evidence.stderr == 0.0]
    found = exact or [e for e in sampled if e.stderr is not None]
    return min(found, key=lambda e: float(e.stderr or 0.0), default=None)


def _evidence(p: Posterior, best: Estimate | None) -> dict[str, float]:
    own = p.log_evidence if p.log_evidence is not None else p.elbo
    if own is None:
        return {}
    row = {"log_evidence": float(own)}
    if best is not None:
        row["evidence_gap"] = float(own) - float(best)
        row["evidence_error"] = math.hypot(float(own.stderr or 0.0), float(best.stderr or 0.0))
    return row
