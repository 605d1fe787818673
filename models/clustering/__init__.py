"""Cluster analysis: which rows belong together.

- ``k_means``: ``KMeans``, centres by Lloyd's algorithm.
- ``gaussian_mixture``: ``GaussianMixture``, a variational mixture of normals. Its Pyro program, and the fit of one
  number of components, are in ``mixture_program``, the choice of the number in ``number_of_components``, the law of the
  next row in ``normal_predictive``.
"""
