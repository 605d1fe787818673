"""Where stochastic steps start, and the curvature that makes their size unitless: the mode on a pilot of the rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.laplace import find_mode
from probdl.inference.programs.derivatives import value_and_gradient
from probdl.inference.programs.program import Program
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.stochastic.batch_density import BatchDensity
from probdl.inference.stochastic.minibatches import Batch

FULL = 500  # latents up to which the curvature is a full matrix


@dataclass(frozen=True)
class Curvature:
    """A positive definite matrix H, full, or diagonal where there are many latents.

    Attributes:
        diagonal: of H, (d,).
        root: the lower Cholesky factor of a full H, (d, d); None where H is diagonal.
        spread: how many times the true curvature exceeds H along the worst direction; 1 where H is full.
    """

    diagonal: Tensor
    root: Tensor | None = None
    spread: float = 1.0

    @classmethod
    def full(cls, matrix: Tensor) -> Curvature:
        """Return a full curvature; eigenvalues that are not positive are lifted to a small share of the largest."""
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        lifted = vectors * values.abs().clamp(min=1e-8 * float(values.abs().max())) @ vectors.T
        return cls(lifted.diagonal().clone(), torch.linalg.cholesky((lifted + lifted.T) / 2))

    def times(self, x: Tensor) -> Tensor:
        """Return H x for the rows of x (..., d)."""
        return x * self.diagonal if self.root is None else x @ self.root @ self.root.T

    def solve(self, x: Tensor) -> Tensor:
        """Return H⁻¹ x for a vector (d,)."""
        return x / self.diagonal if self.root is None else torch.cholesky_solve(x[:, None], self.root)[:, 0]

    def inverse(self) -> Tensor:
        """Return H⁻¹ as a matrix."""
        return (1 / self.diagonal).diag() if self.root is None else torch.cholesky_inverse(self.root)

    def norm(self, x: Tensor) -> float:
        """Return the root mean square of x (d,) in units of the curvature, √(xᵀHx / d)."""
        return float((x @ self.times(x) / len(x)).clamp(min=0).sqrt())


def pilot_mode(density: BatchDensity, pilot: list[Batch]) -> tuple[Tensor, Curvature]:
    """Return the mode of the log-density that pilot batches estimate, and the curvature there.

    Raises:
        ConvergenceError: if there is no mode with positive curvature.
    """
    program = _pilot_program(density, pilot)
    if program.dim > FULL:
        return _large_mode(program, density, pilot)
    mode = find_mode(program, tolerance=1e-2)
    return mode.z, Curvature.full(mode.precision)


def average_curvature(density: BatchDensity, pilot: list[Batch], points: Tensor) -> Curvature:
    """Return minus the matrix of second derivatives, averaged over points (k, d)."""
    if points.shape[1] > FULL:
        return _diagonal(density, pilot, points.mean(0))
    return Curvature.full(-torch.stack([density.hessian(z, pilot) for z in points]).mean(0))


def _pilot_program(density: BatchDensity, pilot: list[Batch]) -> Program:
    """The program, whose log-density is that of the pilot batches."""

    def log_joint(z: Tensor) -> Tensor:
        parts = [density.at(z, density.weights(float(i == 0), b.factor), b) for i, b in enumerate(pilot)]
        return torch.stack(parts).sum()

    program = copy.copy(density.program)
    program.log_joint = log_joint  # type: ignore[method-assign]
    program.require_all_rows = lambda: None  # type: ignore[method-assign]
    program.recorded = lambda f: _flat(f, program.start)  # type: ignore[method-assign]
    return program


def _flat(f: Callable, start: Tensor) -> Callable:
    try:
        return record(f, start)
    except NotRecordable:
        return f


def _large_mode(program: Program, density: BatchDensity, pilot: list[Batch]) -> tuple[Tensor, Curvature]:
    """The mode by L-BFGS, for more latents than a Newton step can hold."""
    from scipy.optimize import minimize

    def downhill(x: object) -> tuple[float, object]:
        z = torch.as_tensor(x, dtype=program.dtype, device=program.device)
        value, gradient = value_and_gradient(program.log_joint, z)
        return -float(value), -gradient.cpu().double().numpy()

    result = minimize(downhill, program.start.cpu().double().numpy(), jac=True, method="L-BFGS-B")
    z = torch.as_tensor(result.x, dtype=program.dtype, device=program.device)
    if not bool(torch.isfinite(z).all()):
        raise ConvergenceError(f"No mode was found on a pilot of the rows: {result.message}.")
    return z, _diagonal(density, pilot, z)


def _diagonal(density: BatchDensity, pilot: list[Batch], z: Tensor, probes: int = 64) -> Curvature:
    """The diagonal of H by Hutchinson's probes v ⊙ Hv, and how far H exceeds it by a few power iterations."""
    generator = torch.Generator().manual_seed(20)
    signs = torch.randint(2, (probes, len(z)), generator=generator).to(z) * 2 - 1
    diagonal = -(signs * density.products(z, pilot, signs)).mean(0)
    diagonal = diagonal.clamp(min=0.05 * float(diagonal.abs().median()))
    v, spread = signs[:1] / len(z) ** 0.5, 1.0
    for _ in range(12):
        v = -density.products(z, pilot, v * diagonal.rsqrt()) * diagonal.rsqrt()
        spread = float(v.norm())
        v = v / spread
    return Curvature(diagonal, None, max(1.0, spread))


def flat_start(density: BatchDensity, pilot: list[Batch]) -> tuple[Tensor, Curvature]:
    """Return the program's start, with the sizes of gradients around it in place of curvature."""
    start = density.program.start
    noise = torch.randn(16, len(start), generator=torch.Generator().manual_seed(20), dtype=start.dtype).to(start)
    total = torch.zeros_like(noise)
    for i, batch in enumerate(pilot):
        total += density.values_and_gradients(start + 0.1 * noise, density.weights(float(i == 0), batch.factor), batch)[
            1
        ]
    diagonal = total.square().mean(0)
    diagonal = diagonal.clamp(min=1e-2 * float(diagonal.median()) + 1.0)
    return start.clone(), Curvature(diagonal) if len(start) > FULL else Curvature.full(diagonal.diag())
