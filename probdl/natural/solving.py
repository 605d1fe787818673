"""From the expected statistics of an exponential family to its natural parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.errors import ConvergenceError

STEPS = 200


def solve_mean(minus_log_g: Callable[[Tensor], Tensor], mean: Tensor, start: Tensor) -> Tensor:
    r"""Return η with :math:`-\partial \log g(\eta)/\partial \eta = ` mean, differentiable in the mean.

    It minimises the convex :math:`-\log g(\eta) - \eta^\top` mean, which is KL(p‖q) up to a constant, by Newton's
    method with halved steps.

    Raises:
        ConvergenceError: if there is no such η.
    """
    eta, target = start.detach().clone(), mean.detach()
    value, gradient, hessian = _derivatives(minus_log_g, eta, target)
    for _ in range(STEPS):
        step = -torch.linalg.solve(hessian, gradient)
        decrement = float(-(gradient @ step))
        if not decrement > 1e-28 * max(1.0, abs(float(value))):
            break
        eta, value = _halved(minus_log_g, eta, target, step, value)
        _, gradient, hessian = _derivatives(minus_log_g, eta, target)
    if not decrement < 1e-12 * max(1.0, abs(float(value))):
        raise ConvergenceError(
            f"No member of the family has these expected statistics: Newton's method stopped {decrement:.2g} nats from "
            "them. The draws are too close to constant, or lie on the border of the support."
        )
    # One more step, whose derivative by the mean is that of the solution.
    return eta + torch.linalg.solve(hessian, mean - (gradient + target))


def _halved(
    minus_log_g: Callable[[Tensor], Tensor], eta: Tensor, mean: Tensor, step: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Take the step, halved until the value falls; outside the family's parameters it is NaN or infinite."""
    for _ in range(60):
        moved = eta + step
        new = _objective(minus_log_g, moved, mean)
        if bool(new <= value + 1e-13 * value.abs()):
            return moved, new
        step = step / 2
    return eta, value


def _objective(minus_log_g: Callable[[Tensor], Tensor], eta: Tensor, mean: Tensor) -> Tensor:
    return (minus_log_g(eta) - eta @ mean).detach()


def _derivatives(minus_log_g: Callable[[Tensor], Tensor], eta: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    eta = eta.detach().requires_grad_()
    with torch.enable_grad():
        value = minus_log_g(eta) - eta @ mean
        (gradient,) = torch.autograd.grad(value, eta, create_graph=True)
        rows = [torch.autograd.grad(g, eta, retain_graph=True)[0] for g in gradient]
    return value.detach(), gradient.detach(), torch.stack(rows)
