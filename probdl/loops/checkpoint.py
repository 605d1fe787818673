"""Checkpoints: all that the rest of a run depends on, in one file that is written whole or not at all."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl import files
from probdl.errors import ConvergenceWarning
from probdl.trees import flatten, unflatten

if TYPE_CHECKING:
    from probdl.loops.run import Run

KIND = "checkpoint"


class Saver:
    """Writes the checkpoints of a run, and takes a run up from one.

    Args:
        path: of the file; None: no checkpoints.
        resume: whether to take the run up from the file, if it is there.
        seconds: between two checkpoints; 0 writes one after each step.
        run_is: what makes two runs the same: a checkpoint of another one is refused.

    Raises:
        ValueError: for ``resume`` without a path, or a file that is no checkpoint of this run; it is left alone.
    """

    def __init__(self, path: str | os.PathLike | None, resume: bool, seconds: float, run_is: dict[str, Any]) -> None:
        if resume and path is None:
            raise ValueError("resume needs checkpoint=, the path of the file to take the run up from.")
        if not seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be at least 0; got {seconds!r}.")
        self.path, self.seconds = None if path is None else Path(path), seconds
        self.run_is = json.loads(json.dumps(run_is))  # as it comes back from a file: tuples are lists
        if self.path is not None and (self.path.is_dir() or not self.path.parent.is_dir()):
            raise ValueError(f"checkpoint must be the path of a file in a folder that exists; got {str(path)!r}.")
        found = self._read() if self.path is not None and self.path.exists() else None
        self._saved = found if resume else None
        self._last = time.monotonic()

    def resume(self, run: Run) -> None:
        """Take the run up where the checkpoint was written, and its random states with it."""
        if self._saved is None:
            return
        state, world, threads = (self._saved[key] for key in ("run", "random", "threads"))
        if len(world) != run.group.world:
            raise ValueError(
                f"The checkpoint is of {len(world)} processes, this run of {run.group.world}; start as many."
            )
        if threads != torch.get_num_threads():
            warnings.warn(
                f"The checkpoint was written on {threads} threads, this run has {torch.get_num_threads()}: the result "
                "will differ in its last bits from an uninterrupted run's.",
                ConvergenceWarning,
                stacklevel=5,
            )
        run.load(state)
        random = world[run.group.rank]
        run.noise.set_state(random["noise"])
        torch.set_rng_state(random["cpu"])
        if run.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], run.device)
        self._saved = None

    def offer(self, run: Run) -> None:
        """Write a checkpoint if it is time; several processes do so only where they record."""
        if self.path is None or (run.group.world > 1 and run.mean.rows):
            return
        due = torch.tensor(float(time.monotonic() - self._last >= self.seconds), device=run.device)
        if run.group.total(due).item():
            self._write(run)

    def close(self, run: Run) -> None:
        """Write the last checkpoint of a run, and clear away what a process that was killed while writing left."""
        if self.path is not None:
            self._write(run)
        if self.path is not None and run.group.rank == 0:
            for left in self.path.parent.glob(f".{self.path.name}.*.part"):
                left.unlink(missing_ok=True)

    def _write(self, run: Run) -> None:
        random = [{"noise": run.noise.get_state(), "cpu": torch.get_rng_state()}]
        if run.device.type == "cuda":
            random[0]["cuda"] = torch.cuda.get_rng_state(run.device)
        gathered = {key: run.group.gather(value) for key, value in random[0].items()}
        random = [dict(zip(gathered, values)) for values in zip(*gathered.values())]
        tensors: dict[str, Tensor] = {}
        content = {"run": run.state(), "random": random, "threads": torch.get_num_threads()}
        header = {"kind": KIND, "run_is": self.run_is, "content": flatten(content, tensors)}
        files.write(self.path or "", tensors, header)
        self._last = time.monotonic()

    def _read(self) -> dict[str, Any]:
        """Return the content of the file, or raise; it is never changed here."""
        try:
            tensors, header = files.read(self.path or "")
        except ValueError as error:
            raise ValueError(f"checkpoint must be the path of a checkpoint or of no file yet: {error}") from error
        if header.get("kind") != KIND or "content" not in header:
            raise ValueError(
                f"checkpoint must be the path of a checkpoint; {str(self.path)!r} is another file of probdl."
            )
        self._check_same(header.get("run_is", {}))
        try:
            return unflatten(header["content"], tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The checkpoint {str(self.path)!r} is damaged: {error!r}.") from error

    def _check_same(self, other: dict[str, Any]) -> None:
        if found := difference(self.run_is, other):
            name, now, then = found
            raise ValueError(
                f"The checkpoint {str(self.path)!r} is of another run: its {name} was {str(then)[:200]}, and is "
                f"{str(now)[:200]} now. It is left alone; pass another path, or delete it."
            )


def difference(a: Any, b: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return where two trees of JSON first differ, and what stands there.

    Example:
        >>> difference({"seed": 1, "model": {"hidden": 3}}, {"seed": 1, "model": {"hidden": 4}})
        ('model hidden', 3, 4)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            if found := difference(a.get(key), b.get(key), f"{name} {key}".strip()):
                return found
        return None
    return None if a == b else (name, a, b)


def fingerprint(data: Any) -> Any:
    """Return what tells one data set from another: shapes, types and a checksum of tensors; of the rest, its class."""
    if data is None:
        return None
    if isinstance(data, Sequence) and all(isinstance(t, Tensor) for t in data):
        return [[list(t.shape), str(t.dtype), files.checksum({"": t})] for t in data]
    return type(data).__name__
