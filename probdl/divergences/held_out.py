"""Train a critic on one part of the draws and value it on another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probdl.access import Draws
from probdl.divergences import distributions
from probdl.divergences.dispatch import NotApplicable
from probdl.divergences.kernels import equal_weights
from probdl.loops import cosine, descend, one_thread
from probdl.nn import MLP, seeded

HELD_OUT, VALIDATION = 0.4, 0.1  # parts of each side; the rest trains
LEAST = 40  # draws of each side
BATCH = 256
Pairs = tuple[Tensor, Tensor]
CriticLoss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


class Critic(nn.Module):
    """The default critic: dense layers beside a linear map, which is the optimum for shifted Gaussians."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.curved, self.straight = MLP(inputs, 1, hidden=(64, 64)), nn.Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (n, d) to (n, 1)."""
        return self.curved(x) + self.straight(x)


class Sample(NamedTuple):
    """Points with weights that sum to 1."""

    x: Tensor
    weights: Tensor

    def rows(self, rows: Tensor) -> Sample:
        """Return some of the points, their weights scaled to sum to 1."""
        w = self.weights[rows]
        return Sample(self.x[rows], w / w.sum())


class Parts(NamedTuple):
    """What trains, what stops the training, and what values."""

    train: Sample
    validation: Sample
    held_out: Sample


class Sides(NamedTuple):
    """Both sides in the coordinates of the critic, one unit of which is ``unit`` units of the data."""

    x: Parts
    y: Parts
    network: nn.Module
    unit: float


def prepare(x: Draws, y: Draws, network: nn.Module | None, seed: int, columnwise: bool = False) -> Sides:
    """Split both sides; for the default network they are centred and scaled, all columns alike unless columnwise."""
    a, b, unit = x.x, y.x.to(x.x.device), 1.0
    if network is None:
        pooled = torch.cat([a, b])
        scale = pooled.std(0) if columnwise else pooled.var(0).mean().sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        a, b = ((points - pooled.mean(0)) / scale for points in (a, b))
        unit = 1.0 if columnwise else scale.item()
        network = default(x.dim, a.device, seed)
    v, w = equal_weights(a, x.weights), equal_weights(b, y.weights)
    return Sides(split(Sample(a, v), "x", 2 * seed), split(Sample(b, w), "y", 2 * seed + 1), network, unit)


def split(sample: Sample, name: str, seed: int) -> Parts:
    """Split one side at random."""
    n = len(sample.x)
    if n < LEAST:
        raise NotApplicable(f"a critic needs at least {LEAST} draws of each side; got {n} of {name}.")
    with distributions.seeded(seed):
        order = torch.randperm(n).to(sample.x.device)
    sizes = [round(HELD_OUT * n), round(VALIDATION * n)]
    held_out, validation, train = order.split([*sizes, n - sum(sizes)])
    return Parts(sample.rows(train), sample.rows(validation), sample.rows(held_out))


def pairs(x: Sample, y: Sample, seed: int, dtype: torch.dtype) -> Pairs:
    """Return both samples at one length, without weights: the shorter one is repeated, a weighted one resampled."""
    generator, size = torch.Generator().manual_seed(seed), max(len(x.x), len(y.x))
    first, second = (s.x[_indices(s.weights, size, generator)].to(dtype) for s in (x, y))
    return first, second


def _indices(weights: Tensor, size: int, generator: torch.Generator) -> Tensor:
    if bool((weights != weights[0]).any()):
        return torch.multinomial(weights.cpu(), size, replacement=True, generator=generator).to(weights.device)
    orders = [torch.randperm(len(weights), generator=generator) for _ in range(math.ceil(size / len(weights)))]
    return torch.cat(orders)[:size].to(weights.device)


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the floating type of the network's parameters."""
    return next(network.parameters()).dtype


def default(inputs: int, device: torch.device, seed: int) -> Critic:
    """Return an untrained critic."""
    with seeded(seed):
        return Critic(inputs).to(device)


def learn(
    sides: Sides,
    loss: CriticLoss,
    steps: int,
    seed: int,
    optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
) -> None:
    """Descend the loss of pairs of batches; the state with the least validation loss is kept."""
    network, dtype = sides.network, dtype_of(sides.network)
    train = pairs(sides.x.train, sides.y.train, seed, dtype)
    validation = pairs(sides.x.validation, sides.y.validation, seed, dtype)
    per_epoch = math.ceil(len(train[0]) / BATCH)
    with one_thread(train[0].device.type == "cpu"):
        descend(
            network,
            lambda batch, generator: loss(network, batch[0], batch[1], generator),
            train,
            validation=validation,
            steps=steps,
            together=False,
            batch_size=BATCH,
            learning_rate=cosine(2e-3) if optimiser is None else 1e-3,
            optimiser=optimiser,
            patience=math.ceil(max(10, 500 / per_epoch)),
            seed=seed,
            progress=False,
        )


def scores(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the critic's value at each row, shape (n,)."""
    out = network(x)
    if out.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"network must map points {tuple(x.shape)} to ({len(x)},) or ({len(x)}, 1); got {tuple(out.shape)}."
        )
    return out.reshape(len(x))


def values(network: nn.Module, x: Tensor) -> Tensor:
    """Return the scores in eval mode, as float64 and without a graph."""
    training = network.training
    network.eval()
    with torch.no_grad():
        out = torch.cat([scores(network, rows) for rows in x.to(dtype_of(network)).split(10_000)]).double()
    network.train(training)
    return out
