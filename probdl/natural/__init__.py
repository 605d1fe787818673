"""Exponential families: densities whose products add parameters, and whose moments decide the closest member.

- ``factors``, ``planes``: Normal factors in natural parameters, as expectation propagation multiplies and divides them.
- ``exponential``: what a family is, :math:`h(z) g(\\eta) \\exp(\\eta^\\top u(z))`. ``solving``: from E[u] to it.
- ``normals``, ``continuous``, ``discrete``: the families. ``naming``: all of them. ``triangles``: symmetric matrices.
- ``supports``: where p must lie. ``expectations``, ``integrals``: E[u] of draws, a distribution, a log-density.
- ``matching``: ``match_moments``, the member closest to a distribution.
"""

from probdl.natural.exponential import ExponentialFamily
from probdl.natural.factors import GaussianFactor, NormalFactor
from probdl.natural.matching import MomentMatch, match_moments
from probdl.natural.naming import FAMILIES, family_named

__all__ = [
    "FAMILIES",
    "ExponentialFamily",
    "GaussianFactor",
    "MomentMatch",
    "NormalFactor",
    "family_named",
    "match_moments",
]
