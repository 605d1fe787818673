"""Programs whose hyperparameters are named: parameters as sites with a flat prior, and sites held at fixed values."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints

from probdl.inference.programs.program import Program


class FlatPrior(TorchDistribution):
    """A density of one everywhere on a support, for a parameter that has no prior; its mean is where it starts."""

    arg_constraints: dict = {}

    def __init__(self, support: Any, start: Tensor) -> None:
        self._support, self._start = constraints.independent(support, start.ndim - support.event_dim), start
        super().__init__(torch.Size(), start.shape, validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """The constraint of the parameter."""
        return self._support

    @property
    def mean(self) -> Tensor:
        """Where the parameter starts."""
        return self._start

    def log_prob(self, value: Tensor) -> Tensor:
        """Return zero."""
        return value.new_zeros(())

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return the starting value, since a flat prior cannot be drawn from."""
        return self._start.expand(torch.Size(sample_shape) + self._start.shape)


class _ParametersAsSites(Messenger):
    """Turn parameters into sample sites with a flat prior."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.names:
            start, support = _start_and_constraint(msg)
            msg.update(type="sample", fn=FlatPrior(support, start), args=(), kwargs={}, cond_indep_stack=())


def _start_and_constraint(msg: Any) -> tuple[Tensor, Any]:
    store = pyro.get_param_store()
    if msg["name"] in store:
        return store[msg["name"]].detach(), store.get_state()["constraints"].get(msg["name"], constraints.real)
    start = msg["args"][1]
    start = start() if callable(start) else start
    return torch.as_tensor(start).detach(), msg["kwargs"].get("constraint", constraints.real)


class _HeldAt(Messenger):
    """Give sites and parameters fixed values, so that they are no sites any more."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _hold(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg.update(value=self.values[msg["name"]], done=True, stop=True)

    _pyro_sample = _hold
    _pyro_param = _hold


def parameters_of(program: Program) -> tuple[str, ...]:
    """Return the names of the ``pyro.param`` statements of a program."""
    nodes = program._trace(program._value_at(program.start)).nodes
    return tuple(name for name, site in nodes.items() if site["type"] == "param")


def with_parameters_as_sites(program: Program, names: tuple[str, ...]) -> Program:
    """Return the program in which these parameters are latent sites with a flat prior."""
    return _rewritten(program, lambda: _ParametersAsSites(names))


def held_at(program: Program, values: dict[str, Tensor]) -> Program:
    """Return the program in which these sites and parameters have fixed values, and are no sites any more."""
    return _rewritten(program, lambda: _HeldAt(values))


def _rewritten(program: Program, handler: Callable[[], Messenger]) -> Program:
    inner = program.model

    @wraps(inner)
    def model(*args: Any, **kwargs: Any) -> Any:
        with handler():
            return inner(*args, **kwargs)

    return Program(model, program.args, program.kwargs, dtype=program.dtype, device=program.device)
