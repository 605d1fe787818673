r"""The log evidence of expectation propagation as a function of the latents outside, with its gradient.

At a fixed point the evidence does not change to first order with the sites, so that

.. math::
    \partial_\phi \log Z = E_q[\partial_\phi \log p_0(z; \phi)] + \sum_i E_{\hat p_i}[\partial_\phi \ell_i(z; \phi)]

with the Gaussian part p₀ and the tilted distributions. Source: Seeger (2005), *Expectation propagation for exponential
families*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.propagation.factors import Factors
from probdl.inference.propagation.solving import Attempt, Solution, solve


class Evidence:
    """Log p(data, φ) on unconstrained space, by a fixed point at each φ that starts from the one before.

    Args:
        factors: of the program, with the latents φ outside.
        attempt: how to look for fixed points.
    """

    def __init__(self, factors: Factors, attempt: Attempt) -> None:
        self.factors, self.attempt = factors, attempt
        self.last: Solution | None = None

    def solution(self, phi: Tensor) -> Solution:
        """Return a fixed point given φ.

        Raises:
            ConvergenceError: if there is none.
        """
        start = None if self.last is None else self.last.start()
        self.last = solve(self.factors, phi, self.attempt, start, progress=False)
        return self.last

    def __call__(self, phi: Tensor) -> tuple[float, Tensor]:
        """Return log evidence and gradient at φ, (k,)."""
        solution = self.solution(phi)
        return solution.log_evidence(), self.gradient(phi, solution)

    def gradient(self, phi: Tensor, solution: Solution) -> Tensor:
        """Return the gradient at φ of the log evidence, given the fixed point there."""
        mean, covariance = solution.mean, solution.covariance()
        points = _points(mean, covariance)
        state = solution.state
        phi = phi.detach().requires_grad_()
        with torch.enable_grad():
            total = self.factors.log_gaussian(points, phi).mean()
            for factor, sites, marginal in zip(self.factors.projected.values(), state.groups, state.solution.marginals):
                total = total + sites.expected(factor, phi, mean, covariance, marginal)
            (gradient,) = torch.autograd.grad(total, phi)
        return gradient


def _points(mean: Tensor, covariance: Tensor) -> Tensor:
    """Points (2d, d) whose average of a quadratic is its expectation under the Gaussian."""
    steps = torch.linalg.cholesky(covariance).T * len(mean) ** 0.5
    return torch.cat([mean + steps, mean - steps])
