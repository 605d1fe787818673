"""Posteriors, and densities in general.

- ``intervals``: ``intervals`` (estimates on lines), ``forest`` (the same with two intervals each) and ``marginals``
  (densities); several posteriors overlaid.
- ``pairs``: the joint density of each two entries, in a ``triangle`` of panels.
- ``contours``: ``density_contours``, the regions of the plane that hold a stated mass, of one density over another;
  ``regions`` finds them, of draws by ``smoothing``.
- ``traces``: ``convergence`` of an inference, ``chains`` of a sampler.
- ``calibration``: ``rank_histograms`` of simulation-based calibration.
"""
