"""Simulation-based calibration: does a method find the posterior on average over the prior?"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.fitting import Method, fit
from probdl.inference.posterior import Posterior
from probdl.inference.predictive import Source, run_forwards, seeded
from probdl.inference.program import Program
from probdl.loops.progress import bar

if TYPE_CHECKING:
    import pandas as pd

FALSE_ALARMS = 0.01  # of the test of all entries together


@dataclass(frozen=True)
class Calibration:
    """What ``simulation_based_calibration`` found.

    Attributes:
        ranks: one row for each simulation, one column for each entry: how many of the posterior's draws lie below the
            value that the data were simulated from, from 0 to ``draws``.
        table: one row for each entry: z, the mean rank's distance from its middle in standard errors (above 0: the
            posterior is too low); spread, the ranks' sd over that of uniform ones (above 1: too narrow, below 1: too
            wide); p, of a chi-squared test that the ranks are uniform.
        draws: how many posterior draws each value was ranked among.
        calibrated: whether no p is below ``false_alarms`` over the number of entries (Bonferroni): a method that is
            exact fails with a probability of at most ``false_alarms``.
        false_alarms: that probability.
        failures: simulations that the method refused or did not converge on; they are left out.
        message: all of this in a sentence.
    """

    ranks: pd.DataFrame = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    draws: int
    calibrated: bool
    false_alarms: float
    failures: int
    message: str

    def __repr__(self) -> str:
        return self.message

    def plot(self, names: list[str] | None = None, ax: Any = None) -> Any:
        """Draw a histogram of the ranks of each entry, with the band that holds 99 % of the bars of uniform ranks.

        Args:
            names: entries to draw, such as ``w[0]``; None draws all.
            ax: where to draw; None makes a figure with a panel for each.
        """
        from probdl.viz import rank_histograms

        chosen = {name: self.ranks[name].to_numpy() for name in names or self.ranks}
        return rank_histograms(chosen, self.draws, ax=ax)


def simulation_based_calibration(
    model: Callable,
    *args: Any,
    method: Method | str = "auto",
    simulations: int = 100,
    draws: int = 99,
    seed: int = 0,
    observed: tuple[str, ...] | None = None,
    dtype: torch.dtype = torch.float64,
    progress: bool | None = None,
    **kwargs: Any,
) -> Calibration:
    r"""Test a method on data simulated from the model itself.

    Latents are drawn from the prior and data from the model; the method is fitted to the data, and each latent is
    ranked among draws of its posterior. Where the method is exact, the ranks are uniform on 0, …, ``draws``.

    Args:
        model: the Pyro program.
        args: its arguments, which fix covariates and sizes; observations among them are replaced.
        method: as in ``fit``.
        simulations: how many fits.
        draws: of each posterior; a sampler's are thinned to as many.
        seed: of the simulations and fits.
        observed: sites to simulate data for; None takes those that the arguments give observations for.
        dtype: floating type of data and latents.
        progress: show a bar; None shows one when the error stream is a terminal.
        kwargs: the model's keyword arguments.

    Returns:
        A ``Calibration``: ranks, a table with a test for each entry, and ``plot``. Draws of a sampler that are
        correlated widen the ranks' spread: let it keep some five times ``draws``.

    Raises:
        ValueError: if no site is observed, ``simulations`` is below 10 or ``draws`` below 9.
        ConvergenceError: if the method failed on half of the simulations.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> simulation_based_calibration(model, torch.zeros(3), method="ep", simulations=50).calibrated
        True
    """
    if simulations < 10 or draws < 9:
        raise ValueError(f"simulations must be at least 10 and draws 9; got {simulations} and {draws}.")
    source, tensors = _source(model, args, kwargs, observed, dtype)
    seeds = torch.randint(2**31, (simulations, 3), generator=torch.Generator().manual_seed(seed)).tolist()
    rows: list[Tensor] = []
    labels: list[str] = []
    failures: list[ConvergenceError] = []
    warned: list[str] = []
    with bar(simulations, progress, "simulations") as ticks:
        for simulating, fitting, ranking in seeds:
            truth, conditioned = _simulate(source, *tensors, simulating)
            try:
                with _counted(warned):
                    posterior = fit(
                        conditioned, *args, method=method, seed=fitting, dtype=dtype, progress=False, **kwargs
                    )
                labels = [entry for name in posterior.approximation.tabled for entry in posterior.entries(name)]
                rows.append(_ranks(posterior, truth, draws, ranking))
            except ConvergenceError as error:
                failures.append(error)
                _check_failures(failures, len(rows), simulations)
            ticks.update()
    return _result(torch.stack(rows), labels, draws, len(failures), len(warned))


def _source(
    model: Callable, args: tuple, kwargs: dict[str, Any], observed: tuple[str, ...] | None, dtype: torch.dtype
) -> tuple[Source, tuple[tuple, dict[str, Any]]]:
    """Return the model and its arguments as tensors."""
    if observed is None:
        try:
            program = Program(model, args, kwargs, dtype=dtype)
        except ValueError as error:
            raise ValueError(
                f"{error} Or pass observed=('y',) to name the sites that data are simulated for."
            ) from error
        return Source.of(program), (program.args, program.kwargs)
    source = Source(model, tuple(observed), (), dtype, torch.device("cpu"))
    args, kwargs = source.tensors(args, kwargs)
    with seeded(0, source.device):
        nodes = run_forwards(source, args, kwargs, {}).nodes
    missing = [name for name in source.observed if name not in nodes]
    if missing:
        raise ValueError(f"observed must name sites of the model; {', '.join(missing)} is none of {', '.join(nodes)}.")
    return source, (args, kwargs)


def _simulate(source: Source, args: tuple, kwargs: dict[str, Any], seed: int) -> tuple[dict[str, Tensor], Callable]:
    """Return the values of all sites in a run forwards, and the model with that run's data as observations."""
    with seeded(seed, source.device):
        nodes = run_forwards(source, args, kwargs, {}).nodes
    values = {name: site["value"] for name, site in nodes.items() if site["type"] == "sample"}
    data = {name: values[name] for name in source.observed}
    assert source.model is not None
    model = source.model

    @functools.wraps(model)  # keeps the signature, which names the arguments in errors
    def conditioned(*args: Any, **kwargs: Any) -> Any:
        with poutine.condition(data=data):
            return model(*args, **kwargs)

    return values, conditioned


@contextmanager
def _counted(warned: list[str]) -> Iterator[None]:
    """Collect the warnings of imprecise fits, one an item; all others pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    imprecise = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    warned += [str(w.message) for w in imprecise[:1]]
    for w in caught:
        if w not in imprecise:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def _check_failures(failures: list[ConvergenceError], succeeded: int, simulations: int) -> None:
    if 2 * len(failures) > simulations or (succeeded == 0 and len(failures) == 5):
        raise ConvergenceError(
            f"The method failed on {len(failures)} of {len(failures) + succeeded} simulated data sets, the last time "
            f"because: {failures[-1]} Give the model priors from which plausible data come."
        ) from failures[-1]


def _ranks(posterior: Posterior, truth: dict[str, Tensor], n: int, seed: int) -> Tensor:
    """The rank of each entry's true value among n draws, (entries,); ties, as of integers, are broken at random."""
    draws = posterior.draws(n, seed=seed)
    names = posterior.approximation.tabled
    x = torch.cat([draws[name].cpu().double().reshape(n, -1) for name in names], 1)
    true = torch.cat([truth[name].cpu().double().reshape(-1) for name in names])
    below, ties = (x < true).sum(0), (x == true).sum(0)
    u = torch.rand(len(true), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return below + (u * (ties + 1)).floor().long()


def _result(ranks: Tensor, labels: list[str], draws: int, failures: int, warned: int) -> Calibration:
    import pandas as pd

    table = pd.DataFrame([_tested(column, draws) for column in ranks.T], index=labels)
    limit = FALSE_ALARMS / len(labels)
    calibrated = bool((table["p"] >= limit).all())
    message = _message(table, limit, len(ranks), failures, warned)
    frame = pd.DataFrame(ranks.numpy(), columns=labels)
    return Calibration(frame, table, draws, calibrated, FALSE_ALARMS, failures, message)


def _tested(ranks: Tensor, draws: int) -> dict[str, float]:
    """Compare ranks with the uniform law on 0, …, draws, whose variance is draws·(draws + 2)/12."""
    from scipy.stats import chisquare

    n, variance = len(ranks), draws * (draws + 2) / 12
    bins = min(10, max(2, n // 10))
    of_rank = torch.arange(draws + 1) * bins // (draws + 1)
    expected = torch.bincount(of_rank, minlength=bins).double() * n / (draws + 1)
    found = torch.bincount(of_rank[ranks], minlength=bins)
    x = ranks.double()
    return {
        "z": float((x.mean() - draws / 2) / math.sqrt(variance / n)),
        "spread": float(x.std() / math.sqrt(variance)),
        "p": float(chisquare(found.numpy(), expected.numpy()).pvalue),
    }


def _message(table: pd.DataFrame, limit: float, n: int, failures: int, warned: int) -> str:
    left_out = f" {failures} more failed and are left out, which can hide an error." if failures else ""
    left_out += f" In {warned} the method warned that it is imprecise." if warned else ""
    wrong = table[table["p"] < limit]
    if wrong.empty:
        return (
            f"{n} simulations: the ranks of all {len(table)} entries could be uniform (smallest p "
            f"{table['p'].min():.2g}; an exact method fails this test with probability {FALSE_ALARMS:g}).{left_out}"
        )
    worst = wrong.sort_values("p").iloc[0]
    tail = "too narrow" if worst["spread"] > 1 else "too wide"
    shift = "" if abs(worst["z"]) < 3 else f", and too {'low' if worst['z'] > 0 else 'high'}"
    return (
        f"{n} simulations: the ranks of {', '.join(wrong.index)} are not uniform (p {worst['p']:.2g}, where an exact "
        f"method falls below {limit:.2g} with that probability); the posterior of {wrong['p'].idxmin()} is {tail}"
        f"{shift}.{left_out}"
    )
