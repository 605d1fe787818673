"""Minimise a smooth function by SciPy's trust-region Newton method with Hessian-vector products (trust-ncg)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probdl.inference.programs.derivatives import recorded_gradient
from probdl.inference.programs.recording import NotRecordable

_MANY = 40  # evaluations after which value and gradient are recorded, which costs about as much
_HIGH = 1e300  # what the trust region sees where the function is not finite, so that it turns the step down


class Smooth:
    """A function with its gradient and Hessian-vector products; the first backward pass at a point is kept.

    Args:
        f: maps (n,) to a scalar.
        like: a tensor of the dtype and device to use.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.f, self.like = f, like
        self.evaluations = self.products = 0
        self._x: Tensor | None = None
        self._flat: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient; a value of 1e300 and no gradient where they are not finite."""
        if self._x is None or not torch.equal(self._x.detach(), x):
            self._evaluate(x)
        if not self.is_finite():
            return torch.full_like(self._value, _HIGH), torch.zeros_like(x)
        return self._value.detach(), self._gradient.detach()

    def _evaluate(self, x: Tensor) -> None:
        self.evaluations += 1
        self._x = x.detach().clone().requires_grad_()
        if self.evaluations == _MANY:
            self._flat = self._recorded()
        with torch.enable_grad():
            if self._flat is not None:
                self._value, self._gradient = self._flat(self._x)
                return
            self._value = self.f(self._x)
            (self._gradient,) = torch.autograd.grad(self._value, self._x, create_graph=True)

    def _recorded(self) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
        """Value and gradient as one flat graph, twice as fast as autograd on small models, where that is safe."""
        try:
            assert self._x is not None
            return recorded_gradient(self.f, self._x.detach())
        except NotRecordable:
            return None

    def is_finite(self) -> bool:
        """Whether value and gradient at the last point are finite."""
        return bool(self._value.abs() < _HIGH) and bool(torch.isfinite(self._gradient).all())

    def product(self, x: Tensor, direction: Tensor) -> Tensor:
        """Return the Hessian at x times a direction, (n,), or times each row of (k, n)."""
        self.at(x)
        if direction.ndim == 2:
            return torch.stack([self._product(row) for row in direction])
        return self._product(direction)

    def _product(self, direction: Tensor) -> Tensor:
        self.products += 1
        if not self.is_finite() or not self._gradient.requires_grad:
            return torch.zeros_like(direction)
        assert self._x is not None
        (out,) = torch.autograd.grad(
            self._gradient @ direction, self._x, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return out


@dataclass(frozen=True)
class Minimum:
    """Where the optimiser stopped.

    Attributes:
        x: the point, (n,).
        value: the function there.
        steps: how many it took.
        message: the optimiser's.
        history: the function and the norm of its gradient at the start and after each step.
    """

    x: Tensor
    value: float
    steps: int
    message: str
    history: list[tuple[float, float]]


def minimise(smooth: Smooth, start: Tensor, tolerance: float, max_steps: int) -> Minimum:
    """Return where the gradient's norm falls below ``tolerance``, or where the optimiser gives up.

    Args:
        smooth: the function.
        start: a point where it is finite, (n,).
        tolerance: of the norm of the gradient.
        max_steps: the largest number of steps.
    """
    from scipy.optimize import minimize

    def tensor(x: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(x), dtype=start.dtype, device=start.device)

    def numbers(x: Tensor) -> np.ndarray:
        return x.cpu().double().numpy()

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = smooth.at(tensor(x))
        return float(value), numbers(gradient)

    history: list[tuple[float, float]] = []

    def note(x: np.ndarray) -> None:
        value, gradient = smooth.at(tensor(x))
        history.append((float(value), float(gradient.norm())))

    note(numbers(start))
    with np.errstate(over="ignore"):  # of 1e300 over a small prediction
        result = minimize(
            value_and_gradient,
            numbers(start),
            jac=True,
            hessp=lambda x, p: numbers(smooth.product(tensor(x), tensor(p))),
            method="trust-ncg",
            callback=note,
            options={"gtol": tolerance, "maxiter": max_steps, "initial_trust_radius": 3.0, "max_trust_radius": 1e3},
        )
    return Minimum(tensor(result.x), float(result.fun), int(result.nit), str(result.message), history)
