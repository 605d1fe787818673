"""The loop that descents and duels share: steps, records, and four ways to end."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probdl.errors import ConvergenceWarning
from probdl.loops.checkpoint import Saver
from probdl.loops.keeper import Keeper, not_finite
from probdl.loops.player import Player, all_not_finite
from probdl.loops.progress import bar
from probdl.loops.record import Descent, Mean, NotFiniteError, table
from probdl.loops.streams import Stream
from probdl.loops.together import Alone
from probdl.nn.seeding import seeded


@dataclass
class Run:
    """One run of a loop: where it stands, and the loop itself.

    Attributes:
        module: all that is kept and put back: parameters and buffers of all players.
        players: who steps.
        turn: one step of the loop, (run) → (rows, terms).
        stream: where batches come from.
        validate: the validation loss of the present state, or None.
        total: the number of steps at most.
        every: steps between records; None: a pass of the data.
        seed: of the noise.
        keeper: the state to end with.
        group: the processes.
    """

    module: nn.Module
    players: list[Player]
    turn: Callable[[Run], tuple[float, dict[str, Any]]]
    stream: Stream
    validate: Callable[[Run], float | None]
    total: int
    every: int | None
    seed: int
    keeper: Keeper
    group: Alone = field(default_factory=Alone)
    label: str = "descend"

    def __post_init__(self) -> None:
        self.step, self.recorded, self.seconds = 0, 0, 0.0
        self.rows: list[dict[str, Any]] = []
        self.mean = Mean()
        self.device = self.players[0].device
        self.noise = torch.Generator(self.device).manual_seed(apart(self.seed, 1 + 2 * self.group.rank))
        self._global = apart(self.seed, 2 + 2 * self.group.rank)

    def __call__(self, saver: Saver, progress: bool | None) -> Descent:
        """Run until the end, the patience's end, Ctrl-C, or a number that is not finite."""
        training, interrupted = self.module.training, False
        with seeded(self._global, self.device):
            saver.resume(self)
            with bar(self.total, progress if self.group.rank == 0 else False, self.label, self.step) as shown:
                try:
                    self._steps(saver, shown)
                except KeyboardInterrupt:
                    interrupted = True
                except FloatingPointError as error:
                    self.keeper.restore()
                    raise self._not_finite(error) from None
                finally:
                    self.module.train(training)
                    self.stream.close()
                    for player in self.players:
                        player.optimiser.zero_grad(set_to_none=True)
        return self._end(interrupted)

    @property
    def over(self) -> bool:
        """Whether no step is to be taken."""
        return self.step == self.total or self.keeper.spent

    @property
    def done(self) -> float:
        """The fraction of the steps that are done."""
        return self.step / self.total

    def state(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on, but for the random states."""
        return {
            "step": self.step,
            "recorded": self.recorded,
            "seconds": self.seconds + time.perf_counter() - self._start,
            "rows": self.rows,
            "mean": self.mean.state(),
            "module": dict(self.module.state_dict()),
            "keeper": self.keeper.state(),
            "stream": self.stream.state(),
            "players": [player.state() for player in self.players],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` returned."""
        self.step, self.recorded, self.seconds = state["step"], state["recorded"], state["seconds"]
        self.rows = state["rows"]
        self.mean.load(state["mean"])
        self.module.load_state_dict(state["module"])
        self.keeper.load(state["keeper"])
        self.stream.load(state["stream"])
        for player, saved in zip(self.players, state["players"]):
            player.load(saved)

    def _steps(self, saver: Saver, shown: Any) -> None:
        self._start = time.perf_counter()
        self.module.train()
        while not self.over:
            try:
                rows, terms = self.turn(self)
            except StopIteration:
                break
            self.mean.add(rows, terms)
            self.step += 1
            shown.update()
            if not shown.disable:
                shown.set_postfix_str(f"loss={float(terms['loss'].detach()):.4g}", refresh=False)
            if self._due():
                self._record()
            saver.offer(self)
        if self.mean.rows:
            self._record()
        if not self.rows:
            raise ValueError("data must hold at least one batch; it yielded none.")
        saver.close(self)

    def _due(self) -> bool:
        if self.every is not None:
            return self.step % self.every == 0
        return self.stream.passes > self.recorded

    def _record(self) -> None:
        """Validate the present state, keep it if it is the best, and add a row to the history."""
        all_not_finite(self.module, self.step)
        self.group.agree(self.module, buffers_only=True)
        with ExitStack() as averages:
            for player in self.players:
                if player.average is not None:
                    averages.enter_context(player.average.in_place())
            held_out = self._validated()
            self.keeper.offer(self.stream.epoch, held_out)
        place = {"step": self.step, "epoch": self.stream.epoch, "seconds": self.seconds + self._elapsed()}
        means = self.mean.values()
        loss = means.pop("loss")
        self.rows.append({**place, "loss": loss, "validation": math.nan if held_out is None else held_out, **means})
        self.mean, self.recorded = Mean(), self.stream.passes

    def _validated(self) -> float | None:
        self.module.eval()
        with torch.no_grad():
            value = self.validate(self)
        self.module.train()
        if value is not None and not math.isfinite(value):
            raise FloatingPointError(f"The validation loss became {value} after step {self.step}.")
        return value

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _not_finite(self, error: FloatingPointError) -> NotFiniteError:
        message = (
            f"{error} (Epoch {self._epoch}.) The state after epoch {self.keeper.epoch} was put back. "
            "Try a smaller learning_rate or clip=, and look for extreme values in the data."
        )
        failure = NotFiniteError(message)
        failure.descent = Descent(table(self.rows), self.keeper.epoch, False, message)
        return failure

    @property
    def _epoch(self) -> int:
        return max(1, self.stream.epoch)

    def _end(self, interrupted: bool) -> Descent:
        for player in self.players:
            if player.average is not None:
                player.average.settle()
        back = bool(not_finite(self.module)) or self.keeper.best < math.inf
        if back:
            self.keeper.restore()
        epoch = self.keeper.epoch if back else self._epoch
        how = "stopped early" if self.keeper.spent else f"ended after {self.step} of {self.total} steps"
        message = f"{'interrupted' if interrupted else how} in epoch {self._epoch}; has the state of epoch {epoch}"
        if interrupted:
            warnings.warn(f"The run was {message}: what was learned so far is kept.", ConvergenceWarning, 4)
        return Descent(table(self.rows), epoch, interrupted, message)


def apart(seed: int, stream: int) -> int:
    """Return a seed for another stream of random numbers than that of ``seed`` itself, which orders the rows."""
    return (seed + stream * 0x9E3779B1) % 2**32  # the CPU's generator reads 32 bits
