"""Descend: follow the gradient of one loss."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from probdl.errors import ConvergenceWarning
from probdl.loops.batches import Batch, batches, check_rows
from probdl.loops.keeper import Keeper, not_finite
from probdl.loops.progress import bar
from probdl.loops.record import Descent, Loss, Mean, NotFiniteError, check_loss, parts, some, table


def descend(
    module: nn.Module,
    loss: Loss,
    data: Sequence[Tensor],
    *,
    validation: Sequence[Tensor] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    learning_rate: float | Callable[[float], float] = 1e-3,
    optimiser: Callable[[list[nn.Parameter]], Optimizer] | None = None,
    patience: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Descent:
    r"""Minimise a loss over the parameters of a module by stochastic gradients, :math:`θ ← θ − η\,g(θ)`.

    Args:
        module: its parameters are changed in place; it stands on the device of the data.
        loss: (batch, generator) → the loss, a scalar; or the loss and a dict of further scalars for the history.
            All that it draws comes from the generator.
        data: tensors with the same number of rows; a batch is a tuple with the same rows of each.
        validation: tensors like ``data``; their loss, in eval mode and with the same noise each time, is computed
            after each epoch, and the module ends with the state where it was smallest.
        epochs, steps: how long at most; at least one of them.
        batch_size: rows in a batch.
        learning_rate: the step size η of Adam (fused where the device has it); or a function that gives it from the
            fraction of the steps that are done, such as ``cosine(1e-3)``.
        optimiser: makes another optimiser from the list of parameters; a number as learning rate is then its own.
        patience: epochs without a smaller validation loss until it stops early; None: never.
        seed: of the order of the rows and of the loss's noise.
        progress: whether to show a bar; None: where stderr is a terminal.

    Returns:
        A ``Descent``. Ctrl-C ends it early with a warning and keeps what was learned.

    Raises:
        NotFiniteError: a ``ConvergenceError``, when the loss or a parameter becomes NaN or infinite; the module has
            the state of its last good epoch (with ``validation``, of its best).
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
    check_rows(data, "data")
    total = _total_steps(epochs, steps, math.ceil(len(data[0]) / _positive(batch_size, "batch_size")))
    if validation is not None:
        check_rows(validation, "validation")
    rate = learning_rate if callable(learning_rate) else None
    adam = _optimiser(module, optimiser, learning_rate(0.0) if callable(learning_rate) else learning_rate)
    run = _Run(module, loss, data, validation, batch_size, total, seed, adam, rate)
    return run(Keeper(module, patience), progress)


def cosine(rate: float) -> Callable[[float], float]:
    r"""Return a learning rate that falls to zero along half a cosine, :math:`η\,(1 + \cos πt) / 2`, t from 0 to 1.

    Example:
        >>> cosine(0.1)(0.5)
        0.05
    """
    return lambda done: 0.5 * rate * (1 + math.cos(math.pi * done))


@dataclass
class _Run:
    """One descent: where it stands, and the loop itself."""

    module: nn.Module
    loss: Loss
    data: Sequence[Tensor]
    validation: Sequence[Tensor] | None
    batch_size: int
    total: int
    seed: int
    optimiser: Optimizer
    rate: Callable[[float], float] | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.data[0].device).manual_seed(self.seed)

    def __call__(self, keeper: Keeper, progress: bool | None) -> Descent:
        """Descend until the end, the patience's end, Ctrl-C, or a number that is not finite."""
        training, interrupted = self.module.training, False
        with bar(self.total, progress) as shown:
            try:
                self._epochs(keeper, shown)
            except KeyboardInterrupt:
                interrupted = True
            except FloatingPointError as error:
                keeper.restore()
                raise self._not_finite(error, keeper) from None
            finally:
                self.module.train(training)
                self.optimiser.zero_grad(set_to_none=True)
        return self._end(keeper, interrupted)

    def _epochs(self, keeper: Keeper, shown: Any) -> None:
        start = time.perf_counter()
        while self.step < self.total and not keeper.spent:
            self.epoch += 1
            means = self._one_epoch(shown)
            held_out = self._validate()
            keeper.offer(self.epoch, held_out)
            place = {"step": self.step, "epoch": self.epoch, "seconds": time.perf_counter() - start}
            loss = means.pop("loss")
            self.rows.append({**place, "loss": loss, "validation": math.nan if held_out is None else held_out, **means})
            shown.set_postfix({"loss": f"{loss:.4g}"} | _labelled(held_out), refresh=False)

    def _one_epoch(self, shown: Any) -> dict[str, float]:
        """Step through all rows once; return the means of the loss and of its terms."""
        self.module.train()
        mean = Mean()
        for batch in self._batches():
            value, terms = parts(self.loss(batch, self.generator))
            check_loss(value, terms, self.module, self.step + 1)
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()
            self._set_rate()
            self.optimiser.step()
            mean.add(len(batch[0]), {"loss": value, **terms})
            self.step += 1
            shown.update()
        return mean.values()

    def _set_rate(self) -> None:
        if self.rate is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(self.step / self.total)

    def _batches(self) -> Iterator[Batch]:
        for batch in batches(self.data, self.batch_size, self.generator):
            if self.step == self.total:
                return
            yield batch

    @torch.no_grad()
    def _validate(self) -> float | None:
        """Return the loss on the validation rows, with the same noise each time; check the parameters first."""
        if bad := not_finite(self.module):
            raise FloatingPointError(f"After step {self.step} these parameters are not finite: {some(bad)}.")
        if self.validation is None:
            return None
        self.module.eval()
        mean, noise = Mean(), torch.Generator(self.data[0].device).manual_seed(self.seed)
        for batch in batches(self.validation, self.batch_size):
            mean.add(len(batch[0]), {"loss": parts(self.loss(batch, noise))[0]})
        value = mean.values()["loss"]
        if not math.isfinite(value):
            raise FloatingPointError(f"The validation loss became {value} after step {self.step}.")
        return value

    def _not_finite(self, error: FloatingPointError, keeper: Keeper) -> NotFiniteError:
        message = (
            f"{error} (Epoch {self.epoch}.) The state after epoch {keeper.epoch} was put back. "
            "Try a smaller learning_rate, and look for extreme values in the data."
        )
        failure = NotFiniteError(message)
        failure.descent = self._descent(keeper.epoch, False, message)
        return failure

    def _end(self, keeper: Keeper, interrupted: bool) -> Descent:
        back = not_finite(self.module) or (self.validation is not None and keeper.epoch > 0)
        if back:
            keeper.restore()
        epoch = keeper.epoch if back else self.epoch
        how = "stopped early" if keeper.spent else f"ended after {self.step} of {self.total} steps"
        message = f"{'interrupted' if interrupted else how} in epoch {self.epoch}; has the state of epoch {epoch}"
        if interrupted:
            warnings.warn(f"The descent was {message}: what was learned so far is kept.", ConvergenceWarning, 4)
        return self._descent(epoch, interrupted, message)

    def _descent(self, epoch: int, interrupted: bool, message: str) -> Descent:
        return Descent(table(self.rows), epoch, interrupted, message)


def _optimiser(
    module: nn.Module, make: Callable[[list[nn.Parameter]], Optimizer] | None, learning_rate: float
) -> Optimizer:
    learnt = [p for p in module.parameters() if p.requires_grad]
    if not learnt:
        raise ValueError("module has no parameters to learn; pass one that has, with requires_grad=True.")
    if make is not None:
        return make(learnt)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive; got {learning_rate!r}.")
    return torch.optim.Adam(learnt, lr=learning_rate, fused=learnt[0].device.type in ("cpu", "cuda"))


def _total_steps(epochs: int | None, steps: int | None, per_epoch: int) -> int:
    if epochs is None and steps is None:
        raise ValueError("pass epochs or steps, so that the descent has an end.")
    limits = [] if epochs is None else [_positive(epochs, "epochs") * per_epoch]
    return min(limits if steps is None else [*limits, _positive(steps, "steps")])


def _positive(value: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    return value


def _labelled(validation: float | None) -> dict[str, str]:
    return {} if validation is None else {"validation": f"{validation:.4g}"}
