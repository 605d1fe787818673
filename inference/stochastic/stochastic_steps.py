r"""Stochastic natural steps of a mean-field Gaussian; the noise of their gradients is that of what a quadratic leaves.

With draws :math:`z_s = μ + σ ⊙ ε_s` (in antithetic pairs) the reparameterised gradients of the bound are
:math:`E\,∇ℓ(z)` in μ and :math:`E\,ε ⊙ σ ⊙ ∇ℓ(z) + 1` in log σ. From ∇ℓ on a batch two things are taken away whose
expectations are known: its value at an anchor, which one pass over all rows gives exactly, and :math:`-H (z - a)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.inference.stochastic.batch_density import BatchDensity
from probdl.inference.stochastic.curvature import Curvature
from probdl.inference.stochastic.minibatches import Batch

_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


@dataclass
class Anchor:
    """A point a, with the log-density of all rows there and its gradient; zeros where no pass over them is possible."""

    z: Tensor
    value: float
    gradient: Tensor
    known: bool


@dataclass
class Gradient:
    """Estimates of the gradients of the bound in μ and log σ, (d,) each, and of the bound."""

    mean: Tensor
    log_sd: Tensor
    bound: float


class MeanFieldSteps:
    """The variational parameters, and the steps that change them.

    Args:
        density: of the model on batches.
        mean: where μ starts, (d,).
        curvature: H, which gives the first scales and makes the steps unitless.
        generator: of batches and draws, on the CPU.
        pairs: antithetic pairs of draws a step.
    """

    def __init__(
        self, density: BatchDensity, mean: Tensor, curvature: Curvature, generator: torch.Generator, pairs: int
    ) -> None:
        self.density, self.curvature, self.generator, self.pairs = density, curvature, generator, pairs
        self.mean, self.log_sd = mean.clone(), -0.5 * curvature.diagonal.log()
        self.seen = 0  # rows that the start has used already
        self.anchor = Anchor(mean.clone(), 0.0, torch.zeros_like(mean), known=False)
        self._batches: Iterator[Batch] = density.source.batches(generator)

    @property
    def sd(self) -> Tensor:
        """The standard deviations σ."""
        return self.log_sd.exp()

    def parameters(self) -> Tensor:
        """Return (μ, log σ) in one vector."""
        return torch.cat([self.mean, self.log_sd])

    def put(self, parameters: Tensor) -> None:
        """Set (μ, log σ)."""
        self.mean, self.log_sd = (x.clone() for x in parameters.chunk(2))

    def noise(self, pairs: int) -> Tensor:
        """Return antithetic draws of standard Normals, (2·pairs, d)."""
        half = torch.randn(pairs, len(self.mean), generator=self.generator, dtype=self.mean.dtype).to(self.mean.device)
        return torch.cat([half, -half])

    def next_batch(self) -> Batch:
        """Return the next batch; StopIteration where an iterable has ended."""
        return next(self._batches)

    def gradient(self, batch: Batch) -> Gradient:
        """Return an estimate of the gradient of the bound from a batch and fresh draws."""
        noise = self.noise(self.pairs)
        z = self.mean + self.sd * noise
        weights = self.density.weights(1.0, batch.factor)
        points = torch.cat([z, self.anchor.z[None]]) if self.anchor.known else z
        values, gradients = self.density.values_and_gradients(points, weights, batch)
        if self.anchor.known:
            values = values[:-1] - values[-1] - (z - self.anchor.z) @ gradients[-1]
            gradients = gradients[:-1] - gradients[-1]
        return self._with_quadratic(noise, z - self.anchor.z, values, gradients)

    def _with_quadratic(self, noise: Tensor, away: Tensor, values: Tensor, gradients: Tensor) -> Gradient:
        """Take the quadratic −½(z−a)ᵀH(z−a) away from the draws, and add its expectation."""
        left_over = gradients + self.curvature.times(away)
        gap, squares = self.mean - self.anchor.z, self.curvature.diagonal * self.sd**2
        mean = self.anchor.gradient - self.curvature.times(gap) + left_over.mean(0)
        log_sd = 1.0 - squares + (noise * self.sd * left_over).mean(0)
        rest = (values + 0.5 * (away * self.curvature.times(away)).sum(1)).mean()
        quadratic = self.anchor.gradient @ gap - 0.5 * (gap @ self.curvature.times(gap) + squares.sum())
        bound = self.anchor.value + quadratic + rest + self.log_sd.sum() + _ENTROPY * len(gap)
        return Gradient(mean, log_sd, float(bound))

    def step(self, gradient: Gradient, rate: float) -> bool:
        """Go a step of that size, at most about one sd in each direction; return whether it had to be cut."""
        along = rate * self.curvature.solve(gradient.mean)
        length = self.curvature.norm(along)
        self.mean = self.mean + along * min(1.0, 1.0 / max(length, 1e-300))
        widening = 0.5 * rate * gradient.log_sd
        self.log_sd = self.log_sd + widening.clamp(-0.5, 0.5)
        return length > 1.0 or bool(widening.abs().max() > 0.5)

    def drop_anchor(self) -> float:
        """Make the present mean the anchor, by one pass over all rows; return the Newton step from there, in sd."""
        values, gradients = whole(self.density, self.mean[None])
        self.anchor = Anchor(self.mean.clone(), float(values[0]), gradients[0], known=True)
        return self.curvature.norm(self.curvature.solve(gradients[0]))

    def bound_with_error(self, pairs: int) -> tuple[float, float]:
        """Return the bound and its Monte Carlo error, by draws at which the density of all rows is computed."""
        noise = self.noise(pairs)
        away = self.sd * noise + self.mean - self.anchor.z
        values, _ = whole(self.density, self.anchor.z + away, chunk=32)
        rest = values - self.anchor.value - away @ self.anchor.gradient
        bound = self._with_quadratic(noise, away, rest, torch.zeros_like(away)).bound
        each = (rest + 0.5 * (away * self.curvature.times(away)).sum(1)).reshape(2, -1).mean(0)
        return bound, float(each.std() / pairs**0.5)


def whole(density: BatchDensity, z: Tensor, chunk: int = 32) -> tuple[Tensor, Tensor]:
    """Return the log-density of all rows at z (S, d), (S,), and its gradients (S, d), by a pass over the rows."""
    values, gradients = torch.zeros_like(z[:, 0]), torch.zeros_like(z)
    for i, batch in enumerate(density.source.whole()):
        weights = density.weights(float(i == 0), batch.factor)
        parts = [density.values_and_gradients(part, weights, batch) for part in z.split(chunk)]
        values += torch.cat([v for v, _ in parts])
        gradients += torch.cat([g for _, g in parts])
        if not bool(torch.isfinite(values).all()):
            density.check_finite(z[0], batch, f"In the pass over all rows, in batch {i + 1},")
    return values, gradients
