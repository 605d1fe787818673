"""Descend: follow the gradient of one loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl.loops.batches import batches, check_rows
from probdl.loops.checkpoint import Saver, fingerprint
from probdl.loops.keeper import Keeper
from probdl.loops.player import Make, Player, Rate, chosen_optimiser
from probdl.loops.record import Descent, Loss, Mean
from probdl.loops.run import Run
from probdl.loops.streams import Loaded, Rows, Stream, as_batch
from probdl.loops.together import processes_of


def descend(
    module: nn.Module,
    loss: Loss,
    data: Sequence[Tensor] | Iterable[Any],
    *,
    validation: Sequence[Tensor] | Iterable[Any] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    shuffle: bool = True,
    learning_rate: Rate = 1e-3,
    optimiser: Make | None = None,
    clip: float | None = None,
    ema: float | None = None,
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
    r"""Minimise a loss over the parameters of a module by stochastic gradients, :math:`θ ← θ − η\,g(θ)`.

    Started by ``torchrun``, several processes share the rows of each batch and step together.

    Args:
        module: its parameters are changed in place, on the device where they are.
        loss: (batch, generator) → the loss, a mean over the rows of the batch; or the loss and a dict of further such
            scalars for the history. A batch is a tuple of tensors with rows in front. All that it draws comes from the
            generator, or (dropout) from torch's global one, which is seeded inside and put back.
        data: tensors with the same number of rows, batched by index; or an iterable of batches, such as a
            ``DataLoader`` or an endless generator. Either is moved to the module's device.
        validation: like ``data``, but finite; its loss, in eval mode, with the averaged parameters and the same noise
            each time, is computed at each record, and the module ends with the state where it was smallest.
        epochs, steps: how long at most; at least one of them. Epochs need data with a length.
        batch_size: rows in a batch, over all processes; data in memory only.
        shuffle: whether the rows' order is random, another one each epoch; data in memory only.
        learning_rate: the step size η of Adam (fused where the device has it); or a function that gives it from the
            fraction of the steps that are done, such as ``cosine(1e-3)``.
        optimiser: makes another optimiser from the list of parameters; a number as learning rate is then its own.
        clip: the largest norm of the gradient; a longer one is scaled down to it. The history then has the mean
            ``gradient_norm`` before, and the share of steps ``clipped``.
        ema: the decay of the moving average of the parameters, such as 0.999, which validates and is the result.
        patience: records without a smaller validation loss until it stops early; None: never.
        every: steps between records (a row of the history, and a validation); None: an epoch.
        precision: "bf16" or "fp16" computes the loss in mixed precision (with scaled gradients for "fp16").
        compile: whether ``torch.compile`` compiles the loss, or the backend to compile with.
        checkpoint: a file that holds the whole state of the run, written every ``checkpoint_seconds`` and at the end,
            as a whole or not at all; by several processes only at records.
        checkpoint_seconds: between two of them; 0: after each step.
        resume: whether to go on from the checkpoint, if it is there. The result equals that of an uninterrupted run bit
            by bit, on the same machine, thread count and torch version; ``seconds`` count what was computed. With more
            steps than before, the run goes on.
        identity: what else makes this run another one, as JSON can hold it; a checkpoint of another run is refused.
        together: whether the processes of ``torchrun`` share one run, which all of them must then call; False: each
            runs by itself.
        seed: of the order of the rows and of the loss's noise.
        progress: whether to show a bar; None: where stderr is a terminal.

    Returns:
        A ``Descent``. Ctrl-C ends it early with a warning and keeps what was learned; the checkpoint of the last
        minute stands.

    Raises:
        NotFiniteError: a ``ConvergenceError``, when the loss, the gradient or a parameter becomes NaN or infinite; the
            module has the state of its last good record (with ``validation``, of its best).
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Kingma and Ba (2015), Adam: a method for stochastic optimization, ICLR.

    Example:
        >>> import torch
        >>> line = torch.nn.Linear(1, 1).double()
        >>> x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
        >>> fit = descend(line, lambda b, _: ((line(b[0]) - b[1]) ** 2).mean(), (x, 3 * x), epochs=400,
        ...               learning_rate=0.05, progress=False)
        >>> round(line.weight.item(), 3)
        3.0
    """
    adam = chosen_optimiser(module, optimiser, learning_rate)
    schedule = learning_rate if callable(learning_rate) else None
    group = processes_of(module, data, together)
    player = Player(
        module, loss, adam, schedule, clip=clip, ema=ema, precision=precision, compiled=compile, group=group
    )
    stream = stream_of(data, batch_size, shuffle, player.device, seed)
    total = total_steps(epochs, steps, stream.length)
    run_is = {
        "loop": "descend",
        "identity": identity,
        "player": player.says(),
        "batch_size": batch_size if isinstance(stream, Rows) else None,
        "shuffle": shuffle,
        "learning_rate": None if callable(learning_rate) or optimiser else learning_rate,
        "seed": seed,
        "every": every,
        "data": None if checkpoint is None else fingerprint(data),
        "validation": None if checkpoint is None else fingerprint(validation),
    }
    saver = Saver(checkpoint, resume, checkpoint_seconds, run_is)
    validate = _validation(player, validation, batch_size, seed)
    every = None if every is None else positive(every, "every")
    keeper = Keeper(module, None if patience is None else positive(patience, "patience"))
    run = Run(module, [player], _turn, stream, validate, total, every, seed, keeper, group)
    return run(saver, progress)


def _turn(run: Run) -> tuple[float, dict[str, Tensor]]:
    """Take one step on the next batch."""
    (player,) = run.players
    return player.step(next(run.stream), run.noise, run.done, run.step + 1)


def _validation(player: Player, validation: Any, size: int, seed: int) -> Callable[[Run], float | None]:
    """Return the function that computes the validation loss, with the same noise each time."""
    if validation is None:
        return lambda run: None
    memory = in_memory(validation)
    if memory:
        check_rows(validation, "validation")

    def value(run: Run) -> float:
        mean, noise = Mean(), torch.Generator(player.device).manual_seed(seed)
        for found in batches(validation, size) if memory else validation:
            share, rows = run.group.share(as_batch(found, player.device))
            mean.add(rows, {"loss": player.value(share, noise)[0]})
        if not mean.rows:
            raise ValueError("validation must hold at least one batch each time; it yielded none.")
        sums = torch.stack([mean.sums["loss"].double(), torch.tensor(mean.rows, device=player.device).double()])
        loss, count = run.group.total(sums).tolist()
        return loss / count

    return value


def in_memory(data: Any) -> bool:
    """Whether data are tensors to be batched by index; a tensor alone is an error that ``check_rows`` explains."""
    return isinstance(data, Tensor) or (isinstance(data, (tuple, list)) and all(isinstance(t, Tensor) for t in data))


def stream_of(data: Any, batch_size: int, shuffle: bool, device: torch.device, seed: int) -> Stream:
    """Return the batches of data in memory, or of an iterable.

    Raises:
        ValueError, TypeError: for data or a batch size that cannot be used.
    """
    size = positive(batch_size, "batch_size")
    if in_memory(data):
        check_rows(data, "data")
        return Rows([t.to(device) for t in data], size, seed, shuffle)
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be a tuple of tensors or an iterable of batches; got {type(data).__name__}.")
    return Loaded(data, device, seed)


def total_steps(epochs: int | None, steps: int | None, per_epoch: int | None) -> int:
    """Return the number of steps at most."""
    if epochs is None and steps is None:
        raise ValueError("pass epochs or steps, so that the descent has an end.")
    if epochs is not None and per_epoch is None:
        raise ValueError("epochs need data with a length; these have none. Pass steps instead.")
    limits = [] if epochs is None or per_epoch is None else [positive(epochs, "epochs") * per_epoch]
    return min(limits if steps is None else [*limits, positive(steps, "steps")])


def positive(value: int, name: str) -> int:
    """Return a positive whole number, or raise a ValueError that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return value
