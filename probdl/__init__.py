"""probdl: every method brings one distribution close to another.

What you hold of the two distributions (a closed form, a log-density, draws, or only a critic that tells them
apart) picks the divergence; you choose a family; and there are three ways to the minimum: descend, duel, iterate.

- ``probdl.divergences``: the divergences, each with its uncertainty.
- ``probdl.inference``: ``fit`` turns a Pyro model and data into a ``Posterior``.
- ``probdl.models``: the things you fit, such as ``VAE``.
- ``probdl.data``, ``probdl.nn``, ``probdl.viz``, ``probdl.loops``: data with exact truths, networks, pictures, loops.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probdl import data, divergences, inference, loops, models, nn, viz
    from probdl.access import Draws, LogDensity
    from probdl.errors import ConvergenceError, ConvergenceWarning

__version__ = "0.1.0"

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "Draws",
    "LogDensity",
    "data",
    "divergences",
    "inference",
    "loops",
    "models",
    "nn",
    "viz",
]

# In a source tree the folders of probdl.inference and probdl.models stand beside this one, not inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))

_HOME = {
    "Draws": "probdl.access",
    "LogDensity": "probdl.access",
    "ConvergenceError": "probdl.errors",
    "ConvergenceWarning": "probdl.errors",
}


def __getattr__(name: str) -> Any:
    """Load a room on first use, so that ``import probdl`` is fast and has no side effects."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in __all__:
        return import_module(f"probdl.{name}")
    raise AttributeError(f"module 'probdl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
