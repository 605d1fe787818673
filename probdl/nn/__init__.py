"""Networks, and nothing but networks: no probability, no training, no data.

- ``MLP``: dense layers between any two shapes; without hidden layers it is one affine map.
- ``CNN``: images (n, c, h, w) → (n, outputs); its transpose is ``TransposedCNN``: (n, inputs) → (n, c, h, w).
- ``RNN``, ``LSTM``, ``GRU``: sequences (n, T, inputs) → (n, T, hidden · directions) and a state, ragged or not;
  each is a ``Recurrent``, whose ``parts`` are the weights by the names of the equations.
- ``seeded``: initial weights from a seed, with torch's global generator left as it was.

A module that returns a distribution lives in ``probdl.families``; a loop that trains one in ``probdl.loops``.
"""

from probdl.nn.cnn import CNN, TransposedCNN
from probdl.nn.mlp import MLP
from probdl.nn.recurrent import GRU, LSTM, RNN, Part, Recurrent
from probdl.nn.seeding import seeded

__all__ = ["CNN", "GRU", "LSTM", "MLP", "RNN", "Part", "Recurrent", "TransposedCNN", "seeded"]
