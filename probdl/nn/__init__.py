"""Networks, and nothing but networks: no probability, no training, no data.

- ``MLP``: dense layers between any two shapes; without hidden layers it is one affine map.
- ``CNN``: images (n, c, h, w) → (n, outputs); its transpose is ``TransposedCNN``: (n, inputs) → (n, c, h, w).
- ``RNN``, ``LSTM``, ``GRU``: sequences (n, T, inputs) → (n, T, hidden · directions) and a state, ragged or not;
  each is a ``Recurrent``, whose ``parts`` are the weights by the names of the equations.
- ``ResidualBlock``: images to images of the same shape, x + F(x).
- ``hidden_jacobian``, ``cell_jacobian``, ``cell_direct_path``, ``gradient_norms``: how far a state remembers;
  ``weight_gradient_by_step``: the steps' shares in a gradient; ``pascanu``: when gradients must vanish or may explode;
  ``gates``: the values of the gates.
- ``seeded``: initial weights from a seed, with torch's global generator left as it was.

A module that returns a distribution lives in ``probdl.families``; a loop that trains one in ``probdl.loops``.
"""

from probdl.nn.bptt import SpectralCondition, pascanu, weight_gradient_by_step
from probdl.nn.cells import GRU, LSTM, RNN
from probdl.nn.cnn import CNN, TransposedCNN
from probdl.nn.jacobians import cell_direct_path, cell_jacobian, gradient_norms, hidden_jacobian
from probdl.nn.mlp import MLP
from probdl.nn.recurrent import Part, Recurrent
from probdl.nn.residual import ResidualBlock
from probdl.nn.seeding import seeded
from probdl.nn.unrolled import gates

__all__ = [
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "Part",
    "Recurrent",
    "ResidualBlock",
    "SpectralCondition",
    "TransposedCNN",
    "cell_direct_path",
    "cell_jacobian",
    "gates",
    "gradient_norms",
    "hidden_jacobian",
    "pascanu",
    "seeded",
    "weight_gradient_by_step",
]
