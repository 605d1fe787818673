"""Every example in a docstring runs, by the name under which its module installs, and every public name has one."""

import dataclasses
import doctest
import importlib
import inspect

import matplotlib.pyplot as plt
import pytest
from house import sources

ROOMS = [
    "probdl.data",
    "probdl.divergences",
    "probdl.inference",
    "probdl.loops",
    "probdl.models",
    "probdl.nn",
    "probdl.viz",
]


@pytest.mark.parametrize("module", sources())
def test_the_examples_run(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    plt.close("all")
    assert failed == 0


def is_called_by_users(thing):
    """Say whether it is a function or a class that users construct, and not an error or a result."""
    is_result = dataclasses.is_dataclass(thing) or (inspect.isclass(thing) and issubclass(thing, (Exception, tuple)))
    return (inspect.isfunction(thing) or inspect.isclass(thing)) and not is_result


def public_names():
    """Return 'room.name' for everything that users call in the rooms."""
    for room in map(importlib.import_module, ROOMS):
        own = [name for name, thing in vars(room).items() if getattr(thing, "__module__", "") == room.__name__]
        for name in getattr(room, "__all__", [name for name in own if not name.startswith("_")]):
            if is_called_by_users(getattr(room, name)):
                yield f"{room.__name__}.{name}"


@pytest.mark.parametrize("name", list(public_names()))
def test_every_public_name_has_an_example(name):
    room, _, thing = name.rpartition(".")
    assert ">>> " in (getattr(importlib.import_module(room), thing).__doc__ or "")
