"""``fit``: the one verb. A method is a value that knows how to run a program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from probdl.inference.choosing import Auto
from probdl.inference.coordinate_ascent import CoordinateAscent
from probdl.inference.expectation_propagation import ExpectationPropagation
from probdl.inference.full_rank import FullRank
from probdl.inference.laplace import Laplace
from probdl.inference.mean_field import MeanField
from probdl.inference.nuts import NUTS
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program
from probdl.inference.stochastic_vi import StochasticVI
from probdl.threads import one_thread


class Method(Protocol):
    """What ``fit`` asks of a method."""

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""


METHODS: dict[str, Callable[[], Method]] = {
    "auto": Auto,
    "cavi": CoordinateAscent,
    "ep": ExpectationPropagation,
    "fullrank": FullRank,
    "laplace": Laplace,
    "meanfield": MeanField,
    "nuts": NUTS,
    "svi": StochasticVI,
}


def fit(
    model: Callable,
    *args: Any,
    method: Method | str = "auto",
    seed: int = 0,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float64,
    progress: bool | None = None,
    **kwargs: Any,
) -> Posterior:
    r"""Return the posterior of an unmodified Pyro model, :math:`p(z \mid x) = p(x, z) / p(x)`.

    The program runs under a local default dtype and device, restored afterwards. NumPy and pandas arguments become
    tensors; integers stay integers, so that they can be used as indices, and are cast where a distribution needs
    floats.

    Args:
        model: a Pyro program whose observed sites have ``obs=``.
        args: its arguments, array-like or anything else that it takes.
        method: a value such as ``ExpectationPropagation()``, ``MeanField()`` or ``NUTS(draws=2000)``, or its short
            name: "cavi" (coordinate ascent), "ep", "fullrank", "laplace", "meanfield", "nuts" or "svi". "auto" takes
            expectation propagation where every factor is Gaussian or sees one or two affine projections of jointly
            Gaussian latents, else coordinate ascent where every factor is conjugate, else expectation propagation
            given up to three entries of other latents, else deterministic mean field, and stochastic VI where a plate
            draws a part of its rows; ``message`` says which and why.
        seed: of whatever the method draws; no global seed is changed.
        device: "auto" (the CPU), "cpu", "cuda" or a torch device.
        dtype: floating type of data and latents.
        progress: show a bar; None shows one when the error stream is a terminal.
        kwargs: the model's keyword arguments.

    Returns:
        A ``Posterior``.

    Raises:
        ValueError: for data that are empty, not finite, outside the support of their site, or of the wrong shape; a
            model without latent or observed sites; a model that the method does not fit.
        TypeError: for object or string arrays, or arguments that do not fit the model.
        ConvergenceError: where a result would be wrong.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> posterior = fit(model, torch.tensor([1.0, 2.0, 3.0]))
        >>> posterior.mean("mu"), posterior.sd("mu")
        (tensor(1.5000, dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """
    started = time.perf_counter()
    chosen = _method(method)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type such as torch.float64; got {dtype}.")
    read = getattr(chosen, "read", Program)  # a method may read its data in a way of its own, such as batch by batch
    program = read(model, args, kwargs, dtype=dtype, device=device)
    with one_thread(program.is_small()):
        posterior = chosen.run(program, seed=seed, progress=progress)
    if posterior.program is None:  # else one whose hyperparameters are held
        posterior.program = program
    posterior.seconds = time.perf_counter() - started
    return posterior


def _method(method: Method | str) -> Method:
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(map(repr, METHODS))} or a method value; got {method!r}."
            )
        return METHODS[method]()
    if isinstance(method, type) or not hasattr(method, "run"):
        name = method.__name__ if isinstance(method, type) else type(method).__name__
        raise TypeError(f"method must be a value such as ExpectationPropagation() or a short name; got {name}.")
    return method
