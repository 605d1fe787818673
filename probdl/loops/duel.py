"""Duel: two players, a critic and a generator, step in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probdl.loops.checkpoint import Saver, fingerprint
from probdl.loops.descend import positive, stream_of
from probdl.loops.keeper import Keeper
from probdl.loops.player import Make, Player, Rate, chosen_optimiser
from probdl.loops.record import Descent, Loss, Mean
from probdl.loops.run import Run
from probdl.loops.streams import Rows
from probdl.loops.together import processes_of

BETAS = (0.0, 0.999)  # a moment of the gradient is stale once the other player has moved


def duel(
    critic: nn.Module,
    generator: nn.Module,
    critic_loss: Loss,
    generator_loss: Loss,
    data: Sequence[Tensor] | Iterable[Any],
    *,
    steps: int,
    critic_steps: int | Callable[[int], int] = 1,
    batch_size: int = 128,
    shuffle: bool = True,
    learning_rates: tuple[Rate, Rate] = (4e-4, 2e-4),
    optimisers: tuple[Make | None, Make | None] = (None, None),
    after_critic: Callable[[nn.Module], None] | None = None,
    clip: float | None = None,
    ema: float | None = None,
    score: Callable[[torch.Generator], float | Tensor] | None = None,
    patience: int | None = None,
    every: int | None = None,
    precision: str | None = None,
    compile: bool | str | Callable[..., Any] = False,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float = 60.0,
    resume: bool = False,
    identity: dict[str, Any] | None = None,
    together: bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> Descent:
    r"""Let a critic and a generator step in turn, each down the gradient of its own loss.

    .. math:: φ ← φ - η_φ\,∇_φ L_c(φ, θ) \quad k \text{ times}, \qquad θ ← θ - η_θ\,∇_θ L_g(φ, θ)

    There is no common objective: a duel need not converge, and neither loss says how good the generator is; ``score``
    can. While one steps, the parameters of the other are frozen, and get no gradient.

    Args:
        critic, generator: their parameters are changed in place; they stand on one device and share none.
        critic_loss, generator_loss: (batch, generator of random numbers) → the loss of the player, a mean over the rows
            of the batch, or the loss and a dict of further such scalars for the history. Each critic's step and each
            generator's step takes a batch of its own.
        data: as in :func:`descend`.
        steps: of the generator.
        critic_steps: k, before each of them; or a function of the generator's step, from 0.
        batch_size, shuffle: as in :func:`descend`.
        learning_rates: of the critic and the generator, for Adam with β₁ = 0; numbers, or functions of the fraction of
            the steps that are done.
        optimisers: make other optimisers from a list of parameters, the critic's and the generator's.
        after_critic: called with the critic after each of its steps, as to clip its weights.
        clip: the largest norm of either player's gradient.
        ema: the decay of the moving average of the generator's parameters, which is scored and is the result.
        score: how bad the generator is, in eval mode and without gradients, such as a divergence from held-out rows;
            computed at each record, and the players end with the state where it was smallest. The generator of random
            numbers that it gets is the same each time. Several processes each compute it, and take the mean.
        patience: records without a smaller score until it stops early; None: never.
        every: steps between records; None: a hundredth of ``steps``, at least one.
        precision, compile, checkpoint, checkpoint_seconds, resume, identity, together, progress: as in :func:`descend`.
        seed: of the order of the rows and of the losses' noise.

    Returns:
        A ``Descent``; its history has the generator's loss as ``loss``, the critic's as ``critic``, the score as
        ``validation``, and the terms of both. Ctrl-C ends it early with a warning and keeps what was learned.

    Raises:
        NotFiniteError: a ``ConvergenceError``, when a loss, gradient or parameter becomes NaN or infinite; both players
            have the state of the last good record (with ``score``, of the best).
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Goodfellow et al. (2014), Generative adversarial nets, NeurIPS, algorithm 1. Heusel et al. (2017), GANs trained
        by a two time-scale update rule, NeurIPS.

    Example:
        The generator shifts a normal law until its mean is that of the data; the critic is a line.

        >>> import torch
        >>> x = 3 + torch.randn(512, 1, generator=torch.Generator().manual_seed(1))
        >>> line, shift = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> fake = lambda rows, noise: shift(torch.randn(len(rows), 1, generator=noise))
        >>> gap = lambda rows, noise: (line(fake(rows, noise)) - line(rows)).mean()
        >>> def critic_loss(batch, noise):
        ...     return gap(batch[0], noise) + line.weight.square().mean() / 2
        >>> how = duel(line, shift, critic_loss, lambda b, noise: -gap(b[0], noise), (x,), steps=500,
        ...            learning_rates=(0.05, 0.05), progress=False)
        >>> abs(shift.bias.item() - 3) < 0.5
        True
    """
    both = _Both(critic, generator)
    group = processes_of(both, data, together)
    shared = {"clip": clip, "precision": precision, "compiled": compile, "group": group}
    players = [
        _player(critic, critic_loss, learning_rates[0], optimisers[0], "critic", **shared),
        _player(generator, generator_loss, learning_rates[1], optimisers[1], "generator", ema=ema, **shared),
    ]
    device = players[0].device
    stream = stream_of(data, batch_size, shuffle, device, seed)
    numbers = [None if callable(r) or make else r for r, make in zip(learning_rates, optimisers)]
    run_is = {
        "loop": "duel",
        "identity": identity,
        "critic": players[0].says(),
        "generator": players[1].says(),
        "critic_steps": critic_steps if isinstance(critic_steps, int) else "a function",
        "batch_size": batch_size if isinstance(stream, Rows) else None,
        "shuffle": shuffle,
        "learning_rates": numbers,
        "seed": seed,
        "every": every,
        "data": None if checkpoint is None else fingerprint(data),
    }
    saver = Saver(checkpoint, resume, checkpoint_seconds, run_is)
    keeper = Keeper(both, None if patience is None else positive(patience, "patience"))
    total = positive(steps, "steps")
    every = max(1, total // 100) if every is None else positive(every, "every")
    turn = _Turn(critic_steps, after_critic)
    run = Run(both, players, turn, stream, _scoring(score, device, seed), total, every, seed, keeper, group, "duel")
    return run(saver, progress)


class _Both(nn.Module):
    """Both players as one module: what is kept and put back."""

    def __init__(self, critic: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        self.critic, self.generator = critic, generator
        if common := set(critic.parameters()) & set(generator.parameters()):
            raise ValueError(f"critic and generator must not share parameters; they share {len(common)}.")


@dataclass
class _Turn:
    """k steps of the critic, and one of the generator."""

    critic_steps: int | Callable[[int], int]
    after_critic: Callable[[nn.Module], None] | None

    def __call__(self, run: Run) -> tuple[float, dict[str, Tensor]]:
        critic, generator = run.players
        times = self.critic_steps(run.step) if callable(self.critic_steps) else self.critic_steps
        mean = Mean()
        for _ in range(positive(times, "critic_steps")):
            mean.add(*_step(run, critic, generator))
            if self.after_critic is not None:
                self.after_critic(critic.module)
        rows, terms = _step(run, generator, critic)
        of_critic = {"critic" if name == "loss" else f"critic_{name}": v / mean.rows for name, v in mean.sums.items()}
        return rows, {"loss": terms.pop("loss"), **of_critic, **terms}


def _step(run: Run, player: Player, other: Player) -> tuple[float, dict[str, Tensor]]:
    """Take a player's step on the next batch, with the other's parameters frozen."""
    for p in other.parameters:
        p.requires_grad_(False)
    try:
        return player.step(next(run.stream), run.noise, run.done, run.step + 1)
    finally:
        for p in other.parameters:
            p.requires_grad_(True)


def _player(module: nn.Module, loss: Loss, rate: Rate, make: Make | None, name: str, **how: Any) -> Player:
    schedule = rate if callable(rate) else None
    return Player(module, loss, chosen_optimiser(module, make, rate, name, BETAS), schedule, name=name, **how)


def _scoring(
    score: Callable[[torch.Generator], float | Tensor] | None, device: torch.device, seed: int
) -> Callable[[Run], float | None]:
    """Return the function that scores the generator, with the same noise each time."""
    if score is None:
        return lambda run: None

    def value(run: Run) -> float:
        found = torch.as_tensor(score(torch.Generator(device).manual_seed(seed)), dtype=torch.float64, device=device)
        return run.group.total(found.clone()).item() / run.group.world

    return value
