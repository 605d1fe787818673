"""The three ways to the minimum; each a short loop that knows nothing of models.

- ``descend``: follow the gradient of one loss. The loss is a function that is passed in.
- ``duel``: two players, a critic and a generator, each down the gradient of its own loss, in turn.
- ``iterate``: repeat a projection until it stands still.

``descend`` and ``duel`` are one loop, ``run``, with one or two ``player``s (a gradient step: clipping, averages, mixed
precision) who take batches from a ``streams`` (rows by index, or an iterable; from any place) and share them with the
processes ``together``. ``Keeper`` holds the best state and the last good one, ``checkpoint`` the whole state in a file,
``record`` what was seen. Beside them: ``cosine`` (in ``schedules``), ``bar`` (progress), ``one_thread`` (for small
tensors).
"""

from probdl.loops.batches import batches
from probdl.loops.descend import descend
from probdl.loops.duel import duel
from probdl.loops.iterate import iterate
from probdl.loops.keeper import Keeper
from probdl.loops.progress import bar
from probdl.loops.record import Descent, NotFiniteError
from probdl.loops.schedules import cosine
from probdl.threads import one_thread

__all__ = [
    "Descent",
    "Keeper",
    "NotFiniteError",
    "bar",
    "batches",
    "cosine",
    "descend",
    "duel",
    "iterate",
    "one_thread",
]
