"""Parameters of Pyro programs (``pyro.param``, ``pyro.module``), in a store of their own in place of the global one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pyro

from probdl.inference.programs.program import Program


class Scoped:
    """A parameter store that stands in for Pyro's global one inside ``with``, and keeps its parameters.

    Example:
        >>> import pyro, torch
        >>> scope = Scoped()
        >>> with scope:
        ...     _ = pyro.param("a", torch.tensor(1.0))
        >>> "a" in pyro.get_param_store(), list(scope.state["params"])
        (False, ['a'])
    """

    def __init__(self) -> None:
        self.state: Any = {"params": {}, "constraints": {}}
        self._open: list[AbstractContextManager] = []

    def __enter__(self) -> Scoped:
        self._open.append(pyro.get_param_store().scope(self.state))
        self._open[-1].__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.pop().__exit__(*error)

    def wrap(self, model: Callable) -> Callable:
        """Return the model, which then finds its parameters here wherever it runs."""

        @functools.wraps(model)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return model(*args, **kwargs)

        return run


def has_parameters(program: Program) -> bool:
    """Whether the model of a program has parameters that can be learned."""
    scope = getattr(program, "scope", None)
    return bool(scope and scope.state["params"])
