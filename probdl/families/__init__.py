"""Conditional families: a module whose forward returns a distribution.

A network in ``probdl.nn`` maps numbers to numbers; a family here reads its output as the parameters of a
distribution, knows how to draw from it with a generator of one's own, and how to score rows by it. An entry of a row
that is NaN is missing: it has no term in the likelihood.

- ``Conditional``: what all of them are.
- ``MeanFieldNormal``: independent normals with mean and scale from a network, for encoders; ``reparameterised`` draws
  from it, ``standard_normal_kl`` and ``standard_normal_kls`` say how far it is from the prior.
- ``NormalHead``: rows around a network's output, with one scale or one for each entry in closed form;
  ``FreeScaleNormalHead`` learns them by the gradient, ``NetworkScaleNormalHead`` has them from the network.
- ``BernoulliHead``, ``CategoricalHead``, ``PoissonHead``: zeros and ones, one of several categories, counts.
- ``MixedHead``: a family for each group of columns; its distribution is a ``Joint``.
"""

from probdl.families.conditional import Conditional, observed
from probdl.families.discrete import BernoulliHead, CategoricalHead, PoissonHead
from probdl.families.mean_field import MeanFieldNormal, reparameterised, standard_normal_kl, standard_normal_kls
from probdl.families.mixed import Joint, MixedHead, Part
from probdl.families.normal import FreeScaleNormalHead, NetworkScaleNormalHead, NormalHead

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "Conditional",
    "FreeScaleNormalHead",
    "Joint",
    "MeanFieldNormal",
    "MixedHead",
    "NetworkScaleNormalHead",
    "NormalHead",
    "Part",
    "PoissonHead",
    "observed",
    "reparameterised",
    "standard_normal_kl",
    "standard_normal_kls",
]
