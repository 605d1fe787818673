"""Exponential families: densities whose products add parameters, and whose moments decide the closest member.

- ``factors``: Normal factors in natural parameters, as expectation propagation multiplies and divides them.
- ``exponential``: the families, :math:`h(z) g(\\eta) \\exp(\\eta^\\top u(z))`. ``solving``: from moments to parameters.
- ``supports``: where p must lie. ``expectations``, ``integrals``: E[u] of draws, a distribution, a log-density.
- ``matching``: ``match_moments``, the member closest to a distribution.
"""

from probdl.natural.exponential import FAMILIES, ExponentialFamily, family_named
from probdl.natural.factors import GaussianFactor, NormalFactor
from probdl.natural.matching import MomentMatch, match_moments

__all__ = [
    "FAMILIES",
    "ExponentialFamily",
    "GaussianFactor",
    "MomentMatch",
    "NormalFactor",
    "family_named",
    "match_moments",
]
