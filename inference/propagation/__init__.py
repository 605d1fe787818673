"""Factors and their moments: what expectation propagation stands on, and what others share with it.

- ``factors``: which factors are Gaussian (``quadratic``), and which see one (``projections``) or two (``pairs``) affine
  projections; they are found by cutting recorded graphs (``cuts``). ``given``: some latents held outside.
- ``site_factors`` and ``site_pairs``: the factors that stand for them, on a line and on a plane.
- ``tilted`` and ``tilted_plane``: moments of tilted distributions by quadrature; ``closed_forms``, and ``recognised``
  where they hold.
- ``weight_space``: the Gaussian that base and sites make. ``fixed_point``: the iteration, from ``newton_start``, with
  ``extrapolation``. ``solving``: the attempts and their order. ``report``: what is said of the result.
- ``evidence``: its value and gradient. ``hyperparameters``: at its maximum. ``outer_grid``: its weights.
- ``function_space`` (with ``conditioned``): the same for Gaussian processes, without the inverse of the kernel.
"""
