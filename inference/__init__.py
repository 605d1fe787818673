"""A Pyro model in, a ``Posterior`` out.

- ``fitting`` (with ``choosing``): ``fit``, the one verb, and the choice of a method.
- Methods, each a value: ``coordinate_ascent`` (its room is ``free_form``), ``expectation_propagation``
  (``propagation``), ``group_ep`` (``groups``), ``mean_field`` and ``full_rank`` (``deterministic``),
  ``stochastic_vi`` (``stochastic``), ``laplace`` and ``nuts``.
- ``programs``: a room; an unmodified Pyro program becomes densities and factors.
- ``posterior``: the result, the same object for every method; its parts are in the room ``posteriors``. ``comparing``
  sets two side by side, ``comparing_methods`` several methods beside a reference, ``calibration`` tests a method on
  simulated data.
- ``gradients``: the course's gradient estimators.
"""

from probdl.inference.calibration import Calibration, simulation_based_calibration
from probdl.inference.comparing import compare_posteriors
from probdl.inference.comparing_methods import MethodComparison, compare_methods
from probdl.inference.coordinate_ascent import CoordinateAscent
from probdl.inference.expectation_propagation import ExpectationPropagation
from probdl.inference.fitting import fit
from probdl.inference.full_rank import FullRank
from probdl.inference.group_ep import GroupEP
from probdl.inference.laplace import Laplace
from probdl.inference.mean_field import MeanField
from probdl.inference.nuts import NUTS
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.diagnostics import Check
from probdl.inference.stochastic_vi import StochasticVI

__all__ = [
    "NUTS",
    "Calibration",
    "Check",
    "CoordinateAscent",
    "ExpectationPropagation",
    "FullRank",
    "GroupEP",
    "Laplace",
    "MeanField",
    "MethodComparison",
    "Posterior",
    "StochasticVI",
    "compare_methods",
    "compare_posteriors",
    "fit",
    "simulation_based_calibration",
]
