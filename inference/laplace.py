r"""Laplace's method: a Gaussian at the posterior mode with the curvature there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError
from probdl.inference.deterministic.first_guess import ensure_start
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.gaussian import GaussianApproximation
from probdl.inference.programs.derivatives import at_least, hessian, value_and_gradient
from probdl.inference.programs.program import Program


@dataclass(frozen=True)
class Mode:
    """The mode of the posterior on unconstrained space, with its curvature.

    Attributes:
        z: the mode, shape (d,).
        log_joint: the log-density there.
        precision: minus the Hessian there, (d, d).
        rows: the steps of the optimiser.
    """

    z: Tensor
    log_joint: float
    precision: Tensor
    rows: list[dict[str, float]]


@dataclass(frozen=True)
class Laplace:
    r"""Laplace's approximation on unconstrained space.

    .. math:: q(z) = N(\hat z, H^{-1}), \quad H = -\nabla^2 \log p(x, \hat z), \quad
        \log p(x) \approx \log p(x, \hat z) + \tfrac d2 \log 2\pi - \tfrac12 \log |H|

    For continuous latents of any support. The mode is found by a trust-region Newton method (SciPy's trust-exact).

    Args:
        tolerance: of the gradient at the mode, in posterior sd units.
        max_steps: where the optimiser gives up.

    Raises:
        ConvergenceError: if there is no mode, or the curvature there is not positive (an improper or flat posterior);
            it names the site.

    Source: MacKay (2003), *Information Theory, Inference, and Learning Algorithms*, chapter 27.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Poisson(rate), obs=y)
        >>> posterior = fit(model, torch.tensor([3.0, 5.0, 4.0]), method=Laplace())
        >>> round(float(posterior.log_evidence), 2)  # exactly -6.61
        -6.62
    """

    tolerance: float = 1e-6
    max_steps: int = 500

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        started = time.perf_counter()
        mode = find_mode(program, self.tolerance, self.max_steps)
        root = torch.linalg.cholesky(mode.precision)
        half_log_det = float(root.diagonal().log().sum())
        evidence = mode.log_joint + 0.5 * program.dim * math.log(2 * math.pi) - half_log_det
        import pandas as pd

        return Posterior(
            method="laplace",
            approximation=GaussianApproximation(program.latents, mode.z, torch.cholesky_inverse(root)),
            converged=True,
            message=f"Laplace's method: a Gaussian at the mode, found in {len(mode.rows)} Newton steps.",
            seconds=time.perf_counter() - started,
            history=pd.DataFrame(mode.rows),
            log_evidence=Estimate(
                evidence, None, "laplace", target="approximation", notes=("the error of Laplace's method is unknown",)
            ),
            notes=program.notes,
        )


class Density(Protocol):
    """A log-density with its derivatives."""

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density at z, (d,), and its gradient."""

    def hessian(self, z: Tensor) -> Tensor:
        """Return its second derivatives, (d, d)."""


class _Joint:
    """The log-density of a program, recorded."""

    def __init__(self, program: Program) -> None:
        self.log_joint = program.recorded(program.log_joint)

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return value_and_gradient(self.log_joint, z)

    def hessian(self, z: Tensor) -> Tensor:
        return hessian(self.log_joint, z)


def find_mode(program: Program, tolerance: float = 1e-6, max_steps: int = 500, density: Density | None = None) -> Mode:
    """Return the mode of the posterior on unconstrained space.

    Args:
        program: the model with its data.
        tolerance: of the gradient at the mode, in posterior sd units.
        max_steps: the largest number of Newton steps.
        density: the program's log-density where it is known in a faster form; None records it.

    Raises:
        ConvergenceError: if the optimiser finds no mode with positive curvature.
    """
    from scipy.optimize import minimize

    program.require_all_rows()
    program.sum_out_discrete()
    ensure_start(program)
    density = density or _Joint(program)
    rows: list[dict[str, float]] = []
    result = minimize(
        _on_numpy(lambda z: _finite_or_uphill(*density.value_and_gradient(z)), program),
        program.start.cpu().numpy(),
        jac=True,
        hess=_on_numpy(lambda z: _finite_or_identity(-density.hessian(z)), program),
        method="trust-exact",
        callback=lambda z: rows.append({"step": len(rows) + 1}),
        options={"maxiter": max_steps, "gtol": 1e-8},
    )
    z = torch.as_tensor(result.x, dtype=program.dtype, device=program.device)
    value, gradient = density.value_and_gradient(z)
    precision = -density.hessian(z)
    _check_curvature(program, precision)
    off = _newton_decrement(precision, gradient)
    rounding = 10 * (torch.finfo(program.dtype).eps * abs(float(value))) ** 0.5  # as far as values tell points apart
    if not off <= max(at_least(tolerance, program.dtype, 1e4), rounding):
        raise ConvergenceError(
            f"Laplace: the optimiser stopped {off:.2g} posterior sd from the mode after {result.nit} steps "
            f"({result.message}). Rescale the covariates, raise max_steps, or use method='nuts'."
        )
    return Mode(z, float(value), precision, rows)


def _finite_or_uphill(value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Minus value and gradient; where they overflow, a value so high that the trust region turns the step down."""
    if _is_tame(value) and _is_tame(gradient):
        return -value, -gradient
    return torch.full_like(value, 1e300), torch.zeros_like(gradient)


def _finite_or_identity(matrix: Tensor) -> Tensor:
    """The Hessian; where it overflows, the step is turned down and any finite matrix will do."""
    if not _is_tame(matrix):
        return torch.eye(len(matrix)).to(matrix)
    curvatures = torch.linalg.eigvalsh(matrix).abs()
    if curvatures.max() > 1e24 * curvatures.min().clamp(min=1.0):  # SciPy before 1.17 never returns from there
        raise ConvergenceError(
            f"Laplace: no mode found; on the way the curvature ranges from {curvatures.min():.2g} to "
            f"{curvatures.max():.2g}. The posterior may have no maximum: reparameterise it, or use method='nuts'."
        )
    return matrix


def _is_tame(x: Tensor) -> bool:
    return bool((x.abs() < 1e100).all())  # False for NaN; squares of larger numbers overflow in the optimiser


def _on_numpy(f: Callable, program: Program) -> Callable[[np.ndarray], object]:
    def call(x: np.ndarray) -> object:
        out = f(torch.as_tensor(x, dtype=program.dtype, device=program.device))
        return tuple(o.cpu().double().numpy() for o in out) if isinstance(out, tuple) else out.cpu().double().numpy()

    return call


def _check_curvature(program: Program, precision: Tensor) -> None:
    site, smallest = program.weakest_site(precision)
    if smallest <= 1e-12:
        raise ConvergenceError(
            f"The posterior is flat or has no maximum along {site!r}: its smallest curvature there is {smallest:.2g} "
            "of the largest. Give it a proper prior, remove what the data cannot tell apart, or use method='nuts'."
        )


def _newton_decrement(precision: Tensor, gradient: Tensor) -> float:
    """The length of the Newton step in posterior sd units."""
    return float((gradient @ torch.linalg.solve(precision, gradient)).clamp(min=0).sqrt())
