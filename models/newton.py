"""Newton's method for the logistic likelihood, as an optimiser that ``descend`` can step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DENSE = 1500  # coefficients up to which the Hessian is formed; beyond, conjugate gradients use its products


class LogisticLoss:
    r"""The penalised mean negative log-likelihood of a logistic regression, with its curvature.

    .. math:: L(B) = -\frac1n \sum_i \log p(y_i | x_i) + \frac{λ}{2} ‖W‖^2, \qquad p(\cdot | x) = \mathrm{softmax}(B x),

    for k classes and B = (W, b) with a row for each; for two classes B has one row, and p(1 | x) is the logistic
    function of B x.

    Args:
        x: rows (n, p).
        y: class indices (n,).
        l2: λ; the intercepts b are not penalised.
    """

    def __init__(self, x: Tensor, y: Tensor, l2: float = 0.0) -> None:
        self.x = torch.cat([x.reshape(len(x), -1), x.new_ones(len(x), 1)], 1)
        self.y, self.l2 = y, l2

    def value(self, b: Tensor) -> Tensor:
        """Return L(B), for B of shape (m, p + 1)."""
        log_p = torch.log_softmax(logits_of(self.x @ b.T), 1)
        return -log_p.gather(1, self.y[:, None]).mean() + self.l2 / 2 * b[:, :-1].square().sum()

    def gradient(self, b: Tensor) -> Tensor:
        """Return ∂L/∂B, (m, p + 1)."""
        p = self._probabilities(b)
        seen = self.y[:, None] == torch.arange(p.shape[1], device=p.device) + (p.shape[1] == 1)
        return (p - seen.to(p)).T @ self.x / len(p) + self._penalty(b)

    def hessian(self, b: Tensor) -> Tensor:
        """Return the second derivatives, (m(p + 1), m(p + 1))."""
        p, (m, q) = self._probabilities(b), b.shape
        found = b.new_empty(m, q, m, q)
        for i in range(m):
            for j in range(i, m):
                weight = p[:, i] * ((1.0 if i == j else 0.0) - p[:, j])
                found[i, :, j] = self.x.T @ (weight[:, None] * self.x) / len(p)
                found[j, :, i] = found[i, :, j]  # each block is symmetric
        penalty = self._penalty(torch.ones_like(b)).flatten()
        return found.reshape(m * q, m * q) + torch.diag(penalty)

    def curve(self, b: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian at B times V, both (m, p + 1), without forming it."""
        p, change = self._probabilities(b), self.x @ v.T
        change = p * (change - (p * change).sum(1, keepdim=True))
        return change.T @ self.x / len(p) + self._penalty(v)

    def _probabilities(self, b: Tensor) -> Tensor:
        f = self.x @ b.T
        return f.sigmoid() if f.shape[1] == 1 else f.softmax(1)

    def _penalty(self, b: Tensor) -> Tensor:
        return self.l2 * torch.cat([b[:, :-1], torch.zeros_like(b[:, -1:])], 1)


class Newton(torch.optim.Optimizer):
    r"""Newton's method with a line search, :math:`B ← B − t\,H^{-1} g`.

    Along directions that change no probability (a shift that all classes share, columns that depend on each other)
    the gradient is zero, and so is the step, to rounding.

    Args:
        parameters: as ``descend`` hands them over; they are those of ``linear``.
        linear: its weight (m, p) and bias (m,) are moved.
        loss: over all rows.

    Reference:
        Boyd and Vandenberghe (2004), Convex optimization, section 9.5.
    """

    def __init__(self, parameters: list[nn.Parameter], linear: nn.Linear, loss: LogisticLoss) -> None:
        super().__init__(parameters, {})
        self.linear, self.loss = linear, loss

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; none where no step makes the loss smaller."""
        b = coefficients_of(self.linear)
        g = self.loss.gradient(b)
        direction = newton_direction(self.loss, b, g)
        slope, before, t = (g * direction).sum(), self.loss.value(b), 1.0
        while self.loss.value(b - t * direction) > before - 1e-4 * t * slope:
            t /= 2
            if t < 1e-9:
                return
        b = b - t * direction
        self.linear.weight.copy_(b[:, :-1])
        self.linear.bias.copy_(b[:, -1])


def logits_of(f: Tensor) -> Tensor:
    """Return logits (n, k); one column f is the log odds of the second of two classes, ∓f/2."""
    return f if f.shape[1] > 1 else torch.cat([-f / 2, f / 2], 1)


def coefficients_of(linear: nn.Linear) -> Tensor:
    """Return (W, b) as one matrix, (m, p + 1)."""
    return torch.cat([linear.weight, linear.bias[:, None]], 1)


def newton_direction(loss: LogisticLoss, b: Tensor, g: Tensor) -> Tensor:
    """Return H⁻¹g, in the shape of B."""
    if not bool(g.any()):
        return g
    if b.numel() > DENSE:
        return _conjugate_gradients(lambda v: loss.curve(b, v), g)
    h = loss.hessian(b)
    ridge, eye = 1e-12 * h.diagonal().mean(), torch.eye(len(h), dtype=h.dtype, device=h.device)
    for _ in range(6):
        factor, failed = torch.linalg.cholesky_ex(h + ridge * eye)
        if not failed:
            return torch.cholesky_solve(g.reshape(-1, 1), factor).reshape(g.shape)
        ridge = 100 * ridge
    return g


def _conjugate_gradients(curve: Any, g: Tensor, most: int = 500) -> Tensor:
    """Solve H d = g to a tenth of a per mille of the residual, or better near the solution."""
    found, rest = torch.zeros_like(g), g.clone()
    along, size = rest.clone(), rest.square().sum()
    target = size * torch.clamp(size, max=1e-4).clamp(min=1e-16)
    for _ in range(most):
        bent = curve(along)
        step = size / (along * bent).sum()
        found, rest = found + step * along, rest - step * bent
        size, before = rest.square().sum(), size
        if size <= target:
            break
        along = rest + size / before * along
    return found
