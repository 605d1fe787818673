"""The three ways to the minimum; each a short loop that knows nothing of models.

- ``descend``: follow the gradient of one loss. The loss is a function that is passed in.

The parts that loops share: ``batches`` (rows by index, on the device), ``Keeper`` (the best state, and the last good
one), ``bar`` (progress).
"""

from probdl.loops.batches import batches
from probdl.loops.descend import Descent, NotFiniteError, descend
from probdl.loops.keeper import Keeper
from probdl.loops.progress import bar

__all__ = ["Descent", "Keeper", "NotFiniteError", "bar", "batches", "descend"]
