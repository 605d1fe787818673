"""The classes of functions over which an integral probability metric is a supremum, and how each is searched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probdl.access import Draws
from probdl.divergences import kernels
from probdl.divergences.dispatch import NotApplicable, positive_integer
from probdl.divergences.estimate import Estimate
from probdl.divergences.held_out import Sides, dtype_of, learn, prepare, scores, values
from probdl.divergences.kernels import RBF, Kernel
from probdl.divergences.lipschitz import between, clip, gradient_norms, gradient_penalty, lipschitz_bound
from probdl.divergences.variational import BOUNDS, advantage, two_means


@dataclass(frozen=True)
class LipschitzCritic:
    r"""The functions with :math:`|f(a) - f(b)| \le |a - b|`, whose supremum is :math:`W_1`.

    Args:
        constraint: "penalty" (on slopes above 1; the value is divided by the largest held-out slope) or "clip" (of
            every weight after each step; the value is divided by the product of the spectral norms).
        network: maps (n, d), in the units of the data, to (n,) or (n, 1); trained in place. None chooses one.
        steps: of the training.
        penalty: the weight of the gradient penalty.
        clip: the largest weight.

    Raises:
        ValueError: for an unknown constraint, or numbers that are not positive.

    Example:
        >>> LipschitzCritic(constraint="clip").constraint
        'clip'
    """

    constraint: str = "penalty"
    network: nn.Module | None = None
    steps: int = 1500
    penalty: float = 100.0
    clip: float = 0.1

    def __post_init__(self) -> None:
        if self.constraint not in ("penalty", "clip"):
            raise ValueError(f'constraint must be "penalty" or "clip"; got {self.constraint!r}.')
        positive_integer(self.steps, "steps")
        for name, number in (("penalty", self.penalty), ("clip", self.clip)):
            if not 0 < number < math.inf:
                raise ValueError(f"{name} must be positive; got {number!r}.")

    def value(self, x: Draws, y: Draws, seed: int) -> Estimate:
        """Return W1 as the critic sees it."""
        sides = prepare(x, y, self.network, seed)
        return self._clipped(sides, seed) if self.constraint == "clip" else self._penalised(sides, seed)

    def _penalised(self, sides: Sides, seed: int) -> Estimate:
        def loss(network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
            return _advantage(network, x, y) + self.penalty * gradient_penalty(network, x, y, generator)

        learn(sides, loss, self.steps, seed)
        slope = _steepest(sides, seed)
        note = f"divided by the largest slope at held-out points, {slope:.3g}; elsewhere the critic may be steeper"
        return _valued(sides, slope, "approximation", "critic, gradient penalty", note)

    def _clipped(self, sides: Sides, seed: int) -> Estimate:
        def loss(network: nn.Module, x: Tensor, y: Tensor, _: torch.Generator) -> Tensor:
            return _advantage(network, x, y)

        def optimiser(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            rmsprop = torch.optim.RMSprop(parameters, lr=self.clip / 100)
            rmsprop.register_step_post_hook(lambda *_: clip(sides.network, self.clip))
            return rmsprop

        lipschitz_bound(sides.network)  # raises where none is known, before the training
        clip(sides.network, self.clip)
        learn(sides, loss, self.steps, seed, optimiser)
        bound = lipschitz_bound(sides.network)
        note = f"divided by a bound on the critic's Lipschitz constant, {bound:.3g}"
        return _valued(sides, bound, "lower bound", "critic, clipped weights", note)


@dataclass(frozen=True)
class BoundedCritic:
    r"""The functions with :math:`0 \le f \le 1`, whose supremum is the total variation distance.

    The best of them is 1 where p exceeds q and 0 elsewhere, so a discriminator is trained and rounded.

    Args:
        network: maps (n, d), in the units of the data, to (n,) or (n, 1); trained in place. None chooses one.
        steps: of the training.

    Raises:
        ValueError: if ``steps`` is not a positive integer.

    Example:
        >>> BoundedCritic().steps
        2000
    """

    network: nn.Module | None = None
    steps: int = 2000

    def __post_init__(self) -> None:
        positive_integer(self.steps, "steps")

    def value(self, x: Draws, y: Draws, seed: int) -> Estimate:
        """Return TV as the critic sees it."""

        def loss(network: nn.Module, a: Tensor, b: Tensor, _: torch.Generator) -> Tensor:
            js = BOUNDS["js"]
            return -js.first(scores(network, a)).mean() - js.second(scores(network, b)).mean()

        sides = prepare(x, y, self.network, seed, columnwise=True)
        learn(sides, loss, self.steps, seed)
        (p, v), (q, w) = sides.x.held_out, sides.y.held_out
        value, stderr = advantage(values(sides.network, p), values(sides.network, q), v, w)
        return Estimate(value, stderr, "critic, 0 to 1", "lower bound", len(p) + len(q))


@dataclass(frozen=True)
class KernelCritic:
    r"""The functions with :math:`\|f\|_H \le 1` in the space of a kernel, whose supremum is the MMD.

    The best of them on the training draws is known, the difference of their mean embeddings divided by its norm, so
    nothing is trained; on held-out draws its value is normal also where the distributions are equal.

    Args:
        kernel: a function of points (n, d) and (m, d) that gives the Gram matrix (n, m); None takes an RBF whose
            bandwidth is the median distance of the pooled draws.

    Raises:
        TypeError: if the kernel cannot be called.

    Example:
        >>> KernelCritic(RBF(1.0)).kernel
        RBF(bandwidth=1.0)
    """

    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        if self.kernel is not None and not callable(self.kernel):
            raise TypeError(f"kernel must be a function of points (n, d) and (m, d); got {self.kernel!r}.")

    def value(self, x: Draws, y: Draws, seed: int) -> Estimate:
        """Return MMD, not its square, as the best function of the training draws sees it."""
        kernel = self.kernel or RBF(kernels.median_bandwidth(x.x, y.x.to(x.x.device), seed))
        sides = prepare(x, y, nn.Identity(), seed)
        (a, v), (b, w) = sides.x.train, sides.y.train
        points, weights = torch.cat([a, b]), torch.cat([v, -w])
        squared = weights @ _embedding(kernel, points, points, weights)
        size = weights.abs() @ _embedding(kernel, points, points, weights.abs())
        if not squared > 100 * torch.finfo(size.dtype).eps * size:  # else rounding decides its sign
            raise NotApplicable("the training draws of x and y have one mean embedding: no function tells them apart.")
        first, second = (_embedding(kernel, s.held_out.x, points, weights) / squared.sqrt() for s in sides[:2])
        value, stderr = two_means(first, -second, sides.x.held_out.weights, sides.y.held_out.weights)
        return Estimate(value, stderr, "critic, kernel", "lower bound", len(first) + len(second), (f"kernel {kernel}",))


def _embedding(kernel: Kernel, points: Tensor, sample: Tensor, weights: Tensor) -> Tensor:
    """Return Σⱼ wⱼ k(·, sampleⱼ) at the points."""
    return kernels.across(kernel, points, sample, torch.zeros_like(points[:, 0]), weights)[0]


def _advantage(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return scores(network, y).mean() - scores(network, x).mean()


def _steepest(sides: Sides, seed: int) -> float:
    """Return the largest slope at held-out draws and on the lines between them."""
    x, y = (side.held_out.x.to(dtype_of(sides.network)) for side in (sides.x, sides.y))
    n = min(len(x), len(y))
    points = torch.cat([x, y, between(x[:n], y[:n], torch.Generator(x.device).manual_seed(seed))])
    return max(gradient_norms(sides.network, rows).max().item() for rows in points.split(10_000))


def _valued(sides: Sides, slope: float, target: str, method: str, note: str) -> Estimate:
    if not slope > 0:
        raise NotApplicable("the critic is constant: it learnt nothing. Train longer, or use wasserstein.")
    (p, v), (q, w) = sides.x.held_out, sides.y.held_out
    value, stderr = two_means(values(sides.network, p), -values(sides.network, q), v, w)
    scale = sides.unit / slope
    return Estimate(value * scale, stderr * scale, method, target, len(p) + len(q), (note,))
