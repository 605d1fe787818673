"""What the processes of one run share: their rows, their gradients, and the random states that a checkpoint needs.

Each process takes its share of the rows of each batch; gradients, losses and terms are means over all rows, so that a
run in several processes follows the run in one. Nothing is wrapped: losses stay ordinary functions of modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl import processes
from probdl.loops.batches import Batch


class Alone:
    """One process: all rows are its own."""

    rank, world = 0, 1

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's rows of a batch, and how many they count for."""
        return batch, len(batch[0])

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over processes."""
        return values

    def gather(self, value: Tensor) -> list[Tensor]:
        """Return the values of all processes, in their order."""
        return [value]

    def agree(self, module: nn.Module, *, buffers_only: bool = False) -> None:
        """Give all processes the parameters and buffers of the first one."""

    def wait(self) -> None:
        """Wait until all processes are here."""


class Together(Alone):
    """Several processes, through Lightning Fabric.

    Args:
        device: of this process.
        whole: whether batches are this process's share already, as a ``DistributedSampler`` makes them.
    """

    def __init__(self, device: torch.device, whole: bool) -> None:
        self.rank, self.world, self.device, self.whole = processes.rank(), processes.world(), device, whole
        self.fabric = _fabric(device.type)

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return every n-th row; all rows, for their n-th part, where there are fewer than processes."""
        if self.whole:
            return batch, len(batch[0])
        if len(batch[0]) < self.world:
            return batch, len(batch[0]) / self.world
        own = tuple(part[self.rank :: self.world] for part in batch)
        return own, len(own[0])

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over processes."""
        return self.fabric.all_reduce(values, reduce_op="sum")

    def gather(self, value: Tensor) -> list[Tensor]:
        """Return the values of all processes, in their order."""
        found = self.fabric.all_gather(value.to(self.device))
        return [v.to(value.device) for v in found]

    def agree(self, module: nn.Module, *, buffers_only: bool = False) -> None:
        """Give all processes the parameters and buffers of the first one."""
        with torch.no_grad():
            for tensor in [*module.buffers(), *([] if buffers_only else module.parameters())]:
                value = tensor.detach().clone(memory_format=torch.contiguous_format)
                tensor.copy_(self.total(value if self.rank == 0 else torch.zeros_like(value)))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.fabric.barrier()


def processes_of(module: nn.Module, data: Any, together: bool) -> Alone:
    """Return how this process stands to the others, and give the module of each the state of the first.

    Raises:
        ImportError: if there are several and Lightning Fabric is not installed.
    """
    if processes.world() == 1 or not together:
        return Alone()
    from torch.utils.data.distributed import DistributedSampler

    device = next(module.parameters()).device
    group = Together(device, isinstance(getattr(data, "sampler", None), DistributedSampler))
    group.agree(module)
    return group


def average_gradients(group: Alone, parameters: Sequence[nn.Parameter], rows: float, terms: Iterable[Tensor]) -> Tensor:
    """Replace the gradients by their means over the rows of all processes.

    Args:
        group: the processes.
        parameters: whose gradients are averaged; in a process where a parameter has none, it counts as zero.
        rows: what this process's batch counts for.
        terms: scalars that are means over its rows.

    Returns:
        The terms as means over all rows, and then the number of all rows.
    """
    scalars = torch.stack([*(t.detach().to(parameters[0]) for t in terms), parameters[0].new_ones(())])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([scalars * rows, *(g.flatten() * rows for g in gradients)])
    flat = group.total(flat)
    count = flat[len(scalars) - 1].clone()
    flat /= count
    for p, mean in zip(parameters, flat[len(scalars) :].split([p.numel() for p in parameters])):
        p.grad = mean.view_as(p).clone()
    return torch.cat([flat[: len(scalars) - 1], count[None]])


_FABRICS: dict[str, Any] = {}


def _fabric(kind: str) -> Any:
    """Return the Fabric of a kind of device; it starts the process group once."""
    if kind not in _FABRICS:
        import os

        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ImportError(
                f"WORLD_SIZE is {processes.world()}: several processes need Lightning Fabric. Install "
                "probdl[distributed]."
            ) from error
        local = int(os.environ.get("LOCAL_WORLD_SIZE", processes.world()))
        fabric = Fabric(accelerator=kind, devices=local, num_nodes=processes.world() // local, strategy="ddp")
        fabric.launch()
        _FABRICS[kind] = fabric
    return _FABRICS[kind]
