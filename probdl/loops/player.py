"""One who follows the gradient of a loss: parameters, their optimiser, and a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from probdl.loops.average import Average
from probdl.loops.batches import Batch
from probdl.loops.keeper import not_finite
from probdl.loops.record import Loss, Terms, check_loss, parts, some
from probdl.loops.together import Alone, average_gradients

Rate = float | Callable[[float], float]
Make = Callable[[list[nn.Parameter]], Optimizer]
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Player:
    """A module, its loss, and how it steps.

    Args:
        module: whose parameters it moves.
        loss: (batch, generator) → a scalar, or a scalar and a dict of further ones.
        optimiser: steps; a schedule sets its rate.
        schedule: gives the rate from the fraction of the steps that are done, or None.
        clip: the largest norm of the gradient, or None.
        ema: the decay of the parameters' moving average, or None.
        precision: "bf16" or "fp16" computes the loss in mixed precision.
        compiled: whether to compile the loss, or the backend to compile with.
        name: in messages, such as "critic".
        group: the processes that step together; they have the same parameters already.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        optimiser: Optimizer,
        schedule: Callable[[float], float] | None,
        *,
        clip: float | None = None,
        ema: float | None = None,
        precision: str | None = None,
        compiled: bool | str | Callable[..., Any] = False,
        name: str = "",
        group: Alone | None = None,
    ) -> None:
        self.module, self.optimiser, self.schedule, self.name = module, optimiser, schedule, name
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.loss = _compiled(loss, compiled)
        self.clip = _positive_or_none(clip, "clip")
        self.average = None if ema is None else Average(self.parameters, ema)
        self.device = self.parameters[0].device
        self.precision, self.group = _precision(precision), group or Alone()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)

    def value(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, Terms]:
        """Return the loss and its further terms."""
        if self.precision is None:
            return parts(self.loss(batch, noise))
        with torch.autocast(self.device.type, self.precision):
            return parts(self.loss(batch, noise))

    def step(self, batch: Batch, noise: torch.Generator, done: float, number: int) -> tuple[float, Terms]:
        """Take one step on a batch; return its rows and the loss with its terms, before the step.

        Args:
            batch: of all processes.
            noise: for the loss.
            done: the fraction of the steps that are done.
            number: of this step, for messages.

        Raises:
            FloatingPointError: if the loss or, where it is clipped, the gradient is not finite.
        """
        own, rows = self.group.share(batch)
        value, terms = self.value(own, noise)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()
        found = {"loss": value, **terms}
        if self.group.world > 1:
            *means, count = average_gradients(self.group, self.parameters, rows, found.values())
            found, rows = dict(zip(found, means)), count.item()
        check_loss(found["loss"], {k: v for k, v in found.items() if k != "loss"}, self.module, number, self.name)
        if self.schedule is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.schedule(done)
        found |= self._clipped(number)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return rows, found

    def _clipped(self, number: int) -> Terms:
        """Clip the gradient; return its norm before, and whether it was clipped."""
        if self.clip is None:
            return {}
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if not math.isfinite(norm.item()) and not self.scaler.is_enabled():  # the scaler skips such a step itself
            bad = [n for n, p in self.module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            raise FloatingPointError(f"The gradient became {norm.item()} at step {number}; not finite are {some(bad)}.")
        nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        return {"gradient_norm": norm, "clipped": (norm > self.clip).to(norm)}

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on beside the parameters."""
        average = None if self.average is None else self.average.state()
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(), "average": average}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` returned."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"])

    def says(self) -> dict[str, Any]:
        """Return what makes two players alike, for a checkpoint to compare."""
        return {
            "parameters": [[n, list(p.shape), str(p.dtype)] for n, p in self.module.named_parameters()],
            "optimiser": type(self.optimiser).__name__,
            "clip": self.clip,
            "ema": None if self.average is None else self.average.decay,
            "precision": str(self.precision),
        }


def chosen_optimiser(
    module: nn.Module, make: Make | None, rate: Rate, name: str = "module", betas: Sequence[float] = (0.9, 0.999)
) -> Optimizer:
    """Return the optimiser that was passed, or Adam."""
    learnt = [p for p in module.parameters() if p.requires_grad]
    if not learnt:
        raise ValueError(f"{name} has no parameters to learn; pass one that has, with requires_grad=True.")
    if make is not None:
        return make(learnt)
    first = rate(0.0) if callable(rate) else rate
    least = 0.0 if callable(rate) else math.ulp(0.0)  # a schedule may start at zero
    if not least <= first < math.inf:
        raise ValueError(f"learning_rate must be positive; got {first!r}.")
    fused = learnt[0].device.type in ("cpu", "cuda")
    return torch.optim.Adam(learnt, lr=first, betas=(betas[0], betas[1]), fused=fused)


def all_not_finite(module: nn.Module, step: int) -> None:
    """Raise a FloatingPointError that names the parameters of a module that are not finite, if any is."""
    if bad := not_finite(module):
        raise FloatingPointError(f"After step {step} these parameters are not finite: {some(bad)}.")


def _compiled(loss: Loss, how: bool | str | Callable[..., Any]) -> Loss:
    """Return the loss, compiled if wanted."""
    if not how:
        return loss
    return torch.compile(loss) if how is True else torch.compile(loss, backend=how)


def _precision(name: str | None) -> torch.dtype | None:
    if name is not None and name not in PRECISIONS:
        raise ValueError(f"precision must be None, 'bf16' or 'fp16'; got {name!r}.")
    return None if name is None else PRECISIONS[name]


def _positive_or_none(value: float | None, name: str) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number or None; got {value!r}.")
    return value
