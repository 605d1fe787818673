"""Descend: follow the gradient of one loss."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.loops.batches import Batch, batches, check_rows
from probdl.loops.keeper import Keeper, not_finite
from probdl.loops.progress import bar

if TYPE_CHECKING:
    import pandas as pd

Terms = dict[str, Tensor]
Loss = Callable[[Batch, torch.Generator], "Tensor | tuple[Tensor, Terms]"]


@dataclass(frozen=True)
class Descent:
    """How a descent went.

    Attributes:
        history: one row an epoch: step, epoch, seconds, loss (mean over the epoch's rows), validation, then the terms.
        epoch: the epoch whose state the module has now.
        interrupted: whether Ctrl-C ended it.
        message: why it ended, in a sentence.
    """

    history: pd.DataFrame
    epoch: int
    interrupted: bool
    message: str


class NotFiniteError(ConvergenceError):
    """The loss became NaN or infinite; the module has its last good state again, ``descent`` holds the history."""

    descent: Descent


def descend(
    module: nn.Module,
    loss: Loss,
    data: Sequence[Tensor],
    *,
    validation: Sequence[Tensor] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
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
        learning_rate: the step size η of Adam (fused where the device has it).
        optimiser: makes another optimiser from the list of parameters.
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
    run = _Run(module, loss, data, validation, batch_size, total, seed, _optimiser(module, optimiser, learning_rate))
    return run(Keeper(module, patience), progress)


class _Run:
    """One descent: where it stands, and the loop itself."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        data: Sequence[Tensor],
        validation: Sequence[Tensor] | None,
        batch_size: int,
        total: int,
        seed: int,
        optimiser: Optimizer,
    ) -> None:
        self.module, self.loss, self.data, self.validation = module, loss, data, validation
        self.batch_size, self.total, self.seed, self.optimiser = batch_size, total, seed, optimiser
        self.generator = torch.Generator(data[0].device).manual_seed(seed)
        self.rows: list[dict[str, Any]] = []
        self.step, self.epoch = 0, 0

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
        mean = _Mean()
        for batch in self._batches():
            value, terms = _parts(self.loss(batch, self.generator))
            self._check(value, terms)
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()
            self.optimiser.step()
            mean.add(len(batch[0]), {"loss": value, **terms})
            self.step += 1
            shown.update()
        return mean.values()

    def _batches(self) -> Iterator[Batch]:
        for batch in batches(self.data, self.batch_size, self.generator):
            if self.step == self.total:
                return
            yield batch

    @torch.no_grad()
    def _validate(self) -> float | None:
        """Return the loss on the validation rows, with the same noise each time; check the parameters first."""
        if bad := not_finite(self.module):
            raise FloatingPointError(f"After step {self.step} these parameters are not finite: {_some(bad)}.")
        if self.validation is None:
            return None
        self.module.eval()
        mean, noise = _Mean(), torch.Generator(self.data[0].device).manual_seed(self.seed)
        for batch in batches(self.validation, self.batch_size):
            mean.add(len(batch[0]), {"loss": _parts(self.loss(batch, noise))[0]})
        value = mean.values()["loss"]
        if not math.isfinite(value):
            raise FloatingPointError(f"The validation loss became {value} after step {self.step}.")
        return value

    def _check(self, value: Tensor, terms: Terms) -> None:
        if math.isfinite(found := value.item()):
            return
        parts = "".join(f", {name} {float(term):g}" for name, term in terms.items())
        bad = not_finite(self.module)
        where = f"not finite are {_some(bad)}" if bad else "all parameters are finite, so the loss itself is at fault"
        raise FloatingPointError(f"The loss became {found} at step {self.step + 1}{parts}; {where}.")

    def _not_finite(self, error: FloatingPointError, keeper: Keeper) -> NotFiniteError:
        message = (
            f"{error} (Epoch {self.epoch}.) The state after epoch {keeper.epoch} was put back. "
            "Try a smaller learning_rate, and look for extreme values in the data."
        )
        failure = NotFiniteError(message)
        failure.descent = self._descent(keeper.epoch, False, message)
        return failure

    def _end(self, keeper: Keeper, interrupted: bool) -> Descent:
        if self.validation is not None or not_finite(self.module):
            keeper.restore()
        epoch = self.epoch if self.validation is None else keeper.epoch
        how = "stopped early" if keeper.spent else f"ended after {self.step} of {self.total} steps"
        message = f"{'interrupted' if interrupted else how} in epoch {self.epoch}; has the state of epoch {epoch}"
        if interrupted:
            warnings.warn(f"The descent was {message}: what was learned so far is kept.", ConvergenceWarning, 4)
        return self._descent(epoch, interrupted, message)

    def _descent(self, epoch: int, interrupted: bool, message: str) -> Descent:
        import pandas as pd

        columns = ["step", "epoch", "seconds", "loss", "validation"]
        history = pd.DataFrame(self.rows, columns=None if self.rows else columns)
        return Descent(history, epoch, interrupted, message)


class _Mean:
    """Means over rows that are added up on the device, and read once."""

    def __init__(self) -> None:
        self.sums: Terms = {}
        self.rows = 0

    def add(self, rows: int, terms: Terms) -> None:
        self.rows += rows
        for name, term in terms.items():
            value = term.detach() * rows
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def values(self) -> dict[str, float]:
        return {name: float(total) / self.rows for name, total in self.sums.items()}


def _parts(result: Tensor | tuple[Tensor, Terms]) -> tuple[Tensor, Terms]:
    value, terms = (result, {}) if isinstance(result, Tensor) else result
    if value.ndim:
        raise ValueError(f"loss must return a scalar; got shape {tuple(value.shape)}. Take the mean over rows.")
    return value, terms


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


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
