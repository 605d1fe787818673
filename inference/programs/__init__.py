"""An unmodified Pyro program becomes densities over its latents.

- ``program`` (with ``arguments``, ``latents``, ``bijections``, ``checks``): the one place that reads a trace.
- ``enumeration``: discrete latents are summed out. ``recording``: a density as a flat graph. ``derivatives`` of it.
- ``densities``: log-densities at stacks of draws. ``predictive``: the program run forwards.
- ``supports``: the spaces of latents, as text that a file can hold.
"""
