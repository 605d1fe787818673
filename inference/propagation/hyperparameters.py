"""Hyperparameters at the maximum of the log evidence: type-II maximum likelihood, or with a prior, type-II MAP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.hyperparameters import held_at, parameters_of, with_parameters_as_sites
from probdl.inference.programs.program import Program
from probdl.inference.propagation.evidence import Evidence
from probdl.inference.propagation.factors import Factors, NotApplicable, latents_outside
from probdl.inference.propagation.solving import Attempt, Solution

_MOST_ERRORS = 20  # hyperparameters whose curvature is taken by differences
_FAR = 1e10  # stands for the loss where there is no fixed point


@dataclass(frozen=True)
class Optimum:
    """The program with its hyperparameters held at the maximum.

    Attributes:
        program: without them.
        values: theirs, in their own spaces.
        errors: their standard errors from the curvature of the log evidence; None where it is not a maximum.
        solution: the fixed point there.
        sentence: what was optimised, and where the maximum is.
    """

    program: Program
    values: dict[str, Tensor]
    errors: dict[str, Tensor] | None
    solution: Solution
    sentence: str


def maximise_evidence(
    program: Program, names: tuple[str, ...], attempt: Attempt, progress: bool | None = None
) -> Optimum:
    """Return the program with sample sites and parameters set to the maximum of the log evidence.

    Sample sites count with their prior density in their own space, parameters without any.

    Args:
        program: the model with its data.
        names: of sample sites and ``pyro.param`` statements.
        attempt: how to look for fixed points.
        progress: show a bar.

    Raises:
        ValueError: for unknown names, or where other latents are not Gaussian.
        ConvergenceError: if there is no fixed point at the start, or no maximum is found.
    """
    parameters = _check_names(program, names)
    whole = with_parameters_as_sites(program, parameters) if parameters else program
    _check_others(whole, names)
    evidence = _Objective(whole, names, attempt)
    phi = evidence.maximise(progress)
    values = {k: whole.latents[k].constrain(evidence.flat(phi)).detach() for k in names}
    errors = evidence.errors(phi, values)
    solution = evidence.evidence.solution(phi)
    held = held_at(program, values)
    return Optimum(held, values, errors, solution, _sentence(values, errors, parameters))


def _check_names(program: Program, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that are parameters; raise for those that the model does not have."""
    parameters = parameters_of(program)
    for name in names:
        if name not in program.latents and name not in parameters:
            known = [*program.latents, *parameters]
            raise ValueError(f"optimise must name latent sites or parameters of the model, {known}; got {name!r}.")
    if set(names) >= set(program.latents):
        raise ValueError("optimise names every latent site; leave those whose posterior is wanted.")
    return tuple(name for name in names if name in parameters)


def _check_others(whole: Program, names: tuple[str, ...]) -> None:
    others = latents_outside(held_at(whole, _start_values(whole, names)))
    if others:
        raise NotApplicable(
            f"The latents {', '.join(map(repr, others))} are not Gaussian given {', '.join(names)}: name them in "
            "optimise too, or leave optimise empty, which holds all of them on a grid."
        )


def _start_values(program: Program, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {k: program.latents[k].constrain(program.start).detach() for k in names}


class _Objective:
    """Minus the log evidence of the hyperparameters on unconstrained space, without the Jacobian there."""

    def __init__(self, program: Program, names: tuple[str, ...], attempt: Attempt) -> None:
        self.program = program
        self.factors = Factors(program, tuple(k for k in program.latents if k in names))
        self.evidence = Evidence(self.factors, attempt)
        self.failures: list[str] = []

    def flat(self, phi: Tensor) -> Tensor:
        """The program's flat vector at these hyperparameters."""
        return self.program.start.index_copy(0, self.factors.given.held, phi)

    def value_and_gradient(self, phi: Tensor) -> tuple[float, Tensor]:
        """The log evidence with the prior density in the sites' own spaces, and its gradient."""
        value, gradient = self.evidence(phi)
        at = phi.detach().requires_grad_()
        with torch.enable_grad():
            log_jacobian = self.program._log_jacobian(self.flat(at))
        if not log_jacobian.requires_grad:
            return value, gradient
        (slope,) = torch.autograd.grad(log_jacobian, at)
        return value - float(log_jacobian.detach()), gradient - slope

    def maximise(self, progress: bool | None) -> Tensor:
        """The maximum, by L-BFGS."""
        from scipy.optimize import minimize
        from tqdm.auto import tqdm

        self.evidence.solution(self.factors.start)  # raises where there is no fixed point at the start
        disable = None if progress is None else not progress
        with tqdm(total=None, desc="log evidence", leave=False, disable=disable) as bar:
            result = minimize(
                self._loss,
                self.factors.start.cpu().double().numpy(),
                jac=True,
                method="L-BFGS-B",
                callback=lambda _: bar.update(),
                options={"maxiter": 200, "ftol": 1e-13, "gtol": 1e-5},
            )
        if not result.fun < _FAR or not np.abs(result.jac).max() < 1e-2 + 1e-5 * abs(result.fun):
            raise ConvergenceError(
                f"The maximum of the log evidence was not found: {result.message} "
                f"{' '.join(self.failures[-1:])} Give the hyperparameters priors, or start them elsewhere."
            )
        return self._tensor(result.x)

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(x, dtype=self.program.dtype, device=self.program.device)

    def _loss(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            value, gradient = self.value_and_gradient(self._tensor(x))
        except ConvergenceError as error:
            self.failures.append(str(error))
            return _FAR, np.zeros_like(x)
        return -value, -gradient.cpu().double().numpy()

    def errors(self, phi: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Standard errors in the sites' own spaces, by the delta method; None without a curved maximum."""
        if len(phi) > _MOST_ERRORS:
            return None
        step, eye = 1e-3, torch.eye(len(phi), dtype=phi.dtype, device=phi.device)
        rows = [
            (self.value_and_gradient(phi - step * e)[1] - self.value_and_gradient(phi + step * e)[1]) / (2 * step)
            for e in eye
        ]
        curvature = torch.stack(rows)
        root, info = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
        if int(info):
            return None
        covariance = torch.cholesky_inverse(root)
        return {k: self._own_error(k, phi, covariance) for k in values}

    def _own_error(self, name: str, phi: Tensor, covariance: Tensor) -> Tensor:
        latent = self.program.latents[name]
        jacobian = torch.autograd.functional.jacobian(lambda p: latent.constrain(self.flat(p)).reshape(-1), phi)
        return ((jacobian @ covariance) * jacobian).sum(1).clamp(min=0).sqrt().reshape(latent.shape)


def _sentence(values: dict[str, Tensor], errors: dict[str, Tensor] | None, parameters: tuple[str, ...]) -> str:
    parts = [f"{k} = {_shown(v)}{_with_error(k, errors)}" for k, v in values.items()]
    sites = [k for k in values if k not in parameters]
    weighed = f", that of {', '.join(sites)} with the prior" if sites else ""
    flat = (
        ""
        if errors is not None or sum(v.numel() for v in values.values()) > _MOST_ERRORS
        else (" The log evidence is flat or rises towards a border there, so that no standard error can be given.")
    )
    return (
        f"The hyperparameters were set to the maximum of the log evidence{weighed}: {', '.join(parts)}; their own "
        f"uncertainty is not in the posterior.{flat}"
    )


def _shown(x: Any) -> str:
    entries = [f"{v:.4g}" for v in x.reshape(-1).tolist()]
    return entries[0] if x.ndim == 0 else f"[{', '.join(entries[:6])}{', …' if len(entries) > 6 else ''}]"


def _with_error(name: str, errors: dict[str, Tensor] | None) -> str:
    if errors is None or not math.isfinite(float(errors[name].sum())):
        return ""
    return f" (standard error {_shown(errors[name])})"
