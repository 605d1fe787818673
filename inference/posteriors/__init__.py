"""What a ``Posterior`` is made of, and the answers to its questions.

- ``approximations``: what each kind answers; ``gaussian`` and ``sampled`` are two of them. ``grid_mixture`` holds some
  latents on a ``lattice``.
- ``diagnostics``: how far to trust it. ``exchange``: for ArviZ. ``saved``: as a file. ``ranks``: for calibration.
"""
