"""``method="auto"``: which method fits a program, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probdl.errors import ConvergenceError
from probdl.inference.coordinate_ascent import CoordinateAscent
from probdl.inference.expectation_propagation import ExpectationPropagation
from probdl.inference.mean_field import MeanField
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program
from probdl.inference.propagation.factors import NotApplicable, latents_outside
from probdl.inference.stochastic_vi import StochasticVI

_MOST_DENSE = 2000  # latents of a dense Gaussian


class Auto:
    """Expectation propagation, coordinate ascent, or deterministic mean field: the first that fits and converges.

    Where some latents are not Gaussian given the others, coordinate ascent on a conjugate model comes before
    expectation propagation, which holds these on a grid.

    Plates that draw a part of their rows leave only stochastic VI.
    """

    def read(self, model: Callable, args: tuple, kwargs: dict[str, Any], **where: Any) -> Program:
        """Return the program, as stochastic VI reads it where it needs that."""
        program = Program(model, args, kwargs, **where)
        return StochasticVI().read(model, args, kwargs, **where) if program.subsampled else program

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior by the method that was chosen, with the choice in its message."""
        if program.subsampled:
            posterior = StochasticVI().run(program, seed, progress)
            plates = ", ".join(program.subsampled)
            return _saying(posterior, f"since the plate {plates} draws a part of its rows", [])
        reasons: list[str] = []
        outside = self._outside(program, reasons)
        if outside == () and (found := self._propagated(program, seed, progress, reasons)) is not None:
            because = "since every factor is Gaussian or sees one or two affine projections of the latents"
            return _saying(found, because, [])
        try:
            posterior = CoordinateAscent(conjugate_only=True).run(program, seed, progress)
            return _saying(posterior, "since every factor is conjugate", reasons)
        except (NotApplicable, ConvergenceError) as reason:
            reasons.append(str(reason))
        if outside and (found := self._propagated(program, seed, progress, reasons)) is not None:
            because = f"since every factor sees one or two affine projections of the latents given {', '.join(outside)}"
            return _saying(found, because, [])
        return _saying(MeanField().run(program, seed, progress), "which takes any latents", reasons)

    def _outside(self, program: Program, reasons: list[str]) -> tuple[str, ...] | None:
        """The latents that expectation propagation would hold outside; None where it does not apply."""
        if program.discrete:
            reasons.append("Expectation propagation needs continuous latents.")
        elif program.dim > _MOST_DENSE:
            reasons.append(f"Expectation propagation holds a dense Gaussian, too large for {program.dim} latents.")
        else:
            try:
                outside = latents_outside(program)
            except NotApplicable as reason:
                reasons.append(str(reason))
                return None
            if outside:
                names = ", ".join(map(repr, outside))
                reasons.append(f"Expectation propagation (method='ep') would hold {names} on a grid outside.")
            return outside
        return None

    def _propagated(self, program: Program, seed: int, progress: bool | None, reasons: list[str]) -> Posterior | None:
        try:
            return ExpectationPropagation().run(program, seed, progress)
        except (NotApplicable, ConvergenceError) as reason:
            reasons.append(str(reason))
            return None


def _saying(posterior: Posterior, because: str, reasons: list[str]) -> Posterior:
    """Put the choice before the message, and after it what spoke against the methods tried first."""
    before = f" Before it: {' '.join(reasons)}" if reasons else ""
    posterior.message = f"Chose {posterior.method}, {because}. {posterior.message}{before}"
    return posterior
