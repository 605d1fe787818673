"""Minibatches of a Pyro program: where their rows come from, and how their log-density scales to all rows.

A program with a plate over n rows has the log-density :math:`g(z) + \\sum_{i=1}^n ℓ_i(z)`: a part that every batch has
in full, and one term a row. A row source gives batches of rows, runs the program on one of them, and says by which
factor its rows count, so that the mean over batches is the whole.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from probdl.inference.programs.program import Program, _log_prob

CHUNK = 2**14  # rows at once in a pass over all of them


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Attributes:
        inputs: the tensors that differ between batches: rows of the arguments, or indices.
        size: how many rows.
        factor: what its sum over rows is multiplied by.
    """

    inputs: tuple[Tensor, ...]
    size: int
    factor: float


class GivenRows(Messenger):
    """Let plates that draw rows at random take these instead."""

    def __init__(self, rows: dict[str, Tensor]) -> None:
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["name"] in self.rows:
            msg["value"], msg["done"] = self.rows[msg["name"]], True


def site_sums(trace: Any, plates: tuple[str, ...], without: tuple[str, ...] = ()) -> tuple[Tensor, Tensor]:
    """Return the log-density of a trace's sites outside the plates, and inside.

    Inside one plate it is the unscaled sum over its rows; several plates keep their own scales.
    """
    outside, inside = [torch.zeros(())], [torch.zeros(())]
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site) and name not in without:
            frames = [frame for frame in site["cond_indep_stack"] if frame.name in plates]
            ratio = _ratio(frames[0]) if len(plates) == 1 and frames else 1.0
            (inside if frames else outside).append(_log_prob(site).sum() / ratio)
    return torch.stack(outside).sum(), torch.stack(inside).sum()


def _ratio(frame: Any) -> float:
    return frame.full_size / frame.size if frame.full_size else 1.0


class RowSource(ABC):
    """Where batches come from.

    Attributes:
        program: the model with its data.
        plates: the plates whose rows are drawn; empty where all rows are used.
        n: the number of rows.
        batch_size: rows in a batch.
        can_pass: whether one pass over all rows is possible.
        can_repeat: whether batches come again; else they end with StopIteration.
    """

    program: Program
    plates: tuple[str, ...] = ()
    n: int = 1
    batch_size: int = 1
    can_pass: bool = True
    can_repeat: bool = True

    def prepare(self) -> None:  # noqa: B027 - most sources have nothing to do
        """Check what can be checked before anything is learned."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches in random order without end; each passes over the rows before it repeats one."""

    @abstractmethod
    def whole(self) -> Iterator[Batch]:
        """Yield batches whose sums over rows, times their factors, add up to that of all rows."""

    @abstractmethod
    def on(self, inputs: tuple[Tensor, ...]) -> Program:
        """Return the program on these rows."""

    def terms(self, z: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the part of the log-density outside the rows and the unscaled sum over these rows, (2,)."""
        program = self.on(inputs)
        trace = program._trace(program._value_at(z))
        with program._running():
            outside, inside = site_sums(trace, self.plates, without=tuple(program.discrete))
            outside = outside + program._log_jacobian(z)
        if program.discrete:  # summed out by log_joint, inside the plates
            inside = program.log_joint(z) - outside
        return torch.stack([outside, inside])

    def with_rows(self, model: Callable, inputs: tuple[Tensor, ...]) -> Callable:
        """Return a model or guide whose plates take the rows of a batch, where its plates draw them."""
        return model

    def pilot(self, rows: int, generator: torch.Generator) -> list[Batch]:
        """Return batches with about that many rows, whose factors scale them to all rows."""
        batches: list[Batch] = []
        source = self.batches(generator)
        while sum(b.size for b in batches) < min(rows, self.n):
            batches.append(next(source))
        seen = sum(b.size for b in batches)
        return [Batch(b.inputs, b.size, b.factor * b.size / seen) for b in batches]

    def fixed(self, count: int, generator: torch.Generator) -> list[Batch]:
        """Return that many batches to compare things on."""
        return list(itertools.islice(self.batches(generator), count))


class AllRows(RowSource):
    """The program as it is: one batch that holds everything."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the whole again and again."""
        while True:
            yield Batch((), 1, 1.0)

    def whole(self) -> Iterator[Batch]:
        """Yield the whole once."""
        yield Batch((), 1, 1.0)

    def on(self, inputs: tuple[Tensor, ...]) -> Program:
        """Return the program itself."""
        return self.program


class RowsOfArguments(RowSource):
    """Rows of the data arguments whose first dimension is that of a full plate.

    Args:
        program: the model with all its data.
        plate: its plate over the rows.
        n: the size of the plate.
        batch_size: rows in a batch.
    """

    def __init__(self, program: Program, plate: str, n: int, batch_size: int) -> None:
        self.program, self.plates, self.n, self.batch_size = program, (plate,), n, batch_size
        self.columns = row_arguments(program, n)

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield rows of random permutations; a remainder smaller than a batch is left out of its permutation."""
        for rows in _shuffled(self.n, self.batch_size, generator):
            yield self.at(rows)

    def whole(self) -> Iterator[Batch]:
        """Yield consecutive rows."""
        for rows in torch.arange(self.n).split(max(CHUNK, self.batch_size)):
            yield Batch(tuple(x[rows[0] : rows[-1] + 1] for x in self._data()), len(rows), 1.0)

    def at(self, rows: Tensor) -> Batch:
        """Return the batch of these rows."""
        rows = rows.to(self.program.device)
        return Batch(tuple(x.index_select(0, rows) for x in self._data()), len(rows), self.n / len(rows))

    def pilot(self, rows: int, generator: torch.Generator) -> list[Batch]:
        """Return one batch of that many random rows."""
        return [self.at(torch.randperm(self.n, generator=generator)[: min(rows, self.n)])]

    def _data(self) -> list[Tensor]:
        args, kwargs = self.program.args, self.program.kwargs
        return [args[key] if isinstance(key, int) else kwargs[key] for key in self.columns]

    def on(self, inputs: tuple[Tensor, ...]) -> Program:
        """Return the program with these rows as its arguments."""
        program = copy.copy(self.program)
        rows = dict(zip(self.columns, inputs))
        program.args = tuple(rows.get(i, x) for i, x in enumerate(program.args))
        program.kwargs = {name: rows.get(name, x) for name, x in program.kwargs.items()}
        return program


class RowsOfPlates(RowSource):
    """Rows of the plates that the user subsamples: ``pyro.plate(name, n, subsample_size=m)``.

    Args:
        program: the model with all its data.
        sizes: of each plate, n and m.
    """

    def __init__(self, program: Program, sizes: dict[str, tuple[int, int]]) -> None:
        self.program, self.plates, self.sizes = program, tuple(sizes), sizes
        self.can_pass = len(sizes) == 1
        self.n, self.batch_size = next(iter(sizes.values()))

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield indices of random permutations, one for each plate."""
        draws = [_shuffled(n, m, generator) for n, m in self.sizes.values()]
        factor = self.n / self.batch_size if len(draws) == 1 else 1.0
        for rows in zip(*draws):
            yield Batch(tuple(r.to(self.program.device) for r in rows), self.batch_size, factor)

    def whole(self) -> Iterator[Batch]:
        """Yield consecutive indices, m at a time, as the plate allows no other number.

        The remainder R is filled up with copies of one row f, whose share is then taken away: with r rows in R,
        ℓ(R) = ℓ(R, f, …, f) − (m − r)/m · ℓ(f, …, f).
        """
        m, rows = self.batch_size, torch.arange(self.n, device=self.program.device)
        for part in rows.split(m):
            filled = torch.cat([part, part[:1].expand(m - len(part))])
            yield Batch((filled,), len(part), 1.0)
        if self.n % m:
            yield Batch((part[:1].expand(m).clone(),), 0, -(m - len(part)) / m)

    def on(self, inputs: tuple[Tensor, ...]) -> Program:
        """Return the program whose plates take these indices."""
        program = copy.copy(self.program)
        program.model = self.with_rows(self.program.model, inputs)
        return program

    def with_rows(self, model: Callable, inputs: tuple[Tensor, ...]) -> Callable:
        """Return a model or guide whose plates take these indices."""
        return with_rows(model, dict(zip(self.plates, inputs)))


def with_rows(model: Callable, rows: dict[str, Tensor]) -> Callable:
    """Return the model, whose plates take these rows."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with GivenRows(rows):
            return model(*args, **kwargs)

    return run


def row_arguments(program: Program, n: int) -> list[int | str]:
    """Return the places and names of the arguments that are tensors with n rows."""
    named: list[tuple[int | str, Any]] = [*enumerate(program.args), *program.kwargs.items()]
    return [key for key, x in named if isinstance(x, Tensor) and x.ndim and len(x) == n]


def _shuffled(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % size].split(size)
