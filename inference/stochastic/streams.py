"""Data that do not fit in memory: an iterable of batches of a model's arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.checks import check_support
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.minibatches import Batch, RowsOfArguments, with_rows
from probdl.inference.stochastic.row_plates import check_parts, local_sites, plates_of_observations

Item = Any


def looks_like_batches(args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the only argument is an iterator or a torch DataLoader, which no array is."""
    only = args[0] if len(args) == 1 and not kwargs else None
    return hasattr(only, "__next__") or isinstance(only, torch.utils.data.DataLoader)


class Stream:
    """Batches from an iterable, or from a function that returns a fresh one.

    Args:
        given: a list, a DataLoader, a generator (which can be read once), or a function without arguments.
        size: the number of rows in all.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is empty, or size is not a positive integer.
    """

    def __init__(self, given: Iterable[Item] | Callable[[], Iterable[Item]], size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"size must be the number of rows in all, a positive integer; got {size!r}.")
        if isinstance(given, (Tensor, np.ndarray, str, dict)) or not (callable(given) or hasattr(given, "__iter__")):
            raise TypeError(
                "With size=, pass fit one iterable of batches, or a function that returns one; got "
                f"{type(given).__name__}. For data in memory leave size out and pass batch_size=."
            )
        self.given, self.size = given, size
        self.once = hasattr(given, "__next__")
        opened = self.open()
        try:
            self.first = next(opened)
        except StopIteration:
            raise ValueError("The iterable of batches is empty: it gave no batch at all.") from None
        self._left: Iterator[Item] = itertools.chain([self.first], opened)

    def look(self, n: int) -> list[Item]:
        """Return the first n batches; an iterable that can be read only once will not give them again."""
        return list(itertools.islice(self._left if self.once else self.open(), n))

    def open(self) -> Iterator[Item]:
        """Return a fresh iterator over the batches."""
        return iter(self.given() if callable(self.given) else self.given)

    def passes(self) -> Iterator[Iterator[Item]]:
        """Yield iterators over the batches: one that goes on where it stood, if it can be read only once."""
        if self.once:
            yield self._left
            return
        while True:
            yield self.open()


def arguments_of(item: Item) -> tuple[tuple, dict[str, Any]]:
    """Return positional and keyword arguments of one batch: a tuple or list, a dict, or a single tensor."""
    if isinstance(item, dict):
        return (), item
    return (tuple(item), {}) if isinstance(item, (tuple, list)) else ((item,), {})


class RowsOfStream(RowsOfArguments):
    """Rows of an iterable's batches.

    Args:
        program: the model with the first batch as its data.
        stream: the batches.

    Raises:
        ValueError: if no plate has the rows of a batch, or halves of a batch do not add up to it.
    """

    def __init__(self, program: Program, stream: Stream) -> None:
        self.program, self.stream, self.n = program, stream, stream.size
        self.plates, self.batch_size = (_plate(program, stream.size),), 0
        args, kwargs = arguments_of(stream.first)
        self.columns = [*range(len(args)), *kwargs]
        self.batch_size = self._rows(tuple(self._data()))
        self.can_pass = self.can_repeat = not stream.once
        self._each = 0.0
        if not program.subsampled:
            check_parts(self)

    def prepare(self) -> None:
        """Count the rows, and check the observations of each batch, where the iterable can be read again."""
        if self.can_pass:
            for i, batch in enumerate(self.whole()):
                self._check(batch.inputs, f"In batch {i + 1} of the iterable")

    def _check(self, inputs: tuple[Tensor, ...], where: str) -> None:
        """Raise a ConvergenceError where an observation is outside the support; what is not finite is found later."""
        if local_sites(self.program, self.plates) or any(not bool(torch.isfinite(x).all()) for x in inputs):
            return
        program = self.on(inputs)
        trace = program._trace(program._value_at(program.start))
        for name in program.observed:
            if not bool(trace.nodes[name]["fn"].support.check(trace.nodes[name]["value"]).all()):
                moved = program._trace(program._value_at(program.start + 0.37))
                try:
                    check_support(name, trace.nodes[name], moved.nodes[name])
                except ValueError as error:
                    raise ConvergenceError(f"{where}: {error}") from error

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches in their order, again and again if the iterable can be read again."""
        for items in self.stream.passes():
            got = 0
            for item in items:
                got += 1
                batch = self._batch(item)
                if self.stream.once:
                    self._check(batch.inputs, f"In batch {got} after the pilot's")
                yield batch
            if not got and not self.stream.once:
                raise ValueError("The function of batches returned an empty iterable when it was called again.")

    def whole(self) -> Iterator[Batch]:
        """Yield each batch once, and count: afterwards every batch weighs as one of that many."""
        rows = count = 0
        for item in self.stream.open():
            inputs = self._tensors(item)
            rows, count = rows + self._rows(inputs), count + 1
            yield Batch(inputs, self._rows(inputs), 1.0)
        if rows != self.n:
            raise ValueError(f"size={self.n}, but the batches of one pass have {rows} rows. Give their true number.")
        self._each = float(count)

    def pilot(self, rows: int, generator: torch.Generator) -> list[Batch]:
        """Return the first batches with about that many rows."""
        batches = [self._batch(item) for item in self.stream.look(math.ceil(min(rows, self.n) / self.batch_size))]
        seen = sum(b.size for b in batches)
        return [Batch(b.inputs, b.size, self.n / seen) for b in batches]

    def fixed(self, count: int, generator: torch.Generator) -> list[Batch]:
        """Return the first batches."""
        return [self._batch(item) for item in self.stream.look(count)]

    def on(self, inputs: tuple[Tensor, ...]) -> Program:
        """Return the program with this batch as its arguments; a plate of all rows takes them as its subsample."""
        program = super().on(inputs)
        program.model = self.with_rows(program.model, inputs)
        return program

    def with_rows(self, model: Callable, inputs: tuple[Tensor, ...]) -> Callable:
        """Return a model or guide whose subsampling plates take the rows of the batch in their order."""
        subsampled = self.program.subsampled
        rows = {k: torch.arange(m, device=self.program.device) for k, (_, m) in subsampled.items()}
        return with_rows(model, rows) if rows else model

    def _batch(self, item: Item) -> Batch:
        inputs = self._tensors(item)
        rows = self._rows(inputs)
        return Batch(inputs, rows, self._each or self.n / rows)

    def _tensors(self, item: Item) -> tuple[Tensor, ...]:
        """Convert as ``fit`` does; values that are not finite are found, with their step, by whoever uses them."""
        args, kwargs = arguments_of(item)
        if [*range(len(args)), *kwargs] != self.columns:
            raise ValueError(f"Every batch must have the arguments of the first, {self.columns}; got {len(args)} "
                             f"positional ones and {list(kwargs)}.")  # fmt: skip
        return tuple(self._tensor(x, like) for x, like in zip((*args, *kwargs.values()), self._data()))

    def _tensor(self, x: Any, like: Tensor) -> Tensor:
        values = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        return values.to(like.device, like.dtype)

    def _rows(self, inputs: tuple[Tensor, ...]) -> int:
        rows = {len(x) for x in inputs if x.ndim}
        if len(rows) != 1 or 0 in rows:
            raise ValueError(
                f"The arguments in a batch must have the same, positive number of rows; got {sorted(rows)}."
            )
        return rows.pop()


def _plate(program: Program, size: int) -> str:
    """The plate over the rows of a batch: full over these rows, or of all rows with these as its subsample."""
    args = [x for x in (*program.args, *program.kwargs.values()) if isinstance(x, Tensor) and x.ndim]
    rows = {len(x) for x in args}
    found = [k for k, n in plates_of_observations(program).items() if n in rows]
    for name, (n, m) in program.subsampled.items():
        if n != size or m not in rows:
            raise ValueError(
                f"plate {name!r} draws {m} of {n} rows, but the batches have {sorted(rows)} of {size} (size=). Make "
                "them agree, or leave subsample_size out."
            )
    if len(found) != 1:
        raise ValueError(
            f"Expected one plate over the {sorted(rows)} rows of a batch, such as pyro.plate('rows', len(X)); found "
            f"{found or 'none'}."
        )
    return found[0]
