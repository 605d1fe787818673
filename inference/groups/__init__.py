"""Expectation propagation over groups of data, whose tilted moments are found in separate processes.

- ``partition``: the rows of a program in groups, or groups that the user passes. ``loading``: the data where they are
  needed. ``workers``: tasks for joblib.
- ``needs``: which latents a group's data see, and which belong to one group alone. ``density``: a group's
  log-likelihood over the latents that all groups share and its own.
- ``inner``: modes and curvatures of a group's own latents given the shared ones, many at a time; its log-likelihood
  with them integrated out by Laplace's method. ``start``: the posterior mode, found over all groups.
- ``tilted``: draws that give the moments of a tilted distribution, by importance sampling or NUTS.
- ``sites``: one Gaussian factor for each group, and the matching of moments. ``answer``: the posterior.
"""
