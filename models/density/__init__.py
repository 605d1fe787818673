"""Densities without parameters: kernel density estimation, from the sums of kernels up.

- ``kde``: ``KDE``, the model.
- ``distribution``: the estimate as a torch ``Distribution``.
- ``band``: a simultaneous confidence band for the smoothed density.
- ``mise``: exact errors of Gaussian kernels where the truth is a mixture of normals.
- ``bandwidths``, ``cross_validation``, ``plug_in``: how wide the kernels are.
- ``smoothing``: the kernels, their constants and draws.
- ``boundary``: reflection at the bounds of the data.
- ``sums``, ``tiles``: sums over all pairs of points, tile by tile.
"""
