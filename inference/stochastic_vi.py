r"""Stochastic variational inference: batches of rows, and a stop that is not guessed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.amortised import Amortised
from probdl.inference.batch_density import BatchDensity
from probdl.inference.curvature import FULL, Curvature, average_curvature, flat_start, pilot_mode
from probdl.inference.gaussian import GaussianApproximation
from probdl.inference.linear_response_gaussian import LinearResponseGaussian
from probdl.inference.minibatches import RowSource
from probdl.inference.parameters import Scoped, has_parameters
from probdl.inference.posterior import Posterior
from probdl.inference.program import Program
from probdl.inference.row_plates import local_sites, source_of
from probdl.inference.stochastic_loop import Loop
from probdl.inference.stochastic_steps import MeanFieldSteps
from probdl.inference.streams import RowsOfStream, Stream, arguments_of, looks_like_batches
from probdl.loops.progress import bar
from probdl.loops.threads import one_thread

_PAIRS = 4  # antithetic pairs of draws a step: on a recorded batch they cost little more than one
_NEWTON = 6  # passes at most to bring the anchor near the mode
_BOUND_PAIRS = 32
_NARROW = 1.2  # ratio of the linear-response sd to the sd from which it is said
ROWS_OF_NETWORK = 128  # rows in a batch for a guide, where none are asked for
_CHEAP = 1e8  # and up to which it is averaged over q
_RESPONSE = 4e9  # multiplications up to which the curvature for linear response is taken over all rows


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
            with ``guide``, the predicted gain of the bound per row at which it stops is tolerance² per latent.
        max_steps: where it gives up, with a warning.

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

    def __post_init__(self) -> None:
        for name in ("batch_size", "size", "max_steps"):
            value = getattr(self, name)
            if value is None and name != "max_steps":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer; got {value!r}.")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1 posterior sd; got {self.tolerance!r}.")
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
            posterior = _GlobalFit(self, source, notes, seed, progress, started).posterior()
        if stream is not None:  # the program holds one batch: nobody may take it for all rows
            program.subsampled = {source.plates[0]: (source.n, source.batch_size)}
        return posterior


def _is_narrow(program: Program) -> bool:
    """Whether batches are so small that more than one thread costs more than it brings; beside other jobs, far more."""
    tensors = [x for x in (*program.args, *program.kwargs.values()) if isinstance(x, torch.Tensor) and x.ndim]
    return program.dim < FULL and max([x.numel() / len(x) for x in tensors], default=0.0) < 300


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


class _GlobalFit:
    """A fit of latents that all rows share."""

    def __init__(
        self,
        method: StochasticVI,
        source: RowSource,
        notes: tuple[str, ...],
        seed: int,
        progress: bool | None,
        started: float,
    ) -> None:
        self.method, self.source, self.program, self.progress = method, source, source.program, progress
        self.notes, self.started, self.seed = notes, started, seed
        self.density = BatchDensity(source)
        self.generator = torch.Generator().manual_seed(seed)

    def posterior(self) -> Posterior:
        """Run the stages, and return what they found."""
        import pandas as pd

        self.pilot = self.source.pilot(max(2000, 20 * self.program.dim), self.generator)
        start = self._start()
        self.steps = MeanFieldSteps(self.density, *start, self.generator, _PAIRS if self.density.runs_fast else 1)
        self.steps.seen = sum(batch.size for batch in self.pilot)
        if self.source.can_pass:
            self._approach()
        loop = self._loop()
        bound = self._bound(loop)
        notes = (*self.program.notes, *self.notes, *self.density.notes, *self._narrow())
        message = " ".join([self._said(loop), *(f"Note: {note}." for note in notes)])
        if loop.reason:
            warnings.warn(f"StochasticVI stopped early: {message}", ConvergenceWarning, stacklevel=4)
        return Posterior(
            method="svi",
            approximation=self._approximation(),
            converged=not loop.reason,
            message=message,
            seconds=time.perf_counter() - self.started,
            history=pd.DataFrame(loop.rows),
            elbo=bound,
            notes=notes,
        )

    def _start(self) -> tuple[torch.Tensor, Curvature]:
        """The mode on the pilot; where there is none, the prior means with the size of the gradients there."""
        try:
            return pilot_mode(self.density, self.pilot)
        except ConvergenceError as reason:
            for batch in self.pilot:
                self.density.check_finite(self.program.start, batch, "At the start")
            self.notes += (f"it started at the prior means, since the pilot has no mode: {reason}",)
            return flat_start(self.density, self.pilot)

    def _approach(self) -> None:
        """Bring the anchor near the mode by Newton steps with the pilot's curvature, a pass over the rows each."""
        far = self.steps.drop_anchor()
        for _ in range(_NEWTON):
            if far < 0.3:
                break
            before, last = self.steps.anchor, far
            self.steps.mean = before.z + self.steps.curvature.solve(before.gradient)
            far = self.steps.drop_anchor()
            if not self.steps.anchor.value > before.value or far > last:
                self.steps.anchor, self.steps.mean = before, before.z.clone()
                break

    def _loop(self) -> Loop:
        with bar(self.method.max_steps, self.progress, "SVI") as shown:
            loop = Loop(self.steps, self.method.tolerance, self.method.max_steps, lambda n, text: shown.update(n))
            loop.run(self._refresh)
        return loop

    def _numbers_a_row(self) -> float:
        return self.program.width() / self.source.n if self.source.plates else self.program.width()

    def _refresh(self) -> None:
        """Anchor and curvature at the present average."""
        if self.source.can_pass:
            self.steps.drop_anchor()
        if self.steps.curvature.root is not None:
            points = self.steps.mean + self.steps.sd * self.steps.noise(4 if self.program.dim <= 100 else 1)
            self.steps.curvature = average_curvature(self.density, self.pilot, points)

    def _bound(self, loop: Loop) -> Estimate:
        """The bound: from draws and a pass over all rows, or from the last stage where no pass is possible."""
        how: dict[str, Any] = {"target": "lower bound", "method": "monte carlo"}
        if self.source.can_pass:
            self.steps.drop_anchor()
            value, error = self.steps.bound_with_error(_BOUND_PAIRS)
            return Estimate(value, error, n=2 * _BOUND_PAIRS, **how)
        last = torch.tensor(loop.bounds[-max(200, len(loop.bounds) // 2) :])
        return Estimate(float(last.mean()), float(last.std() / len(last) ** 0.5), n=len(last), **how)

    def _approximation(self) -> GaussianApproximation:
        """The Gaussian, with linear response where the curvature is a full matrix."""
        mean, covariance = self.steps.mean, self.steps.sd.square().diag()
        if self.steps.curvature.root is None:
            return GaussianApproximation(self.program.latents, mean, covariance)
        response = GaussianApproximation(self.program.latents, mean, self.response)
        sds = {name: response.sd(name) for name in self.program.latents}
        return LinearResponseGaussian(self.program.latents, mean, covariance, self.response, sds)

    def _narrow(self) -> tuple[str, ...]:
        """Take the curvature at the end; say where the approximation is much narrower than it allows."""
        if self.steps.curvature.root is None:
            return (f"there are more than {FULL} latents, so that the curvature is diagonal and sd_lr is left out",)
        self.response = self._last_curvature().inverse()
        ratio = self.response.diagonal().sqrt() / self.steps.sd
        worst = int(ratio.argmax())
        if float(ratio[worst]) <= _NARROW:
            return ()
        return (
            "the approximation is too narrow, as mean field is where latents are correlated: at site "
            f"{self.program.site_at(worst)!r} the linear-response sd is {float(ratio[worst]):.2g} times its sd; read "
            "sd_lr in summary()",
        )

    def _last_curvature(self) -> Curvature:
        """Over all rows where that is cheap and possible, else over the pilot; over q where that is cheap too."""
        cost = self._numbers_a_row() * self.source.n * self.program.dim
        if not self.source.can_pass or cost > _RESPONSE:
            return self.steps.curvature
        draws = self.steps.noise(4) if 8 * cost < _CHEAP else torch.zeros_like(self.steps.mean)[None]
        points = self.steps.mean + self.steps.sd * draws
        return Curvature.full(-torch.stack([self.density.hessian(z, self.source.whole()) for z in points]).mean(0))

    def _said(self, loop: Loop) -> str:
        rows = f"batches of {self.source.batch_size} of {self.source.n} rows" if self.source.plates else "all rows"
        if not self.source.can_repeat:
            end = f"{loop.reason}. " if loop.reason else ""
            return (
                f"Stochastic VI took {loop.step} steps of size 1/t on {rows} that could be read only once. {end}The "
                "error of its result is not known; pass a function that returns a fresh iterable, and it will be."
            )
        error = loop.stages[-1].error if loop.stages else float("nan")
        known = f"the average is known to {error:.1g} posterior sd (rms)"
        if loop.reason:
            state = known if loop.stages else "no stage became stationary, so that its error is not known"
            return f"Stochastic VI on {rows} stopped before its tolerance: {loop.reason}; {state}."
        return (
            f"Stochastic VI on {rows} took {loop.step} steps in {len(loop.stages)} stages and stopped since {known} "
            f"and smaller steps would move it by {loop.predicted:.1g}, together below the tolerance {loop.tolerance:g}."
        )
