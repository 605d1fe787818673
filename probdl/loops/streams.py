"""Batches one after another, pass after pass, from a place that a checkpoint can name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from probdl.loops.batches import Batch, batches, check_rows


class Stream(ABC):
    """An endless stream of batches; ``passes`` are finished, and ``index`` batches of the present one are taken.

    All that decides the order is a random state at the start of a pass, ``origin``: from there a pass can be taken
    up again in the middle.
    """

    def __init__(self) -> None:
        self.passes = self.index = 0
        self.length: int | None = None  # batches in a pass, where that is known
        self._pass: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        """Return the next batch; the first pass that yields none ends the stream."""
        if self._pass is None:
            self._pass = self._start()
        batch = next(self._pass)
        self.index += 1
        self._look_ahead()
        return batch

    @property
    def epoch(self) -> int:
        """The number, from 1, of the pass that the last batch belonged to."""
        return self.passes + (self.index > 0)

    def state(self) -> dict[str, Any]:
        """Return the place, as tensors and numbers."""
        return {"passes": self.passes, "index": self.index, "origin": self._origin()}

    def load(self, state: dict[str, Any]) -> None:
        """Go to a place that ``state`` returned."""
        self.passes, index = state["passes"], state["index"]
        self._return_to(state["origin"])
        if index:
            self._pass, self.index = self._start(), index
            for _ in islice(self._pass, index):
                pass

    def close(self) -> None:
        """Let go of the present pass, and so of a DataLoader's workers, which a cycle of references would hold."""
        if isinstance(self._pass, Generator):
            self._pass.close()
        self._pass = None

    def _end_pass(self) -> None:
        self.passes, self.index, self._pass = self.passes + 1, 0, None

    @abstractmethod
    def _look_ahead(self) -> None:
        """End the pass if no batch is left in it."""

    @abstractmethod
    def _start(self) -> Iterator[Batch]:
        """Start a pass, and keep the random state that it starts from."""

    @abstractmethod
    def _origin(self) -> dict[str, Tensor]:
        """Return the random states at the start of the present pass."""

    @abstractmethod
    def _return_to(self, origin: dict[str, Tensor]) -> None:
        """Set the random states to those of the start of a pass."""


class Rows(Stream):
    """Batches of rows of tensors in memory, by index.

    Args:
        data: tensors with the same number of rows on the same device.
        size: rows in a batch; the last batch of a pass may have fewer.
        seed: of the order of each pass.
        shuffle: whether the order is random.
    """

    length: int

    def __init__(self, data: Sequence[Tensor], size: int, seed: int, shuffle: bool = True) -> None:
        super().__init__()
        check_rows(data, "data")
        self.data, self.size, self.shuffle = tuple(data), size, shuffle
        self.length = math.ceil(len(data[0]) / size)
        self._generator = torch.Generator(data[0].device).manual_seed(seed)
        self._before = self._generator.get_state()

    def _start(self) -> Iterator[Batch]:
        self._before = self._generator.get_state()
        return batches(self.data, self.size, self._generator if self.shuffle else None)

    def _look_ahead(self) -> None:
        if self.index == self.length:
            self._end_pass()

    def _origin(self) -> dict[str, Tensor]:
        return {"order": self._before if self.index else self._generator.get_state()}

    def _return_to(self, origin: dict[str, Tensor]) -> None:
        self._generator.set_state(origin["order"])


class Loaded(Stream):
    """Batches of an iterable, such as a ``DataLoader``, moved to a device.

    What the iterable draws from torch's global generator, it draws from a random state of its own, so that the order
    depends on the seed alone. One batch is fetched ahead, to know where a pass ends.

    Args:
        data: yields tensors, or tuples or lists of tensors, with the rows in the first dimension.
        device: where to.
        seed: of the random state.
    """

    def __init__(self, data: Iterable[Any], device: torch.device, seed: int) -> None:
        super().__init__()
        self.data, self.device = data, device
        self.once = isinstance(data, Iterator)  # iter() of a DataLoader would draw
        self.length = len(data) if isinstance(data, Sized) else None
        self._global = torch.Generator().manual_seed(seed).get_state()
        self._own = _generators(data)
        self._before = self._now()

    def __next__(self) -> Batch:
        """Return the next batch."""
        if self.once and self.passes:
            raise StopIteration
        return super().__next__()

    def _start(self) -> Iterator[Batch]:
        self._before = self._now()
        sampler: Any = getattr(self.data, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.passes)
        with self._own_state():
            raw = iter(self.data)
        self._ahead = self._fetch(raw)
        return self._ready(raw)

    def _ready(self, raw: Iterator[Any]) -> Iterator[Batch]:
        while self._ahead is not None:
            batch = self._ahead
            self._ahead = self._fetch(raw)
            yield batch

    def _fetch(self, raw: Iterator[Any]) -> Batch | None:
        with self._own_state():
            found = next(raw, None)
        return None if found is None else as_batch(found, self.device)

    def _look_ahead(self) -> None:
        if self._ahead is None:
            self._end_pass()

    @contextmanager
    def _own_state(self) -> Iterator[None]:
        outside = torch.get_rng_state()
        torch.set_rng_state(self._global)
        try:
            yield
        finally:
            self._global = torch.get_rng_state()
            torch.set_rng_state(outside)

    def _now(self) -> dict[str, Tensor]:
        return {"global": self._global} | {f"own {i}": g.get_state() for i, g in enumerate(self._own)}

    def _origin(self) -> dict[str, Tensor]:
        return self._before if self.index else self._now()

    def _return_to(self, origin: dict[str, Tensor]) -> None:
        self._global = origin["global"]
        for i, generator in enumerate(self._own):
            generator.set_state(origin[f"own {i}"])


def as_batch(found: Any, device: torch.device) -> Batch:
    """Return what an iterable yielded as a tuple of tensors on a device, or raise a TypeError."""
    parts = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(
            f"data must yield tensors, or tuples of tensors, with rows in front; it yielded ({kinds}). "
            "Turn arrays into tensors by torch.as_tensor."
        )
    return tuple(part.to(device) for part in parts)


def _generators(data: Any) -> list[torch.Generator]:
    """Return the generators of a DataLoader's own."""
    owners = (data, getattr(data, "sampler", None))
    found = [g for g in (getattr(owner, "generator", None) for owner in owners) if isinstance(g, torch.Generator)]
    return list(dict.fromkeys(found))
