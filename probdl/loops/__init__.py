"""The three ways to the minimum; each a short loop that knows nothing of models.

- ``descend``: follow the gradient of one loss. The loss is a function that is passed in.
- ``iterate``: repeat a projection until it stands still.

The parts that loops share: ``batches`` (rows by index, on the device), ``Keeper`` (the best state, and the last good
one), ``bar`` (progress), ``record`` (losses, history, how it ended), ``one_thread`` (for small tensors).
"""

from probdl.loops.batches import batches
from probdl.loops.descend import descend
from probdl.loops.iterate import iterate
from probdl.loops.keeper import Keeper
from probdl.loops.progress import bar
from probdl.loops.record import Descent, NotFiniteError
from probdl.loops.schedules import cosine
from probdl.loops.threads import one_thread

__all__ = ["Descent", "Keeper", "NotFiniteError", "bar", "batches", "cosine", "descend", "iterate", "one_thread"]
