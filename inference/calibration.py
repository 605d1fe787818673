"""Simulation-based calibration: does a method find the posterior on average over the prior?"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.fitting import Method, fit
from probdl.inference.posteriors.ranks import Calibration, judge, ranks_of
from probdl.inference.programs.densities import is_drawn
from probdl.inference.programs.predictive import Source, run_forwards, seeded
from probdl.inference.programs.program import Program
from probdl.loops.progress import bar


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
                rows.append(ranks_of(truth, posterior, draws, ranking))
            except ConvergenceError as error:
                failures.append(error)
                _check_failures(failures, len(rows), simulations)
            ticks.update()
    return judge(torch.stack(rows), labels, draws, len(failures), len(warned))


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
    _check_generative(nodes)
    values = {name: site["value"] for name, site in nodes.items() if site["type"] == "sample"}
    data = {name: values[name] for name in source.observed if is_drawn(nodes[name])}
    assert source.model is not None
    model = source.model

    @functools.wraps(model)  # keeps the signature, which names the arguments in errors
    def conditioned(*args: Any, **kwargs: Any) -> Any:
        with poutine.condition(data=data):
            return model(*args, **kwargs)

    return values, conditioned


def _check_generative(nodes: dict[str, Any]) -> None:
    """Refuse a model with a factor that no simulation follows."""
    for name, site in nodes.items():
        if site["type"] == "sample" and isinstance(site["fn"], Unit):
            raise ValueError(
                f"Site {name!r} is a pyro.factor, which changes the posterior but not what is simulated. Write it as a "
                "pyro.sample with obs=."
            )


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
