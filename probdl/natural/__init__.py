"""Exponential families: densities whose products add parameters, and whose moments decide the closest member.

- ``factors``: Normal factors in natural parameters, as expectation propagation multiplies and divides them.
- ``exponential``: the families, :math:`h(z) g(\\eta) \\exp(\\eta^\\top u(z))`. ``solving``: from moments to parameters.
"""

from probdl.natural.exponential import FAMILIES, ExponentialFamily, family_named
from probdl.natural.factors import GaussianFactor, NormalFactor

__all__ = ["FAMILIES", "ExponentialFamily", "GaussianFactor", "NormalFactor", "family_named"]
