"""Factors and their moments: what expectation propagation stands on, and what others share with it.

- ``factors``: which factors are Gaussian (``quadratic``), and which see one affine projection (``projections``).
- ``site_factors``: the Normal factors that stand for them. ``tilted``: moments of tilted distributions.
"""
