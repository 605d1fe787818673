r"""Stochastic variational inference: batches of rows, and a stop that is not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.amortised import Amortised
from probdl.inference.stochastic.curvature import FULL
from probdl.inference.stochastic.global_fit import GlobalFit, numbers_a_row
from probdl.inference.stochastic.minibatches import RowSource
from probdl.inference.stochastic.parameters import Scoped, has_parameters
from probdl.inference.stochastic.row_plates import local_sites, source_of
from probdl.inference.stochastic.streams import RowsOfStream, Stream, arguments_of, looks_like_batches
from probdl.threads import one_thread

ROWS_OF_NETWORK = 128  # rows in a batch for a guide, where none are asked for


@dataclass(frozen=True)
class StochasticVI:
    r"""Variational inference on minibatches, for data or networks that are too big for the other methods.

    .. math:: \max_φ\; E_{q(z; φ)}\Big[\log p(z) + \frac nm \sum_{i \in B} \log p(x_i \mid z)\Big] - E_q \log q(z; φ)

    with a random batch B of m of the n rows in each step. Without ``guide``, q is a mean-field Gaussian on
    unconstrained space. It starts at the mode on a pilot of the rows, with the curvature there, which makes steps
    unitless: no learning rate is asked for. Reparameterised gradients are taken on antithetic draws; the gradient at an
    anchor, which a pass over all rows gives exactly, and a quadratic are taken away from them as control variates, so
    that their noise is small even where n is large. At a fixed step size the iterates are run until they are stationary
    and their average is known well enough; then the step size is halved, until the error of the average and the change
    that still smaller steps would bring are below the tolerance.

    Rows are drawn through a plate of the model:

    - ``pyro.plate("rows", n, subsample_size=m)`` in the model is used as it stands;
    - with a full plate whose size is the first dimension of data arguments, the model is run on rows of these, once it
      is checked that the log-densities of parts of the rows add up to that of all;
    - for data that do not fit in memory, ``fit(model, batches, method=StochasticVI(size=n))`` takes an iterable of
      batches of the model's arguments (a list, a DataLoader, a function that returns a generator), in random order.

    A latent with a value for each row needs ``guide``. Parameters in the model (``pyro.param``, ``pyro.module``) are
    optimised along.

    Args:
        batch_size: rows in a batch; None takes 512, or twice the number of latents, where there are at least 5000 rows
            and it is safe, or else all rows.
        size: the number of rows in all, where ``fit`` is given an iterable of batches.
        guide: for latents with a value for each row: a network that maps the rows of the first data argument (of
            several, if its forward takes several) to mean and raw scale, (m, 2k), scale = softplus(raw), of the
            latent's k entries on unconstrained space; a dict of such networks by site; or a Pyro guide. It is trained
            in place.
        plate: the plate over the rows, where several might be meant.
        tolerance: root mean square error of means and log-sds from their optimum at which it stops, in posterior sd;
            with ``guide``, the gain of a stage at which it stops is tolerance² nats for each latent of a row, or a
            small share of all that was gained.
        max_steps: where it gives up, with a warning.
        start: a posterior of the same sites to start from, such as one of last month's data; not with ``guide``.

    Raises:
        ValueError: for a batch size or plate that does not fit the data, rows that cannot be taken apart, an empty
            iterable or one of another size than it says, a latent for each row without ``guide``.
        ConvergenceError: if the density is not finite or the steps do not settle; it names the site and the step.

    Warns:
        ConvergenceWarning: if it stops before the tolerance is met: max_steps, an iterable that ends, Ctrl-C. What was
            learned is kept.

    Source: Hoffman, Blei, Wang & Paisley (2013), *Stochastic variational inference*; Johnson & Zhang (2013) for the
    anchor; Miller et al. (2017), *Reducing reparameterization gradient variance*; Dhaka et al. (2020) and Welandawe
    et al. (2022) for the stopping rule.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> y = torch.linspace(-1, 3, 10_000)
        >>> posterior = fit(model, y, method=StochasticVI(batch_size=100))
        >>> posterior.mean("mu"), posterior.sd("mu")  # exactly 1 and 0.01
        (tensor(1.0000, dtype=torch.float64), tensor(0.0100, dtype=torch.float64))
    """

    batch_size: int | None = None
    size: int | None = None
    guide: nn.Module | dict[str, nn.Module] | Callable | None = None
    plate: str | None = None
    tolerance: float = 0.02
    max_steps: int = 20_000
    start: Posterior | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "size", "max_steps"):
            value = getattr(self, name)
            if value is None and name != "max_steps":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer; got {value!r}.")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1 posterior sd; got {self.tolerance!r}.")
        if self.start is not None and self.guide is not None:
            raise ValueError("start= is for latents that all rows share; a guide starts at the parameters that it has.")
        if self.size is not None and self.batch_size is not None:
            raise ValueError(
                "size= says that fit is given batches, which have a size of their own: leave batch_size out."
            )

    def read(self, model: Callable, args: tuple, kwargs: dict[str, Any], **where: Any) -> Program:
        """Return the program on its data, or on the first batch of an iterable; its parameters are its own."""
        scope = Scoped()
        if self.size is None:
            if looks_like_batches(args, kwargs):
                raise ValueError(
                    "fit was given an iterable of batches: say how many rows there are, StochasticVI(size=n)."
                )
            with scope:
                program = Program(model, args, kwargs, **where)
            program.scope, program.stream = scope, None  # type: ignore[attr-defined]
            return program
        if len(args) != 1 or kwargs:
            raise TypeError(f"With size=, pass fit one iterable of batches; got {len(args) + len(kwargs)} arguments.")
        stream = Stream(args[0], self.size)
        with scope:
            program = Program(model, *arguments_of(stream.first), **where)
        program.scope, program.stream = scope, stream  # type: ignore[attr-defined]
        return program

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        scope = getattr(program, "scope", None) or Scoped()
        with scope, one_thread(_is_narrow(program) and not self._learns(program)):
            posterior = self._run(program, seed, progress)
        if has_parameters(program):
            program.model = scope.wrap(program.model)
        return posterior

    def _learns(self, program: Program) -> bool:
        return self.guide is not None or has_parameters(program)

    def _run(self, program: Program, seed: int, progress: bool | None) -> Posterior:
        started = time.perf_counter()
        learns = self._learns(program)
        stream = getattr(program, "stream", None)
        if program.discrete and not learns:
            _sum_out_discrete(program)
        if stream is None:
            source, notes = source_of(program, self.batch_size, self.plate, ROWS_OF_NETWORK if learns else None)
        else:
            source, notes = RowsOfStream(program, stream), ()
        if learns:
            posterior = Amortised(self, source, notes, seed, progress, started).posterior()
        else:
            _refuse_local(program, source)
            settings = (self.tolerance, self.max_steps, seed, progress, started)
            posterior = GlobalFit(source, notes, *settings, start=self.start).posterior()
        if stream is not None:  # the program holds one batch: nobody may take it for all rows
            program.subsampled = {source.plates[0]: (source.n, source.batch_size)}
        return posterior


def _is_narrow(program: Program) -> bool:
    """Whether batches are so small that more than one thread costs more than it brings; beside other jobs, far more."""
    return program.dim < FULL and numbers_a_row(program) < 300


def _sum_out_discrete(program: Program) -> None:
    if program.subsampled:
        raise ValueError(
            f"The discrete sites {', '.join(program.discrete)} can be summed out of batches only with a full plate: "
            "leave subsample_size out, index no rows, and pass batch_size=."
        )
    program.sum_out_discrete()


def _refuse_local(program: Program, source: RowSource) -> None:
    local = local_sites(program, source.plates) if source.plates else ()
    if local:
        raise ValueError(
            f"The latent site {local[0]!r} has a value for each row of plate {source.plates[0]!r}, which batches can "
            "only learn through a network: pass guide=network (rows → mean and raw scale), or use method='meanfield' "
            "with all rows."
        )
