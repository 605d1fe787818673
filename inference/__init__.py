"""A Pyro model in, a ``Posterior`` out.

- ``fitting`` (with ``choosing``): ``fit``, the one verb, and the choice of a method.
- ``program`` (with ``arguments``, ``latents``, ``checks``, ``enumeration``, ``recording``): an unmodified Pyro program
  becomes densities and factors.
- ``expectation_propagation`` (with ``factors``, ``projections``, ``quadratic``, ``site_factors``, ``tilted``): iterate
  local moment matching.
- ``mean_field``, ``full_rank`` (with ``deterministic_vi``, ``expectations``, ``fixed_draws``, ``gaussian_families``,
  ``trust_region``, ``linear_response``, ``starts``, ``vi_posterior``, ``advice``): a Gaussian that
  maximises the evidence lower bound.
- ``coordinate_ascent`` (with the room ``free_form``): iterate exact updates of factors, derived from the program.
- ``laplace``: a Gaussian at the mode. ``nuts``: Pyro's sampler, the reference.
- ``stochastic_vi``: the same bound on minibatches. Rows come from ``minibatches``, ``row_plates`` or ``streams``;
  latents that all rows share are fitted by ``global_fit`` (with ``batch_density``, ``curvature``, ``stochastic_steps``,
  ``stochastic_loop``, ``averaging``), those of each row by ``amortised`` (with ``guides``, ``network_guide``,
  ``pyro_guide``, ``network_loop``, ``amortised_posterior``, ``diagonal``); ``parameters`` holds what a model learns.
- ``gradients``: the course's two gradient estimators.
- ``posterior`` (with ``approximations``, ``gaussian``, ``sampled``): the result, the same object for every method; its
  questions are answered by ``diagnostics`` (with ``densities``), ``predictive``, ``exchange`` and ``saved`` (with
  ``supports``). ``comparing`` sets two side by side, ``calibration`` (with ``ranks``) tests a method on simulated data.
"""

from probdl.inference.calibration import Calibration, simulation_based_calibration
from probdl.inference.comparing import compare_posteriors
from probdl.inference.coordinate_ascent import CoordinateAscent
from probdl.inference.diagnostics import Check
from probdl.inference.expectation_propagation import ExpectationPropagation
from probdl.inference.fitting import fit
from probdl.inference.full_rank import FullRank
from probdl.inference.laplace import Laplace
from probdl.inference.mean_field import MeanField
from probdl.inference.nuts import NUTS
from probdl.inference.posterior import Posterior
from probdl.inference.stochastic_vi import StochasticVI

__all__ = [
    "NUTS",
    "Calibration",
    "Check",
    "CoordinateAscent",
    "ExpectationPropagation",
    "FullRank",
    "Laplace",
    "MeanField",
    "Posterior",
    "StochasticVI",
    "compare_posteriors",
    "fit",
    "simulation_based_calibration",
]
